"""The local span store: what the functions' own exporter sends it, and what it shows."""

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kyora import config, otlp, trace
from kyora.observability import begin, finish, follow
from local.settings import Settings
from local.stack import emulator
from local.web.running import Front
from tests.integration.support.fronts import serving

STORE = "/_local/otlp/v1/traces"


@pytest.fixture
def port(tmp_path: Path, environment: pytest.MonkeyPatch) -> Iterator[int]:
    """A front, with the functions' spans sent to it."""
    stack = Settings(
        tmp_path, 8000, 1, 1, 1, {"POSTGRES_PASSWORD": "x", "AUTH_JWT_SECRET": "y" * 64}, {}
    )
    with serving(Front(stack)) as found:
        environment.setenv("TRACE_OTLP_ENDPOINT", f"http://127.0.0.1:{found}/_local/otlp")
        config.forget()
        otlp._paused_until.clear()
        environment.setattr(otlp, "_PATIENCE", 60)  # what is late is lost
        trace.end()
        trace.taken()
        yield found
    while otlp._connections:
        otlp._connections.popitem()[1].close()


def ask(
    port: int, path: str, method: str = "GET", body: bytes = b"", **headers: str
) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body or None, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        return answer.status, json.loads(text) if text[:1] in "{[" and text else text
    finally:
        connection.close()


def story(port: int, name: str) -> Any:
    status, found = ask(port, f"/_local/traces/{name}")
    assert status == 200, found
    return found


def test_a_story_joins_a_request_its_consumer_and_the_webhook_that_comes_back(port: int) -> None:
    begin("request-1")
    trace.describe("POST /v1/x", trace.SERVER, http__response__status_code=200)
    with trace.span("INSERT outbox", db__query__text="INSERT INTO outbox VALUES (:id)"):
        caused_by = trace.current()
    finish()
    begin("request-1", caused_by=caused_by)
    trace.describe("process UserWelcomed", trace.CONSUMER)
    trace.waited("wait in the queue", 0)
    finish()
    begin("delivery-1")
    with follow("request-1", caused_by):
        trace.describe("POST /webhooks/resend")
    finish("database.unavailable")
    begin("another")
    trace.describe("GET /v1/health")
    finish()
    found = story(port, "request-1")
    names = [unit["name"] for unit in found["units"]]
    assert names == ["POST /v1/x", "process UserWelcomed", "POST /webhooks/resend"]
    request, consumer, webhook = found["units"]
    [statement] = request["spans"]
    assert statement["parentSpanId"] == request["spanId"]
    assert (
        consumer["links"]
        == webhook["links"]
        == [{"traceId": request["traceId"], "spanId": statement["spanId"]}]
    )
    assert webhook["error"] == "database.unavailable"
    assert [span["attributes"]["kyora.wait"] for span in consumer["spans"]] == [True]
    assert story(port, request["traceId"])["units"] == found["units"]
    assert [unit["name"] for unit in story(port, "another")["units"]] == ["GET /v1/health"]
    listed = ask(port, "/_local/traces")[1]["traces"]
    assert [(one["id"], one["units"]) for one in listed] == [("another", 1), ("request-1", 3)]


def test_a_unit_shows_what_the_emulator_says_of_its_invocation(port: int, tmp_path: Path) -> None:
    trace.invocation("lambda-1")
    begin("request-1")
    trace.describe("POST /v1/x")
    name = trace.trace_id()
    finish()
    trace.invocation("")
    record = emulator.invocations(tmp_path / "emulator")
    record.parent.mkdir(parents=True, exist_ok=True)
    log = "\n".join(
        json.dumps({"level": "INFO", "message": one, "trace_id": of})
        for one, of in (("request", name), ("of another", "x"))
    )
    line = {
        "id": "lambda-1",
        "function": "kyora-local-manage-asset",
        "at": 1.0,
        "ms": 9.0,
        "cold": True,
        "initMs": 210.5,
        "memoryMb": 61,
        "log": log,
        "result": {},
    }
    record.write_text(json.dumps(line) + "\n")
    [unit] = story(port, "request-1")["units"]
    assert (unit["cold"], unit["initMs"], unit["memoryMb"]) == (True, 210.5, 61)
    assert [one["level"] for one in unit["log"]] == ["INFO"]
    assert story(port, "lambda-1")["units"] == [unit]


def test_an_id_without_spans_is_not_found(port: int) -> None:
    for name in ("nothing", "0" * 32, "%00", "..%2f..", "x" * 2000):
        assert ask(port, f"/_local/traces/{name}")[0] == 404


BROKEN = (b"", b"{", b"[]", b"null", b'{"resourceSpans": [{}]}', b'{"resourceSpans": 1}')


@pytest.mark.parametrize("body", BROKEN)
def test_what_is_no_otlp_is_refused_and_nothing_of_it_kept(port: int, body: bytes) -> None:
    assert ask(port, STORE, "POST", body)[0] == 400
    assert ask(port, "/_local/traces")[1] == {"traces": []}


@pytest.mark.parametrize("path", ["/_local/traces", "/_local/traces/x", "/trace/", "/trace/x"])
def test_another_site_sees_no_trace(port: int, path: str) -> None:
    assert ask(port, path, Host="evil.example:8000")[0] == 403
    assert ask(port, STORE, "POST", b"{}", Host="evil.example:8000")[0] == 403


def test_the_page_is_there_for_any_id(port: int) -> None:
    for path in ("/trace/", "/trace/click-1", "/trace/%E2%9C%93"):
        status, text = ask(port, path)
        assert (status, "trace.js" in text) == (200, True)
