"""Customers and payment methods as our rows, and the workspace that each customer pays for.

Every writer locks the customer's row first, so there is one lock and one order.
"""

from typing import Any, cast

from kyora.billing import access, event_store, stripe_objects
from kyora.billing.ordering import Attempt
from kyora.billing.stripe_objects import StripePaymentMethod
from kyora.postgres import Transaction

type Row = dict[str, Any]


LOCK = """
INSERT INTO billing_customer AS c (id, version) VALUES (:id, 1)
ON CONFLICT (id) DO UPDATE SET version = c.version + 1 RETURNING *
"""


def lock(tx: Transaction, customer_id: str) -> Row:
    """Lock a customer's row, created if need be, and increment its version."""
    row = tx.row(LOCK, id=customer_id)
    assert row is not None  # noqa: S101  # one of the two always happens
    return row


def bind(tx: Transaction, customer: Row, workspace_id: str) -> bool:
    """Link a customer to its workspace, once, and reopen its orphaned events.

    Refused while the workspace has another live customer, which is the one that we created for it.
    Returns whether it was linked: the caller has the events processed once this has committed.
    """
    if customer["workspace_id"] or not workspace_id:
        return False
    one_by_one(tx, workspace_id)
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
        event_store.reopen(tx, customer["id"])
    return bool(bound)


def one_by_one(tx: Transaction, workspace_id: str) -> None:
    """Serialise the linking of customers to one workspace, so that the second sees the first."""
    tx.later(
        "SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))",
        key=f"customer of {workspace_id}",
    )


def on_customer(tx: Transaction, attempt: Attempt) -> None:
    """Mirror a customer."""
    customer, gone = attempt.customer, attempt.event.type == "customer.deleted"
    found, as_of = stripe_objects.customer(attempt.event.object), attempt.event.created
    if attempt.answer:
        found, as_of = stripe_objects.customer(attempt.answer.object), attempt.answer.as_of
        gone = gone or found.deleted
    elif not attempt.applies(
        customer["as_of"] or None, over=customer["deleted_at"] is not None, ends=gone
    ):
        return
    tx.later(
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
    if bind(tx, customer, found.workspace):
        access.settle(tx, customer["workspace_id"])


def on_payment_method(tx: Transaction, attempt: Attempt) -> None:
    """Mirror a payment method."""
    customer_id = attempt.customer["id"]
    gone = attempt.event.type == "payment_method.detached"
    found = stripe_objects.payment_method(attempt.event.object, customer_id)
    as_of = attempt.event.created
    row = tx.row("SELECT as_of, detached FROM payment_method WHERE id = :id", id=found.id) or {}
    if attempt.answer:
        found = stripe_objects.payment_method(attempt.answer.object, customer_id)
        gone = gone or not attempt.answer.object.get("customer")
        as_of = attempt.answer.as_of
    elif not attempt.applies(  # Stripe does not take back what was detached
        cast("int | None", row.get("as_of")), over=bool(row.get("detached")), ends=gone
    ):
        return
    _mirror_payment_method(tx, found, as_of, detached=gone)


def _mirror_payment_method(
    tx: Transaction, found: StripePaymentMethod, as_of: int, *, detached: bool
) -> None:
    tx.later(
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


def on_checkout(tx: Transaction, attempt: Attempt) -> None:
    """Do nothing: the page was created for a customer of ours, and subscriptions have own events.

    The payer can write the workspace's id into the page's address, so no page links a customer.
    """
