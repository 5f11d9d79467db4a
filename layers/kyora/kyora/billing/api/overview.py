"""A workspace's plan, price, next charge and debt, from our mirror."""

from collections.abc import Mapping, Sequence
from typing import Any

from kyora import clock, limits
from kyora.auth import Principal
from kyora.billing import usage
from kyora.billing.models import Charge, PaymentMethod, PendingChange, Plan, Price, Subscription
from kyora.billing.plans import offers
from kyora.billing.stripe_objects import TERMINAL_SQL
from kyora.postgres import Transaction, transaction

_READ = f"""
SELECT coalesce(b.plan_id, f.id) AS plan_id, coalesce(b.access, 'free') AS access, b.access_until,
    coalesce(b.status, 'free') AS status, coalesce(b.limits, f.limits) AS limits, f.id AS free_id,
    s.id AS subscription_id, s.item_id, s.quantity, s.period_end, s.cancel_at, s.collection_paused,
    CASE WHEN s.status = 'trialing' THEN s.trial_end END AS trial_end,
    t.items, t.pending, t.pending_at, t.resume_at, c.balance,
    o.hosted_url, o.owed, o.currency AS owed_in, o.next_attempt_at,
    m.type, m.brand, m.last4, m.exp_month, m.exp_year
FROM free_plan f
LEFT JOIN workspace_billing b ON b.workspace_id = :workspace_id
LEFT JOIN subscription s ON s.id = b.subscription_id
    AND s.status NOT IN {TERMINAL_SQL}
LEFT JOIN subscription_terms t ON t.subscription_id = s.id
LEFT JOIN LATERAL (SELECT i.hosted_url, i.amount_due - i.amount_paid AS owed, i.currency,
        i.next_attempt_at FROM invoice i
    WHERE i.subscription_id = s.id AND i.status = 'open' AND i.amount_due > 0
        -- A new invoice without an attempt is about to be charged.
        AND (i.attempt_count > 0 OR s.status NOT IN ('active', 'trialing'))
    ORDER BY i.id = s.latest_invoice_id DESC, i.created_at DESC LIMIT 1) o ON true
LEFT JOIN billing_customer c ON c.workspace_id = :workspace_id AND c.deleted_at IS NULL
    AND NOT c.beside
LEFT JOIN payment_method m ON NOT m.detached
    AND m.id = coalesce(s.default_payment_method_id, c.default_payment_method_id)
"""

# The offered plan of each price; a price that a plan had before is still that plan's.
_PRICED = """
SELECT q.price, p.id, p.amount, p.currency, p.interval, p.interval_count
FROM unnest(CAST(:prices AS text[])) AS q (price)
JOIN plan p ON p.price_id = q.price
    OR p.id = (SELECT plan_id FROM plan_price WHERE price_id = q.price)
ORDER BY q.price, (p.price_id = q.price) DESC
"""

type Row = Mapping[str, Any]


def get_subscription(who: Principal) -> Subscription:
    """Return the subscription of the principal's workspace."""
    return read(who.workspace_id)


def read(workspace_id: str) -> Subscription:
    """Return a workspace's subscription; writes nothing, even for one that never paid."""
    with transaction() as tx:
        row: Row = tx.row(_READ, workspace_id=workspace_id) or {}
        used = limits.used(tx, workspace_id)
        coming = _coming(tx, row)
    plan = offers.applying(row["plan_id"])
    return Subscription(
        status=row["status"],
        access=row["access"],
        access_until=row["access_until"],
        plan=plan,
        price=_price(row, plan),
        current_period_end=row["period_end"],
        next_charge=_next_charge(row, coming),
        cancel_at=row["cancel_at"],
        trial_end=row["trial_end"],
        pending_change=_pending(row, coming),
        paused_until=row["resume_at"] if row["status"] == "paused" else None,
        pay_url=row["hosted_url"],
        limits=limits.whole(row["limits"]),
        usage=used,
        over_limit=[str(item["limit"]) for item in usage.over(used, row["limits"])],
        payment_method=_method(row),
    )


def _method(row: Row) -> PaymentMethod | None:
    if not row["type"]:
        return None
    fields = ("type", "brand", "last4", "exp_month", "exp_year")
    return PaymentMethod(**{name: row[name] for name in fields})


def _price(row: Row, plan: Plan) -> Price:
    items = row["items"] or []
    for item in sorted(items, key=lambda one: one["id"] != row["item_id"]):
        return Price(
            amount=item["amount"],
            currency=item["currency"].upper() if item["currency"] else None,
            interval=item["interval"],
            interval_count=item["intervalCount"],
            quantity=_quantity(item),
        )
    return _listed(plan)


def _listed(plan: Plan, quantity: int = 1) -> Price:
    return Price(
        amount=plan.amount,
        currency=plan.currency,
        interval=plan.interval,
        interval_count=plan.interval_count,
        quantity=quantity,
    )


def _coming(tx: Transaction, row: Row) -> Sequence[Row]:
    """Return the items of the next phase, each with its price's plan."""
    at = row["pending_at"]
    if not row["pending"] or at is None or at <= clock.now():
        return []
    prices = [str(item["price"]) for item in row["pending"]]
    found = {str(one["price"]): one for one in reversed(tx.rows(_PRICED, prices=prices))}
    known = {item["price"]: item["amount"] for item in row["items"] or []}
    items = []
    for item in row["pending"]:
        plan: Row = found.get(item["price"], {})
        amount = plan.get("amount", known.get(item["price"]))
        items.append({**item, "plan_id": plan.get("id"), "amount": amount})
    return items


def _pending(row: Row, coming: Sequence[Row]) -> PendingChange | None:
    if row["cancel_at"]:
        free = offers.applying(row["free_id"])
        return PendingChange(plan=free, date=row["cancel_at"], price=_listed(free))
    for item in coming:
        if item["plan_id"]:
            plan = offers.get(item["plan_id"])
            price = _listed(plan, _quantity(item))
            return PendingChange(plan=plan, date=row["pending_at"], price=price)
    return None


def _next_charge(row: Row, coming: Sequence[Row]) -> Charge | None:
    """Return the next charge, where the mirror knows all of it."""
    if row["status"] == "past_due" and row["next_attempt_at"]:
        owed_in = str(row["owed_in"]).upper()
        return Charge(amount=row["owed"], currency=owed_in, at=row["next_attempt_at"])
    ends, cancels = row["period_end"], row["cancel_at"]
    if row["status"] not in ("active", "trialing") or ends is None or row["collection_paused"]:
        return None
    if cancels is not None and cancels <= ends:
        return None
    items = coming if coming and row["pending_at"] <= ends else row["items"] or []
    unknown = any(item["amount"] is None for item in items)
    if not items or unknown or any(item.get("discounted") for item in row["items"] or []):
        return None
    total = sum(item["amount"] * _quantity(item) for item in items)
    currency = next((one["currency"] for one in row["items"] or [] if one["currency"]), None)
    if not total or currency is None:
        return None
    return Charge(amount=max(0, total + (row["balance"] or 0)), currency=currency.upper(), at=ends)


def _quantity(item: Row) -> int:
    return 1 if item["quantity"] is None else int(item["quantity"])
