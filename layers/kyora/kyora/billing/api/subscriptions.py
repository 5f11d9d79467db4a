"""A workspace's subscription: begin, change, end, keep, pause, resume.

Every change happens under the workspace's `lease`, is made at Stripe, and is mirrored before it is
answered: the answer is what the webhooks will say.

    upgrade           now: its share of the period is charged at once, otherwise nothing changes
    downgrade         with the next period, by a schedule; nothing is prorated
    with `when=now`   at once; the rest of the more expensive plan becomes a credit
    overdue payment   nothing changes now before it is paid
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple

from kyora import idempotency
from kyora.auth import Principal
from kyora.billing import stripe_objects, usage
from kyora.billing.api import customers, directions, overview, owed, pauses, schedules
from kyora.billing.api.lease import Lease, perform
from kyora.billing.events import resync
from kyora.billing.mirror import plan_items
from kyora.billing.models import PauseRequest, Plan, PlanChoice, Subscription
from kyora.billing.plans import offers
from kyora.billing.stripe_objects import TERMINAL_SQL
from kyora.errors import Conflict, Invalid
from kyora.postgres import transaction

_SECRET = ["latest_invoice.confirmation_secret"]
_PAID_FOR = ("active", "trialing")
_OVERDUE = ("past_due", "unpaid")
# Stripe's words for a good card whose owner has to confirm the payment.
_ASKS = (
    "authentication_required",
    "subscription_payment_intent_requires_action",
    "invoice_payment_intent_requires_action",
)

# A paid subscription comes first, even while it gives no access: nothing is sold beside it.
_LIVE = f"""
SELECT s.id, s.customer_id, s.status, s.payment_failed, s.plan_id, s.cancel_at, s.period_end,
    p.amount
FROM billing_customer c JOIN subscription s ON s.customer_id = c.id
LEFT JOIN workspace_billing b ON b.workspace_id = c.workspace_id
LEFT JOIN plan p ON p.id = s.plan_id
WHERE c.workspace_id = :workspace_id AND s.status NOT IN {TERMINAL_SQL}
ORDER BY s.status = 'incomplete', p.amount IS NOT DISTINCT FROM 0,
    s.id IS NOT DISTINCT FROM b.subscription_id DESC, s.began_at DESC, s.id
"""


class Live(NamedTuple):
    """A workspace's subscription that has not ended, from our mirror."""

    id: str
    customer_id: str
    status: str
    payment_failed: bool  # Stripe paused it for that
    plan_id: str | None
    cancel_at: datetime | None
    period_end: datetime | None
    amount: int | None

    @property
    def costs(self) -> bool:
        """Whether it is paid for; assumed for an unknown price."""
        return self.amount != 0


def choose(who: Principal, wanted: PlanChoice, idempotency_key: str = "") -> Subscription:
    """Put the workspace on a plan: begin a subscription, or change the one it has.

    Raises Forbidden, NotFound `billing.plan_not_found`, Conflict `billing.downgrade_blocked` and
    `billing.in_progress`, PaymentRequired (with `clientSecret` and `payUrl`), and as
    `stripe_client.call` does. An outstanding payment leaves the subscription incomplete, or the
    change pending; a repeated call then gets the same answer.
    """
    who.require("admin")
    plan = offers.offered(wanted.plan_id)

    def act(lease: Lease) -> dict[str, Any]:
        _choose(lease, plan, wanted.when)
        return _dumped(overview.read(lease.workspace_id))

    body = wanted.model_dump(mode="json", by_alias=True, exclude_none=True)
    request, name = idempotency.asked(who.user_id, body), "change_subscription"
    answer = perform(who.workspace_id, name, idempotency_key, request, act)
    return Subscription.model_validate(answer)


