"""Stripe's events as rows: kept before anything is done about them, done once.

    received ─┬─► processed   done, with its effects, in one transaction
              ├─► orphan      done as far as can be: nobody's customer, yet
              └─► failed      five attempts: a person has to look (`make replay`)
    ignored                   of a type that nothing here is for

T1 and T2 are two transactions on purpose: in one, a bug would roll the only copy back; marked
first and worked on later, a crash would lose the event. What suppresses a repetition is
`processed`, and that commits with the effects.
"""

import json
from collections.abc import Sequence
from typing import Any, Literal

from kyora.billing import normalise
from kyora.billing.normalise import Event
from kyora.postgres import Transaction, transaction

PATIENCE = 5  # attempts before an event is parked
Source = Literal["webhook", "eventbridge", "reconcile"]

type Row = dict[str, Any]


def keep(event: Event, body: str, source: Source, *, wanted: bool) -> str:
    """Keep an event and return what is to be done: its status, `received` for a new one.

    This is T1: when it returns, the event cannot get lost any more.
    """
    with transaction() as tx:
        row = tx.row(
            "WITH fresh AS (INSERT INTO stripe_event (id, type, api_version, created, object_id,"
            "   customer_id, source, body, status)"
            "  VALUES (:id, :type, :version, :created, :object, :customer, :source, :body, :status)"
            "  ON CONFLICT DO NOTHING RETURNING status)"
            " SELECT status FROM fresh"
            " UNION ALL SELECT status FROM stripe_event WHERE id = :id",
            id=event.id,
            type=event.type,
            version=event.api_version or None,
            created=event.created,
            object=normalise.object_of(event),
            customer=normalise.customer_of(event),
            source=source,
            body=body if wanted else None,
            status="received" if wanted else "ignored",
        )
    # A row that another delivery wrote in the same moment is not seen by either half.
    return str(row["status"]) if row else "received"


def load(event_id: str) -> tuple[Event, str] | None:
    """Return a kept event and its status, or None when it or its body is gone."""
    with transaction() as tx:
        row = tx.row("SELECT body, status FROM stripe_event WHERE id = :id", id=event_id)
    if row is None or row["body"] is None:
        return None
    found = normalise.event(json.loads(str(row["body"])))
    return (found, str(row["status"])) if found else None


def done(tx: Transaction, event_id: str, status: Literal["processed", "orphan"]) -> None:
    """Mark an event as done, in the transaction that holds its effects."""
    tx.run(
        "UPDATE stripe_event SET status = :status, processed_at = now(), last_error = NULL,"
        " attempts = attempts + 1 WHERE id = :id",
        id=event_id,
        status=status,
    )


def failed(event_id: str, why: str, *, counts: bool) -> bool:
    """Note an attempt that failed; True when that was the last one and the event is parked.

    What a dependency is to blame for does not park an event, however often it happens.
    """
    with transaction() as tx:
        row = tx.row(
            "UPDATE stripe_event SET attempts = attempts + 1, last_error = :why,"
            " status = CASE WHEN :counts AND attempts + 1 >= :patience THEN 'failed'"
            "   ELSE status END"
            " WHERE id = :id AND status = 'received' RETURNING status",
            id=event_id,
            why=why[:200],
            counts=counts,
            patience=PATIENCE,
        )
    return row is not None and row["status"] == "failed"


def waiting(limit: int = 50, tried: Sequence[str] = ()) -> list[str]:
    """Return the oldest events that should have been done two minutes ago, but those `tried`.

    One that was done before is opened again on purpose: it does not wait.
    """
    with transaction() as tx:
        rows = tx.rows(
            "SELECT id FROM stripe_event WHERE status = 'received'"
            " AND (received_at < now() - interval '2 minutes' OR processed_at IS NOT NULL)"
            " AND NOT id = ANY(CAST(:tried AS text[])) ORDER BY attempts, received_at LIMIT :limit",
            tried=list(tried),
            limit=limit,
        )
    return [str(row["id"]) for row in rows]


def reopen(tx: Transaction, customer_id: str) -> int:
    """Have the events of a customer done again whose workspace has only now become known."""
    return tx.run(
        "UPDATE stripe_event SET status = 'received', attempts = 0"
        " WHERE customer_id = :customer AND status = 'orphan'",
        customer=customer_id,
    )
