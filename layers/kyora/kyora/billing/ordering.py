"""What an event's payload is worth, whatever order the events come in.

Stripe promises no order, and its clock has whole seconds: no rule that reads payloads alone is
right. Per object, with `as_of` the second at which our row was true:

    row is over for good                    skip: Stripe never revives an id
    payload says it is over for good        apply
    created < as_of - 2                     skip: older news
    created > as_of + 2, written as we read  apply
    anything nearer, or in another shape    read the object from Stripe, apply that

A read races with other workers, so its answer is applied only if nobody wrote about that customer
since (`billing_customer.version`); else the whole turn is taken again. No transaction is open
while Stripe is asked.
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from kyora.billing.stripe_objects import Event

if TYPE_CHECKING:
    from kyora.billing.stripe_client import Answer

_NEAR = 2  # seconds: whole seconds on both sides, and Stripe's clocks among themselves

type Row = dict[str, Any]


class Ask(Exception):
    """Stripe has to be asked; `version` is the customer's at that moment."""

    def __init__(self, version: int, attempts: int) -> None:
        super().__init__("ask Stripe")
        self.version, self.attempts = version, attempts


class Read(NamedTuple):
    """What Stripe answered, or that it did not: then the payload has to do, with doubt."""

    answer: "Answer | None"
    version: int


def decide(
    as_of: int | None, *, over: bool, ends: bool, whole: bool, event: Event
) -> Literal["apply", "skip", "ask"]:
    """Decide what a payload is worth.

    `as_of` is our row's second, None without a row; `over` and `ends` say whether row and payload
    are over for good; a payload that is not `whole` does not say everything.
    """
    if over:
        return "skip"
    if ends:
        return "apply"
    if as_of is not None and event.created < as_of - _NEAR:
        return "skip"
    if not event.pinned or not whole:
        return "ask"
    if as_of is None or event.created > as_of + _NEAR:
        return "apply"
    return "ask"


class Turn(NamedTuple):
    """An event in a transaction that holds its customer's lock."""

    event: Event
    customer: Row
    row: Row  # the event's own, with what we know of its object and price
    read: Read | None

    @property
    def answer(self) -> "Answer | None":
        """What Stripe answered when it was asked."""
        return self.read.answer if self.read else None

    @property
    def happened(self) -> datetime:
        """When Stripe says that it happened."""
        return moment(self.event.created)

    def judge(self, as_of: int | None, *, over: bool, ends: bool, whole: bool = True) -> bool:
        """Tell whether the payload is to be applied. Raises Ask when only Stripe can tell."""
        if self.read:  # Stripe is away: the newest that came has to do
            return as_of is None or self.event.created >= as_of
        verdict = decide(as_of, over=over, ends=ends, whole=whole, event=self.event)
        if verdict == "ask":
            raise Ask(self.customer["version"] - 1, self.row["attempts"])
        return verdict == "apply"


def moment(seconds: int) -> datetime:
    """Return the time of a second of Stripe's clock."""
    return datetime.fromtimestamp(seconds, UTC)
