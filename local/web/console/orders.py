"""Orders and customers by day, and the fees of paid orders."""

from typing import Any

from kyora.money import to_text
from local.settings import Settings
from local.web.console import sources

# Amounts as text: a day may bring more than a JSON number holds.
_DAYS = """
select business_id as business, day::text as date,
       coalesce(sum(count) filter (where kind = 'order'), 0)::bigint as orders,
       json_object_agg(label, amount::text) filter (where kind = 'order') as revenue,
       json_object_agg(label, count) filter (where kind = 'customer') as customers
from analytics_day group by business_id, day order by day desc, business_id limit 60
"""
_FEES = """
select business_id as business, order_id as "order", method, amount::text as amount, currency,
       paid_at as at, recorded_at as recorded
from transaction_fee order by recorded_at desc, order_id limit 60
"""


def read(stack: Settings) -> dict[str, Any]:
    """Return the newest days and fees, with decimals as each currency has them."""
    with sources.database(stack) as reader:
        days, fees = reader.rows(_DAYS), reader.rows(_FEES)
    for day in days:
        amounts = sorted((day["revenue"] or {}).items())
        day["revenue"] = {code: to_text(int(minor), code) for code, minor in amounts}
    for fee in fees:
        fee["amount"] = f"{to_text(int(fee['amount']), fee['currency'])} {fee['currency']}"
    return {"days": days, "fees": fees}
