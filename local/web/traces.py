"""The span store of this machine: a collector for the functions, and waterfalls of what they sent.

    POST /_local/otlp/v1/traces   what the functions send (OTLP/HTTP, JSON)
    GET  /_local/traces           the newest stories: one for each correlation id; with `?all`
                                  scheduled runs as well
    GET  /_local/traces/{id}      a story, by correlation, trace or invocation id
    GET  /trace/, /trace/{id}     the same as pages

A story is made of units of work (a request, a message, a run), each with its spans, and, from the
emulator's record, its cold start, memory and log lines. Times are in milliseconds, `at` counts from
the story's begin. The newest spans are kept, in memory: a new start begins with none.
"""

import asyncio
import json
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from local.web import guard, logs
from local.web.console import invocations, views

_UNITS = 3000  # kept
_STORIES = 100  # listed
_LONGEST = 8 * 1024 * 1024  # bytes of a request
_PAGE = Path(__file__).parent / "static" / "trace.html"

type Unit = dict[str, Any]


class _Kept(deque[Unit]):
    """The newest units; the oldest make room."""


_STORE = web.AppKey("spans", _Kept)


def mount(app: web.Application) -> None:
    """Serve the store."""
    app[_STORE] = _Kept(maxlen=_UNITS)
    app.router.add_post("/_local/otlp/v1/traces", _take)
    app.router.add_get("/_local/traces", _list)
    app.router.add_get("/_local/traces/{id}", _one)
    app.router.add_get("/trace/{id:.*}", _page)


async def _take(request: web.Request) -> web.StreamResponse:
    body = bytearray()
    async for chunk in request.content.iter_chunked(65536):
        body += chunk
        if len(body) > _LONGEST:
            return web.json_response({"error": "too large"}, status=413)
    try:
        request.app[_STORE].extend(units(json.loads(body)))
    except (ValueError, LookupError, TypeError, AttributeError):
        return web.json_response({"error": "this is no OTLP JSON"}, status=400)
    return web.json_response({"partialSuccess": {}})


async def _list(request: web.Request) -> web.StreamResponse:
    every = "all" in request.query
    kept: _Kept = request.app[_STORE]
    return web.json_response({"traces": stories(kept, every=every)})


async def _one(request: web.Request) -> web.StreamResponse:
    asked = request.match_info["id"]
    record = await asyncio.to_thread(request.app[views.RECORD].read)
    kept: _Kept = request.app[_STORE]
    found = story(kept, asked, {line["id"]: line for line in record})
    if found is None:
        return web.json_response({"error": "no span has this id"}, status=404)
    return web.json_response(found)


async def _page(request: web.Request) -> web.StreamResponse:
    text = await asyncio.to_thread(_PAGE.read_text, encoding="utf-8")
    return web.Response(text=text, content_type="text/html", headers=guard.PAGE_HEADERS)


# ---- reading OTLP


def units(payload: Mapping[str, Any]) -> list[Unit]:
    """Return the units of an OTLP request: each root span with those below it."""
    found: list[Unit] = []
    for resource in payload["resourceSpans"]:
        where = _attributes(resource["resource"]["attributes"])
        spans = [span for scope in resource["scopeSpans"] for span in scope["spans"]]
        here = {span["spanId"] for span in spans}
        by_trace: dict[str, Unit] = {}
        for span in spans:
            read = _span(span)
            if span.get("parentSpanId") in here:
                by_trace[_root(span, spans)]["spans"].append(read)
                continue
            function = invocations.folder(str(where.get("faas.name", "")))
            if read["name"] == where.get("faas.name"):  # a run that nothing names
                read["name"] = function
            unit = {
                "function": function,
                "traceId": span["traceId"],
                "parentId": span.get("parentSpanId"),
                "links": span.get("links", []),
                "correlationIds": read["attributes"].pop("kyora.correlation_ids", []),
                "invocationId": read["attributes"].pop("faas.invocation_id", ""),
                **read,
                "spans": [],
            }
            by_trace[span["spanId"]] = unit
            found.append(unit)
    return found


def _root(span: Mapping[str, Any], spans: Iterable[Mapping[str, Any]]) -> str:
    above = {one["spanId"]: one for one in spans}
    while span.get("parentSpanId") in above:
        span = above[span["parentSpanId"]]
    return str(span["spanId"])


