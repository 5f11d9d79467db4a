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


class SubscriptionConfirmed(Data):
    """A paid plan has begun."""

    name: Person
    plan_name: PlanName


class SubscriptionCancelled(Data):
    """A paid plan is over."""

    name: Person
    plan_name: PlanName


class PaymentFailed(Data):
    """A card was refused. What is owed and when it is tried again are said when they are known."""

    name: Person
    retry_link: InvoiceLink
    amount: Annotated[StrictInt, Field(ge=0)] | None = None  # minor units
    currency: Currency | None = None
    next_attempt_at: Moment | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.amount is None) != (self.currency is None):
            raise ValueError("amount and currency go together")
        return self


class TrialEnding(Data):
    """A trial is in its last days."""

    name: Person
    plan_name: PlanName
    trial_end: Moment


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
    )
}


def locale_of(tag: str | None) -> str:
    """Return the locale that serves a language tag: `ar-EG` is `ar`, an unknown one is `en`."""
    language = (tag or "").replace("_", "-").split("-", maxsplit=1)[0].strip().lower()
    return language if language in LOCALES else "en"
