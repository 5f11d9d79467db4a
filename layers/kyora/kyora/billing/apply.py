"""From an event of Stripe's to our mirror, whatever order the events come in.

Stripe promises no order, and its clock has whole seconds: no rule that reads payloads alone is
right. Per object, with `as_of` the second at which our row was true:

    row is over for good                    skip: Stripe never revives an id
    payload says it is over for good        apply
    created < as_of - 2                     skip: older news
    created > as_of + 2, written as we read  apply
    anything nearer, or in another shape    read the object from Stripe, apply that

A read races with other workers, so its answer is applied only if nobody wrote about that customer
since (`billing_customer.version`); else the whole turn is taken again. No transaction is open
while Stripe is asked. Every writer locks the customer's row first: one lock, one order.

Invoices need no read: their status, attempts and amounts only grow (`_GROWN`). Mail is sent for
facts (`facts.announce`), which are the union of what all payloads say and so know no order.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from kyora import config
from kyora.billing import (
    facts,
    grace,
    inbox,
    intake,
    normalise,
    plan_items,
    standing,
    terms,
    transitions,
)
from kyora.billing.grace import Grace
from kyora.billing.normalise import (
    TERMINAL,
    Event,
    Invoice,
    PaymentMethod,
    Subscription,
)
from kyora.billing.plan_items import Placed
from kyora.errors import Invalid, Unavailable
from kyora.observability import count, logger
from kyora.postgres import Transaction, transaction

if TYPE_CHECKING:
    from kyora.billing.stripe_api import Answer

_NEAR = 2  # seconds: whole seconds on both sides, and Stripe's clocks among themselves
_TURNS = 5  # times that somebody else may write while Stripe is asked
_STARTING = timedelta(days=1)  # one that is not paid for within 23 hours of its creation expires
_OUTAGE = 3  # attempts after which a payload is better than nothing

SUBSCRIPTION = frozenset(
    f"customer.subscription.{what}"
    for what in ("created", "updated", "deleted", "paused", "resumed", "trial_will_end")
)
INVOICE = frozenset(
    f"invoice.{what}"
    for what in (
        *("paid", "payment_succeeded", "payment_failed"),
        *("finalized", "voided", "marked_uncollectible"),
    )
)
CUSTOMER = frozenset({"customer.updated", "customer.deleted"})
PAYMENT_METHOD = frozenset(
    f"payment_method.{what}"
    for what in ("attached", "updated", "automatically_updated", "detached")
)
CHECKOUT = frozenset({"checkout.session.completed"})
# What else happens to a schedule, its subscription's own events tell as well.
SCHEDULE = frozenset({"subscription_schedule.updated"})
CATALOGUE = ("product.", "price.")

type Row = dict[str, Any]


class Missing(Exception):
    """An object of an event is unknown to Stripe: only a person can tell why."""


class _Ask(Exception):
    """Stripe has to be asked; `version` is the customer's at that moment."""

    def __init__(self, version: int, attempts: int) -> None:
        super().__init__("ask Stripe")
        self.version, self.attempts = version, attempts


class Read(NamedTuple):
    """What Stripe answered, or that it did not: then the payload has to do, with doubt."""

    answer: "Answer | None"
    version: int


def wanted(kind: str) -> bool:
    """Tell whether anything is to be done about events of this type."""
    return kind.startswith(CATALOGUE) or any(kind in types for types, _ in _HANDLERS)


def apply(event: Event) -> bool:
    """Do what an event asks for; one that was done before changes nothing.

    False when another worker is about to do it: one read of the catalogue does for many events.

    Raises Unavailable while the database or Stripe is away or others write about the same
    customer all the time, Unreadable and Missing when a person has to look.
    """
    if event.type.startswith(CATALOGUE):
        from kyora.billing import plans

        return plans.apply(event)
    read: Read | None = None
    for _ in range(_TURNS):
        try:
            with transaction() as tx:
                _turn(tx, event, read)
        except _Ask as ask:
            read = _read(event, ask)
        else:
            return True
    raise Unavailable("Others write about this customer.", code="billing.busy")


