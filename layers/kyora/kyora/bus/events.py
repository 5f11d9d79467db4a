"""The event catalogue: the data of every event, and the envelope around it.

An event's schema may only grow (`make schemas` refuses anything else): a consumer ignores fields
that it does not know, and may read events from an archive that are older than its code.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)
from pydantic.alias_generators import to_camel

from kyora.bus.names import DOMAINS, SENSITIVE
from kyora.bus.outcomes import Permanent
from kyora.postgres import storable
from kyora.trace import well_formed

VERSION = 1

# Generous on purpose: how a text may look is decided where it is shown.
Text = Annotated[str, StringConstraints(max_length=1000)]
Id = Annotated[str, StringConstraints(min_length=1, max_length=255)]
Email = Annotated[str, StringConstraints(pattern=r"^[^@\s]+@[^@\s]+$", max_length=320)]
Token = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
Locale = Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{2,3}([_-][A-Za-z0-9]+)*$")]
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{3}$")]
Decimal = Annotated[str, StringConstraints(pattern=r"^-?\d{1,15}(\.\d{1,6})?$")]


# A consumer uses only some of these models: `defer_build` saves its cold start the others. Their
# values are personal data: an error never repeats them.
class Data(BaseModel):
    """The data of an event; camelCase on the wire."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        extra="ignore",
        frozen=True,
        defer_build=True,
        hide_input_in_errors=True,
    )


# ---- accounts


class EmailVerificationRequested(Data):
    """A user has to prove that an address is theirs."""

    email: Email = Field(repr=False)
    name: Text = Field(repr=False)
    token: Token = Field(repr=False)
    locale: Locale | None = None


class PasswordResetRequested(Data):
    """A user asked for a new password."""

    email: Email = Field(repr=False)
    name: Text = Field(repr=False)
    token: Token = Field(repr=False)
    locale: Locale | None = None


class UserWelcomed(Data):
    """A user has joined a workspace."""

    email: Email = Field(repr=False)
    name: Text = Field(repr=False)
    workspace_name: Text
    locale: Locale | None = None


class WorkspaceInvitationCreated(Data):
    """A person is invited to a workspace."""

    email: Email = Field(repr=False)
    inviter_name: Text = Field(repr=False)
    workspace_name: Text
    token: Token = Field(repr=False)
    locale: Locale | None = None


# ---- billing


class _Subscription(Data):
    subscription_id: Id
    plan_id: Id
    plan_name: Text
    status: Id = Field(description="Stripe's, an open list.", examples=["active"])
    previous_plan_id: Id | None = None
    access_until: AwareDatetime | None = None


class SubscriptionActivated(_Subscription):
    """A workspace has begun to use a plan."""


class SubscriptionChanged(_Subscription):
    """A workspace's plan or status has changed."""


class SubscriptionCancelled(_Subscription):
    """A workspace's subscription has ended."""


class _Payment(Data):
    invoice_id: Id
    amount: int = Field(description="In the currency's minor unit.", examples=[5499])
    currency: Currency
    attempt: int = Field(ge=0)
    hosted_invoice_url: Text | None = Field(default=None, repr=False)
    next_attempt_at: AwareDatetime | None = None
    subscription_id: Id | None = None
    billing_reason: Text | None = Field(
        default=None,
        description="Stripe's word for what the invoice is for, an open list.",
        examples=["subscription_cycle"],
    )


class PaymentSucceeded(_Payment):
    """An invoice is paid."""


class PaymentFailed(_Payment):
    """An invoice could not be paid."""


class TrialEnding(Data):
    """A trial ends in a few days."""

    subscription_id: Id
    plan_name: Text
    trial_end: AwareDatetime


class _Planned(Data):
    subscription_id: Id
    plan_id: Id
    plan_name: Text


class PaymentRecovered(_Planned):
    """A workspace's open payment went through; it has full access again."""


class GraceEnding(_Planned):
    """A payment is still open, and the grace period ends within a day."""

    access_until: AwareDatetime


class PaymentMethodExpiring(_Planned):
    """The card that pays expires before the next charge."""

    last4: Text | None = None
    exp_month: int = Field(ge=1, le=12)
    exp_year: int
    charge_at: AwareDatetime


class RenewalUpcoming(_Planned):
    """A yearly subscription is charged again within a week."""

    amount: int = Field(
        description="In the currency's minor unit, before discounts.", examples=[99000]
    )
    currency: Currency
    renews_at: AwareDatetime


class SubscriptionPaused(_Planned):
    """A subscription is paused: no access and no charges until it is resumed."""

    resume_at: AwareDatetime | None = None
    reason: Text | None = Field(
        default=None,
        description="Stripe's word for why, an open list.",
        examples=["pause_requested"],
    )


class SubscriptionResumed(_Planned):
    """A paused subscription has resumed."""


class PlansSynced(Data):
    """The plans have been read from Stripe: the ids of those that changed."""

    created: list[Id]
    updated: list[Id]
    archived: list[Id]


# ---- assets


class AssetReady(Data):
    """An upload is verified and can be used."""

    asset_id: Id
    content_type: Text | None = None
    size: int | None = Field(default=None, description="In bytes.")
    reason: Text | None = None
    variants: bool | None = Field(default=None, description="Whether variants will be made.")


class AssetRejected(Data):
    """An upload is not what it was announced as."""

    asset_id: Id
    content_type: Text | None = None
    size: int | None = Field(default=None, description="In bytes.")
    reason: Text | None = None
    detected_type: Text | None = Field(default=None, description="What the bytes are, if known.")


class AssetDeleted(Data):
    """An asset is gone."""

    asset_id: Id
    content_type: Text | None = None
    size: int | None = Field(default=None, description="In bytes.")
    reason: Text | None = None