def cancel(who: Principal, when: str) -> Subscription:
    """End the subscription at the period's end or `now`; without one nothing happens.

    Raises Forbidden, Invalid, Conflict `billing.in_progress`, and as `stripe_client.call` does.
    """
    who.require("admin")
    if when not in ("period_end", "now"):
        raise Invalid(
            "Some fields are not valid.",
            errors=[{"field": "when", "message": "must be period_end or now"}],
        )

    def act(lease: Lease) -> dict[str, Any]:
        live = _current(lease)
        if live and (when == "now" or live.status == "incomplete"):
            end(live)
        elif live:
            _end_with_period(lease, live)
        return _dumped(overview.read(lease.workspace_id))

    answer = perform(who.workspace_id, "cancel_subscription", "", {}, act)
    return Subscription.model_validate(answer)


def take_back_change(who: Principal) -> Subscription:
    """Take back a pending change: a downgrade, the end, or an unpaid upgrade.

    Raises Forbidden, Conflict `billing.in_progress`, and as `stripe_client.call` does.
    """
    who.require("admin")

    def act(lease: Lease) -> dict[str, Any]:
        live = _current(lease)
        if live and live.status != "incomplete":
            _keep(lease, live)
        return _dumped(overview.read(lease.workspace_id))

    answer = perform(who.workspace_id, "take_back_change", "", {}, act)
    return Subscription.model_validate(answer)


def pause(who: Principal, wanted: PauseRequest) -> Subscription:
    """Pause the subscription until a date, or until it is resumed; see `pauses`.

    Raises Forbidden, Invalid, Conflict `billing.no_subscription`, `billing.cannot_pause` and
    `billing.in_progress`, and as `stripe_client.call` does.
    """
    who.require("admin")
    pauses.require_future(wanted.resume_at)

    def act(lease: Lease) -> dict[str, Any]:
        live = _current(lease)
        if live is None:
            raise Conflict("There is no subscription to pause.", code="billing.no_subscription")
        pauses.pause(lease, live.id, wanted.resume_at)
        resync.subscription(live.customer_id, live.id)
        return _dumped(overview.read(lease.workspace_id))

    body = wanted.model_dump(mode="json", by_alias=True, exclude_none=True)
    answer = perform(who.workspace_id, "pause_subscription", "", body, act)
    return Subscription.model_validate(answer)


def resume_subscription(who: Principal) -> Subscription:
    """Take back a scheduled end, resume a paused subscription, or say how to pay what is owed.

    Raises Forbidden, Conflict `billing.no_subscription` and `billing.in_progress`, PaymentRequired
    (with `payUrl`), and as `stripe_client.call` does.
    """
    who.require("admin")

    def act(lease: Lease) -> dict[str, Any]:
        live = _current(lease)
        if live is None:
            raise Conflict("There is no subscription to keep.", code="billing.no_subscription")
        if live.cancel_at is not None:
            _keep(lease, live)
        _revive(lease, live)
        return _dumped(overview.read(lease.workspace_id))

    answer = perform(who.workspace_id, "resume_subscription", "", {}, act)
    return Subscription.model_validate(answer)


def every(workspace_id: str) -> list[Live]:
    """Return a workspace's live subscriptions: paid ones, then free, then incomplete."""
    with transaction() as tx:
        rows: Any = tx.rows(_LIVE, workspace_id=workspace_id)
    return [Live(**row) for row in rows]


def find(workspace_id: str) -> Live | None:
    """Return the subscription that changes apply to; None when all have ended."""
    return next(iter(every(workspace_id)), None)


