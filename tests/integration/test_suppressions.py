"""Addresses that get no mail: ours and Resend's list, by webhook, by hand and once a day.

And the state of our sending domain, as Resend reports it.
"""

import io
import itertools
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from kyora import config, status
from kyora.email import reputation, suppressions
from tests.fake_resend import SENDING_KEY, FakeResend, Fault
from tests.integration.support import invariants, mail_queue
from tests.integration.support.resend_webhook import bounce, receive, reported, request, suppressed
from tests.resend_types import faults
from tests.unit.functions import CONTEXT, function

DANA, EVE = "dana@example.com", "eve@example.com"


@pytest.fixture
def hook(resend: FakeResend, mail_logs: io.StringIO) -> FakeResend:
    return resend


def ask(**asked: object) -> Any:
    found = function("send_email").handler({"suppressions": asked}, CONTEXT)
    json.dumps(found)
    return found


def compared() -> dict[str, Any]:
    found: dict[str, Any] = function("send_email").handler({}, CONTEXT)
    return found


def changed(kind: str, minute: int, *, email: str = DANA, origin: str = "bounce") -> dict[str, Any]:
    """Return the request that reports a change on Resend's list."""
    at = f"2026-11-23T07:{minute:02}:00.000Z"
    data = {"id": "sup_1", "email": email, "origin": origin, "source_id": None, "created_at": at}
    return request(json.dumps({"type": kind, "created_at": at, "data": data}).encode())


# ---- by hand


def test_lifting_takes_the_address_off_both_lists(hook: FakeResend) -> None:
    """Resend went on holding it, and every mail after that was suppressed again."""
    hook.suppress(DANA)
    hook.suppress(EVE)
    receive(request(bounce()))
    assert ask(lift="Dana@Example.com") == {"lifted": True, "there": "removed"}
    assert [entry["email"] for entry in hook.suppressions] == [EVE]
    assert suppressed() == {}


@pytest.mark.parametrize(
    ("fault", "there"),
    [
        (Fault(404, "not_found"), "absent"),
        (Fault(404, "", html=True), "404"),
        (Fault(401, "restricted_api_key"), "restricted"),
        (Fault(403, "invalid_api_key"), "403 invalid_api_key"),
        (Fault(500, "application_error"), "500 application_error"),
        (Fault(), "no answer"),
    ],
)
def test_lifting_says_what_became_of_resends_list(
    fault: Fault, there: str, hook: FakeResend
) -> None:
    receive(request(bounce()))
    hook.faults = lambda key, nth: fault
    assert ask(lift=DANA) == {"lifted": True, "there": there}
    assert suppressed() == {}


