"""Objects as a caller sees them: inner fields left out, ids expanded, lists in pages."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from local.stripe.core.errors import Refusal, invalid, missing
from local.stripe.core.params import Params, integer, listing

Object = dict[str, Any]
Objects = Mapping[str, Object]

# What an object leaves out of its answers and events until `expand` asks for it.
INCLUDABLE = {
    "price": {"tiers", "currency_options"},
    "invoice": {"payments", "confirmation_secret"},
    "checkout.session": {"line_items"},
    "customer": {"subscriptions"},
    "coupon": {"applies_to"},
}
_EXPANDABLE = {
    *("customer", "subscription", "latest_invoice", "invoice", "default_payment_method", "payment"),
    *("payment_method", "payment_intent", "product", "default_price", "price", "latest_charge"),
    *("pending_setup_intent", "configuration", "schedule", "source", "latest_revision", "charge"),
    *("discounts", "promotion_code", "coupon", "refund", "credit_note", "test_clock"),
}
_DEEPEST = 4
_NESTED = (dict, list)


def copy(value: Any) -> Any:
    """Return a copy of JSON data without the stand-in's private fields."""
    # Most values are scalars: a call for each of them would be half of an engine's time.
    if isinstance(value, dict):
        return {
            name: copy(item) if isinstance(item, _NESTED) else item
            for name, item in value.items()
            if name[:1] != "_"
        }
    if isinstance(value, list):
        return [copy(item) if isinstance(item, _NESTED) else item for item in value]
    return value


def show(objects: Objects, found: Object, include: frozenset[str] = frozenset()) -> Object:
    """Return an object as the API and its events show it."""
    shown: Object = copy(found)
    if found.get("deleted") is True:
        return shown  # a deleted object shows its id only
    if dress := _DRESS.get(found["object"]):
        dress(objects, shown)
    for name in INCLUDABLE.get(found["object"], set()) - include:
        shown.pop(name, None)
    return shown


def _subscription(objects: Objects, shown: Object) -> None:
    items = shown["items"]["data"]
    for item in items:
        _item(objects, item)
    alone = items[0] if len(items) == 1 else {}
    shown["plan"], shown["quantity"] = alone.get("plan"), alone.get("quantity")


def _item(objects: Objects, item: Object) -> None:
    price = objects[item["price"]]
    item["plan"], item["price"] = plan(price), show(objects, price)


def _customer(objects: Objects, shown: Object) -> None:
    found = [show(objects, sub) for sub in objects.values() if _runs(sub, shown["id"])]
    shown["subscriptions"] = whole(found, f"/v1/customers/{shown['id']}/subscriptions")


def _runs(found: Object, customer: str) -> bool:
    return (
        found["object"] == "subscription"
        and found["customer"] == customer
        and found["status"] not in ("canceled", "incomplete_expired")
    )


def _session(objects: Objects, shown: Object) -> None:
    for line in shown["line_items"]["data"]:
        line["price"] = show(objects, objects[line["price"]])


def _invoice(objects: Objects, shown: Object) -> None:
    payments = shown["payments"]
    payments["data"] = [show(objects, objects[name]) for name in payments["data"]]


_DRESS: dict[str, Callable[[Objects, Object], None]] = {
    "invoice": _invoice,
    "subscription": _subscription,
    "subscription_item": _item,
    "checkout.session": _session,
}


def plan(price: Object) -> Object:
    """Return the old name of a recurring price, still part of every subscription item."""
    recurring = price["recurring"] or {}
    return {
        "id": price["id"],
        "object": "plan",
        "active": price["active"],
        "amount": price["unit_amount"],
        "amount_decimal": price["unit_amount_decimal"],
        "billing_scheme": price["billing_scheme"],
        "created": price["created"],
        "currency": price["currency"],
        "interval": recurring.get("interval"),
        "interval_count": recurring.get("interval_count"),
        "livemode": False,
        "metadata": dict(price["metadata"]),
        "meter": None,
        "nickname": price["nickname"],
        "product": price["product"],
        "tiers_mode": price["tiers_mode"],
        "transform_usage": None,
        "trial_period_days": None,
        "usage_type": recurring.get("usage_type", "licensed"),
    }


# ---- expand


