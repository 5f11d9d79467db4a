"""Our customers at Stripe: whose each one is, and how it pays.

Every writer locks the customer's row first: one lock, one order.
"""

from typing import Any, cast

from kyora.billing import access, event_store, stripe_objects
from kyora.billing.ordering import Turn
from kyora.billing.stripe_objects import PaymentMethod
from kyora.postgres import Transaction

type Row = dict[str, Any]


def lock(tx: Transaction, customer_id: str) -> Row:
    """Lock a customer's row, made if need be, and count its version up."""
    row = tx.row(
        "INSERT INTO billing_customer AS c (id, version) VALUES (:id, 1)"
        " ON CONFLICT (id) DO UPDATE SET version = c.version + 1 RETURNING *",
        id=customer_id,
    )
    assert row is not None  # noqa: S101  # one of the two always happens
    return row


def bind(tx: Transaction, customer: Row, workspace_id: str) -> bool:
    """Note whose a customer is, once it is known; what was done without is done again.

    Never a second time, and never beside another one of the workspace, which is the one that we
    made for it; one that is deleted by now stands in nobody's way.
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
    """Of two customers that are given to one workspace at once, let the second see the first."""
    tx.rows(
        "SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))",
        key=f"customer of {workspace_id}",
    )


def on_customer(tx: Transaction, turn: Turn) -> None:
    """Mirror a customer."""
    customer, gone = turn.customer, turn.event.type == "customer.deleted"
    found, as_of = stripe_objects.customer(turn.event.object), turn.event.created
    if turn.answer:
        found, as_of = stripe_objects.customer(turn.answer.object), turn.answer.as_of
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
    if bind(tx, customer, found.workspace):
        access.settle(tx, customer["workspace_id"])


def on_payment_method(tx: Transaction, turn: Turn) -> None:
    """Mirror a payment method."""
    customer_id = turn.customer["id"]
    gone = turn.event.type == "payment_method.detached"
    found, as_of = stripe_objects.payment_method(turn.event.object, customer_id), turn.event.created
    row = tx.row("SELECT as_of, detached FROM payment_method WHERE id = :id", id=found.id) or {}
    if turn.answer:
        found = stripe_objects.payment_method(turn.answer.object, customer_id)
        gone = gone or not turn.answer.object.get("customer")
        as_of = turn.answer.as_of
    elif not turn.judge(  # Stripe does not take back what was detached
        cast("int | None", row.get("as_of")), over=bool(row.get("detached")), ends=gone
    ):
        return
    _mirror_payment_method(tx, found, as_of, detached=gone)


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


def on_checkout(tx: Transaction, turn: Turn) -> None:
    """Nothing: the page was made for a customer of ours, and the subscription has its own events.

    Whose workspace a page is for may be written into its address by whoever pays, so no page
    gives a customer to a workspace.
    """
