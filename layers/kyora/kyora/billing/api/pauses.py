"""Pausing a subscription: no access and no invoices until it resumes.

Stripe's own pause (since 2026-09-30.endive, flexible billing mode), not `pause_collection`, which
keeps the subscription active and creates invoices. The rest of the period is credited, and resuming
begins a new period, paid first. A resume date is a pause schedule: Stripe resumes on that day. https://docs.stripe.com/billing/subscriptions/pause
"""

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from kyora import clock
from kyora.billing.api import schedules
from kyora.billing.api.lease import Lease
from kyora.errors import Conflict, Invalid

_LONGEST = timedelta(days=730)
_RESUMING = "resume_on_payment_success"

type Json = Mapping[str, Any]


def require_future(resume_at: datetime | None) -> None:
    """Raise Invalid unless a resume date is within the next two years."""
    now = clock.now()
    if resume_at is not None and not now < resume_at <= now + _LONGEST:
        raise Invalid(
            "Some fields are not valid.",
            errors=[{"field": "resumeAt", "message": "must be in the next two years"}],
        )


def pause(lease: Lease, subscription_id: str, resume_at: datetime | None) -> None:
    """Pause a subscription, or change the resume date of a paused one.

    Raises Conflict `billing.cannot_pause`: only a paid subscription that is not ending can pause.
    """
    from kyora.billing import stripe_client

    path = f"subscriptions/{subscription_id}"
    found = stripe_client.call("get", path).object
    paused = found.get("status") == "paused"
    _require_pausable(found)
    schedules.release(lease, found)
    if (found.get("billing_mode") or {}).get("type") == "classic":
        flexible = {"type": "flexible"}  # one-way; new subscriptions are flexible anyway
        key = lease.key("flexible", subscription_id)
        stripe_client.call("post", f"{path}/migrate", idempotency_key=key, billing_mode=flexible)
    if resume_at is not None:
        stripe_client.call(
            "post",
            "subscription_schedules",
            idempotency_key=lease.key("pause", subscription_id, resume_at.isoformat()),
            from_subscription=subscription_id,
            pause_schedules=[_schedule(resume_at, paused=paused)],
        )
    elif not paused:
        stripe_client.call(
            "post",
            f"{path}/pause",
            idempotency_key=lease.key("pause", subscription_id),
            bill_for={"unused_time_from": {"type": "now"}},
            invoicing_behavior="pending_invoice_item",
        )


def resume(lease: Lease, subscription_id: str) -> None:
    """Resume a paused subscription: a period is charged, and it stays paused until that is paid."""
    from kyora.billing import stripe_client

    path = f"subscriptions/{subscription_id}"
    found = stripe_client.call("get", path, expand=["latest_invoice"]).object
    invoice = found.get("latest_invoice") or {}
    if found.get("status") != "paused" or invoice.get("status") == "open":
        return
    schedules.release(lease, found)
    with suppress(stripe_client.Missing):  # no card: the caller sees that it is still paused
        stripe_client.call(
            "post",
            f"{path}/resume",
            idempotency_key=lease.key("resume", subscription_id),
            billing_cycle_anchor={"type": "now"},
            payment_behavior=_RESUMING,
        )


def _require_pausable(found: Json) -> None:
    running = found.get("status") in ("active", "paused")
    ends = found.get("cancel_at") or found.get("cancel_at_period_end")
    if not running or ends or found.get("pending_update"):
        raise Conflict(
            "Only a subscription that is paid for and goes on can be paused.",
            code="billing.cannot_pause",
        )


def _schedule(resume_at: datetime, *, paused: bool) -> dict[str, Any]:
    back = {"type": "timestamp", "timestamp": int(resume_at.timestamp())}
    resume = {
        "resume_at": back,
        "settings": {"billing_cycle_anchor": "resume_at", "payment_behavior": _RESUMING},
    }
    if paused:
        return {"resume": resume}
    settings = {
        "bill_for": {"unused_time_from": {"type": "pause_at"}},
        "invoicing_behavior": "pending_invoice_item",
    }
    return {"pause": {"pause_at": {"type": "now"}, "settings": settings}, "resume": resume}
