"""Functions as Lambda loads them, and requests as the HTTP API sends them."""

import base64
import importlib.util
import io
import json
import logging
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from kyora.observability import logger

ROOT = Path(__file__).parents[2]
CONTEXT = SimpleNamespace(
    aws_request_id="run-0123456789", get_remaining_time_in_millis=lambda: 60_000
)
ADMIN = {"userId": "usr_demo_admin", "workspaceId": "ws_demo", "role": "admin", "locale": "en"}


@cache
def function(name: str) -> ModuleType:
    """Return the module of functions/<name>/app.py."""
    spec = importlib.util.spec_from_file_location(
        f"functions_{name}_app", ROOT / "functions" / name / "app.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def event(
    route: str,
    body: object = None,
    *,
    authorizer: dict[str, str] | None = ADMIN,
    headers: dict[str, str] | None = None,
    encoded: bool = False,
    **path: str,
) -> dict[str, Any]:
    """Return the payload 2.0 event of a request to `route`; a body of bytes or text goes as is."""
    method, _, pattern = route.partition(" ")
    raw = body if isinstance(body, (bytes, str)) else json.dumps(body)
    found: dict[str, Any] = {
        "version": "2.0",
        "routeKey": route,
        "rawPath": pattern.format(**path) if path else pattern,
        "rawQueryString": "",
        "headers": {"content-type": "application/json"} | (headers or {}),
        "requestContext": {
            "http": {"method": method, "path": pattern, "sourceIp": "127.0.0.1"},
            "requestId": "gateway-request-id",
            "stage": "$default",
            "timeEpoch": 1_790_000_000_000,
        },
        "pathParameters": path or None,
        "isBase64Encoded": encoded or isinstance(raw, bytes),
    }
    if authorizer is not None:
        found["requestContext"]["authorizer"] = {"lambda": authorizer}
    if body is not None:
        encode = found["isBase64Encoded"]
        data = raw if isinstance(raw, bytes) else raw.encode()
        found["headers"]["content-length"] = str(len(data))
        found["body"] = base64.b64encode(data).decode() if encode else raw
    return found


def call(name: str, request: dict[str, Any]) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Invoke an HTTP function; return status, the parsed body and the headers."""
    answer = function(name).handler(request, CONTEXT)
    json.dumps(answer)  # Lambda has to serialise it
    body = json.loads(answer["body"]) if answer.get("body") else {}
    return answer["statusCode"], body, answer["headers"]


def captured_log(patch: pytest.MonkeyPatch) -> io.StringIO:
    """Return what the functions log from now on (their logger keeps the stream it began with)."""
    logger()
    stream = io.StringIO()
    patch.setattr(logging.getLogger("kyora").handlers[0], "stream", stream)
    return stream
