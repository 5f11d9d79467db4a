"""`make emit`, `redrive` and `events` on a deployed stack: what AWS is asked for."""

import contextlib
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kyora.bus.events import parse
from kyora.bus.names import SENSITIVE
from local import progress
from local.commands import dead_letters, events, place
from local.progress import Trouble
from local.tools.event_samples import sample
from tests.cloud import ARN, Cloud, cloud
from tests.scripted import Answer


@pytest.fixture
def aws(environment: pytest.MonkeyPatch) -> Iterator[Cloud]:
    with cloud() as found:
        environment.setenv("AWS_ENDPOINT_URL", found.url)
        environment.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield found


def answers(aws: Cloud, **by_operation: Any) -> None:
    """Answer operations with these; a list is answered one after another."""

    def answer(operation: str, payload: dict[str, Any]) -> Answer | None:
        found = by_operation.get(operation)
        if isinstance(found, list):
            found = found.pop(0)
        if isinstance(found, Answer):
            return found
        if operation == "GetQueueUrl":
            found = {"QueueUrl": f"{aws.url}/000000000000/{payload['QueueName']}"}
        return None if found is None else Answer(body=json.dumps(found).encode())

    aws.interfere = answer


def asked(aws: Cloud, operation: str) -> list[dict[str, Any]]:
    return [payload for called, payload in aws.calls if called == operation]


def test_an_event_goes_straight_to_the_bus_of_the_stage(aws: Cloud) -> None:
    event_id = events.emit(place.find("staging"), "UserWelcomed", None)
    [entry] = aws.entries
    assert (entry["EventBusName"], entry["Source"]) == ("kyora-staging", "kyora.accounts")
    found = parse(entry["DetailType"], json.loads(entry["Detail"]))
    assert found.id == event_id
    assert found.correlation_id.startswith("emit_")


def test_a_refused_entry_is_a_failure(aws: Cloud) -> None:
    aws.refuse = lambda _: "InternalFailure"
    with pytest.raises(Trouble, match="InternalFailure"):
        events.emit(place.find("dev"), "UserWelcomed", None)


def test_prod_gets_no_sample_events(aws: Cloud, tmp_path: Path) -> None:
    with pytest.raises(Trouble, match="FILE="):
        events.emit(place.find("prod"), "UserWelcomed", None)
    file = tmp_path / "real.json"
    file.write_text('{"email": "dana@example.com"}')
    events.emit(place.find("prod"), "UserWelcomed", file)
    assert len(aws.entries) == 1


def test_a_stage_that_is_not_configured_is_refused() -> None:
    with pytest.raises(Trouble, match="no environment 'production'"):
        place.find("production")


def attributes(name: str, count: int) -> dict[str, Any]:
    return {
        "Attributes": {"QueueArn": f"{ARN}{name}", "ApproximateNumberOfMessages": str(count)},
    }


def queues(count: int) -> list[dict[str, Any]]:
    return [attributes("kyora-dev-emails-dead", count), attributes("kyora-dev-emails", 0)]


@pytest.mark.parametrize("name", ["emails", "emails-dead", "kyora-dev-emails-dead"])
def test_dead_letters_are_moved_by_sqs(name: str, aws: Cloud) -> None:
    done = {"Status": "COMPLETED", "ApproximateNumberOfMessagesMoved": 7}
    running = [{"Status": "RUNNING"}] if name == "emails" else []  # asked again after a second
    answers(
        aws,
        GetQueueAttributes=queues(7),
        StartMessageMoveTask={"TaskHandle": "t"},
        ListMessageMoveTasks=[{"Results": [task]} for task in [*running, done]],
    )
    assert dead_letters.redrive(place.find("dev"), name) == 7
    assert [found["QueueName"] for found in asked(aws, "GetQueueUrl")] == [
        "kyora-dev-emails-dead",
        "kyora-dev-emails",
    ]
    looked = {"SourceArn": f"{ARN}kyora-dev-emails-dead", "MaxResults": 1}
    assert asked(aws, "ListMessageMoveTasks") == [looked] * (len(running) + 1)
    assert [found["AttributeNames"] for found in asked(aws, "GetQueueAttributes")] == [["All"]] * 2
    # The destination is named: SQS knows no source of what a consumer put there itself.
    assert asked(aws, "StartMessageMoveTask") == [
        {
            "SourceArn": f"{ARN}kyora-dev-emails-dead",
            "DestinationArn": f"{ARN}kyora-dev-emails",
        }
    ]


