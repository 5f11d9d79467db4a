"""Invoices as our rows. They need no read: status, attempts and amounts only grow (`_GROWN`)."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from kyora.billing import access, announce, stripe_objects
from kyora.billing.ordering import Attempt
from kyora.billing.stripe_objects import StripeInvoice
from kyora.postgres import Transaction

type Row = dict[str, Any]


# A later state of an invoice is never smaller than an earlier one.
_ORDER = "CAST('{draft,open,uncollectible,void,paid}' AS text[])"
_GROWN = (
    f"(coalesce(array_position({_ORDER}, excluded.status), 2), excluded.attempt_count,"
    f" excluded.amount_paid) >= (coalesce(array_position({_ORDER}, i.status), 2),"
    " i.attempt_count, i.amount_paid)"
)


def on_invoice(tx: Transaction, attempt: Attempt) -> None:
    """Mirror an invoice, and announce what it says."""
    found = stripe_objects.invoice(attempt.event.object)
    fresh = write(tx, found)
    announce_paid(tx, attempt.customer, found, attempt.happened)
    if attempt.event.type == "invoice.payment_failed" and attempt.customer["workspace_id"]:
        announce.once(
            tx,
            f"dunning:{found.id}:{found.attempt_count}",
            "PaymentFailed",
            _payment(found, found.amount_due - found.amount_paid),  # a part may be paid
            attempt.customer["workspace_id"],
            attempt.happened,
        )
    # A subscription's status comes with its own events, but an invoice may date a grace period.
    if fresh and attempt.customer["workspace_id"] and found.subscription:
        access.settle(tx, attempt.customer["workspace_id"])


def columns(found: StripeInvoice) -> dict[str, object]:
    """Return the columns of our row that mirror Stripe's object."""
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


def write(tx: Transaction, found: StripeInvoice) -> bool:
    """Write an invoice unless we know a later state of it; return whether anything changed."""
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
            **columns(found),
        )
    )


def announce_paid(tx: Transaction, customer: Row, found: StripeInvoice, happened: datetime) -> None:
    """Announce a payment; `invoice.paid` and `invoice.payment_succeeded` are about the same one."""
    if found.status == "paid" and found.amount_paid and customer["workspace_id"]:
        announce.once(
            tx,
            f"receipt:{found.id}",
            "PaymentSucceeded",
            _payment(found, found.amount_paid),
            customer["workspace_id"],
            happened,
        )


def _payment(found: StripeInvoice, amount: int) -> Mapping[str, object]:
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
