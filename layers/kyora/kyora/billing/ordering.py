"""Ordering: what the payload of an event is worth, in whatever order events arrive.

Stripe promises no order, and its clock has whole seconds, so no rule that reads payloads alone is
right. Per object, with `as_of` the second at which our row was true:

    our row has ended for good              skip: Stripe never revives an id
    the payload says that it has ended      apply
    created < as_of - 2                     skip: older than ours
    created > as_of + 2, in a shape we read  apply
    anything nearer, or in another shape    read the object from Stripe and apply that

A read races with other workers, so its answer is applied only if no one has written about that
customer since (`billing_customer.version`); otherwise the whole attempt is repeated. No
transaction is open while Stripe is asked.
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from kyora.billing.stripe_objects import Event

if TYPE_CHECKING:
    from kyora.billing.stripe_client import Answer

NEAR = 2  # seconds: rounding on both sides, and Stripe's clocks differ among themselves

type Row = dict[str, Any]


class Ask(Exception):
    """Only Stripe knows; `version` is the customer's at that moment."""

    def __init__(self, version: int, attempts: int) -> None:
        super().__init__("ask Stripe")
        self.version, self.attempts = version, attempts


class Read(NamedTuple):
    """Stripe's answer, or None when Stripe is unreachable: the payload is used, as doubtful."""

    answer: "Answer | None"
    version: int


def decide(
    as_of: int | None, *, over: bool, ends: bool, whole: bool, event: Event
) -> Literal["apply", "skip", "ask"]:
    """Decide what to do with a payload, by the table above.

    `as_of` is our row's second, None without a row; `over` and `ends`: row and payload have ended
    for good; `whole`: the payload says everything that we mirror.
    """
    if over:
        return "skip"
    if ends:
        return "apply"
    if as_of is not None and event.created < as_of - NEAR:
        return "skip"
    if not event.pinned or not whole:
        return "ask"
    if as_of is None or event.created > as_of + NEAR:
        return "apply"
    return "ask"


class Attempt(NamedTuple):
    """An attempt at an event, in a transaction that holds the lock on its customer."""

    event: Event
    customer: Row
    row: Row  # the event's, joined with our row of its subscription
    read: Read | None

    @property
    def answer(self) -> "Answer | None":
        """What Stripe answered, if it was asked."""
        return self.read.answer if self.read else None

    @property
    def happened(self) -> datetime:
        """When it happened, by Stripe's clock."""
        return moment(self.event.created)

    def ask(self) -> Ask:
        """Return the exception that makes `process` read the object from Stripe."""
        return Ask(self.customer["version"] - 1, self.row["attempts"])

    def applies(self, as_of: int | None, *, over: bool, ends: bool, whole: bool = True) -> bool:
        """Return whether to apply the payload; parameters as of `decide`. Raises Ask."""
        if self.read:  # Stripe is unreachable: the newest payload wins
            return as_of is None or self.event.created >= as_of
        verdict = decide(as_of, over=over, ends=ends, whole=whole, event=self.event)
        if verdict == "ask":
            raise self.ask()
        return verdict == "apply"


def moment(seconds: int) -> datetime:
    """Return a second of Stripe's clock as a time."""
    return datetime.fromtimestamp(seconds, UTC)
