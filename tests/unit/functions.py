"""Functions as Lambda loads them, and requests as the HTTP API sends them."""

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
from tests import events
from tests.events import ADMIN

__all__ = ["ADMIN", "CONTEXT", "call", "captured_log", "event", "function"]

ROOT = Path(__file__).parents[2]
CONTEXT = SimpleNamespace(
    aws_request_id="run-0123456789", get_remaining_time_in_millis=lambda: 60_000
)


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
    return events.http_api(
        route,
        body,
        path=path,
        headers=headers,
        authorizer=authorizer,
        encoded=encoded,
        request_id="gateway-request-id",
    )


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
