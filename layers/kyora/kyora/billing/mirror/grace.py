"""When a grace period began: at the second in which Stripe said that the payment is due.

    paid ──► past_due, or paused for a payment ──► …    the event of that change dates it exactly
    seen so, the change itself not heard of yet         from the first sight, until it has come

Paused on request, or as a trial ended, it owes nothing either: only what is paid for can be paused
(https://docs.stripe.com/billing/subscriptions/pause), and resuming may fail.

It is kept while the payment is due, whatever else arrives. Events come in any order, so an old one
may still say two things: that the subscription was paid for later than we thought, and when the
change was. Both only ever replace what was a guess, or move the beginning later.
"""

from datetime import UTC, datetime
from typing import NamedTuple

from kyora.billing import stripe_objects
from kyora.billing.stripe_objects import TERMINAL, Event, StripeSubscription

PAID = ("active", "trialing")
# Stripe's words for pauses that no payment is to blame for.
_UNOWED = ("pause_requested", "trial_end_without_payment_method")


class Grace(NamedTuple):
    """When a payment became due, whether that is exact, and when it was last seen paid."""

    since: datetime | None = None
    exact: bool = False
    paid_at: datetime | None = None


def learn(kept: Grace, event: Event, payload: StripeSubscription) -> Grace:
    """Return what is known once an event is, however old it is."""
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
    return kept._replace(since=_later(kept.paid_at, found.unpaid_since or seen), exact=False)


def _begins(event: Event, payload: StripeSubscription) -> bool:
    """Tell whether an event is the change itself."""
    before = event.previous
    return payload.failing and _settled(before.get("status"), stripe_objects.paused_for(before))


def _settled(status: object, paused_for: str | None) -> bool:
    """Return whether nothing is due in a status."""
    return status in PAID or (status == "paused" and paused_for in _UNOWED)


def _later(one: datetime | None, other: datetime) -> datetime:
    return max(one, other) if one else other