def resync(customer_id: str, subscription_id: str) -> bool:
    """Read a subscription from Stripe and mirror it; False when Stripe does not know it.

    For whoever has just changed it, and for repairs. Raises as `stripe_api.call` does.
    """
    from kyora.billing import stripe_api

    for _ in range(_TURNS):
        with transaction() as tx:
            row = tx.row("SELECT version FROM billing_customer WHERE id = :id", id=customer_id)
        version = int(str(row["version"])) if row else 0
        try:
            answer = stripe_api.call("get", f"subscriptions/{subscription_id}", expand=_WHOLE)
        except stripe_api.Missing:
            return False
        try:
            with transaction() as tx:
                customer = _lock(tx, customer_id)
                if customer["version"] != version + 1:
                    raise _Ask(version, 0)
                found = normalise.subscription(answer.object)
                _bind(tx, customer, found.workspace)
                before, moment = _subscription(tx, found.id), _moment(answer.as_of)
                _mirror(tx, before, found, Seen(answer.as_of))
                _conclude(tx, customer, found.id, moment)
                transitions.announce(tx, customer["workspace_id"], before, found, moment)
        except _Ask:
            continue
        return True
    raise Unavailable("Others write about this customer.", code="billing.busy")


def adopt(customer_id: str, workspace_id: str) -> None:
    """Note the workspace that a customer was made for. Its version counts up."""
    with transaction() as tx:
        _bind(tx, _lock(tx, customer_id), workspace_id)


def bind(customer_id: str, workspace_id: str) -> None:
    """Give a customer to a workspace by hand, also beside the one that the workspace has.

    Raises Invalid when there is no such workspace, or it is another one's.
    """
    with transaction() as tx:
        customer = _lock(tx, customer_id)
        _one_by_one(tx, workspace_id)
        if not tx.row("SELECT 1 FROM workspace WHERE id = :id", id=workspace_id):
            raise Invalid(f"There is no workspace {workspace_id}.")
        if customer["workspace_id"] not in (None, workspace_id):
            raise Invalid(f"{customer_id} is {customer['workspace_id']}'s.")
        if customer["workspace_id"] is None:
            tx.run(
                "UPDATE billing_customer SET workspace_id = :workspace_id,"
                " beside = EXISTS (SELECT 1 FROM billing_customer"
                "   WHERE workspace_id = :workspace_id AND deleted_at IS NULL AND NOT beside)"
                " WHERE id = :id",
                id=customer_id,
                workspace_id=workspace_id,
            )
        if inbox.reopen(tx, customer_id):
            tx.after_commit(intake.catch_up, customer_id)
        standing.settle(tx, workspace_id)


def end_customer(customer_id: str) -> None:
    """Note that Stripe does not know a customer any more. Its workspace may get another one."""
    with transaction() as tx:
        customer = _lock(tx, customer_id)
        tx.run(
            "UPDATE billing_customer SET deleted_at = coalesce(deleted_at, now()) WHERE id = :id",
            id=customer_id,
        )
        if customer["workspace_id"]:
            standing.settle(tx, customer["workspace_id"])


def end_subscription(customer_id: str, subscription_id: str) -> None:
    """Note that Stripe does not know a subscription any more: it is over."""
    with transaction() as tx:
        customer = _lock(tx, customer_id)
        tx.run(
            "UPDATE subscription SET status = 'canceled', ended_at = now(), cancel_at = NULL,"
            " grace_since = NULL, doubtful = false WHERE id = :id"
            " AND status NOT IN ('canceled', 'incomplete_expired')",
            id=subscription_id,
        )
        _conclude(tx, customer, subscription_id, datetime.now(UTC))


def record_invoice(customer_id: str, found: Invoice) -> bool:
    """Mirror an invoice that was read from Stripe; tell whether it was news."""
    with transaction() as tx:
        customer = _lock(tx, customer_id)
        fresh = _mirror_invoice(tx, found)
        if fresh:
            _tell_paid(tx, customer, found, found.created_at)
            if customer["workspace_id"]:
                standing.settle(tx, customer["workspace_id"])
    return fresh


