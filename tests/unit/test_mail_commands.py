"""`make mails` and `make redrive QUEUE=emails`: what a person reads, and what SQS is asked for."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from local.commands import mails, place
from local.progress import Trouble
from tests.cloud import ARN, Cloud, cloud
from tests.scripted import Answer


class Fn:
    """send_email as a command asks it: answers by what is asked, and keeps it."""

    def __init__(self, **answers: Any) -> None:
        self.answers, self.asked = answers, list[dict[str, Any]]()

    def __call__(self, event: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(event["mails"])
        [name] = event["mails"]
        found: dict[str, Any] = self.answers[name]
        return found


@pytest.fixture
def letters(environment: pytest.MonkeyPatch) -> Iterator[tuple[Cloud, list[str]]]:
    """A cloud whose dead-letter queue holds these bodies."""
    bodies: list[str] = []
    with cloud() as found:
        environment.setenv("AWS_ENDPOINT_URL", found.url)
        environment.setenv("AWS_EC2_METADATA_DISABLED", "true")

        def answer(operation: str, payload: dict[str, Any]) -> Answer | None:
            result: dict[str, Any] | None = None
            if operation == "GetQueueUrl":
                result = {"QueueUrl": f"{found.url}/0/{payload['QueueName']}"}
            elif operation == "GetQueueAttributes":
                name = payload["QueueUrl"].rpartition("/")[2]
                count = len(bodies) if name.endswith("-dead") else 0
                result = {
                    "Attributes": {
                        "QueueArn": ARN + name,
                        "ApproximateNumberOfMessages": str(count),
                    }
                }
            elif operation == "ReceiveMessage":
                taken, bodies[:] = bodies[:10], bodies[10:]
                result = {
                    "Messages": [
                        {"MessageId": f"m{n}{id(body)}", "ReceiptHandle": body, "Body": body}
                        for n, body in enumerate(taken)
                    ]
                }
            return None if result is None else Answer(body=json.dumps(result).encode())

        found.interfere = answer
        yield found, bodies


def letter(event_id: str) -> str:
    return json.dumps({"detail-type": "UserWelcomed", "detail": {"id": event_id}})


def asked(aws: Cloud, operation: str, member: str) -> list[str]:
    return [payload[member] for called, payload in aws.calls if called == operation]


def reported(event: str, move: str, why: str) -> dict[str, str]:
    mail = {"mail": f"eml_{event}", "to": "d***@e***.com"}
    return {"event": event, "move": move, "why": why, **mail}


def test_redrive_moves_what_may_be_sent_and_reports_the_rest_one_by_one(
    letters: tuple[Cloud, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    aws, bodies = letters
    bodies += [letter("evt_a"), letter("evt_b"), letter("evt_c"), letter("evt_d"), "not json"]
    ask = Fn(
        redrive={
            "events": [
                reported("evt_a", "yes", "died of not_renderable; is sent again"),
                reported("evt_b", "no", "may have been taken"),
                reported("evt_c", "stay", "may have been taken"),
                {"event": "evt_d", "move": "yes", "why": ""},  # no message of it yet
            ]
        }
    )
    before = list(bodies)
    mails.redrive(place.find("dev"), ask)
    assert ask.asked == [{"redrive": ["evt_a", "evt_b", "evt_c", "evt_d"]}]
    moved = [before[0], before[3], before[4]]
    assert asked(aws, "SendMessage", "MessageBody") == moved
    assert asked(aws, "DeleteMessage", "ReceiptHandle") == [b for b in before if b != before[2]]
    said = capsys.readouterr().out
    assert "eml_evt_a to d***@e***.com: died of not_renderable; is sent again" in said
    assert "eml_evt_b to d***@e***.com: may have been taken" in said
    assert "3 of 5 messages are back in kyora-dev-emails" in said
    assert "1 stay in the dead-letter queue" in said


def test_what_dies_again_at_once_does_not_keep_the_command_busy(
    letters: tuple[Cloud, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    aws, bodies = letters
    bodies += ["not json"]
    send = aws.interfere

    def again(operation: str, payload: dict[str, Any]) -> Answer | None:
        if operation == "SendMessage":
            bodies.append(payload["MessageBody"])
        return send(operation, payload)

    aws.interfere = again
    mails.redrive(place.find("dev"), Fn())
    assert "1 of 1 messages are back" in capsys.readouterr().out


def test_an_empty_queue_is_nothing_to_do(
    letters: tuple[Cloud, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    mails.redrive(place.find("dev"), Fn())
    assert capsys.readouterr().out == "0 of 0 messages are back in kyora-dev-emails\n"


def test_a_list_marks_what_no_one_has_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    row = {
        "id": "eml_1",
        "event": "UserWelcomed evt_1",
        "template": "welcome",
        "to": "d***@e***.com",
        "status": "dead",
        "reason": "422 validation_error",
        "at": "2026-11-26T08:30+00:00",
        "unseen": True,
    }
    ask = Fn(list={"mails": [row, row | {"id": "eml_2", "unseen": False, "reason": None}]})
    mails.show(ask, {"failed": True})
    first, second, third, *_ = capsys.readouterr().out.splitlines()
    assert first == "✗ 2026-11-26T08:30+00:00  eml_1  welcome to d***@e***.com"
    assert second.strip() == "UserWelcomed evt_1, dead: 422 validation_error"
    assert third.startswith("  2026")
    mails.show(Fn(list={"mails": []}), {})
    assert "no such mail" in capsys.readouterr().out


def test_sending_again_says_what_came_of_it(
    letters: tuple[Cloud, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    where = place.find("dev")
    mails.resend(where, Fn(resend={"status": "sent", "reason": "", "event": "evt_a"}), "eml_1")
    assert capsys.readouterr().out == "eml_1 is sent.\n"
    with pytest.raises(Trouble, match="eml_1 is not sent: it is too late"):
        mails.resend(where, Fn(resend={"refused": "it is too late"}), "eml_1")
    with pytest.raises(Trouble, match="eml_1 is dead: 503 internal"):
        mails.resend(where, Fn(resend={"status": "dead", "reason": "503 internal"}), "eml_1")


def test_a_mail_that_is_sent_leaves_no_dead_letter_and_every_other_one(
    letters: tuple[Cloud, list[str]],
) -> None:
    aws, bodies = letters
    bodies += [letter("evt_a"), letter("evt_b"), "not json"]
    before = list(bodies)
    ask = Fn(resend={"status": "sent", "reason": "", "event": "evt_a"})
    mails.resend(place.find("dev"), ask, "eml_1")
    assert asked(aws, "DeleteMessage", "ReceiptHandle") == before[:1]
    assert asked(aws, "ChangeMessageVisibility", "ReceiptHandle") == before[1:]


def test_someone_who_has_looked_clears_the_dead_letters_about_mail(
    letters: tuple[Cloud, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    aws, bodies = letters
    bodies += [letter("evt_a"), letter("evt_b"), "not json"]
    before = list(bodies)
    ask = Fn(seen={"seen": 3, "ended": ["evt_a"]})
    mails.seen(place.find("dev"), ask)
    assert ask.asked == [{"seen": ["evt_a", "evt_b"]}]
    assert asked(aws, "DeleteMessage", "ReceiptHandle") == before[:1]
    assert asked(aws, "SendMessage", "MessageBody") == []
    said = capsys.readouterr().out
    assert "3 failed mails are marked as seen, and 1 dead letters about mail dropped." in said
    assert "2 dead letters have no mail" in said


def test_looking_without_dead_letters_counts_all_the_same(
    letters: tuple[Cloud, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    mails.seen(place.find("dev"), Fn(seen={"seen": 2, "ended": []}))
    assert "2 failed mails" in capsys.readouterr().out
