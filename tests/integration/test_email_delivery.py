"""From an event to one mail: who gets it, in which language, what stops it, what a crash leaves."""

import io
import json
import random
import re
import urllib.parse
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kyora import config
from kyora.email.mails.catalogue import MAILS
from local.tools.event_samples import sample
from tests.fake_resend import FakeResend, Fault
from tests.integration.support import invariants, mail_queue
from tests.unit.functions import function

WRITES_ACCOUNTS = True

SUBSCRIPTION = {"subscriptionId": "sub_1", "planId": "pro", "planName": "Pro", "status": "active"}
PAYMENT = {"invoiceId": "in_1", "amount": 5499, "currency": "usd", "attempt": 1}
ACCOUNT = {"email": "dana@example.com", "name": "Dana", "token": mail_queue.TOKEN}
INVITED = {"inviterName": "Mona", "workspaceName": "Cups", **ACCOUNT}
EVENTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "EmailVerificationRequested": (ACCOUNT, "email_verification", "/verify-email?token="),
    "PasswordResetRequested": (ACCOUNT, "forgot_password", "/reset-password?token="),
    "UserWelcomed": ({"workspaceName": "Cups", **ACCOUNT}, "welcome", "Cups"),
    "WorkspaceInvitationCreated": (INVITED, "workspace_invitation", "/accept-invitation?token="),
    "SubscriptionActivated": (SUBSCRIPTION, "subscription_confirmed", "Pro"),
    "SubscriptionCancelled": (SUBSCRIPTION, "subscription_cancelled", "Pro"),
    "PaymentFailed": (PAYMENT, "payment_failed", "/billing"),
    "TrialEnding": (
        {"subscriptionId": "sub_1", "planName": "Pro", "trialEnd": "2026-12-01T00:00:00Z"},
        "trial_ending",
        "Pro",
    ),
}
PLANNED = {"subscriptionId": "sub_1", "planId": "pro", "planName": "Pro"}
EVENTS |= {
    "PaymentRecovered": (PLANNED, "payment_recovered", "Pro"),
    "GraceEnding": (PLANNED | {"accessUntil": "2026-12-01T00:00:00Z"}, "grace_ending", "/billing"),
    "PaymentMethodExpiring": (
        PLANNED
        | {"last4": "4242", "expMonth": 3, "expYear": 2031, "chargeAt": "2031-04-02T00:00:00Z"},
        "payment_method_expiring",
        "03/2031",
    ),
    "RenewalUpcoming": (
        PLANNED | {"amount": 99000, "currency": "AED", "renewsAt": "2031-04-02T00:00:00Z"},
        "renewal_upcoming",
        "990.00 AED",
    ),
    "SubscriptionPaused": (PLANNED, "subscription_paused", "Pro"),
    "SubscriptionResumed": (PLANNED, "subscription_resumed", "Pro"),
    "AssetQuarantined": (
        {"assetId": "ast_1", "reason": "infected", "filename": "offer.zip", "wasReady": True},
        "asset_quarantined",
        "offer.zip",
    ),
}
# A mail that the table does not have is filled from its event's sample.
EVENTS |= {
    mail.event.__name__: (sample(mail.event.__name__)[0], mail.id, "Kyora")
    for mail in MAILS.values()
    if mail.event.__name__ not in EVENTS
}
BILLING = [name for name, (data, _, _) in EVENTS.items() if "email" not in data]


@pytest.fixture
def owned(resend: FakeResend, mail_logs: io.StringIO) -> FakeResend:
    invariants.run("UPDATE workspace SET owner_id = 'usr_demo_admin' WHERE id = 'ws_demo'")
    invariants.run("UPDATE app_user SET name = 'Omar', locale = 'ar' WHERE id = 'usr_demo_admin'")
    return resend


def give(name: str, envelope: dict[str, Any]) -> list[str]:
    return mail_queue.deliver(mail_queue.record(name, envelope))