def decide(
    as_of: int | None, *, over: bool, ends: bool, whole: bool, event: Event
) -> Literal["apply", "skip", "ask"]:
    """Decide what a payload is worth.

    `as_of` is our row's second, None without a row; `over` and `ends` say whether row and payload
    are over for good; a payload that is not `whole` does not say everything.
    """
    if over:
        return "skip"
    if ends:
        return "apply"
    if as_of is not None and event.created < as_of - _NEAR:
        return "skip"
    if not event.pinned or not whole:
        return "ask"
    if as_of is None or event.created > as_of + _NEAR:
        return "apply"
    return "ask"


# ---- a turn


class Turn(NamedTuple):
    """An event in a transaction that holds its customer's lock."""

    event: Event
    customer: Row
    row: Row  # the event's own, with what we know of its object and price
    read: Read | None

    @property
    def answer(self) -> "Answer | None":
        """What Stripe answered when it was asked."""
        return self.read.answer if self.read else None

    @property
    def happened(self) -> datetime:
        """When Stripe says that it happened."""
        return _moment(self.event.created)

    def judge(self, as_of: int | None, *, over: bool, ends: bool, whole: bool = True) -> bool:
        """Tell whether the payload is to be applied. Raises _Ask when only Stripe can tell."""
        if self.read:  # Stripe is away: the newest that came has to do
            return as_of is None or self.event.created >= as_of
        verdict = decide(as_of, over=over, ends=ends, whole=whole, event=self.event)
        if verdict == "ask":
            raise _Ask(self.customer["version"] - 1, self.row["attempts"])
        return verdict == "apply"


def _turn(tx: Transaction, event: Event, read: Read | None) -> None:
    """Do everything about an event in one transaction, or raise _Ask and have done nothing."""
    customer_id = normalise.customer_of(event)
    customer = _lock(tx, customer_id) if customer_id else None
    row = _open(tx, event)
    if row is None:
        return
    if customer is None:  # nobody's: a card that was never attached, say
        inbox.done(tx, event.id, "processed")
        return
    if read is not None and read.version != customer["version"] - 1:
        raise _Ask(customer["version"] - 1, row["attempts"])  # somebody wrote meanwhile
    handler = next(function for types, function in _HANDLERS if event.type in types)
    handler(tx, Turn(event, customer, row, read))
    if customer["workspace_id"] or event.type in PAYMENT_METHOD:
        inbox.done(tx, event.id, "processed")
    else:
        count(config.settings("database").stage, "StripeOrphans")
        inbox.done(tx, event.id, "orphan")


def _open(tx: Transaction, event: Event) -> Row | None:
    """Return an event's row with our row of its subscription, or None when it is done already.

    The customer's lock stands before this: a second delivery waits there and then sees `done`.
    """
    row = tx.row(
        f"SELECT e.status AS event_status, e.attempts, s.entitled, {_OURS}"
        " FROM stripe_event e LEFT JOIN subscription s ON s.id = :object WHERE e.id = :id",
        id=event.id,
        object=normalise.object_of(event),
    )
    return row if row and row["event_status"] == "received" else None


def _read(event: Event, ask: _Ask) -> Read:
    """Ask Stripe for the object of an event. Raises Unavailable, Missing."""
    from kyora.billing import stripe_api

    if event.type in SCHEDULE:
        path, identity = "subscriptions", str(event.object.get("subscription"))
    else:
        path, identity = _PATHS[str(event.object.get("object"))], str(event.object.get("id"))
    more: dict[str, Any] = {"expand": _WHOLE} if path == "subscriptions" else {}
    try:
        return Read(stripe_api.call("get", f"{path}/{identity}", **more), ask.version)
    except stripe_api.Missing:
        raise Missing(f"{path} of an event is not at Stripe") from None
    except Unavailable:
        if ask.attempts <= _OUTAGE:  # this one is among them
            raise
        logger().warning("Stripe is away: the payload has to do", event_id=event.id)
        return Read(None, ask.version)


# Since when it is due, and what its schedule plans, which events only name.
_WHOLE = ["latest_invoice", "schedule"]
_PATHS = {
    "subscription": "subscriptions",
    "customer": "customers",
    "payment_method": "payment_methods",
}


def _lock(tx: Transaction, customer_id: str) -> Row:
    """Lock a customer's row, made if need be, and count its version up."""
    row = tx.row(
        "INSERT INTO billing_customer AS c (id, version) VALUES (:id, 1)"
        " ON CONFLICT (id) DO UPDATE SET version = c.version + 1 RETURNING *",
        id=customer_id,
    )
    assert row is not None  # noqa: S101  # one of the two always happens
    return row


