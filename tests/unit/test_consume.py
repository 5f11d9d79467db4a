"""What a consumer does with each message of a batch."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from kyora import postgres
from kyora.bus.consume import consume, consume_aws
from kyora.bus.events import Event
from kyora.bus.outcomes import Again, Permanent
from kyora.observability import correlation_id, logger
from tests.cloud import DEAD, QUEUE, Cloud, batch, cloud, detail
from tests.scripted import Answer


@pytest.fixture
def aws(environment: pytest.MonkeyPatch) -> Iterator[Cloud]:
    with cloud() as found:
        environment.setenv("AWS_ENDPOINT_URL", found.url)
        yield found


@pytest.fixture
def logs(environment: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    stream = io.StringIO()
    handlers = [h for h in logger().handlers if isinstance(h, logging.StreamHandler)]
    before = [handler.setStream(stream) for handler in handlers]
    yield stream
    for handler, old in zip(handlers, before, strict=True):
        handler.setStream(old or handler.stream)


def lines(logs: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in logs.getvalue().splitlines()]


def body(name: str = "UserWelcomed", **changed: Any) -> str:
    return json.dumps({"detail-type": name, "detail": detail(name, **changed)})


def done(event: Event[Any]) -> None:
    """Handle it."""


def failed(answer: dict[str, Any]) -> list[str]:
    assert set(answer) == {"batchItemFailures"}
    return [item["itemIdentifier"] for item in answer["batchItemFailures"]]


def test_what_is_handled_is_done_with(aws: Cloud) -> None:
    seen = []
    assert failed(consume(batch(body(id="evt_a"), body(id="evt_b")), seen.append)) == []
    assert [event.id for event in seen] == ["evt_a", "evt_b"]
    assert aws.calls == []


BROKEN = [
    "",
    "not json",
    "[]",
    "null",
    "7",
    "{}",
    '{"detail-type": "UserWelcomed"}',
    '{"detail-type": null, "detail": {}}',
    body(version=2),
    body(data={"email": "hush@example.com"}),
    json.dumps({"detail-type": "NoSuchEvent", "detail": detail()}),
]


@pytest.mark.parametrize("broken", BROKEN)
def test_what_no_one_can_read_is_dead_lettered_and_the_rest_goes_on(
    broken: str, aws: Cloud, logs: io.StringIO
) -> None:
    seen: list[str] = []
    event = batch(body(id="evt_a"), broken, body(id="evt_b"))
    assert failed(consume(event, lambda e: seen.append(e.id))) == []
    assert seen == ["evt_a", "evt_b"]
    [message] = aws.sent(DEAD)
    assert message["MessageBody"] == broken
    reason = message["MessageAttributes"]["Reason"]["StringValue"]
    assert message["MessageAttributes"]["Reason"]["DataType"] == "String"  # SQS asks for it
    [asked] = [payload for operation, payload in aws.calls if operation == "GetQueueAttributes"]
    assert asked["AttributeNames"] == ["RedrivePolicy"]
    assert asked["QueueUrl"].endswith(f"/{QUEUE}")
    [line] = [entry for entry in lines(logs) if entry["message"] == "message dead-lettered"]
    assert line["reason"].split()[0] == reason
    assert "hush" not in logs.getvalue()


@pytest.mark.parametrize("operation", ["GetQueueAttributes", "SendMessage"])
@pytest.mark.parametrize("status", [400, 503])
def test_without_the_dead_letter_queue_the_message_stays(
    operation: str, status: int, aws: Cloud, logs: io.StringIO
) -> None:
    """SQS moves it automatically after the last delivery."""
    refusal = Answer(status, b'{"__type": "com.amazonaws.sqs#AccessDenied"}')
    aws.interfere = lambda called, _: refusal if called == operation else None
    assert failed(consume(batch(body(version=2), body()), done)) == ["m0"]


@pytest.mark.parametrize("policy", [None, "none", "{}"])
def test_a_queue_without_a_dead_letter_queue_keeps_the_message(
    policy: str | None, aws: Cloud
) -> None:
    found = {"Attributes": {"RedrivePolicy": policy}} if policy else {}
    aws.interfere = lambda called, _: Answer(body=json.dumps(found).encode())
    assert failed(consume(batch(body(version=2)), done)) == ["m0"]


def test_a_handler_may_give_a_message_up(aws: Cloud) -> None:
    def handle(event: Event[Any]) -> None:
        raise Permanent("email.no_such_template")

    assert failed(consume(batch(body()), handle)) == []
    [message] = aws.sent(DEAD)
    assert message["MessageAttributes"]["Reason"]["StringValue"] == "email.no_such_template"


@pytest.mark.parametrize(
    "changed",
    [
        {"occurredAt": "9999-12-31T23:59:59-12:00"},
        {"workspaceId": "ws_\0"},
        {"workspaceId": "ws_\ud800"},
    ],
    ids=str,
)
def test_what_no_database_holds_is_dead_lettered_at_once(
    changed: dict[str, str], aws: Cloud
) -> None:
    assert failed(consume(batch(body(**changed)), done)) == []
    [message] = aws.sent(DEAD)
    assert message["MessageAttributes"]["Reason"]["StringValue"] in (
        "event.unstorable",
        "event.invalid",
    )


def test_a_value_that_postgres_refuses_is_dead_lettered_at_once(aws: Cloud, database: str) -> None:
    """What no check foresaw: a detail of another service's event, for instance."""

    def handle(detail: dict[str, Any]) -> bool:
        with postgres.transaction() as tx:
            tx.row("SELECT CAST(:key AS text) AS key", key=detail["key"])
        return True

    keys = ("fine", "a\0b", "\ud800")
    messages = [json.dumps({"detail": {"key": key}}) for key in keys]
    assert failed(consume_aws(batch(*messages), handle)) == []
    reasons = [m["MessageAttributes"]["Reason"]["StringValue"] for m in aws.sent(DEAD)]
    assert reasons == ["event.unstorable", "event.unstorable"]


