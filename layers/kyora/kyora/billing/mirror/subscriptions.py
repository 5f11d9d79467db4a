"""Subscriptions, as Stripe's events and answers say that they are."""

from typing import Any, NamedTuple

from kyora.billing import access, stripe_objects
from kyora.billing.mirror import customers, grace, lifecycle, plan_items, terms
from kyora.billing.mirror.grace import Grace
from kyora.billing.mirror.plan_items import Placed
from kyora.billing.ordering import Ask, Turn, moment
from kyora.billing.stripe_objects import TERMINAL, Event, Subscription
from kyora.observability import count
from kyora.postgres import Transaction

type Row = dict[str, Any]

# Since when it is due, and what its schedule plans, which events only name.
WHOLE = ["latest_invoice", "schedule"]


class Seen(NamedTuple):
    """A state of a subscription, at a second of Stripe's clock; by an event or else a read."""

    as_of: int
    event: Event | None = None
    doubtful: bool = False


def on_subscription(tx: Transaction, turn: Turn) -> None:
    """Mirror a subscription, and learn from a payload that is old news what it still says."""
    event, row = turn.event, turn.row
    payload = stripe_objects.subscription(event.object)
    found: Subscription | None = payload
    customers.bind(tx, turn.customer, payload.workspace)
    if turn.answer:
        found = stripe_objects.subscription(turn.answer.object)
        write(tx, row, found, Seen(turn.answer.as_of, event))
    elif turn.judge(
        row["as_of"],
        over=row["status"] in TERMINAL,
        ends=payload.terminal,
        whole=payload.whole
        and access.known(payload.status)
        and terms.told(tx, payload.id, payload.terms, payload.period_start),
    ):
        write(tx, row, payload, Seen(event.created, event, turn.read is not None))
    else:
        found = None
        _date(tx, row, payload, event)
    _last_plan(tx, row, payload)
    if payload.entitled and not row["entitled"]:  # also of a payload that is old news
        tx.run("UPDATE subscription SET entitled = true WHERE id = :id", id=payload.id)
    lifecycle.conclude(tx, turn.customer, payload.id, turn.happened)
    if found:
        lifecycle.tell_transition(tx, turn.customer["workspace_id"], row, found, turn.happened)
    if event.type == "customer.subscription.trial_will_end" and payload.trial_end:
        lifecycle.tell_trial(tx, turn.customer, payload, turn.happened)


def on_schedule(tx: Transaction, turn: Turn) -> None:
    """Read the subscription of a schedule that plans something else now."""
    name = turn.event.object.get("subscription")
    if not isinstance(name, str):
        return  # released by now
    if turn.answer:
        found = stripe_objects.subscription(turn.answer.object)
        before, seen = find(tx, found.id), moment(turn.answer.as_of)
        write(tx, before, found, Seen(turn.answer.as_of))
        lifecycle.conclude(tx, turn.customer, found.id, turn.happened)
        # A pause may be seen here first: its own event then finds nothing that has changed.
        lifecycle.tell_transition(tx, turn.customer["workspace_id"], before, found, seen)
    elif turn.read:  # Stripe is away
        tx.run("UPDATE subscription SET doubtful = true WHERE id = :id", id=name)
    else:
        raise Ask(turn.customer["version"] - 1, turn.row["attempts"])


# What the next state of a subscription depends on.
OURS = "s.as_of, s.status, s.plan_id, s.grace_since, s.grace_exact, s.paid_at, s.unplanned_since"


def _last_plan(tx: Transaction, row: Row, payload: Subscription) -> None:
    """Learn from any payload which plan a subscription had that is at a price of no plan by now."""
    if row["plan_id"] or not (plan_id := plan_items.place(tx, payload).plan_id):
        return
    tx.run(
        "UPDATE subscription SET plan_id = :plan WHERE id = :id AND plan_id IS NULL",
        id=payload.id,
        plan=plan_id,
    )