def test_each_event_has_its_mail(owned: FakeResend, subtests: pytest.Subtests) -> None:
    for name, (data, template, shown) in EVENTS.items():
        with subtests.test(name):
            envelope = mail_queue.detail(data, workspace="ws_demo")
            assert give(name, envelope) == []
            row = mail_queue.message(envelope["id"])
            assert (row["status"], row["template"], row["event"]) == ("sent", template, name)
            assert row["correlation_id"] == "request-0123456789"
            delivery = owned.deliveries[-1]
            payload = delivery.payload
            assert delivery.key == row["id"]
            billing = name in BILLING
            assert payload["to"] == ["admin@example.com" if billing else "dana@example.com"]
            assert row["locale"] == ("ar" if billing else "en")
            assert shown in payload["text"]
            assert f'lang="{row["locale"]}"' in payload["html"]
            assert payload["from"] == '"Kyora" <hello@kyora.example>'
            assert payload["reply_to"] == "support@kyora.example"
            tags = {tag["name"]: tag["value"] for tag in payload["tags"]}
            assert tags["message_id"] == row["id"]
            assert (tags["template"], tags["env"]) == (template, "test")
            if shown.endswith("token="):
                link = f"http://127.0.0.1:8000{shown}{urllib.parse.quote_plus(mail_queue.TOKEN)}"
                assert link in payload["text"].split()
    assert len(owned.deliveries) == len(EVENTS)


def test_other_events_are_none_of_ours(owned: FakeResend) -> None:
    assert give("SubscriptionChanged", mail_queue.detail(SUBSCRIPTION, workspace="ws_demo")) == []
    assert give("PaymentSucceeded", mail_queue.detail(PAYMENT, workspace="ws_demo")) == []
    assert invariants.rows("SELECT 1 FROM email_message") == []


def test_an_invoice_is_paid_where_stripe_shows_it(owned: FakeResend) -> None:
    for url, wanted in {
        "https://invoice.stripe.com/i/acct_1/test_1": "https://invoice.stripe.com/i/acct_1/test_1",
        "https://invoice.stripe.com.evil.example/i/1": "http://127.0.0.1:8000/billing",
        "javascript:alert(1)": "http://127.0.0.1:8000/billing",
    }.items():
        give(
            "PaymentFailed",
            mail_queue.detail({**PAYMENT, "hostedInvoiceUrl": url}, workspace="ws_demo"),
        )
        assert wanted in owned.deliveries[-1].payload["text"].split()
        assert "evil" not in owned.deliveries[-1].payload["html"]
        assert "javascript" not in owned.deliveries[-1].payload["html"]


@pytest.mark.parametrize("who", ["no owner", "deleted owner", "unknown workspace", "no workspace"])
def test_billing_mail_without_a_recipient_goes_to_a_person(
    who: str, owned: FakeResend, post_queue: mail_queue.Queue
) -> None:
    if who == "no owner":
        invariants.run("UPDATE workspace SET owner_id = NULL")
    elif who == "deleted owner":
        invariants.run("UPDATE app_user SET deleted_at = now() WHERE id = 'usr_demo_admin'")
    workspace = {"unknown workspace": "ws_none", "no workspace": None}.get(who, "ws_demo")
    assert give("SubscriptionActivated", mail_queue.detail(SUBSCRIPTION, workspace=workspace)) == []
    assert [reason for reason, _ in post_queue.dead] == ["email.no_owner"]


def test_a_new_owner_does_not_get_the_old_ones_mail_again(owned: FakeResend) -> None:
    owned.faults = lambda key, nth: Fault(taken=True) if nth == 0 else None
    envelope = mail_queue.detail(PAYMENT, workspace="ws_demo")
    give("PaymentFailed", envelope)
    invariants.run("UPDATE workspace SET owner_id = 'usr_demo_member'")
    invariants.run("UPDATE app_user SET deleted_at = now() WHERE id = 'usr_demo_admin'")
    mail_queue.pass_time()
    give("PaymentFailed", envelope)
    assert mail_queue.message(envelope["id"])["status"] == "sent"
    (delivery,) = owned.deliveries
    assert delivery.payload["to"] == ["admin@example.com"]


@pytest.mark.parametrize(
    ("locale", "workspace", "wanted"),
    [
        ("ar", None, "ar"),
        ("ar-EG", None, "ar"),
        ("fr", None, "en"),
        (None, None, "en"),
        (None, "ws_demo", "ar"),  # the user is known there, with a language
        (None, "ws_other", "en"),
    ],
)
def test_the_language_is_the_users(
    locale: str | None, workspace: str | None, wanted: str, owned: FakeResend
) -> None:
    data = ACCOUNT | {"email": "Member@example.com"} | ({"locale": locale} if locale else {})
    envelope = mail_queue.detail(data, workspace=workspace)
    give("EmailVerificationRequested", envelope)
    assert mail_queue.message(envelope["id"])["locale"] == wanted