def test_again_sets_when_the_message_comes_back(aws: Cloud) -> None:
    def handle(event: Event[Any]) -> None:
        if event.id == "evt_late":
            raise Again(41.6)

    assert failed(consume(batch(body(), body(id="evt_late")), handle)) == ["m1"]
    assert aws.calls == [
        (
            "ChangeMessageVisibility",
            {
                "QueueUrl": f"{aws.url}/000000000000/{QUEUE}",
                "ReceiptHandle": "handle-m1",
                "VisibilityTimeout": 42,
            },
        )
    ]


@pytest.mark.parametrize(("asked", "given"), [(-3, 0), (0, 0), (100_000, 43_200)])
def test_again_stays_within_what_sqs_takes(asked: float, given: int, aws: Cloud) -> None:
    def handle(event: Event[Any]) -> None:
        raise Again(asked)

    assert failed(consume(batch(body()), handle)) == ["m0"]
    assert aws.calls[0][1]["VisibilityTimeout"] == given


def test_again_still_comes_back_when_sqs_refuses(aws: Cloud) -> None:
    def handle(event: Event[Any]) -> None:
        raise Again(5)

    aws.interfere = lambda *_: Answer(400, b'{"__type": "InvalidParameterValue"}')
    assert failed(consume(batch(body()), handle)) == ["m0"]


def test_a_wait_that_does_not_count_is_a_new_message(aws: Cloud) -> None:
    def handle(event: Event[Any]) -> None:
        raise Again(3600, counted=False)

    event = batch(body())
    assert failed(consume(event, handle)) == []
    [message] = aws.sent(QUEUE)
    assert (message["MessageBody"], message["DelaySeconds"]) == (event["Records"][0]["body"], 900)
    aws.interfere = lambda *_: Answer(400, b'{"__type": "AccessDenied"}')
    assert failed(consume(event, handle)) == ["m0"]


