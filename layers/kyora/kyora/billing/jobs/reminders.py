"""Reminders ahead of time: a renewal, a card that will have expired by then, access that ends.

Each is announced once: its key is made of ids and days. What changes before the mail is written is
checked when the mail is written.
"""

from collections.abc import Mapping
from typing import Any

from kyora import clock
from kyora.billing import announce
from kyora.postgres import transaction

_BATCH = 100

# A yearly renewal, a week ahead. A monthly one is expected.
_RENEWALS = """
SELECT n.*, 'ahead:renewal:' || n.id || ':' || n.period_end::date AS key FROM subscription_notice n
WHERE n.id IN (SELECT id FROM subscription WHERE status IN ('active', 'trialing')
        AND period_end > now() AND period_end <= now() + interval '7 days')
    AND n.status = 'active' AND n.interval = 'year' AND n.list_charge > 0
    AND n.workspace_id IS NOT NULL AND (n.cancel_at IS NULL OR n.cancel_at > n.period_end)
"""
# A card is valid until the end of its month. A charge of an unknown amount counts as 0 in the view.
_CARDS = """
SELECT n.*, 'ahead:card:' || n.id || ':' || n.period_end::date || ':' || n.exp_year || '-'
    || n.exp_month AS key FROM subscription_notice n
WHERE n.id IN (SELECT id FROM subscription WHERE status IN ('active', 'trialing')
        AND period_end > now() AND period_end <= now() + interval '14 days')
    AND (n.list_charge > 0 OR EXISTS (SELECT 1 FROM subscription_terms t
        WHERE t.subscription_id = n.id AND jsonb_path_exists(t.items, '$[*] ? (@.amount == null)')))
    AND n.exp_month BETWEEN 1 AND 12 AND n.exp_year BETWEEN 2000 AND 2999
    AND make_date(n.exp_year, n.exp_month, 1) + interval '1 month' <= n.period_end
    AND n.workspace_id IS NOT NULL AND (n.cancel_at IS NULL OR n.cancel_at > n.period_end)
"""
_GRACES = """
SELECT n.*, 'ahead:grace:' || n.id || ':' || n.access_until::date AS key FROM subscription_notice n
WHERE n.workspace_id IN (SELECT workspace_id FROM workspace_billing WHERE access = 'grace'
        AND access_until > now() AND access_until <= now() + interval '1 day')
    AND n.counting_id = n.id AND n.access = 'grace'
"""

_NEW = """
WHERE plan_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM billing_fact f WHERE f.key = due.key)
ORDER BY key LIMIT :limit
"""
_NEW_RENEWALS = f"SELECT * FROM ({_RENEWALS}) AS due {_NEW}"
_NEW_CARDS = f"SELECT * FROM ({_CARDS}) AS due {_NEW}"
_NEW_GRACES = f"SELECT * FROM ({_GRACES}) AS due {_NEW}"

type Row = Mapping[str, Any]


def remind() -> int:
    """Announce what is due, a batch of each kind; return how many."""
    now, done = clock.now(), 0
    with transaction() as tx:
        for row in tx.rows(_NEW_GRACES, limit=_BATCH):
            data = {**_plan(row), "accessUntil": row["access_until"]}
            done += announce.once(
                tx, str(row["key"]), "GraceEnding", data, str(row["workspace_id"]), now
            )
    with transaction() as tx:
        for row in tx.rows(_NEW_CARDS, limit=_BATCH):
            data = _plan(row) | _card(row)
            done += announce.once(
                tx, str(row["key"]), "PaymentMethodExpiring", data, str(row["workspace_id"]), now
            )
    with transaction() as tx:
        for row in tx.rows(_NEW_RENEWALS, limit=_BATCH):
            data = _plan(row) | _renewal(row)
            done += announce.once(
                tx, str(row["key"]), "RenewalUpcoming", data, str(row["workspace_id"]), now
            )
    return done


def _plan(row: Row) -> dict[str, object]:
    return {
        "subscriptionId": row["id"],
        "planId": row["plan_id"],
        "planName": row["plan_name"],
    }


def _renewal(row: Row) -> dict[str, object]:
    currency = str(row["currency"]).upper()
    return {"amount": int(row["list_charge"]), "currency": currency, "renewsAt": row["period_end"]}


def _card(row: Row) -> dict[str, object]:
    return {
        "last4": row["last4"],
        "expMonth": row["exp_month"],
        "expYear": row["exp_year"],
        "chargeAt": row["period_end"],
    }