def expanded(objects: Objects, shown: Object, params: Params) -> Object:
    """Return an answer with everything its `expand[]` names."""
    for path in listing(params.get("expand"), "expand") or []:
        steps = str(path).split(".")
        if len(steps) > _DEEPEST + (steps[0] == "data"):
            raise Refusal(
                400,
                f"You cannot expand more than {_DEEPEST} levels of a property. Property: {path}",
                code="property_expansion_max_depth",
                param="expand",
            )
        _expand(objects, shown, steps, str(path))
    return shown


def _expand(objects: Objects, place: Any, steps: Sequence[str], path: str) -> None:
    if not steps or place is None:
        return
    if isinstance(place, list):
        for item in place:
            _expand(objects, item, steps, path)
        return
    name, rest = steps[0], steps[1:]
    if not isinstance(place, dict) or not _may(place, name):
        raise Refusal(400, f"This property cannot be expanded ({path}).", param="expand")
    stored = objects.get(str(place.get("id")))
    if name not in place and stored is not None:
        place[name] = _included(objects, stored, name)
    value = place.get(name)
    if isinstance(value, list) and name in _EXPANDABLE:
        place[name] = [show(objects, objects[v]) if v in objects else v for v in value]
    if isinstance(value, str) and name in _EXPANDABLE:
        target = objects.get(value)
        place[name] = show(objects, target) if target else value
    _expand(objects, place.get(name), rest, path)


def _may(place: Object, name: str) -> bool:
    return (
        name in place and (name in _EXPANDABLE or isinstance(place[name], dict | list | type(None)))
    ) or name in INCLUDABLE.get(str(place.get("object")), set())


def _included(objects: Objects, stored: Object, name: str) -> Any:
    if name == "subscriptions":
        shown: Object = {"id": stored["id"]}
        _customer(objects, shown)
        return shown[name]
    return show(objects, stored, frozenset({name})).get(name)


# ---- lists


def whole(data: list[Object], url: str) -> Object:
    """Return an embedded list that holds everything."""
    return {"object": "list", "data": data, "has_more": False, "url": url, "total_count": len(data)}


def page(objects: Objects, found: Sequence[Object], params: Params, url: str) -> Object:
    """Return one page of objects that are given newest first."""
    limit = integer(params.get("limit"), "limit")
    limit = 10 if limit is None else limit
    if not 1 <= limit <= 100:
        raise invalid("Invalid limit: it must be between 1 and 100.", "limit")
    start, end, back = 0, len(found), bool(params.get("ending_before"))
    if after := params.get("starting_after"):
        start = _place(found, after, "starting_after") + 1
    if before := params.get("ending_before"):
        end = _place(found, before, "ending_before")
    chosen = found[max(start, end - limit) : end] if back else found[start:end][:limit]
    more = end - start > limit
    data = [show(objects, item) for item in chosen]
    return {"object": "list", "data": data, "has_more": more, "url": url}


def _place(found: Sequence[Object], name: str, param: str) -> int:
    for place, item in enumerate(found):
        if item["id"] == name:
            return place
    raise missing("object", name, param)


def within(value: Any, range_: Any, param: str) -> bool:
    """Return whether a time satisfies `created=…` or `created[gte]=…` and its likes."""
    if range_ in (None, ""):
        return True
    if not isinstance(range_, dict):
        return bool(value == integer(range_, param))
    tests: dict[str, Callable[[int, int], bool]] = {
        "gt": lambda a, b: a > b,
        "gte": lambda a, b: a >= b,
        "lt": lambda a, b: a < b,
        "lte": lambda a, b: a <= b,
    }
    for name, limit in range_.items():
        bound = integer(limit, f"{param}[{name}]")
        if name not in tests or bound is None:
            raise invalid(f"Received unknown parameter: {param}[{name}]", param)
        if value is None or not tests[name](value, bound):
            return False
    return True


def difference(before: Object, after: Object) -> Object:
    """Return `previous_attributes`: what each changed field was; nested hashes only in part."""
    changed: Object = {}
    for name in [*before, *(name for name in after if name not in before)]:
        was, now = before.get(name), after.get(name)
        if was == now:
            continue
        if isinstance(was, dict) and isinstance(now, dict):
            changed[name] = difference(was, now)
        else:
            changed[name] = was
    return changed
