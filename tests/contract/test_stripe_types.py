"""What we send to Stripe and read of its objects, held against the SDK's own types.

`local/stripe/sdk/our_calls.json` is a recording of the billing tests (`make stripe-record`); what
stands in the code is compared with it, so that no call and no field is left out.
"""

import ast
import re
import tomllib
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kyora.billing import stripe_objects
from kyora.billing.api import sessions
from kyora.billing.events import types as registry
from kyora.billing.plans import derive, push
from local.settings import ROOT
from local.stripe.core.state import API_VERSION
from local.stripe.sdk import our_calls
from local.stripe.sdk.contract import Fault, check_params, check_reads, read_shape
from local.stripe.sdk.types import Shape, installed

OURS = our_calls.load()
SOURCES = sorted((ROOT / "layers/kyora/kyora/billing").rglob("*.py"))
# Fields that today's objects do not have, and why they are read.
OTHER_SHAPES = {
    # Before 2025-03-31.basil; `plan` and `quantity` are still sent, and documented no more.
    "subscription": {"current_period_end", "current_period_start", "plan", "quantity"},
    "invoice": {"subscription"},
    # A plan, the price's older name, has them beside its id.
    "price": {"amount"},
    "subscription_item": {"price.amount", "price.interval", "price.interval_count"},
}
# Read of any object that an event is about: whose it is, and whether a request of ours made it.
OF_ANY_OBJECT = {"object", "id", "customer", "customer.id", "client_reference_id", "metadata"}
OF_ANY_OBJECT |= {"created"}
# `stripe_client`'s functions, and those that hand a call on to them, with the method they use.
CALLS = {"call": None, "pages": "GET", "pages_of": "GET", "_ask": None, "_list": "GET"}


def ids(path: str) -> str:
    return path.replace("{}", "xyz_1")


# ---- the recording


def test_every_call_of_ours_is_one_that_stripe_takes() -> None:
    for call in OURS.calls:
        assert check_params(call["method"], ids(call["path"]), call["params"]) == [], call


def test_what_our_calls_expand_are_fields_of_what_they_return() -> None:
    for call in OURS.calls:
        route = installed().route(call["method"], ids(call["path"]))
        assert route is not None
        (ref,) = (route.answer.listed or route.answer).classes
        kind = next(kind for kind, found in installed().objects.items() if found == ref)
        paths = [path.removeprefix("data.") for path in call["params"].get("expand", [])]
        assert check_reads(kind, paths) == [], call


@pytest.mark.parametrize("kind", OURS.reads)
def test_a_field_that_we_read_is_one_that_stripe_sends(kind: str) -> None:
    unknown = set(check_reads(kind, OURS.reads[kind]))
    assert unknown - OTHER_SHAPES.get(kind, set()) - OF_ANY_OBJECT == set()


def test_a_shape_that_is_no_longer_sent_is_not_one_of_today() -> None:
    for kind, paths in OTHER_SHAPES.items():
        assert set(check_reads(kind, paths)) == paths


# ---- the code


def call_sites() -> Iterator[tuple[str, str, str, set[str]]]:
    """Yield each call in the code: where, method, path with `{}` for ids, literal parameters."""
    for source in SOURCES:
        if source.name == "stripe_client.py":
            continue
        for node in ast.walk(ast.parse(source.read_text())):
            if not isinstance(node, ast.Call) or (name := called(node)) not in CALLS:
                continue
            words = [text for arg in node.args if (text := literal(arg)) is not None]
            method = CALLS[name] or (words.pop(0).upper() if len(words) > 1 else "")
            names = {key.arg for key in node.keywords if key.arg} - {"idempotency_key"}
            if words and method:
                yield f"{source.name}:{node.lineno}", method, f"/v1/{words[0]}", names


