"""Every answer of Resend has one consequence, seen in the row and in the queue."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kyora import config
from kyora.email import resend as sender
from kyora.email.retry import LONGEST_BACKOFF, MAX_ATTEMPTS
from tests.fake_resend import FakeResend, Fault
from tests.integration.support import invariants, mail_queue

MINUTE, HOUR = 60, 3600


@dataclass(frozen=True)
class Case:
    """An answer and what it leads to; `waits` is the range of the wait in seconds."""

    fault: Fault
    status: str
    reason: str
    waits: tuple[float, float] | None = None
    attempts: int = 1
    dead_letter: bool = False
    breaker: int = 0
    window: bool = True  # the 23 hours run: the attempt may have been taken


def again(status: int, name: str = "", **more: Any) -> Case:
    fault = Fault(status, name, **{k: more.pop(k) for k in ("html", "retry_after") if k in more})
    reason = f"{status} {'' if fault.html else name}".strip()
    return Case(fault, "queued", reason, **({"waits": (0, 2)} | more))


def died(status: int, name: str = "", **more: Any) -> Case:
    reason = f"{status} {name}".strip()
    return Case(Fault(status, name), "dead", reason, dead_letter=True, window=False, **more)


def waits(status: int, name: str, kind: str, seconds: int, *, html: bool = False) -> Case:
    return Case(
        Fault(status, name, html=html),
        "queued",
        f"{kind}: {status} {'' if html else name}".strip(),
        waits=(seconds - 5, seconds),
        attempts=0,
        breaker=seconds,
        window=False,
    )


CASES = {
    # 200 without an id, null, not JSON: taken or not, only the key knows
    "no id": Case(Fault(200, taken=True, body=b"{}"), "queued", "0 no_id", (0, 2)),
    "null": Case(Fault(200, taken=True, body=b"null"), "queued", "0 no_id", (0, 2)),
    "html 200": Case(Fault(200, taken=True, body=b"<html>"), "queued", "0 no_id", (0, 2)),
    "id is a number": Case(Fault(200, taken=True, body=b'{"id":7}'), "queued", "0 no_id", (0, 2)),
    "lost answer": Case(Fault(taken=True), "queued", "0 no_answer", (0, 2)),
    "connection drop": Case(Fault(), "queued", "0 no_answer", (0, 2)),
    # our bug, or a bad address
    "400": died(400, "validation_error"),
    "400 key": died(400, "invalid_idempotency_key"),
    "422": died(422, "validation_error"),
    "422 field": died(422, "missing_required_field"),
    "422 parameter": died(422, "missing_required_parameter"),
    "422 invalid parameter": died(422, "invalid_parameter"),
    "422 attachment": died(422, "invalid_attachment"),
    "422 from": died(422, "invalid_from_address"),
    "413": died(413, "content_too_large"),
    # the key, the domain, the address of the API
    "401 missing": waits(401, "missing_api_key", "access", 15 * MINUTE),
    "401 restricted": waits(401, "restricted_api_key", "access", 15 * MINUTE),
    "403 key": waits(403, "invalid_api_key", "access", 15 * MINUTE),
    "403 suspended": waits(403, "suspended_api_key", "access", 15 * MINUTE),
    "403 permission": waits(403, "invalid_permission", "access", 15 * MINUTE),
    "403 domain": waits(403, "validation_error", "access", 15 * MINUTE),
    "403 of a proxy": waits(403, "", "access", 15 * MINUTE, html=True),
    "404": waits(404, "not_found", "access", 15 * MINUTE),
    "405": waits(405, "method_not_allowed", "access", 15 * MINUTE),
    "a redirect": waits(302, "", "access", 15 * MINUTE, html=True),
    # keys
    "409 concurrent": again(409, "concurrent_idempotent_requests", attempts=0, waits=(2, 5)),
    "409 other bytes": died(409, "invalid_idempotent_request"),
    "409 locked": again(409, "resource_locked"),
    "409 unknown": died(409, "something_new"),
    # too fast, too much
    "429": again(429, "rate_limit_exceeded", window=False),
    "429 later": again(429, "rate_limit_exceeded", retry_after="7", waits=(7, 7), window=False),
    "429 unknown": again(429, "something_new", window=False),
    "429 html": again(429, html=True, retry_after="3", waits=(3, 3), window=False),
    "429 day": waits(429, "daily_quota_exceeded", "quota", HOUR),
    "429 month": waits(429, "monthly_quota_exceeded", "quota", 6 * HOUR),
    # unknown is permanent
    "451": died(451, "unavailable_for_legal_reasons"),
    "418": died(418, "teapot"),
    # theirs
    "500": again(500, "application_error"),
    "500 taken": Case(
        Fault(500, "application_error", taken=True), "queued", "500 application_error", (0, 2)
    ),
    "502": again(502, html=True),
    "503": again(503, "service_unavailable", retry_after="30", waits=(30, 30)),
    "504": again(504, html=True),
    "520": again(520, html=True),
    "408": again(408, "request_timeout"),
    "425": again(425, "too_early"),
}


def test_an_answer_has_one_consequence(
    resend: FakeResend, post_queue: mail_queue.Queue, mail_logs: object, subtests: pytest.Subtests
) -> None:
    for name, case in CASES.items():
        with subtests.test(name):
            afresh(resend, post_queue)
            resend.faults = lambda key, nth, case=case: case.fault  # type: ignore[misc]
            check_consequence(case, resend, post_queue)


def check_consequence(case: Case, resend: FakeResend, post_queue: mail_queue.Queue) -> None:
    event = mail_queue.verification()
    began = datetime.now(UTC)
    assert mail_queue.deliver(mail_queue.record(*event)) == []
    ended = datetime.now(UTC)
    row = mail_queue.message(event[1]["id"])
    assert (row["status"], row["reason"], row["attempts"]) == (
        case.status,
        case.reason,
        case.attempts,
    )
    assert (row["first_attempt_at"] is not None) is case.window
    assert row["data"] is not None, "kept while it can be sent, by its event or by hand"
    assert len(resend.asked) == 1
    assert (len(post_queue.dead) == 1) is case.dead_letter
    reported = post_queue.take()
    assert (len(reported) == 1) is (case.waits is not None)
    if case.waits is not None:
        least, most = (timedelta(seconds=seconds) for seconds in case.waits)
        assert began + least <= row["next_attempt_at"] <= ended + most
        assert reported[0][0] <= min(case.waits[1], LONGEST_BACKOFF) + 1
    state = invariants.rows("SELECT * FROM email_provider_state")
    assert bool(state) is bool(case.breaker)
    if case.breaker:
        breaker = timedelta(seconds=case.breaker)
        assert began + breaker <= state[0]["open_until"] <= ended + breaker


def test_what_waits_is_sent_in_the_end_and_once(
    resend: FakeResend, post_queue: mail_queue.Queue, subtests: pytest.Subtests
) -> None:
    for name, case in CASES.items():
        if case.status == "queued":
            with subtests.test(name):
                afresh(resend, post_queue)
                fault = case.fault
                resend.faults = lambda key, nth, fault=fault: fault if nth == 0 else None  # type: ignore[misc]
                event = mail_queue.verification()
                mail_queue.deliver(mail_queue.record(*event))
                invariants.run("UPDATE email_provider_state SET open_until = now()")
                mail_queue.pass_time()
                mail_queue.deliver(mail_queue.record(*event))
                row = mail_queue.message(event[1]["id"])
                assert row["status"] == "sent"
                (delivery,) = resend.deliveries
                assert (delivery.key, delivery.id) == (row["id"], row["provider_id"])


def afresh(resend: FakeResend, post_queue: mail_queue.Queue) -> None:
    invariants.run("DELETE FROM email_provider_state")
    resend.asked.clear()
    resend.deliveries.clear()
    post_queue.take()
    post_queue.dead.clear()
    sender._paused_until.clear()


def test_an_open_breaker_holds_everything_and_counts_nothing(
    resend: FakeResend, post_queue: mail_queue.Queue
) -> None:
    resend.faults = lambda key, nth: Fault(429, "monthly_quota_exceeded")
    first, second = mail_queue.verification(), mail_queue.verification("eve@example.com")
    mail_queue.deliver(mail_queue.record(*first), mail_queue.record(*second))
    assert len(resend.asked) == 1, "the second was not even tried"
    held = mail_queue.message(second[1]["id"])
    assert (held["status"], held["attempts"], held["first_attempt_at"]) == ("queued", 0, None)
    resend.faults = lambda key, nth: None
    for _ in range(3):
        mail_queue.deliver(*(mail_queue.carried(body) for _, body in post_queue.take()))
    assert len(resend.asked) == 1, "still open"
    invariants.run("UPDATE email_provider_state SET open_until = now()")
    mail_queue.pass_time()
    mail_queue.deliver(*(mail_queue.carried(body) for _, body in post_queue.take()))
    assert {d.payload["to"][0] for d in resend.deliveries} == {
        "dana@example.com",
        "eve@example.com",
    }
    assert mail_queue.message(second[1]["id"])["attempts"] == 1


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (Fault(403, "invalid_api_key"), "dead"),  # the key should have been fixed
        (Fault(429, "daily_quota_exceeded"), "skipped"),
    ],
)
def test_what_a_breaker_holds_too_long_is_not_sent(
    answer: Fault, status: str, resend: FakeResend, post_queue: mail_queue.Queue
) -> None:
    resend.faults = lambda key, nth: answer
    event = mail_queue.verification()
    mail_queue.deliver(mail_queue.record(*event))
    invariants.run("UPDATE email_provider_state SET open_until = now()")
    invariants.run("UPDATE email_message SET next_attempt_at = now(), expires_at = now()")
    resend.faults = lambda key, nth: None
    assert mail_queue.deliver(mail_queue.record(*event)) == []
    row = mail_queue.message(event[1]["id"])
    assert (row["status"], row["reason"], row["data"]) == (status, "expired", None)
    assert resend.deliveries == []


def test_a_mail_is_tried_so_often_and_no_more(
    resend: FakeResend, post_queue: mail_queue.Queue, mail_logs: object
) -> None:
    resend.faults = lambda key, nth: Fault(503, "service_unavailable")
    event = mail_queue.verification()
    for attempt in range(1, MAX_ATTEMPTS + 4):
        mail_queue.deliver(mail_queue.record(*event))
        mail_queue.pass_time()
        assert resend.asked[mail_queue.message(event[1]["id"])["id"]] == min(attempt, MAX_ATTEMPTS)
    row = mail_queue.message(event[1]["id"])
    assert (row["status"], row["reason"], row["attempts"]) == ("dead", "exhausted", MAX_ATTEMPTS)
    assert [reason for reason, _ in post_queue.dead] == ["email.exhausted"]


def test_redriving_what_was_exhausted_tries_again_under_the_same_key(
    resend: FakeResend, post_queue: mail_queue.Queue
) -> None:
    body = exhausted(resend, post_queue)
    resend.faults = lambda key, nth: None
    mail_queue.deliver(mail_queue.carried(body))
    assert mail_queue.message(event_of(body))["status"] == "dead", "a late copy changes nothing"
    invariants.run("UPDATE email_message SET ended_at = ended_at - interval '16 minutes'")
    for _ in range(3):  # redriven more than once
        mail_queue.deliver(mail_queue.carried(body))
    row = mail_queue.message(event_of(body))
    assert (row["status"], row["attempts"]) == ("sent", 1)
    (delivery,) = resend.deliveries
    assert (delivery.key, delivery.id) == (row["id"], row["provider_id"])


def exhausted(resend: FakeResend, post_queue: mail_queue.Queue) -> str:
    """Return the dead letter of a message whose last attempt was taken after all."""
    resend.faults = lambda key, nth: Fault(503, taken=nth == MAX_ATTEMPTS - 1)
    event = mail_queue.verification()
    for _ in range(MAX_ATTEMPTS):
        mail_queue.deliver(mail_queue.record(*event))
        mail_queue.pass_time()
    ((_, body),) = post_queue.dead
    return body


def event_of(body: str) -> str:
    return str(json.loads(body)["detail"]["id"])


def test_redriving_after_a_deploy_does_not_take_the_first_bytes_for_a_strangers(
    resend: FakeResend, post_queue: mail_queue.Queue, environment: pytest.MonkeyPatch
) -> None:
    body = exhausted(resend, post_queue)
    invariants.run("UPDATE email_message SET ended_at = ended_at - interval '16 minutes'")
    resend.faults = lambda key, nth: None
    environment.setenv("EMAIL_FROM_NAME", "Another name since the last deploy")
    config.forget()
    mail_queue.deliver(mail_queue.carried(body))
    assert mail_queue.message(event_of(body))["status"] == "accepted_unknown"
    assert len(resend.deliveries) == 1


def test_backoff_grows_and_is_spread(resend: FakeResend, post_queue: mail_queue.Queue) -> None:
    resend.faults = lambda key, nth: Fault()
    event = mail_queue.verification()
    longest = 0.0
    for attempt in range(1, 13):
        mail_queue.deliver(mail_queue.record(*event))
        row = mail_queue.message(event[1]["id"])
        wait = (row["next_attempt_at"] - datetime.now(UTC)).total_seconds()
        assert wait <= min(LONGEST_BACKOFF, 2**attempt)
        longest = max(longest, wait)
        mail_queue.pass_time()
    assert row["status"] == "queued", "no answer is no reason to give up"
    assert longest > 60


def test_nothing_is_repeated_after_twenty_three_hours(
    resend: FakeResend, post_queue: mail_queue.Queue, mail_logs: object
) -> None:
    resend.faults = lambda key, nth: Fault(taken=True)
    event = mail_queue.verification()
    mail_queue.deliver(mail_queue.record(*event))
    first = datetime.now(UTC) - timedelta(hours=23, seconds=1)
    invariants.run(
        "UPDATE email_message SET first_attempt_at = :first, next_attempt_at = now(),"
        " expires_at = now() + interval '1 day'",
        first=first,
    )
    mail_queue.deliver(mail_queue.record(*event))
    row = mail_queue.message(event[1]["id"])
    assert (row["status"], row["reason"]) == ("dead", "ambiguous_window")
    assert [reason for reason, _ in post_queue.dead] == ["email.ambiguous_window"]
    assert len(resend.deliveries) == 1
    assert resend.asked == {row["id"]: 1}


def test_other_bytes_under_our_key_mean_that_an_earlier_attempt_was_taken(
    resend: FakeResend, post_queue: mail_queue.Queue, environment: pytest.MonkeyPatch
) -> None:
    resend.faults = lambda key, nth: Fault(taken=True) if nth == 0 else None
    event = mail_queue.verification()
    mail_queue.deliver(mail_queue.record(*event))
    environment.setenv("EMAIL_FROM_NAME", "Another name since the last deploy")
    config.forget()
    mail_queue.pass_time()
    mail_queue.deliver(mail_queue.record(*event))
    row = mail_queue.message(event[1]["id"])
    assert (row["status"], row["reason"]) == (
        "accepted_unknown",
        "409 invalid_idempotent_request",
    )
    assert row["data"] is not None, "a person may send it again all the same"
    assert len(resend.deliveries) == 1
    asked = dict(resend.asked)
    assert [seconds for seconds, _ in post_queue.take()][-1] == 900, "and is looked at again"
    invariants.run("UPDATE email_message SET ended_at = ended_at - interval '15 minutes'")
    mail_queue.deliver(mail_queue.record(*event))
    assert [reason for reason, _ in post_queue.dead] == ["email.unconfirmed"]
    assert resend.asked == asked
