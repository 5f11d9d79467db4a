"""Resend's webhooks: who may send them, and what they change, in whatever order they come."""

import io
import json
import os
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kyora import config, postgres
from kyora.email import suppressions
from tests.fake_resend import FakeResend
from tests.integration.support import invariants, mail_queue
from tests.integration.support.resend_webhook import (
    KEY,
    bounce,
    receive,
    reported,
    request,
    secret,
    sent,
    sign,
    status,
    suppressed,
)

OTHER = b"another key, of the last rotation"


def events() -> list[dict[str, Any]]:
    return invariants.rows("SELECT * FROM email_event ORDER BY received_at, id")


@pytest.fixture
def hook(database: str, environment: pytest.MonkeyPatch, mail_logs: io.StringIO) -> None:
    environment.setenv("EMAIL_RESEND_WEBHOOK_SECRET", mail_queue.WEBHOOK_SECRET)
    config.forget()


type Change = Callable[[dict[str, Any]], object]


def without(name: str) -> Change:
    return lambda event: event["headers"].pop(name)


def header(name: str, value: str) -> Change:
    return lambda event: event["headers"].update({name: value})


FORGED: dict[str, Change] = {
    "no signature": without("svix-signature"),
    "no id": without("svix-id"),
    "no timestamp": without("svix-timestamp"),
    "tampered body": lambda e: e.update(body=e["body"].replace("dana", "eve")),
    "a space more": lambda e: e.update(body=e["body"] + " "),
    "other id": header("svix-id", "msg_other"),
    "other timestamp": lambda e: e["headers"].update(
        {"svix-timestamp": str(int(e["headers"]["svix-timestamp"]) + 1)}
    ),
    "no version": lambda e: e["headers"].update(
        {"svix-signature": e["headers"]["svix-signature"].removeprefix("v1,")}
    ),
    "unknown version": lambda e: e["headers"].update(
        {"svix-signature": e["headers"]["svix-signature"].replace("v1,", "v2,")}
    ),
    "empty signature": header("svix-signature", "v1,"),
    "not ASCII": header("svix-signature", "v1,é"),
    "hex": header("svix-signature", "v1," + "0" * 64),
    "timestamp is a word": header("svix-timestamp", "now"),
    "timestamp is a fraction": header("svix-timestamp", str(time.time())),
    "timestamp in Arabic digits": header("svix-timestamp", "١٢٣"),
    "timestamp is endless": header("svix-timestamp", "9" * 5000),
    "id is endless": header("svix-id", "m" * 5000),
    "no headers": lambda e: e.update(headers=None),
    "signed with an empty key": lambda e: e["headers"].update(
        {
            "svix-signature": sign(
                b"", e["headers"]["svix-id"], e["headers"]["svix-timestamp"], e["body"].encode()
            )
        }
    ),
}


def test_a_forged_request_changes_nothing(hook: None, subtests: pytest.Subtests) -> None:
    for name, change in FORGED.items():
        with subtests.test(name):
            event = request(bounce())
            change(event)
            assert receive(event) == (400, "webhook.signature_invalid")
    for age in (301, -302, 86_400, 1e9):  # a stamp of whole seconds is up to one earlier
        with subtests.test(f"{age} seconds old"):
            assert receive(request(bounce(), age=age)) == (400, "webhook.signature_invalid")
    assert receive(request(bounce(), keys=(OTHER,))) == (400, "webhook.signature_invalid")
    assert receive(request(bounce(), keys=())) == (400, "webhook.signature_invalid")
    assert events() == []
    assert suppressed() == {}