def test_a_failure_is_delivered_again_and_logged_without_its_text(
    aws: Cloud, logs: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    def handle(event: Event[Any]) -> None:
        if event.id == "evt_bad":
            raise RuntimeError(f"cannot mail {event.data.token} to {event.data.email}")

    bodies = (body("PasswordResetRequested", id="evt_bad"), body())
    assert failed(consume(batch(*bodies), handle)) == ["m0"]
    assert capsys.readouterr().out.count('"ConsumerErrors":[1.0]') == 1
    [line] = lines(logs)
    assert (line["message"], line["error"]) == ("message failed", "RuntimeError")
    assert any("test_consume.py" in place and "handle" in place for place in line["at"])
    assert "sample" not in logs.getvalue()
    assert "resend.dev" not in logs.getvalue()


def test_what_fails_stays_away_longer_each_time(aws: Cloud) -> None:
    def handle(event: Event[Any]) -> None:
        raise RuntimeError

    for count in range(1, 12):
        event = batch(body())
        event["Records"][0]["attributes"]["ApproximateReceiveCount"] = str(count)
        assert failed(consume(event, handle)) == ["m0"]
    waits = [payload["VisibilityTimeout"] for _, payload in aws.calls]
    for count, wait in enumerate(waits):
        longest = min(900, 20 * 2**count)
        assert longest / 2 <= wait <= longest
    assert len(set(waits[6:])) > 1  # not all at the same moment


def test_a_failure_without_a_count_waits_as_the_first_one(aws: Cloud) -> None:
    event = batch(body())
    event["Records"][0] |= {"attributes": {}}

    def handle(detail: dict[str, Any]) -> bool:
        raise RuntimeError

    for _ in range(20):  # whole seconds, and half of each wait is drawn by lot
        assert failed(consume_aws(event, handle)) == ["m0"]
    waits = [payload["VisibilityTimeout"] for _, payload in aws.calls]
    assert min(waits) >= 10
    assert 10 < max(waits) <= 20


def test_the_correlation_id_is_the_events_while_it_is_handled(
    aws: Cloud, logs: io.StringIO
) -> None:
    seen = []

    def handle(event: Event[Any]) -> None:
        seen.append(correlation_id.get())
        logger().info("handled")
        if event.id == "evt_b":
            raise RuntimeError

    bodies = (
        body(id="evt_a", correlationId="req-1"),
        body(id="evt_b", correlationId="req-2"),
        "not json",
        body(version=3, correlationId="req-4"),
    )
    consume(batch(*bodies), handle)
    assert seen == ["req-1", "req-2"]
    found = [
        (line["message"], line["correlation_id"], line.get("event_id")) for line in lines(logs)
    ]
    assert [line.get("event") for line in lines(logs)[:2]] == ["UserWelcomed"] * 2
    assert found == [
        ("handled", "req-1", "evt_a"),
        ("handled", "req-2", "evt_b"),
        ("message failed", "req-2", None),
        ("message dead-lettered", "m2", None),
        ("message dead-lettered", "req-4", None),
    ]


def test_an_event_of_aws_is_handled_by_its_detail(aws: Cloud) -> None:
    bodies = [json.dumps({"detail": {"key": key}}) for key in ("done", "later", "fails")]

    def handle(detail: dict[str, Any]) -> bool:
        if detail["key"] == "fails":
            raise RuntimeError
        return bool(detail["key"] == "done")

    event = batch(*bodies, "not json", '{"detail": 7}')
    assert failed(consume_aws(event, handle)) == ["m1", "m2"]
    waits = [payload["VisibilityTimeout"] for name, payload in aws.calls if "Visibility" in name]
    assert [10 <= wait <= 20 for wait in waits] == [True, True], "the queue's own is half an hour"
    assert [message["MessageBody"] for message in aws.sent(DEAD)] == ["not json", '{"detail": 7}']
    reasons = [m["MessageAttributes"]["Reason"]["StringValue"] for m in aws.sent(DEAD)]
    assert reasons == ["event.not_json", "event.invalid"]


def test_of_a_correlation_id_that_is_too_long_a_log_has_the_beginning(
    aws: Cloud, logs: io.StringIO
) -> None:
    assert failed(consume(batch(body(correlationId="c" * 300)), done)) == []
    [line] = lines(logs)
    assert (line["message"], line["correlation_id"]) == ("message dead-lettered", "c" * 255)
