"""A workspace's subscription: read, begin, change, end, keep.

What is decided here is decided in the workspace's turn (`operations`), asked of Stripe, and
mirrored before it is answered: the answer is what the webhooks will say.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple

from kyora.auth import Principal
from kyora.billing import apply, customers, normalise, offers, operations, plan_items, usage
from kyora.billing.models import (
    PaymentMethod,
    Plan,
    PlanChoice,
    Preview,
    PreviewLine,
    Subscription,
)
from kyora.billing.operations import Turn
from kyora.errors import Conflict, Invalid, PaymentRequired
from kyora.postgres import transaction

_SECRET = ["latest_invoice.confirmation_secret"]
_PAID_FOR = ("active", "trialing")
# Stripe's words for a card that is good, and whose owner has to be asked.
_ASKS = (
    "authentication_required",
    "subscription_payment_intent_requires_action",
    "invoice_payment_intent_requires_action",
)

_READ = """
SELECT coalesce(b.plan_id, f.id) AS plan_id, coalesce(b.access, 'free') AS access, b.access_until,
    coalesce(b.status, 'free') AS status, coalesce(b.limits, f.limits) AS limits,
    s.period_end, s.cancel_at, CASE WHEN s.status = 'trialing' THEN s.trial_end END AS trial_end,
    m.type, m.brand, m.last4, m.exp_month, m.exp_year
FROM free_plan f
LEFT JOIN workspace_billing b ON b.workspace_id = :workspace_id
LEFT JOIN subscription s ON s.id = b.subscription_id
    AND s.status NOT IN ('canceled', 'incomplete_expired')
LEFT JOIN billing_customer c ON c.workspace_id = :workspace_id AND c.deleted_at IS NULL
    AND NOT c.beside
LEFT JOIN payment_method m ON NOT m.detached
    AND m.id = coalesce(s.default_payment_method_id, c.default_payment_method_id)
"""

# What somebody pays for comes first, also while it gives no access: nothing is sold beside it.
_LIVE = """
SELECT s.id, s.customer_id, s.status, s.plan_id, s.cancel_at, p.amount
FROM billing_customer c JOIN subscription s ON s.customer_id = c.id
LEFT JOIN workspace_billing b ON b.workspace_id = c.workspace_id
LEFT JOIN plan p ON p.id = s.plan_id
WHERE c.workspace_id = :workspace_id AND s.status NOT IN ('canceled', 'incomplete_expired')
ORDER BY s.status = 'incomplete', p.amount IS NOT DISTINCT FROM 0,
    s.id IS NOT DISTINCT FROM b.subscription_id DESC, s.began_at DESC, s.id