def test_a_signed_request_is_taken_however_it_is_wrapped(
    hook: None, environment: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    def mixed(event: dict[str, Any]) -> dict[str, Any]:
        return event | {"headers": {k.title(): v for k, v in event["headers"].items()}}

    arabic = reported("email.sent", subject="مرحبا \U0001f600")
    cases = {
        "plain": request(reported("email.sent")),
        "base64": request(arabic, encoded=True),
        "not ASCII": request(arabic),
        "mixed case": mixed(request(reported("email.sent"))),
        "almost old": request(reported("email.sent"), age=295),
        "clock ahead": request(reported("email.sent"), age=-295),
        "two signatures": request(reported("email.sent"), keys=(OTHER, KEY)),
        "many signatures": request(reported("email.sent"), keys=(OTHER,) * 5 + (KEY,)),
    }
    for name, event in cases.items():
        with subtests.test(name):
            assert receive(event) == (200, "")
    environment.setenv("EMAIL_RESEND_WEBHOOK_SECRET", json.dumps([secret(OTHER), secret(KEY)]))
    config.forget()
    for key in (OTHER, KEY):
        assert receive(request(reported("email.sent"), keys=(key,))) == (200, "")
    assert len(events()) == len(cases) + 2


def test_without_a_secret_there_is_nothing_here(
    hook: None, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("EMAIL_RESEND_WEBHOOK_SECRET", "")
    config.forget()
    assert receive(request(bounce())) == (404, "request.not_found")


def test_a_malformed_secret_opens_nothing(hook: None, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("EMAIL_RESEND_WEBHOOK_SECRET", "whsec_")
    config.forget()
    assert receive(request(bounce(), keys=(b"",))) == (500, "config.invalid")
    assert events() == []


def test_a_large_body_is_not_looked_at(hook: None) -> None:
    assert receive(request(b"x" * ((1 << 20) + 1))) == (413, "request.body_too_large")
    assert receive(request(b"x" * ((1 << 20) + 1), encoded=True))[0] == 413


BROKEN = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'"email.bounced"',
    b"7",
    b"{}",
    b'{"type": 7}',
    b'{"type": "email.bounced", "data": []}',
    b'{"type": "email.bounced", "data": "x"}',
    b'{"type": "a", "data": {"x": "\x01"}}',
    b"[" * 100_000,
    b"9" * 10_000,
]


def test_what_is_signed_and_no_event_is_refused(hook: None) -> None:
    for body in BROKEN:
        assert receive(request(body)) == (400, "webhook.payload_invalid"), body[:40]
    assert receive(request(b"\xff\xfe{}", encoded=True)) == (400, "webhook.payload_invalid")
    broken = request(b"{}", encoded=True) | {"body": "é"}
    assert receive(broken) == (400, "webhook.payload_invalid")
    assert events() == []


STRANGE: list[dict[str, Any]] = [
    {"type": "email.something_new", "data": {"email_id": "x"}},
    {"type": "contact.created", "data": {"email": "dana@example.com"}},
    {"type": "email.delivered"},
    {"type": "email.delivered", "data": {}},
    {"type": "email.delivered", "data": {"email_id": 7, "to": "dana", "tags": 7}},
    {"type": "email.delivered", "data": {"email_id": None, "to": [None], "tags": [None, {}]}},
    {"type": "email.bounced", "data": {"to": ["a@b.example", "c@d.example"], "bounce": 7}},
    {"type": "email.bounced", "data": {"to": [], "bounce": {"type": 7, "subType": []}}},
    {"type": "email.failed", "data": {"email_id": "\0\ud800", "failed": "quota"}},
    {"type": "email.failed", "data": {"to": ["\0\ud800@x.example"], "failed": {"reason": "q"}}},
    {"type": "x" * 5000, "data": {"email_id": "y" * 5000, "tags": {"message_id": "z" * 5000}}},
]


def test_what_is_strange_is_recorded_and_harmless(hook: None) -> None:
    for strange in STRANGE:
        assert receive(request(json.dumps(strange).encode())) == (200, ""), strange
    assert len(events()) == len(STRANGE)
    assert suppressed() == {}


def test_a_repeated_delivery_changes_nothing(hook: None) -> None:
    for age in (0, 60, 120):  # the same id, signed again each time
        event = request(bounce("Transient"), svix_id="msg_same", age=age)
        assert receive(event) == (200, "")
        assert receive(event) == (200, "")
    assert len(events()) == 1


def test_only_the_whole_database_makes_it_come_again(
    hook: None, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("DATABASE_URL", "postgresql://u:p@127.0.0.1:9/x")
    config.forget()
    postgres.close()
    assert receive(request(bounce())) == (500, "database.unavailable")


# ---- what it changes


@pytest.mark.parametrize("tags", [dict, list])
def test_a_message_is_found_by_the_providers_id_or_by_our_own(
    hook: None, resend: FakeResend, tags: type
) -> None:
    by_id, by_tag, other = (sent(resend) for _ in range(3))
    receive(request(reported("email.delivered", email_id=by_id["provider_id"])))
    invariants.run("UPDATE email_message SET provider_id = NULL WHERE id = :id", id=by_tag["id"])
    tagged: Any = {"template": "email_verification", "message_id": by_tag["id"]}
    if tags is list:
        tagged = [{"name": k, "value": v} for k, v in tagged.items()]
    receive(request(reported("email.delivered", email_id="new", tags=tagged)))
    assert (status(by_id), status(by_tag), status(other)) == ("delivered", "delivered", "sent")
    assert mail_queue.message(by_tag["event_id"])["provider_id"] == "new"


def test_a_lost_answer_is_made_up_for_by_the_webhook(hook: None, resend: FakeResend) -> None:
    from tests.fake_resend import Fault

    resend.faults = lambda key, nth: Fault(taken=True)
    row = sent(resend)
    assert row["status"] == "queued"
    tags = {"message_id": row["id"]}
    receive(request(reported("email.sent", email_id=resend.deliveries[0].id, tags=tags)))
    found = mail_queue.message(row["event_id"])
    assert (found["status"], found["provider_id"]) == ("sent", resend.deliveries[0].id)
    assert found["data"] is None
    mail_queue.pass_time()
    envelope = {"id": row["event_id"]}
    event = mail_queue.verification()
    mail_queue.deliver(mail_queue.record(event[0], event[1] | envelope))
    assert resend.asked == {row["id"]: 1}, "there is nothing left to send"


def test_a_webhook_that_overtakes_the_answer_is_not_undone(hook: None, resend: FakeResend) -> None:
    def overtake(key: str, nth: int) -> None:
        body = reported("email.delivered", email_id="early", tags={"message_id": key})
        answers.append(mail_queue.elsewhere("resend_webhook", request(body)))

    answers: list[dict[str, Any]] = []
    resend.faults = overtake
    row = sent(resend)
    assert [answer["statusCode"] for answer in answers] == [200]
    assert (row["status"], row["lease_token"], row["provider_id"]) == ("delivered", None, "early")


KINDS = [
    "email.sent",
    "email.delivery_delayed",
    "email.delivered",
    "email.failed",
    "email.suppressed",
    "email.bounced",
    "email.complained",
]
RANK = ["sent", "delayed", "delivered", "failed", "suppressed", "bounced", "complained"]


@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=9), data=st.data())
def test_any_order_ends_the_same(
    hook: None, resend: FakeResend, kinds: list[str], data: st.DataObject
) -> None:
    invariants.run("DELETE FROM email_suppression")
    row = sent(resend, f"p{random.random()}@example.com")
    order = data.draw(st.permutations(kinds))
    for kind in order:
        body = reported(kind, to=row["recipient"], email_id=row["provider_id"])
        repeat = data.draw(st.integers(1, 2))
        event = request(body)
        for _ in range(repeat):
            assert receive(event)[0] == 200
    ranks = [0, *(KINDS.index(kind) for kind in kinds)]
    assert status(row) == RANK[max(ranks)]


# ---- suppressions


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (bounce(), "bounced"),
        (reported("email.complained"), "complained"),
        (reported("email.suppressed"), "suppressed"),
    ],
)
def test_an_address_that_is_no_use_gets_no_more_mail(
    hook: None, resend: FakeResend, body: bytes, reason: str
) -> None:
    assert receive(request(body)) == (200, "")
    assert suppressed() == {"dana@example.com": reason}
    row = sent(resend, "Dana@Example.com")
    assert (row["status"], row["reason"], row["data"]) == ("skipped", "suppressed", None)
    assert resend.asked == {}
    assert sent(resend, "eve@example.com")["status"] == "sent"


