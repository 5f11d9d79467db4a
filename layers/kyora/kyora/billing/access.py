"""Access: what a workspace may do, and why, as follows from its mirrored subscriptions.

    trialing, active                              full
    past_due, paused for a failed payment         grace for `billing.grace_days`, then free
    unpaid, paused, canceled, incomplete_expired  free
    incomplete                                    no effect: as if it did not exist
    anything else                                 unchanged: an unknown status decides nothing

    at a price of no plan       the last plan, in grace from then on; without one nothing
    of quantity 0               nothing: nothing is paid for
    with `pause_collection`     as its status says: only the owner of the Stripe account, or the
                                workspace through us, waives payments

Of several subscriptions the best plan counts: its limits, then its price. The order of events
does not matter: the same mirror gives the same access.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from kyora import clock, config, limits
from kyora.billing import announce, plan_order, stripe_objects
from kyora.billing.stripe_objects import STATUSES, TERMINAL, TERMINAL_SQL
from kyora.errors import Invalid
from kyora.observability import logger
from kyora.postgres import Transaction, transaction

_RANKS = {"active": 3, "trialing": 3, "past_due": 2, "unpaid": 1, "paused": 1}
_FULL = ("active", "trialing")

type Row = Mapping[str, Any]


class Decision(NamedTuple):
    """What applies to a workspace; without `limits` the free plan's.

    `rule` says in words which line of the table above decided.
    """

    access: str
    status: str = "free"
    plan_id: str | None = None
    subscription_id: str | None = None
    access_until: datetime | None = None
    limits: Mapping[str, int] | None = None
    rule: str = "no subscription"


def choose(subscriptions: Sequence[Row], now: datetime, grace_days: int) -> Decision:
    """Decide which of a workspace's subscriptions counts, and what it gives.

    A row has `id, status, payment_failed, quantity, began_at, cancel_at, grace_since,
    unplanned_since, plan_id` and its plan's `limits, amount, interval, interval_count`; those that
    are over are not among them.
    """
    judged = [(_judge(row, now, grace_days), row) for row in subscriptions]
    if not judged:
        return Decision("free")
    return max(judged, key=lambda pair: _weight(*pair))[0]


def _judge(row: Row, now: datetime, grace_days: int) -> Decision:
    status = str(row["status"])
    none = Decision("free", status, None, row["id"])
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


def _weight(decision: Decision, row: Row) -> tuple[Any, ...]:
    """Order decisions; of subscriptions that give nothing, the one nearest to access is shown."""
    return (
        plan_order.worth(row) if decision.limits else (),
        decision.access == "full",
        _RANKS.get(decision.status, 0),
        plan_order.worth(row) if row["limits"] else (),
        row["began_at"],
        str(row["id"]),
    )


# OFFSET 0 keeps the join a loop over the customer's few subscriptions: without statistics yet,
# PostgreSQL expects so many customers that it reads all subscriptions.
_SUBSCRIPTIONS = f"""
SELECT s.id, s.status, s.payment_failed, s.quantity, s.began_at, s.cancel_at, s.grace_since,
    s.unplanned_since, s.plan_id, p.name, p.limits, p.amount, p.interval, p.interval_count
FROM billing_customer c
CROSS JOIN LATERAL (SELECT * FROM subscription WHERE customer_id = c.id OFFSET 0) AS s
LEFT JOIN plan p ON p.id = s.plan_id
WHERE c.workspace_id = :workspace_id AND s.status NOT IN {TERMINAL_SQL}
"""

_LOCKED = """
SELECT plan_id, access, access_until, limits, subscription_id, status
FROM workspace_billing WHERE workspace_id = :workspace_id FOR UPDATE
"""
_SETTLED = """
UPDATE workspace_billing SET plan_id = :plan_id, access = :access, access_until = :access_until,
    limits = CAST(:limits AS jsonb), subscription_id = :subscription_id, status = :status,
    updated_at = now()
