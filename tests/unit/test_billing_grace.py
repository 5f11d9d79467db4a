"""When a grace period begins, and which item is the plan: the same in any order."""

import itertools
import random
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kyora.billing import stripe_objects
from kyora.billing.mirror import grace, plan_items
from kyora.billing.mirror.grace import PAID, Grace
from kyora.billing.stripe_objects import API_VERSION, Event

START = 1_790_000_000
# Stripe pauses only what is active, at a request, or what a payment has failed of.
STATUSES = ("active", "trialing", "past_due", "unpaid", "paused", "failed")
UNDUE = (*PAID, "paused")
DUE = ("past_due", "failed")
WHY = {"paused": "pause_requested", "failed": "final_payment_failure"}


def moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def subscription(status: str, **more: Any) -> dict[str, Any]:
    return {
        "id": "sub_1",
        "customer": "cus_1",
        "status": status,
        "created": START,
        "items": {"data": [{"id": "si_1", "price": {"id": "price_1"}}]},
    } | more


def shown(status: str | None) -> dict[str, Any]:
    """How Stripe shows one of the statuses."""
    if status not in WHY:
        return {"status": status, "status_details": None}
    details = {"paused": {"type": "subscription", "subscription": {"type": WHY[status]}}}
    return {"status": "paused", "status_details": details}


def history(statuses: list[str]) -> list[Event]:
    """Events of a subscription that had these statuses, one each day."""
    found, before = [], None
    for day, status in enumerate(statuses):
        previous = shown(before) if before not in (None, status) else {"metadata": {}}
        found.append(
            Event(
                f"evt_{day}",
                "customer.subscription.updated",
                START + day * 86_400,
                API_VERSION,
                False,  # a tuple's member
                subscription("active") | shown(status),
                previous,
            )
        )
        before = status
    return found


def reported(events: list[Event]) -> Grace:
    """What is known after events came in this order; the newest is what applies."""
    known, as_of = Grace(), 0
    for event in events:
        payload = stripe_objects.subscription(event.object)
        known = grace.learn(known, event, payload) if as_of else known
        if event.created > as_of:
            known = grace.learn(known, event, payload)
            known = grace.judge(known, payload, moment(event.created))
            as_of = event.created
    return known


@given(
    statuses=st.lists(st.sampled_from(STATUSES), min_size=1, max_size=7),
    order=st.randoms(use_true_random=False),
)
@example(statuses=["active", "past_due", "active", "past_due"], order=random.Random(1))
@example(statuses=["active", "paused", "past_due", "past_due"], order=random.Random(1))
def test_in_any_order_it_begins_with_the_last_change_from_paid_to_due(
    statuses: list[str], order: Any
) -> None:
    events = history(statuses)
    mixed = [*events, *events]
    order.shuffle(mixed)
    known = reported(mixed)
    changes = [
        event.created
        for before, event, status in zip(["", *statuses], events, statuses, strict=False)
        if before in UNDUE and status in DUE
    ]
    if statuses[-1] in UNDUE:
        assert known.since is None
    elif statuses[-1] in DUE and changes:
        paid = max(e.created for e, s in zip(events, statuses, strict=True) if s in UNDUE)
        if max(changes) > paid:
            assert known.since == moment(max(changes))


@given(statuses=st.lists(st.sampled_from(STATUSES), min_size=2, max_size=7), lost=st.integers(0, 6))
def test_with_an_event_lost_it_begins_no_earlier_than_it_did(
    statuses: list[str], lost: int
) -> None:
    events = history(statuses)
    known = reported([event for day, event in enumerate(events) if day != lost])
    paid = [e.created for e, s in zip(events, statuses, strict=True) if s in UNDUE]
    if known.since and lost not in [d for d, s in enumerate(statuses) if s in UNDUE]:
        assert not paid or known.since >= moment(max(paid))


def test_a_read_that_finds_it_counts_from_the_invoice_that_is_due() -> None:
    invoice = {"id": "in_1", "status": "open", "status_transitions": {"finalized_at": START + 9}}
    found = stripe_objects.subscription(subscription("past_due", latest_invoice=invoice))
    assert grace.judge(Grace(), found, moment(START + 99)).since == moment(START + 9)
    sent = invoice | {"due_date": START + 50}
    found = stripe_objects.subscription(subscription("past_due", latest_invoice=sent))
    assert grace.judge(Grace(), found, moment(START + 99)).since == moment(START + 50)