# ---- once


def test_a_repeated_event_is_one_mail(owned: FakeResend) -> None:
    event = mail_queue.verification()
    copies = [mail_queue.record(*event) for _ in range(5)]
    assert mail_queue.deliver(*copies) == []
    assert len(owned.deliveries) == 1
    assert owned.asked == {owned.deliveries[0].key: 1}


def test_an_outbox_row_published_again_is_the_same_event(owned: FakeResend) -> None:
    name, envelope = mail_queue.verification()
    for bridge_id in ("first", "second"):  # EventBridge gives each PutEvents an id of its own
        body = {"id": bridge_id, "detail-type": name, "detail": envelope}
        mail_queue.deliver(mail_queue.carried(json.dumps(body)))
    assert len(owned.deliveries) == 1


def test_one_event_for_two_people_is_two_mails(owned: FakeResend) -> None:
    for email in ("dana@example.com", "eve@example.com"):
        mail_queue.deliver(mail_queue.record(*mail_queue.verification(email, event_id="evt_same")))
    assert sorted(d.payload["to"][0] for d in owned.deliveries) == [
        "dana@example.com",
        "eve@example.com",
    ]
    assert len({d.key for d in owned.deliveries}) == 2


def test_a_message_that_was_lost_keeps_its_key(owned: FakeResend) -> None:
    event = mail_queue.verification()
    mail_queue.deliver(mail_queue.record(*event))
    invariants.run("DELETE FROM email_message")  # the database was restored from before
    mail_queue.deliver(mail_queue.record(*event))
    assert len(owned.deliveries) == 1
    assert mail_queue.message(event[1]["id"])["provider_id"] == owned.deliveries[0].id


def test_everything_may_be_replayed(owned: FakeResend) -> None:
    records = []
    for name, (data, _, _) in EVENTS.items():
        records.append(mail_queue.record(name, mail_queue.detail(data, workspace="ws_demo")))
    for _ in range(3):
        random.shuffle(records)
        assert mail_queue.deliver(*records) == []
    assert len(owned.deliveries) == len(EVENTS)


# ---- crashes


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_dead_workers_message_is_taken_over(
    where: str, owned: FakeResend, post_queue: mail_queue.Queue, post_workers: mail_queue.Workers
) -> None:
    event = mail_queue.verification()
    record = mail_queue.record(*event)
    assert post_workers.call(0, [record], crash=where) is None
    row = mail_queue.message(event[1]["id"])
    assert (row["status"], row["attempts"]) == ("sending", 1)
    assert len(owned.deliveries) == (1 if where == "after" else 0)
    assert mail_queue.deliver(record) == []
    ((seconds, _),) = post_queue.take()
    assert 1 <= seconds <= 60, "not while the lease holds"
    mail_queue.expire_leases()
    mail_queue.deliver(record)
    row = mail_queue.message(event[1]["id"])
    assert (row["status"], row["attempts"]) == ("sent", 2)
    (delivery,) = owned.deliveries
    assert (delivery.key, delivery.id) == (row["id"], row["provider_id"])


@pytest.mark.parametrize("late", [Fault(500, "application_error"), Fault(422, "validation_error")])
def test_a_worker_that_comes_back_late_changes_nothing(
    late: Fault, owned: FakeResend, post_queue: mail_queue.Queue
) -> None:
    """Its lease is over, another one has sent the message and recorded it."""

    def meanwhile(key: str, nth: int) -> Fault | None:
        if nth:
            return None
        mail_queue.expire_leases_elsewhere()
        answers.append(mail_queue.elsewhere("send_email", {"Records": [record]}))
        return late

    answers: list[dict[str, Any]] = []
    owned.faults = meanwhile
    event = mail_queue.verification()
    record = mail_queue.record(*event)
    mail_queue.deliver(record)
    assert answers == [{"batchItemFailures": []}]
    row = mail_queue.message(event[1]["id"])
    assert (row["status"], row["attempts"], row["reason"]) == ("sent", 2, None)
    assert len(owned.deliveries) == 1
    assert post_queue.dead == []
    assert mail_queue.deliver(*(mail_queue.carried(body) for _, body in post_queue.take())) == []
    assert len(owned.asked) == 1


