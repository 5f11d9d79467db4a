"""What a subscription costs and what is planned for it, by Stripe's payload."""

from datetime import UTC, datetime
from typing import Any

import pytest

from kyora.billing import stripe_terms
from kyora.billing.stripe_terms import PLANNED_FROM, Terms

MONTH = {"interval": "month", "interval_count": 1}
PRICE = {"id": "price_1", "unit_amount": 900, "currency": "eur", "recurring": MONTH}
ITEM = {"id": "si_1", "price": PRICE, "quantity": 2}
SHOWN = {
    "id": "si_1",
    "price": "price_1",
    "amount": 900,
    "currency": "eur",
    "interval": "month",
    "intervalCount": 1,
    "quantity": 2,
}
PLAIN = Terms([SHOWN], None, True, None, None, None)


def moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def subscription(item: dict[str, Any] = ITEM, **more: Any) -> dict[str, Any]:
    return {"id": "sub_1", "items": {"data": [item]}} | more


def test_a_plain_subscription_has_its_items_and_nothing_planned() -> None:
    assert stripe_terms.read(subscription()) == PLAIN
    assert stripe_terms.read({"items": {"data": [ITEM, ITEM | {"id": "si_2"}]}}) == PLAIN._replace(
        items=[SHOWN, SHOWN | {"id": "si_2"}]
    )
    assert stripe_terms.read({"items": {"data": ["si_1", ITEM]}}) == PLAIN
    assert stripe_terms.read({}) == PLAIN._replace(items=[])
    assert not PLAIN.release_due


PRICES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a plan instead of a price": (
        {
            "price": None,
            "plan": {"id": "plan_1", "amount": 700, "currency": "usd", "interval": "year"},
        },
        {"price": "plan_1", "amount": 700, "currency": "usd", "interval": "year"},
    ),
    "a plan beside a price": ({"plan": {"id": "plan_1", "amount": 700}}, {}),
    "a plan of three months": (
        {"price": None, "plan": {"id": "p", "interval": "month", "interval_count": 3}},
        {"price": "p", "amount": None, "currency": None, "intervalCount": 3},
    ),
    "a price by its id": (
        {"price": "price_9"},
        {"price": "price_9", "amount": None, "currency": None, "interval": None},
    ),
    "a price of three months": (
        {"price": PRICE | {"recurring": {"interval": "month", "interval_count": 3}}},
        {"intervalCount": 3},
    ),
    "a price that says no count": (
        {"price": PRICE | {"recurring": {"interval": "week"}}},
        {"interval": "week"},
    ),
    "a price of tiers": ({"price": PRICE | {"unit_amount": None}}, {"amount": None}),
    "a price of parts of a cent": ({"price": PRICE | {"unit_amount": 9.5}}, {"amount": None}),
    "a price of what is used": (
        {"price": PRICE | {"recurring": MONTH | {"usage_type": "metered"}}, "quantity": None},
        {"amount": None, "quantity": None},
    ),
    "a price of each seat": (
        {"price": PRICE | {"recurring": MONTH | {"usage_type": "licensed"}}},
        {},
    ),
    "a price of packages": (
        {"price": PRICE | {"transform_quantity": {"divide_by": 5, "round": "up"}}},
        {"amount": None},
    ),
    "a plan of packages": (
        {"price": None, "plan": {"id": "p", "amount": 700, "transform_usage": {"divide_by": 5}}},
        {"price": "p", "amount": None, "currency": None, "interval": None},
    ),
    "a price of nothing": ({"price": PRICE | {"unit_amount": 0}}, {"amount": 0}),
    "no quantity": ({"quantity": None}, {"quantity": None}),
    "a discount of its own": ({"discounts": ["di_1"]}, {"discounted": True}),
    "discounts, of which there are none": ({"discounts": []}, {}),
}


@pytest.mark.parametrize("name", PRICES)
def test_an_item_costs_what_its_price_says(name: str) -> None:
    changed, expected = PRICES[name]
    [found] = stripe_terms.read(subscription(ITEM | changed)).items
    assert found == SHOWN | expected


def test_a_discount_of_the_subscription_is_one_of_each_item() -> None:
    [found] = stripe_terms.read(subscription(discounts=["di_1"])).items
    assert found == SHOWN | {"discounted": True}


NOW, END, LATER = 1_000_000, 2_000_000, 3_000_000
RUNNING = {"start_date": NOW, "end_date": END}


def phase(start: Any, *items: tuple[Any, int]) -> dict[str, Any]:
    return {
        "start_date": start,
        "items": [{"price": price, "quantity": quantity} for price, quantity in items],
    }


