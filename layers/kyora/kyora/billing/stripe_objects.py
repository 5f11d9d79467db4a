"""Stripe's objects as we read them: old and new API shapes, without the SDK's types.

Since 2025-03-31 (basil) a subscription's periods stand on its items and an invoice's subscription
under `parent`; both places are read. Enums are open lists. What is missing everywhere is None,
never 0. Money stays in the minor units that Stripe sends.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from kyora.billing import stripe_terms
from kyora.billing.stripe_terms import Terms

# The version of the SDK in layers/stripe. Payloads of another release train may lack something, so
# the object is read from Stripe instead.
API_VERSION = "2026-10-28.endive"
_DAY = 86_400  # seconds

TERMINAL = ("canceled", "incomplete_expired")
TERMINAL_SQL = str(TERMINAL)  # as a statement's list
# Statuses that imply that a subscription has given access.
ENTITLED = ("trialing", "active", "past_due", "unpaid")
STATUSES = (*ENTITLED, "paused", "incomplete", *TERMINAL)

# Stripe's words for a pause caused by a failed payment.
_FAILED_PAYMENT = ("first_payment_failure", "final_payment_failure")

type Json = Mapping[str, Any]


class Event(NamedTuple):
    """The envelope of a webhook's payload, with what it is about."""

    id: str
    type: str
    created: int
    api_version: str
    livemode: bool
    object: Json
    previous: Json
    account: str = ""  # a connected account's, or one's of our organisation; empty: our own
    kind: str = ""  # the object's, such as `subscription`
    object_id: str | None = None  # None of an upcoming invoice
    customer_id: str | None = None
    request_id: str = ""  # of the API request that caused it, also by a page of Stripe's; or ""
    correlation_id: str = ""  # of our request that caused it, where that is known
    traceparent: str = ""  # of the same

    @property
    def pinned(self) -> bool:
        """Whether the payload is written in a version of the release train that we read."""
        return self.api_version.rpartition(".")[2] == API_VERSION.rpartition(".")[2]


class Item(NamedTuple):
    """What a subscription is charged for, and how that price is billed."""

    id: str | None
    price: str | None
    product: str | None
    quantity: int | None
    currency: str | None
    interval: str | None
    interval_count: int | None
    period_start: datetime | None
    period_end: datetime | None


class StripeSubscription(NamedTuple):
    """A subscription as Stripe shows it; None where a payload does not say.

    `price`, `item` and `quantity` are those of the first of `items`, and the period is the last
    one's, until `plan_items` has found the item that is the plan's.
    """

    id: str
    customer: str
    status: str
    items: tuple[Item, ...]
    price: str | None
    item: str | None
    quantity: int | None
    period_start: datetime | None
    period_end: datetime | None
    trial_end: datetime | None
    cancel_at: datetime | None
    ended_at: datetime | None
    default_payment_method: str | None
    latest_invoice: str | None
    unpaid_since: datetime | None  # as far as an expanded latest invoice says
    collection_paused: bool
    payment_failed: bool  # Stripe paused it for that, not on request
    began_at: datetime
    workspace: str
    whole: bool  # False: its list of items is cut off
    terms: Terms
    paused_for: str | None = None  # Stripe's word

    @property
    def terminal(self) -> bool:
        """Whether it has ended for good: Stripe never revives a subscription's id."""
        return self.status in TERMINAL

    @property
    def failing(self) -> bool:
        """Whether its payment failed and is due, so that the grace period runs."""
        return failing(self.status, payment_failed=self.payment_failed)

    @property
    def entitled(self) -> bool:
        """Whether it has ever given access, as far as this payload says."""
        trialed = self.trial_end is not None and self.status in ("canceled", "paused")
        return self.status in ENTITLED or trialed


class StripeInvoice(NamedTuple):
    """An invoice as Stripe shows it."""

    id: str
    customer: str
    subscription: str | None
    number: str | None
    status: str
    currency: str
    total: int
    amount_due: int
    amount_paid: int
    attempt_count: int
    next_attempt_at: datetime | None
    hosted_url: str | None
    pdf_url: str | None
    created_at: datetime
    reason: str | None = None  # Stripe's word for what it is for


class StripePaymentMethod(NamedTuple):
    """How a customer pays; of a card only its brand, last four digits and expiry."""

    id: str
    customer: str
    type: str
    brand: str | None
    last4: str | None
    exp_month: int | None
    exp_year: int | None


class StripeCustomer(NamedTuple):
    """A customer as Stripe shows it."""

    id: str
    workspace: str
    default_payment_method: str | None
    balance: int
    deleted: bool


class Unreadable(Exception):
    """An object lacks a field that every shape of it has."""

    def __init__(self, kind: str, field: str) -> None:
        super().__init__(f"{kind}.{field}")