def refresh(customer_id: str) -> None:
    """Bring the mirror of a customer's subscriptions up to date with Stripe.

    For a caller that must not begin a second one: a page of Stripe's may have been paid a second
    ago, and a request whose answer was lost may have succeeded. Open pages are expired first.
    Raises as `stripe_client.call` does; Missing also for a subscription of ours that Stripe lacks.
    """
    from kyora.billing import stripe_client

    sessions = stripe_client.pages("checkout/sessions", customer=customer_id, status="open")
    for session in list(sessions):
        with suppress(stripe_client.Refused, stripe_client.Missing):  # paid or expired just now
            stripe_client.call("post", f"checkout/sessions/{session['id']}/expire")
    with transaction() as tx:
        rows = tx.rows(
            "SELECT id, status FROM subscription WHERE customer_id = :customer",
            customer=customer_id,
        )
    ours = {row["id"]: row["status"] for row in rows}
    unlisted = {str(name) for name, status in ours.items() if status not in stripe_objects.TERMINAL}
    for found in stripe_client.pages("subscriptions", customer=customer_id, status="all"):
        unlisted.discard(found["id"])
        over = found.get("status") in stripe_objects.TERMINAL
        if not over or ours.get(found["id"], found["status"]) not in stripe_objects.TERMINAL:
            resync.subscription(customer_id, str(found["id"]))
    for name in unlisted:
        if not resync.subscription(customer_id, name):
            raise stripe_client.Missing("Stripe does not know a subscription of ours.")


def end(live: Live) -> None:
    """End a subscription now, and settle its account.

    Pending items are billed, and the rest of a paid period becomes a credit for the next
    subscription. An unpaid period is never credited. What waits for its payment and gave nothing
    yet is no debt: an upgrade, or the return from a pause, whose invoice holds the pause's credit.
    """
    from kyora.billing import stripe_client

    owing = owed.invoices(live.id) if live.status in (*_PAID_FOR, "paused") else []
    if owing and not live.payment_failed:
        found = stripe_client.call("get", f"subscriptions/{live.id}").object
        drop = owed.void_latest if live.status == "paused" else owed.drop_pending
        drop(found)
        owing = owed.invoices(live.id)
    # A paused one was credited when it was paused; that credit is a pending item.
    paid = live.status in ("active", "paused") and not owing
    with suppress(stripe_client.Missing):  # it has ended already
        stripe_client.call(
            "delete",
            f"subscriptions/{live.id}",
            invoice_now=paid,
            prorate=paid and live.status == "active",
        )
    resync.subscription(live.customer_id, live.id)


# ---- under the workspace's lease


def _current(lease: Lease) -> Live | None:
    """Return the subscription that counts, read from Stripe where our mirror may be stale.

    That is after an abandoned lease, and when we know of none: a page of Stripe's may have been
    paid a second ago.
    """
    live = None if lease.left_behind else find(lease.workspace_id)
    if live is None and (customer := customers.find(lease.workspace_id)):
        refresh(customer)
        live = find(lease.workspace_id)
    if live and live.status == "incomplete":  # it may be being paid right now
        resync.subscription(live.customer_id, live.id)
        live = find(lease.workspace_id)
    return live


def _choose(lease: Lease, plan: Plan, when: str | None) -> None:
    live = _current(lease)
    if live is None and not plan.amount:
        return  # it is on the free plan already
    if live and live.plan_id == plan.id:
        _stay(lease, live)
        return
    _require_fit(lease.workspace_id, plan)
    if live and live.payment_failed and plan.amount and owed.invoices(live.id):
        raise owed.payment_required(live.id)  # a period has begun and is not paid for
    if live and live.status in ("incomplete", "paused"):  # none of it is in use
        end(live)
        live = None
    if live:
        _move(lease, live, plan, when or directions.default(live.plan_id, plan))
    elif plan.amount:
        _begin(lease, customers.ensure(lease.workspace_id), plan)


def _stay(lease: Lease, live: Live) -> None:
    """Handle the choice of the current plan: it may be unpaid, about to change, paused, or fine."""
    if live.status == "incomplete":
        raise owed.payment_required(live.id)
    _keep(lease, live)
    _revive(lease, live)


def _revive(lease: Lease, live: Live) -> None:
    """Resume a subscription that gives no access; raises PaymentRequired where that costs."""
    if live.status == "paused":
        pauses.resume(lease, live.id)
        resync.subscription(live.customer_id, live.id)
        now = find(lease.workspace_id)
        if now and now.id == live.id and now.status == "paused":
            raise owed.payment_required(live.id)
    elif live.status in _OVERDUE:
        raise owed.payment_required(live.id)


