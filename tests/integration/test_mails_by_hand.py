"""A dead message is no dead end: what comes back with its event, what by hand, and what is said."""

import io
import json
from typing import Any

import pytest

from kyora.email import render, retention
from kyora.email.retry import MAX_ATTEMPTS
from tests.fake_resend import FakeResend, Fault
from tests.integration.support import invariants, mail_queue
from tests.unit.functions import CONTEXT, function

WELCOME = {"email": "dana@example.com", "name": "Dana", "workspaceName": "Cups"}


def ask(**asked: Any) -> dict[str, Any]:
    found: dict[str, Any] = function("send_email").handler({"mails": asked}, CONTEXT)
    json.dumps(found)
    return found


def welcomed(count: int = 1) -> list[tuple[str, dict[str, Any]]]:
    return [("UserWelcomed", mail_queue.detail(WELCOME)) for _ in range(count)]


def redriven(events: list[tuple[str, dict[str, Any]]]) -> list[dict[str, str]]:
    """Redrive events as the command does: ask first, then bring back what is to be moved."""
    by_id = {event[1]["id"]: event for event in events}
    reported: list[dict[str, str]] = ask(redrive=list(by_id))["events"]
    mail_queue.deliver(
        *(mail_queue.record(*by_id[t["event"]]) for t in reported if t["move"] == "yes")
    )
    return reported