def event(payload: object) -> Event | None:
    """Return the envelope of a payload, or None when it is not an event of Stripe's."""
    if not isinstance(payload, dict) or payload.get("object") != "event":
        return None
    data = _object(payload.get("data"))
    created = payload.get("created")
    identity, kind = _sane(payload.get("id")), _sane(payload.get("type"))
    if not identity or not kind or type(created) is not int or moment(created) is None:
        return None
    if not isinstance(data.get("object"), dict):
        return None
    found, previous = data["object"], _object(data.get("previous_attributes"))
    return Event(
        identity,
        kind,
        created,
        _sane(payload.get("api_version")),
        payload.get("livemode") is True,
        found,
        previous,
        _sane(payload.get("account")) or _sane(payload.get("context")),
        str(found.get("object")),
        _id(found),
        _customer_of(found, previous),
        _sane(_object(payload.get("request")).get("id")),
        *_origin(found, created),
    )


def origin(correlation: str, traceparent: str) -> dict[str, str]:
    """Return the metadata by which what a page of Stripe's makes names our request."""
    found = {"correlationId": correlation, "traceparent": traceparent}
    return {name: value for name, value in found.items() if value}


def _origin(found: Json, created: int) -> tuple[str, str]:
    """Return the correlation id and `traceparent` of the request that an object was made for.

    A page is open for a day at most. Later events of the subscription, such as a renewal, keep the
    metadata but have other causes.
    """
    metadata, begun = found.get("metadata"), found.get("created")
    if found.get("object") == "invoice":
        if found.get("billing_reason") != "subscription_create":
            return "", ""
        details = _object(_object(found.get("parent")).get("subscription_details"))
        metadata = details.get("metadata")
    if type(begun) is not int or created - begun > _DAY:
        return "", ""
    named = _object(metadata)
    correlation = _sane(named.get("correlationId"))
    return (correlation, _sane(named.get("traceparent"))) if correlation else ("", "")


def subscription(found: Json) -> StripeSubscription:
    """Read a subscription. Raises Unreadable."""
    items = tuple(_item(one, found) for one in _items(found))
    first = items[0] if items else _item({}, found)
    period_end = _last([item.period_end for item in items]) or first.period_end
    flagged = found.get("cancel_at_period_end") is True
    return StripeSubscription(
        id=_text(found, "subscription", "id"),
        customer=_text(found, "subscription", "customer"),
        status=_text(found, "subscription", "status"),
        items=items,
        price=first.price,
        item=first.id,
        quantity=first.quantity,
        period_start=_last([item.period_start for item in items]) or first.period_start,
        period_end=period_end,
        trial_end=moment(found.get("trial_end")),
        # The customer portal in flexible billing mode sets `cancel_at` and leaves the flag alone.
        cancel_at=moment(found.get("cancel_at")) or (period_end if flagged else None),
        ended_at=moment(found.get("ended_at")),
        default_payment_method=_id(found.get("default_payment_method")),
        latest_invoice=_id(found.get("latest_invoice")),
        unpaid_since=_unpaid_since(found.get("latest_invoice")),
        collection_paused=isinstance(found.get("pause_collection"), dict),
        payment_failed=paused_for(found) in _FAILED_PAYMENT,
        began_at=_moment(found, "subscription", "created"),
        workspace=workspace_of(found),
        whole=_object(found.get("items")).get("has_more") is not True and bool(items),
        terms=stripe_terms.read(found),
        paused_for=paused_for(found),
    )


def _item(found: Json, subscription: Json) -> Item:
    """Read an item; before basil (2025-03-31) the subscription had the period and its only plan."""
    plan = found.get("plan") or subscription.get("plan")
    price = _object(found.get("price")) or _object(plan)
    recurring = _object(price.get("recurring")) or price  # a plan has them beside its id
    return Item(
        id=_id(found),
        price=_id(found.get("price")) or _id(plan),
        product=_id(price.get("product")),
        quantity=_whole(found.get("quantity", subscription.get("quantity"))),
        currency=_str(price.get("currency")),
        interval=_str(recurring.get("interval")),
        interval_count=_whole(recurring.get("interval_count")),
        period_start=moment(found.get("current_period_start"))
        or moment(subscription.get("current_period_start")),
        period_end=moment(found.get("current_period_end"))
        or moment(subscription.get("current_period_end")),
    )


def failing(status: object, *, payment_failed: object) -> bool:
    """Return whether a status is one in which the grace period counts."""
    return status == "past_due" or (status == "paused" and payment_failed is True)


def _unpaid_since(invoice: object) -> datetime | None:
    """Return when an open invoice was first due: it is charged once final, or on its due date."""
    found = _object(invoice)
    if found.get("status") != "open":
        return None
    final = moment(_object(found.get("status_transitions")).get("finalized_at"))
    return _last([final, moment(found.get("due_date"))])


def paused_for(found: Json) -> str | None:
    """Return Stripe's word for why it paused a subscription (`status_details`, since 2026)."""
    paused = _object(_object(found.get("status_details")).get("paused"))
    return _str(_object(paused.get("subscription")).get("type"))


def _items(found: Json) -> list[Json]:
    return [item for item in _listed(found.get("items")) if isinstance(item, dict)]


