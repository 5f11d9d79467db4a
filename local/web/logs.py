"""The functions' log lines, from the emulator's CloudWatch Logs, with secrets taken out."""

import json
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from local.settings import Settings
from local.stack import emulator

# Tokens and presigned signatures are never shown, wherever they stand in a log line.
_SECRET = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]+|(?<=[?&])X-Amz-[\w-]+=[^&\s\"]+")

_PAGE = 1000  # log events that are asked for at once
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

# Fields of a log record that say nothing: they are the same on every line.
_DULL = {
    *("level", "message", "timestamp", "location", "service", "cold_start", "xray_trace_id"),
    *("function_arn", "function_name", "function_memory_size", "function_request_id"),
}


def log_lines(
    stack: Settings, functions: dict[str, str], since: float, *, patience: float | None = None
) -> list[dict[str, Any]]:
    """Return the functions' log lines since a time, oldest first, with secrets taken out.

    `functions` maps a folder's name to the function's name in AWS; `patience` is that of
    `emulator.client`.
    """
    client = emulator.client("logs", stack.gateway_port, patience=patience)
    found: list[dict[str, Any]] = []
    for folder, name in functions.items():
        try:
            found += [
                {"id": event_id, "at": at, "function": folder, **line}
                for event_id, at, message in _log_events(client, f"/aws/lambda/{name}", since)
                if (line := short(message.strip()))
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


def short(message: str) -> dict[str, str] | None:
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