def test_an_invoice_that_is_not_due_yet_does_not_put_the_beginning_off() -> None:
    """An older one was not paid: with `send_invoice` the next is sent all the same."""
    newest = {"id": "in_2", "status": "open", "due_date": START + 500}
    found = stripe_objects.subscription(subscription("past_due", latest_invoice=newest))
    assert grace.judge(Grace(), found, moment(START + 99)).since == moment(START + 99)


# ---- the plan's item

LIMITS = {"maxBusinesses": 1}
PLANS = [
    {
        "id": f"plan_{number}",
        "name": f"Plan {number}",
        "product_id": f"prod_{number}",
        "currency": "usd",
        "interval": "month",
        "interval_count": 1,
        "amount": 100 * number,
        "limits": {"maxBusinesses": number},
        "active": True,
        "offered": f"price_{number}",
        "priced": f"price_{number}",
    }
    for number in range(1, 4)
]
ITEMS = st.lists(
    st.tuples(
        st.sampled_from(["price_1", "price_2", "price_3", "price_x", "price_y"]),
        st.sampled_from(["prod_1", "prod_3", "prod_x"]),
        st.sampled_from([None, 0, 1, 3]),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda item: item[0],
)


@given(items=ITEMS)
def test_the_plan_is_the_same_wherever_its_item_stands(
    items: list[tuple[str, str, int | None]],
) -> None:
    def placed(order: tuple[tuple[str, str, int | None], ...]) -> plan_items.Placed:
        data = [
            {"id": f"si_{price}", "price": {"id": price, "product": product}, "quantity": quantity}
            for price, product, quantity in order
        ]
        found = stripe_objects.subscription(subscription("active", items={"data": data}))
        return plan_items.choose(found, PLANS)

    orders = [placed(order) for order in itertools.permutations(items)]
    assert len({one.plan_id for one in orders}) == 1
    exact = {price: n for n, price in enumerate(("price_1", "price_2", "price_3"), 1)}
    paid = [exact[price] for price, _, quantity in items if price in exact and quantity != 0]
    if paid:
        assert orders[0].plan_id == f"plan_{max(paid)}"
        assert orders[0].found.price == f"price_{max(paid)}"


# ---- one event, one read

DAY = 86_400
AT = moment(START)


def event(status: str, before: str | None = None, created: int = START) -> Event:
    previous = shown(before) if before else {}
    return Event(
        "evt_1",
        "customer.subscription.updated",
        created,
        API_VERSION,
        False,  # a tuple's member
        subscription("active") | shown(status),
        previous,
    )


def learnt(kept: Grace, status: str, before: str | None = None, created: int = START) -> Grace:
    found = event(status, before, created)
    return grace.learn(kept, found, stripe_objects.subscription(found.object))


EARLIER, LATER = moment(START - DAY), moment(START + DAY)
# What is known, the event's status and the one before; what is known then.
LESSONS: list[tuple[str, Grace, str, str | None, Grace]] = [
    ("paid", Grace(), "active", None, Grace(paid_at=AT)),
    ("on trial", Grace(), "trialing", None, Grace(paid_at=AT)),
    ("paused on request", Grace(), "paused", None, Grace(paid_at=AT)),
    ("paid, and later as well", Grace(paid_at=LATER), "active", None, Grace(paid_at=LATER)),
    ("paid, later than known", Grace(paid_at=EARLIER), "active", None, Grace(paid_at=AT)),
    ("from paid to due", Grace(), "past_due", "active", Grace(AT, True)),
    ("from trial to due", Grace(), "past_due", "trialing", Grace(AT, True)),
    ("from paid to failed", Grace(), "failed", "active", Grace(AT, True)),
    ("from paused to due", Grace(), "past_due", "paused", Grace(AT, True)),
    ("due, and was", Grace(), "past_due", "failed", Grace()),
    ("due, without a word of before", Grace(), "past_due", None, Grace()),
    ("from paid to unpaid", Grace(), "unpaid", "active", Grace()),
    (
        "due in the second in which it was paid",
        Grace(paid_at=AT),
        "past_due",
        "active",
        Grace(AT, True, AT),
    ),
    ("due before it was paid", Grace(paid_at=LATER), "past_due", "active", Grace(paid_at=LATER)),
    ("a guess becomes exact", Grace(LATER), "past_due", "active", Grace(AT, True)),
    (
        "an exact date only moves later",
        Grace(LATER, True),
        "past_due",
        "active",
        Grace(LATER, True),
    ),
    ("an exact date moves later", Grace(EARLIER, True), "past_due", "active", Grace(AT, True)),
    ("paid since it was due", Grace(EARLIER, True), "active", None, Grace(AT, False, AT)),
    ("paid in the second in which it is due", Grace(AT, True), "active", None, Grace(AT, True, AT)),
    ("paid before it was due", Grace(LATER, True), "active", None, Grace(LATER, True, AT)),
]


@pytest.mark.parametrize(
    ("kept", "status", "before", "known"),
    [row[1:] for row in LESSONS],
    ids=[row[0] for row in LESSONS],
)
def test_an_event_teaches(kept: Grace, status: str, before: str | None, known: Grace) -> None:
    assert learnt(kept, status, before) == known


def test_a_trial_that_ended_without_a_card_owes_nothing() -> None:
    def details(word: str) -> dict[str, Any]:
        paused = {"type": "subscription", "subscription": {"type": word}}
        return subscription("paused", status_details={"paused": paused})

    ended, other = details("trial_end_without_payment_method"), details("something_new")
    [found, unknown] = [stripe_objects.subscription(one) for one in (ended, other)]
    assert grace.judge(Grace(EARLIER, True), found, AT) == Grace(paid_at=AT)
    assert grace.judge(Grace(EARLIER, True), unknown, AT) == Grace(EARLIER, True)
    # The word means something only while it is paused.
    due = stripe_objects.subscription(ended | {"status": "past_due"})
    assert grace.judge(Grace(EARLIER, True), due, AT) == Grace(EARLIER, True)


INVOICE = {"id": "in_1", "status": "open", "due_date": START - 9}
# What is known and what is read; what applies.
READS: list[tuple[str, Grace, dict[str, Any], Grace]] = [
    ("paid", Grace(EARLIER, True, EARLIER), shown("active"), Grace(paid_at=AT)),
    ("paid, and later as well", Grace(EARLIER, True, LATER), shown("active"), Grace(paid_at=LATER)),
    ("over", Grace(EARLIER, True, EARLIER), shown("canceled"), Grace(paid_at=EARLIER)),
    ("expired", Grace(EARLIER, True), shown("incomplete_expired"), Grace()),
    ("due, as known", Grace(EARLIER, True), shown("past_due"), Grace(EARLIER, True)),
    ("unpaid keeps the date", Grace(EARLIER, True), shown("unpaid"), Grace(EARLIER, True)),
    ("unpaid begins nothing", Grace(paid_at=EARLIER), shown("unpaid"), Grace(paid_at=EARLIER)),
    ("due, first seen now", Grace(), shown("past_due"), Grace(AT)),
    ("failed, first seen now", Grace(exact=True), shown("failed"), Grace(AT)),
    (
        "due since its invoice is",
        Grace(),
        shown("past_due") | {"latest_invoice": INVOICE},
        Grace(moment(START - 9)),
    ),
    (
        "due since it was paid last",
        Grace(paid_at=moment(START - 5)),
        shown("past_due") | {"latest_invoice": INVOICE},
        Grace(moment(START - 5), False, moment(START - 5)),
    ),
]


@pytest.mark.parametrize(
    ("kept", "status", "known"), [row[1:] for row in READS], ids=[row[0] for row in READS]
)
def test_a_read_shows(kept: Grace, status: dict[str, Any], known: Grace) -> None:
    found = stripe_objects.subscription(subscription("active") | status)
    assert grace.judge(kept, found, AT) == known


def test_nothing_is_known_at_first() -> None:
    assert Grace() == (None, False, None)