def _span(span: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "spanId": span["spanId"],
        "parentSpanId": span.get("parentSpanId"),
        "name": span["name"],
        "kind": span["kind"],
        "began": int(span["startTimeUnixNano"]) / 1e6,
        "ended": int(span["endTimeUnixNano"]) / 1e6,
        "error": (span.get("status") or {}).get("message", ""),
        "attributes": _attributes(span.get("attributes", [])),
    }


def _attributes(listed: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    return {one["key"]: _value(one["value"]) for one in listed}


def _value(value: Mapping[str, Any]) -> Any:
    if "arrayValue" in value:
        return [_value(one) for one in value["arrayValue"].get("values", [])]
    if "intValue" in value:
        return int(value["intValue"])
    return next(iter(value.values()), None)


# ---- stories


def stories(kept: Iterable[Unit], *, every: bool = False) -> list[dict[str, Any]]:
    """Return the newest stories, the newest first: what each began with and how it went.

    Without `every` scheduled runs that caused nothing and did not fail are left out.
    """
    grouped: dict[str, list[Unit]] = {}
    for unit in kept:
        grouped.setdefault(_story_of(unit), []).append(unit)
    listed = []
    for name, found in grouped.items():
        found.sort(key=lambda unit: unit["began"])
        began, ended = found[0]["began"], max(unit["ended"] for unit in found)
        quiet = all(u["name"] == u["function"] and not u["error"] for u in found)
        if quiet and not every:
            continue
        listed.append(
            {
                "id": name,
                "name": found[0]["name"],
                "startedAt": began / 1000,
                "ms": round(ended - began, 1),
                "units": len(found),
                "functions": list(dict.fromkeys(unit["function"] for unit in found)),
                "error": next((unit["error"] for unit in found if unit["error"]), ""),
            }
        )
    listed.sort(key=lambda one: -one["startedAt"])
    return listed[:_STORIES]


def story(
    kept: Iterable[Unit], asked: str, record: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any] | None:
    """Return the story that an id belongs to, or None; `record` has the invocations by id."""
    every = list(kept)
    named = {_story_of(u) for u in every if asked in {u["traceId"], u["invocationId"]}} | {asked}
    found = [unit for unit in every if named & {*unit["correlationIds"], _story_of(unit)}]
    if not found:
        return None
    found.sort(key=lambda unit: unit["began"])
    began = found[0]["began"]
    return {
        "id": asked,
        "name": found[0]["name"],
        "startedAt": began / 1000,
        "ms": round(max(unit["ended"] for unit in found) - began, 1),
        "units": [_shown(unit, began, record.get(unit["invocationId"], {})) for unit in found],
    }


def _story_of(unit: Unit) -> str:
    """Return the correlation id that a unit ended with; one that follows another has both."""
    return str(unit["correlationIds"][-1]) if unit["correlationIds"] else str(unit["traceId"])


def _shown(unit: Unit, began: float, line: Mapping[str, Any]) -> dict[str, Any]:
    """Return a unit with what the emulator says about its invocation."""
    summary = invocations.summary(dict(line)) if line else {}
    return {
        **_timed(unit, began),
        "function": unit["function"],
        "traceId": unit["traceId"],
        "correlationIds": unit["correlationIds"],
        "invocationId": unit["invocationId"],
        "links": unit["links"],
        "parentId": unit["parentId"],
        "cold": summary.get("cold", False),
        "initMs": summary.get("initMs"),
        "memoryMb": summary.get("memoryMb"),
        "log": _log(line, unit["traceId"]),
        "spans": [
            _timed(span, began) for span in sorted(unit["spans"], key=lambda one: one["began"])
        ],
    }


def _timed(span: Mapping[str, Any], began: float) -> dict[str, Any]:
    return {
        "spanId": span["spanId"],
        "parentSpanId": span["parentSpanId"],
        "name": span["name"],
        "kind": span["kind"],
        "at": round(span["began"] - began, 2),
        "ms": round(span["ended"] - span["began"], 2),
        "error": span["error"],
        "attributes": span["attributes"],
    }


def _log(line: Mapping[str, Any], trace_id: str) -> list[dict[str, Any]]:
    """Return the lines of an invocation's log that are of this trace."""
    text = str(line.get("log") or "")
    wanted = [one for one in text.splitlines() if trace_id in one]
    return [short for one in wanted if (short := logs.short(one))]