def _bind(tx: Transaction, customer: Row, workspace_id: str) -> bool:
    """Note whose a customer is, once it is known; what was done without is done again.

    Never a second time, and never beside another one of the workspace, which is the one that we
    made for it; one that is deleted by now stands in nobody's way.
    """
    if customer["workspace_id"] or not workspace_id:
        return False
    _one_by_one(tx, workspace_id)
    bound = tx.run(
        "UPDATE billing_customer c SET workspace_id = :workspace_id WHERE id = :id"
        " AND EXISTS (SELECT 1 FROM workspace WHERE id = :workspace_id)"
        " AND (c.deleted_at IS NOT NULL OR NOT EXISTS (SELECT 1 FROM billing_customer"
        "   WHERE workspace_id = :workspace_id AND deleted_at IS NULL AND NOT beside))",
        id=customer["id"],
        workspace_id=workspace_id,
    )
    if bound:
        customer["workspace_id"] = workspace_id
        if inbox.reopen(tx, customer["id"]):
            tx.after_commit(intake.catch_up, customer["id"])
    return bool(bound)


def _one_by_one(tx: Transaction, workspace_id: str) -> None:
    """Of two customers that are given to one workspace at once, let the second see the first."""
    tx.rows(
        "SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))",
        key=f"customer of {workspace_id}",
    )


# ---- subscriptions


class Seen(NamedTuple):
    """A state of a subscription, at a second of Stripe's clock; by an event or else a read."""

    as_of: int
    event: Event | None = None
    doubtful: bool = False


def _on_subscription(tx: Transaction, turn: Turn) -> None:
    event, row = turn.event, turn.row
    payload = normalise.subscription(event.object)
    found: Subscription | None = payload
    _bind(tx, turn.customer, payload.workspace)
    if turn.answer:
        found = normalise.subscription(turn.answer.object)
        _mirror(tx, row, found, Seen(turn.answer.as_of, event))
    elif turn.judge(
        row["as_of"],
        over=row["status"] in TERMINAL,
        ends=payload.terminal,
        whole=payload.whole
        and standing.known(payload.status)
        and terms.told(tx, payload.id, payload.terms, payload.period_start),
    ):
        _mirror(tx, row, payload, Seen(event.created, event, turn.read is not None))
    else:
        found = None
        _date(tx, row, payload, event)
    _last_plan(tx, row, payload)
    if payload.entitled and not row["entitled"]:  # also of a payload that is old news
        tx.run("UPDATE subscription SET entitled = true WHERE id = :id", id=payload.id)
    _conclude(tx, turn.customer, payload.id, turn.happened)
    if found:
        transitions.announce(tx, turn.customer["workspace_id"], row, found, turn.happened)
    if event.type == "customer.subscription.trial_will_end" and payload.trial_end:
        _tell_trial(tx, turn.customer, payload, turn.happened)


def _on_schedule(tx: Transaction, turn: Turn) -> None:
    """Read the subscription of a schedule that plans something else now."""
    name = turn.event.object.get("subscription")
    if not isinstance(name, str):
        return  # released by now
    if turn.answer:
        found = normalise.subscription(turn.answer.object)
        before, moment = _subscription(tx, found.id), _moment(turn.answer.as_of)
        _mirror(tx, before, found, Seen(turn.answer.as_of))
        _conclude(tx, turn.customer, found.id, turn.happened)
        # A pause may be seen here first: its own event then finds nothing that has changed.
        transitions.announce(tx, turn.customer["workspace_id"], before, found, moment)
    elif turn.read:  # Stripe is away
        tx.run("UPDATE subscription SET doubtful = true WHERE id = :id", id=name)
    else:
        raise _Ask(turn.customer["version"] - 1, turn.row["attempts"])


# What the next state of a subscription depends on.
_OURS = "s.as_of, s.status, s.plan_id, s.grace_since, s.grace_exact, s.paid_at, s.unplanned_since"