def test_what_there_is_no_time_for_goes_back_and_spends_no_delivery(
    owned: FakeResend, post_queue: mail_queue.Queue
) -> None:
    """Cut off by the function's time-out it would wait for the queue's visibility time-out."""
    left = [20_000, 14_000, 13_000]
    context = SimpleNamespace(get_remaining_time_in_millis=lambda: left.pop(0))
    events = [mail_queue.record(*mail_queue.verification(f"p{n}@example.com")) for n in range(3)]
    answer = function("send_email").handler({"Records": events}, context)
    assert answer == {"batchItemFailures": []}
    assert [d.payload["to"] for d in owned.deliveries] == [["p0@example.com"]]
    assert [(seconds, body) for seconds, body in post_queue.take()] == [
        (1, events[1]["body"]),
        (1, events[2]["body"]),
    ]


def test_the_database_lost_after_the_send_is_no_second_mail(
    owned: FakeResend, environment: pytest.MonkeyPatch
) -> None:
    def cut(key: str, nth: int) -> None:
        if nth == 0:
            mail_queue.disconnect_everyone()

    owned.faults = cut
    event = mail_queue.verification()
    mail_queue.deliver(mail_queue.record(*event))
    row = mail_queue.message(event[1]["id"])
    # Either the record was written over a new connection, or the lease says so.
    assert row["status"] in ("sent", "sending")
    mail_queue.expire_leases()
    mail_queue.deliver(mail_queue.record(*event))
    assert mail_queue.message(event[1]["id"])["status"] == "sent"
    assert len(owned.deliveries) == 1


# ---- what stops a mail


def test_a_mail_that_comes_too_late_is_not_sent(owned: FakeResend) -> None:
    event = mail_queue.verification(age=15 * 60 + 1)
    assert mail_queue.deliver(mail_queue.record(*event)) == []
    row = mail_queue.message(event[1]["id"])
    assert (row["status"], row["reason"], row["data"]) == ("skipped", "expired", None)
    assert owned.asked == {}
    assert (
        give(
            "SubscriptionActivated",
            mail_queue.detail(SUBSCRIPTION, workspace="ws_demo", age=86_400 * 2),
        )
        == []
    )
    assert len(owned.deliveries) == 1, "news keep longer than a link"


def test_what_may_have_been_taken_is_not_called_skipped(owned: FakeResend) -> None:
    owned.faults = lambda key, nth: Fault(taken=True)
    event = mail_queue.verification()
    mail_queue.deliver(mail_queue.record(*event))
    invariants.run("UPDATE email_message SET expires_at = now(), next_attempt_at = now()")
    mail_queue.deliver(mail_queue.record(*event))
    row = mail_queue.message(event[1]["id"])
    assert (row["status"], row["reason"]) == ("dead", "expired")
    assert len(owned.asked) == 1


def test_a_suppression_between_two_attempts_stops_the_second(owned: FakeResend) -> None:
    owned.faults = lambda key, nth: Fault(429, "rate_limit_exceeded")
    event = mail_queue.verification()
    mail_queue.deliver(mail_queue.record(*event))
    invariants.run(
        "INSERT INTO email_suppression (recipient_norm, reason, source_event)"
        " VALUES ('dana@example.com', 'bounced', 'msg_1')"
    )
    mail_queue.pass_time()
    mail_queue.deliver(mail_queue.record(*event))
    row = mail_queue.message(event[1]["id"])
    assert (row["status"], row["reason"]) == ("skipped", "suppressed")
    assert list(owned.asked.values()) == [1]


def test_a_suppression_that_is_lifted_or_over_stops_nothing(owned: FakeResend) -> None:
    invariants.run(
        "INSERT INTO email_suppression (recipient_norm, reason, source_event, until, lifted_at)"
        " VALUES ('dana@example.com', 'bounced', 'm', NULL, now()),"
        " ('eve@example.com', 'bouncing', 'm', now() - interval '1 second', NULL)"
    )
    for email in ("dana@example.com", "eve@example.com"):
        mail_queue.deliver(mail_queue.record(*mail_queue.verification(email)))
    assert len(owned.deliveries) == 2