def schedule(*phases: Any, **more: Any) -> dict[str, Any]:
    return {"id": "sub_sched_1", "current_phase": RUNNING, "phases": list(phases)} | more


SAME, OTHER = phase(END, ("price_1", 2)), phase(END, ("price_2", 1))
FEWER = phase(END, ("price_1", 1))
CHANGE = ([{"price": "price_2", "quantity": 1}], moment(END))
NOTHING = (None, None)
PHASES: dict[str, tuple[dict[str, Any], tuple[Any, Any]]] = {
    "another price": (schedule(OTHER), CHANGE),
    "another price, expanded": (schedule(phase(END, ({"id": "price_2"}, 1))), CHANGE),
    "another quantity": (schedule(FEWER), ([{"price": "price_1", "quantity": 1}], moment(END))),
    "one item more": (
        schedule(phase(END, ("price_1", 2), ("price_2", 1))),
        (
            [{"price": "price_1", "quantity": 2}, {"price": "price_2", "quantity": 1}],
            moment(END),
        ),
    ),
    "the same": (schedule(SAME), NOTHING),
    "nothing": (schedule(), NOTHING),
    "the running phase": (schedule(phase(NOW, ("price_2", 1))), NOTHING),
    "a phase a second too early": (schedule(phase(END - 1, ("price_2", 1))), NOTHING),
    "the next of two": (schedule(phase(LATER, ("price_3", 1)), OTHER), CHANGE),
    "the next of two, in order": (schedule(OTHER, phase(LATER, ("price_3", 1))), CHANGE),
    "the same, and another later": (schedule(SAME, phase(LATER, ("price_3", 1))), NOTHING),
    "a phase without a date": (schedule(phase(None, ("price_3", 1)), OTHER), CHANGE),
    "no running phase": (schedule(OTHER, current_phase=None), NOTHING),
    "a running phase without an end": (
        schedule(phase(0, ("price_2", 1)), current_phase={}),
        ([{"price": "price_2", "quantity": 1}], moment(0)),
    ),
    "a phase before 1970, without an end": (
        schedule(phase(-1, ("price_2", 1)), current_phase={}),
        NOTHING,
    ),
    "a phase of no items": (schedule(phase(END)), ([], moment(END))),
}


@pytest.mark.parametrize("name", PHASES)
def test_the_next_phase_is_planned_if_it_changes_something(name: str) -> None:
    planned, (pending, at) = PHASES[name]
    assert stripe_terms.read(subscription(schedule=planned)) == PLAIN._replace(
        schedule="sub_sched_1", pending=pending, pending_at=at
    )


def test_a_phase_that_only_orders_its_items_otherwise_changes_nothing() -> None:
    other = ITEM | {"id": "si_2", "price": PRICE | {"id": "price_2"}}
    found = {
        "items": {"data": [ITEM, other]},
        "schedule": schedule(phase(END, ("price_2", 2), ("price_1", 2))),
    }
    assert stripe_terms.read(found).pending is None


def test_a_schedule_that_is_only_named_is_not_known() -> None:
    named = PLAIN._replace(schedule="sub_sched_1", known=False)
    assert stripe_terms.read(subscription(schedule="sub_sched_1")) == named


def test_a_schedule_of_ours_that_was_overtaken_is_to_be_released() -> None:
    def planned_from(price: str) -> Terms:
        ours = schedule(OTHER, metadata={PLANNED_FROM: price})
        return stripe_terms.read(subscription(schedule=ours))

    pending, at = CHANGE
    known = PLAIN._replace(schedule="sub_sched_1")
    assert planned_from("price_1") == known._replace(pending=pending, pending_at=at)
    assert planned_from("price_0") == known._replace(release_due=True)
    assert planned_from("") == known._replace(pending=pending, pending_at=at)
    assert PLANNED_FROM == "kyora_from"  # schedules at Stripe have it


def resumes(*plans: Any) -> datetime | None:
    return stripe_terms.read(subscription(schedule=schedule(pause_schedules=list(plans)))).resume_at


def back(at: Any, status: str | None = "scheduled") -> dict[str, Any]:
    return {"resume": {"resume_at": at, "status": {"type": status} if status else None}}


def test_a_pause_ends_when_its_first_plan_that_is_still_to_come_says() -> None:
    assert resumes() is None
    assert resumes(back(END)) == moment(END)
    assert resumes(back(END, None)) == moment(END)
    assert resumes(back(END, "succeeded")) is None
    assert resumes(back(NOW, "succeeded"), back(END)) == moment(END)
    assert resumes(back(END), back(LATER)) == moment(END)
    assert resumes(back("soon"), {"resume": None}, back(LATER)) == moment(LATER)
