"""Invocations of the functions, as the emulator records them, with what the front saw of each."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Lock
from typing import Any

from local import template
from local.web import logs
from local.web.running import Exchange

_KEPT = 1000
_OF_ONE = 200  # the list shows so many

type Line = dict[str, Any]


class Record:
    """The newest invocations, read from the emulator's file as it grows."""

    def __init__(self, file: Path) -> None:
        self._file, self._place, self._number = file, 0, 0
        self._lock = Lock()
        self._found: dict[str, Line] = {}

    def read(self) -> list[Line]:
        """Return the invocations, newest first."""
        with self._lock:
            self._catch_up()
            return list(reversed(self._found.values()))

    def changed(self) -> tuple[int, int]:
        """Return what differs when an invocation has begun or ended."""
        try:
            status = self._file.stat()
        except OSError:
            return (0, 0)
        return (status.st_ino, status.st_size)

    def _catch_up(self) -> None:
        number, size = self.changed()
        if number != self._number or size < self._place:
            self._number, self._place = number, 0
        if size == self._place:
            return
        with self._file.open("rb") as opened:
            opened.seek(self._place)
            for line in opened:
                if not line.endswith(b"\n"):
                    break  # it is still being written
                self._place += len(line)
                self._take(json.loads(line))
        for old in list(self._found)[: max(0, len(self._found) - _KEPT)]:
            del self._found[old]

    def _take(self, line: Line) -> None:
        if "started" in line:  # of what ran when the emulator ended, nothing more will come
            for found in self._found.values():
                if found.pop("running", False):
                    found["interrupted"] = True
            return
        begun = self._found.get(line["id"], {})
        begun.pop("running", None)
        self._found[line["id"]] = begun | line


def listed(record: Record, asked: Mapping[str, str]) -> list[Line]:
    """Return the newest invocations: of a `function`, only those that `failed`, about a `text`."""
    found = []
    for line in record.read():
        shown = summary(line)
        if asked.get("function") and shown["function"] != asked["function"]:
            continue
        if asked.get("failed") and shown["good"] is not False:
            continue
        if asked.get("quiet") and shown["trigger"]["kind"] == "schedule" and shown["good"]:
            continue
        if (text := asked.get("text")) and text not in json.dumps(line, ensure_ascii=False):
            continue
        found.append(shown)
        if len(found) == _OF_ONE:
            break
    return found


def summary(line: Line) -> Line:
    """Return an invocation as a line of the list."""
    event, result = line.get("event"), line.get("result")
    status, good = _outcome(line, event, result)
    return {
        "id": line["id"],
        "function": folder(line["function"]),
        "at": line["at"],
        "trigger": trigger(event),
        "status": status,
        "good": good,
        "ms": line.get("ms"),
        "initMs": line.get("initMs") if line.get("cold") else None,
        "cold": bool(line.get("cold")),
        "memoryMb": line.get("memoryMb"),
    }


def folder(name: str) -> str:
    """Turn kyora-local-confirm-upload into confirm_upload."""
    return re.sub(r"^kyora-[a-z]+-", "", name or "").replace("-", "_")


def _outcome(  # noqa: PLR0911  # one for each kind of end
    line: Line, event: Any, result: Any
) -> tuple[str, bool | None]:
    """Return what became of an invocation in a word or two, and whether that is good."""
    if line.get("running"):
        return "running", None
    if line.get("interrupted"):
        return "interrupted", False
    if line.get("error"):
        kind = result.get("errorType", "") if isinstance(result, dict) else ""
        message = str(result.get("errorMessage", "")) if isinstance(result, dict) else ""
        if kind == "Sandbox.Timedout" or "timed out" in message:
            return "timed out", False
        return "failed", False
    if isinstance(result, dict) and "statusCode" in result:
        return str(result["statusCode"]), int(result["statusCode"]) < 500
    if isinstance(result, dict) and "isAuthorized" in result:
        return ("allowed" if result["isAuthorized"] else "refused"), True
    if isinstance(result, dict) and "batchItemFailures" in result:
        failed, of = len(result["batchItemFailures"]), len((event or {}).get("Records", []))
        return (f"{failed} of {of} again" if failed else "done"), not failed
    return "done", True