@pytest.mark.parametrize(
    "email",
    [
        "dana@localhost",
        "دانا@example.com",
        "a" * 65 + "@example.com",
        "dana\x01@example.com",
        '"x"@example.com',
    ],
)
def test_an_address_that_cannot_be_is_recorded(email: str, owned: FakeResend) -> None:
    event = mail_queue.verification(email)
    assert mail_queue.deliver(mail_queue.record(*event)) == []
    row = mail_queue.message(event[1]["id"])
    assert (row["status"], row["reason"]) == ("dead", "invalid_recipient")
    assert owned.asked == {}
    assert mail_queue.deliver(mail_queue.record(*event)) == []
    assert len(invariants.rows("SELECT 1 FROM email_message")) == 1


def test_half_a_character_is_no_event(owned: FakeResend, post_queue: mail_queue.Queue) -> None:
    assert (
        mail_queue.deliver(mail_queue.record(*mail_queue.verification("dana@exa\ud800mple.com")))
        == []
    )
    assert [reason for reason, _ in post_queue.dead] == ["event.invalid"]


def test_a_domain_beyond_ascii_is_sent_in_ascii(owned: FakeResend) -> None:
    mail_queue.deliver(mail_queue.record(*mail_queue.verification("dana+x@bücher.example")))
    assert owned.deliveries[0].payload["to"] == ["dana+x@xn--bcher-kva.example"]


def test_what_cannot_be_written_is_dead_at_once(
    owned: FakeResend, post_queue: mail_queue.Queue, mail_logs: io.StringIO
) -> None:
    name = "SubscriptionActivated"
    envelope = mail_queue.detail(SUBSCRIPTION | {"planName": "\u200b"}, workspace="ws_demo")
    assert give(name, envelope) == []
    row = mail_queue.message(envelope["id"])
    assert (row["status"], row["reason"]) == ("dead", "not_renderable")
    assert [reason for reason, _ in post_queue.dead] == ["email.not_renderable"]
    assert '"fields":["planName"]' in mail_logs.getvalue().replace(" ", "")


HOSTILE = [
    "Dana\r\nBcc: eve@example.com",
    "\u202emoc.live\u202c",
    "<img src=x onerror=alert(1)>",
    '"><script>alert(1)</script>',
    "javascript:alert(1)",
    "{{ 7 * 7 }} {% raw %}",
    "\x01\x1b[31m",
    "Dana " * 1000,
    "https://prize.example/win www.prize.example",
    "دانا",
    "🎉" * 50,
]


def test_hostile_names_reach_neither_header_nor_log(
    owned: FakeResend, subtests: pytest.Subtests
) -> None:
    for text in HOSTILE:
        with subtests.test(text[:20].encode("ascii", "backslashreplace").decode()):
            named = text[:1000]
            data = INVITED | {"inviterName": named, "workspaceName": named}
            envelope = mail_queue.detail(data)
            assert give("WorkspaceInvitationCreated", envelope) == []
            assert mail_queue.message(envelope["id"])["status"] == "sent"
            payload = owned.deliveries[-1].payload
            assert payload["to"] == ["dana@example.com"]
            bare = re.sub("[\u200c\u200d\u2068\u2069]", "", payload["subject"])
            assert bare.isprintable()
            assert "<img src=x" not in payload["html"]
            assert "<script" not in payload["html"]
            assert "://prize" not in payload["html"] + payload["text"] + payload["subject"]
            assert "www." not in payload["html"] + payload["text"] + payload["subject"]


@settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(name=st.text(max_size=200), token=st.text(min_size=1, max_size=100))
def test_any_text_can_be_sent_or_is_refused(owned: FakeResend, name: str, token: str) -> None:
    event = mail_queue.detail(ACCOUNT | {"name": name, "token": token})
    try:
        urllib.parse.urlencode({"token": token})
    except UnicodeEncodeError:
        return  # half a surrogate pair is no token that anybody made
    assert give("EmailVerificationRequested", event) == []
    if "\0" in name + token:  # no text of Postgres: dead-lettered at once, and no message of ours
        with pytest.raises(ValueError, match="expected 1, got 0"):
            mail_queue.message(event["id"])
        return
    assert mail_queue.message(event["id"])["status"] == "sent"


# ---- rows and logs


