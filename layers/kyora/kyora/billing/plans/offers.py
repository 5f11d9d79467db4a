"""The plans that are offered, and how they are read; `sync` brings them from Stripe."""

import re
from collections.abc import Mapping
from typing import Any

from kyora import cache, limits
from kyora.billing.models import Plan, Plans
from kyora.errors import NotFound
from kyora.postgres import transaction

LISTED = "plans"  # the cache's key of what `listed` returns
_ID = re.compile(r"[\w.-]{1,100}", re.ASCII)

# The free plan is always among them, even without one in the catalogue or with an archived one.
_PLANS = """
SELECT id, name, description, product_id, price_id, amount, currency, interval, interval_count,
    features, limits, active FROM plan
WHERE active OR id <> (SELECT id FROM free_plan)
UNION ALL
SELECT f.id, f.name, '', NULL, NULL, 0, NULL, NULL, 1, jsonb_build_object(), f.limits, true
FROM free_plan f
WHERE NOT EXISTS (SELECT 1 FROM plan WHERE id = f.id AND active)
"""
_ALL = f"SELECT * FROM ({_PLANS}) AS known WHERE active ORDER BY amount, id"
_FREE = f"SELECT * FROM ({_PLANS}) AS known WHERE id = (SELECT id FROM free_plan)"
_ONE = f"SELECT * FROM ({_PLANS}) AS known WHERE id = :id"


def listed() -> Plans:
    """Return every plan that can be subscribed to, the cheapest first.

    Cached for up to a minute; for a subscription the plan is looked up.
    """
    return Plans.model_validate_json(cache.remember(LISTED, 60, _listed))


def _listed() -> bytes:
    with transaction() as tx:
        rows = tx.rows(_ALL)
    return Plans(items=[_plan(row) for row in rows]).model_dump_json(by_alias=True).encode()


def get(plan_id: str) -> Plan:
    """Return a plan, even one that is no longer offered. Raises NotFound."""
    if not _ID.fullmatch(plan_id):  # a path may hold what Postgres refuses
        raise _unknown()
    with transaction() as tx:
        row = tx.row(_ONE, id=plan_id)
    if row is None:
        raise _unknown()
    return _plan(row)


def applying(plan_id: str) -> Plan:
    """Return the plan that a workspace is on, as `listed` shows it.

    A plan that is no longer offered is looked up. A row may still name the built-in free plan after
    the catalogue has brought another one.
    """
    for plan in listed().items:
        if plan.id == plan_id:
            return plan
    with transaction() as tx:
        row = tx.row(_ONE, id=plan_id) or tx.row(_FREE)
    return _plan(row or {})


def offered(plan_id: str) -> Plan:
    """Return a plan that can be subscribed to. Raises NotFound."""
    found = get(plan_id)
    if not found.active:
        raise _unknown()
    return found


def _unknown() -> NotFound:
    return NotFound("There is no such plan.", code="billing.plan_not_found")


def _plan(row: Mapping[str, Any]) -> Plan:
    return Plan(
        id=row["id"],
        name=row["name"],
        description=row["description"],
        stripe_product_id=row["product_id"],
        stripe_price_id=row["price_id"],
        amount=row["amount"],
        currency=row["currency"].upper() if row["currency"] else None,
        interval=row["interval"],
        interval_count=row["interval_count"],
        features=row["features"],
        limits=limits.whole(row["limits"]),
        active=row["active"],
    )
