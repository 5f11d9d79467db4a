"""`traceparent` in and out, and the spans of a unit of work."""

import json
import socket
import subprocess
import sys
from typing import Any

import pytest

from kyora import aws, config, http, otlp, trace
from kyora.bus.consume import consume
from kyora.observability import begin, correlation_id, finish, follow, invoked
from tests.cloud import batch, detail
from tests.scripted import Answer, Server, scripted
from tests.unit.functions import CONTEXT, captured_log, event

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GIVEN = f"00-{TRACE}-{SPAN}-01"
# From the W3C's own test suite, and what a hostile client might send.
MALFORMED = {
    "nothing": "",
    "no header": None,
    "a version that is forbidden": f"ff-{TRACE}-{SPAN}-01",
    "more of version 00": f"00-{TRACE}-{SPAN}-01-more",
    "a trace id of zeros": f"00-{'0' * 32}-{SPAN}-01",
    "a parent id of zeros": f"00-{TRACE}-{'0' * 16}-01",
    "upper case": GIVEN.upper(),
    "a short id": f"00-{TRACE[:-1]}-{SPAN}-01",
    "a long id": f"00-{TRACE}0-{SPAN}-01",
    "no flags": f"00-{TRACE}-{SPAN}",
    "a line break": f"{GIVEN}\n",
    "a NUL": f"{GIVEN}\0",
    "digits of another script": f"00-{TRACE}-{SPAN}-٠١",
    "two of them": f"{GIVEN},{GIVEN}",
}


@pytest.fixture(autouse=True)
def configured(environment: pytest.MonkeyPatch) -> None:
    """Every test here runs with a complete configuration."""


@pytest.fixture
def collector(environment: pytest.MonkeyPatch) -> Any:
    with scripted(lambda _: Answer(200, b"{}")) as server:
        at(environment, server.url)
        environment.setattr(otlp, "_PATIENCE", 60)  # what is late is lost
        yield server
    hang_up()


def hang_up() -> None:
    while otlp._connections:
        otlp._connections.popitem()[1].close()


def spans(server: Server) -> list[dict[str, Any]]:
    """Everything that the collector got, in order."""
    return [
        span
        for request in server.requests
        for resource in json.loads(request.body)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]


# ---- the header


def test_a_well_formed_header_is_read() -> None:
    assert trace.parse(GIVEN) == (TRACE, SPAN, 1)
    assert trace.parse(f"00-{TRACE}-{SPAN}-00") == (TRACE, SPAN, 0)


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    assert trace.parse(f"cc-{TRACE}-{SPAN}-01-what-comes") == (TRACE, SPAN, 1)