def test_a_token_is_kept_only_while_it_is_needed(owned: FakeResend) -> None:
    owned.faults = lambda key, nth: Fault(503) if nth == 0 else None
    event = mail_queue.verification()
    mail_queue.deliver(mail_queue.record(*event))
    quoted = urllib.parse.quote_plus(mail_queue.TOKEN)
    assert quoted in str(mail_queue.message(event[1]["id"])["data"])
    mail_queue.pass_time()
    mail_queue.deliver(mail_queue.record(*event))
    assert quoted not in str(mail_queue.message(event[1]["id"]))


def test_the_log_joins_request_event_and_message(owned: FakeResend, mail_logs: io.StringIO) -> None:
    event = mail_queue.verification()
    mail_queue.deliver(mail_queue.record(*event))
    row = mail_queue.message(event[1]["id"])
    lines = [json.loads(line) for line in mail_logs.getvalue().splitlines()]
    (line,) = [line for line in lines if line["message"] == "mail handled"]
    assert (line["correlation_id"], line["event_id"]) == ("request-0123456789", event[1]["id"])
    assert (line["message_id"], line["status"]) == (row["id"], "sent")


def test_the_rate_limit_is_kept_without_a_429(owned: FakeResend) -> None:
    owned.limit = 5
    records = [mail_queue.record(*mail_queue.verification(f"p{n}@example.com")) for n in range(12)]
    started = datetime.now(UTC)
    assert mail_queue.deliver(*records) == []
    assert datetime.now(UTC) - started > timedelta(seconds=1)
    assert len(owned.deliveries) == 12
    assert owned.peak <= 5
    assert set(owned.asked.values()) == {1}


def test_one_connection_serves_many_messages(owned: FakeResend) -> None:
    records = [mail_queue.record(*mail_queue.verification(f"p{n}@example.com")) for n in range(5)]
    mail_queue.deliver(*records)
    assert owned.server.connections == 1


def test_a_message_costs_two_statements(owned: FakeResend, monkeypatch: pytest.MonkeyPatch) -> None:
    from kyora.postgres import connection

    counted: list[str] = []
    real = connection.Transaction._execute

    def counting(self: Any, sql: str, params: Any) -> Any:
        counted.append(" ".join(sql.split())[:40])
        return real(self, sql, params)

    monkeypatch.setattr(connection.Transaction, "_execute", counting)
    mail_queue.deliver(mail_queue.record(*mail_queue.verification()))
    assert [sql for sql in counted if sql != "COMMIT"] == [
        "INSERT INTO email_message AS m (id, even",
        "UPDATE email_message SET status = :statu",
    ]


def test_every_query_has_an_index(owned: FakeResend) -> None:
    from kyora.email import delivery, suppressions

    found = invariants.rows("SELECT indexdef FROM pg_indexes WHERE tablename LIKE 'email_%'")
    assert len(found) >= 10
    plans = {
        delivery.LOCK.replace("FOR UPDATE", ""): {"id": "x", "provider": "resend"},
        "SELECT 1 FROM email_message m WHERE m.event_id = :e AND m.template = :t": {
            "e": "x",
            "t": "y",
        },
        "SELECT 1 FROM email_message WHERE id = :i OR provider_id = :i": {"i": "x"},
        "SELECT count(*) FROM email_event WHERE temporary AND recipient_norm = :r"
        " AND received_at > now()": {"r": "x"},
        f"SELECT 1 FROM email_suppression s WHERE recipient_norm = :r AND {suppressions.ACTIVE}": {
            "r": "x"
        },
    }
    for sql, params in plans.items():
        from kyora import postgres

        with postgres.transaction() as tx:
            tx.run("SET LOCAL enable_seqscan = off")
            plan = "\n".join(str(r["QUERY PLAN"]) for r in tx.rows(f"EXPLAIN {sql}", **params))
        assert "Seq Scan" not in plan, plan


def test_the_provider_is_a_matter_of_configuration(
    owned: FakeResend, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("EMAIL_PROVIDER", "mock")
    config.forget()
    event = mail_queue.verification()
    mail_queue.deliver(mail_queue.record(*event))
    assert owned.asked == {}
    (kept,) = invariants.rows("SELECT * FROM mock_mailbox")
    row = mail_queue.message(event[1]["id"])
    assert (kept["idempotency_key"], kept["id"]) == (row["id"], row["provider_id"])
    assert (kept["template"], kept["locale"]) == ("email_verification", "en")