def test_a_key_that_may_only_send_is_reported(
    hook: FakeResend, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("EMAIL_RESEND_API_KEY", SENDING_KEY)
    config.forget()
    assert ask(lift=DANA) == {"lifted": False, "there": "restricted"}
    assert compared()["refused"] == "restricted"
    mail_queue.deliver(mail_queue.record(*mail_queue.verification()))
    assert len(hook.deliveries) == 1, "and it sends"


def test_an_address_is_lifted_as_a_person_types_it(hook: FakeResend) -> None:
    receive(request(bounce(to="dana@xn--fa-hia.example")))
    hook.suppress("dana@xn--fa-hia.example")
    assert ask(lift=" Dana@Faß.example") == {"lifted": True, "there": "removed"}


def test_suppressions_are_listed_masked(hook: FakeResend) -> None:
    assert ask() == {"suppressions": []}
    receive(request(bounce()))
    (row,) = ask()["suppressions"]
    assert (row["address"], row["reason"], row["until"]) == ("d***@e***.com", "bounced", None)
    assert ask(show=True)["suppressions"][0]["address"] == DANA


def test_the_mock_has_no_list_of_its_own(hook: FakeResend, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("EMAIL_PROVIDER", "mock")
    config.forget()
    receive(request(bounce()))
    assert ask(lift=DANA) == {"lifted": True, "there": ""}
    assert compared()["refused"] == "mock"


# ---- the webhook


@pytest.mark.parametrize(
    ("origin", "reason"),
    [
        ("bounce", "bounced"),
        ("complaint", "complained"),
        ("manual", "suppressed"),
        ("one that is new", "suppressed"),
    ],
)
def test_what_resend_holds_is_held_here(origin: str, reason: str, hook: FakeResend) -> None:
    added = changed("suppression.added", 1, origin=origin, email="Dana@Example.com")
    assert receive(added)[0] == 200
    assert suppressed() == {DANA: reason}
    assert receive(changed("suppression.removed", 2, origin=origin))[0] == 200
    assert suppressed() == {}


def test_in_whatever_order_it_comes_the_last_word_counts(hook: FakeResend) -> None:
    tale = [
        ("suppression.added", 1),
        ("suppression.removed", 2),
        ("suppression.added", 3),
        ("suppression.removed", 4),
    ]
    for length in (2, 3, 4):
        for order in itertools.permutations(tale[:length]):
            invariants.run("DELETE FROM email_suppression")
            for kind, minute in order:
                receive(changed(kind, minute))
            assert bool(suppressed()) is (length == 3), order


def test_an_older_word_than_our_lifting_is_old_news(hook: FakeResend) -> None:
    receive(request(bounce()))
    ask(lift=DANA)
    receive(changed("suppression.added", 1))
    assert suppressed() == {}


def test_a_rest_for_a_week_is_ours_alone(hook: FakeResend) -> None:
    for _ in range(3):
        receive(request(bounce("Transient")))
    receive(changed("suppression.removed", 1))
    assert suppressed() == {DANA: "bouncing"}
    receive(changed("suppression.added", 2))
    assert suppressed() == {DANA: "bounced"}


@pytest.mark.parametrize("data", [{}, {"email": 7}, {"email": ""}, {"email": "\0"}, {"origin": []}])
def test_a_strange_change_is_recorded_and_harmless(data: dict[str, Any], hook: FakeResend) -> None:
    for kind in ("suppression.added", "suppression.removed", "domain.updated"):
        body = json.dumps({"type": kind, "created_at": "soon", "data": data}).encode()
        assert receive(request(body))[0] == 200
    assert not suppressed().keys() & {"", DANA}


# ---- once a day


def test_what_resend_alone_holds_is_taken_over(hook: FakeResend) -> None:
    for number in range(250):  # three pages
        hook.suppress(f"p{number}@example.com", random.choice(("bounce", "complaint", "manual")))
    receive(request(bounce(to="p7@example.com")))
    receive(request(bounce(to=EVE)))
    found = compared()
    assert found == {"theirs": 250, "whole": True, "added": 249, "onlyThere": 0, "onlyHere": 1}
    assert len(suppressed()) == 251
    assert compared() == found | {"added": 0}
    assert status.read()["suppressions"]["result"] == found | {"added": 0}


def test_what_was_lifted_here_and_is_still_held_there_is_reported(hook: FakeResend) -> None:
    receive(request(bounce()))
    hook.suppress(DANA)
    hook.faults = lambda key, nth: Fault(503)
    ask(lift=DANA)
    hook.faults = lambda key, nth: None
    assert compared()["onlyThere"] == 1
    assert suppressed() == {}, "a person wanted it so"
    ask(lift=DANA)
    assert compared()["onlyThere"] == 0


def test_a_list_that_cannot_be_read_changes_nothing(hook: FakeResend) -> None:
    receive(request(bounce()))
    hook.faults = lambda key, nth: Fault(403, "invalid_api_key")
    assert compared()["refused"] == "403 invalid_api_key"
    assert suppressed() == {DANA: "bounced"}


def test_a_busy_moment_is_waited_for(hook: FakeResend) -> None:
    hook.suppress(DANA)
    left = [Fault(429, "rate_limit_exceeded"), Fault(503)]
    hook.faults = lambda key, nth: left.pop() if left else None
    assert compared()["added"] == 1


def test_there_is_an_end_to_it(hook: FakeResend) -> None:
    hook.suppress(DANA)
    receive(request(bounce(to=EVE)))
    found = suppressions.compare(0.0)
    assert (found["whole"], found["onlyHere"]) == (False, 0), "half a list proves nothing"


# ---- our domain


@pytest.fixture
def domain(hook: FakeResend) -> Iterator[Any]:
    def report(
        status_: str, minute: int, kind: str = "domain.updated", name: str = "kyora.example"
    ):  # type: ignore[no-untyped-def]
        at = f"2026-11-23T07:{minute:02}:00.000Z"
        data = {
            "id": "d_1",
            "name": name,
            "status": status_,
            "created_at": at,
            "region": "eu-west-1",
            "records": [],
        }
        event = {"type": kind, "created_at": at, "data": data}
        assert receive(request(json.dumps(event).encode()))[0] == 200
        return {row["name"]: row["status"] for row in status.read()["domains"]}

    return report


def test_our_domain_is_kept_as_resend_last_reported_it(domain: Any) -> None:
    assert domain("pending", 1, "domain.created") == {"kyora.example": "pending"}
    assert domain("verified", 3) == {"kyora.example": "verified"}
    assert domain("failed", 2) == {"kyora.example": "verified"}, "late, and old"
    assert domain("temporary_failure", 4) == {"kyora.example": "temporary_failure"}
    assert domain("verified", 5, "domain.deleted") == {"kyora.example": "deleted"}


def test_another_domain_of_the_account_is_none_of_ours(domain: Any) -> None:
    assert domain("failed", 1, name="other.example") == {}
    assert domain("verified", 2, name="Kyora.Example") == {"kyora.example": "verified"}


def test_a_domain_that_is_not_verified_is_measured_for_its_alarm(
    domain: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for word, number in (("verified", 0.0), ("failed", 1.0)):
        domain(word, int(number) + 1)
        capsys.readouterr()
        reputation.measure()
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        [found] = [line for line in lines if "EmailDomainsNotVerified" in line]
        assert found["EmailDomainsNotVerified"] == [number]


# ---- the stand-in


def test_the_fake_answers_as_the_sdk_types_it(hook: FakeResend) -> None:
    import resend as sdk

    hook.suppress(DANA)
    hook.suppress(EVE, "manual")
    sdk.api_key, sdk.api_url = mail_queue.ENVIRONMENT["EMAIL_RESEND_API_KEY"], hook.url
    sdk.default_http_client = sdk.RequestsClient()
    page: Any = sdk.Suppressions.list({"limit": 1})
    assert faults(page, sdk.Suppressions.ListResponse) == []
    removed: Any = sdk.Suppressions.remove(EVE)
    assert faults(removed, sdk.Suppressions.RemoveSuppressionResponse) == []
    mail_queue.deliver(mail_queue.record(*mail_queue.verification()))
    [delivery] = hook.deliveries
    assert faults(delivery.payload, sdk.Emails.SendParams) == []
    assert reported("email.sent")
