"""The bus of the running stack: the commands a person types, and what they bring about."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kyora.bus.names import SENSITIVE
from local.settings import ROOT
from tests.e2e.commands import bury, client, emit, query, quiet, run, waiting
from tests.e2e.conftest import Stack, request, wait

MAILED = {
    "EmailVerificationRequested": ("Verify your email", "/verify-email?token="),
    "PasswordResetRequested": ("Reset your password", "/reset-password?token="),
    "UserWelcomed": ("Welcome to Kyora", ""),
    "WorkspaceInvitationCreated": (
        "Dana Haddad invited you to Olive & Thyme",
        "/accept-invitation?token=",
    ),
    "SubscriptionActivated": ("You're on Professional Plan", ""),
    "SubscriptionCancelled": ("Your Professional Plan subscription has ended", ""),
    "PaymentFailed": ("We couldn't take your payment", ""),
    "TrialEnding": ("Your trial ends soon", ""),
}


def mail(stack: Stack, event_id: str) -> list[Any]:
    """Wait for the mail about an event; return its subject, text, locale and correlation id."""
    sql = (
        "select b.subject, b.text, m.locale, m.correlation_id, m.recipient from email_message m"
        " join mock_mailbox b on b.idempotency_key = m.id where m.event_id = :event"
    )
    wait(lambda: query(stack, sql, event=event_id), 120, f"a mail for {event_id}")
    [found] = query(stack, sql, event=event_id)
    return found


def dead(stack: Stack) -> int:
    """How many messages are in the dead-letter queue of send_email."""
    return waiting(stack, "emails-dead")


@pytest.mark.parametrize("name", MAILED)
def test_emit_puts_a_mail_into_the_mailbox(name: str, stack: Stack) -> None:
    subject, link = MAILED[name]
    found_subject, text, locale, _, recipient = mail(stack, emit(stack, name))
    assert (found_subject, locale) == (subject, "en")
    assert stack.env["KYORA_URL"] + link in text or not link
    billing = name.startswith(("Subscription", "Payment", "Trial"))
    assert recipient == ("admin@demo.example" if billing else "delivered@resend.dev")


def test_a_file_gives_the_fields_of_the_event(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "arabic.json"
    file.write_text('{"locale": "ar", "email": "mona@demo.example", "token": "a+b/c=="}')
    _, text, locale, _, recipient = mail(stack, emit(stack, "PasswordResetRequested", file))
    assert (locale, recipient) == ("ar", "mona@demo.example")
    assert "token=a%2Bb%2Fc%3D%3D" in text
    assert re.search(r"[\u0600-\u06ff]", text)


def test_emit_refuses_what_no_consumer_could_read(stack: Stack, tmp_path: Path) -> None:
    unknown = run(stack, "emit", "NoSuchEvent")
    assert (unknown.returncode, "there is no event 'NoSuchEvent'" in unknown.stderr) == (1, True)
    file = tmp_path / "wrong.json"
    file.write_text('{"email": "hush"}')
    wrong = run(stack, "emit", "UserWelcomed", "--file", str(file))
    assert wrong.returncode == 1
    assert "email:string_pattern_mismatch" in wrong.stderr
    assert "hush" not in wrong.stderr


def unreadable(stack: Stack, version: int) -> None:
    sample = json.loads((ROOT / "events/samples/UserWelcomed.json").read_text())
    entry = {
        "EventBusName": "kyora-local",
        "Source": "kyora.accounts",
        "DetailType": "UserWelcomed",
        "Detail": json.dumps(
            {
                "id": f"evt_e2e_{time.time_ns()}",
                "occurredAt": "2126-11-23T07:36:09Z",
                "version": version,
                "correlationId": "request-e2e",
                "workspaceId": "ws_demo",
                "data": sample,
            }
        ),
    }
    answer = client(stack, "events").put_events(Entries=[entry])
    assert answer["FailedEntryCount"] == 0


def test_an_unknown_version_is_dead_lettered_at_once_and_redriven(stack: Stack) -> None:
    bury(stack)
    unreadable(stack, version=2)
    wait(lambda: dead(stack), 120)
    assert dead(stack) == 1
    mail(stack, emit(stack, "UserWelcomed"))  # it held up no other event
    done = run(stack, "redrive", "emails")
    assert "1 of 1 messages are back in kyora-local-emails" in done.stdout, done.stderr
    wait(lambda: dead(stack), 120)  # it is still unreadable
    assert dead(stack) == 1
    bury(stack)
    assert "0 of 0" in run(stack, "redrive", "kyora-local-emails-dead").stdout
    unknown = run(stack, "redrive", "nothing")
    assert "there are analytics, emails, fees, stripe, uploads" in unknown.stderr


def test_a_wait_that_the_provider_asks_for_is_kept_by_the_queue(stack: Stack) -> None:
    bury(stack)
    query(
        stack,
        "insert into mock_failure (status, name, retry_after)"
        " values (429, 'rate_limit_exceeded', 3) returning id",
    )
    began = time.monotonic()
    mail(stack, emit(stack, "UserWelcomed"))  # which waits for less than the queue's own 150 s
    assert time.monotonic() - began >= 3
    assert dead(stack) == 0


@pytest.fixture
def tail(stack: Stack, tmp_path: Path) -> Iterator[Path]:
    """What `make events` prints."""
    file = tmp_path / "tail.txt"
    with file.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "local", "events"],
            cwd=stack.checkout,
            env={"KYORA_LOCAL_DIR": str(stack.home), "PATH": "/usr/bin:/bin"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        wait(lambda: "Ctrl-C ends" in file.read_text(), 60, "`make events` listening")
        yield file
        process.terminate()
        assert process.wait(60) == 130
    rules = client(stack, "events").list_rules(EventBusName="kyora-local")["Rules"]
    assert [rule["Name"] for rule in rules if "tail" in rule["Name"]] == []
    assert client(stack, "sqs").list_queues(QueueNamePrefix="kyora-local-tail").get(
        "QueueUrls"
    ) in (
        None,
        [],
    )


def test_the_tail_shows_what_flows_and_no_secret_of_it(stack: Stack, tail: Path) -> None:
    ids = [emit(stack, name) for name in ("PasswordResetRequested", "PaymentFailed", "AssetReady")]
    wait(lambda: all(event_id in tail.read_text() for event_id in ids), 120)
    shown = tail.read_text()
    assert all(event_id in shown for event_id in ids)
    assert not re.search(r"rst_sample|delivered@|https?:", shown), shown

    query(
        stack,
        "insert into outbox (id, source, detail_type, detail, created_at, next_attempt_at,"
        " attempts, last_error) values ('evt_stuck', 'kyora.assets', 'AssetReady', '{}',"
        " now() - interval '1 minute', now() + interval '1 hour', 4, 'service.unavailable')"
        " returning id",
    )
    wait(lambda: "evt_stuck waits: 4 attempts service.unavailable" in tail.read_text(), 60)
    query(stack, "delete from outbox where id = 'evt_stuck' returning id")
    assert "evt_stuck waits: 4 attempts service.unavailable" in tail.read_text()


def test_the_archive_keeps_what_holds_no_token_and_a_replay_sends_nothing(
    stack: Stack, tail: Path
) -> None:
    events = client(stack, "events")
    archive = events.describe_archive(ArchiveName="kyora-local")
    assert set(json.loads(archive["EventPattern"])["detail-type"][0]["anything-but"]) == SENSITIVE
    began = time.time()
    secret, kept = (emit(stack, name) for name in ("PasswordResetRequested", "UserWelcomed"))
    for event_id in (secret, kept):
        mail(stack, event_id)
        wait(lambda one=event_id: one in tail.read_text(), 60, f"{event_id} in the tail")

    events.start_replay(
        ReplayName=f"e2e-{time.time_ns()}",
        EventSourceArn=archive["ArchiveArn"],
        EventStartTime=began,  # what other tests sent may have found its consumer broken
        EventEndTime=time.time() + 60,
        Destination={"Arn": archive["EventSourceArn"]},
    )
    ended = {"COMPLETED", "FAILED"}
    wait(lambda: events.list_replays()["Replays"][-1]["State"] in ended, 120, "the replay's end")
    wait(lambda: tail.read_text().count(kept) > 1, 60, "the replayed event in the tail")
    assert tail.read_text().count(secret) == 1  # it came before the other
    quiet(stack)
    assert query(
        stack,
        "select count(*) from (select 1 from mock_mailbox group by idempotency_key"
        " having count(*) > 1) t",
    ) == [[0]]


def test_a_webhook_reaches_the_function_url_through_the_one_address(stack: Stack) -> None:
    refused = request("POST", f"{stack.env['KYORA_URL']}/webhooks/resend", {})
    assert (refused.status, refused.problem) == (400, "webhook.signature_invalid")


def test_the_correlation_id_of_a_command_is_the_one_of_its_mail(stack: Stack) -> None:
    event_id = emit(stack, "UserWelcomed")
    correlation = mail(stack, event_id)[3]
    assert correlation.startswith("emit_")

    def is_logged() -> bool:
        said = run(stack, "logs", "--once").stdout
        return any(correlation in line and "send_email" in line for line in said.splitlines())

    wait(is_logged, 60, f"a line of send_email with {correlation}")


def test_no_token_and_no_address_is_in_a_log_or_on_the_console(stack: Stack) -> None:
    mail(stack, emit(stack, "EmailVerificationRequested"))
    said = run(stack, "logs", "--once").stdout
    state = request("GET", f"{stack.env['KYORA_URL']}/_local/state").json
    for text in (said, json.dumps(state["events"]), json.dumps(state["logs"])):
        assert text
        assert not re.search(r"vrf_sample|delivered@|token=", text)
