"""Stripe's objects in the shapes of all versions: found wherever that shape keeps it, or None."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kyora.billing import stripe_objects
from kyora.billing.stripe_objects import Unreadable
from tests.unit.stripe_shapes import JSON, KEYS

SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "stripe-samples"
FILES = sorted(SAMPLES.glob("*-shape/*.json"))
START, END = 1_790_000_000, 1_792_592_000


def at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def new(**more: Any) -> dict[str, Any]:
    item = {
        "id": "si_1",
        "price": {"id": "price_1"},
        "quantity": 2,
        "current_period_start": START,
        "current_period_end": END,
    }
    return {
        "id": "sub_1",
        "customer": "cus_1",
        "status": "active",
        "created": START,
        "items": {"data": [item], "has_more": False},
        "cancel_at_period_end": False,
    } | more


def old(**more: Any) -> dict[str, Any]:
    found = new(current_period_start=START, current_period_end=END, **more)
    found["items"] = {"data": [{"id": "si_1", "plan": {"id": "price_1"}, "quantity": 2}]}
    return found


SHAPES = {"of today": new, "before 2025-03-31": old}


@pytest.mark.parametrize("shape", SHAPES)
def test_period_price_and_item_are_found_in_every_shape(shape: str) -> None:
    found = stripe_objects.subscription(SHAPES[shape]())
    assert (found.period_start, found.period_end) == (at(START), at(END))
    assert (found.price, found.item, found.quantity) == ("price_1", "si_1", 2)
    assert found.whole


ENDINGS: list[tuple[dict[str, Any], datetime | None]] = [
    ({}, None),
    ({"cancel_at_period_end": True}, at(END)),
    ({"cancel_at": END + 5}, at(END + 5)),
    ({"cancel_at": END + 5, "cancel_at_period_end": True}, at(END + 5)),
    ({"cancel_at": None}, None),
    ({"cancel_at": 0}, None),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("said", "ends"), ENDINGS)
def test_a_scheduled_end_is_the_flag_or_the_time(
    said: dict[str, Any], ends: datetime | None, shape: str
) -> None:
    assert stripe_objects.subscription(SHAPES[shape](**said)).cancel_at == ends


def test_items_with_periods_of_their_own_give_access_until_the_last_one() -> None:
    sub = new()
    sub["items"]["data"].append({"id": "si_2", "current_period_end": END + 9})
    assert stripe_objects.subscription(sub).period_end == at(END + 9)


@pytest.mark.parametrize(
    ("items", "whole"),
    [({"data": [], "has_more": False}, False), ({"data": [{}], "has_more": True}, False)],
)
def test_a_list_that_is_cut_off_is_not_the_whole_subscription(
    items: dict[str, Any], whole: bool
) -> None:
    assert stripe_objects.subscription(new(items=items)).whole is whole


def test_what_is_missing_everywhere_is_none_and_never_1970() -> None:
    found = stripe_objects.subscription(
        new(items={"data": [{"id": "si_1"}]}, trial_end=0, ended_at="x")
    )
    assert (found.period_start, found.period_end, found.trial_end, found.ended_at) == (None,) * 4


LINE = {"parent": {"subscription_item_details": {"subscription": "sub_1"}}}
INVOICES: list[tuple[dict[str, Any], str | None]] = [
    ({"parent": {"subscription_details": {"subscription": "sub_1"}}}, "sub_1"),
    ({"parent": {"subscription_details": {"subscription": {"id": "sub_1"}}}}, "sub_1"),
    ({"subscription": "sub_1"}, "sub_1"),
    ({"subscription": {"id": "sub_1"}}, "sub_1"),
    ({"parent": None, "lines": {"data": [{}, LINE]}}, "sub_1"),
    ({"lines": {"data": [{"subscription": "sub_1"}]}}, "sub_1"),
    ({"parent": None, "lines": {"data": []}}, None),
    ({"parent": {"quote_details": {}}}, None),
]


@pytest.mark.parametrize(("more", "subscription"), INVOICES)
def test_an_invoices_subscription_is_found_wherever_it_stands(
    more: dict[str, Any], subscription: str | None
) -> None:
    assert stripe_objects.subscription_of(more) == subscription


def test_an_upcoming_invoice_is_no_invoice() -> None:
    with pytest.raises(Unreadable):
        stripe_objects.invoice({"customer": "cus_1", "status": "draft", "currency": "usd"})


def test_of_a_card_no_more_than_its_end_is_read() -> None:
    card = {"brand": "visa", "last4": "4242424242424242", "exp_month": 4, "exp_year": 2034}
    found = stripe_objects.payment_method({"id": "pm_1", "type": "card", "card": card}, "cus_1")
    assert found.last4 == "4242"


# ---- payloads from real accounts


@pytest.mark.skipif(not FILES, reason="the recorded payloads are not beside this checkout")
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_payload_that_stripe_wrote_is_read(file: Path) -> None:
    found = stripe_objects.event(json.loads(file.read_text()))
    assert found is not None
    kind = found.object.get("object")
    if kind == "subscription":
        sub = stripe_objects.subscription(found.object)
        assert sub.id.startswith("sub_")
        assert sub.price
        assert sub.period_start
        assert sub.period_end
        assert sub.period_start.year > 2020
        assert sub.period_end > sub.period_start
        scheduled = found.object.get("cancel_at") or found.object.get("cancel_at_period_end")
        assert bool(sub.cancel_at) == bool(scheduled)
    if kind == "invoice":
        invoice = stripe_objects.invoice(found.object)
        assert invoice.created_at.year > 2000  # some are scrubbed to 2001
        assert (invoice.subscription is not None) == ('"sub_' in file.read_text())
        assert invoice.subscription is None or invoice.subscription.startswith("sub_")
    if kind == "payment_method":
        assert stripe_objects.payment_method(found.object, "cus_1").last4
    if kind == "customer":
        assert stripe_objects.customer(found.object).id == found.customer_id


def test_every_fixture_object_of_stripes_is_read() -> None:
    file = SAMPLES / "openapi-fixtures3-billing-subset.json"
    if not file.exists():
        pytest.skip("the recorded payloads are not beside this checkout")
    fixtures = json.loads(file.read_text())
    fixtures = fixtures.get("resources", fixtures)
    assert stripe_objects.subscription(fixtures["subscription"]).period_end
    assert stripe_objects.invoice(fixtures["invoice"]).id
    assert stripe_objects.customer(fixtures["customer"]).id


# ---- and any that could be


@given(st.dictionaries(KEYS, JSON))
def test_no_payload_makes_it_do_anything_but_read_or_refuse(found: dict[str, Any]) -> None:
    for read in (
        stripe_objects.subscription,
        stripe_objects.invoice,
        stripe_objects.customer,
        lambda it: stripe_objects.payment_method(it, "cus_1"),
    ):
        try:
            read(found)
        except Unreadable:
            continue
    stripe_objects.event({"object": "event", "data": found} | found)
    stripe_objects.event(found)