def row(event: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    return mail_queue.message(event[1]["id"])


# ---- certainly not taken


def test_what_could_not_be_written_is_sent_once_the_template_is_fixed(
    resend: FakeResend, post_queue: mail_queue.Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redrive used to report success, and no mail went out."""
    events = welcomed(3)
    with monkeypatch.context() as patch:
        patch.setattr(render, "MAILS", {})
        mail_queue.deliver(*(mail_queue.record(*event) for event in events))
    assert [(row(e)["status"], row(e)["reason"]) for e in events] == [
        ("dead", "not_renderable")
    ] * 3
    reported = redriven(events)
    assert [(t["move"], t["why"]) for t in reported] == [
        ("yes", "died of not_renderable; is sent again")
    ] * 3
    assert [row(event)["status"] for event in events] == ["sent"] * 3
    assert len(resend.deliveries) == 3


REFUSED = {
    "422": Fault(422, "validation_error"),
    "413": Fault(413, "content_too_large"),
    "400": Fault(400, "validation_error"),
    "451": Fault(451, "unavailable_for_legal_reasons"),
    "409 on a first attempt": Fault(409, "invalid_idempotent_request"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("way", ["redrive", "by hand", "another copy"])
def test_what_was_refused_for_good_can_be_sent_again(
    case: str, way: str, resend: FakeResend, post_queue: mail_queue.Queue
) -> None:
    resend.faults = lambda key, nth: REFUSED[case]
    [event] = welcomed()
    mail_queue.deliver(mail_queue.record(*event))
    assert row(event)["status"] == "dead"
    resend.faults = lambda key, nth: None
    if way == "redrive":
        redriven([event])
    elif way == "by hand":
        sent = {"status": "sent", "reason": "", "event": event[1]["id"]}
        assert ask(resend=row(event)["id"]) == sent
    else:
        mail_queue.deliver(mail_queue.record(*event))
    after = row(event)
    assert (after["status"], after["attempts"], after["data"]) == ("sent", 1, None)
    [delivery] = resend.deliveries
    assert delivery.key == f"{after['id']}.1", "the refused request may have used the first one up"
    tags = {tag["name"]: tag["value"] for tag in delivery.payload["tags"]}
    assert tags["message_id"] == after["id"], "its webhooks find the row"


def test_what_is_refused_again_dies_again_and_is_red_again(
    resend: FakeResend, post_queue: mail_queue.Queue
) -> None:
    resend.faults = lambda key, nth: Fault(422, "validation_error")
    [event] = welcomed()
    mail_queue.deliver(mail_queue.record(*event))
    assert ask(seen=[event[1]["id"], "evt_other"]) == {"seen": 1, "ended": [event[1]["id"]]}
    redriven([event])
    assert [reason for reason, _ in post_queue.dead] == ["email.422_validation_error"] * 2
    assert ask(list={"failed": True})["mails"][0]["unseen"]


def test_a_worker_that_dies_in_the_second_beginning_keeps_its_key(
    resend: FakeResend, post_queue: mail_queue.Queue
) -> None:
    resend.faults = lambda key, nth: Fault(422, "validation_error")
    [event] = welcomed()
    mail_queue.deliver(mail_queue.record(*event))
    resend.faults = lambda key, nth: Fault(taken=True) if nth == 0 else None
    redriven([event])
    mail_queue.pass_time()
    mail_queue.deliver(mail_queue.record(*event))
    [delivery] = resend.deliveries
    assert delivery.key == f"{row(event)['id']}.1"
    assert row(event)["status"] == "sent"


def test_what_was_exhausted_is_redriven_at_once_and_under_its_key(
    resend: FakeResend, post_queue: mail_queue.Queue
) -> None:
    resend.faults = lambda key, nth: Fault(503, taken=nth == MAX_ATTEMPTS - 1)
    [event] = welcomed()
    for _ in range(MAX_ATTEMPTS):
        mail_queue.deliver(mail_queue.record(*event))
        mail_queue.pass_time()
    resend.faults = lambda key, nth: None
    [reported] = redriven([event])
    assert reported["why"] == "died of exhausted; is sent again"
    assert (row(event)["status"], len(resend.deliveries)) == ("sent", 1)
    assert resend.deliveries[0].key == row(event)["id"]


# ---- the rest


def ambiguous(resend: FakeResend) -> tuple[str, dict[str, Any]]:
    """Return an event whose message may have been taken more than 23 hours ago."""
    resend.faults = lambda key, nth: Fault(taken=True)
    [event] = welcomed()
    mail_queue.deliver(mail_queue.record(*event))
    invariants.run(
        "UPDATE email_message SET first_attempt_at = now() - interval '23 hours 1 second',"
        " next_attempt_at = now()"
    )
    mail_queue.deliver(mail_queue.record(*event))
    assert row(event)["reason"] == "ambiguous_window"
    resend.faults = lambda key, nth: None
    return event


def test_what_may_have_been_taken_is_reported_and_left_to_a_person(
    resend: FakeResend, post_queue: mail_queue.Queue
) -> None:
    event = ambiguous(resend)
    [reported] = redriven([event])
    assert (reported["move"], reported["mail"], reported["to"]) == (
        "no",
        row(event)["id"],
        "d***@e***.com",
    )
    assert "RESEND=" in reported["why"]
    mail_queue.deliver(mail_queue.record(*event))
    assert len(resend.deliveries) == 1, "nor does a copy of its event"
    assert ask(resend=row(event)["id"])["status"] == "sent"
    assert [delivery.key for delivery in resend.deliveries] == [
        row(event)["id"],
        f"{row(event)['id']}.1",
    ]


def test_what_was_assumed_to_be_taken_can_be_sent_by_hand(
    resend: FakeResend, post_queue: mail_queue.Queue
) -> None:
    [event] = welcomed()
    resend.faults = lambda key, nth: (
        Fault() if nth == 0 else Fault(409, "invalid_idempotent_request")
    )
    mail_queue.deliver(mail_queue.record(*event))
    mail_queue.pass_time()
    mail_queue.deliver(mail_queue.record(*event))
    assert row(event)["status"] == "accepted_unknown"
    resend.faults = lambda key, nth: None
    [reported] = redriven([event])
    assert reported["move"] == "no"
    assert ask(resend=row(event)["id"])["status"] == "sent"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("expires_at = now()", "too late"),
        ("data = NULL", "not kept"),
        ("recipient = 'nowhere'", "cannot be sent to"),
        ("status = 'sent', sent_at = now(), data = NULL, reason = NULL", "is sent"),
        ("status = 'bounced', data = NULL", "is bounced"),
        ("status = 'queued', ended_at = NULL", "on its way"),
        (
            "status = 'sending', ended_at = NULL, lease_token = 'x', lease_until = now() + '9 s'",
            "this moment",
        ),
    ],
)
def test_what_is_not_sent_by_hand_says_why(
    change: str, said: str, resend: FakeResend, post_queue: mail_queue.Queue
) -> None:
    resend.faults = lambda key, nth: Fault(422, "validation_error")
    [event] = welcomed()
    mail_queue.deliver(mail_queue.record(*event))
    resend.faults = lambda key, nth: None
    invariants.run(f"UPDATE email_message SET {change}")
    found = ask(resend=row(event)["id"])
    assert said in found["refused"]
    assert resend.deliveries == []


def test_a_message_that_no_one_knows_is_not_sent(resend: FakeResend) -> None:
    assert ask(resend="eml_none") == {"refused": "there is no such message"}


def test_a_suppressed_address_gets_nothing_by_hand_either(
    resend: FakeResend, post_queue: mail_queue.Queue
) -> None:
    resend.faults = lambda key, nth: Fault(422, "validation_error")
    [event] = welcomed()
    mail_queue.deliver(mail_queue.record(*event))
    invariants.run(
        "INSERT INTO email_suppression (recipient_norm, reason, source_event)"
        " VALUES ('dana@example.com', 'complained', 'x')"
    )
    assert "LIFT=" in ask(resend=row(event)["id"])["refused"]


def test_by_hand_an_answer_that_asks_for_patience_leaves_it_dead_and_sendable(
    resend: FakeResend, post_queue: mail_queue.Queue
) -> None:
    """No event in a queue brings it back: the person who asked does."""
    resend.faults = lambda key, nth: Fault(422, "validation_error")
    [event] = welcomed()
    mail_queue.deliver(mail_queue.record(*event))
    resend.faults = lambda key, nth: Fault(503, "service_unavailable", taken=True)
    message_id = row(event)["id"]
    assert ask(resend=message_id) == {"status": "dead", "reason": "503 service_unavailable"}
    resend.faults = lambda key, nth: None
    assert ask(resend=message_id)["status"] == "sent"
    assert len(resend.deliveries) == 1, "the same key, as it may have been taken"


def test_a_message_that_its_worker_left_can_be_taken_over_by_hand(
    resend: FakeResend, post_queue: mail_queue.Queue
) -> None:
    resend.faults = lambda key, nth: Fault(taken=True)
    [event] = welcomed()
    mail_queue.deliver(mail_queue.record(*event))
    invariants.run(
        "UPDATE email_message SET status = 'sending', lease_token = 'gone',"
        " lease_until = now() - interval '16 minutes'"
    )
    resend.faults = lambda key, nth: None
    [listed] = ask(list={"failed": True})["mails"]
    assert (listed["status"], listed["unseen"]) == ("sending", True)
    assert ask(resend=row(event)["id"])["status"] == "sent"
    assert len(resend.deliveries) == 1


def test_what_is_too_late_or_done_is_not_moved(
    resend: FakeResend, post_queue: mail_queue.Queue
) -> None:
    late, sent, none = welcomed(3)
    resend.faults = lambda key, nth: Fault(422, "validation_error")
    mail_queue.deliver(mail_queue.record(*late))
    invariants.run("UPDATE email_message SET expires_at = now()")
    resend.faults = lambda key, nth: None
    mail_queue.deliver(mail_queue.record(*sent))
    reported = {
        t["event"]: t for t in ask(redrive=[e[1]["id"] for e in (late, sent, none)])["events"]
    }
    assert [reported[e[1]["id"]]["move"] for e in (late, sent, none)] == ["no", "no", "yes"]
    assert "too late" in reported[late[1]["id"]]["why"]
    assert reported[none[1]["id"]]["why"] == "", "it has no message yet: its event makes one"


# ---- what is shown, and for how long it is kept


def test_mail_is_listed_newest_first_and_masked(
    resend: FakeResend, post_queue: mail_queue.Queue, mail_logs: io.StringIO
) -> None:
    mail_queue.deliver(mail_queue.record(*mail_queue.verification("dana@faß.example")))
    resend.faults = lambda key, nth: Fault(422, "validation_error")
    mail_queue.deliver(
        mail_queue.record(*mail_queue.verification("eve@example.com")),
        mail_queue.record(*welcomed()[0]),
    )
    everything = ask(list={})["mails"]
    assert [m["template"] for m in everything] == ["welcome", *["email_verification"] * 2]
    assert not mail_queue.LEAK.search(json.dumps(everything))
    assert [m["to"] for m in ask(list={"to": "Eve@Example.com"})["mails"]] == ["e***@e***.com"]
    assert len(ask(list={"to": "dana@faß.example"})["mails"]) == 1
    assert len(ask(list={"event": "UserWelcomed"})["mails"]) == 1
    assert len(ask(list={"event": everything[0]["event"].split()[1]})["mails"]) == 1
    assert [m["status"] for m in ask(list={"failed": True})["mails"]] == ["dead", "dead"]
    assert {m["unseen"] for m in everything} == {True, False}


def test_someone_has_looked(resend: FakeResend, post_queue: mail_queue.Queue) -> None:
    from kyora import status

    resend.faults = lambda key, nth: Fault(422, "validation_error")
    mail_queue.deliver(*(mail_queue.record(*event) for event in welcomed(2)))
    invariants.run("UPDATE email_message SET ended_at = now() - interval '40 days'")
    assert status.read()["mail"]["lost"] == 2, "however long ago"
    assert ask(seen=[])["seen"] == 2
    assert status.read()["mail"]["lost"] == 0
    assert ask(seen=[])["seen"] == 0
    assert not any(m["unseen"] for m in ask(list={"failed": True})["mails"])


def test_what_a_dead_message_says_is_kept_until_it_is_too_late(
    resend: FakeResend, post_queue: mail_queue.Queue
) -> None:
    resend.faults = lambda key, nth: Fault(422, "validation_error")
    event = mail_queue.verification()
    mail_queue.deliver(mail_queue.record(*event))
    retention.forget()
    assert "tok_3f9a-secret" in json.dumps(mail_queue.message(event[1]["id"])["data"])
    invariants.run("UPDATE email_message SET expires_at = now() - interval '1 second'")
    retention.forget()
    assert mail_queue.message(event[1]["id"])["data"] is None
