"""Time-driven work: retry pending events, re-read uncertain rows, end grace periods, remind.

Every part works in small batches, skips what another worker holds, and can stop anywhere.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from kyora import config
from kyora.billing import access, event_store
from kyora.billing.events import process, resync
from kyora.billing.jobs import reminders
from kyora.errors import ConfigError, Unavailable
from kyora.observability import fault, logger
from kyora.postgres import transaction
from kyora.status import UNSERVED

MARGIN = 25.0  # seconds: three attempts at Stripe, of eight each
CATALOGUE = ("product", "price")
_SLOW = 5.0  # seconds that an event of a kind takes before the others of that kind wait
_BATCH = 100


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
            done += process.resume(event_id)
            if time.monotonic() - began > _SLOW:
                aside.append(kind)
    return done


def _catalogue(remaining: Callable[[], float]) -> int:
    """Process the waiting catalogue events: the first one serves them all, with one read."""
    done, tried = 0, list[str]()
    while remaining() > MARGIN and (waiting := event_store.waiting(1, tried, only=CATALOGUE)):
        [(event_id, _)] = waiting
        tried.append(event_id)
        done += process.resume(event_id)
    return done


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