"""


class Live(NamedTuple):
    """A subscription of a workspace that is not over, as it is mirrored."""

    id: str
    customer_id: str
    status: str
    plan_id: str | None
    cancel_at: datetime | None
    amount: int | None

    @property
    def costs(self) -> bool:
        """Whether anybody pays for it; of an unknown price that is assumed."""
        return self.amount != 0


def read(workspace_id: str) -> Subscription:
    """Return what the workspace is on. Nothing is written, also for one that never paid."""
    with transaction() as tx:
        row: Mapping[str, Any] = tx.row(_READ, workspace_id=workspace_id) or {}
        used = usage.count(tx, workspace_id)
    method = None
    if row["type"]:
        fields = ("type", "brand", "last4", "exp_month", "exp_year")
        method = PaymentMethod(**{name: row[name] for name in fields})
    return Subscription(
        status=row["status"],
        access=row["access"],
        access_until=row["access_until"],
        plan=offers.applying(row["plan_id"]),
        current_period_end=row["period_end"],
        cancel_at=row["cancel_at"],
        trial_end=row["trial_end"],
        limits=row["limits"],
        usage=used,
        over_limit=[str(item["limit"]) for item in usage.over(used, row["limits"])],
        payment_method=method,
    )


def choose(who: Principal, wanted: PlanChoice, idempotency_key: str = "") -> Subscription:
    """Put the workspace on a plan: begin a subscription, or change the one it has.

    Raises Forbidden, NotFound `billing.plan_not_found`, Conflict `billing.downgrade_blocked` and
    `billing.in_progress`, PaymentRequired (with `clientSecret`), and as `stripe_api.call` does.
    A payment that has to be made leaves the subscription incomplete, or the change waiting; a
    repeated call then answers the same.
    """
    who.require("admin")
    plan = offers.offered(wanted.plan_id)

    def act(turn: Turn) -> dict[str, Any]:
        _choose(turn, plan)
        return _dumped(read(turn.workspace_id))

    body = wanted.model_dump(mode="json", by_alias=True)
    answer = operations.perform(who.workspace_id, "change_subscription", idempotency_key, body, act)
    return Subscription.model_validate(answer)


def preview(who: Principal, wanted: PlanChoice) -> Subscription:
    """Return the subscription as it is, with what the change would come to. Changes nothing."""
    from kyora.billing import stripe_api

    who.require("admin")
    plan = offers.offered(wanted.plan_id)
    live = find(who.workspace_id)
    _require_fit(who.workspace_id, plan)
    now = read(who.workspace_id)
    if plan.stripe_price_id is None or (live is None and not customers.find(who.workspace_id)):
        line = PreviewLine(description=plan.name, amount=plan.amount)
        shown = Preview(
            plan_id=plan.id,
            amount=plan.amount,
            proration=0,
            currency=plan.currency or now.plan.currency or "USD",
            lines=[line],
        )
        return now.model_copy(update={"preview": shown})
    item: dict[str, str] = {"price": plan.stripe_price_id}
    if live and live.status != "incomplete":
        found = stripe_api.call("get", f"subscriptions/{live.id}").object
        item["id"] = str(_at_its_plan(found).item)
        asked: dict[str, Any] = {"subscription": live.id}
        asked["subscription_details"] = {"items": [item], "proration_behavior": "create_prorations"}
    else:
        asked = {"customer": customers.find(who.workspace_id) or (live and live.customer_id)}
        asked["subscription_details"] = {"items": [item]}
    invoice = stripe_api.call("post", "invoices/create_preview", **asked).object
    return now.model_copy(update={"preview": _preview(plan, invoice)})


def cancel(who: Principal, when: str) -> Subscription:
    """End the subscription with its period, or `now`; without one nothing happens.

    Raises Forbidden, Invalid, Conflict `billing.in_progress`, and as `stripe_api.call` does.
    """
    who.require("admin")
    if when not in ("period_end", "now"):
        raise Invalid(
            "Some fields are not valid.",
            errors=[{"field": "when", "message": "must be period_end or now"}],
        )

    def act(turn: Turn) -> dict[str, Any]:
        live = _current(turn)
        if live and (when == "now" or live.status == "incomplete"):
            end(live)
        elif live and live.cancel_at is None:
            _end_with_period(turn, live)
        return _dumped(read(turn.workspace_id))

    answer = operations.perform(who.workspace_id, "cancel_subscription", "", {}, act)
    return Subscription.model_validate(answer)


def resume(who: Principal) -> Subscription:
    """Take a scheduled end back, or go on with a paused subscription.

    Raises Forbidden, Conflict `billing.no_subscription` and `billing.in_progress`, and as
    `stripe_api.call` does.
    """
    who.require("admin")

    def act(turn: Turn) -> dict[str, Any]:
        live = _current(turn)
        if live is None:
            raise Conflict("There is no subscription to keep.", code="billing.no_subscription")
        if live.cancel_at is not None:
            _keep(turn, live)
        if live.status == "paused":
            _go_on(turn, live)
        return _dumped(read(turn.workspace_id))

    answer = operations.perform(who.workspace_id, "resume_subscription", "", {}, act)
    return Subscription.model_validate(answer)


def every(workspace_id: str) -> list[Live]:
    """Return a workspace's subscriptions that are not over: paid ones, then free, then unpaid."""
    with transaction() as tx:
        rows: Any = tx.rows(_LIVE, workspace_id=workspace_id)
    return [Live(**row) for row in rows]


def find(workspace_id: str) -> Live | None:
    """Return the subscription that a workspace's changes are of, unless all are over."""
    return next(iter(every(workspace_id)), None)