def called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def literal(node: ast.expr) -> str | None:
    """Return a text, with `{}` where something is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(p.value) if isinstance(p, ast.Constant) else "{}" for p in node.values)
    return None


def test_every_call_in_the_code_has_been_recorded() -> None:
    sites = list(call_sites())
    assert len(sites) > 20
    missing = []
    for where, method, path, names in sites:
        pattern = re.escape(path).replace(r"\{\}", ".+")
        alike = [c for c in OURS.calls if c["method"] == method]
        alike = [c for c in alike if re.fullmatch(pattern, c["path"])]
        recorded = set().union(*(c["params"] for c in alike))
        if not alike or names - recorded:
            missing.append(f"{where} {method} {path} {sorted(names - recorded)}")
    assert missing == [], "make stripe-record"


def test_no_other_module_calls_stripe() -> None:
    for source in (ROOT / "layers/kyora/kyora").rglob("*.py"):
        if source.name != "stripe_client.py":
            assert "raw_request" not in source.read_text(), source


@pytest.mark.parametrize("module", [stripe_objects, derive, push, sessions])
def test_every_field_that_a_reader_of_objects_names_has_been_recorded(module: ModuleType) -> None:
    """In these modules a name that is looked up is one of an object of Stripe's."""
    recorded = {step for paths in OURS.reads.values() for path in paths for step in path.split(".")}
    recorded |= {step for paths in OTHER_SHAPES.values() for p in paths for step in p.split(".")}
    named = keys(Path(str(module.__file__)).read_text()) - recorded
    of_rows = {"limits"}  # of a plan of ours, which `derive` compares with Stripe's
    ours_alone = (
        {"workspaceId", "correlationId", "traceparent"}
        | of_rows
        | {n for n in named if n.startswith(("kyora_", "limit_"))}
    )
    assert named - ours_alone == set(), "make stripe-record"