def test_a_move_that_fails_says_why(aws: Cloud) -> None:
    failed = {"Status": "FAILED", "FailureReason": "AccessDenied"}
    answers(
        aws,
        GetQueueAttributes=queues(1),
        StartMessageMoveTask={"TaskHandle": "t"},
        ListMessageMoveTasks={"Results": [failed]},
    )
    with pytest.raises(Trouble, match="AccessDenied"):
        dead_letters.redrive(place.find("dev"), "emails")


def test_an_empty_queue_is_left_alone(aws: Cloud) -> None:
    answers(aws, GetQueueAttributes=queues(0))
    assert dead_letters.redrive(place.find("dev"), "emails") == 0
    assert asked(aws, "StartMessageMoveTask") == []


def test_an_unknown_queue_is_refused_with_those_that_can_be_redriven(aws: Cloud) -> None:
    missing = Answer(400, b'{"__type": "com.amazonaws.sqs#QueueDoesNotExist", "message": "no"}')
    names = ("uploads", "uploads-dead", "emails", "emails-dead", "jobs-dead")
    answers(
        aws,
        GetQueueUrl=missing,
        ListQueues={"QueueUrls": [f"{aws.url}/0/kyora-dev-{name}" for name in names]},
    )
    with pytest.raises(Trouble, match=r"there are emails, uploads$"):
        dead_letters.redrive(place.find("dev"), "jobs")


def local(aws: Cloud) -> place.Place:
    return place.Place("local", {"AWS_ENDPOINT_URL": aws.url})


def local_queues(count: int) -> list[dict[str, Any]]:
    return [attributes("kyora-local-emails-dead", count), attributes("kyora-local-emails", 0)]


def letters(*names: str) -> dict[str, Any]:
    return {
        "Messages": [
            {"MessageId": name, "ReceiptHandle": f"handle-{name}", "Body": f"body of {name}"}
            for name in names
        ]
    }


