"""By hand (`make replay`): process kept Stripe events again."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from kyora.billing.events import process
from kyora.billing.jobs.sweep import MARGIN
from kyora.errors import Invalid
from kyora.postgres import transaction

_MANY = 1000  # rows at a time

type Json = dict[str, Any]

# Each part has its own index; all but one find nothing.
_CHOSEN = """
SELECT id, body IS NULL AS bare, status FROM stripe_event WHERE id = :event
UNION SELECT id, body IS NULL, status FROM stripe_event
    WHERE CAST(:failed AS boolean) AND status = 'failed'
UNION SELECT id, body IS NULL, status FROM stripe_event
    WHERE received_at >= CAST(:since AS timestamptz)
"""
_REOPEN = f"""
UPDATE stripe_event SET status = 'received', attempts = 0, tried_at = NULL
WHERE id IN (SELECT id FROM ({_CHOSEN}) AS chosen
    WHERE NOT bare AND id COLLATE "C" > :after ORDER BY id COLLATE "C" LIMIT :limit)
RETURNING id, created
"""
_GONE = f"""
SELECT count(*) FROM ({_CHOSEN}) AS chosen WHERE bare AND status <> 'ignored'
"""


def replay(asked: object, remaining: Callable[[], float]) -> Json:
    """Process events again: `{"event": "evt_…"}`, `{"failed": true}` or `{"since": "2026-11-25"}`.

    An event does not repeat its effects. Returns the ids `done` and `failed`, and how many are
    `left` to the sweep; `gone` counts those whose body was deleted. Raises Invalid.
    """
    chosen = _choice(asked)
    rows = _reopen(chosen)
    outcome: dict[str, list[str]] = {"done": [], "failed": []}
    tried = 0
    for _, event_id in sorted(rows):
        if remaining() < MARGIN:
            break
        tried += 1
        outcome["done" if process.resume(event_id) else "failed"].append(event_id)
    return {**outcome, "left": len(rows) - tried, "gone": _gone(chosen)}


def _choice(asked: object) -> dict[str, Any]:
    """Return the parameters of `_CHOSEN`. Raises Invalid unless exactly one choice is given."""
    given = asked if isinstance(asked, Mapping) else {}
    given = {name: value for name, value in given.items() if value not in (None, "", False)}
    chosen: dict[str, Any] = {"event": None, "failed": False, "since": None}
    match given:
        case {"event": str(event_id), **rest} if not rest:
            if not re.fullmatch(r"evt_[A-Za-z0-9_]{1,250}", event_id):
                raise Invalid("`event` is an id of Stripe's: evt_…")
            return chosen | {"event": event_id}
        case {"failed": True, **rest} if not rest:
            return chosen | {"failed": True}
        case {"since": str(text), **rest} if not rest:
            try:
                since = datetime.fromisoformat(text)
            except ValueError:
                raise Invalid("`since` is a date or a time: 2026-11-25T06:00:00Z") from None
            return chosen | {"since": since if since.tzinfo else since.replace(tzinfo=UTC)}
    raise Invalid("Give one of `event`, `failed` and `since`.")


def _reopen(chosen: Mapping[str, Any]) -> list[tuple[int, str]]:
    """Reopen the chosen events, a thousand at a time; return (created, id) of each."""
    found: list[tuple[int, str]] = []
    after = ""
    while True:
        with transaction() as tx:
            rows = tx.rows(_REOPEN, **chosen, after=after, limit=_MANY)
        if not rows:
            return found
        after = max(str(row["id"]) for row in rows)
        found += [(int(str(row["created"])), str(row["id"])) for row in rows]


def _gone(chosen: Mapping[str, Any]) -> int:
    with transaction() as tx:
        return tx.value(int, _GONE, **chosen) or 0