def test_three_temporary_bounces_in_a_week_rest_an_address_for_a_week(
    hook: None, resend: FakeResend
) -> None:
    for count, kind in enumerate(("Transient", "Temporary", "Undetermined")):
        assert suppressed() == {}, f"after {count}"
        receive(request(bounce(kind)))
    assert suppressed() == {"dana@example.com": "bouncing"}
    assert sent(resend)["status"] == "skipped"
    invariants.run("UPDATE email_suppression SET until = now()")
    assert suppressed() == {}
    assert sent(resend)["status"] == "sent"


def test_bounces_that_arrive_together_see_each_other(hook: None) -> None:
    receive(request(bounce("Transient")))
    other = postgres.connection.connect(os.environ["DATABASE_URL"], development=True)
    tx = postgres.Transaction(other)
    tx.run("BEGIN")
    tx.run(
        "INSERT INTO email_event (id, type, recipient_norm, temporary, payload)"
        " VALUES ('second', 'email.bounced', 'dana@example.com', true, '{}')"
    )
    suppressions.count_bounces(tx, "dana@example.com", "second")
    third = threading.Thread(target=receive, args=(request(bounce("Transient")),))
    third.start()
    third.join(0.5)
    tx.run("COMMIT")
    third.join()
    other.close()
    assert suppressed() == {"dana@example.com": "bouncing"}