def find(tx: Transaction, subscription_id: str) -> Row:
    """Return our row of a subscription, empty without one."""
    row = tx.row(
        f"SELECT {OURS} FROM (SELECT) AS one LEFT JOIN subscription s ON s.id = :id",
        id=subscription_id,
    )
    return row or {}


def columns(placed: Placed) -> dict[str, object]:
    """Return what our row of a subscription holds of Stripe's, by column."""
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


def write(tx: Transaction, row: Row, found: Subscription, seen: Seen) -> None:
    """Write a subscription as it is; a status that we do not know leaves ours as it was."""
    placed = plan_items.place(tx, found)
    values = columns(placed)
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
    if seen.event:
        payload = stripe_objects.subscription(seen.event.object)
        due = grace.learn(due, seen.event, payload)
        if payload.failing:
            at = moment(seen.event.created)
    due = grace.judge(due, found, at)
    tx.run(
        "INSERT INTO subscription AS s (id, customer_id, status, price_id, prices, products,"
        " plan_id, unplanned_since, item_id, quantity, period_start, period_end, trial_end,"
        " cancel_at, ended_at, default_payment_method_id, latest_invoice_id, collection_paused,"
        " payment_failed, grace_since, grace_exact, paid_at, began_at, entitled, as_of, doubtful)"
        " VALUES (:id, :customer_id, :status, :price_id, CAST(:prices AS text[]),"
        " CAST(:products AS text[]), :plan_id, :unplanned_since, :item_id, :quantity,"
        " :period_start, :period_end, :trial_end, :cancel_at, :ended_at,"
        " :default_payment_method_id, :latest_invoice_id, :collection_paused, :payment_failed,"
        " :grace_since, :grace_exact, :paid_at, :began_at, :entitled, :as_of, :doubtful)"
        " ON CONFLICT (id) DO UPDATE SET status = excluded.status, price_id = excluded.price_id,"
        " prices = excluded.prices, products = excluded.products,"
        # At a price of no plan: the last plan that was known, for as long as the grace period.
        " plan_id = coalesce(excluded.plan_id, s.plan_id),"
        " unplanned_since = excluded.unplanned_since, item_id = excluded.item_id,"
        " quantity = excluded.quantity, period_start = excluded.period_start,"
        " period_end = excluded.period_end, trial_end = excluded.trial_end,"
        " cancel_at = excluded.cancel_at, ended_at = excluded.ended_at,"
        " default_payment_method_id = excluded.default_payment_method_id,"
        " latest_invoice_id = excluded.latest_invoice_id,"
        " collection_paused = excluded.collection_paused,"
        " payment_failed = excluded.payment_failed, grace_since = excluded.grace_since,"
        " grace_exact = excluded.grace_exact, paid_at = excluded.paid_at,"
        " entitled = s.entitled OR excluded.entitled, as_of = excluded.as_of,"
        " doubtful = excluded.doubtful",
        id=found.id,
        plan_id=placed.plan_id,
        unplanned_since=unplanned,
        grace_since=due.since,
        grace_exact=due.exact,
        paid_at=due.paid_at,
        entitled=found.entitled,
        as_of=seen.as_of,
        doubtful=seen.doubtful,
        **values,
    )
    terms.write(tx, found.id, found.terms)


def _grace(row: Row) -> Grace:
    return Grace(row["grace_since"], row["grace_exact"] is True, row["paid_at"])


def _date(tx: Transaction, row: Row, payload: Subscription, event: Event) -> None:
    """Learn from old news since when the payment is due."""
    kept = _grace(row)
    known = grace.learn(kept, event, payload)
    if row["as_of"] is not None and known != kept:
        tx.run(
            "UPDATE subscription SET grace_since = :since, grace_exact = :exact,"
            " paid_at = :paid_at WHERE id = :id",
            id=payload.id,
            **known._asdict(),
        )
