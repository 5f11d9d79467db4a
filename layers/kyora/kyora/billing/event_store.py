"""Stripe's events as rows: stored before they are processed, processed once.

    received ─┬─► processed   with its effects, in one transaction
              ├─► orphan      as far as possible: its customer has no workspace yet
              └─► failed      five attempts: a person has to look (`make replay`)
    ignored                   of a type that nothing handles

T1 and T2 are two transactions on purpose: in one, a bug would roll back the only copy; marked
first and processed later, a crash would lose the event. `processed` is what suppresses a repeated
delivery, and it commits with the effects.

An attempt counts from its beginning, in T1. A worker that is killed leaves `tried_at` set: the
fifth attempt that ends like that is the last, as is the fifth that fails.
"""

import json
from collections.abc import Sequence
from typing import Any, Literal

from kyora.billing import stripe_objects
from kyora.billing.stripe_objects import Event
from kyora.observability import correlation_id
from kyora.postgres import Transaction, alone, transaction

MAX_ATTEMPTS = 5  # before an event counts as failed
Source = Literal["webhook", "eventbridge", "reconcile"]

type Row = dict[str, Any]


_CAUSE = "status, correlation_id, traceparent"
# A worker lives for 55 seconds at most: an older attempt without an outcome was killed.
_BEGUN = f"""
attempts = attempts + 1, tried_at = now(),
    status = CASE WHEN attempts >= {MAX_ATTEMPTS} AND tried_at < now() - interval '60 seconds'
        THEN 'failed' ELSE status END,
    last_error = CASE WHEN tried_at < now() - interval '60 seconds' THEN 'killed'
        ELSE last_error END
"""


_KEEP = """
INSERT INTO stripe_event (id, type, api_version, created, object_id, customer_id, source, body,
    status, attempts, tried_at, request_id, correlation_id, traceparent)
SELECT :id, :type, :version, :created, :object, :customer, :source, :body, :status, :begun,
    CASE WHEN :begun = 1 THEN now() END, :request, coalesce(call.correlation_id, :origin, :own),
    CASE WHEN call.correlation_id IS NULL THEN :traceparent ELSE call.traceparent END
FROM (SELECT) AS one LEFT JOIN stripe_call call ON call.request_id = :request
ON CONFLICT DO NOTHING RETURNING id
"""
_KEPT = f"SELECT {_CAUSE} FROM stripe_event WHERE id = :id"


def keep(
    event: Event, body: str, source: Source, *, wanted: bool, begin: bool = False
) -> tuple[Event, str]:
    """Keep an event; return it with what caused it, and its status, `received` for a new one.

    This is T1: once it returns, the event cannot be lost. With `begin` an attempt begins as well.
    Only an event that was kept before and still waits takes a second round trip.
    """
    values: dict[str, object] = {
        "id": event.id,
        "type": event.type,
        "version": event.api_version or None,
        "created": event.created,
        "object": event.object_id,
        "customer": event.customer_id,
        "source": source,
        "body": body if wanted else None,
        "status": "received" if wanted else "ignored",
        "begun": int(wanted and begin),
        "request": event.request_id or None,
        "origin": event.correlation_id or None,
        "traceparent": event.traceparent or None,
        "own": correlation_id.get() or None,
    }
    with transaction() as tx:
        fresh, rows = tx.end_with((_KEEP, values), (_KEPT, {"id": event.id}))
    if not fresh and wanted and begin and rows and rows[0]["status"] == "received":
        rows = _begin(event.id)
    return (_caused(event, rows[0]), str(rows[0]["status"])) if rows else (event, "received")


def begin(event_id: str) -> tuple[Event, str] | None:
    """Begin an attempt at a kept event; return it and its status, or None without a body."""
    rows = _begin(event_id)
    return _kept(rows[0] if rows else None)


def _begin(event_id: str) -> list[Row]:
    """Begin an attempt at an event that is to be processed; return its row, also of another."""
    return alone(
        f"WITH begun AS (UPDATE stripe_event SET {_BEGUN}"
        f"  WHERE id = :id AND status = 'received' RETURNING body, {_CAUSE})"
        f" SELECT body, {_CAUSE} FROM begun"
        f" UNION ALL SELECT body, {_CAUSE} FROM stripe_event WHERE id = :id",
        id=event_id,
    )


def load(event_id: str) -> tuple[Event, str] | None:
    """Return a kept event and its status, or None when it or its body is gone."""
    with transaction() as tx:
        row = tx.row(f"SELECT body, {_CAUSE} FROM stripe_event WHERE id = :id", id=event_id)
    return _kept(row)