def keys(source: str) -> set[str]:
    """Return the names that are looked up in dictionaries."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and called(node) == "get" and node.args:
            found.add(literal(node.args[0]))
        elif isinstance(node, ast.Subscript):
            found.add(literal(node.slice))
        elif isinstance(node, ast.Call) and called(node) in ("_text", "_moment", "_money"):
            found.add(literal(node.args[-1]))
    return {name for name in found if name}


# ---- words


def test_every_status_and_event_that_we_name_is_a_word_of_stripes() -> None:
    statuses = read_shape("subscription", "status")
    assert statuses is not None
    assert set(stripe_objects.STATUSES) == statuses.words
    types = read_shape("event", "type")
    assert types is not None
    assert {*registry.HANDLERS, *registry.CATALOGUE} <= types.words


def test_the_version_we_ask_for_is_the_one_whose_types_these_are() -> None:
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    locked = {p["version"] for p in lock["package"] if p["name"] == "stripe"}
    assert locked == {version("stripe")}
    assert installed().version == stripe_objects.API_VERSION == API_VERSION


# ---- the checker itself


@pytest.mark.parametrize(
    ("method", "path", "params", "expected"),
    [
        (
            *("POST", "/v1/subscriptions/sub_1/resume", {"billing_cycle_anchor": "unchanged"}),
            ("billing_cycle_anchor", None),
        ),
        (
            *("POST", "/v1/subscriptions/sub_1/resume", {"billing_cycle_anchor": {"type": "soon"}}),
            ("billing_cycle_anchor[type]", None),
        ),
        (
            *("POST", "/v1/subscriptions/sub_1", {"items": [{"id": "si_1", "foo": "1"}]}),
            ("items[0][foo]", "parameter_unknown"),
        ),
        (
            *("POST", "/v1/subscriptions/sub_1", {"items": {"0": {"id": "si_1", "foo": "1"}}}),
            ("items[0][foo]", "parameter_unknown"),
        ),
        (
            *("POST", "/v1/prices", {"currency": "usd", "recurring": {"interval_count": 2}}),
            ("recurring[interval]", "parameter_missing"),
        ),
        (
            *("POST", "/v1/prices", {"currency": "usd", "unit_amount": "9.99"}),
            ("unit_amount", "parameter_invalid_integer"),
        ),
        (
            *("POST", "/v1/subscriptions/sub_1", {"cancel_at_period_end": "maybe"}),
            ("cancel_at_period_end", None),
        ),
        ("POST", "/v1/subscriptions/sub_1", {"items": "si_1"}, ("items", None)),
        (
            *("POST", "/v1/subscriptions/sub_1", {"items[0][foo]": "1"}),
            ("items[0][foo]", "parameter_unknown"),
        ),
        ("POST", "/v1/products", {"name": {"en": "x"}}, ("name", None)),
        ("POST", "/v1/products", {"name": ""}, ("name", "parameter_invalid_empty")),
        ("POST", "/v1/customers", {"metadata": {"a": {"b": "c"}}}, ("metadata[a]", None)),
        ("POST", "/v1/nowhere", {}, ("", "url_unknown")),
    ],
)
def test_what_stripe_would_refuse_is_named_as_stripe_names_it(
    method: str, path: str, params: dict[str, Any], expected: tuple[str, str | None]
) -> None:
    found = check_params(method, path, params)
    assert [(fault.param, fault.code) for fault in found] == [expected]


@pytest.mark.parametrize(
    ("method", "path", "params"),
    [
        ("POST", "/v1/subscriptions/sub_1", {"cancel_at": "", "trial_end": "now"}),
        ("POST", "/v1/subscriptions/sub_1", {"cancel_at": "min_period_end"}),
        ("POST", "/v1/subscriptions/sub_1", {"cancel_at": "1790000000", "metadata": ""}),
        ("POST", "/v1/products/prod_1", {"metadata": {"limit_x": "", "1": "a"}, "active": "true"}),
        ("post", "/v1/products/prod_1", {"metadata": ["a", "b"], "active": True, "name": None}),
        ("GET", "/v1/prices", {"lookup_keys": {"0": "a"}, "created": {"gte": "1"}, "limit": "3"}),
        ("GET", "/v1/subscriptions/search", {"query": "status:'active'"}),
        ("POST", "/v1/prices", {"currency": "usd", "recurring[interval]": "month"}),
    ],
)
def test_what_stripe_takes_is_taken_in_form_and_in_values(
    method: str, path: str, params: dict[str, Any]
) -> None:
    assert check_params(method, path, params) == []


def places(params: Any, shape: Shape, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the place of every object inside parameters whose members the SDK names."""
    if isinstance(params, Mapping) and shape.classes:
        yield path
        known = installed().members(shape.classes[0])
        for name, value in params.items():
            yield from places(value, known[name].shape, (*path, name))
    elif isinstance(params, list) and shape.items:
        for number, value in enumerate(params):
            yield from places(value, shape.items, (*path, number))


@given(st.data())
def test_an_unknown_member_is_found_wherever_it_is(data: st.DataObject) -> None:
    call = data.draw(st.sampled_from(OURS.calls))
    route = installed().route(call["method"], ids(call["path"]))
    assert route is not None
    assert route.params is not None
    shape = Shape(classes=(route.params,))
    place = data.draw(st.sampled_from(list(places(call["params"], shape))))
    broken = with_member(call["params"], place)
    outer = "".join(f"[{step}]" if n else str(step) for n, step in enumerate(place))
    param = f"{outer}[foo]" if outer else "foo"
    assert check_params(call["method"], ids(call["path"]), broken) == [
        Fault(param, "parameter_unknown", f"Received unknown parameter: {param}")
    ]


def with_member(params: Any, place: tuple[Any, ...]) -> Any:
    if not place:
        return {**params, "foo": "bar"}
    if isinstance(params, list):
        return [with_member(v, place[1:]) if n == place[0] else v for n, v in enumerate(params)]
    return {k: with_member(v, place[1:]) if k == place[0] else v for k, v in params.items()}


def test_the_whole_sdk_can_be_read() -> None:
    sdk = installed()
    assert len(sdk.routes) > 400
    for route in sdk.routes:
        if route.params:
            sdk.members(route.params)
    for ref in sdk.objects.values():
        sdk.members(ref)
