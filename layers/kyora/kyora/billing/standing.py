"""What a workspace may do, as it follows from the mirrored subscriptions.

    trialing, active                              full
    past_due                                      grace for `billing.grace_days`, then free
    incomplete                                    what it was without it
    unpaid, paused, canceled, incomplete_expired  free
    anything else                                 what it was: an unknown status changes nothing

Nothing here depends on which event came first: the same mirror gives the same answer.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from kyora import config, limits
from kyora.billing import facts
from kyora.billing.normalise import STATUSES
from kyora.postgres import Transaction

_RANKS = {"active": 3, "trialing": 3, "past_due": 2, "unpaid": 1, "paused": 1}
_FULL = ("active", "trialing")

type Row = Mapping[str, Any]


class Standing(NamedTuple):
    """What applies to a workspace; the free plan's limits are the database's to say."""

    access: str
    status: str = "free"
    plan_id: str | None = None
    subscription_id: str | None = None
    access_until: datetime | None = None
    limits: Mapping[str, int] | None = None


def choose(subscriptions: Sequence[Row], now: datetime, grace_days: int) -> Standing:
    """Decide which of a workspace's subscriptions counts, and what it gives.

    A row has `id, status, period_start, period_end, began_at, cancel_at, unpaid_since, plan_id`
    and its plan's `limits`; those that are over are not among them.
    """
    judged = [(_judge(row, now, grace_days), row) for row in subscriptions]
    if not judged:
        return Standing("free")
    return max(judged, key=lambda pair: _weight(*pair))[0]


def _judge(row: Row, now: datetime, grace_days: int) -> Standing:
    status = str(row["status"])
    shown = Standing("free", status, None, row["id"])
    if row["limits"] is None:  # its price is none of our plans'
        return shown
    if status in _FULL:
        return shown._replace(
            access="full",
            plan_id=row["plan_id"],
            limits=row["limits"],
            access_until=row["cancel_at"],
        )
    if status == "past_due":
        # Stripe has begun the period that was not paid for: grace counts from the unpaid invoice.
        since = row["unpaid_since"] or row["period_start"] or row["began_at"]
        until = since + timedelta(days=grace_days)
        if until > now:
            return shown._replace(
                access="grace", plan_id=row["plan_id"], limits=row["limits"], access_until=until
            )
    return shown


def _weight(standing: Standing, row: Row) -> tuple[bool, int, float, float, str]:
    ends = (row["period_end"] or row["began_at"]).timestamp()
    rank = _RANKS.get(standing.status, 0)
    return (
        standing.access != "free",
        rank,
        ends,
        row["began_at"].timestamp(),
        str(row["id"]),
    )


_SUBSCRIPTIONS = """
SELECT s.id, s.status, s.period_start, s.period_end, s.began_at, s.cancel_at, s.plan_id,
    p.limits, (SELECT min(i.created_at) FROM invoice i WHERE i.subscription_id = s.id
        AND i.status = 'open' AND i.attempt_count > 0) AS unpaid_since
FROM billing_customer c JOIN subscription s ON s.customer_id = c.id
LEFT JOIN plan p ON p.id = s.plan_id
WHERE c.workspace_id = :workspace_id AND s.status NOT IN ('canceled', 'incomplete_expired')
"""

_LOCKED = """
SELECT b.*, f.id AS free_id, f.name AS free_name, f.limits AS free_limits
FROM workspace_billing b, free_plan f WHERE b.workspace_id = :workspace_id FOR UPDATE OF b
"""
_SETTLED = """
UPDATE workspace_billing SET plan_id = :plan_id, access = :access, access_until = :access_until,
    limits = CAST(:limits AS jsonb), subscription_id = :subscription_id, status = :status,
    updated_at = now()
WHERE workspace_id = :workspace_id
RETURNING (SELECT name FROM plan WHERE id = :plan_id) AS plan_name
"""
_COLUMNS = ("plan_id", "access", "access_until", "limits", "subscription_id", "status")


def settle(tx: Transaction, workspace_id: str, *, quiet: bool = False) -> Standing:
    """Bring a workspace's row up to date and announce a change of plan, access or status.

    The row is locked before anything is read: two customers of one workspace (one of them
    deleted) see each other. `quiet` when the same transaction tells the change in its own words.
    """
    old = tx.row(_LOCKED, workspace_id=workspace_id)
    if old is None:
        limits.lock(tx, workspace_id)  # it makes the row
        old = tx.row(_LOCKED, workspace_id=workspace_id) or {}
    rows = tx.rows(_SUBSCRIPTIONS, workspace_id=workspace_id)
    standing = choose(rows, datetime.now(UTC), config.settings("billing").grace_days)
    wanted = standing._asdict() | {
        "plan_id": standing.plan_id or old["free_id"],
        "limits": standing.limits or old["free_limits"],
    }
    if all(wanted[name] == old[name] for name in _COLUMNS):
        return standing
    changed = tx.row(
        _SETTLED,
        workspace_id=workspace_id,
        **wanted | {"limits": json.dumps(wanted["limits"])},
    )
    told = ("plan_id", "access", "status")
    if not quiet and standing.subscription_id and any(wanted[name] != old[name] for name in told):
        data = {
            "subscriptionId": standing.subscription_id,
            "planId": wanted["plan_id"],
            "planName": (changed or {}).get("plan_name") or old["free_name"],
            "status": standing.status,
            "previousPlanId": old["plan_id"] if old["plan_id"] != wanted["plan_id"] else None,
            "accessUntil": standing.access_until,
        }
        facts.tell(tx, "SubscriptionChanged", data, workspace_id)
    return standing


def known(status: str) -> bool:
    """Tell whether we know what a status means."""
    return status in STATUSES
