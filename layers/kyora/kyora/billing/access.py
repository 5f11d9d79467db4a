"""What a workspace may do, as it follows from the mirrored subscriptions.

    trialing, active                              full
    past_due, paused as a payment failed          grace for `billing.grace_days`, then free
    incomplete                                    what it was without it
    unpaid, paused, canceled, incomplete_expired  free
    anything else                                 what it was: an unknown status changes nothing

    at a price of no plan       the last plan, in grace from then on; without one nothing
    of quantity 0               nothing: nothing is paid for
    with `pause_collection`     as its status says: only the owner of the Stripe account, or the
                                workspace through us, waives payments

Of several subscriptions the best plan counts: its limits, then what it costs. Nothing here depends
on which event came first: the same mirror gives the same answer.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from kyora import config, limits
from kyora.billing import announce, plan_order, stripe_objects
from kyora.billing.stripe_objects import STATUSES
from kyora.observability import logger
from kyora.postgres import Transaction

_RANKS = {"active": 3, "trialing": 3, "past_due": 2, "unpaid": 1, "paused": 1}
_ACCESS = {"free": 0, "grace": 1, "full": 2}
_FULL = ("active", "trialing")

type Row = Mapping[str, Any]


class Standing(NamedTuple):
    """What applies to a workspace; the free plan's limits are the database's to say.

    `rule` says in words which line of the table above decided.
    """

    access: str
    status: str = "free"
    plan_id: str | None = None
    subscription_id: str | None = None
    access_until: datetime | None = None
    limits: Mapping[str, int] | None = None
    rule: str = "no subscription"


def choose(subscriptions: Sequence[Row], now: datetime, grace_days: int) -> Standing:
    """Decide which of a workspace's subscriptions counts, and what it gives.

    A row has `id, status, payment_failed, quantity, began_at, cancel_at, grace_since,
    unplanned_since, plan_id` and its plan's `limits, amount, interval, interval_count`; those that
    are over are not among them.
    """
    judged = [(_judge(row, now, grace_days), row) for row in subscriptions]
    if not judged:
        return Standing("free")
    return max(judged, key=lambda pair: _weight(*pair))[0]


def _judge(row: Row, now: datetime, grace_days: int) -> Standing:
    status = str(row["status"])
    none = Standing("free", status, None, row["id"])
    if row["limits"] is None:
        return none._replace(rule="its price is no plan's")
    if row["quantity"] == 0:
        return none._replace(rule="its quantity is 0")
    given = none._replace(
        plan_id=row["plan_id"], limits=row["limits"], access_until=row["cancel_at"]
    )
    since = []
    if stripe_objects.failing(status, payment_failed=row["payment_failed"]):
        since.append(("its payment failed", row["grace_since"] or row["began_at"]))
    elif status not in _FULL:
        return none._replace(rule=f"it is {status}")
    if row["unplanned_since"]:
        since.append(("its price is no plan's", row["unplanned_since"]))
    if not since:
        return given._replace(access="full", rule=f"it is {status}")
    why, begun = min(since, key=lambda one: one[1])
    until = begun + timedelta(days=grace_days)
    if until <= now:
        return none._replace(rule=f"{why} and the grace period is over")
    return given._replace(access="grace", access_until=until, rule=f"{why}, in the grace period")


def _weight(standing: Standing, row: Row) -> tuple[Any, ...]:
    """Order what subscriptions give; of those that give nothing, the one nearest to it is shown."""
    return (
        standing.access != "free",
        plan_order.worth(row) if standing.limits else (),
        _ACCESS[standing.access],
        _RANKS.get(standing.status, 0),
        plan_order.worth(row) if row["limits"] else (),
        row["began_at"],
        str(row["id"]),
    )


_SUBSCRIPTIONS = """
SELECT s.id, s.status, s.payment_failed, s.quantity, s.began_at, s.cancel_at, s.grace_since,
    s.unplanned_since, s.plan_id, p.limits, p.amount, p.interval, p.interval_count
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
    standing = choose(rows, datetime.now(UTC), config.billing().grace_days)
    wanted = {name: getattr(standing, name) for name in _COLUMNS} | {
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
    if all(wanted[name] == old[name] for name in ("plan_id", "access", "status")):
        return standing
    logger().info(
        "access decided",
        workspace_id=workspace_id,
        old=f"{old['access']} {old['plan_id']}",
        new=f"{standing.access} {wanted['plan_id']}",
        subscription_id=standing.subscription_id,
        rule=standing.rule,
    )
    if not quiet and standing.subscription_id:
        data = {
            "subscriptionId": standing.subscription_id,
            "planId": wanted["plan_id"],
            "planName": (changed or {}).get("plan_name") or old["free_name"],
            "status": standing.status,
            "previousPlanId": old["plan_id"] if old["plan_id"] != wanted["plan_id"] else None,
            "accessUntil": standing.access_until,
        }
        announce.emit(tx, "SubscriptionChanged", data, workspace_id)
    return standing


def known(status: str) -> bool:
    """Tell whether we know what a status means."""
    return status in STATUSES