def invoice(found: Json) -> StripeInvoice:
    """Read an invoice. Raises Unreadable, also for an upcoming one, which has no id."""
    return StripeInvoice(
        id=_text(found, "invoice", "id"),
        customer=_text(found, "invoice", "customer"),
        subscription=subscription_of(found),
        number=_str(found.get("number")),
        status=_text(found, "invoice", "status"),
        currency=_text(found, "invoice", "currency").lower(),
        total=_money(found, "total"),
        amount_due=_money(found, "amount_due"),
        amount_paid=_money(found, "amount_paid"),
        attempt_count=_whole(found.get("attempt_count")) or 0,
        next_attempt_at=moment(found.get("next_payment_attempt")),
        hosted_url=_str(found.get("hosted_invoice_url")),
        pdf_url=_str(found.get("invoice_pdf")),
        created_at=_moment(found, "invoice", "created"),
        reason=_str(found.get("billing_reason")),
    )


def payment_method(found: Json, customer: str) -> StripePaymentMethod:
    """Read a payment method of `customer`. Raises Unreadable."""
    kind = _text(found, "payment_method", "type")
    card = _object(found.get(kind))
    last4 = _str(card.get("last4"))
    return StripePaymentMethod(
        id=_text(found, "payment_method", "id"),
        customer=customer,
        type=kind,
        brand=_str(card.get("brand")),
        last4=last4[-4:] if last4 else None,
        exp_month=_whole(card.get("exp_month")),
        exp_year=_whole(card.get("exp_year")),
    )


def customer(found: Json) -> StripeCustomer:
    """Read a customer. Raises Unreadable."""
    settings = _object(found.get("invoice_settings"))
    return StripeCustomer(
        id=_text(found, "customer", "id"),
        workspace=workspace_of(found),
        default_payment_method=_id(settings.get("default_payment_method")),
        balance=_whole(found.get("balance")) or 0,
        deleted=found.get("deleted") is True,
    )


def _customer_of(found: Json, previous: Json) -> str | None:
    """Return the customer that an event is about; a card that is detached names it as previous."""
    if found.get("object") == "customer":
        return _id(found)
    return _id(found.get("customer")) or _id(previous.get("customer"))


def subscription_of(found: Json) -> str | None:
    """Return the subscription of an invoice; a one-off invoice has none."""
    details = _object(_object(found.get("parent")).get("subscription_details"))
    direct = _id(details.get("subscription")) or _id(found.get("subscription"))
    if direct:
        return direct
    for line in _listed(found.get("lines")):
        parent = _object(_object(line).get("parent"))
        of_item = _object(parent.get("subscription_item_details"))
        if of_line := _id(of_item.get("subscription")) or _id(_object(line).get("subscription")):
            return of_line
    return None


def workspace_of(found: Json) -> str:
    """Return the workspace in the metadata of an object of ours, or an empty text.

    Only what takes a secret key to write is trusted: the payer can put a checkout's
    `client_reference_id` into the address of a payment link
    (https://docs.stripe.com/payment-links/url-parameters).
    """
    return _str(_object(found.get("metadata")).get("workspaceId")) or ""


def moment(seconds: object) -> datetime | None:
    """Return the time of a unix timestamp; None for 0 and for anything else."""
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        return None
    if not 0 < seconds < 253_402_300_800:  # the year 10000
        return None
    return datetime.fromtimestamp(seconds, UTC)


def _sane(text: object) -> str:
    """Return a name as Stripe gives them, else an empty text."""
    good = isinstance(text, str) and len(text) < 256 and text.isascii() and text.isprintable()
    return str(text) if good else ""


def _object(value: object) -> Json:
    return value if isinstance(value, dict) else {}


def _listed(value: object) -> Iterator[Any]:
    """Yield the members of a list object, or of a plain list."""
    data = value.get("data") if isinstance(value, dict) else value
    yield from data if isinstance(data, list) else []


def _id(value: object) -> str | None:
    """Return the id of an object that may be expanded."""
    return _str(value.get("id") if isinstance(value, dict) else value)


def _str(value: object) -> str | None:
    """Return a text as Postgres can keep it: no NUL, no half of a surrogate pair."""
    if not isinstance(value, str):
        return None
    return value.replace("\0", "").encode(errors="replace").decode() or None


def _whole(value: object) -> int | None:
    return value if type(value) is int else None


def _last(moments: list[datetime | None]) -> datetime | None:
    return max((found for found in moments if found is not None), default=None)


def _text(found: Json, kind: str, field: str) -> str:
    value = _id(found.get(field))
    if value is None:
        raise Unreadable(kind, field)
    return value


def _moment(found: Json, kind: str, field: str) -> datetime:
    value = moment(found.get(field))
    if value is None:
        raise Unreadable(kind, field)
    return value


def _money(found: Json, field: str) -> int:
    """Return an amount in minor units; Stripe has written whole numbers in every version."""
    value = found.get(field)
    if type(value) is not int:
        raise Unreadable("invoice", field)
    return value
