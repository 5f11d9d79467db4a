"""Events as rows: added in the transaction that causes them, published after its commit.

An event is leased to the invocation that adds it, so that no transaction is open while EventBridge
is asked; the relay takes what is still there when the lease has lapsed. The row's id is the event's
id, by which consumers deduplicate. A crash between PutEvents and the UPDATE that records it, or a
call that outlives its lease, publishes a row twice, never zero times.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from kyora import aws, clock, config, trace
from kyora.aws import AwsError
from kyora.bus.names import DOMAINS
from kyora.errors import KyoraError
from kyora.ids import new_id
from kyora.observability import correlation_id, logger
from kyora.postgres import Transaction, alone, storable, transaction

BATCH = 10  # PutEvents takes no more entries at once
# EventBridge's codes for an entry that it will never accept. A missing permission is not among
# them: a deploy fixes that. (API reference, PutEventsResultEntry and the operation's errors.)
_FOR_GOOD = ("InvalidArgument", "MalformedDetail", "RedactionFailure", "ValidationException")
_TOO_LARGE = 413
_MAX_BACKOFF = 300  # seconds
_LEASE = 15  # seconds; a call of PutEvents takes three at most

type _Event = Mapping[str, Any]  # id, source, detail_type, detail (JSON)


def add(
    tx: Transaction,
    domain: str,
    name: str,
    data: Mapping[str, object],
    workspace_id: str | None,
    *,
    occurred_at: datetime | None = None,
) -> str:
    """Add event `name` of `kyora.<domain>` to the outbox; return its id.

    `occurred_at` is for what we learn late: consumers order events by it. Raises ValueError for an
    event that the catalogue does not have; in development and tests also for data that its
    consumers could not read (not in production: importing the models costs too much).
    """
    if DOMAINS.get(name) != domain:
        raise ValueError(f"the catalogue has no {name} of {domain}")
    if config.is_development():
        from kyora.bus.events import check

        check(name, data)
    event_id = new_id("evt")
    event = {
        "id": event_id,
        "source": f"kyora.{domain}",
        "detail_type": name,
        # Not escaped: a lone surrogate is refused here, before it is sent.
        "detail": json.dumps(
            envelope(event_id, data, workspace_id, occurred_at), ensure_ascii=False
        ),
    }
    tx.later(_ADD, **event)
    tx.after_commit(_publish_own, event)
    return event_id


def envelope(
    event_id: str,
    data: Mapping[str, object],
    workspace_id: str | None,
    occurred_at: datetime | None = None,
) -> dict[str, object]:
    """Return the `detail` of an event; `occurred_at` is now unless given.

    It carries the correlation id and the `traceparent` of what causes it: SQS's and EventBridge's
    own trace headers would be lost with a redrive, a copy of the message or the archive.
    """
    moment = occurred_at or clock.now()
    found = {
        "id": event_id,
        "occurredAt": moment.astimezone(UTC).isoformat(timespec="milliseconds"),
        "version": 1,
        "correlationId": correlation_id.get() or event_id,
        "data": data,
    }
    if caused_by := trace.current():
        found["traceparent"] = caused_by
    return found if workspace_id is None else found | {"workspaceId": workspace_id}


_ADD = f"""
INSERT INTO outbox (id, source, detail_type, detail, next_attempt_at)
VALUES (:id, :source, :detail_type, CAST(:detail AS jsonb), now() + interval '{_LEASE} seconds')
"""
_TAKE = f"""
WITH due AS (
    SELECT id, next_attempt_at FROM outbox WHERE published_at IS NULL AND next_attempt_at <= now()
    ORDER BY next_attempt_at, id LIMIT {BATCH} FOR UPDATE SKIP LOCKED
), taken AS (
    UPDATE outbox o SET next_attempt_at = now() + interval '{_LEASE} seconds' FROM due
    WHERE o.id = due.id
    RETURNING o.id, o.source, o.detail_type, o.detail::text AS detail, due.next_attempt_at AS since
)
SELECT id, source, detail_type, detail FROM taken ORDER BY since, id
"""
# An event that another published after its lease stays published. The condition is not IS NULL, for
# which the planner may read the index of everything that waits.
_RECORD = f"""
UPDATE outbox SET attempts = attempts + 1, last_error = f.reason, refused = f.refused,
    published_at = CASE WHEN f.reason IS NULL THEN now() END,
    -- Once published, the token is not needed here any more.
    detail = CASE WHEN f.reason IS NULL THEN detail #- '{{data,token}}' ELSE detail END,
    -- Full jitter, so that rows which failed together are not retried together.
    next_attempt_at = now() + random() * least(power(2, least(attempts + 1, 12)), {_MAX_BACKOFF})
        * interval '1 second'
FROM unnest(CAST(:ids AS text[]), CAST(:reasons AS text[]), CAST(:refused AS boolean[]))
    AS f (id, reason, refused)