def refresh(customer_id: str) -> None:
    """Bring the mirror of a customer's subscriptions up to date with Stripe.

    For whoever must not begin a second one: a page of Stripe's may have been paid a second ago,
    and a request that nobody heard the answer of may have been done. Pages that are still open
    are closed first.
    """
    from kyora.billing import stripe_api

    sessions = stripe_api.pages("checkout/sessions", customer=customer_id, status="open")
    for session in list(sessions):
        with suppress(stripe_api.Refused, stripe_api.Missing):  # paid, or over, this very moment
            stripe_api.call("post", f"checkout/sessions/{session['id']}/expire")
    with transaction() as tx:
        rows = tx.rows(
            "SELECT id, status FROM subscription WHERE customer_id = :customer",
            customer=customer_id,
        )
    ours = {row["id"]: row["status"] for row in rows}
    for found in stripe_api.pages("subscriptions", customer=customer_id, status="all"):
        over = found.get("status") in normalise.TERMINAL
        if not over or ours.get(found["id"], found["status"]) not in normalise.TERMINAL:
            apply.resync(customer_id, str(found["id"]))


def end(live: Live) -> None:
    """End a subscription now."""
    from kyora.billing import stripe_api

    with suppress(stripe_api.Missing):  # it is over already
        stripe_api.call("delete", f"subscriptions/{live.id}")
    apply.resync(live.customer_id, live.id)


# ---- in the workspace's turn


def _current(turn: Turn) -> Live | None:
    """Return the subscription that counts, as Stripe has it when ours may be old.

    That is after a turn whose outcome nobody knows, and where we know none: a page of Stripe's may
    have been paid a second ago.
    """
    live = None if turn.left_behind else find(turn.workspace_id)
    if live is None and (customer := customers.find(turn.workspace_id)):
        refresh(customer)
        live = find(turn.workspace_id)
    if live and live.status == "incomplete":  # somebody may be paying right now
        apply.resync(live.customer_id, live.id)
        live = find(turn.workspace_id)
    return live


def _choose(turn: Turn, plan: Plan) -> None:
    live = _current(turn)
    if live is None and not plan.amount:
        return  # what it is on already
    if live and live.plan_id == plan.id:
        _stay(turn, live)
        return
    _require_fit(turn.workspace_id, plan)
    if live and live.status == "incomplete":  # another plan was never paid for
        end(live)
        live = None
    if live:
        _move(turn, live, plan)
    elif plan.amount:
        _begin(turn, customers.ensure(turn.workspace_id), plan)


def _stay(turn: Turn, live: Live) -> None:
    """Answer for the plan that was chosen before: it may be unpaid, or about to end."""
    from kyora.billing import stripe_api

    if live.status == "incomplete":
        found = stripe_api.call("get", f"subscriptions/{live.id}", expand=_SECRET).object
        raise _payment_required(found)
    if live.cancel_at is not None:
        _keep(turn, live)


def _move(turn: Turn, live: Live, plan: Plan) -> None:
    if plan.stripe_price_id is not None:
        _change(turn, live, plan)
    elif live.cancel_at is None:  # the free plan is nothing at Stripe: what is paid for comes first
        _end_with_period(turn, live)


def _begin(turn: Turn, customer: str, plan: Plan) -> None:
    """Subscribe a customer, who pays with what was saved, or else is asked to."""
    made = _create(turn.shared_key, turn, customer, plan)
    if find(turn.workspace_id) is None and made["status"] not in normalise.TERMINAL:
        # Stripe repeated what it answered the turn before: that subscription is over by now.
        made = _create(turn.key, turn, customer, plan)
    if made["status"] == "incomplete":
        raise _payment_required(made)


def _create(key: Callable[..., str], turn: Turn, customer: str, plan: Plan) -> dict[str, Any]:
    """Create the subscription, mirror it, and return what Stripe answered."""
    from kyora.billing import stripe_api

    def create(behavior: str, method: str | None) -> dict[str, Any]:
        return stripe_api.call(
            "post",
            "subscriptions",
            idempotency_key=key("sub", str(plan.stripe_price_id), behavior, method or ""),
            customer=customer,
            items=[{"price": plan.stripe_price_id}],
            payment_behavior=behavior,
            payment_settings={"save_default_payment_method": "on_subscription"},
            metadata={"workspaceId": turn.workspace_id},
            expand=_SECRET,
            **({"default_payment_method": method} if method else {}),
        ).object

    method, made = customers.saved_method(customer), None
    if method:
        try:
            # A card that is declined leaves nothing behind at Stripe.
            made = create("error_if_incomplete", method)
        except stripe_api.Declined as refusal:
            if refusal.members.get("declineCode") not in _ASKS:
                raise
        except stripe_api.Missing:  # not with this customer any more
            method = None
    made = made or create("default_incomplete", method)
    apply.resync(customer, str(made["id"]))
    return made