def test_old_temporary_bounces_do_not_count(hook: None) -> None:
    for _ in range(4):
        receive(request(bounce("Transient")))
        invariants.run("UPDATE email_event SET received_at = received_at - interval '4 days'")
    assert suppressed() == {}


def test_a_permanent_bounce_outlasts_a_temporary_one(hook: None) -> None:
    receive(request(bounce()))
    for _ in range(3):
        receive(request(bounce("Transient")))
    (row,) = invariants.rows("SELECT reason, until FROM email_suppression")
    assert row == {"reason": "bounced", "until": None}
    receive(request(reported("email.complained")))
    receive(request(bounce()))
    assert suppressed() == {"dana@example.com": "complained"}


def test_a_lifted_address_starts_again(hook: None, resend: FakeResend) -> None:
    for _ in range(3):
        receive(request(bounce("Transient")))
    with postgres.transaction() as tx:
        assert suppressions.lift(tx, "Dana@example.com")
        assert not suppressions.lift(tx, "dana@example.com")
        assert suppressions.active(tx) == []
    assert sent(resend)["status"] == "sent"
    receive(request(bounce("Transient")))
    assert suppressed() == {}, "the three before do not count again"
    receive(request(bounce()))
    assert suppressed() == {"dana@example.com": "bounced"}


def test_no_one_lifts_a_suppression_through_the_url(hook: None) -> None:
    receive(request(bounce()))
    body = json.dumps({"suppressions": {"lift": "dana@example.com"}}).encode()
    assert receive(request(body)) == (400, "webhook.payload_invalid")
    assert receive(request(body, keys=(OTHER,)))[0] == 400
    assert suppressed() == {"dana@example.com": "bounced"}


def test_what_is_old_is_forgotten_and_suppressions_are_not(hook: None, resend: FakeResend) -> None:
    from kyora.email import retention

    row = sent(resend)
    receive(request(reported("email.complained", email_id=row["provider_id"])))
    assert retention.forget() == 0
    invariants.run("UPDATE email_message SET ended_at = ended_at - interval '91 days'")
    invariants.run("UPDATE email_event SET received_at = received_at - interval '91 days'")
    assert retention.forget() == 2
    assert invariants.rows("SELECT 1 FROM email_message") == events() == []
    assert suppressed() == {"dana@example.com": "complained"}