def trigger(event: Any) -> dict[str, str]:
    """Return what started an invocation: its `kind`, and a `text` that names it."""
    if not isinstance(event, dict):
        return {"kind": "by hand", "text": "by hand"}
    http = (event.get("requestContext") or {}).get("http") or {}
    if http:
        route = f"{http.get('method')} {http.get('path')}"
        return {"kind": "http", "text": f"for {route}" if event.get("type") == "REQUEST" else route}
    records = event.get("Records")
    if isinstance(records, list) and records and isinstance(records[0], dict):
        queue = str(records[0].get("eventSourceARN", "")).rpartition(":")[2]
        names = list(dict.fromkeys(name for r in records if (name := _detail_type(r))))
        what = ", ".join(names) or f"{len(records)} messages"
        return {"kind": "queue", "text": f"{what} from {queue.partition('-local-')[2]}"}
    if event.get("source") in {"aws.scheduler", "aws.events"}:
        return {"kind": "schedule", "text": "schedule"}
    if "RequestType" in event and "ResponseURL" in event:
        return {"kind": "deploy", "text": f"deploy: {event['RequestType']}"}
    return {"kind": "by hand", "text": "by hand"}


def messages(line: Line) -> Iterator[dict[str, Any]]:
    """Yield the messages of an invocation's batch, read from their JSON."""
    event = line.get("event")
    for record in (event.get("Records") or []) if isinstance(event, dict) else []:
        try:
            body = json.loads(record["body"])
        except (TypeError, KeyError, ValueError):
            continue
        if isinstance(body, dict):
            yield {**body, "messageId": record.get("messageId")}


def _detail_type(record: dict[str, Any]) -> str:
    try:
        return str(json.loads(record["body"])["detail-type"])
    except (TypeError, KeyError, ValueError):
        return ""


def detail(line: Line, exchange: Exchange | None) -> Line:
    """Return all of an invocation: event, result, log, and the request that the front saw."""
    found = summary(line)
    text = str(line.get("log") or "")
    found |= {
        "event": line.get("event"),
        "result": _readable(line.get("result")),
        "log": [short for one in text.splitlines() if (short := logs.short(one))],
        "correlationIds": sorted(set(re.findall(r'"correlation_id":"([^"]+)"', text))),
        "eventIds": [
            message["detail"]["id"]
            for message in messages(line)
            if "id" in (message.get("detail") or {})
        ],
    }
    if exchange:
        found["request"] = {
            "id": exchange.id,
            "method": exchange.method,
            "path": exchange.path,
            "headers": exchange.request_headers,
            "body": _text(exchange.request_body),
        }
        found["response"] = {
            "status": exchange.status,
            "milliseconds": round(exchange.milliseconds, 1),
            "headers": exchange.response_headers,
            "body": _text(exchange.response_body),
        }
    return found


def request_id(line: Line) -> str:
    """Return the front's X-Request-Id in an invocation's event; empty when it has none."""
    event = line.get("event")
    headers = event.get("headers") if isinstance(event, dict) else None
    return str((headers or {}).get("x-request-id", "")) if isinstance(headers, dict) else ""


def _readable(result: Any) -> Any:
    """Return a result with its JSON body as an object."""
    if isinstance(result, dict) and str(result.get("body", ""))[:1] in {"{", "["}:
        try:
            return result | {"body": json.loads(result["body"])}
        except ValueError:
            return result
    return result


def _text(body: bytes) -> Any:
    """Return a body as JSON, as text, or as its size."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return f"{len(body)} bytes"
    try:
        return json.loads(text)
    except ValueError:
        return text


def names() -> list[str]:
    """Return every function of the template."""
    return sorted(template.folder(logical) for logical in template.functions(template.read()))
