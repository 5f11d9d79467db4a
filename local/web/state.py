"""What /_local/state answers: the newest rows of each domain, and what runs."""

import time
import urllib.error
import urllib.request
from typing import Any

import botocore.exceptions
import pg8000.exceptions

from kyora.money import to_text
from local.progress import mask
from local.settings import Settings
from local.stack import emulator, postgres
from local.web.logs import log_lines

_PATIENCE = 3.0  # seconds for each answer
_PROBE_SECONDS = 2.0

_UPLOADS = """
select id, workspace_id, filename, content_type, size, status, reject_reason,
       to_char(created_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
from asset order by created_at desc limit 20
"""
_EVENTS = """
select id, detail_type, detail ->> 'workspaceId', detail -> 'data', attempts, last_error,
       to_char(created_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
       published_at is not null
from outbox order by created_at desc, id desc limit 20
"""
_SUBSCRIPTIONS = """
select b.workspace_id, coalesce(p.name, b.plan_id), b.access, b.status, b.subscription_id,
       to_char(b.access_until at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
from workspace_billing b left join plan p on p.id = b.plan_id
order by b.updated_at desc limit 20
"""
_STRIPE = """
select id, type, object_id, source, status, attempts, last_error,
       to_char(received_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
from stripe_event order by received_at desc, id desc limit 12
"""
# Revenue as text: a day may bring more than a JSON number holds.
_DAYS = """
select business_id, day::text, coalesce(sum(count) filter (where kind = 'order'), 0)::bigint,
       json_object_agg(label, amount::text) filter (where kind = 'order'),
       json_object_agg(label, count) filter (where kind = 'customer')
from analytics_day group by business_id, day order by day desc, business_id limit 20
"""
_FEES = """
select business_id, order_id, method, amount::text, currency,
       to_char(paid_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
from transaction_fee order by recorded_at desc, order_id limit 20
"""
# Each part of the page: its statement, and a name for each column.
_PARTS = {
    "uploads": (_UPLOADS, "id workspace filename type size status reason at"),
    "billing": (_SUBSCRIPTIONS, "workspace plan access status subscription until"),
    "stripeEvents": (_STRIPE, "id type object source status attempts error at"),
    "events": (_EVENTS, "id type workspace data attempts error at published"),
    "days": (_DAYS, "business date orders revenue customers"),
    "fees": (_FEES, "business order method amount currency at"),
}


def state(stack: Settings, functions: dict[str, str], ready: bool) -> dict[str, Any]:
    """Return everything the page needs; a part that cannot be read is empty."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in _PARTS}
    database = "down"
    emulated = emulator.healthy(stack.gateway_port)
    try:
        found = {name: _rows(stack, sql, names) for name, (sql, names) in _PARTS.items()}
        database = "up"
    except (OSError, pg8000.exceptions.Error):
        pass
    logs = _recent_logs(stack, functions) if ready and emulated else []
    return {
        "ready": ready,
        "database": database,
        "emulator": "up" if emulated else "down",
        "aws": emulator.endpoint(stack.gateway_port),
        "functions": sorted(functions),
        "stripe": stack.stripe_url if stack.own_stripe else "",
        "stripeUp": not stack.own_stripe or _answers(f"{stack.stripe_url}/"),
        **found,
        "events": [event | {"data": mask(event["data"])} for event in found["events"]],
        "days": [day | {"revenue": _revenue(day["revenue"])} for day in found["days"]],
        "fees": [fee | {"amount": _money(fee["amount"], fee["currency"])} for fee in found["fees"]],
        "logs": logs,
    }


def _recent_logs(stack: Settings, functions: dict[str, str]) -> list[dict[str, Any]]:
    """Return the newest lines of ten minutes; none from an emulator that does not answer."""
    try:
        return log_lines(stack, functions, time.time() - 600, patience=_PATIENCE)[-60:]
    except botocore.exceptions.BotoCoreError:
        return []


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=_PROBE_SECONDS):
            return True
    except urllib.error.HTTPError as refused:
        refused.close()
        return True
    except OSError:
        return False


def _rows(stack: Settings, sql: str, names: str) -> list[dict[str, Any]]:
    rows = postgres.query(stack.database_url, sql, patience=_PATIENCE)
    return [dict(zip(names.split(), row, strict=True)) for row in rows]


def _revenue(by_currency: dict[str, str] | None) -> dict[str, str]:
    return {code: _money(minor, code) for code, minor in sorted((by_currency or {}).items())}


def _money(minor: str, currency: str) -> str:
    return to_text(int(minor), currency)
