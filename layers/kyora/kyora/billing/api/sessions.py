"""Stripe's hosted pages: checkout to begin with a card, and the portal for everything after."""

from typing import Any

from kyora import idempotency, trace
from kyora.auth import Principal
from kyora.billing import stripe_objects, usage
from kyora.billing.api import customers, owed, return_urls, subscriptions
from kyora.billing.api.lease import Lease, perform
from kyora.billing.models import CheckoutRequest, PortalRequest, Session
from kyora.billing.plans import offers
from kyora.errors import Conflict, Invalid
from kyora.observability import correlation_id
from kyora.postgres import transaction


def checkout(who: Principal, wanted: CheckoutRequest, idempotency_key: str = "") -> Session:
    """Return the page on which the workspace's first payment is made.

    An earlier page that is still open is expired, so that two are never paid. Raises Forbidden,
    Invalid, NotFound `billing.plan_not_found`, Conflict `billing.already_subscribed`,
    `billing.downgrade_blocked` and `billing.in_progress`, PaymentRequired where something is owed,
    and as `stripe_client.call` does. Credit left from an earlier subscription pays for this one.
    """
    who.require("admin")
    return_urls.require_own(successUrl=wanted.success_url, cancelUrl=wanted.cancel_url)
    plan = offers.offered(wanted.plan_id)
    if not plan.amount:
        raise Invalid(
            "Some fields are not valid.",
            errors=[{"field": "planId", "message": "costs nothing: there is nothing to pay"}],
        )

    def act(lease: Lease) -> dict[str, Any]:
        from kyora.billing import stripe_client

        customer = customers.ensure(lease.workspace_id)
        subscriptions.refresh(customer)
        live = subscriptions.every(lease.workspace_id)
        if due := [one for one in live if one.costs and one.status in ("past_due", "unpaid")]:
            raise owed.payment_required(due[0].id)
        if any(one.costs and one.status != "incomplete" for one in live):
            raise Conflict(
                "The workspace has a subscription; change its plan instead.",
                code="billing.already_subscribed",
            )
        with transaction() as tx:
            usage.require_fit(tx, lease.workspace_id, plan.limits)
        for one in live:  # never paid, or of price 0: it would remain beside the new one
            subscriptions.end(one)
        # Its events come without our request's id.
        whose = {"workspaceId": lease.workspace_id}
        whose |= stripe_objects.origin(correlation_id.get(), trace.current())
        made = stripe_client.call(
            "post",
            "checkout/sessions",
            idempotency_key=lease.key("checkout", customer),
            mode="subscription",
            customer=customer,
            client_reference_id=lease.workspace_id,
            line_items=[{"price": plan.stripe_price_id, "quantity": 1}],
            success_url=wanted.success_url,
            cancel_url=wanted.cancel_url,
            metadata=whose,
            subscription_data={"metadata": whose},
        ).object
        return {"url": made["url"]}

    body = wanted.model_dump(mode="json", by_alias=True, exclude_none=True)
    operation = "create_checkout_session"
    request = idempotency.asked(who.user_id, body)
    answer = perform(who.workspace_id, operation, idempotency_key, request, act)
    return Session.model_validate(answer)


def portal(who: Principal, wanted: PortalRequest, idempotency_key: str = "") -> Session:
    """Return the page on which cards, plan and invoices are managed.

    Raises Forbidden, Invalid, Conflict `billing.no_subscription` (for a `flow` of one) and
    `billing.in_progress`, and as `stripe_client.call` does.
    """
    who.require("admin")
    return_urls.require_own(returnUrl=wanted.return_url)

    def act(lease: Lease) -> dict[str, Any]:
        from kyora.billing import stripe_client

        customer = customers.ensure(lease.workspace_id)
        made = stripe_client.call(
            "post",
            "billing_portal/sessions",
            idempotency_key=lease.key("portal", customer, wanted.flow or ""),
            customer=customer,
            return_url=wanted.return_url,
            **_flow(lease, wanted),
        ).object
        return {"url": made["url"]}

    body = wanted.model_dump(mode="json", by_alias=True, exclude_none=True)
    operation = "create_portal_session"
    request = idempotency.asked(who.user_id, body)
    answer = perform(who.workspace_id, operation, idempotency_key, request, act)
    return Session.model_validate(answer)


def _flow(lease: Lease, wanted: PortalRequest) -> dict[str, Any]:
    """Return the portal's parameters for one task; the page returns once that is done."""
    if wanted.flow is None:
        return {}
    after = {"type": "redirect", "redirect": {"return_url": wanted.return_url}}
    flow: dict[str, Any] = {"type": wanted.flow, "after_completion": after}
    if wanted.flow != "payment_method_update":
        live = subscriptions.find(lease.workspace_id)
        if live is None or live.status == "incomplete":
            raise Conflict("There is no subscription.", code="billing.no_subscription")
        flow[wanted.flow] = {"subscription": live.id}
    return {"flow_data": flow}
