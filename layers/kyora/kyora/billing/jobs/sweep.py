"""Time-driven work: retry pending events, re-read uncertain rows, end grace periods, purge.

Every part works in small batches, skips what another worker holds, and can stop anywhere.
"""

import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple

from kyora import config, purge
from kyora.billing import access, calls, event_store
from kyora.billing.events import process, resync
from kyora.billing.jobs import reminders
from kyora.errors import ConfigError, Invalid, Unavailable
from kyora.observability import fault, logger
from kyora.postgres import transaction
from kyora.status import UNSERVED

MARGIN = 25.0  # seconds: three attempts at Stripe, of eight each
CATALOGUE = ("product", "price")
_SLOW = 5.0  # seconds that an event of a kind takes before the others of that kind wait
_BATCH = 100
_MANY = 1000  # rows at a time

type Json = dict[str, Any]


class Backlog(NamedTuple):
    """The age in seconds of the oldest waiting event; `parked`: events that failed for good.

    `unserved` counts running subscriptions that are paid for without access: those of a customer
    without a workspace, and those of a workspace at a price that is no plan's.
    """

    oldest: float
    parked: int
    unserved: int


def sweep(remaining: Callable[[], float]) -> dict[str, int]:
    """Do what is due; return how many of each. `remaining` returns the seconds left."""
    return {  # in this order: what calls Stripe may use up the time
        "graces": _graces(remaining),
        "reminders": reminders.remind(),
        "events": _events(remaining),
        "doubtful": _doubtful(remaining),
        "schedules": _schedules(remaining),
        "forgotten": purge.purge(FORGETS, remaining),
        "catalogue": _catalogue(remaining),
    }


def _events(remaining: Callable[[], float]) -> int:
    """Process the waiting events, each at most once: the fifth failure in a row marks one failed.

    A kind that proves slow is left to the next sweep, so that it does not hold up the others.
    """
    tried: list[str] = []
    aside = [*CATALOGUE]
    done = 0
    while remaining() > MARGIN and (waiting := event_store.waiting(_BATCH, tried, aside)):
        for event_id, kind in waiting:
            if remaining() < MARGIN:
                break
            if kind in aside:
                continue
            tried.append(event_id)
            began = time.monotonic()
            done += _attempt(event_id)
            if time.monotonic() - began > _SLOW:
                aside.append(kind)
    return done


def _catalogue(remaining: Callable[[], float]) -> int:
    """Process the waiting catalogue events: the first one serves them all, with one read."""
    done, tried = 0, list[str]()
    while remaining() > MARGIN and (waiting := event_store.waiting(1, tried, only=CATALOGUE)):
        [(event_id, _)] = waiting
        tried.append(event_id)
        done += _attempt(event_id)
    return done


def _attempt(event_id: str) -> bool:
    """Process a kept event; return whether it is done. Raises Unavailable without a database."""
    kept = event_store.begin(event_id)
    if kept is None:
        return False
    event, status = kept
    if status != "received":
        return status != "failed"  # another worker was first
    try:
        return process.attempt(event)
    except Unavailable as error:
        if error.code.startswith("database"):
            raise
        return False
    except Exception:  # logged and counted where it happened
        return False


def _doubtful(remaining: Callable[[], float]) -> int:
    """Read again the rows that a payload wrote during an outage, or whose plan has changed."""
    if not config.billing().stripe_api_key:
        return 0
    done, after = 0, ""
    while True:
        with transaction() as tx:
            rows = tx.rows(
                "SELECT id, customer_id FROM subscription WHERE doubtful AND id > :after"
                " ORDER BY id LIMIT :limit",
                after=after,
                limit=_BATCH,
            )
        if not rows:
            return done
        for row in rows:
            if remaining() < MARGIN:
                return done
            after = str(row["id"])
            try:
                done += _refresh(str(row["customer_id"]), after)
            except ConfigError:
                return done  # Stripe refuses our key; it is logged
            except Unavailable as error:
                if error.code != "billing.busy":
                    return done  # Stripe is unreachable: again in a minute


def _refresh(customer_id: str, subscription_id: str) -> bool:
    try:
        if resync.subscription(customer_id, subscription_id):
            return True
    except (ConfigError, Unavailable):
        raise
    except Exception as error:  # one row must not hold up the others
        logger().error(
            "subscription not refreshed", subscription_id=subscription_id, **fault(error)
        )
        return False
    # Stripe does not know it, and asking again would not help. reconcile_billing reports it.
    logger().error("subscription unknown to Stripe", subscription_id=subscription_id)
    with transaction() as tx:
        tx.run("UPDATE subscription SET doubtful = false WHERE id = :id", id=subscription_id)
    return False