def _last_plan(tx: Transaction, row: Row, payload: Subscription) -> None:
    """Learn from any payload which plan a subscription had that is at a price of no plan by now."""
    if row["plan_id"] or not (plan_id := plan_items.place(tx, payload).plan_id):
        return
    tx.run(
        "UPDATE subscription SET plan_id = :plan WHERE id = :id AND plan_id IS NULL",
        id=payload.id,
        plan=plan_id,
    )


def _subscription(tx: Transaction, subscription_id: str) -> Row:
    """Return our row of a subscription, empty without one."""
    row = tx.row(
        f"SELECT {_OURS} FROM (SELECT) AS one LEFT JOIN subscription s ON s.id = :id",
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


def _mirror(tx: Transaction, row: Row, found: Subscription, seen: Seen) -> None:
    """Write a subscription as it is; a status that we do not know leaves ours as it was."""
    placed = plan_items.place(tx, found)
    values = columns(placed)
    if not standing.known(found.status):
        count(config.settings("database").stage, "StripeUnknownStatus")
        values["status"] = str(row["status"] or found.status)
    unplanned = None
    if values["price_id"] and not placed.plan_id:
        count(config.settings("database").stage, "StripeUnknownPrice")
        unplanned = row["unplanned_since"] or _moment(
            seen.event.created if seen.event else seen.as_of
        )
    due = _grace(row)
    moment = _moment(seen.as_of)
    if seen.event:
        payload = normalise.subscription(seen.event.object)
        due = grace.learn(due, seen.event, payload)
        if payload.failing:
            moment = _moment(seen.event.created)
    due = grace.judge(due, found, moment)
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


def _conclude(tx: Transaction, customer: Row, subscription_id: str, happened: datetime) -> None:
    """Announce what is true of a subscription by now, and settle what its workspace may do.

    An old subscription that we only now hear of began when it was created: no mail is due.
    """
    workspace_id = customer["workspace_id"]
    if not workspace_id:
        return
    row = tx.row(
        "SELECT s.id, s.status, s.plan_id, s.cancel_at, s.ended_at, s.began_at, s.entitled, p.name,"
        " EXISTS (SELECT 1 FROM billing_fact WHERE key = 'activated:' || s.id) AS told,"
        " EXISTS (SELECT 1 FROM billing_fact WHERE key = 'trial_unnamed:' || s.id) AS unnamed"
        " FROM subscription s LEFT JOIN plan p ON p.id = s.plan_id WHERE s.id = :id",
        id=subscription_id,
    )
    said = False
    # Without a plan there is nothing to name: said once the plan is known.
    if row and row["entitled"] and row["plan_id"]:
        data = {
            "subscriptionId": row["id"],
            "planId": row["plan_id"],
            "planName": row["name"] or row["plan_id"],
            "status": row["status"],
        }
        begun = {**data, "accessUntil": row["cancel_at"]}
        began = min(happened, cast("datetime", row["began_at"]) + _STARTING)
        if not row["told"]:  # most events are about one that was announced long ago
            said = facts.announce(
                tx, f"activated:{row['id']}", "SubscriptionActivated", begun, workspace_id, began
            )
            if row["unnamed"]:
                _tell_trials(tx, customer, subscription_id)
        if row["status"] in TERMINAL:
            over = row["ended_at"] if isinstance(row["ended_at"], datetime) else happened
            said |= facts.announce(
                tx, f"cancelled:{row['id']}", "SubscriptionCancelled", data, workspace_id, over
            )
    standing.settle(tx, workspace_id, quiet=said)


def _tell_trial(tx: Transaction, customer: Row, found: Subscription, happened: datetime) -> None:
    """Announce the end of a trial; while there is no plan to name, note that it waits for one."""
    if not (customer["workspace_id"] and found.trial_end):
        return
    row = tx.row(
        "SELECT p.name FROM subscription s JOIN plan p ON p.id = s.plan_id WHERE s.id = :id",
        id=found.id,
    )
    if row is None:
        facts.note(tx, f"trial_unnamed:{found.id}")
        return
    facts.announce(
        tx,
        f"trial_ending:{found.id}:{int(found.trial_end.timestamp())}",
        "TrialEnding",
        {"subscriptionId": found.id, "planName": row["name"], "trialEnd": found.trial_end},
        customer["workspace_id"],
        happened,
    )


def _tell_trials(tx: Transaction, customer: Row, subscription_id: str) -> None:
    """Announce the ends of trials that were heard of before the plan was known.

    No index helps to find those events, so this is only for a subscription that has any.
    """
    for event in inbox.kept_of(tx, subscription_id, "customer.subscription.trial_will_end"):
        _tell_trial(tx, customer, normalise.subscription(event.object), _moment(event.created))


# ---- invoices

# A later state of an invoice is never smaller than an earlier one.
_ORDER = "CAST('{draft,open,uncollectible,void,paid}' AS text[])"
_GROWN = (
    f"(coalesce(array_position({_ORDER}, excluded.status), 2), excluded.attempt_count,"
    f" excluded.amount_paid) >= (coalesce(array_position({_ORDER}, i.status), 2),"
    " i.attempt_count, i.amount_paid)"
)


def _on_invoice(tx: Transaction, turn: Turn) -> None:
    found = normalise.invoice(turn.event.object)
    fresh = _mirror_invoice(tx, found)
    _tell_paid(tx, turn.customer, found, turn.happened)
    if turn.event.type == "invoice.payment_failed" and turn.customer["workspace_id"]:
        facts.announce(
            tx,
            f"dunning:{found.id}:{found.attempt_count}",
            "PaymentFailed",
            _payment(found, found.amount_due),
            turn.customer["workspace_id"],
            turn.happened,
        )
    # It sets no subscription's status: that has events of its own. But it may date a grace.
    if fresh and turn.customer["workspace_id"] and found.subscription:
        standing.settle(tx, turn.customer["workspace_id"])


def invoice_columns(found: Invoice) -> dict[str, object]:
    """Return what our row of an invoice holds of Stripe's, by column."""
    return {
        "customer_id": found.customer,
        "subscription_id": found.subscription,
        "number": found.number,
        "status": found.status,
        "currency": found.currency,
        "total": found.total,
        "amount_due": found.amount_due,
        "amount_paid": found.amount_paid,
        "attempt_count": found.attempt_count,
        "next_attempt_at": found.next_attempt_at,
        "hosted_url": found.hosted_url,
        "pdf_url": found.pdf_url,
        "created_at": found.created_at,
    }


def _mirror_invoice(tx: Transaction, found: Invoice) -> bool:
    """Write an invoice unless we know a later state of it; tell whether anything is new."""
    return bool(
        tx.run(
            "INSERT INTO invoice AS i (id, customer_id, subscription_id, number, status, currency,"
            " total, amount_due, amount_paid, attempt_count, next_attempt_at, hosted_url, pdf_url,"
            " created_at)"
            " VALUES (:id, :customer_id, :subscription_id, :number, :status, :currency, :total,"
            " :amount_due, :amount_paid, :attempt_count, :next_attempt_at, :hosted_url, :pdf_url,"
            " :created_at)"
            " ON CONFLICT (id) DO UPDATE SET"
            " subscription_id = coalesce(excluded.subscription_id, i.subscription_id),"
            " number = coalesce(excluded.number, i.number), status = excluded.status,"
            " total = excluded.total, amount_due = excluded.amount_due,"
            " amount_paid = excluded.amount_paid, attempt_count = excluded.attempt_count,"
            " next_attempt_at = excluded.next_attempt_at,"
            " hosted_url = coalesce(excluded.hosted_url, i.hosted_url),"
            " pdf_url = coalesce(excluded.pdf_url, i.pdf_url)"
            f" WHERE {_GROWN} AND (i.status, i.attempt_count, i.amount_paid, i.next_attempt_at,"
            "  i.total, i.amount_due, i.subscription_id, i.number, i.hosted_url IS NULL,"
            "  i.pdf_url IS NULL)"
            " IS DISTINCT FROM (excluded.status, excluded.attempt_count, excluded.amount_paid,"
            "  excluded.next_attempt_at, excluded.total, excluded.amount_due,"
            "  coalesce(excluded.subscription_id, i.subscription_id),"
            "  coalesce(excluded.number, i.number),"
            "  coalesce(excluded.hosted_url, i.hosted_url) IS NULL,"
            "  coalesce(excluded.pdf_url, i.pdf_url) IS NULL)",
            id=found.id,
            **invoice_columns(found),
        )
    )


def _tell_paid(tx: Transaction, customer: Row, found: Invoice, happened: datetime) -> None:
    """Announce a payment; `invoice.paid` and `invoice.payment_succeeded` tell of the same one."""
    if found.status == "paid" and found.amount_paid and customer["workspace_id"]:
        facts.announce(
            tx,
            f"receipt:{found.id}",
            "PaymentSucceeded",
            _payment(found, found.amount_paid),
            customer["workspace_id"],
            happened,
        )


def _payment(found: Invoice, amount: int) -> Mapping[str, object]:
    return {
        "invoiceId": found.id,
        "amount": amount,
        "currency": found.currency.upper(),
        "attempt": found.attempt_count,
        "hostedInvoiceUrl": found.hosted_url,
        "nextAttemptAt": found.next_attempt_at,
        "subscriptionId": found.subscription,
        "billingReason": found.reason,
    }


# ---- customers and how they pay


def _on_customer(tx: Transaction, turn: Turn) -> None:
    customer, gone = turn.customer, turn.event.type == "customer.deleted"
    found, as_of = normalise.customer(turn.event.object), turn.event.created
    if turn.answer:
        found, as_of = normalise.customer(turn.answer.object), turn.answer.as_of
        gone = gone or found.deleted
    elif not turn.judge(
        customer["as_of"] or None, over=customer["deleted_at"] is not None, ends=gone
    ):
        return
    tx.run(
        "UPDATE billing_customer SET default_payment_method_id = :payment,"
        " balance = :balance, as_of = :as_of,"
        " deleted_at = CASE WHEN :gone THEN coalesce(deleted_at, now()) ELSE deleted_at END"
        " WHERE id = :id",
        id=customer["id"],
        payment=found.default_payment_method,
        balance=found.balance,
        as_of=as_of,
        gone=gone,
    )
    if _bind(tx, customer, found.workspace):
        standing.settle(tx, customer["workspace_id"])


def _on_payment_method(tx: Transaction, turn: Turn) -> None:
    customer_id = turn.customer["id"]
    gone = turn.event.type == "payment_method.detached"
    found, as_of = normalise.payment_method(turn.event.object, customer_id), turn.event.created
    row = tx.row("SELECT as_of, detached FROM payment_method WHERE id = :id", id=found.id) or {}
    if turn.answer:
        found = normalise.payment_method(turn.answer.object, customer_id)
        gone = gone or not turn.answer.object.get("customer")
        as_of = turn.answer.as_of
    elif not turn.judge(  # Stripe does not take back what was detached
        cast("int | None", row.get("as_of")), over=bool(row.get("detached")), ends=gone
    ):
        return
    _mirror_payment_method(tx, found, as_of, detached=gone)


def _on_checkout(tx: Transaction, turn: Turn) -> None:
    """Nothing: the page was made for a customer of ours, and the subscription has its own events.

    Whose workspace a page is for may be written into its address by whoever pays, so no page
    gives a customer to a workspace.
    """


def _mirror_payment_method(
    tx: Transaction, found: PaymentMethod, as_of: int, *, detached: bool
) -> None:
    tx.run(
        "INSERT INTO payment_method (id, customer_id, type, brand, last4, exp_month, exp_year,"
        " as_of, detached) VALUES (:id, :customer, :type, :brand, :last4, :month, :year, :as_of,"
        " :detached) ON CONFLICT (id) DO UPDATE SET customer_id = excluded.customer_id,"
        " brand = excluded.brand, last4 = excluded.last4, exp_month = excluded.exp_month,"
        " exp_year = excluded.exp_year, as_of = excluded.as_of, detached = excluded.detached",
        id=found.id,
        customer=found.customer,
        type=found.type,
        brand=found.brand,
        last4=found.last4,
        month=found.exp_month,
        year=found.exp_year,
        as_of=as_of,
        detached=detached,
    )


_HANDLERS: tuple[tuple[frozenset[str], Callable[[Transaction, Turn], None]], ...] = (
    (SUBSCRIPTION, _on_subscription),
    (INVOICE, _on_invoice),
    (CUSTOMER, _on_customer),
    (PAYMENT_METHOD, _on_payment_method),
    (CHECKOUT, _on_checkout),
    (SCHEDULE, _on_schedule),
)


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
