"""Count an OrderCreated or CustomerCreated, once."""

import zlib
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from kyora import money
from kyora.analytics.models import OTHER
from kyora.bus import seen
from kyora.bus.events import Event
from kyora.bus.outcomes import Permanent
from kyora.observability import logger
from kyora.postgres import Transaction, transaction
from kyora.tenants import owns_business

type Change = tuple[date, str, int, int]  # day, label, and what to add to count and amount

_CONSUMER = "update_analytics"
_SHARDS = 16
_LONGEST_LABEL = 100  # characters; a source is free text
MOST_SOURCES = 100  # of a business on one day; any other counts as OTHER
UNKNOWN = "unknown"  # the source of a customer whose event names none


@dataclass(frozen=True, slots=True)
class Fact:
    """What an event says: an order with currency and total, or a customer with a source."""

    workspace_id: str
    business_id: str
    kind: str
    subject_id: str
    event_id: str
    occurred_at: datetime
    label: str
    amount: int = 0  # minor units

    @property
    def day(self) -> date:
        """The day it happened, in UTC."""
        return self.occurred_at.astimezone(UTC).date()


def update(event: Event[Any]) -> None:
    """Count an OrderCreated or a CustomerCreated, once.

    Raises Permanent for an event without a workspace, for a business of another workspace, and for
    an unknown currency.
    """
    fact = read(event)
    with transaction() as tx:
        if not seen.first_time(tx, _CONSUMER, event.id):
            return
        if not owns_business(tx, fact.workspace_id, fact.business_id):
            raise Permanent("business.not_found")
        # Shared with other events, but not with a rebuild of the counts.
        tx.rows(
            "SELECT pg_advisory_xact_lock_shared(hashtextextended(:key, 0))",
            key=lock_key(fact.business_id),
        )
        if fact.kind == "customer" and not _has_room(tx, fact):
            fact = replace(fact, label=OTHER)
        changes = _store(tx, fact)
        if changes:
            _count(tx, fact, changes)
    logger().info(f"{fact.kind} counted" if changes else "nothing new", subject_id=fact.subject_id)


def read(event: Event[Any]) -> Fact:
    """Return what an event says. Raises Permanent."""
    if event.workspace_id is None:
        raise Permanent("event.no_workspace")
    data = event.data
    if event.name == "OrderCreated":
        kind, subject, label = "order", data.order_id, data.currency.upper()
        try:
            amount = money.to_minor(Decimal(data.total), label)
        except money.UnknownCurrency:
            raise Permanent("money.unknown_currency") from None
    else:
        kind, subject, label, amount = "customer", data.customer_id, _source(data.source), 0
    return Fact(
        workspace_id=event.workspace_id,
        business_id=data.business_id,
        kind=kind,
        subject_id=subject,
        event_id=event.id,
        occurred_at=event.occurred_at,
        label=label,
        amount=amount,
    )


def lock_key(business_id: str) -> str:
    """Return the name of the lock on the counts of a business."""
    return f"analytics {business_id}"


def _source(given: str | None) -> str:
    """Return a customer's source as one short line."""
    line = "".join(letter for letter in given or "" if letter.isprintable())
    return line.strip()[:_LONGEST_LABEL].rstrip() or UNKNOWN


def _has_room(tx: Transaction, fact: Fact) -> bool:
    """Return True if the source has been counted that day, or is one of the first hundred."""
    if fact.label in (UNKNOWN, OTHER):
        return True
    row = tx.row(
        "SELECT EXISTS (SELECT FROM analytics_count WHERE workspace_id = :workspace_id"
        "  AND business_id = :business_id AND day = :day AND kind = 'customer' AND label = :label)"
        " OR (SELECT count(DISTINCT label) FROM analytics_count WHERE workspace_id = :workspace_id"
        "  AND business_id = :business_id AND day = :day AND kind = 'customer') < :most AS room",
        workspace_id=fact.workspace_id,
        business_id=fact.business_id,
        day=fact.day,
        label=fact.label,
        most=MOST_SOURCES,
    )
    return bool(row and row["room"])


def _store(tx: Transaction, fact: Fact) -> list[Change]:
    """Store the event if it is the first of its subject; return the changes to the counts.

    A worker with another event of the same subject waits here for this one's commit.
    """
    kept = {
        "workspace_id": fact.workspace_id,
        "business_id": fact.business_id,
        "kind": fact.kind,
        "subject_id": fact.subject_id,
    }
    data = {
        "event_id": fact.event_id,
        "occurred_at": fact.occurred_at,
        "day": fact.day,
        "label": fact.label,
        "amount": str(fact.amount),
    }
    counted: Change = (fact.day, fact.label, 1, fact.amount)
    if tx.run(
        "INSERT INTO analytics_event (workspace_id, business_id, kind, subject_id, event_id,"
        "  occurred_at, day, label, amount)"
        " VALUES (:workspace_id, :business_id, :kind, :subject_id, :event_id,"
        "  :occurred_at, :day, :label, CAST(:amount AS numeric))"
        " ON CONFLICT DO NOTHING",
        **kept,
        **data,
    ):
        return [counted]
    old: dict[str, Any] | None = tx.row(
        "SELECT event_id, occurred_at, day, label, amount FROM analytics_event"
        " WHERE workspace_id = :workspace_id AND business_id = :business_id AND kind = :kind"
        " AND subject_id = :subject_id FOR UPDATE",
        **kept,
    )
    if old is None:  # it was counted while the business belonged to another workspace
        raise Permanent("analytics.other_workspace")
    if (old["occurred_at"], old["event_id"]) <= (fact.occurred_at, fact.event_id):
        return []
    tx.run(
        "UPDATE analytics_event SET event_id = :event_id, occurred_at = :occurred_at, day = :day,"
        " label = :label, amount = CAST(:amount AS numeric)"
        " WHERE workspace_id = :workspace_id AND business_id = :business_id AND kind = :kind"
        " AND subject_id = :subject_id",
        **kept,
        **data,
    )
    return [(old["day"], old["label"], -1, -int(old["amount"])), counted]


def _count(tx: Transaction, fact: Fact, changes: list[Change]) -> None:
    """Add changes to the counts. All workers use the same order, so none deadlock."""
    days, labels, counts, amounts = zip(*changes, strict=True)
    tx.run(
        "INSERT INTO analytics_count AS c"
        " (workspace_id, business_id, day, kind, label, shard, count, amount)"
        " SELECT :workspace_id, :business_id, d.day, :kind, d.label, CAST(:shard AS smallint),"
        "  sum(d.count), sum(d.amount)"
        " FROM unnest(CAST(:days AS date[]), CAST(:labels AS text[]), CAST(:counts AS bigint[]),"
        "  CAST(:amounts AS numeric[])) AS d (day, label, count, amount)"
        " GROUP BY d.day, d.label ORDER BY d.day, d.label"
        " ON CONFLICT (business_id, day, kind, label, shard) DO UPDATE"
        " SET count = c.count + excluded.count, amount = c.amount + excluded.amount",
        workspace_id=fact.workspace_id,
        business_id=fact.business_id,
        kind=fact.kind,
        shard=zlib.crc32(fact.subject_id.encode()) % _SHARDS,
        days=[day.isoformat() for day in days],
        labels=list(labels),
        counts=list(counts),
        amounts=[str(amount) for amount in amounts],
    )
