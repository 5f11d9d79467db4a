"""Events: each with its payload, and where each of its consumers stands."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from kyora.bus.names import DOMAINS
from kyora.invariants import WANTS_VARIANTS
from local.settings import Settings
from local.web.console import consumers, invocations, sources
from local.web.console.invocations import Record

_LISTED = 100
_EVENTS = f"""
select id, detail_type as type, source, detail ->> 'workspaceId' as workspace,
       detail ->> 'correlationId' as correlation, detail ->> 'occurredAt' as "occurredAt",
       created_at as at, published_at as published, attempts, last_error as error, refused,
       {WANTS_VARIANTS}
from outbox
where (cast(:type as text) is null or detail_type = :type)
  and (cast(:text as text) is null or strpos(detail::text, :text) > 0)
  and (cast(:id as text) is null or id = :id)
order by created_at desc, id desc limit :most
"""
_SEEN = (
    "select consumer, event_id as event, received_at as at from inbox where event_id = any(:ids)"
)
_MAILS = """
select id, event_id as event, template, status, reason, attempts, next_attempt_at as again
from email_message where event_id = any(:ids) order by created_at
"""


def listed(stack: Settings, record: Record, asked: Mapping[str, str]) -> dict[str, Any]:
    """Return the newest events: of a `type`, holding a `text`."""
    with sources.database(stack) as reader:
        found = reader.rows(
            _EVENTS,
            type=asked.get("type") or None,
            text=asked.get("text") or None,
            id=None,
            most=_LISTED,
        )
        faults = _stand(stack, reader, record, found)
    return {"events": found, "types": sorted(DOMAINS), "faults": faults}


def one(stack: Settings, record: Record, event_id: str) -> dict[str, Any] | None:
    """Return an event with its payload; None when it is not in the outbox any more."""
    with sources.database(stack) as reader:
        found = reader.rows(_EVENTS, type=None, text=None, id=event_id, most=1)
        if not found:
            return None
        [payload] = reader.rows("select detail from outbox where id = :id", id=event_id)
        faults = _stand(stack, reader, record, found)
    return {**found[0], "detail": payload["detail"], "faults": faults}


def _stand(
    stack: Settings, reader: sources.Reader, record: Record, events: Sequence[dict[str, Any]]
) -> list[str]:
    """Add to each event where its consumers stand; return what could not be read."""
    ids, faults = [event["id"] for event in events], list[str]()
    seen = {(row["consumer"], row["event"]): row["at"] for row in reader.rows(_SEEN, ids=ids)}
    mails: dict[str, list[dict[str, Any]]] = {}
    for row in reader.rows(_MAILS, ids=ids):
        mails.setdefault(row.pop("event"), []).append(row)
    letters: dict[tuple[str, str], dict[str, Any]] = {}
    try:
        for queue, waiting in sources.messages(stack).items():
            for letter in waiting:
                letters[queue, event_of(letter["Body"])] = letter
    except sources.Fault as fault:
        faults.append(str(fault))
    deliveries: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for line in record.read():
        for message in invocations.messages(line):
            event_id = str((message.get("detail") or {}).get("id", ""))
            key = invocations.folder(line["function"]), event_id
            deliveries.setdefault(key, []).append(invocations.summary(line))
    for event in events:
        event["consumers"] = [
            _standing(
                event,
                consumer,
                seen.get((consumer.function, event["id"])),
                mails.get(event["id"], []) if consumer.function == "send_email" else [],
                letters.get((consumer.queue, event["id"])),
                letters.get((f"{consumer.queue}-dead", event["id"])),
                deliveries.get((consumer.function, event["id"]), []),
            )
            for consumer in consumers.by_event().get(event["type"], [])
            if consumer.takes({"variants": event["variants"]})
        ]
    return faults


def _standing(  # each is a place where an event can be
    event: Mapping[str, Any],
    consumer: consumers.Consumer,
    seen: str | None,
    mails: list[dict[str, Any]],
    waiting: Mapping[str, Any] | None,
    dead: Mapping[str, Any] | None,
    deliveries: list[dict[str, Any]],
) -> dict[str, Any]:
    """Say where one consumer stands with an event: the worst that is true of it."""
    if event["published"] is None:
        state, tone = (
            ("refused by the bus", "bad") if event["refused"] else ("in the outbox", "warn")
        )
    elif dead:
        state, tone = "dead letter", "bad"
    elif waiting:
        times = int(waiting["ReceiveCount"])
        state, tone = (f"queued, tried {times} times" if times else "queued"), "warn"
    elif mails:
        state, tone = _mail(mails)
    elif seen or deliveries:
        state, tone = "done", "good"
    else:
        # Its message left the queue before this console began to record.
        state, tone = "delivered", ""
    return {
        "function": consumer.function,
        "queue": consumer.queue,
        "state": state,
        "tone": tone,
        "seen": seen,
        "mails": mails,
        "message": dead["MessageId"] if dead else None,
        "deliveries": deliveries,
    }


_BAD_MAIL = {"dead", "failed", "bounced", "complained"}


def _mail(mails: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    states = sorted({mail["status"] for mail in mails})
    bad = any(state in _BAD_MAIL for state in states)
    done = all(state in {"sent", "delivered"} for state in states)
    return f"mail {', '.join(states)}", "bad" if bad else "good" if done else "warn"


def event_of(body: str) -> str:
    """Return the id of the event in a message; empty when it cannot be read."""
    try:
        found = json.loads(body)["detail"]["id"]
    except (ValueError, KeyError, TypeError):
        return ""
    return found if isinstance(found, str) else ""
