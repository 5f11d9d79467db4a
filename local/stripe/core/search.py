"""`/search`: Stripe's query language over the objects there are.

`status:'active' AND metadata['plan']:'gold'`, `-email~'test'`, `created>1700000000`, `x:null`;
all of the clauses with AND or any of them with OR.
"""

import re
from collections.abc import Callable
from typing import Any

from local.stripe.core.errors import invalid
from local.stripe.core.params import Params, integer, need, text
from local.stripe.core.routes import Handler, Route, search
from local.stripe.core.state import State
from local.stripe.core.views import Object

_FIELDS = {
    "charge": {"amount", "created", "currency", "customer", "status", "refunded"},
    "customer": {"created", "email", "name", "phone"},
    "invoice": {
        *("created", "currency", "customer", "last_finalization_error_code", "number"),
        *("receipt_number", "status", "subscription", "total"),
    },
    "payment_intent": {"amount", "created", "currency", "customer", "status"},
    "price": {"active", "currency", "lookup_key", "product", "type"},
    "product": {"active", "description", "name", "shippable", "url"},
    "subscription": {"canceled_at", "created", "customer", "status"},
}
_CLAUSE = re.compile(
    r"\s*(?P<no>-)?(?P<field>\w+)(?:\[(?P<q>['\"])(?P<key>.*?)(?P=q)\])?"
    r"(?P<sign>[:~]|[<>]=?)(?P<value>'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[\w.-]+)\s*"
)
type _Test = Callable[[Object], bool]


def _found(kind: str) -> Handler:
    def find(state: State, params: Params) -> Object:
        test = _query(kind, str(need(params, "query")))
        found = [item for item in state.all(kind) if test(item)]
        limit = integer(params.get("limit"), "limit")
        limit = 10 if limit is None else limit
        if not 1 <= limit <= 100:
            raise invalid("Invalid limit: it must be between 1 and 100.", "limit")
        page = text(params.get("page"), "page") or "0"
        if not page.isdecimal():
            raise invalid("Invalid page.", "page")
        start = int(page)
        more = start + limit < len(found)
        return {
            "object": "search_result",
            "data": [state.show(item) for item in found[start : start + limit]],
            "has_more": more,
            "next_page": str(start + limit) if more else None,
            "url": f"/v1/{kind}s/search",
        }

    return find


def _query(kind: str, query: str) -> _Test:
    tests: list[_Test] = []
    joins: set[str] = set()
    rest = query
    while True:
        match = _CLAUSE.match(rest)
        if match is None:
            raise invalid(f"We were unable to parse your search query: {query}", "query")
        tests.append(_clause(kind, match))
        rest = rest[match.end() :]
        if not rest:
            break
        join = re.match(r"(AND|OR)\b", rest, re.IGNORECASE)
        joins.add(join[1].upper() if join else "AND")
        rest = rest[join.end() :] if join else rest
    if len(joins) > 1:
        raise invalid("You cannot combine AND and OR in a search query.", "query")
    together = any if joins == {"OR"} else all
    return lambda item: together(test(item) for test in tests)


def _clause(kind: str, match: re.Match[str]) -> _Test:
    field, key, sign = match["field"], match["key"], match["sign"]
    if field not in _FIELDS[kind] | {"metadata"} or (field == "metadata") != (key is not None):
        raise invalid(f"Field `{field}` is an unsupported search field for {kind}s.", "query")
    value = match["value"]
    quoted = value[:1] in "'\""
    wanted = re.sub(r"\\(.)", r"\1", value[1:-1]) if quoted else value

    def test(item: Object) -> bool:
        found = item["metadata"].get(key) if key is not None else _value(item, field)
        return _compare(sign, found, wanted, null=not quoted and wanted == "null")

    return (lambda item: not test(item)) if match["no"] else test


def _value(item: Object, field: str) -> Any:
    if item["object"] == "invoice" and field == "subscription":
        details = (item["parent"] or {}).get("subscription_details") or {}
        return details.get("subscription")
    return item.get(field)


def _compare(sign: str, found: Any, wanted: str, *, null: bool) -> bool:
    if null or found is None:
        return null and found is None
    if sign == "~":
        return len(wanted) >= 3 and wanted.lower() in str(found).lower()
    if sign == ":":
        said = str(found).lower() if isinstance(found, bool) else str(found)
        return said.lower() == wanted.lower()
    if not isinstance(found, int) or not re.fullmatch(r"-?\d+", wanted):
        raise invalid(f"Values of `{sign}` must be numbers.", "query")
    number = int(wanted)
    return bool(
        (found > number and ">" in sign)
        or (found < number and "<" in sign)
        or (found == number and "=" in sign)
    )


ROUTES: tuple[Route, ...] = tuple(search(f"/v1/{kind}s/search", _found(kind)) for kind in _FIELDS)