def test_dead_letters_of_the_local_stack_are_carried_one_by_one(
    aws: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    answers(
        aws,
        GetQueueAttributes=local_queues(12),
        ReceiveMessage=[letters(*"abcdefghij"), letters("k"), letters("l")],
    )
    assert dead_letters.redrive(local(aws), "emails") == 12
    live, dead = (f"{aws.url}/000000000000/kyora-local-emails{end}" for end in ("", "-dead"))
    assert asked(aws, "ReceiveMessage") == [
        {"QueueUrl": dead, "MaxNumberOfMessages": most, "VisibilityTimeout": 30}
        for most in (10, 2, 1)
    ]
    assert asked(aws, "SendMessage") == [
        {"QueueUrl": live, "MessageBody": f"body of {name}"} for name in "abcdefghijkl"
    ]
    assert asked(aws, "DeleteMessage") == [
        {"QueueUrl": dead, "ReceiptHandle": f"handle-{name}"} for name in "abcdefghijkl"
    ]
    # It is sent before it is deleted: a failure between leaves it twice, not nowhere.
    assert [operation for operation, _ in aws.calls if "Message" in operation][1:3] == [
        "SendMessage",
        "DeleteMessage",
    ]
    assert "12 of 12 messages are back in kyora-local-emails\n" in capsys.readouterr().out


def test_one_dead_letter_is_moved_and_the_others_are_seen_again_at_once(aws: Cloud) -> None:
    answers(
        aws,
        GetQueueAttributes=local_queues(4),
        ReceiveMessage=[letters("a", "b"), letters("c", "d"), letters("e")],
    )
    assert dead_letters.redrive(local(aws), "emails", only="c") == 1
    dead = f"{aws.url}/000000000000/kyora-local-emails-dead"
    assert [sent["MessageBody"] for sent in asked(aws, "SendMessage")] == ["body of c"]
    assert asked(aws, "ChangeMessageVisibility") == [
        {"QueueUrl": dead, "ReceiptHandle": f"handle-{name}", "VisibilityTimeout": 0}
        for name in "abd"
    ]
    assert len(asked(aws, "ReceiveMessage")) == 2


def test_dead_letters_that_someone_else_took_are_not_waited_for(
    aws: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    answers(aws, GetQueueAttributes=local_queues(3), ReceiveMessage=[letters("a"), {}])
    assert dead_letters.redrive(local(aws), "emails") == 1
    assert "1 of 3 messages are back" in capsys.readouterr().out


def test_the_queues_of_a_stack_are_listed_page_by_page(aws: Cloud) -> None:
    pages = [
        {
            "QueueUrls": [f"{aws.url}/0/kyora-dev-{name}" for name in ("a", "b-dead")],
            "NextToken": "n",
        },
        {"QueueUrls": [f"{aws.url}/0/kyora-dev-c"]},
    ]
    answers(aws, ListQueues=pages)
    where = place.find("dev")
    assert dead_letters.queue_urls(where.client("sqs"), where) == {
        name: f"{aws.url}/0/kyora-dev-{name}" for name in ("a", "b-dead", "c")
    }
    assert [page["QueueNamePrefix"] for page in asked(aws, "ListQueues")] == ["kyora-dev-"] * 2


def test_a_tail_on_aws_sees_no_token_and_leaves_nothing_behind(
    aws: Cloud, environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from kyora.bus import outbox

    detail = outbox.envelope("evt_1", *sample("UserWelcomed"))
    message = {"Body": json.dumps({"detail-type": "UserWelcomed", "detail": detail})}
    answers(
        aws,
        CreateQueue={"QueueUrl": f"{aws.url}/000000000000/tail"},
        GetQueueAttributes=attributes("tail", 0),
        PutRule={"RuleArn": "arn:aws:events:eu-west-1:000000000000:rule/tail"},
        ReceiveMessage=[
            {"Messages": [message | {"MessageId": "m", "ReceiptHandle": "r"}]},
            Answer(403, b'{"__type": "AccessDeniedException", "message": "enough"}'),
        ],
        RemoveTargets={"FailedEntryCount": 0},
    )
    with pytest.raises(Exception, match="AccessDenied"):
        events.tail(place.find("dev"))
    [rule] = asked(aws, "PutRule")
    pattern = json.loads(rule["EventPattern"])
    assert set(pattern["detail-type"][0]["anything-but"]) == SENSITIVE
    assert rule["EventBusName"] == "kyora-dev"
    for operation in ("RemoveTargets", "DeleteRule", "DeleteQueue", "DeleteMessage"):
        assert len(asked(aws, operation)) == 1, operation
    shown = capsys.readouterr().out
    assert "evt_1" in shown
    assert "delivered@" not in shown


CONTROLS = {
    "C0": "\x1b[2J",
    "a bell": "\x07",
    "delete": "\x7f",
    "C1, which a terminal takes for ESC [": "\x9b2J",
    "an operating system command": "\x9d0;title\x9c",
    "bidi overrides": "\u202eevil\u202c",
    "bidi isolates": "\u2066x\u2069",
    "marks of direction": "\u200e\u200f\u061c",
    "separators": "\u2028\u2029",
    "a line": "one\ntwo\r",
    "what nobody sees": "a\u200b\ufeff\U000e0041",
    "half a letter": "\ud800",
}


@pytest.mark.parametrize("name", CONTROLS)
@pytest.mark.parametrize("place", ["workspaceId", "correlationId", "id", "data"])
def test_no_part_of_an_event_reaches_the_terminal_as_a_control(place: str, name: str) -> None:
    detail = {
        "id": "evt_1",
        "occurredAt": "2026-11-23T07:36:09Z",
        "correlationId": "c",
        "workspaceId": "ws",
        "data": {"name": "x"},
    }
    detail[place] = {"name": CONTROLS[name]} if place == "data" else CONTROLS[name]
    for found in (
        events.line({"detail-type": "UserWelcomed", "detail": detail}),
        events.line(
            {"detail-type": CONTROLS[name], "detail": detail, "replay-name": CONTROLS[name]}
        ),
    ):
        assert found.isprintable(), ascii(found)


@pytest.mark.parametrize(
    "text", ["ليلى", "می\u200cخواهم", "👨\u200d👩\u200d👧", "Olive & Thyme", "naïve ü"]
)
def test_letters_are_shown_as_they_are(text: str) -> None:
    assert progress.shown(text) == text


@given(st.text())
def test_whatever_is_said_is_lines_that_a_terminal_prints(text: str) -> None:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        progress.say(text)
        progress.say(progress.shown(text))
    found = out.getvalue()
    assert found.count("\n") == text.count("\n") + 2
    assert not re.search(
        r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", found
    )
