"""Subscriptions and plans: what each workspace may do and why, and what differs from Stripe."""

from typing import Any

from kyora.money import to_text
from local.settings import Settings
from local.web.console import sources

_WORKSPACES = """
select w.id as workspace, w.name, coalesce(p.name, b.plan_id) as plan, b.access,
       b.access_until as until, b.status, b.subscription_id as subscription,
       b.updated_at as updated, c.id as customer, b.limits
from workspace w left join workspace_billing b on b.workspace_id = w.id
left join plan p on p.id = b.plan_id
left join billing_customer c on c.workspace_id = w.id and c.deleted_at is null
order by b.updated_at desc nulls last, w.id limit 50
"""
_SUBSCRIPTIONS = """
select s.id, s.customer_id as customer, c.workspace_id as workspace, s.status, s.plan_id as plan,
       s.price_id as price, s.quantity, s.period_end as "periodEnd", s.trial_end as "trialEnd",
       s.cancel_at as "cancelAt", s.ended_at as ended, s.began_at as began, s.doubtful
from subscription s left join billing_customer c on c.id = s.customer_id
order by s.began_at desc, s.id limit 50
"""
_PLANS = """
select id, name, amount::text as amount, currency, interval, interval_count as "intervalCount",
       product_id as product, price_id as price, active, limits, updated_at as updated
from plan order by active desc, amount, id
"""
_INVOICES = """
select i.id, i.number, i.customer_id as customer, i.subscription_id as subscription, i.status,
       i.currency, i.total::text as total, i.amount_due::text as "amountDue",
       i.amount_paid::text as "amountPaid", i.attempt_count as attempts,
       i.next_attempt_at as again, i.created_at as at
from invoice i order by i.created_at desc, i.id limit 30
"""
_RUNS = "select name, result, started_at as started, finished_at as finished from billing_run"


def read(stack: Settings) -> dict[str, Any]:
    """Return workspaces, subscriptions, invoices, plans, and how the last comparisons went."""
    with sources.database(stack) as reader:
        found = {
            "workspaces": reader.rows(_WORKSPACES),
            "subscriptions": reader.rows(_SUBSCRIPTIONS),
            "invoices": reader.rows(_INVOICES),
            "plans": reader.rows(_PLANS),
            "runs": {row.pop("name"): row for row in reader.rows(_RUNS)},
        }
    for plan in found["plans"]:
        plan["amount"] = _money(plan["amount"], plan["currency"])
    for invoice in found["invoices"]:
        for name in ("total", "amountDue", "amountPaid"):
            invoice[name] = _money(invoice[name], invoice["currency"])
    return found | {"dashboard": stack.stripe_url if stack.own_stripe else ""}


def _money(minor: str, currency: str) -> str:
    return f"{to_text(int(minor), currency.upper())} {currency.upper()}"