def _move(lease: Lease, live: Live, plan: Plan, when: str) -> None:
    if when == "renewal":
        _plan_ahead(lease, live, plan)
        return
    if live.status in _OVERDUE:  # an unpaid period would be credited, or an upgrade given
        raise owed.payment_required(live.id)
    if plan.stripe_price_id is not None:
        _change(lease, live, plan)
    else:  # the free plan has no price at Stripe
        end(live)


def _plan_ahead(lease: Lease, live: Live, plan: Plan) -> None:
    """Let the plan begin with the next period. A free plan without a price at Stripe is an end."""
    from kyora.billing import stripe_client

    if plan.stripe_price_id is None:
        _end_with_period(lease, live)
        return
    _keep(lease, live)
    found = stripe_client.call("get", f"subscriptions/{live.id}").object
    now = at_its_plan(found)
    if now.price != plan.stripe_price_id:
        every = (str(plan.interval), plan.interval_count)
        schedules.plan(lease, found, str(now.item), plan.stripe_price_id, every)
    resync.subscription(live.customer_id, live.id)


def _begin(lease: Lease, customer: str, plan: Plan) -> None:
    """Subscribe a customer with the saved card; without one the client is asked to pay."""
    made = _create(lease.shared_key, lease, customer, plan)
    if find(lease.workspace_id) is None and made["status"] not in stripe_objects.TERMINAL:
        # Stripe repeated its answer to an abandoned lease: that subscription has ended.
        made = _create(lease.key, lease, customer, plan)
    if made["status"] == "incomplete":
        raise owed.of(made)


def _create(key: Callable[..., str], lease: Lease, customer: str, plan: Plan) -> dict[str, Any]:
    """Create the subscription, mirror it, and return what Stripe answered."""
    from kyora.billing import stripe_client

    def create(behavior: str, method: str | None) -> dict[str, Any]:
        return stripe_client.call(
            "post",
            "subscriptions",
            idempotency_key=key("sub", str(plan.stripe_price_id), behavior, method or ""),
            customer=customer,
            items=[{"price": plan.stripe_price_id}],
            payment_behavior=behavior,
            payment_settings={"save_default_payment_method": "on_subscription"},
            metadata={"workspaceId": lease.workspace_id},
            expand=_SECRET,
            **({"default_payment_method": method} if method else {}),
        ).object

    method, made = customers.saved_method(customer), None
    if method:
        try:
            # A declined card leaves nothing behind at Stripe.
            made = create("error_if_incomplete", method)
        except stripe_client.Declined as refusal:
            if refusal.members.get("declineCode") not in _ASKS:
                raise
        except stripe_client.Missing:  # no longer this customer's
            method = None
    made = made or create("default_incomplete", method)
    resync.subscription(customer, str(made["id"]))
    return made


def _change(lease: Lease, live: Live, plan: Plan) -> None:
    """Put another price on the item that is there; a second item would be paid beside it.

    What the change costs is paid first: until then a planned change and a scheduled end stay.
    """
    from kyora.billing import stripe_client

    price = str(plan.stripe_price_id)
    found = stripe_client.call("get", f"subscriptions/{live.id}", expand=_SECRET).object
    now = at_its_plan(found)
    if now.price != price and price in _waiting_prices(found):
        raise owed.of(found)
    if now.price != price:
        owed.settle_draft(lease, found)
        found = _reprice(lease, found, now, price)
    resync.subscription(live.customer_id, live.id)
    if _waiting_prices(found):
        raise owed.of(found)
    if schedules.release(lease, found):
        resync.subscription(live.customer_id, live.id)
    if now.cancel_at is not None:
        _keep(lease, live)


