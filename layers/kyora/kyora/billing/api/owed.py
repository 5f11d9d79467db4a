"""What is owed for a subscription, and how to pay it: a form's secret, or Stripe's page."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from kyora import config
from kyora.billing.api.lease import Lease
from kyora.errors import PaymentRequired

_SECRET = ["latest_invoice.confirmation_secret"]

type Json = Mapping[str, Any]


def invoices(subscription_id: str) -> list[dict[str, Any]]:
    """Return a subscription's unsettled invoices: drafts and open ones."""
    from kyora.billing import stripe_client

    found = stripe_client.call("get", "invoices", subscription=subscription_id, limit=100).object
    return [one for one in found["data"] if one["status"] in ("draft", "open")]


def of(found: Json) -> PaymentRequired:
    """Return the refusal with which a client collects a payment; no card passes through us.

    `found` is the subscription, with its latest invoice and the invoice's secret.
    """
    invoice = found.get("latest_invoice")
    invoice = invoice if isinstance(invoice, dict) else {}
    secret = (invoice.get("confirmation_secret") or {}).get("client_secret")
    given = {"clientSecret": secret, "payUrl": invoice.get("hosted_invoice_url")}
    return PaymentRequired(
        "A payment has to be confirmed first.",
        code="billing.payment_required",
        **{name: value for name, value in given.items() if value},
    )


def payment_required(subscription_id: str) -> PaymentRequired:
    """Return the refusal with a way to pay what a subscription waits for.

    That is its latest invoice, which is a draft until finalized if the subscription is unpaid.
    Without an invoice the subscription waits for a card, so the way is the portal's page for one.
    """
    from kyora.billing import stripe_client

    path = f"subscriptions/{subscription_id}"
    found = stripe_client.call("get", path, expand=_SECRET).object
    invoice = found.get("latest_invoice") or {}
    if invoice.get("status") == "draft":
        with suppress(stripe_client.Refused, stripe_client.Missing):
            name = invoice["id"]
            stripe_client.call("post", f"invoices/{name}/finalize", auto_advance=False)
            found = stripe_client.call("get", path, expand=_SECRET).object
            invoice = found.get("latest_invoice") or {}
    if invoice.get("status") == "open":
        return of(found)
    if open_ones := [one for one in invoices(subscription_id) if one["status"] == "open"]:
        return of({"latest_invoice": open_ones[-1]})
    return PaymentRequired(
        "A payment method has to be added first.",
        code="billing.payment_required",
        payUrl=portal(str(found["customer"]), "payment_method_update"),
    )


def portal(customer: str, flow: str) -> str:
    """Return the address of the portal's page for one task."""
    from kyora.billing import stripe_client

    made = stripe_client.call(
        "post",
        "billing_portal/sessions",
        customer=customer,
        return_url=f"{config.app_base_url()}/billing",
        flow_data={"type": flow},
    )
    return str(made.object["url"])


def settle_draft(lease: Lease, found: Json) -> None:
    """Charge a renewal that is still a draft, before its lines are credited or changed.

    Stripe leaves it a draft for an hour. Raises PaymentRequired when it cannot be paid.
    """
    from kyora.billing import stripe_client

    invoice = found.get("latest_invoice")
    if not isinstance(invoice, dict) or invoice.get("status") != "draft":
        return
    name = invoice["id"]
    try:
        stripe_client.call("post", f"invoices/{name}/pay", idempotency_key=lease.key("pay", name))
    except (stripe_client.Declined, stripe_client.Missing):
        raise payment_required(str(found["id"])) from None


def drop_pending(found: Json) -> None:
    """Cancel an upgrade that waits for its payment, by voiding its invoice."""
    if found.get("pending_update"):
        void_latest(found)


def void_latest(found: Json) -> None:
    """Void a subscription's latest invoice, unless it is paid or void already."""
    from kyora.billing import stripe_client

    invoice = found.get("latest_invoice")
    name = invoice["id"] if isinstance(invoice, dict) else invoice
    if name:
        with suppress(stripe_client.Refused, stripe_client.Missing):
            stripe_client.call("post", f"invoices/{name}/void")
