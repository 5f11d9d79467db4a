"""What a change of plan would cost: Stripe previews the same parameters as the change uses."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from kyora import clock
from kyora.auth import Principal
from kyora.billing import stripe_objects, usage
from kyora.billing.api import customers, directions, overview, subscriptions
from kyora.billing.api.subscriptions import Live
from kyora.billing.events import gone
from kyora.billing.models import Plan, PlanChoice, Preview, PreviewLine, Subscription
from kyora.billing.plans import offers
from kyora.postgres import transaction

type Json = Mapping[str, Any]


def preview(who: Principal, wanted: PlanChoice) -> Subscription:
    """Return the subscription as it is, with what the change would cost.

    Changes nothing at Stripe; what is gone there is ended here first.

    Raises as `subscriptions.choose` does, except for errors of the payment.
    """
    who.require("admin")
    plan = offers.offered(wanted.plan_id)
    return gone.once_more(who.workspace_id, lambda: _previewed(who.workspace_id, plan, wanted.when))


def _previewed(workspace_id: str, plan: Plan, asked: str | None) -> Subscription:
    live = subscriptions.find(workspace_id)
    if live is None or live.plan_id != plan.id:
        with transaction() as tx:
            usage.require_fit(tx, workspace_id, plan.limits)
    now = overview.read(workspace_id)
    customer = customers.find(workspace_id)
    if live is None or live.status in ("incomplete", "paused"):
        shown = _beginning(plan, customer or (live and live.customer_id), now)
    elif live.plan_id == plan.id:
        shown = _staying(plan, live, now)
    elif (when := asked or directions.default(live.plan_id, plan)) == "renewal":
        shown = _renewing(plan, live, now)
    elif plan.stripe_price_id is None:
        shown = _nothing(plan, now, when)
    else:
        shown = _changing(plan, live)
    return now.model_copy(update={"preview": shown})


def _beginning(plan: Plan, customer: str | None, now: Subscription) -> Preview:
    if plan.stripe_price_id is None or customer is None:
        line = PreviewLine(description=plan.name, amount=plan.amount)
        return Preview(
            plan_id=plan.id,
            when="now",
            due_now=plan.amount,
            due_at=clock.now() if plan.amount else None,
            amount=plan.amount,
            proration=0,
            currency=plan.currency or now.plan.currency or "USD",
            lines=[line],
        )
    return _read(plan, _first_invoice(customer, plan.stripe_price_id), "now", None)


def _staying(plan: Plan, live: Live, now: Subscription) -> Preview:
    """Preview the next invoice of the current plan: a pending change is taken back."""
    from kyora.billing import stripe_client

    if plan.stripe_price_id is None:
        return _nothing(plan, now, "now")
    found = stripe_client.call("get", f"subscriptions/{live.id}").object
    now_at = subscriptions.at_its_plan(found)
    same = {"items": [{"id": now_at.item, "price": now_at.price}], "proration_behavior": "none"}
    invoice = stripe_client.call(
        "post", "invoices/create_preview", subscription=live.id, **_kept(live, same)
    ).object
    return _read(plan, invoice, "renewal", live.period_end)


def _renewing(plan: Plan, live: Live, now: Subscription) -> Preview:
    """Preview the first invoice of the next period; nothing is due before."""
    from kyora.billing import stripe_client

    if plan.stripe_price_id is None:
        return _nothing(plan, now, "renewal")
    found = stripe_client.call("get", f"subscriptions/{live.id}").object
    now_at = subscriptions.at_its_plan(found)
    every = {(one.interval, one.interval_count) for one in now_at.items if one.id == now_at.item}
    if every != {(plan.interval, plan.interval_count)}:
        # Stripe would begin another interval at once; at renewal it begins like a new subscription.
        invoice = _first_invoice(live.customer_id, plan.stripe_price_id)
    else:
        changed = {"items": [{"id": now_at.item, "price": plan.stripe_price_id}]}
        invoice = stripe_client.call(
            "post",
            "invoices/create_preview",
            subscription=live.id,
            **_kept(live, changed | {"proration_behavior": "none"}),
        ).object
    return _read(plan, invoice, "renewal", live.period_end)


def _changing(plan: Plan, live: Live) -> Preview:
    from kyora.billing import stripe_client

    found = stripe_client.call("get", f"subscriptions/{live.id}").object
    item = subscriptions.at_its_plan(found).item
    changed = {
        "items": [{"id": item, "price": plan.stripe_price_id}],
        "proration_behavior": "always_invoice",
    }
    invoice = stripe_client.call(
        "post", "invoices/create_preview", subscription=live.id, **_kept(live, changed)
    ).object
    return _read(plan, invoice, "now", None)


def _first_invoice(customer: str, price: str) -> Json:
    from kyora.billing import stripe_client

    return stripe_client.call(
        "post",
        "invoices/create_preview",
        customer=customer,
        subscription_details={"items": [{"price": price}]},
    ).object


def _kept(live: Live, details: dict[str, Any]) -> dict[str, Any]:
    """Return the preview's parameters without the scheduled end, which the change takes back."""
    return {"subscription_details": details | ({"cancel_at": ""} if live.cancel_at else {})}


def _nothing(plan: Plan, now: Subscription, when: Any) -> Preview:
    return Preview(
        plan_id=plan.id,
        when=when,
        due_now=0,
        amount=0,
        proration=0,
        currency=plan.currency or now.price.currency or now.plan.currency or "USD",
        lines=[],
    )


def _read(plan: Plan, invoice: Json, when: Any, due_at: datetime | None) -> Preview:
    lines = (invoice.get("lines") or {}).get("data") or []
    due = int(invoice["amount_due"])
    return Preview(
        plan_id=plan.id,
        when=when,
        due_now=due if when == "now" else 0,
        due_at=due_at or stripe_objects.moment(invoice.get("created")),
        amount=due,
        proration=sum(line["amount"] for line in lines if _prorated(line)),
        currency=str(invoice["currency"]).upper(),
        lines=[
            PreviewLine(description=line.get("description") or plan.name, amount=line["amount"])
            for line in lines
        ],
    )


def _prorated(line: Json) -> bool:
    details = (line.get("parent") or {}).get("subscription_item_details") or {}
    return details.get("proration") is True
