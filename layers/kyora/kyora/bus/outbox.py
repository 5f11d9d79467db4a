"""Events as rows: added in the transaction that causes them, published after its commit.

The row's id is the event's id, which consumers dedupe on. A crash between PutEvents and its
record publishes a row twice, never zero times.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from kyora import aws, config
from kyora.aws import AwsError
from kyora.bus.names import DOMAINS
from kyora.errors import KyoraError
from kyora.ids import new_id
from kyora.observability import correlation_id, logger
from kyora.postgres import Transaction, transaction

BATCH = 10  # PutEvents takes no more entries at once
_MAX_BACKOFF = 300  # seconds


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

    `occurred_at` is for what is learned late: consumers decide by it what is old news.
    Raises ValueError for an event that the catalogue does not have; in development and tests also
    for data that its consumers could not read, which costs the event's model.
    """
    if DOMAINS.get(name) != domain:
        raise ValueError(f"the catalogue has no {name} of {domain}")
    if config.settings("bus").development:
        from kyora.bus.events import check

        check(name, data)
    event_id = new_id("evt")
    tx.run(
        "INSERT INTO outbox (id, source, detail_type, detail)"
        " VALUES (:id, :source, :name, CAST(:detail AS jsonb))",
        id=event_id,
        source=f"kyora.{domain}",
        name=name,
        # Letters as they are: half a surrogate pair is found before it is sent.
        detail=json.dumps(envelope(event_id, data, workspace_id, occurred_at), ensure_ascii=False),
    )
    tx.after_commit(_publish_own, event_id)
    return event_id


def envelope(
    event_id: str,
    data: Mapping[str, object],
    workspace_id: str | None,
    occurred_at: datetime | None = None,
) -> dict[str, object]:
    """Return the `detail` of an event that happens now, unless said otherwise."""
    moment = occurred_at or datetime.now(UTC)
    found = {
        "id": event_id,
        "occurredAt": moment.astimezone(UTC).isoformat(timespec="milliseconds"),
        "version": 1,
        "correlationId": correlation_id.get() or event_id,
        "data": data,
    }
    return found if workspace_id is None else found | {"workspaceId": workspace_id}


def publish(ids: Sequence[str] | None = None) -> int:
    """Publish up to ten due events (of `ids`, when given) and return how many were due.

    What EventBridge refused or did not answer stays, with its reason, for a later attempt.
    """
    with transaction() as tx:
        rows = tx.rows(
            "SELECT id, source, detail_type, detail::text AS detail, attempts FROM outbox"
            " WHERE published_at IS NULL"
            " AND (CAST(:ids AS text[]) IS NULL AND next_attempt_at <= now()"
            "      OR id = ANY(CAST(:ids AS text[])))"
            " ORDER BY next_attempt_at, id LIMIT 10 FOR UPDATE SKIP LOCKED",
            ids=None if ids is None else list(ids),
        )
        if not rows:
            return 0
        failures = _put(rows)
        tx.run(
            "UPDATE outbox SET attempts = attempts + 1, last_error = f.reason,"
            " published_at = CASE WHEN f.reason IS NULL THEN now() END,"
            # a token is for its consumer; here it is of no use any more
            " detail = CASE WHEN f.reason IS NULL THEN detail #- '{data,token}' ELSE detail END,"
            # full jitter, so that rows which failed together do not come back together
            " next_attempt_at = now() + random() * least(power(2, least(attempts + 1, 12)),"
            f" {_MAX_BACKOFF}) * interval '1 second'"
            " FROM unnest(CAST(:ids AS text[]), CAST(:reasons AS text[])) AS f (id, reason)"
            " WHERE outbox.id = f.id",
            ids=[str(row["id"]) for row in rows],
            reasons=failures,
        )
    for row, reason in zip(rows, failures, strict=True):
        if reason:
            logger().warning("event not published", event_id=row["id"], reason=reason)
    return len(rows)


def forget() -> int:
    """Delete up to a thousand events that were published a week ago; return how many.

    The archive keeps them; this table stays as small as what is recent.
    """
    with transaction() as tx:
        return tx.run(
            "DELETE FROM outbox WHERE ctid = ANY(ARRAY(SELECT ctid FROM outbox"
            " WHERE published_at < now() - interval '7 days' ORDER BY published_at LIMIT 1000"
            " FOR UPDATE SKIP LOCKED))"
        )


def oldest_age() -> float:
    """Return the age in seconds of the oldest unpublished event, 0 when there is none."""
    with transaction() as tx:
        row = tx.row(
            "SELECT extract(epoch FROM now() - min(created_at))::float8 AS age"
            " FROM outbox WHERE published_at IS NULL"
        )
    return float(str(row["age"])) if row and row["age"] is not None else 0.0


def _publish_own(ids: Sequence[str]) -> None:
    """Publish at once what this invocation caused; the relay does what fails here."""
    try:
        for start in range(0, len(ids), BATCH):
            publish(ids[start : start + BATCH])
    except KyoraError as error:
        logger().warning("events left to the relay", count=len(ids), reason=error.code)


def _put(rows: Sequence[Mapping[str, Any]]) -> list[str | None]:
    """Put the rows on the bus; return for each the reason of its failure, or None."""
    bus = config.settings("bus").bus_name
    entries = [
        {
            "EventBusName": bus,
            "Source": row["source"],
            "DetailType": row["detail_type"],
            "Detail": row["detail"],
        }
        for row in rows
    ]
    try:
        # One attempt: what fails is retried by the outbox itself.
        answer = aws.call("events", "PutEvents", {"Entries": entries}, attempts=1)
    except AwsError as error:
        # The call as a whole is refused, which one entry can bring about: it alone has to wait.
        if len(rows) > 1:
            return [reason for row in rows for reason in _put([row])]
        return [error.code]
    except KyoraError as error:
        return [error.code] * len(rows)
    results: Any = answer.get("Entries")
    if not isinstance(results, list) or len(results) != len(rows):
        return ["PutEvents answered with another number of entries"] * len(rows)
    found = [entry if isinstance(entry, dict) else {} for entry in results]
    return [None if entry.get("EventId") else _reason(entry) for entry in found]


def _reason(entry: Mapping[str, Any]) -> str:
    return f"{entry.get('ErrorCode', 'Unknown')}: {entry.get('ErrorMessage', '')}"[:500]
