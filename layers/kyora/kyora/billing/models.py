"""Billing's requests and answers. Amounts are minor units of the currency beside them."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field, StringConstraints

from kyora.api import AnswerBody, RequestBody

type Id = Annotated[
    str, StringConstraints(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_.-]+$")
]
type Url = Annotated[str, StringConstraints(min_length=1, max_length=2000)]


class PlanChoice(RequestBody):
    """A wanted plan, and when: without `when` an upgrade now, a downgrade at renewal."""

    plan_id: Id = Field(examples=["professional"])
    when: Literal["now", "renewal"] | None = Field(
        default=None,
        description="`now` is charged or credited at once; `renewal` waits for the period's end.",
    )


class PauseRequest(RequestBody):
    """When a paused subscription resumes; without a date, when the resume route is called."""

    resume_at: AwareDatetime | None = Field(default=None, examples=["2027-02-01T00:00:00Z"])


class CheckoutRequest(RequestBody):
    """A plan, and where Stripe's page returns to: both addresses are the web application's."""

    plan_id: Id = Field(examples=["professional"])
    success_url: Url = Field(
        description="After the payment; `{CHECKOUT_SESSION_ID}` in it is filled in.",
        examples=["https://app.example.com/billing?paid=1"],
    )
    cancel_url: Url = Field(
        description="For a person who goes back.", examples=["https://app.example.com/billing"]
    )


class PortalRequest(RequestBody):
    """Where Stripe's page returns to, in the web application, and the task that it opens with."""

    return_url: Url = Field(examples=["https://app.example.com/billing"])
    flow: Literal["payment_method_update", "subscription_cancel", "subscription_update"] | None = (
        Field(default=None, description="The page of one task; it returns when that is done.")
    )


class Plan(AnswerBody):
    """A plan. The free plan has no price at Stripe unless one was created."""

    id: str
    name: str
    description: str
    stripe_product_id: str | None = None
    stripe_price_id: str | None = None
    amount: int
    currency: str | None = None
    interval: str | None = None
    interval_count: int = 1
    features: dict[str, Any]
    limits: dict[str, int]
    active: bool


class Plans(AnswerBody):
    """Every plan that is offered, the cheapest first."""

    items: list[Plan]


class PaymentMethod(AnswerBody):
    """How the workspace pays; never more of a card than its last four digits."""

    type: str
    brand: str | None = None
    last4: str | None = None
    exp_month: int | None = None
    exp_year: int | None = None


class PreviewLine(AnswerBody):
    """A line of the coming invoice; a credit is negative."""

    description: str
    amount: int


class Preview(AnswerBody):
    """What a change would cost.

    `amount` is the invoice of the change, due at `dueAt`; `proration` is its part for the running
    period. `dueNow` is what is charged at once: 0 for a change at renewal.
    """

    plan_id: str
    when: Literal["now", "renewal"]
    due_now: int
    due_at: datetime | None = None
    amount: int
    proration: int
    currency: str
    lines: list[PreviewLine]


class Price(AnswerBody):
    """What one unit costs per interval; `amount` is left out for a price with tiers."""

    amount: int | None = None
    currency: str | None = None
    interval: str | None = None
    interval_count: int = 1
    quantity: int = 1


class Charge(AnswerBody):
    """What is charged next, after the credit there is, and when.

    Left out where a discount applies: its amount is not mirrored. What is added to the next invoice
    in Stripe's dashboard, or waits for it as a proration made there, is charged besides.
    """

    amount: int
    currency: str
    at: datetime


class PendingChange(AnswerBody):
    """The plan from `date` on, and its price, unless the change is taken back."""

    plan: Plan
    date: datetime
    price: Price


class Subscription(AnswerBody):
    """A workspace's subscription, what it allows, and how much of that is used.

    `status` is Stripe's, or `free`; `plan` and `limits` are what applies now, `price` is what is
    paid. `payUrl` is Stripe's page for what is owed. `usage` has what this service can count, and
    `overLimit` names what exceeds the plan: it stays, and nothing can be added to it.
    """

    status: str
    access: Literal["full", "grace", "free"]
    access_until: datetime | None = None
    plan: Plan
    price: Price
    current_period_end: datetime | None = None
    next_charge: Charge | None = None
    cancel_at: datetime | None = None
    trial_end: datetime | None = None
    pending_change: PendingChange | None = None
    paused_until: datetime | None = None
    pay_url: str | None = None
    limits: dict[str, int]
    usage: dict[str, int]
    over_limit: list[str]
    payment_method: PaymentMethod | None = None
    preview: Preview | None = None


class Session(AnswerBody):
    """A page of Stripe's, for one person and a short time."""

    url: str


class Invoice(AnswerBody):
    """An invoice, with its page and PDF at Stripe."""

    invoice_id: str
    number: str | None = None
    status: str
    currency: str
    total: int
    amount_due: int
    amount_paid: int
    created_at: datetime
    next_attempt_at: datetime | None = None
    hosted_invoice_url: str | None = None
    pdf_url: str | None = None


class Invoices(AnswerBody):
    """Invoices, the newest first; with `nextCursor` there are more."""

    items: list[Invoice]
    next_cursor: str | None = None
