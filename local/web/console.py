"""What the console page shows, read from Postgres and the functions' logs."""

import json
import re
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pg8000.exceptions

from kyora.money import to_text
from local.progress import mask
from local.settings import Settings
from local.stack import emulator, postgres

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
# Tokens and presigned signatures are never shown, wherever they stand in a log line.
_SECRET = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]+|(?<=[?&])X-Amz-[\w-]+=[^&\s\"]+")

_PAGE = 1000  # log events that are asked for at once
_PROBE_SECONDS = 2.0
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

# Fields of a log record that tell nothing: they are the same on every line.
_DULL = {
    *("level", "message", "timestamp", "location", "service", "cold_start", "xray_trace_id"),
    *("function_arn", "function_name", "function_memory_size", "function_request_id"),
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
    began = time.time() - 600
    logs = log_lines(stack, functions, began)[-60:] if ready and emulated else []
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
    rows = postgres.query(stack.database_url, sql)
    return [dict(zip(names.split(), row, strict=True)) for row in rows]


def _revenue(by_currency: dict[str, str] | None) -> dict[str, str]:
    return {code: _money(minor, code) for code, minor in sorted((by_currency or {}).items())}


def _money(minor: str, currency: str) -> str:
    return to_text(int(minor), currency)


def log_lines(stack: Settings, functions: dict[str, str], since: float) -> list[dict[str, Any]]:
    """Return the functions' log lines since a time, oldest first, with secrets taken out.

    `functions` maps a folder's name to the function's name in AWS.
    """
    client = emulator.client("logs", stack.gateway_port)
    found: list[dict[str, Any]] = []
    for folder, name in functions.items():
        try:
            found += [
                {"id": event_id, "at": at, "function": folder, **line}
                for event_id, at, message in _log_events(client, f"/aws/lambda/{name}", since)
                if (line := _line(message.strip()))
            ]
        except client.exceptions.ClientError:
            continue  # not invoked yet
    return sorted(found, key=lambda line: line["at"])


def is_wanted(line: dict[str, Any], identifier: str | None, level: str | None) -> bool:
    """Return whether a log line names an id and has at least a level.

    A line without a level is shown: a function that dies prints such. A REPORT is not.
    """
    if identifier and identifier not in line["text"]:
        return False
    if level and line["level"] == "REPORT":
        return False
    least = _LEVELS.index(level) if level in _LEVELS else 0
    return line["level"] not in _LEVELS or _LEVELS.index(line["level"]) >= least


def _log_events(client: Any, group: str, since: float) -> Iterator[tuple[str, float, str]]:
    """Yield every event of a log group since a time, page by page."""
    start, seen = int(since * 1000), set[str]()
    while True:
        page = client.filter_log_events(logGroupName=group, startTime=start, limit=_PAGE)["events"]
        # Lines that the emulator writes for a function have no id.
        known = {
            event.get("eventId")
            or f"{event['logStreamName']} {event['timestamp']} {event['message']}": event
            for event in page
        }
        fresh = {name: event for name, event in known.items() if name not in seen}
        for name, event in fresh.items():
            seen.add(name)
            yield name, event["timestamp"] / 1000, event["message"]
        if len(page) < _PAGE or not fresh:
            return
        # The emulator has no page tokens: continue with the last millisecond of the page.
        start = page[-1]["timestamp"]


def _line(message: str) -> dict[str, str] | None:
    """Shorten a log record; START, END and metrics are left out."""
    if not message or message.startswith(("START ", "END ", "INIT_START")) or '"_aws"' in message:
        return None
    message = _SECRET.sub("[removed]", message)
    if message.startswith("REPORT "):
        taken = re.search(r"Duration: ([\d.]+ ms)", message)
        return {"level": "REPORT", "text": taken.group(1) if taken else message}
    try:
        record = json.loads(message)
    except ValueError:
        return {"level": "", "text": message}
    if not isinstance(record, dict):
        return {"level": "", "text": message}
    rest = {key: value for key, value in record.items() if key not in _DULL}
    text = str(record.get("message", ""))
    trace = textwrap.indent(str(rest.pop("traceback", "")).rstrip(), "    ")
    fields = json.dumps(rest, ensure_ascii=False) if rest else ""
    return {
        "level": str(record.get("level", "")),
        "text": "\n".join(filter(None, [f"{text} {fields}".rstrip(), trace])),
    }