def _schedules(remaining: Callable[[], float]) -> int:
    """Release the schedules whose change has begun or was overtaken, as their webhooks marked.

    Still attached, one would bar the portal for another period, or undo an upgrade at renewal.
    """
    if not config.billing().stripe_api_key:
        return 0
    with transaction() as tx:
        rows = tx.rows(
            "SELECT t.subscription_id, t.schedule_id, s.customer_id FROM subscription_terms t"
            " JOIN subscription s ON s.id = t.subscription_id WHERE t.release_due"
            " ORDER BY t.subscription_id LIMIT :limit",
            limit=_BATCH,
        )
    done = 0
    for row in rows:
        if remaining() < MARGIN:
            break
        try:
            _release(str(row["subscription_id"]), str(row["schedule_id"]))
            done += _refresh(str(row["customer_id"]), str(row["subscription_id"]))
        except (ConfigError, Unavailable):
            break  # Stripe is unreachable or refuses our key: again in a minute
    return done


def _release(subscription_id: str, schedule_id: str) -> None:
    from kyora.billing import stripe_client

    # Refused or missing: it was released or has ended meanwhile.
    with suppress(stripe_client.Refused, stripe_client.Missing):
        stripe_client.call("post", f"subscription_schedules/{schedule_id}/release")
    with transaction() as tx:
        tx.run(
            "UPDATE subscription_terms SET release_due = false"
            " WHERE subscription_id = :id AND schedule_id = :schedule",
            id=subscription_id,
            schedule=schedule_id,
        )


def _graces(remaining: Callable[[], float]) -> int:
    """End the grace periods that are over."""
    done = 0
    with transaction() as tx:
        rows = tx.rows(
            "SELECT workspace_id FROM workspace_billing"
            " WHERE access = 'grace' AND access_until <= now() ORDER BY access_until LIMIT 1000"
        )
    for row in rows:
        if remaining() < MARGIN:
            break
        workspace_id = str(row["workspace_id"])
        with transaction() as tx:
            # Lock in the order of every writer: customers, then the workspace.
            tx.rows(
                "SELECT id FROM billing_customer WHERE workspace_id = :workspace_id"
                " ORDER BY id FOR UPDATE",
                workspace_id=workspace_id,
            )
            done += access.settle(tx, workspace_id).access != "grace"
    return done


# A body is kept for replays; an orphan that old will not find its workspace.
_FORGET_BODIES = """
UPDATE stripe_event SET body = NULL,
    status = CASE WHEN status = 'orphan' THEN 'processed' ELSE status END
WHERE ctid = ANY(ARRAY(SELECT ctid FROM stripe_event WHERE body IS NOT NULL
    AND received_at < now() - interval '35 days' AND status IN ('processed', 'orphan')
    ORDER BY received_at LIMIT :limit FOR UPDATE SKIP LOCKED))
"""
_FORGET_EVENTS = """
DELETE FROM stripe_event WHERE ctid = ANY(ARRAY(SELECT ctid FROM stripe_event WHERE body IS NULL
    AND received_at < now() - interval '400 days'
    ORDER BY received_at LIMIT :limit FOR UPDATE SKIP LOCKED))
"""
# Keys of announcements that only an event triggers, and Stripe lists events for 30 days. The others
# (a subscription began or ended, an invoice was paid) follow from objects at any time: without
# their keys they would be announced again.
_FORGET_FACTS = r"""
DELETE FROM billing_fact WHERE ctid = ANY(ARRAY(SELECT ctid FROM billing_fact
    WHERE (key LIKE 'dunning:%' OR key LIKE 'trial%' OR key LIKE 'turn:%' OR key LIKE 'ahead:%')
    AND created_at < now() - interval '400 days'
    ORDER BY created_at LIMIT :limit FOR UPDATE SKIP LOCKED))
"""


def forget_bodies() -> int:
    """Delete the bodies of up to a thousand events older than 35 days; return how many."""
    with transaction() as tx:
        return tx.run(_FORGET_BODIES, limit=_MANY)


def forget_events() -> int:
    """Delete up to a thousand events older than 400 days; return how many."""
    with transaction() as tx:
        return tx.run(_FORGET_EVENTS, limit=_MANY)


def forget_facts() -> int:
    """Delete up to a thousand keys of announcements older than 400 days; return how many."""
    with transaction() as tx:
        return tx.run(_FORGET_FACTS, limit=_MANY)


FORGETS = (forget_bodies, forget_events, forget_facts, calls.forget)


def backlog() -> Backlog:
    """Return what waits, for the metrics and their alarms."""
    with transaction() as tx:
        row = tx.row(
            "SELECT (SELECT extract(epoch FROM now() - min(received_at))::float8"
            "   FROM stripe_event WHERE status = 'received') AS oldest,"
            " (SELECT count(*) FROM stripe_event WHERE status = 'failed') AS parked,"
            f" (SELECT count(*) FROM ({UNSERVED}) AS found) AS unserved"
        )
    assert row is not None  # noqa: S101  # it has no FROM
    oldest = float(str(row["oldest"] or 0))
    return Backlog(oldest, int(str(row["parked"])), int(str(row["unserved"])))


# ---- by hand

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
        outcome["done" if _attempt(event_id) else "failed"].append(event_id)
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