def _change(turn: Turn, live: Live, plan: Plan) -> None:
    """Put another price on the item that is there; a second one would be paid beside it."""
    from kyora.billing import stripe_api

    price = str(plan.stripe_price_id)
    found = stripe_api.call("get", f"subscriptions/{live.id}", expand=_SECRET).object
    now = _at_its_plan(found)
    if now.price != price and price in _waiting_prices(found):
        raise _payment_required(found)
    if now.price != price:
        # What has to be paid at once (another interval, or nothing before) is paid first.
        waits = now.status in _PAID_FOR
        found = stripe_api.call(
            "post",
            f"subscriptions/{live.id}",
            idempotency_key=turn.key("change", live.id, price),
            items=[{"id": now.item, "price": price}],
            proration_behavior="create_prorations",
            payment_behavior="pending_if_incomplete" if waits else "allow_incomplete",
            expand=_SECRET,
        ).object
    apply.resync(live.customer_id, live.id)
    if _waiting_prices(found):
        raise _payment_required(found)
    if now.cancel_at is not None:
        _keep(turn, live)


def _keep(turn: Turn, live: Live) -> None:
    """Take a scheduled end back, whichever of its two signs it has."""
    from kyora.billing import stripe_api

    found = stripe_api.call("get", f"subscriptions/{live.id}").object
    flagged = found.get("cancel_at_period_end") is True
    sign: dict[str, Any] = {"cancel_at_period_end": False} if flagged else {"cancel_at": ""}
    if flagged or found.get("cancel_at"):
        key = turn.key("keep", live.id)
        stripe_api.call("post", f"subscriptions/{live.id}", idempotency_key=key, **sign)
    apply.resync(live.customer_id, live.id)


def _end_with_period(turn: Turn, live: Live) -> None:
    from kyora.billing import stripe_api

    stripe_api.call(
        "post",
        f"subscriptions/{live.id}",
        idempotency_key=turn.key("end", live.id),
        cancel_at_period_end=True,
    )
    apply.resync(live.customer_id, live.id)


def _go_on(turn: Turn, live: Live) -> None:
    from kyora.billing import stripe_api

    stripe_api.call(
        "post",
        f"subscriptions/{live.id}/resume",
        idempotency_key=turn.key("resume", live.id),
        billing_cycle_anchor={"type": "now"},
        payment_behavior="resume_on_payment_success",
    )
    apply.resync(live.customer_id, live.id)


def _require_fit(workspace_id: str, plan: Plan) -> None:
    with transaction() as tx:
        usage.require_fit(tx, workspace_id, plan.limits)


# ---- Stripe's answers


def _payment_required(found: Mapping[str, Any]) -> PaymentRequired:
    """Return the refusal that lets the client ask for the payment, without a card passing us."""
    invoice = found.get("latest_invoice") or {}
    secret = (invoice.get("confirmation_secret") or {}).get("client_secret")
    members = {"clientSecret": secret} if secret else {}
    return PaymentRequired(
        "A payment has to be confirmed first.", code="billing.payment_required", **members
    )


def _at_its_plan(found: Mapping[str, Any]) -> normalise.Subscription:
    """Return a subscription at the item that is its plan, whatever else it is charged for."""
    with transaction() as tx:
        return plan_items.place(tx, normalise.subscription(found)).found


def _waiting_prices(found: Mapping[str, Any]) -> set[str]:
    """Return the prices that a subscription changes to once an invoice is paid."""
    items = (found.get("pending_update") or {}).get("subscription_items") or []
    prices = [item.get("price") for item in items]
    return {str(p.get("id") if isinstance(p, dict) else p) for p in prices if p}


def _preview(plan: Plan, invoice: Mapping[str, Any]) -> Preview:
    lines = (invoice.get("lines") or {}).get("data") or []
    return Preview(
        plan_id=plan.id,
        amount=invoice["amount_due"],
        proration=sum(line["amount"] for line in lines if _prorated(line)),
        currency=str(invoice["currency"]).upper(),
        lines=[
            PreviewLine(description=line.get("description") or plan.name, amount=line["amount"])
            for line in lines
        ],
    )


def _prorated(line: Mapping[str, Any]) -> bool:
    details = (line.get("parent") or {}).get("subscription_item_details") or {}
    return details.get("proration") is True


def _dumped(found: Subscription) -> dict[str, Any]:
    return found.model_dump(mode="json", by_alias=True, exclude_none=True)
