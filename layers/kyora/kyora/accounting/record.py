"""Record the fee of a paid order."""

from decimal import Decimal

from kyora import money
from kyora.accounting.fees import DEFAULTS, Fee
from kyora.bus import seen
from kyora.bus.events import Event, OrderPaymentSucceeded
from kyora.bus.outcomes import Permanent
from kyora.observability import logger
from kyora.postgres import Transaction, transaction
from kyora.tenants import owns_business

_CONSUMER = "record_transaction_fee"


def record(event: Event[OrderPaymentSucceeded]) -> None:
    """Write the fee of a paid order, once. Without a fee there is no row.

    Raises Permanent for an event without a workspace, for a business of another workspace, and for
    an unknown currency.
    """
    paid = event.data
    with transaction() as tx:
        if not seen.first_time(tx, _CONSUMER, event.id):
            return
        fee = _fee(tx, event.workspace_id, paid.business_id, paid.payment_method)
        amount = _amount(fee, paid.total, paid.currency.upper())
        if not _newest(tx, event):
            logger().info("a newer event has set the fee", order_id=paid.order_id)
            return
        _write(tx, event, amount)
    logger().info("fee recorded" if amount else "no fee", order_id=paid.order_id)


def _fee(tx: Transaction, workspace_id: str | None, business_id: str, method: str) -> Fee | None:
    """Return the fee that the business pays for a method, or None for an unknown method.

    Raises Permanent.
    """
    if workspace_id is None:
        raise Permanent("event.no_workspace")
    if not owns_business(tx, workspace_id, business_id):
        raise Permanent("business.not_found")
    row = tx.row(
        "SELECT enabled, percent, fixed FROM payment_method_fee WHERE business_id = :business_id"
        " AND workspace_id = :workspace_id AND method = :method",
        business_id=business_id,
        workspace_id=workspace_id,
        method=method,
    )
    if row is None:
        return DEFAULTS.get(method)
    percent, fixed = Decimal(str(row["percent"])), Decimal(str(row["fixed"]))
    return Fee(enabled=bool(row["enabled"]), percent=percent, fixed=fixed)


def _amount(fee: Fee | None, total: str, currency: str) -> int:
    """Return the fee in minor units; 0 if there is none."""
    try:
        return 0 if fee is None else max(0, fee.of(Decimal(total), currency))
    except money.UnknownCurrency:
        raise Permanent("money.unknown_currency") from None


def _newest(tx: Transaction, event: Event[OrderPaymentSucceeded]) -> bool:
    """Store the event as the newest of its order. Return False if a newer one is known.

    A worker with another event of the same order waits here for this one's commit.
    """
    return bool(
        tx.run(
            "INSERT INTO order_payment AS p"
            " (workspace_id, business_id, order_id, event_id, occurred_at)"
            " VALUES (:workspace_id, :business_id, :order_id, :event_id, :occurred_at)"
            " ON CONFLICT (business_id, order_id) DO UPDATE"
            " SET event_id = excluded.event_id, occurred_at = excluded.occurred_at"
            ' WHERE (p.occurred_at, p.event_id COLLATE "C")'
            ' < (excluded.occurred_at, excluded.event_id COLLATE "C")',
            workspace_id=event.workspace_id,
            business_id=event.data.business_id,
            order_id=event.data.order_id,
            event_id=event.id,
            occurred_at=event.occurred_at,
        )
    )


def _write(tx: Transaction, event: Event[OrderPaymentSucceeded], amount: int) -> None:
    paid = event.data
    if not amount:
        tx.run(
            "DELETE FROM transaction_fee WHERE business_id = :business_id"
            " AND order_id = :order_id AND workspace_id = :workspace_id",
            business_id=paid.business_id,
            order_id=paid.order_id,
            workspace_id=event.workspace_id,
        )
        return
    tx.run(
        "INSERT INTO transaction_fee"
        " (workspace_id, business_id, order_id, method, amount, currency, paid_at, event_id)"
        " VALUES (:workspace_id, :business_id, :order_id, :method, CAST(:amount AS numeric),"
        "  :currency, :paid_at, :event_id)"
        " ON CONFLICT (business_id, order_id) DO UPDATE SET method = excluded.method,"
        " amount = excluded.amount, currency = excluded.currency, paid_at = excluded.paid_at,"
        " event_id = excluded.event_id, recorded_at = now()",
        workspace_id=event.workspace_id,
        business_id=paid.business_id,
        order_id=paid.order_id,
        method=paid.payment_method,
        amount=str(amount),
        currency=paid.currency.upper(),
        paid_at=paid.paid_at,
        event_id=event.id,
    )
