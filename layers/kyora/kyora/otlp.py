"""Spans to a collector: OTLP/HTTP with JSON (https://opentelemetry.io/docs/specs/otlp/#otlphttp).

Lambda freezes a process as soon as it has answered, so an invocation sends its spans before that,
within half a second. A collector beside the function, such as OpenTelemetry's Lambda extension,
takes them in a millisecond and passes them on after the answer. One that fails is skipped for half
a minute: its spans are lost, no request is.

Import it where spans are sent: without a collector it is never loaded.
"""

import http.client
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import kyora
from kyora import config, timed_http
from kyora.errors import ConfigError
from kyora.trace import Span

_PATIENCE = 0.5  # seconds for one request, in which connecting is included
_PAUSE = 30.0  # seconds without a collector that failed
_LONGEST_ANSWER = 1 << 16  # bytes
_ERROR = 2  # OTLP's status code

_connections: dict[str, http.client.HTTPConnection] = {}
_paused_until: dict[str, float] = {}


def send(spans: Sequence[Span]) -> int | None:
    """Send the spans, in half a second at most; never raises.

    Returns the status with which the collector refused them, 0 without an answer; None otherwise,
    also while one that failed is skipped.
    """
    try:
        endpoint, function = config.trace()
    except ConfigError:
        return None
    if not endpoint or time.monotonic() < _paused_until.get(endpoint, 0.0):
        return None
    try:
        status, _, _ = timed_http.exchange(
            _connections,
            "POST",
            f"{endpoint}/v1/traces",
            deadline=time.monotonic() + _PATIENCE,
            longest=_LONGEST_ANSWER,
            body=json.dumps(payload(spans, function), default=str).encode(),
            headers={"content-type": "application/json"},
        )
    except timed_http.NoReply:
        status = 0
    if 200 <= status < 300:
        return None
    _paused_until[endpoint] = time.monotonic() + _PAUSE
    return status


def payload(spans: Iterable[Span], function: str) -> dict[str, Any]:
    """Return the body of a request; `function` is the name that AWS knows."""
    of = {
        "service.name": "kyora",
        "service.version": kyora.__version__,
        "deployment.environment.name": config.stage(),
        "faas.name": function,
        "process.pid": os.getpid(),
    }
    scope = {"scope": {"name": "kyora"}, "spans": [_span(span, function) for span in spans]}
    return {"resourceSpans": [{"resource": {"attributes": _attributes(of)}, "scopeSpans": [scope]}]}


def _span(span: Span, function: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "traceId": span.context.trace_id,
        "spanId": span.context.span_id,
        "name": span.name or function or "unit",
        "kind": span.kind,
        "startTimeUnixNano": str(span.began),
        "endTimeUnixNano": str(span.ended),
        "attributes": _attributes(span.attributes),
        "links": [{"traceId": one.trace_id, "spanId": one.span_id} for one in span.links],
    }
    if span.parent_id:
        found["parentSpanId"] = span.parent_id
    if span.error:
        found["status"] = {"code": _ERROR, "message": span.error}
    return found


def _attributes(values: Mapping[str, object]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in values.items()]


def _value(value: object) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [_value(one) for one in value]}}
    return {"stringValue": str(value)}
