"""From a change to its event to the mail about it: nothing lost, doubled or leaked.

`tests/integration/test_outbox.py` holds the publishing side to its rules, `tests/unit/
test_consume.py` the consuming side; here both are one path, with the real send_email at its end.
"""

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kyora import postgres
from kyora.bus import names, outbox
from kyora.observability import begin
from local.tools.event_samples import sample
from tests.cloud import DEAD, QUEUE, Cloud, batch, deliver, message
from tests.scripted import Answer
from tests.unit.functions import CONTEXT, call, captured_log, event, function

WRITES_ACCOUNTS = True

ROOT = Path(__file__).parents[2]
ASSET = "ast_01kaq3v6m8r5x9y2c4d7f0h1jk"

type Row = dict[str, Any]


@pytest.fixture
def logs(environment: pytest.MonkeyPatch) -> io.StringIO:
    return captured_log(environment)


def emit(name: str, **changed: Any) -> str:
    """Write an event as a domain does; it is published when the transaction has committed."""
    data, workspace = sample(name)
    with postgres.transaction() as tx:
        domain = names.DOMAINS[name]
        return outbox.add(tx, domain, name, data | changed, workspace)


def send(batch: Row) -> list[str]:
    answer = function("send_email").handler(batch, CONTEXT)
    return [item["itemIdentifier"] for item in answer["batchItemFailures"]]


def mails() -> list[Row]:
    with postgres.transaction() as tx:
        return tx.rows("SELECT recipient, subject FROM mock_mailbox ORDER BY id")


def messages() -> list[Row]:
    with postgres.transaction() as tx:
        return tx.rows("SELECT event_id, event, status, correlation_id FROM email_message")


def relay() -> None:
    """Relay what waits, after the leases of those that added it."""
    with postgres.transaction() as tx:
        tx.run("UPDATE outbox SET next_attempt_at = now()")
    function("relay_outbox").handler({}, CONTEXT)


MAILED = (
    *("EmailVerificationRequested", "PasswordResetRequested", "UserWelcomed"),
    *("WorkspaceInvitationCreated", "SubscriptionActivated", "SubscriptionCancelled"),
    *("PaymentFailed", "TrialEnding"),
)


@pytest.mark.parametrize("name", MAILED)
def test_an_event_becomes_one_mail(name: str, aws: Cloud) -> None:
    with postgres.transaction() as tx:
        tx.run("UPDATE workspace SET owner_id = 'usr_demo_admin' WHERE id = 'ws_demo'")
    event_id = emit(name)
    assert send(deliver(*aws.entries)) == []
    [row] = messages()
    assert (row["event_id"], row["event"], row["status"]) == (event_id, name, "sent")
    assert len(mails()) == 1


def test_an_event_that_no_mail_is_about_is_done_with(aws: Cloud) -> None:
    emit("AssetReady")
    assert send(deliver(*aws.entries)) == []
    assert (messages(), aws.sent(DEAD)) == ([], [])


# ---- the correlation id


def test_the_id_of_a_request_is_the_id_of_its_event(aws: Cloud, logs: io.StringIO) -> None:
    with postgres.transaction() as tx:
        tx.run(
            "INSERT INTO asset (id, workspace_id, created_by, filename, content_type, size, status,"
            " final_attempt, attempts, sha256, url_expires_at, confirm_deadline, ready_at)"
            " VALUES (:id, 'ws_demo', 'usr_demo_member', 'a.png', 'image/png', 8, 'ready',"
            " 'at_1', '{at_1}', 'x', now(), now(), now())",
            id=ASSET,
        )
        tx.run("INSERT INTO storage_usage (workspace_id, used_bytes) VALUES ('ws_demo', 8)")
    request = event(
        "DELETE /v1/assets/{assetId}", assetId=ASSET, headers={"X-Request-Id": "request-0815"}
    )
    status, _, headers = call("manage_asset", request)
    assert (status, headers["X-Request-Id"]) == (204, "request-0815")
    [entry] = aws.entries
    assert entry["DetailType"] == "AssetDeleted"
    assert json.loads(entry["Detail"])["correlationId"] == "request-0815"
    send(deliver(entry))
    assert {json.loads(line)["correlation_id"] for line in logs.getvalue().splitlines()} == {
        "request-0815"
    }


def test_the_id_goes_on_from_the_event_to_the_mail_and_its_log_lines(
    aws: Cloud, logs: io.StringIO
) -> None:
    begin("request-0816")
    first = emit("UserWelcomed")
    begin("request-0817")
    emit("UserWelcomed")
    begin("another thing")
    send(deliver(*aws.entries))
    assert {row["correlation_id"] for row in messages()} == {"request-0816", "request-0817"}
    lines = [json.loads(line) for line in logs.getvalue().splitlines()]
    assert {line["correlation_id"] for line in lines if line.get("event_id") == first} == {
        "request-0816"
    }


# ---- crashes: a process that is killed, not one that tidies up


_CRASH = """
import os, signal, sys
from kyora import postgres
from kyora.bus import outbox
with postgres.transaction() as tx:
    if sys.argv[1] == "after-commit":
        tx.after_commit(lambda _: os.kill(os.getpid(), signal.SIGKILL), "now")
    outbox.add(tx, "accounts", "UserWelcomed", {"email": "delivered@resend.dev", "name": "Dana",
                                                "workspaceName": "Olive"}, "ws_demo")
    if sys.argv[1] == "before-commit":
        os.kill(os.getpid(), signal.SIGKILL)
"""


