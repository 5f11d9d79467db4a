"""The mails Kyora sends: what each needs, which event causes it, how long it is worth sending.

What a mail says stands in `templates/<locale>/<id>.j2`, once for its HTML and its text.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictInt,
    StringConstraints,
    ValidationInfo,
    model_validator,
)
from pydantic.alias_generators import to_camel

from kyora.email.text import LinkPolicy, UserText

LOCALES = ("en", "ar")

# Where Stripe keeps the pages of unpaid invoices, on its own domain or as a link to the same page.
STRIPE_HOSTS = frozenset({"invoice.stripe.com", "pay.stripe.com", "billing.stripe.com"})


def _policy(info: ValidationInfo) -> LinkPolicy:
    policy = info.context.get("links") if isinstance(info.context, Mapping) else None
    if not isinstance(policy, LinkPolicy):
        raise TypeError("a link cannot be checked without a LinkPolicy")
    return policy


def _own_link(value: str, info: ValidationInfo) -> str:
    return _policy(info).check(value)


def _invoice_link(value: str, info: ValidationInfo) -> str:
    return _policy(info).check(value, also=STRIPE_HOSTS)


def _named(value: str) -> str:
    if not value:
        raise ValueError("must have a visible character")
    return value


def _in_utc(value: datetime) -> datetime:
    return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


Person = Annotated[str, AfterValidator(UserText)]  # may be empty: the words do without it
PlanName = Annotated[str, AfterValidator(UserText), AfterValidator(_named)]
Link = Annotated[str, AfterValidator(_own_link)]
InvoiceLink = Annotated[str, AfterValidator(_invoice_link)]
Moment = Annotated[datetime, AfterValidator(_in_utc)]
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{3}$", to_upper=True)]
Amount = Annotated[StrictInt, Field(ge=0)]  # minor units
Last4 = Annotated[str, StringConstraints(pattern=r"^[0-9]{4}$")]
Expiry = Annotated[str, StringConstraints(pattern=r"^(0[1-9]|1[0-2])/20[0-9]{2}$")]


class Data(BaseModel):
    """What a template is filled with: its fields are the template's variables, no more, no less."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        extra="forbid",
        frozen=True,
        defer_build=True,
        # A refusal is logged: it names the field, never the token or the name in it.
        hide_input_in_errors=True,
    )


class EmailVerification(Data):
    """Somebody has to prove that an address is theirs."""

    name: Person
    verification_link: Link


class ForgotPassword(Data):
    """Somebody asked for a new password."""

    name: Person
    reset_link: Link


class Welcome(Data):
    """A workspace has been made."""

    name: Person
    workspace_name: Person


class WorkspaceInvitation(Data):
    """A member asks somebody into their workspace."""

    inviter_name: Person
    workspace_name: Person
    invitation_link: Link


class _Priced(Data):
    """What is charged, when it is known."""

    amount: Amount | None = None
    currency: Currency | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.amount is None) != (self.currency is None):
            raise ValueError("amount and currency go together")
        return self


class SubscriptionConfirmed(_Priced):
    """A paid plan has begun; the amount is that of the next charge."""

    name: Person
    plan_name: PlanName
    next_charge_at: Moment | None = None
    last4: Last4 | None = None


class SubscriptionCancelled(Data):
    """A paid plan is over."""

    name: Person
    plan_name: PlanName


class PaymentFailed(_Priced):
    """A card was refused. What is owed and when it is tried again are said when they are known."""

    name: Person
    retry_link: InvoiceLink
    next_attempt_at: Moment | None = None
    last4: Last4 | None = None


class TrialEnding(_Priced):
    """A trial is in its last days. With a card, `last4`, it is charged when the trial ends."""

    name: Person
    plan_name: PlanName
    trial_end: Moment
    last4: Last4 | None = None


class PaymentRecovered(Data):
    """What was owed is paid."""

    name: Person
    plan_name: PlanName
    next_charge_at: Moment | None = None


class GraceEnding(_Priced):
    """The last day of the access that goes on without a payment."""

    name: Person
    plan_name: PlanName
    access_until: Moment
    retry_link: InvoiceLink


class PaymentMethodExpiring(_Priced):
    """The card expires before the next charge."""

    name: Person
    plan_name: PlanName
    expiry: Expiry
    charge_at: Moment
    last4: Last4 | None = None


class RenewalUpcoming(Data):
    """A year's subscription is charged again within a week."""

    name: Person
    plan_name: PlanName
    amount: Amount
    currency: Currency
    renews_at: Moment
    last4: Last4 | None = None


class SubscriptionPaused(Data):
    """A subscription is paused."""

    name: Person
    plan_name: PlanName
    resume_at: Moment | None = None


class SubscriptionResumed(_Priced):
    """A paused subscription goes on."""

    name: Person
    plan_name: PlanName
    next_charge_at: Moment | None = None
    last4: Last4 | None = None


@dataclass(frozen=True, slots=True)
class Template:
    """One mail."""

    id: str
    event: str  # the detail-type that causes it
    data: type[Data]
    lifetime: timedelta  # later than this it is not sent any more
    # The link's own life is `lifetime`, and the mail says so.
    expiring_link: bool = False


_NEWS = timedelta(days=3)

TEMPLATES: dict[str, Template] = {
    template.id: template
    for template in (
        # The lives of links are those of the tokens in them, which the accounts service makes.
        Template(
            "email_verification",
            "EmailVerificationRequested",
            EmailVerification,
            timedelta(minutes=15),
            expiring_link=True,
        ),
        Template(
            "forgot_password",
            "PasswordResetRequested",
            ForgotPassword,
            timedelta(minutes=15),
            expiring_link=True,
        ),
        Template("welcome", "UserWelcomed", Welcome, _NEWS),
        Template(
            "workspace_invitation",
            "WorkspaceInvitationCreated",
            WorkspaceInvitation,
            timedelta(days=7),
            expiring_link=True,
        ),
        Template("subscription_confirmed", "SubscriptionActivated", SubscriptionConfirmed, _NEWS),
        Template("subscription_cancelled", "SubscriptionCancelled", SubscriptionCancelled, _NEWS),
        Template("payment_failed", "PaymentFailed", PaymentFailed, _NEWS),
        Template("trial_ending", "TrialEnding", TrialEnding, timedelta(days=1)),
        Template("payment_recovered", "PaymentRecovered", PaymentRecovered, _NEWS),
        Template("grace_ending", "GraceEnding", GraceEnding, timedelta(hours=12)),
        Template("payment_method_expiring", "PaymentMethodExpiring", PaymentMethodExpiring, _NEWS),
        Template("renewal_upcoming", "RenewalUpcoming", RenewalUpcoming, _NEWS),
        Template("subscription_paused", "SubscriptionPaused", SubscriptionPaused, _NEWS),
        Template("subscription_resumed", "SubscriptionResumed", SubscriptionResumed, _NEWS),
    )
}


def locale_of(tag: str | None) -> str:
    """Return the locale that serves a language tag: `ar-EG` is `ar`, an unknown one is `en`."""
    language = (tag or "").replace("_", "-").split("-", maxsplit=1)[0].strip().lower()
    return language if language in LOCALES else "en"
