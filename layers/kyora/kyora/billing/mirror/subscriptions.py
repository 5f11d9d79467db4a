"""Subscriptions as our rows, from events and from Stripe's answers."""

from typing import Any, NamedTuple

from kyora.billing import access, stripe_objects
from kyora.billing.mirror import customers, grace, lifecycle, plan_items, terms
from kyora.billing.mirror.grace import Grace
from kyora.billing.mirror.plan_items import Placed
from kyora.billing.ordering import Attempt, moment
from kyora.billing.stripe_objects import TERMINAL, Event, StripeSubscription
from kyora.observability import count
from kyora.postgres import Transaction

type Row = dict[str, Any]

# Events only name these: since when a payment is due, and what the schedule plans.
WHOLE = ["latest_invoice", "schedule"]


class Seen(NamedTuple):
    """Where a state of a subscription comes from, at a second of Stripe's clock.

    `event` and its `payload` are None for a state that was read without one.
    """

    as_of: int
    event: Event | None = None
    payload: StripeSubscription | None = None
    doubtful: bool = False


def on_subscription(tx: Transaction, attempt: Attempt) -> None:
    """Mirror a subscription; a payload older than our row still teaches what only it says."""
    event, row = attempt.event, attempt.row
    payload = stripe_objects.subscription(event.object)
    written: Placed | None = None
    state: Row | None = None
    customers.bind(tx, attempt.customer, payload.workspace)
    if attempt.answer:
        written = plan_items.place(tx, stripe_objects.subscription(attempt.answer.object))
        state = write(tx, row, written, Seen(attempt.answer.as_of, event, payload))
    elif attempt.applies(
        row["as_of"],
        over=row["status"] in TERMINAL,
        ends=payload.terminal,
        whole=payload.whole
        and access.known(payload.status)
        and terms.known(row, payload.terms, payload.period_start),
    ):
        written = plan_items.place(tx, payload)
        doubtful = attempt.read is not None
        state = write(tx, row, written, Seen(event.created, event, payload, doubtful))
    else:
        _learn_grace(tx, row, payload, event)
    ours = state or row
    if not ours["plan_id"]:
        _learn_plan(tx, plan_items.place(tx, payload))
        state = None
    if payload.entitled and not ours["entitled"]:
        tx.later("UPDATE subscription SET entitled = true WHERE id = :id", id=payload.id)
        state = None
    lifecycle.conclude(tx, attempt.customer, payload.id, attempt.happened, state)
    if written:
        workspace_id = attempt.customer["workspace_id"]
        lifecycle.announce_change(tx, workspace_id, row, written.found, attempt.happened)
    if event.type == "customer.subscription.trial_will_end" and payload.trial_end:
        lifecycle.announce_trial_end(tx, attempt.customer, payload, attempt.happened)


def on_schedule(tx: Transaction, attempt: Attempt) -> None:
    """Read the subscription of a schedule whose plans have changed."""
    name = attempt.event.object.get("subscription")
    if not isinstance(name, str):
        return  # released meanwhile
    if attempt.answer:
        placed = plan_items.place(tx, stripe_objects.subscription(attempt.answer.object))
        before, seen = find(tx, placed.found.id), moment(attempt.answer.as_of)
        state = write(tx, before, placed, Seen(attempt.answer.as_of))
        lifecycle.conclude(tx, attempt.customer, placed.found.id, attempt.happened, state)
        # A pause may be seen here first: its own event then finds that nothing has changed.
        workspace_id = attempt.customer["workspace_id"]
        lifecycle.announce_change(tx, workspace_id, before, placed.found, seen)
    elif attempt.read:  # Stripe is unreachable
        tx.later("UPDATE subscription SET doubtful = true WHERE id = :id", id=name)
    else:
        raise attempt.ask()


# What the next state of our row of subscription `:object` depends on; NULLs without a row.
OURS = (
    "s.as_of, s.status, s.plan_id, s.grace_since, s.grace_exact, s.paid_at, s.unplanned_since,"
    " s.entitled, s.doubtful, t.items, t.schedule_id, t.pending_at, t.resume_at,"
    f" {lifecycle.ANNOUNCED}"
)
FROM_OURS = (
    "(SELECT) AS one LEFT JOIN subscription s ON s.id = :object"
    " LEFT JOIN subscription_terms t ON t.subscription_id = s.id"
)


def find(tx: Transaction, subscription_id: str) -> Row:
    """Return our row of a subscription, empty without one."""
    return tx.row(f"SELECT {OURS} FROM {FROM_OURS}", object=subscription_id) or {}


