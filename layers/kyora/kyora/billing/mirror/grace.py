"""When a grace period began: the second at which Stripe said that the payment is due.

    paid ──► past_due, or paused for a payment ──► …    the event of that change dates it exactly
    seen in that status before its event arrives        from the first sight, until it has arrived

A subscription paused on request, or because a trial ended, owes nothing: only a paid one can be
paused (https://docs.stripe.com/billing/subscriptions/pause), and resuming may fail.

A read knows the newest invoice only. When that one is not due yet, an older one was not paid, and
the first sight counts.

The date is kept while the payment is due. Events arrive in any order, so an old one may still teach
two things: that the subscription was paid later than we knew, and when the change was. Either only
replaces a guess or moves the beginning later.
"""

from datetime import UTC, datetime
from typing import NamedTuple

from kyora.billing import stripe_objects
from kyora.billing.stripe_objects import TERMINAL, Event, StripeSubscription

PAID = ("active", "trialing")
# Stripe's words for pauses without a failed payment.
_UNOWED = ("pause_requested", "trial_end_without_payment_method")


class Grace(NamedTuple):
    """When a payment became due, whether that is exact, and when it was last seen paid."""

    since: datetime | None = None
    exact: bool = False
    paid_at: datetime | None = None


def learn(kept: Grace, event: Event, payload: StripeSubscription) -> Grace:
    """Return what is known after an event, however old it is."""
    happened = datetime.fromtimestamp(event.created, UTC)
    since, exact, paid_at = kept
    if _settled(payload.status, payload.paused_for):
        paid_at = _later(paid_at, happened)
    elif _begins(event, payload) and (paid_at is None or happened >= paid_at):
        since, exact = (_later(since, happened) if exact else happened), True
    if since and paid_at and since < paid_at:  # it was paid in between
        since, exact = paid_at, False
    return Grace(since, exact, paid_at)


def judge(kept: Grace, found: StripeSubscription, seen: datetime) -> Grace:
    """Return what applies to a subscription that is as `found` at the moment `seen`."""
    if _settled(found.status, found.paused_for):
        return Grace(paid_at=_later(kept.paid_at, seen))
    if found.status in TERMINAL:
        return Grace(paid_at=kept.paid_at)
    if kept.since or not found.failing:
        return kept
    since = min(found.unpaid_since or seen, seen)
    return kept._replace(since=_later(kept.paid_at, since), exact=False)


def _begins(event: Event, payload: StripeSubscription) -> bool:
    """Return whether an event is the change itself."""
    before = event.previous
    return payload.failing and _settled(before.get("status"), stripe_objects.paused_for(before))


def _settled(status: object, paused_for: str | None) -> bool:
    """Return whether nothing is due in a status."""
    return status in PAID or (status == "paused" and paused_for in _UNOWED)


def _later(one: datetime | None, other: datetime) -> datetime:
    return max(one, other) if one else other