WHERE workspace_id = :workspace_id
"""
_COLUMNS = ("plan_id", "access", "access_until", "limits", "subscription_id", "status")


def settle(tx: Transaction, workspace_id: str, *, quiet: bool = False) -> Decision:
    """Bring a workspace's row up to date and announce a change of plan, access or status.

    The row is locked before anything is read, so two customers of one workspace (one of them
    deleted) see each other. `quiet`: the caller has announced it; emit no SubscriptionChanged.
    """
    this = {"workspace_id": workspace_id}
    locked, rows = tx.together((_LOCKED, this), (_SUBSCRIPTIONS, this))
    if not locked:
        limits.begin(tx, workspace_id)
        locked, rows = tx.together((_LOCKED, this), (_SUBSCRIPTIONS, this))
    old = locked[0]
    decision = choose(rows, clock.now(), config.billing().grace_days)
    wanted = {name: getattr(decision, name) for name in _COLUMNS}
    named = next((row["name"] for row in rows if row["id"] == decision.subscription_id), None)
    if not (decision.plan_id and decision.limits):
        free = tx.row("SELECT id, name, limits FROM free_plan") or {}
        wanted["plan_id"] = decision.plan_id or free["id"]
        wanted["limits"] = decision.limits or free["limits"]
        named = named if decision.plan_id else free["name"]
    if all(wanted[name] == old[name] for name in _COLUMNS):
        return decision
    tx.later(
        _SETTLED,
        workspace_id=workspace_id,
        **wanted | {"limits": json.dumps(wanted["limits"])},
    )
    if all(wanted[name] == old[name] for name in ("plan_id", "access", "status")):
        return decision
    logger().info(
        "access decided",
        workspace_id=workspace_id,
        old=f"{old['access']} {old['plan_id']}",
        new=f"{decision.access} {wanted['plan_id']}",
        subscription_id=decision.subscription_id,
        rule=decision.rule,
    )
    if not quiet and decision.subscription_id:
        data = {
            "subscriptionId": decision.subscription_id,
            "planId": wanted["plan_id"],
            "planName": named,
            "status": decision.status,
            "previousPlanId": old["plan_id"] if old["plan_id"] != wanted["plan_id"] else None,
            "accessUntil": decision.access_until,
        }
        announce.emit(tx, "SubscriptionChanged", data, workspace_id)
    return decision


def known(status: str) -> bool:
    """Return whether we know what a status means."""
    return status in STATUSES


# ---- why

_RECORDED = """
SELECT w.name, b.access, b.plan_id, b.access_until, b.status, b.subscription_id, b.updated_at
FROM workspace w LEFT JOIN workspace_billing b ON b.workspace_id = w.id WHERE w.id = :workspace_id
"""
_EVERY = f"""
SELECT s.*, p.limits, p.amount, p.interval, p.interval_count
FROM billing_customer c JOIN subscription s ON s.customer_id = c.id
LEFT JOIN plan p ON p.id = s.plan_id
WHERE c.workspace_id = :workspace_id
ORDER BY s.status IN {TERMINAL_SQL}, s.began_at DESC, s.id LIMIT 20
"""
# An invoice's page is as good as a password: its address is left out.
_UNPAID = """
SELECT i.id, i.subscription_id, i.status, i.amount_due, i.currency, i.attempt_count,
    i.next_attempt_at, i.created_at
FROM billing_customer c JOIN invoice i ON i.customer_id = c.id
WHERE c.workspace_id = :workspace_id AND i.status IN ('open', 'uncollectible')
ORDER BY i.created_at DESC LIMIT 5
"""
_EVENTS = """
SELECT e.id, e.type, to_timestamp(e.created) AS created, e.status, e.attempts, e.last_error
FROM billing_customer c JOIN stripe_event e ON e.customer_id = c.id
WHERE c.workspace_id = :workspace_id ORDER BY e.created DESC, e.id DESC LIMIT 10
"""
_CUSTOMERS = """
SELECT id, beside, deleted_at FROM billing_customer
WHERE workspace_id = :workspace_id ORDER BY beside, id
"""
_SHOWN = (
    *("id", "status", "plan_id", "price_id", "period_end", "cancel_at", "ended_at"),
    *("grace_since", "unplanned_since", "collection_paused", "doubtful"),
)


def explain(workspace_id: str) -> dict[str, Any]:
    """Return why a workspace has the access that it has, for `make why`; writes nothing.

    `decided` is what the rules give now, `recorded` what requests see, which the sweep corrects
    within a minute. Every one of `subscriptions` says what it would give alone, and by which rule.
    Times are ISO 8601, amounts minor units. Raises Invalid when there is no such workspace.
    """
    now, days = clock.now(), config.billing().grace_days
    with transaction() as tx:
        recorded = tx.row(_RECORDED, workspace_id=workspace_id)
        if recorded is None:
            raise Invalid(f"There is no workspace {workspace_id}.")
        name = recorded.pop("name")
        found = tx.rows(_EVERY, workspace_id=workspace_id)
        explained: dict[str, Any] = {
            "customers": tx.rows(_CUSTOMERS, workspace_id=workspace_id),
            "unpaid": tx.rows(_UNPAID, workspace_id=workspace_id),
            "events": tx.rows(_EVENTS, workspace_id=workspace_id),
        }
        free = tx.row("SELECT id FROM free_plan") or {}
    decided = choose([row for row in found if row["status"] not in TERMINAL], now, days)
    explained |= {
        "workspace": workspace_id,
        "name": name,
        "decided": decided._asdict() | {"plan_id": decided.plan_id or free.get("id")},
        "recorded": recorded if recorded["access"] else None,
        "subscriptions": [
            {field: row[field] for field in _SHOWN} | _alone(row, now, days) for row in found
        ],
    }
    return {name: _plain(value) for name, value in explained.items()}


def _alone(row: Row, now: datetime, grace_days: int) -> dict[str, object]:
    if row["status"] in TERMINAL:
        return {"gives": "free", "rule": f"it is {row['status']}"}
    decided = _judge(row, now, grace_days)
    return {"gives": decided.access, "rule": decided.rule}


def _plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value.isoformat() if isinstance(value, datetime) else value
