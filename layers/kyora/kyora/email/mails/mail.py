"""What a mail's entry is, and the types of what mails show."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, NamedTuple, Self
from urllib.parse import urlencode

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

from kyora import config
from kyora.bus import events
from kyora.config import Email
from kyora.email.books import Row
from kyora.email.text import LinkPolicy, UserText

# Where Stripe keeps the pages of unpaid invoices, on its own domain or as a link to the same page.
STRIPE_HOSTS = frozenset({"invoice.stripe.com", "pay.stripe.com", "billing.stripe.com"})

type Values = dict[str, object]  # a template's variables by name


# ---- what a template shows


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


class Priced(Data):
    """What is charged, when it is known."""

    amount: Amount | None = None
    currency: Currency | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.amount is None) != (self.currency is None):
            raise ValueError("amount and currency go together")
        return self


# ---- an entry


class Context(NamedTuple):
    """What a mail is filled from, beside its event."""

    name: str  # the recipient's; may be empty
    books: Row  # what we know of the subscription; empty for mail that is not about one
    settings: Email

    def link(self, path: str, token: str) -> str:
        """Return a link into the application that carries a token."""
        return f"{self.settings.app_base_url}{path}?{urlencode({'token': token})}"

    def payment_link(self, invoice: str | None) -> str:
        """Return where to pay: the invoice's page when it is Stripe's, else our billing page."""
        try:
            policy = LinkPolicy(self.settings.app_base_url, config.is_development())
            return str(policy.check(invoice or "", also=STRIPE_HOSTS))
        except ValueError:
            return f"{self.settings.app_base_url}/billing"


def _never(_event: object, _books: Row) -> str:
    return ""


class Mail[E: events.Data](NamedTuple):
    """One mail.

    Its subject, preheader and words are blocks of `templates/<locale>/<id>.j2`, which is laid out
    as HTML and as text.
    """

    id: str
    event: type[E]  # what causes it
    data: type[Data]  # what its template shows
    lifetime: timedelta  # later than this it is not sent any more
    fill: Callable[[E, Context], Values]
    # Why it would not be true any more, or an empty text; asked until the first attempt.
    untrue: Callable[[E, Row], str] = _never
    # The link's own life is `lifetime`, and the mail says so.
    expiring_link: bool = False
