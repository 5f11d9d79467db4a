"""What is true of a workspace's subscription now: looked at once more before a mail is sent.

An event says what was true when it was written. Until its mail is on its way the payment may have
been made, the subscription may have ended, or another one may run. A subscription or an invoice
that our books do not have contradicts nothing.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from kyora.bus.events import Event
from kyora.postgres import Transaction

_FULL = ("active", "trialing")
_RUNNING = (*_FULL, "past_due")
# For these the person stands at Stripe's form: a first payment, or an upgrade.
_AT_THE_FORM = ("subscription_create", "subscription_update")

type Row = Mapping[str, Any]


def read(tx: Transaction, event: Event[Any]) -> Row:
    """Return what our books have of an event's subscription and invoice; empty for neither."""
    subscription = getattr(event.data, "subscription_id", None)
    invoice = getattr(event.data, "invoice_id", None)
    row = tx.row(
        "SELECT n.*, i.status AS invoice_status, o.hosted_url, o.amount_due, o.currency AS owed_in,"
        " EXISTS (SELECT 1 FROM subscription_notice other WHERE other.workspace_id = :workspace"
        "  AND other.id <> n.id AND other.costs"
        "  AND other.status IN ('active', 'trialing', 'past_due')) AS another"
        " FROM (SELECT) AS one"
        " LEFT JOIN invoice i ON i.id = :invoice"
        " LEFT JOIN subscription_notice n ON n.id = coalesce(:subscription, i.subscription_id)"
        "  AND n.workspace_id = :workspace"
        " LEFT JOIN LATERAL (SELECT hosted_url, amount_due, currency FROM invoice"
        "  WHERE subscription_id = n.id AND status = 'open' AND amount_due > 0"
        "  ORDER BY created_at DESC LIMIT 1) o ON true",
        subscription=subscription,
        invoice=invoice,
        workspace=event.workspace_id,
    )
    return row or {}


def untrue(event: Event[Any], row: Row) -> str:
    """Return why an event's mail would not be true any more, or an empty text."""
    if event.name == "PaymentFailed":
        return _no_payment(event.data, row)
    if row.get("status") is None or event.name not in _RULES:
        return ""
    why, holds = _RULES[event.name]
    return "" if holds(event.data, row) else why


def _no_payment(data: Any, row: Row) -> str:
    if data.billing_reason in _AT_THE_FORM:
        return "at the form"
    settled = row.get("invoice_status") not in (None, "open", "uncollectible")
    return "settled" if settled else ""


def _running(data: Any, row: Row) -> bool:
    return row["status"] in _FULL


def _trial(data: Any, row: Row) -> bool:
    return (row["status"], row["trial_end"], row["cancel_at"]) == ("trialing", data.trial_end, None)


def _over(data: Any, row: Row) -> bool:
    """A paid plan is over, and nothing that is paid for runs beside it."""
    return bool(row["costs"]) and not row["another"]


def _grace(data: Any, row: Row) -> bool:
    return row["access"] == "grace" and bool(row["access_until"] <= data.access_until)


def _card(data: Any, row: Row) -> bool:
    known = (data.last4, data.exp_month, data.exp_year)
    return _still_pays(row) and (row["last4"], row["exp_month"], row["exp_year"]) == known


def _renewal(data: Any, row: Row) -> bool:
    return _still_pays(row) and bool(row["period_end"] == data.renews_at)


def _paused(data: Any, row: Row) -> bool:
    """Somebody paused it: for a payment that failed another mail is sent."""
    return row["status"] == "paused" and row["payment_failed"] is not True


def _still_pays(row: Row) -> bool:
    ends, cancels = row["period_end"], row["cancel_at"]
    stays = cancels is None or (isinstance(ends, datetime) and cancels > ends)
    return row["status"] in _RUNNING and stays


# Event → why its mail is not sent, unless this holds.
_RULES: Mapping[str, tuple[str, Callable[[Any, Row], bool]]] = {
    "SubscriptionActivated": ("not active", _running),
    "SubscriptionCancelled": ("nothing lost", _over),
    "TrialEnding": ("no trial", _trial),
    "PaymentRecovered": ("not active", _running),
    "GraceEnding": ("no grace", _grace),
    "PaymentMethodExpiring": ("another card", _card),
    "RenewalUpcoming": ("no renewal", _renewal),
    "SubscriptionPaused": ("not paused", _paused),
    "SubscriptionResumed": ("not active", _running),
}


def charge(row: Row) -> dict[str, object]:
    """Return the next charge and the card that pays it, as far as the books know them."""
    if row.get("status") not in _FULL or row["cancel_at"] is not None or not row["charge"]:
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
    """Return what is owed."""
    if not row.get("amount_due"):
        return {}
    return {"amount": int(row["amount_due"]), "currency": str(row["owed_in"])}