def _reprice(
    lease: Lease, found: Mapping[str, Any], now: stripe_objects.StripeSubscription, price: str
) -> dict[str, Any]:
    """Change the price of the plan's item; where a payment fails, the change waits for it."""
    from kyora.billing import stripe_client

    def ask(key: str) -> dict[str, Any]:
        return stripe_client.call(
            "post",
            f"subscriptions/{now.id}",
            idempotency_key=key,
            items=[{"id": now.item, "price": price}],
            proration_behavior="always_invoice",
            payment_behavior=(
                "pending_if_incomplete" if now.status in _PAID_FOR else "allow_incomplete"
            ),
            expand=_SECRET,
        ).object

    try:
        return ask(lease.key("change", now.id, price))
    except stripe_client.Refused:  # in case Stripe does not do it beside a schedule
        if not schedules.release(lease, found):
            raise
    return ask(lease.key("change", now.id, price, "released"))


def _keep(lease: Lease, live: Live) -> None:
    """Keep the subscription as it is: no planned change, no end, no unpaid upgrade."""
    from kyora.billing import stripe_client

    if not _unsettled(live):
        return
    found = stripe_client.call("get", f"subscriptions/{live.id}").object
    if schedules.release(lease, found):
        found = stripe_client.call("get", f"subscriptions/{live.id}").object
    owed.drop_pending(found)
    flagged = found.get("cancel_at_period_end") is True
    sign: dict[str, Any] = {"cancel_at_period_end": False} if flagged else {"cancel_at": ""}
    if flagged or found.get("cancel_at"):
        key = lease.key("keep", live.id)
        stripe_client.call("post", f"subscriptions/{live.id}", idempotency_key=key, **sign)
    resync.subscription(live.customer_id, live.id)


def _unsettled(live: Live) -> bool:
    """Return whether our mirror knows of anything pending; otherwise Stripe is not asked."""
    with transaction() as tx:
        row = tx.row(
            "SELECT 1 FROM subscription s LEFT JOIN subscription_terms t"
            " ON t.subscription_id = s.id WHERE s.id = :id AND (s.cancel_at IS NOT NULL"
            " OR t.schedule_id IS NOT NULL OR s.doubtful OR t.subscription_id IS NULL"
            " OR EXISTS (SELECT 1 FROM invoice i WHERE i.subscription_id = s.id"
            "   AND i.status = 'open'))",
            id=live.id,
        )
    return row is not None


def _end_with_period(lease: Lease, live: Live) -> None:
    """End the subscription with its period, unless it ends before that."""
    from kyora.billing import stripe_client

    if live.cancel_at and live.period_end and live.cancel_at <= live.period_end:
        return
    found = stripe_client.call("get", f"subscriptions/{live.id}").object
    schedules.release(lease, found)
    owed.drop_pending(found)
    stripe_client.call(
        "post",
        f"subscriptions/{live.id}",
        idempotency_key=lease.key("end", live.id),
        cancel_at_period_end=True,
    )
    resync.subscription(live.customer_id, live.id)


def _require_fit(workspace_id: str, plan: Plan) -> None:
    with transaction() as tx:
        usage.require_fit(tx, workspace_id, plan.limits)


# ---- Stripe's answers


def at_its_plan(found: Mapping[str, Any]) -> stripe_objects.StripeSubscription:
    """Return a subscription at the item of its plan, whatever else it is charged for."""
    with transaction() as tx:
        return plan_items.place(tx, stripe_objects.subscription(found)).found


def _waiting_prices(found: Mapping[str, Any]) -> set[str]:
    """Return the prices that a subscription changes to once its invoice is paid."""
    items = (found.get("pending_update") or {}).get("subscription_items") or []
    prices = [item.get("price") for item in items]
    return {str(p.get("id") if isinstance(p, dict) else p) for p in prices if p}


def _dumped(found: Subscription) -> dict[str, Any]:
    return found.model_dump(mode="json", by_alias=True, exclude_none=True)
