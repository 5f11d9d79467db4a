"""What a workspace may do: each line of the table in `billing/access.py`, and its ends in time."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kyora import limits
from kyora.billing import access, plan_order
from kyora.billing.access import Decision

NOW = datetime(2026, 3, 31, 12, tzinfo=UTC)
SECOND, DAYS = timedelta(seconds=1), 7
WEEK = timedelta(days=DAYS)
SMALL, LARGE = ({"maxBusinesses": n, "maxTeamMembers": n} for n in (1, 5))


def row(**more: Any) -> dict[str, Any]:
    """A subscription as the mirror has it, paid by the month."""
    return {
        "id": "sub_1",
        "status": "active",
        "payment_failed": False,
        "quantity": 1,
        "began_at": NOW - 90 * timedelta(days=1),
        "cancel_at": None,
        "grace_since": None,
        "unplanned_since": None,
        "plan_id": "small",
        "limits": SMALL,
        "amount": 1000,
        "interval": "month",
        "interval_count": 1,
    } | more


def choose(*rows: dict[str, Any]) -> Decision:
    found = access.choose(rows, NOW, DAYS)
    # The order in which Postgres has them decides nothing.
    assert found == access.choose(rows[::-1], NOW, DAYS)
    return found


FAILED = {"status": "paused", "payment_failed": True}
# What a subscription says; the access that it gives, until when, and by which rule.
ALONE: list[tuple[str, dict[str, Any], str, datetime | None, str]] = [
    ("active", {}, "full", None, "it is active"),
    ("on trial", {"status": "trialing"}, "full", None, "it is trialing"),
    ("to be cancelled", {"cancel_at": NOW + WEEK}, "full", NOW + WEEK, "it is active"),
    ("an item without quantity", {"quantity": None}, "full", None, "it is active"),
    ("unpaid", {"status": "unpaid"}, "free", None, "it is unpaid"),
    ("paused", {"status": "paused"}, "free", None, "it is paused"),
    ("incomplete", {"status": "incomplete"}, "free", None, "it is incomplete"),
    (
        "due since this second",
        {"status": "past_due", "grace_since": NOW},
        "grace",
        NOW + WEEK,
        "its payment failed, in the grace period",
    ),
    (
        "paused because a payment failed",
        FAILED | {"grace_since": NOW - SECOND},
        "grace",
        NOW + WEEK - SECOND,
        "its payment failed, in the grace period",
    ),
    (
        "the last second of grace",
        {"status": "past_due", "grace_since": NOW - WEEK + SECOND},
        "grace",
        NOW + SECOND,
        "its payment failed, in the grace period",
    ),
    (
        "the end of grace",
        {"status": "past_due", "grace_since": NOW - WEEK},
        "free",
        None,
        "its payment failed and the grace period is over",
    ),
    (
        "due, nobody knows since when: from its beginning",
        {"status": "past_due", "began_at": NOW - WEEK + SECOND},
        "grace",
        NOW + SECOND,
        "its payment failed, in the grace period",
    ),
    (
        "due, and to be cancelled sooner: the grace period is shown",
        {"status": "past_due", "grace_since": NOW, "cancel_at": NOW + SECOND},
        "grace",
        NOW + WEEK,
        "its payment failed, in the grace period",
    ),
    (
        "at a price that is no plan's any more",
        {"unplanned_since": NOW - SECOND},
        "grace",
        NOW + WEEK - SECOND,
        "its price is no plan's, in the grace period",
    ),
    (
        "at such a price for too long",
        {"unplanned_since": NOW - WEEK},
        "free",
        None,
        "its price is no plan's and the grace period is over",
    ),
    (
        "at such a price, and due before that",
        {"status": "past_due", "grace_since": NOW - 2 * SECOND, "unplanned_since": NOW - SECOND},
        "grace",
        NOW + WEEK - 2 * SECOND,
        "its payment failed, in the grace period",
    ),
    (
        "due, and at such a price before that",
        {"status": "past_due", "grace_since": NOW - SECOND, "unplanned_since": NOW - 2 * SECOND},
        "grace",
        NOW + WEEK - 2 * SECOND,
        "its price is no plan's, in the grace period",
    ),
    ("of no plan ever", {"limits": None, "plan_id": None}, "free", None, "its price is no plan's"),
    ("of quantity 0", {"quantity": 0}, "free", None, "its quantity is 0"),
    (
        "of no plan and quantity 0",
        {"limits": None, "quantity": 0},
        "free",
        None,
        "its price is no plan's",
    ),
    (
        "unpaid, of a price of no plan",
        {"status": "unpaid", "unplanned_since": NOW},
        "free",
        None,
        "it is unpaid",
    ),
    (
        "paused, with a date of grace",
        {"status": "paused", "grace_since": NOW},
        "free",
        None,
        "it is paused",
    ),
]


@pytest.mark.parametrize(
    ("said", "gives", "until", "rule"),
    [line[1:] for line in ALONE],
    ids=[line[0] for line in ALONE],
)
def test_a_subscription_gives(
    said: dict[str, Any], gives: str, until: datetime | None, rule: str
) -> None:
    found = row(**said)
    assert choose(found) == Decision(
        access=gives,
        status=found["status"],
        plan_id="small" if gives != "free" else None,
        subscription_id="sub_1",
        access_until=until,
        limits=SMALL if gives != "free" else None,
        rule=rule,
    )


def test_without_a_subscription_it_is_the_free_plan() -> None:
    assert choose() == Decision("free", "free", None, None, None, None, "no subscription")


# The first one counts.
PAIRS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("access before none", {}, {"status": "unpaid"}),
    ("access to a small plan before none of a large", {}, {"status": "unpaid", "limits": LARGE}),
    ("grace before none", {"status": "past_due", "grace_since": NOW}, {"status": "paused"}),
    ("the larger plan", {"limits": LARGE}, {"limits": SMALL}),
    ("the larger plan in grace", {"limits": LARGE, "status": "past_due", "grace_since": NOW}, {}),
    ("of equal plans the dearer", {"amount": 1001}, {}),
    ("the dearer by the day", {"amount": 1000}, {"amount": 12_000, "interval": "year"}),
    ("of the same plan full access", {}, {"status": "past_due", "grace_since": NOW}),
    (
        "full access before one that is active at no plan's price",
        {},
        {"unplanned_since": NOW, "began_at": NOW},
    ),
    ("full access by another date of grace", {}, FAILED | {"grace_since": NOW}),
    (
        "of two in grace the one that is past due",
        {"status": "past_due", "grace_since": NOW},
        FAILED | {"grace_since": NOW},
    ),
    ("of the same the one that began last", {"began_at": NOW}, {"began_at": NOW - SECOND}),
    ("in the same second the larger id", {"id": "sub_2"}, {"id": "sub_1"}),
    (
        "of none the one nearest to access",
        {"status": "past_due", "grace_since": NOW - WEEK},
        {"status": "unpaid"},
    ),
    ("an active one of no plan before an unpaid one", {"limits": None}, {"status": "unpaid"}),
    (
        "a trial of no plan before one past due",
        {"limits": None, "status": "trialing"},
        {"status": "past_due", "grace_since": NOW - WEEK},
    ),
    ("unpaid before incomplete", {"status": "unpaid"}, {"status": "incomplete", "began_at": NOW}),
    ("paused before what we do not know", {"status": "paused"}, {"status": "new", "began_at": NOW}),
    (
        "unpaid and paused by their plans",
        {"status": "unpaid", "limits": LARGE},
        {"status": "paused", "began_at": NOW},
    ),
    (
        "paused and unpaid by their plans",
        {"status": "paused", "limits": LARGE},
        {"status": "unpaid", "began_at": NOW},
    ),
    (
        "active and on trial of none by their beginning",
        {"quantity": 0, "began_at": NOW},
        {"quantity": 0, "status": "trialing"},
    ),
    (
        "on trial and active of none by their beginning",
        {"quantity": 0, "status": "trialing", "began_at": NOW},
        {"quantity": 0},
    ),
    (
        "of none, a plan before no plan",
        {"status": "unpaid"},
        {"status": "unpaid", "limits": None, "began_at": NOW},
    ),
]


@pytest.mark.parametrize(
    ("counts", "other"), [pair[1:] for pair in PAIRS], ids=[pair[0] for pair in PAIRS]
)
def test_of_two_subscriptions_counts(counts: dict[str, Any], other: dict[str, Any]) -> None:
    one, two = row(id="sub_5") | counts, row(id="sub_5", plan_id="other") | other
    assert choose(one, two) == choose(one)


def test_every_status_that_stripe_has_is_known_and_no_other() -> None:
    known = "trialing active past_due unpaid paused incomplete canceled incomplete_expired"
    assert all(access.known(status) for status in known.split())
    assert not access.known("suspended")


def test_why_says_what_a_subscription_would_give_alone() -> None:
    def alone(**said: Any) -> dict[str, object]:
        return access._alone(row(**said), NOW, DAYS)

    assert alone() == {"gives": "full", "rule": "it is active"}
    assert alone(status="canceled") == {"gives": "free", "rule": "it is canceled"}
    assert alone(status="incomplete_expired", limits=None) == {
        "gives": "free",
        "rule": "it is incomplete_expired",
    }
    late = alone(status="past_due", grace_since=NOW - WEEK)
    assert late == {"gives": "free", "rule": "its payment failed and the grace period is over"}


def test_why_is_written_as_json_has_it() -> None:
    found = access._plain({"rows": [{"at": NOW, "n": 1}], "none": None, "limits": SMALL})
    at = "2026-03-31T12:00:00+00:00"
    assert found == {"rows": [{"at": at, "n": 1}], "none": None, "limits": dict(SMALL)}


# ---- which of two plans is the better one


def plan(**more: Any) -> dict[str, Any]:
    return {"limits": SMALL, "amount": 1000, "interval": "month", "interval_count": 1} | more


MOST = 2**53 - 1
BETTER: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("limits before price", {"limits": LARGE, "amount": 0}, {"amount": 10**9}),
    (
        "the first limit before the second",
        {"limits": {"maxBusinesses": 2}},
        {"limits": {"maxBusinesses": 1, "maxTeamMembers": 9}},
    ),
    ("the second limit, too", {"limits": SMALL | {"maxTeamMembers": 2}}, {}),
    (
        "unlimited before any number",
        {"limits": SMALL | {"maxBusinesses": -1}},
        {"limits": SMALL | {"maxBusinesses": MOST - 1}},
    ),
    (
        "no limit of ours before none at all",
        {"limits": SMALL | {"maxBusinesses": 1}},
        {"limits": SMALL | {"maxBusinesses": 0}},
    ),
    (
        "a limit that is not said is the free plan's",
        {"limits": SMALL | {"maxOrdersPerMonth": 26}},
        {},
    ),
    (
        "price by the day, not by the charge",
        {"amount": 1000},
        {"amount": 12_166, "interval": "year"},
    ),
    ("a year has 365 days", {"amount": 12_167, "interval": "year"}, {"amount": 1000}),
    ("a week has seven", {"amount": 234, "interval": "week"}, {"amount": 1000}),
    ("a week has seven, not six", {}, {"amount": 233, "interval": "week"}),
    ("a day has one", {"amount": 34, "interval": "day"}, {"amount": 1000}),
    ("a day is not two", {}, {"amount": 33, "interval": "day"}),
    ("every three months", {"amount": 3001, "interval_count": 3}, {}),
    ("every three months, cheaper", {}, {"amount": 2999, "interval_count": 3}),
    ("an interval that we do not know is a month", {"amount": 1001, "interval": "era"}, {}),
    (
        "an unknown interval is no less than a month",
        {"amount": 1001},
        {"amount": 1000, "interval": "era"},
    ),
    ("no count is one", {"amount": 1001, "interval_count": None}, {}),
    ("no count is not two", {}, {"amount": 999, "interval_count": None}),
]


@pytest.mark.parametrize(
    ("better", "other"), [pair[1:] for pair in BETTER], ids=[pair[0] for pair in BETTER]
)
def test_a_plan_is_worth_more(better: dict[str, Any], other: dict[str, Any]) -> None:
    assert plan_order.worth(plan(**better)) > plan_order.worth(plan(**other))


def test_a_plans_worth_is_its_limits_and_its_price_by_the_day() -> None:
    said = {"maxBusinesses": 3, "maxTeamMembers": limits.UNLIMITED}
    free = [row.free for name, row in limits.LIMITS.items() if name not in said]
    assert plan_order.worth(plan(limits=said, amount=3000)) == (3, MOST, *free, 100)
