"""What billing decides without a database: downgrades, transitions, schedules, a plan's item."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kyora import limits
from kyora.billing import stripe_objects
from kyora.billing.api import directions
from kyora.billing.mirror import lifecycle, plan_items, terms
from kyora.billing.models import Plan
from kyora.billing.stripe_objects import Item, StripeSubscription
from kyora.billing.stripe_terms import Terms

# ---- a change of plan


def plan(
    businesses: int = 5,
    members: int = 5,
    amount: int = 1000,
    interval: str | None = "month",
    count: int = 1,
) -> Plan:
    said = {"maxBusinesses": businesses, "maxTeamMembers": members}
    return Plan(
        id="a",
        name="A",
        description="",
        amount=amount,
        interval=interval,
        interval_count=count,
        features={},
        limits=limits.whole(said),
        active=True,
    )


CHANGES: dict[str, tuple[Plan, Plan, bool]] = {
    "fewer of everything": (plan(9, 9), plan(5, 5), True),
    "fewer of one thing": (plan(9, 5), plan(5, 5), True),
    "fewer, at a higher price": (plan(9, 9, 100), plan(5, 5, 900), True),
    "more, at a lower price": (plan(5, 5, 900), plan(9, 9, 100), False),
    "more of one thing": (plan(5, 5), plan(5, 9), False),
    "from no limit": (plan(-1, 5), plan(9, 5), True),
    "to no limit": (plan(9, 5, 900), plan(-1, 5, 100), False),
    "more of this and fewer of that, cheaper": (plan(9, 5, 900), plan(5, 9, 800), True),
    "more of this and fewer of that, dearer": (plan(9, 5, 800), plan(5, 9, 900), False),
    "more of this and fewer of that, as dear": (plan(9, 5), plan(5, 9), False),
    "more of this and fewer of that, cheaper by the day": (
        plan(9, 5, 1000),
        plan(5, 9, 9000, "year"),
        True,
    ),
    "more of this and fewer of that, dearer by the day": (
        plan(9, 5, 9000, "year"),
        plan(5, 9, 1000),
        False,
    ),
    "the same": (plan(), plan(), False),
    "the same for less": (plan(amount=900), plan(amount=800), True),
    "the same for more": (plan(amount=800), plan(amount=900), False),
    "a month instead of a year": (plan(amount=9000, interval="year"), plan(), True),
    "a year instead of a month": (plan(), plan(amount=9000, interval="year"), False),
    "a year that is cheaper": (plan(amount=9000), plan(amount=8000, interval="year"), False),
    "a month instead of three": (plan(count=3), plan(count=1), True),
    "three months instead of one": (plan(count=1), plan(count=3), False),
    "a week instead of a month": (plan(), plan(interval="week"), True),
    "without an interval, for less": (plan(), plan(amount=900, interval=None), True),
    "without an interval, for more": (plan(), plan(amount=1100, interval=None), False),
    "an unknown interval, for less": (plan(), plan(amount=900, interval="moon"), True),
    "an unknown interval, for more": (plan(), plan(amount=1100, interval="moon"), False),
    "a year instead of thirteen months": (plan(count=13), plan(interval="year"), True),
    "thirty days, for less": (plan(), plan(amount=900, interval="day", count=30), True),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_goes_down_by_limits_then_by_price(name: str) -> None:
    current, wanted, down = CHANGES[name]
    assert directions.goes_down(current, wanted) is down


# ---- a change of status

PAUSED, RESUMED, RECOVERED = "paused", "resumed", "recovered"
NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
TURNS: list[tuple[dict[str, Any], str, str | None]] = [
    ({}, "active", None),
    ({}, "paused", PAUSED),
    ({"status": "active"}, "active", None),
    ({"status": "active"}, "paused", PAUSED),
    ({"status": "active"}, "past_due", None),
    ({"status": "trialing"}, "active", None),
    ({"status": "incomplete"}, "active", None),
    ({"status": "past_due"}, "active", RECOVERED),
    ({"status": "unpaid"}, "active", RECOVERED),
    ({"status": "past_due"}, "unpaid", None),
    ({"status": "past_due"}, "trialing", None),
    ({"status": "past_due"}, "paused", PAUSED),
    ({"status": "paused"}, "active", RESUMED),
    ({"status": "paused", "grace_since": None}, "active", RESUMED),
    ({"status": "paused", "grace_since": NOW}, "active", RECOVERED),
    ({"status": "active", "grace_since": NOW}, "active", None),
    ({"status": "paused"}, "paused", None),
    ({"status": "paused"}, "canceled", None),
]


@pytest.mark.parametrize(("before", "status", "expected"), TURNS)
def test_a_transition_is_between_what_we_had_and_what_stripe_has(
    before: dict[str, Any], status: str, expected: str | None
) -> None:
    found = stripe_objects.subscription(
        {"id": "sub_1", "customer": "cus_1", "status": status, "created": 1, "items": {"data": []}}
    )
    assert lifecycle._transition(before, found) == expected


# ---- what is planned

ITEMS = [{"id": "si_1", "price": "price_1"}]
PLANNED = [{"price": "price_2"}]
SOON, LATE = NOW + timedelta(days=1), NOW + timedelta(days=9)
NAMED = Terms(ITEMS, "sub_sched_1", False, None, None, None)
READ = Terms(ITEMS, "sub_sched_1", True, PLANNED, SOON, LATE)
ROW = {
    "items": ITEMS,
    "doubtful": False,
    "schedule_id": "sub_sched_1",
    "pending": PLANNED,
    "pending_at": SOON,
    "resume_at": LATE,
}
KNOWN: dict[str, tuple[dict[str, Any], Terms, object, bool]] = {
    "what was read": ({"items": None}, READ, NOW, True),
    "the schedule that we know": (ROW, NAMED, NOW, True),
    "no schedule, as we know": (
        ROW | {"schedule_id": None, "pending_at": None, "resume_at": None},
        NAMED._replace(schedule=None),
        NOW,
        True,
    ),
    "another schedule": (ROW, NAMED._replace(schedule="sub_sched_2"), NOW, False),
    "other items": (ROW, NAMED._replace(items=[]), NOW, False),
    "of no items that we know": (ROW | {"items": None}, NAMED._replace(items=[]), NOW, False),
    "a row in doubt": (ROW | {"doubtful": True}, NAMED, NOW, False),
    "a row that does not say": (ROW | {"doubtful": None}, NAMED, NOW, False),
    "a change that has begun": (ROW, NAMED, SOON, False),
    "a change that is about to": (ROW, NAMED, SOON - timedelta(seconds=1), True),
    "a pause that is over": (ROW | {"pending_at": None}, NAMED, LATE, False),
    "a pause that is not": (ROW | {"pending_at": None}, NAMED, SOON, True),
    "a period that is not said, and nothing planned": (
        ROW | {"pending_at": None, "resume_at": None},
        NAMED,
        None,
        True,
    ),
    "a period that is not said, after the change": (
        ROW | {"pending_at": datetime(2020, 1, 1, tzinfo=UTC)},
        NAMED,
        None,
        False,
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_schedule_is_read_when_we_do_not_know_what_it_plans(name: str) -> None:
    row, found, begun, expected = KNOWN[name]
    assert terms.known(row, found, begun) is expected


def test_the_terms_are_kept_as_they_are_and_those_of_a_named_schedule_as_they_were() -> None:
    assert terms.values(READ._replace(release_due=True)) == {
        "items": '[{"id": "si_1", "price": "price_1"}]',
        "schedule": "sub_sched_1",
        "pending": '[{"price": "price_2"}]',
        "pending_at": SOON,
        "resume_at": LATE,
        "release_due": True,
        "kept": False,
    }
    found = terms.values(NAMED)
    assert (found["pending"], found["kept"], found["release_due"]) == (None, True, False)


def test_terms_that_drifted_are_shown_with_ours_and_stripes() -> None:
    assert terms.drift(ROW, READ) == {}
    assert terms.drift(ROW, NAMED) == {}  # a name says nothing of what it plans
    other = Terms([], "sub_sched_2", True, None, LATE, SOON)
    assert terms.drift(ROW, other) == {
        "terms.items": (ITEMS, []),
        "terms.schedule_id": ("sub_sched_1", "sub_sched_2"),
        "terms.pending": (PLANNED, None),
        "terms.pending_at": (SOON, LATE),
        "terms.resume_at": (LATE, SOON),
    }
    assert terms.drift(None, NAMED) == {
        "terms.items": (None, ITEMS),
        "terms.schedule_id": (None, "sub_sched_1"),
    }


# ---- the item that is the plan

DAY = [NOW + timedelta(days=number) for number in range(9)]


def item(name: str, **changed: Any) -> Item:
    """An item of a price of its own, in a period of its own."""
    usual = {
        "id": name,
        "price": f"price_{name}",
        "product": None,
        "quantity": 1,
        "currency": "eur",
        "interval": "month",
        "interval_count": 1,
        "period_start": DAY[0],
        "period_end": DAY[1],
    }
    return Item(**{**usual, **changed})


def offer(name: str, **changed: Any) -> dict[str, Any]:
    usual = {
        "id": name,
        "name": name.title(),
        "product_id": None,
        "currency": "eur",
        "interval": "month",
        "interval_count": 1,
        "amount": 1000,
        "limits": {},
        "active": True,
        "offered": None,
        "priced": None,
    }
    return {**usual, **changed}


LARGE = {"limits": {"maxBusinesses": 9}}
OF_A, OF_B = {"offered": "price_a"}, {"offered": "price_b"}
PROD = {"product": "prod"}
OURS = {"product_id": "prod"}
PLACES: dict[str, tuple[list[Item], list[dict[str, Any]], str, str | None]] = {
    "its own price": ([item("a")], [offer("pro", **OF_A)], "a", "pro"),
    "an older price of it": ([item("a")], [offer("pro", priced="price_a")], "a", "pro"),
    "behind an add-on": ([item("a"), item("b")], [offer("pro", **OF_B)], "b", "pro"),
    "the better of two plans": (
        [item("a"), item("b")],
        [offer("pro", **OF_A), offer("max", **OF_B, **LARGE)],
        "b",
        "max",
    ),
    "the dearer of two plans": (
        [item("a"), item("b")],
        [offer("pro", **OF_A), offer("max", **OF_B, amount=1001)],
        "b",
        "max",
    ),
    "the first of two that are alike": (
        [item("a"), item("b")],
        [offer("one", **OF_B), offer("two", **OF_A)],
        "a",
        "two",
    ),
    "a price that two plans have had": (
        [item("a")],
        [offer("now", **OF_A), offer("then", priced="price_a")],
        "a",
        "then",
    ),
    "of no plan": ([item("a"), item("b")], [offer("pro", offered="price_c")], "a", None),
    "of no price": ([item("a", price=None)], [offer("pro")], "a", None),
    "of no quantity": (
        [item("a", quantity=0), item("b")],
        [offer("pro", **OF_A, **LARGE), offer("base", **OF_B)],
        "b",
        "base",
    ),
    "of no quantity, behind an add-on": (
        [item("a", quantity=0), item("b")],
        [offer("pro", **OF_A)],
        "b",
        None,
    ),
    "of no quantity, alone": ([item("a", quantity=0)], [offer("pro", **OF_A)], "a", "pro"),
    "of a quantity that is not said": (
        [item("a"), item("b", quantity=None)],
        [offer("pro", **OF_B)],
        "b",
        "pro",
    ),
    "another price of our product": ([item("a", **PROD)], [offer("pro", **OURS)], "a", "pro"),
    "of another product": ([item("a", **PROD)], [offer("pro", product_id="other")], "a", None),
    "of no product": ([item("a")], [offer("pro")], "a", None),
    "its own price before a product's": (
        [item("a", **PROD), item("b")],
        [offer("max", **OURS, **LARGE), offer("base", **OF_B)],
        "b",
        "base",
    ),
    "a product's plan before an add-on": (
        [item("b"), item("a", **PROD)],
        [offer("pro", **OURS)],
        "a",
        "pro",
    ),
    "a product's plan of that currency": (
        [item("a", **PROD)],
        [offer("a", **OURS, currency="usd"), offer("pro-eur", **OURS, active=False)],
        "a",
        "pro-eur",
    ),
    "a product's plan of that interval": (
        [item("a", **PROD, interval="year")],
        [offer("a", **OURS), offer("pro-year", **OURS, active=False, interval="year")],
        "a",
        "pro-year",
    ),
    "a product's plan of that many intervals": (
        [item("a", **PROD, interval_count=3)],
        [offer("a", **OURS), offer("pro-3", **OURS, active=False, interval_count=3)],
        "a",
        "pro-3",
    ),
    "a product's plan of intervals that are not said": (
        [item("a", **PROD, interval_count=None)],
        [
            offer("a", **OURS, interval_count=2),
            offer("pro-1", **OURS, active=False),
            offer("b", **OURS, interval_count=0),
        ],
        "a",
        "pro-1",
    ),
    "a product's plan that is offered": (
        [item("a", **PROD, currency="gbp")],
        [offer("a", **OURS, active=False), offer("pro-usd", **OURS, currency="usd")],
        "a",
        "pro-usd",
    ),
    "a product's plan of the shortest name": (
        [item("a", **PROD, currency="gbp")],
        [offer("pro-eur", **OURS), offer("pro", **OURS, currency="usd")],
        "a",
        "pro",
    ),
    "a product's plan of the last name": (
        [item("a", **PROD, currency="gbp")],
        [offer("pro-b", **OURS), offer("pro-c", **OURS), offer("pro-a", **OURS)],
        "a",
        "pro-c",
    ),
}


def subscription(*items: Item) -> StripeSubscription:
    found = stripe_objects.subscription(
        {
            "id": "sub_1",
            "customer": "cus_1",
            "status": "active",
            "created": 1,
            "items": {"data": []},
        }
    )
    return found._replace(items=items, period_start=DAY[7], period_end=DAY[8])


@pytest.mark.parametrize("name", PLACES)
def test_the_item_of_a_plan_is_found_by_its_price(name: str) -> None:
    items, plans, place, plan_id = PLACES[name]
    found = plan_items.choose(subscription(*items), plans)
    assert (found.found.item, found.plan_id) == (place, plan_id)
    [chosen] = [one for one in items if one.id == place]
    assert (found.found.price, found.found.quantity) == (chosen.price, chosen.quantity)


def test_the_period_is_that_of_the_plans_item_if_it_says_one() -> None:
    def period(plan: dict[str, Any], **changed: Any) -> tuple[object, object]:
        placed = plan_items.choose(subscription(item("a", **changed)), [plan]).found
        return placed.period_start, placed.period_end

    ours, other = offer("pro", **OF_A), offer("pro", **OF_B)
    assert period(ours) == (DAY[0], DAY[1])
    assert period(ours, period_end=None) == (DAY[7], DAY[8])
    assert period(other) == (DAY[7], DAY[8])


def test_a_subscription_without_items_is_of_no_plan() -> None:
    empty = subscription()
    assert plan_items.choose(empty, [offer("pro")]) == (empty, None, None)
