"""What the console page shows, read from where it really is: Postgres and the function logs."""

import json
import re
import time
from typing import Any

import pg8000.exceptions

from local import bus, emulator, postgres
from local.settings import Settings

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
# Nothing that opens a door is shown, wherever it stands in a log line.
_SECRET = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]+|(?<=[?&])X-Amz-[\w-]+=[^&\s\"]+")

# The fields of a log record that are the same on every line.
_DULL = {
    *("level", "message", "timestamp", "location", "service", "cold_start", "xray_trace_id"),
    *("function_arn", "function_name", "function_memory_size", "function_request_id"),
}


def state(stack: Settings, functions: dict[str, str], ready: bool) -> dict[str, Any]:
    """Return everything the page needs; a part that cannot be read is empty."""
    uploads, events, billing, database = [], [], [], "down"
    try:
        names: tuple[str, ...]
        names = ("id", "workspace", "filename", "type", "size", "status", "reason", "at")
        uploads = [dict(zip(names, row, strict=True)) for row in _rows(stack, _UPLOADS)]
        names = ("id", "type", "workspace", "data", "attempts", "error", "at", "published")
        events = [dict(zip(names, row, strict=True)) for row in _rows(stack, _EVENTS)]
        events = [event | {"data": bus.mask(event["data"])} for event in events]
        names = ("workspace", "plan", "access", "status", "subscription", "until")
        billing = [dict(zip(names, row, strict=True)) for row in _rows(stack, _SUBSCRIPTIONS)]
        database = "up"
    except (OSError, pg8000.exceptions.Error):
        pass
    return {
        "ready": ready,
        "database": database,
        "emulator": "up" if emulator.healthy(stack.gateway_port) else "down",
        "aws": emulator.endpoint(stack.gateway_port),
        "functions": sorted(functions),
        "stripe": stack.stripe_url if stack.own_stripe else "",
        "uploads": uploads,
        "billing": billing,
        "events": events,
        "logs": log_lines(stack, functions, since=time.time() - 600)[-60:] if ready else [],
    }


def _rows(stack: Settings, sql: str) -> list[list[Any]]:
    return postgres.query(stack.database_url, sql)


def log_lines(stack: Settings, functions: dict[str, str], since: float) -> list[dict[str, Any]]:
    """Return the functions' log lines since a time, oldest first, with secrets taken out.

    `functions` maps a folder's name to the function's name in AWS.
    """
    client = emulator.client("logs", stack.gateway_port)
    found: list[dict[str, Any]] = []
    for folder, name in functions.items():
        try:
            answer = client.filter_log_events(
                logGroupName=f"/aws/lambda/{name}", startTime=int(since * 1000), limit=1000
            )
        except client.exceptions.ClientError:
            continue  # not invoked yet
        found += [
            {"at": event["timestamp"] / 1000, "function": folder, **line}
            for event in answer["events"]
            if (line := _line(event["message"].strip()))
        ]
    return sorted(found, key=lambda line: line["at"])


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
    return {
        "level": str(record.get("level", "")),
        "text": f"{text} {json.dumps(rest, ensure_ascii=False)}" if rest else text,
    }
