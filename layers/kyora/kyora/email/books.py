"""What our own data says of the subscription that a mail is about."""

from collections.abc import Mapping
from typing import Any

from kyora.bus.events import Event
from kyora.postgres import Transaction

FULL = ("active", "trialing")

type Row = Mapping[str, Any]


def read(tx: Transaction, event: Event[Any]) -> Row:
    """Return what we know of an event's subscription and invoice; empty when it names neither."""
    subscription = getattr(event.data, "subscription_id", None)
    invoice = getattr(event.data, "invoice_id", None)
    if subscription is None and invoice is None:
        return {}
    row = tx.row(
        "SELECT n.*, i.status AS invoice_status, o.hosted_url, o.owed, o.currency AS owed_in,"
        " EXISTS (SELECT 1 FROM subscription_notice other WHERE other.workspace_id = :workspace"
        "  AND other.id <> n.id AND other.costs"
        "  AND other.status IN ('active', 'trialing', 'past_due')) AS another"
        " FROM (SELECT) AS one"
        " LEFT JOIN invoice i ON i.id = :invoice"
        " LEFT JOIN subscription_notice n ON n.id = coalesce(:subscription, i.subscription_id)"
        "  AND n.workspace_id = :workspace"
        " LEFT JOIN LATERAL (SELECT hosted_url, amount_due - amount_paid AS owed, currency"
        "  FROM invoice"
        "  WHERE subscription_id = n.id AND status = 'open' AND amount_due > 0"
        "  ORDER BY created_at DESC LIMIT 1) o ON true",
        subscription=subscription,
        invoice=invoice,
        workspace=event.workspace_id,
    )
    return row or {}


def charge(row: Row) -> dict[str, object]:
    """Return the next charge and the card that pays it, as far as we know them."""
    if row.get("status") not in FULL or row["cancel_at"] is not None or not row["charge"]:
        return {}
    said: dict[str, object] = {**card(row)}
    if row["currency"]:
        said |= {"amount": int(row["charge"]), "currency": str(row["currency"])}
    if row["period_end"]:
        said["nextChargeAt"] = row["period_end"].isoformat()
    return said


def card(row: Row) -> dict[str, object]:
    """Return the last digits of the card that pays."""
    last4 = str(row.get("last4") or "")
    return {"last4": last4} if len(last4) == 4 and last4.isdigit() and last4.isascii() else {}


def owed(row: Row) -> dict[str, object]:
    """Return what is left to pay of the open invoice."""
    if not row.get("owed"):
        return {}
    return {"amount": int(row["owed"]), "currency": str(row["owed_in"])}