class AssetVariant(Data):
    """A smaller copy of an image."""

    name: Id = Field(examples=["medium"])
    format: Id = Field(examples=["webp"])
    width: int
    height: int
    size: int = Field(description="In bytes.")
    url: Text | None = Field(default=None, description="Of a public one; it never changes.")


class AssetVariantsReady(Data):
    """The variants of an image can be used, for the first time or made again."""

    asset_id: Id
    variants: list[AssetVariant] | None = None


class AssetVariantsFailed(Data):
    """An image has no variants, or keeps those before."""

    asset_id: Id
    reason: Text | None = Field(default=None, examples=["too_many_pixels"])


class AssetQuarantined(Data):
    """A scanner has found malware in a file, which cannot be downloaded, or not any more."""

    asset_id: Id
    reason: Text | None = Field(default=None, examples=["infected"])
    filename: Text | None = Field(default=None, examples=["invoice.zip"])
    was_ready: bool | None = Field(
        default=None, description="Whether AssetReady was emitted for it."
    )


# ---- orders and customers


class OrderPaymentSucceeded(Data):
    """An order is paid."""

    order_id: Id
    business_id: Id
    payment_method: Id = Field(examples=["credit_card"])
    total: Decimal = Field(description="A decimal.", examples=["54.99"])
    currency: Currency
    paid_at: AwareDatetime


class OrderCreated(Data):
    """A customer has ordered."""

    order_id: Id
    business_id: Id
    customer_id: Id | None = None
    total: Decimal = Field(description="A decimal.", examples=["54.99"])
    currency: Currency


class CustomerCreated(Data):
    """A business has a new customer."""

    customer_id: Id
    business_id: Id
    source: Text | None = Field(default=None, examples=["instagram"])


# ---- the envelope


class Envelope(Data):
    """What is around every event's data: EventBridge's `detail`."""

    id: Id = Field(
        description="What consumers dedupe on.", examples=["evt_01kaq3v6m8r5x9y2c4d7f0h1jk"]
    )
    occurred_at: AwareDatetime
    version: Literal[1]
    workspace_id: Id | None = None
    correlation_id: Id = Field(description="Of the request that caused it.")
    traceparent: Annotated[str | None, BeforeValidator(well_formed)] = Field(
        default=None,
        description="Of what caused it (W3C Trace Context); a malformed one is ignored.",
        examples=["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"],
    )
    data: dict[str, Any] = Field(repr=False)


@dataclass(frozen=True, slots=True)
class Event[T: Data]:
    """An event as its consumer gets it."""

    id: str
    name: str
    occurred_at: datetime
    workspace_id: str | None
    correlation_id: str
    data: T = field(repr=False)


class EventType(NamedTuple):
    """An event of the catalogue."""

    name: str
    model: type[Data]

    @property
    def source(self) -> str:
        """EventBridge's `source`."""
        return f"kyora.{DOMAINS[self.name]}"

    @property
    def sensitive(self) -> bool:
        """Whether its data holds a token."""
        return self.name in SENSITIVE


EVENTS: dict[str, EventType] = {name: EventType(name, globals()[name]) for name in DOMAINS}


class Unreadable(Permanent):
    """An event that no consumer can read; `fields` names the faulty fields, never their values."""

    def __init__(self, code: str, fields: tuple[str, ...] = ()) -> None:
        super().__init__(code)
        self.fields = fields

    def __str__(self) -> str:
        return " ".join((self.code, *self.fields))


def parse(detail_type: str, detail: object) -> Event[Any]:
    """Return the event that EventBridge delivered. Raises Unreadable."""
    kind = EVENTS.get(detail_type)
    if kind is None:
        raise Unreadable("event.unknown")
    if isinstance(detail, dict) and detail.get("version", VERSION) != VERSION:
        raise Unreadable("event.unknown_version")
    try:
        envelope = Envelope.model_validate(detail)
        data = kind.model.model_validate(envelope.data)
    except ValidationError as error:
        raise Unreadable("event.invalid", _places(error)) from None
    if unfit := (*_unfit(dict(envelope) | {"data": None}), *_unfit(dict(data))):
        raise Unreadable("event.unstorable", unfit)
    return Event(
        id=envelope.id,
        name=detail_type,
        occurred_at=envelope.occurred_at,
        workspace_id=envelope.workspace_id,
        correlation_id=envelope.correlation_id,
        data=data,
    )


def check(name: str, data: object) -> None:
    """Raise ValueError when an event's data is not what its consumers will read."""
    model = EVENTS[name].model
    known = {info.alias or field for field, info in model.model_fields.items()}
    if isinstance(data, dict) and (unknown := data.keys() - known):
        raise ValueError(f"{name} has no {', '.join(sorted(unknown))}")
    try:
        model.model_validate(data, by_name=False)
    except ValidationError as error:
        raise ValueError(f"{name}: {', '.join(_places(error))}") from None


def _unfit(values: Mapping[str, object]) -> tuple[str, ...]:
    """Return the fields that Postgres cannot store: NUL, a lone surrogate, a date out of range."""
    return tuple(name for name, value in values.items() if not _fits(value))


def _fits(value: object) -> bool:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, datetime):
        try:
            value.astimezone(UTC)
        except OverflowError:  # the last hours of the year 9999 west of Greenwich
            return False
    if isinstance(value, list | tuple):
        return all(map(_fits, value))
    return True


def _places(error: ValidationError) -> tuple[str, ...]:
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    return tuple(f"{'.'.join(map(str, f['loc'])) or 'detail'}:{f['type']}" for f in faults)