WHERE outbox.id = f.id AND coalesce(outbox.published_at, 'infinity') = 'infinity'
"""


def publish() -> int:
    """Publish up to ten events that are due, and return how many were."""
    events = alone(_TAKE)
    _publish(events)
    return len(events)


def _publish(events: Sequence[_Event]) -> None:
    """Publish up to ten events, and record of each whether it is published.

    An event that EventBridge refused, or did not answer for, stays with its reason for a later
    attempt; one that it will never accept is marked `refused`, and stays until a person drops it.
    """
    if not events:
        return
    failures = _put(events)
    alone(
        _RECORD,
        ids=[str(event["id"]) for event in events],
        reasons=[failure and failure.reason for failure in failures],
        refused=[bool(failure and failure.for_good) for failure in failures],
    )
    for event, failure in zip(events, failures, strict=True):
        if failure:
            logger().warning("event not published", event_id=event["id"], reason=failure.reason)


def waiting() -> list[dict[str, Any]]:
    """Return up to fifty events that have failed and are not published: refused first, then by age.

    Without their data, which may be personal; `bytes` is its size.
    """
    with transaction() as tx:
        return tx.rows(
            "SELECT id, detail_type AS name, attempts, last_error AS error, refused,"
            " octet_length(detail::text) AS bytes,"
            " extract(epoch FROM now() - created_at)::float8 AS age"
            " FROM outbox WHERE published_at IS NULL AND attempts > 0"
            " ORDER BY refused DESC, created_at, id LIMIT 50"
        )


def drop(event_id: str) -> bool:
    """Delete an event that has failed and is not published; False when there is no such event.

    By hand only: the event's effects will not happen.
    """
    if not storable(event_id):
        return False
    with transaction() as tx:
        row = tx.row(
            "DELETE FROM outbox WHERE id = :id AND published_at IS NULL AND attempts > 0"
            " RETURNING detail_type",
            id=event_id,
        )
    if row:
        logger().warning("event dropped", event_id=event_id, event=row["detail_type"])
    return row is not None


def oldest_age() -> float:
    """Return the age in seconds of the oldest unpublished event, 0 when there is none."""
    with transaction() as tx:
        row = tx.row(
            "SELECT extract(epoch FROM now() - min(created_at))::float8 AS age"
            " FROM outbox WHERE published_at IS NULL"
        )
    return float(str(row["age"])) if row and row["age"] is not None else 0.0


def _publish_own(events: Sequence[_Event]) -> None:
    """Publish what this invocation caused at once; the relay retries what fails here."""
    try:
        for start in range(0, len(events), BATCH):
            _publish(events[start : start + BATCH])
    except KyoraError as error:
        logger().warning("events left to the relay", count=len(events), reason=error.code)


class _Failure(NamedTuple):
    reason: str
    for_good: bool = False


def _put(events: Sequence[_Event]) -> list[_Failure | None]:
    """Put events on the bus; return for each its failure, or None."""
    bus = config.bus_name()
    entries = [
        {
            "EventBusName": bus,
            "Source": event["source"],
            "DetailType": event["detail_type"],
            "Detail": event["detail"],
        }
        for event in events
    ]
    try:
        # One attempt: what fails is retried by the outbox itself.
        with trace.span("EventBridge PutEvents", trace.PRODUCER, messaging__batch=len(entries)):
            answer = aws.call("events", "PutEvents", {"Entries": entries}, attempts=1)
    except AwsError as error:
        # The whole call is refused, which one entry can cause: find it, and publish the others.
        if len(events) > 1:
            return [failure for event in events for failure in _put([event])]
        return [_refusal(error, len(str(events[0]["detail"]).encode()))]
    except KyoraError as error:
        return [_Failure(error.code)] * len(events)
    results: Any = answer.get("Entries")
    if not isinstance(results, list) or len(results) != len(events):
        return [_Failure("PutEvents answered with another number of entries")] * len(events)
    found = [entry if isinstance(entry, dict) else {} for entry in results]
    return [None if entry.get("EventId") else _failure(entry) for entry in found]


def _refusal(error: AwsError, size: int) -> _Failure:
    """Return why a call with one entry was refused: a 413 comes with an empty body."""
    if error.status == _TOO_LARGE:
        return _Failure(f"too large for EventBridge: {size} bytes (413)", for_good=True)
    if error.code in _FOR_GOOD:
        return _Failure(f"{error.code} ({size} bytes)", for_good=True)
    return _Failure(error.code if error.code != "Unknown" else f"refused with {error.status}")


def _failure(entry: Mapping[str, Any]) -> _Failure:
    code = str(entry.get("ErrorCode", "Unknown"))
    return _Failure(f"{code}: {entry.get('ErrorMessage', '')}"[:500], code in _FOR_GOOD)