def crash(at: str, aws: Cloud) -> None:
    path = os.pathsep.join((str(ROOT / "layers/kyora"), *sys.path))

    def kill(operation: str, _: Row) -> Answer | None:
        if at == "after-publish":  # the bus has taken it; the answer is never read
            process.kill()
            process.wait()
            return Answer(drop=True)
        return None

    aws.interfere = kill
    process = subprocess.Popen(
        [sys.executable, "-c", _CRASH, at], env={**os.environ, "PYTHONPATH": path}
    )
    assert process.wait(120) == -signal.SIGKILL
    aws.interfere = lambda *_: None


@pytest.mark.parametrize(
    ("at", "published", "sent"),
    [("before-commit", [0, 0], 0), ("after-commit", [0, 1], 1), ("after-publish", [1, 2], 1)],
)
def test_a_crash_loses_nothing_and_sends_nothing_twice(
    at: str, published: list[int], sent: int, aws: Cloud
) -> None:
    crash(at, aws)
    found = [len(aws.entries)]
    relay()
    assert [*found, len(aws.entries)] == published
    assert len(set(aws.ids())) == sent
    for entry in aws.entries:
        assert send(deliver(entry)) == []
    assert len(mails()) == sent


def test_a_bus_that_was_away_is_caught_up_with(aws: Cloud) -> None:
    aws.interfere = lambda *_: Answer(503, b"{}")
    aws.refuse = lambda _: "ThrottlingException"
    event_id = emit("UserWelcomed")
    with postgres.transaction() as tx:
        row = tx.row("SELECT published_at, last_error, attempts FROM outbox")
    assert row is not None
    assert (row["published_at"], row["attempts"]) == (None, 1)
    assert row["last_error"]
    aws.interfere = lambda *_: None
    relay()  # the call is answered now, its entry refused
    with postgres.transaction() as tx:
        row = tx.row("SELECT last_error FROM outbox")
    assert row == {"last_error": "ThrottlingException: try later"}
    aws.refuse = lambda _: ""
    relay()
    assert aws.ids() == [event_id]
    assert send(deliver(*aws.entries)) == []
    assert len(mails()) == 1


# ---- deliveries that come again


def test_a_redelivered_message_sends_nothing(aws: Cloud) -> None:
    emit("EmailVerificationRequested")
    for _ in range(3):
        assert send(deliver(*aws.entries)) == []
    assert send(deliver(*aws.entries * 5)) == []
    assert len(mails()) == len(messages()) == 1


def test_a_replayed_archive_sends_nothing(aws: Cloud) -> None:
    for name in ("UserWelcomed", "UserWelcomed", "TrialEnding"):
        emit(name)
    assert send(deliver(*aws.entries)) == []
    before = mails()
    # A replay is another EventBridge event: another `id`, the same detail, in any order.
    assert send(deliver(*reversed(aws.entries), replay="after-the-incident")) == []
    assert mails() == before


# ---- a message that cannot be read


def test_one_bad_message_is_dead_lettered_and_the_rest_of_the_batch_is_sent(
    aws: Cloud, logs: io.StringIO
) -> None:
    emit("PasswordResetRequested", token="hush-hush")
    emit("UserWelcomed")
    tokened, good = map(message, aws.entries)
    tokened["detail"]["version"] = 2
    broken = message(aws.entries[0])
    broken["detail"]["data"]["email"] = "nobody"
    bodies = [json.dumps(body) for body in (tokened, broken)] + ["\x00", json.dumps(good)]
    assert send(batch(*bodies)) == []
    dead = aws.sent(DEAD)
    assert [m["MessageBody"] for m in dead] == bodies[:3]
    assert [m["MessageAttributes"]["Reason"]["StringValue"] for m in dead] == [
        *("event.unknown_version", "event.invalid", "event.not_json")
    ]
    assert [mail["recipient"] for mail in mails()] == ["delivered@resend.dev"]
    assert "hush" not in logs.getvalue()
    # Once fixed, a message can come back: nothing was recorded about it.
    tokened["detail"]["version"] = 1
    assert send(batch(json.dumps(tokened))) == []
    assert len(mails()) == 2


def test_without_a_database_every_message_comes_again(
    aws: Cloud, logs: io.StringIO, environment: pytest.MonkeyPatch
) -> None:
    emit("PasswordResetRequested", token="hush-hush")
    function("send_email")
    postgres.close()
    environment.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:9/nothing")
    from kyora import config

    config.forget()
    assert send(deliver(*aws.entries * 2)) == ["m0", "m1"]
    waits = [p["VisibilityTimeout"] for o, p in aws.calls if o == "ChangeMessageVisibility"]
    assert len(waits) == 2
    assert all(10 <= wait <= 20 for wait in waits)
    assert aws.sent(DEAD) == aws.sent(QUEUE) == []
    assert "hush" not in logs.getvalue()


# ---- tokens


@pytest.mark.parametrize("name", sorted(names.SENSITIVE))
def test_a_token_is_in_no_log_and_no_row_once_its_mail_is_sent(
    name: str, aws: Cloud, logs: io.StringIO
) -> None:
    emit(name, token="hush-hush")
    assert "hush-hush" in aws.entries[0]["Detail"]
    assert send(deliver(*aws.entries)) == []
    assert "hush" not in logs.getvalue()
    assert "resend.dev" not in logs.getvalue()
    with postgres.transaction() as tx:
        for table in ("outbox", "inbox", "email_message", "email_event", "idempotency_key"):
            rows = tx.rows(f"SELECT t::text AS row FROM {table} t")
            assert not any("hush" in str(row["row"]) for row in rows), table
        assert "hush-hush" in str(tx.row("SELECT text FROM mock_mailbox"))
