"""An answer of EventBridge, entry by entry: published, tried again, or refused for good."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from kyora import aws, clock, trace
from kyora.bus import outbox
from kyora.bus.outbox import _Failure
from kyora.observability import begin
from tests.scripted import Answer, Request, Server, in_turn, scripted

type Bus = Callable[..., Server]


def row(number: int = 1, detail: str = '{"id": "evt_1"}') -> dict[str, Any]:
    named = {"source": "kyora.billing", "detail_type": f"Event{number}"}
    return named | {"detail": detail, "id": f"evt_{number}"}


def answered(*entries: object) -> Answer:
    return Answer(body=json.dumps({"FailedEntryCount": 0, "Entries": entries}).encode())


@pytest.fixture
def bus(environment: pytest.MonkeyPatch) -> Iterator[Bus]:
    """Answers in turn, the last one for ever."""
    running = []

    def start(*answers: Answer) -> Server:
        running.append(scripted(in_turn(*answers)))
        server = running[-1].__enter__()
        environment.setenv("AWS_ENDPOINT_URL", server.url)
        return server

    yield start
    for one in running:
        one.__exit__(None, None, None)
    while aws._connections:
        aws._connections.popitem()[1].close()


def entries(request: Request) -> list[str]:
    return [entry["DetailType"] for entry in json.loads(request.body)["Entries"]]


def test_rows_are_put_on_the_bus_as_they_are(bus: Bus) -> None:
    server = bus(answered({"EventId": "1"}))
    assert outbox._put([row()]) == [None]
    [request] = server.requests
    assert request.headers["x-amz-target"] == "AWSEvents.PutEvents"
    assert json.loads(request.body) == {
        "Entries": [
            {
                "EventBusName": "kyora-test",
                "Source": "kyora.billing",
                "DetailType": "Event1",
                "Detail": '{"id": "evt_1"}',
            }
        ]
    }


def test_each_entry_has_its_own_answer(bus: Bus) -> None:
    bus(
        answered(
            {"EventId": "1"},
            {"ErrorCode": "InternalFailure", "ErrorMessage": "try again"},
            {"ErrorCode": "MalformedDetail", "ErrorMessage": "no"},
            {"ErrorCode": "ThrottlingException"},
            {"EventId": ""},
            7,
        )
    )
    assert outbox._put([row(n) for n in range(6)]) == [
        None,
        _Failure("InternalFailure: try again", for_good=False),
        _Failure("MalformedDetail: no", for_good=True),
        _Failure("ThrottlingException: ", for_good=False),
        _Failure("Unknown: ", for_good=False),
        _Failure("Unknown: ", for_good=False),
    ]


@pytest.mark.parametrize(
    ("code", "for_good"),
    [
        ("InvalidArgument", True),
        ("MalformedDetail", True),
        ("RedactionFailure", True),
        ("ValidationException", True),
        ("AccessDeniedException", False),
        ("InternalFailure", False),
    ],
)
def test_an_entry_that_will_never_be_accepted_is_refused_for_good(
    code: str, for_good: bool, bus: Bus
) -> None:
    bus(answered({"ErrorCode": code, "ErrorMessage": "why"}))
    assert outbox._put([row()]) == [_Failure(f"{code}: why", for_good)]
    # The same code for the whole call, with the size of what it is about.
    bus(Answer(400, json.dumps({"__type": f"com.amazonaws#{code}"}).encode()))
    said = f"{code} (15 bytes)" if for_good else code
    assert outbox._put([row()]) == [_Failure(said, for_good)]


def test_a_long_reason_is_cut_off(bus: Bus) -> None:
    bus(answered({"ErrorCode": "InternalFailure", "ErrorMessage": "x" * 900}))
    [failure] = outbox._put([row()])
    assert failure == _Failure(f"InternalFailure: {'x' * 483}", for_good=False)


def test_a_call_that_is_too_large_says_how_large_its_event_is(bus: Bus) -> None:
    bus(Answer(413, b""))
    assert outbox._put([row(detail='"ä"')]) == [
        _Failure("too large for EventBridge: 4 bytes (413)", for_good=True)
    ]


def test_another_refusal_is_named_by_its_status(bus: Bus) -> None:
    bus(Answer(403, b""))
    assert outbox._put([row()]) == [_Failure("refused with 403", for_good=False)]


def test_of_a_call_that_is_refused_every_entry_is_tried_alone(bus: Bus) -> None:
    server = bus(Answer(413, b""), answered({"EventId": "1"}), Answer(413, b""))
    assert outbox._put([row(1), row(2)]) == [
        None,
        _Failure("too large for EventBridge: 15 bytes (413)", for_good=True),
    ]
    assert [entries(one) for one in server.requests] == [
        ["Event1", "Event2"],
        ["Event1"],
        ["Event2"],
    ]


def test_without_an_answer_every_entry_waits_and_nothing_is_repeated(bus: Bus) -> None:
    """The outbox repeats it itself, later."""
    server = bus(Answer(500, b"{}"))
    assert outbox._put([row(1), row(2)]) == [_Failure("service.unavailable", for_good=False)] * 2
    assert len(server.requests) == 1


@pytest.mark.parametrize("found", [[], [{"EventId": "1"}] * 2, "entries", None])
def test_an_answer_about_other_entries_is_none(found: object, bus: Bus) -> None:
    bus(Answer(body=json.dumps({"Entries": found}).encode()))
    assert outbox._put([row()]) == [
        _Failure("PutEvents answered with another number of entries", for_good=False)
    ]


# ---- the event itself


def test_an_event_says_what_happened_when_and_where() -> None:
    begin("corr_1")
    moment = datetime(2026, 3, 4, 5, 6, 7, 891_234, timezone(timedelta(hours=2)))
    assert outbox.envelope("evt_1", {"a": 1}, "ws_1", moment) == {
        "id": "evt_1",
        "occurredAt": "2026-03-04T03:06:07.891+00:00",
        "version": 1,
        "correlationId": "corr_1",
        "traceparent": trace.current(),
        "data": {"a": 1},
        "workspaceId": "ws_1",
    }


def test_an_event_of_no_workspace_does_not_name_one_and_happened_now() -> None:
    begin("")
    before = clock.now() - timedelta(milliseconds=1)
    found = outbox.envelope("evt_1", {}, None)
    assert "workspaceId" not in found
    assert found["correlationId"] == "evt_1"
    happened = datetime.fromisoformat(str(found["occurredAt"]))
    assert before <= happened <= clock.now()
    assert happened.tzinfo == UTC
