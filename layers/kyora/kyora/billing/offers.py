"""Plans as they are offered and read; `plans` brings them here from Stripe."""

from collections.abc import Mapping
from typing import Any

from kyora.billing.models import Plan, Plans
from kyora.errors import NotFound
from kyora.postgres import transaction

# The free plan is among them also while no catalogue has one.
_PLANS = """
SELECT id, name, description, product_id, price_id, amount, currency, interval, interval_count,
    features, limits, active FROM plan
UNION ALL
SELECT f.id, f.name, '', NULL, NULL, 0, NULL, NULL, 1, jsonb_build_object(), f.limits, true
FROM free_plan f
WHERE NOT EXISTS (SELECT 1 FROM plan WHERE id = f.id)
"""
_ALL = f"SELECT * FROM ({_PLANS}) AS known WHERE active ORDER BY amount, id"
_ONE = f"SELECT * FROM ({_PLANS}) AS known WHERE id = :id"


def listed() -> Plans:
    """Return every plan that can be subscribed to, the cheapest first."""
    with transaction() as tx:
        rows = tx.rows(_ALL)
    return Plans(items=[_plan(row) for row in rows])


def get(plan_id: str) -> Plan:
    """Return a plan, also one that is not offered any more. Raises NotFound."""
    # Postgres cannot be asked for a NUL, and no plan has one.
    with transaction() as tx:
        row = None if "\0" in plan_id else tx.row(_ONE, id=plan_id)
    if row is None:
        raise _unknown()
    return _plan(row)


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
        limits=row["limits"],
        active=row["active"],
    )