def kept_of(tx: Transaction, object_id: str, kind: str) -> list[Event]:
    """Return the events of one type about an object whose bodies are still kept."""
    rows = tx.rows(
        f"SELECT body, {_CAUSE} FROM stripe_event WHERE object_id = :object AND type = :kind"
        " AND body IS NOT NULL ORDER BY created, id",
        object=object_id,
        kind=kind,
    )
    return [found[0] for row in rows if (found := _kept(row))]


def _kept(row: Row | None) -> tuple[Event, str] | None:
    if row is None or row["body"] is None:
        return None
    found = stripe_objects.event(json.loads(str(row["body"])))
    return (_caused(found, row), str(row["status"])) if found else None


def _caused(event: Event, row: Row) -> Event:
    """Return the event with what caused it, as far as its row knows."""
    correlation, caused_by = str(row["correlation_id"] or ""), str(row["traceparent"] or "")
    return event._replace(correlation_id=correlation, traceparent=caused_by)


# Of a processed event, beside its status.
DONE = "processed_at = now(), last_error = NULL, tried_at = NULL, next_at = NULL"


def orphaned(tx: Transaction, event_id: str) -> None:
    """Mark a processed event as an orphan, in the transaction that holds its effects."""
    tx.later("UPDATE stripe_event SET status = 'orphan' WHERE id = :id", id=event_id)


def all_done(tx: Transaction, event_ids: Sequence[str]) -> None:
    """Mark the events as processed that one read of the catalogue was for."""
    tx.run(
        f"UPDATE stripe_event SET status = 'processed', {DONE}"
        " WHERE id = ANY(CAST(:ids AS text[])) AND status = 'received'",
        ids=list(event_ids),
    )


def failed(event_id: str, why: str, *, counts: bool) -> bool:
    """Record a failed attempt; True when it was the last one and the event is marked failed.

    `counts` is False when a dependency is to blame: that never parks an event.
    """
    with transaction() as tx:
        row = tx.row(
            "UPDATE stripe_event SET last_error = :why, tried_at = NULL,"
            " next_at = now() + make_interval(secs => least(60, 2 ^ attempts)),"
            " status = CASE WHEN :counts AND attempts >= :most THEN 'failed' ELSE status END"
            " WHERE id = :id AND status = 'received' RETURNING status",
            id=event_id,
            why=why[:200],
            counts=counts,
            most=MAX_ATTEMPTS,
        )
    return row is not None and row["status"] == "failed"


# The type without what happened: `customer.subscription` of `customer.subscription.updated`.
KIND = r"regexp_replace(type, '\.[^.]*$', '')"
_WAITING = rf"""
SELECT id, kind FROM (
    SELECT id, kind, attempts, received_at,
        row_number() OVER (PARTITION BY kind ORDER BY attempts, received_at) AS place
    FROM (SELECT *, {KIND} AS kind FROM stripe_event WHERE status = 'received') AS open
    WHERE (received_at < now() - interval '2 minutes' OR processed_at IS NOT NULL
        OR next_at <= now())
    AND NOT id = ANY(CAST(:tried AS text[])) AND NOT kind = ANY(CAST(:but AS text[]))
    AND (CAST(:only AS text[]) IS NULL OR kind = ANY(CAST(:only AS text[])))
) AS due
ORDER BY place, attempts, received_at LIMIT :limit
"""


def waiting(
    limit: int = 50,
    tried: Sequence[str] = (),
    but: Sequence[str] = (),
    only: Sequence[str] | None = None,
) -> list[tuple[str, str]]:
    """Return (id, kind) of events that are due, without those `tried` and the kinds `but`.

    An event is due after two minutes, when its next attempt is, or at once when it was reopened.
    The kinds alternate, so one that is slow or comes in thousands holds up no other.
    """
    with transaction() as tx:
        rows = tx.rows(
            _WAITING,
            tried=list(tried),
            but=list(but),
            only=None if only is None else list(only),
            limit=limit,
        )
    return [(str(row["id"]), str(row["kind"])) for row in rows]


def reopen(tx: Transaction, customer_id: str) -> int:
    """Reopen the orphaned events of a customer whose workspace has become known."""
    return tx.run(
        "UPDATE stripe_event SET status = 'received', attempts = 0, tried_at = NULL"
        " WHERE customer_id = :customer AND status = 'orphan'",
        customer=customer_id,
    )


def reopened(customers: Sequence[str]) -> list[str]:
    """Return the reopened events of customers, the oldest first."""
    with transaction() as tx:
        rows = tx.rows(
            "SELECT id FROM stripe_event WHERE status = 'received' AND processed_at IS NOT NULL"
            " AND customer_id = ANY(CAST(:customers AS text[])) ORDER BY created, id LIMIT 100",
            customers=list(customers),
        )
    return [str(row["id"]) for row in rows]