def columns(placed: Placed) -> dict[str, object]:
    """Return the columns of our row that mirror Stripe's object."""
    found = placed.found
    return {
        "customer_id": found.customer,
        "status": found.status,
        "price_id": found.price,
        "prices": sorted({item.price for item in found.items if item.price}),
        "products": sorted({item.product for item in found.items if item.product}),
        "item_id": found.item,
        "quantity": found.quantity,
        "period_start": found.period_start,
        "period_end": found.period_end,
        "trial_end": found.trial_end,
        "cancel_at": None if found.terminal else found.cancel_at,
        "ended_at": found.ended_at,
        "default_payment_method_id": found.default_payment_method,
        "latest_invoice_id": found.latest_invoice,
        "collection_paused": found.collection_paused,
        "payment_failed": found.payment_failed,
        "began_at": found.began_at,
    }


_WRITE = """
INSERT INTO subscription AS s (id, customer_id, status, price_id, prices, products, plan_id,
    unplanned_since, item_id, quantity, period_start, period_end, trial_end, cancel_at, ended_at,
    default_payment_method_id, latest_invoice_id, collection_paused, payment_failed, grace_since,
    grace_exact, paid_at, began_at, entitled, as_of, doubtful)
VALUES (:id, :customer_id, :status, :price_id, CAST(:prices AS text[]),
    CAST(:products AS text[]), :plan_id, :unplanned_since, :item_id, :quantity, :period_start,
    :period_end, :trial_end, :cancel_at, :ended_at, :default_payment_method_id,
    :latest_invoice_id, :collection_paused, :payment_failed, :grace_since, :grace_exact, :paid_at,
    :began_at, :entitled, :as_of, :doubtful)
ON CONFLICT (id) DO UPDATE SET status = excluded.status, price_id = excluded.price_id,
    prices = excluded.prices, products = excluded.products,
    -- At a price of no plan the last known plan stays, for the length of the grace period.
    plan_id = coalesce(excluded.plan_id, s.plan_id),
    unplanned_since = excluded.unplanned_since, item_id = excluded.item_id,
    quantity = excluded.quantity, period_start = excluded.period_start,
    period_end = excluded.period_end, trial_end = excluded.trial_end,
    cancel_at = excluded.cancel_at, ended_at = excluded.ended_at,
    default_payment_method_id = excluded.default_payment_method_id,
    latest_invoice_id = excluded.latest_invoice_id,
    collection_paused = excluded.collection_paused, payment_failed = excluded.payment_failed,
    grace_since = excluded.grace_since, grace_exact = excluded.grace_exact,
    paid_at = excluded.paid_at, entitled = s.entitled OR excluded.entitled,
    as_of = excluded.as_of, doubtful = excluded.doubtful
"""
_WRITE_TERMS = terms.WRITE


def write(tx: Transaction, row: Row, placed: Placed, seen: Seen) -> Row | None:
    """Write a subscription as it is; `row` is ours so far. An unknown status leaves ours.

    Returns its new state, for `lifecycle.conclude`, unless only the database knows its plan.
    """
    found, values = placed.found, columns(placed)
    if not access.known(found.status):
        count("StripeUnknownStatus")
        values["status"] = str(row["status"] or found.status)
    unplanned = None
    if values["price_id"] and not placed.plan_id:
        count("StripeUnknownPrice")
        unplanned = row["unplanned_since"] or moment(
            seen.event.created if seen.event else seen.as_of
        )
    due = _grace(row)
    at = moment(seen.as_of)
    if seen.event and seen.payload:
        due = grace.learn(due, seen.event, seen.payload)
        if seen.payload.failing:
            at = moment(seen.event.created)
    due = grace.judge(due, found, at)
    values |= {"id": found.id, "plan_id": placed.plan_id}
    tx.later(
        _WRITE,
        unplanned_since=unplanned,
        grace_since=due.since,
        grace_exact=due.exact,
        paid_at=due.paid_at,
        entitled=found.entitled,
        as_of=seen.as_of,
        doubtful=seen.doubtful,
        **values,
    )
    tx.later(_WRITE_TERMS, id=found.id, **terms.values(found.terms))
    if placed.plan_id is None:
        return None
    known = {name: row[name] for name in ("announced", "unnamed")}
    entitled = found.entitled or row["entitled"] is True
    return values | known | {"entitled": entitled, "name": placed.plan_name}


def _grace(row: Row) -> Grace:
    return Grace(row["grace_since"], row["grace_exact"] is True, row["paid_at"])


def _learn_grace(tx: Transaction, row: Row, payload: StripeSubscription, event: Event) -> None:
    """Learn from an old payload since when the payment is due."""
    kept = _grace(row)
    known = grace.learn(kept, event, payload)
    if row["as_of"] is not None and known != kept:
        tx.later(
            "UPDATE subscription SET grace_since = :since, grace_exact = :exact,"
            " paid_at = :paid_at WHERE id = :id",
            id=payload.id,
            **known._asdict(),
        )


def _learn_plan(tx: Transaction, placed: Placed) -> None:
    """Keep the plan that an old payload names, of a subscription whose price is now no plan's."""
    tx.later(
        "UPDATE subscription SET plan_id = :plan WHERE id = :id AND plan_id IS NULL",
        id=placed.found.id,
        plan=placed.plan_id,
    )
