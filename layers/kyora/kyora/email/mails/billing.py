"""Mail about a subscription: to the workspace's owner, held against our own data before it is sent.

An event says what was true when it was written. Until its mail is sent the payment may have been
made, the subscription may have ended, or another one may run: `untrue` says so. A subscription
that our data does not have contradicts nothing.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

from kyora.bus import events
from kyora.email import books
from kyora.email.books import Row
from kyora.email.mails.mail import (
    Context,
    Data,
    Expiry,
    InvoiceLink,
    Last4,
    Mail,
    Moment,
    Person,
    PlanName,
    Priced,
    Values,
)

_THREE_DAYS = timedelta(days=3)


def _unless[E](why: str, holds: Callable[[E, Row], bool]) -> Callable[[E, Row], str]:
    """Return the rule that a mail is untrue, because of `why`, unless this holds."""
    return lambda event, row: "" if row.get("status") is None or holds(event, row) else why


def _active(_event: object, row: Row) -> bool:
    return row["status"] in books.FULL


def _still_pays(row: Row) -> bool:
    ends, cancels = row["period_end"], row["cancel_at"]
    stays = cancels is None or (isinstance(ends, datetime) and cancels > ends)
    return row["status"] in (*books.FULL, "past_due") and stays


def _without(values: Values, name: str) -> Values:
    return {field: value for field, value in values.items() if field != name}


# ---- subscription_confirmed


class SubscriptionConfirmed(Priced):
    """A paid plan has begun; the amount is that of the next charge."""

    name: Person
    plan_name: PlanName
    next_charge_at: Moment | None = None
    last4: Last4 | None = None


def _subscription_confirmed(event: events.SubscriptionActivated, context: Context) -> Values:
    plan = context.books.get("plan_name") or event.plan_name  # the plan it is on by now
    return {"name": context.name, "planName": plan, **books.charge(context.books)}


SUBSCRIPTION_CONFIRMED = Mail(
    id="subscription_confirmed",
    event=events.SubscriptionActivated,
    data=SubscriptionConfirmed,
    lifetime=_THREE_DAYS,
    fill=_subscription_confirmed,
    untrue=_unless("not active", _active),
)

# ---- subscription_cancelled


class SubscriptionCancelled(Data):
    """A paid plan is over."""

    name: Person
    plan_name: PlanName


def _subscription_cancelled(event: events.SubscriptionCancelled, context: Context) -> Values:
    return {"name": context.name, "planName": event.plan_name}


def _lost(_event: object, row: Row) -> bool:
    """A paid plan is over, and no other paid subscription runs beside it."""
    return bool(row["costs"]) and not row["another"]


SUBSCRIPTION_CANCELLED = Mail(
    id="subscription_cancelled",
    event=events.SubscriptionCancelled,
    data=SubscriptionCancelled,
    lifetime=_THREE_DAYS,
    fill=_subscription_cancelled,
    untrue=_unless("nothing lost", _lost),
)

# ---- payment_failed


class PaymentFailed(Priced):
    """A card was refused. What is owed and when it is tried again are said when they are known."""

    name: Person
    retry_link: InvoiceLink
    next_attempt_at: Moment | None = None
    last4: Last4 | None = None


def _payment_failed(event: events.PaymentFailed, context: Context) -> Values:
    due = event.next_attempt_at
    return {
        "name": context.name,
        "retryLink": context.payment_link(event.hosted_invoice_url),
        "amount": event.amount,
        "currency": event.currency,
        "nextAttemptAt": due.isoformat() if due else None,
        **books.card(context.books),
    }


# A first payment, or an upgrade: the person is at Stripe's form and sees that it failed.
_AT_THE_FORM = ("subscription_create", "subscription_update")


def _settled(event: events.PaymentFailed, row: Row) -> str:
    if event.billing_reason in _AT_THE_FORM:
        return "at the form"
    settled = row.get("invoice_status") not in (None, "open", "uncollectible")
    return "settled" if settled else ""


PAYMENT_FAILED = Mail(
    id="payment_failed",
    event=events.PaymentFailed,
    data=PaymentFailed,
    lifetime=_THREE_DAYS,
    fill=_payment_failed,
    untrue=_settled,
)

# ---- trial_ending


class TrialEnding(Priced):
    """A trial is in its last days. With a card, `last4`, it is charged when the trial ends."""

    name: Person
    plan_name: PlanName
    trial_end: Moment
    last4: Last4 | None = None


def _trial_ending(event: events.TrialEnding, context: Context) -> Values:
    return {
        "name": context.name,
        "planName": event.plan_name,
        "trialEnd": event.trial_end.isoformat(),
        **_without(books.charge(context.books), "nextChargeAt"),
    }


def _on_trial(event: events.TrialEnding, row: Row) -> bool:
    now = (row["status"], row["trial_end"], row["cancel_at"])
    return now == ("trialing", event.trial_end, None)


TRIAL_ENDING = Mail(
    id="trial_ending",
    event=events.TrialEnding,
    data=TrialEnding,
    lifetime=timedelta(days=1),
    fill=_trial_ending,
    untrue=_unless("no trial", _on_trial),
)

# ---- payment_recovered


class PaymentRecovered(Data):
    """An open payment went through."""

    name: Person
    plan_name: PlanName
    next_charge_at: Moment | None = None


def _payment_recovered(event: events.PaymentRecovered, context: Context) -> Values:
    values: Values = {"name": context.name, "planName": event.plan_name}
    if due := books.charge(context.books).get("nextChargeAt"):
        values["nextChargeAt"] = due
    return values


PAYMENT_RECOVERED = Mail(
    id="payment_recovered",
    event=events.PaymentRecovered,
    data=PaymentRecovered,
    lifetime=_THREE_DAYS,
    fill=_payment_recovered,
    untrue=_unless("not active", _active),
)

# ---- grace_ending


class GraceEnding(Priced):
    """The last day of the grace period."""

    name: Person
    plan_name: PlanName
    access_until: Moment
    retry_link: InvoiceLink


def _grace_ending(event: events.GraceEnding, context: Context) -> Values:
    return {
        "name": context.name,
        "planName": event.plan_name,
        "accessUntil": event.access_until.isoformat(),
        "retryLink": context.payment_link(context.books.get("hosted_url")),
        **books.owed(context.books),
    }


def _in_grace(event: events.GraceEnding, row: Row) -> bool:
    return row["access"] == "grace" and bool(row["access_until"] <= event.access_until)


GRACE_ENDING = Mail(
    id="grace_ending",
    event=events.GraceEnding,
    data=GraceEnding,
    lifetime=timedelta(hours=12),
    fill=_grace_ending,
    untrue=_unless("no grace", _in_grace),
)

# ---- payment_method_expiring


class PaymentMethodExpiring(Priced):
    """The card expires before the next charge."""

    name: Person
    plan_name: PlanName
    expiry: Expiry
    charge_at: Moment
    last4: Last4 | None = None


def _payment_method_expiring(event: events.PaymentMethodExpiring, context: Context) -> Values:
    values: Values = {
        "name": context.name,
        "planName": event.plan_name,
        **_without(books.charge(context.books), "nextChargeAt"),
        "expiry": f"{event.exp_month:02}/{event.exp_year}",
        "chargeAt": event.charge_at.isoformat(),
    }
    return values | ({"last4": event.last4} if event.last4 else {})


def _pays_by_it(event: events.PaymentMethodExpiring, row: Row) -> bool:
    card = (event.last4, event.exp_month, event.exp_year)
    return _still_pays(row) and (row["last4"], row["exp_month"], row["exp_year"]) == card


PAYMENT_METHOD_EXPIRING = Mail(
    id="payment_method_expiring",
    event=events.PaymentMethodExpiring,
    data=PaymentMethodExpiring,
    lifetime=_THREE_DAYS,
    fill=_payment_method_expiring,
    untrue=_unless("another card", _pays_by_it),
)

# ---- renewal_upcoming


class RenewalUpcoming(Priced):
    """A yearly subscription is charged again within a week."""

    name: Person
    plan_name: PlanName
    renews_at: Moment
    last4: Last4 | None = None


def _renewal_upcoming(event: events.RenewalUpcoming, context: Context) -> Values:
    # The event's amount is before discounts.
    known = context.books.get("status") is not None
    said = {"amount": event.amount, "currency": event.currency}
    return {
        "name": context.name,
        "planName": event.plan_name,
        "renewsAt": event.renews_at.isoformat(),
        **(_without(books.charge(context.books), "nextChargeAt") if known else said),
        **books.card(context.books),
    }


def _renews(event: events.RenewalUpcoming, row: Row) -> bool:
    return _still_pays(row) and bool(row["period_end"] == event.renews_at)


RENEWAL_UPCOMING = Mail(
    id="renewal_upcoming",
    event=events.RenewalUpcoming,
    data=RenewalUpcoming,
    lifetime=_THREE_DAYS,
    fill=_renewal_upcoming,
    untrue=_unless("no renewal", _renews),
)

# ---- subscription_paused


class SubscriptionPaused(Data):
    """A subscription is paused."""

    name: Person
    plan_name: PlanName
    resume_at: Moment | None = None


def _subscription_paused(event: events.SubscriptionPaused, context: Context) -> Values:
    values: Values = {"name": context.name, "planName": event.plan_name}
    if event.resume_at:
        values["resumeAt"] = event.resume_at.isoformat()
    return values


def _paused_by_hand(_event: object, row: Row) -> bool:
    """A person paused it; for a payment that failed another mail is sent."""
    return row["status"] == "paused" and row["payment_failed"] is not True


SUBSCRIPTION_PAUSED = Mail(
    id="subscription_paused",
    event=events.SubscriptionPaused,
    data=SubscriptionPaused,
    lifetime=_THREE_DAYS,
    fill=_subscription_paused,
    untrue=_unless("not paused", _paused_by_hand),
)

# ---- subscription_resumed


class SubscriptionResumed(Priced):
    """A paused subscription has resumed."""

    name: Person
    plan_name: PlanName
    next_charge_at: Moment | None = None
    last4: Last4 | None = None


def _subscription_resumed(event: events.SubscriptionResumed, context: Context) -> Values:
    plan = context.books.get("plan_name") or event.plan_name  # the plan it is on by now
    return {"name": context.name, "planName": plan, **books.charge(context.books)}


SUBSCRIPTION_RESUMED = Mail(
    id="subscription_resumed",
    event=events.SubscriptionResumed,
    data=SubscriptionResumed,
    lifetime=_THREE_DAYS,
    fill=_subscription_resumed,
    untrue=_unless("not active", _active),
)