@pytest.mark.parametrize("header", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_header_is_ignored(header: object) -> None:
    assert trace.parse(header) is None
    begin("request-1", parent=str(header), caused_by=str(header))
    assert trace.parse(trace.current())
    assert TRACE not in trace.current()


def test_a_request_continues_its_callers_trace_under_a_span_of_its_own() -> None:
    begin("request-1", parent=GIVEN)
    found = trace.parse(trace.current())
    assert found is not None
    assert (found.trace_id, found.flags) == (TRACE, 1)
    assert found.span_id != SPAN


def test_what_a_unit_causes_does_not_continue_its_trace() -> None:
    begin("request-1", caused_by=GIVEN)
    assert TRACE not in trace.current()


def test_each_unit_has_a_trace_of_its_own() -> None:
    seen = set()
    for _ in range(100):
        begin("request-1")
        seen.add(trace.trace_id())
    assert len(seen) == 100


def test_without_a_caller_the_trace_is_x_rays(monkeypatch: pytest.MonkeyPatch) -> None:
    root = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
    monkeypatch.setenv("_X_AMZN_TRACE_ID", root)
    begin("request-1")
    assert trace.trace_id() == "5759e988bd862e3fe1be46a994272793"
    begin("request-1", parent=GIVEN)
    assert trace.trace_id() == TRACE


@pytest.mark.parametrize("given", ["", "Root=1-short", "Self=1-2", "Root=1-5759e988-XX;Sampled=0"])
def test_another_form_of_x_rays_header_is_ignored(given: str) -> None:
    assert aws.xray_trace_id({"_X_AMZN_TRACE_ID": given}) == ""


def test_following_restores_the_correlation_id() -> None:
    begin("delivery-1")
    with follow("request-1", GIVEN):
        assert correlation_id.get() == "request-1"
    assert correlation_id.get() == "delivery-1"
    with follow(""):
        assert correlation_id.get() == "delivery-1"


def test_every_log_line_names_its_trace(environment: pytest.MonkeyPatch) -> None:
    logs = captured_log(environment)
    answer = http.entrypoint({"GET /v1/x": nothing}, public=("GET /v1/x",))(
        event("GET /v1/x", None, headers={"traceparent": GIVEN}), CONTEXT
    )
    assert answer["statusCode"] == 204
    assert json.loads(logs.getvalue().splitlines()[-1])["trace_id"] == TRACE


def nothing(call: http.Call) -> None:
    """Answer 204."""


# ---- spans


def test_nothing_is_recorded_without_a_collector() -> None:
    begin("request-1")
    assert not trace.is_recording()
    with trace.span("SELECT"):
        pass
    trace.end()
    assert trace.taken() == []


def test_a_caller_that_does_not_sample_is_not_recorded(collector: Server) -> None:
    begin("request-1", parent=f"00-{TRACE}-{SPAN}-00")
    assert not trace.is_recording()
    assert trace.current().endswith("-00")


def test_a_request_is_sent_with_what_it_did(collector: Server) -> None:
    def work(call: http.Call) -> None:
        with trace.span("SELECT asset", db__query__text="SELECT 1"):
            pass

    handle = http.entrypoint({"GET /v1/x": work}, public=("GET /v1/x",))
    handle(event("GET /v1/x", None, headers={"traceparent": GIVEN}), CONTEXT)
    root, statement = spans(collector)
    assert (root["name"], root["kind"], root["traceId"]) == ("GET /v1/x", trace.SERVER, TRACE)
    assert root["parentSpanId"] == SPAN
    assert (statement["name"], statement["parentSpanId"]) == ("SELECT asset", root["spanId"])
    assert {"key": "db.query.text", "value": {"stringValue": "SELECT 1"}} in statement["attributes"]
    assert int(root["startTimeUnixNano"]) <= int(statement["startTimeUnixNano"])
    assert int(statement["endTimeUnixNano"]) <= int(root["endTimeUnixNano"])
    assert [request.path for request in collector.requests] == ["/v1/traces"]


def test_a_unit_that_fails_says_with_what(collector: Server) -> None:
    @invoked
    def handler(given: object, context: object) -> None:
        with trace.span("work"):
            raise ZeroDivisionError("a value of a row")

    with pytest.raises(ZeroDivisionError):
        handler({}, CONTEXT)
    assert [span["status"]["message"] for span in spans(collector)] == ["ZeroDivisionError"] * 2
    assert "a value of a row" not in str(spans(collector))


def test_a_link_names_what_caused_the_unit_once(collector: Server) -> None:
    begin("request-1", caused_by=GIVEN)
    with follow("request-2", GIVEN):
        trace.describe("process X")
    finish()
    [root] = spans(collector)
    assert root["links"] == [{"traceId": TRACE, "spanId": SPAN}]
    [ids] = [a["value"] for a in root["attributes"] if a["key"] == "kyora.correlation_ids"]
    assert [v["stringValue"] for v in ids["arrayValue"]["values"]] == ["request-1", "request-2"]


def test_a_unit_keeps_a_thousand_spans_at_most(collector: Server) -> None:
    begin("request-1")
    for _ in range(1200):
        with trace.span("SELECT"):
            pass
    trace.end()
    assert len(trace.taken()) == 1001


# ---- the collector


def at(environment: pytest.MonkeyPatch, url: str) -> None:
    environment.setenv("TRACE_OTLP_ENDPOINT", url)
    config.forget()
    otlp._paused_until.clear()


def test_a_collector_that_is_down_fails_nothing_and_is_left_alone(
    environment: pytest.MonkeyPatch,
) -> None:
    logs = captured_log(environment)
    at(environment, "http://127.0.0.1:9")
    for _ in range(3):
        answer = http.entrypoint({"GET /v1/x": nothing}, public=("GET /v1/x",))(
            event("GET /v1/x"), CONTEXT
        )
        assert answer["statusCode"] == 204
    assert logs.getvalue().count("spans not sent") == 1


def test_a_collector_that_never_answers_is_waited_for_once(
    environment: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        at(environment, f"http://127.0.0.1:{silent.getsockname()[1]}")
        for _ in range(5):
            begin("request-1")
            trace.describe("x")
            finish()
        silent.accept()[0].close()
        silent.setblocking(False)
        with pytest.raises(BlockingIOError):
            silent.accept()


def test_a_refusal_of_the_collector_is_logged_with_its_status(
    environment: pytest.MonkeyPatch,
) -> None:
    logs = captured_log(environment)
    environment.setattr(otlp, "_PATIENCE", 60)
    with scripted(lambda _: Answer(503, b"")) as server:
        at(environment, server.url)
        begin("request-1")
        trace.describe("x")
        finish()
    hang_up()
    assert json.loads(logs.getvalue().splitlines()[-1])["status"] == 503


@pytest.mark.parametrize(
    ("stage", "url", "good"),
    [
        ("prod", "https://collector.example", True),
        ("prod", "http://localhost:4318", True),
        ("prod", "http://127.0.0.1:4318", True),
        ("prod", "http://collector.example:4318", False),
        ("prod", "http://localhost.example:4318", False),
        ("prod", "https://user:password@collector.example", False),
        ("prod", "collector", False),
        ("local", "http://10.0.0.1:4318", True),
    ],
)
def test_only_a_collector_on_the_same_machine_may_be_asked_in_the_clear(
    stage: str, url: str, good: bool
) -> None:
    given = {"STAGE": stage, "TRACE_OTLP_ENDPOINT": url}
    if good:
        assert config.load(config.trace, given, str).otlp_endpoint == url
    else:
        with pytest.raises(config.ConfigError, match="TRACE_OTLP_ENDPOINT"):
            config.load(config.trace, given, str)


def test_a_wrong_address_is_reported_at_the_start(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("TRACE_OTLP_ENDPOINT", "collector")
    config.forget()
    with pytest.raises(config.ConfigError, match="TRACE_OTLP_ENDPOINT"):
        config.require()


def test_without_a_collector_its_client_is_not_even_imported() -> None:
    code = (
        "import sys\n"
        "from kyora.observability import begin, finish\n"
        "begin('request-1'); finish()\n"
        "print([name for name in sys.modules if 'opentelemetry' in name\n"
        "       or name in ('kyora.otlp', 'kyora.timed_http', 'http.client')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": "layers/kyora", "STAGE": "test"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_a_message_is_a_unit_that_links_to_its_cause_after_its_wait(collector: Server) -> None:
    caused = json.dumps(
        {"detail-type": "UserWelcomed", "detail": detail("UserWelcomed", traceparent=GIVEN)}
    )
    messages = batch(caused, caused, caused)
    for record, sent in zip(
        messages["Records"], ({"SentTimestamp": "1000"}, {}, None), strict=True
    ):
        record["attributes"] = sent
    invoked(lambda given, context: consume(given, lambda _: None))(messages, CONTEXT)
    found = [span for span in spans(collector) if span["kind"] == trace.CONSUMER]
    assert [span["name"] for span in found] == ["process UserWelcomed"] * 3
    assert {span["links"][0]["traceId"] for span in found} == {TRACE}
    assert len({span["traceId"] for span in found}) == 3
    [event_id] = {
        a["value"]["stringValue"]
        for span in found
        for a in span["attributes"]
        if a["key"] == "kyora.event_id"
    }
    assert event_id == json.loads(caused)["detail"]["id"]
    [wait] = [span for span in spans(collector) if span["name"] == "wait in the queue"]
    assert wait["startTimeUnixNano"] == "1000000000"
