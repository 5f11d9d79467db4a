"""`make reconcile` and `make replay`: what is asked, how often, and what a person reads."""

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from local import __main__ as local
from local.commands import billing
from local.progress import Trouble
from tests.account import Account
from tests.scripted import Answer, scripted

REPORT: dict[str, Any] = {
    "finished": True,
    "listed": {"events": 12, "subscriptions": 2, "invoices": 3},
    "repaired": {"events": 1, "subscriptions": 1, "invoices": 0},
    "failed": 0,
    "missed": 1,
    "differences": 3,
    "orphans": 1,
    "drift": [{"id": "sub_1", "field": "status", "ours": "active", "stripe": "canceled"}],
}


class Asked:
    """Answers in turn, and keeps what it was asked."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        self.answers, self.events = list(answers), list[dict[str, Any]]()

    def __call__(self, event: dict[str, Any]) -> dict[str, Any]:
        self.events.append(event)
        return self.answers.pop(0)


def test_a_run_is_gone_on_with_until_it_is_finished(capsys: pytest.CaptureFixture[str]) -> None:
    going = {**REPORT, "finished": False, "phase": "invoices"}
    ask, pauses = Asked(going, {"finished": False, "busy": True}, going, REPORT), list[float]()
    billing.reconcile(ask, pauses.append)
    assert ask.events == [{"start": True}, {}, {}, {}]
    assert pauses == [5.0]  # a busy function is not asked again without a pause
    said = capsys.readouterr().out
    assert "sub_1  status: active → canceled" in said
    assert "… and 2 more" in said
    assert "1 customers pay for no workspace of ours" in said


def test_a_stack_without_a_key_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    billing.reconcile(Asked({"finished": True, "skipped": "no Stripe key is configured"}))
    assert "no Stripe key" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"done": ["evt_1"]}, "done    evt_1"),
        ({"left": 7}, "7 are left to sweep_billing"),
        ({"gone": 2}, "2 came more than 35 days ago"),
        ({}, "No event"),
    ],
)
def test_a_replay_says_what_became_of_the_events(
    answer: dict[str, Any], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = Asked({"done": [], "failed": [], "left": 0, "gone": 0} | answer)
    billing.replay(ask, {"event": "evt_1", "failed": False, "since": None})
    assert ask.events == [{"replay": {"event": "evt_1"}}]
    assert words in capsys.readouterr().out


def test_a_replay_that_fails_is_trouble(capsys: pytest.CaptureFixture[str]) -> None:
    ask = Asked({"done": [], "failed": ["evt_1"], "left": 0, "gone": 0})
    with pytest.raises(Trouble):
        billing.replay(ask, {"failed": True})
    assert "failed  evt_1" in capsys.readouterr().out


@pytest.fixture
def account(environment: pytest.MonkeyPatch) -> Iterator[Account]:
    found = Account()
    with scripted(found.answer) as server:
        environment.setenv("AWS_ENDPOINT_URL", server.url)
        yield found


def test_a_deployed_stacks_function_is_asked(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = json.dumps({"done": ["evt_1"], "failed": [], "left": 0, "gone": 0})
    account.answers = [Answer(body=body.encode())]
    monkeypatch.setattr(sys, "argv", ["local", "replay", "--failed", "--env", "prod"])
    assert local.main() == 0
    [request] = account.invoked
    assert json.loads(request.body) == {"replay": {"failed": True}}


def test_a_customer_is_bound_on_a_deployed_stack(
    account: Account, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = {"customer": "cus_1", "workspace": "ws_1", "access": "full", "plan_id": "pro"}
    account.answers = [Answer(body=json.dumps(answer).encode())]
    monkeypatch.setattr(sys, "argv", ["local", "bind", "sub_1", "ws_1", "--env", "prod"])
    assert local.main() == 0
    [request] = account.invoked
    assert json.loads(request.body) == {"bind": {"customer": "sub_1", "workspace": "ws_1"}}
    assert "cus_1 is ws_1's, which is on pro" in capsys.readouterr().out


def test_what_a_function_refuses_is_said_in_its_words(
    account: Account, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    account.answers = [Answer(body=b'{"errorMessage": "`since` is a date or a time"}')]
    monkeypatch.setattr(sys, "argv", ["local", "replay", "--since", "soon", "--env", "dev"])
    assert local.main() == 1
    assert "sweep_billing failed: `since` is a date or a time" in capsys.readouterr().err


def test_a_replay_needs_one_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    for words in ([], ["--failed", "--event", "evt_1"]):
        monkeypatch.setattr(sys, "argv", ["local", "replay", *words])
        with pytest.raises(SystemExit):
            local.main()


WHY: dict[str, Any] = {
    "workspace": "ws_1",
    "name": "Shop\x1b[2J",
    "decided": {
        "access": "grace",
        "plan_id": "pro",
        "access_until": "2026-12-01T10:00:00+00:00",
        "subscription_id": "sub_2",
        "rule": "its payment failed, in the grace period",
    },
    "recorded": {
        "access": "full",
        "plan_id": "pro",
        "access_until": None,
        "updated_at": "2026-11-01T10:00:00+00:00",
    },
    "customers": [{"id": "cus_1", "beside": True, "deleted_at": None}],
    "subscriptions": [
        {
            "id": "sub_2",
            "status": "past_due",
            "plan_id": "pro",
            "price_id": "price_2",
            "gives": "grace",
            "rule": "its payment failed, in the grace period",
            "period_end": "2026-12-24T10:00:00+00:00",
            "cancel_at": None,
            "ended_at": None,
            "grace_since": "2026-11-24T10:00:00+00:00",
            "unplanned_since": None,
            "collection_paused": False,
            "doubtful": True,
        },
        {
            "id": "sub_1",
            "status": "canceled",
            "plan_id": None,
            "price_id": "price_1",
            "gives": "free",
            "rule": "it is canceled",
            "period_end": "2026-10-24T10:00:00+00:00",
            "cancel_at": None,
            "ended_at": "2026-10-20T10:00:00+00:00",
            "grace_since": None,
            "unplanned_since": None,
            "collection_paused": False,
            "doubtful": False,
        },
    ],
    "unpaid": [
        {
            "id": "in_1",
            "status": "open",
            "amount_due": 9900,
            "currency": "aed",
            "attempt_count": 2,
            "next_attempt_at": "2026-11-29T10:00:00+00:00",
        }
    ],
    "events": [
        {
            "id": "evt_1",
            "type": "invoice.payment_failed",
            "status": "failed",
            "created": "2026-11-24T10:00:00+00:00",
            "last_error": "Unreadable: invoice.total",
        }
    ],
}


def test_why_is_answered_in_lines(capsys: pytest.CaptureFixture[str]) -> None:
    ask = Asked(WHY)
    billing.why(ask, "ws_1")
    assert ask.events == [{"why": "ws_1"}]
    said = capsys.readouterr().out
    for line in (
        "ws_1  Shop\\x1b[2J",
        "access    grace on pro until 2026-12-01 10:00:00",
        "because   of sub_2: its payment failed, in the grace period",
        "recorded  full on pro, since 2026-11-01 10:00:00",
        "customer  cus_1 by `make bind`",
        "→ sub_2  past_due  pro: grace, its payment failed, in the grace period; period ends",
        "; payment due since 2026-11-24 10:00:00; to be read from Stripe again",
        "  sub_1  canceled  no plan (price_1): free, it is canceled; ended 2026-10-20 10:00:00",
        "  in_1  open  99.00 AED, 2 attempts, again 2026-11-29 10:00:00",
        "failed     evt_1  Unreadable: invoice.total",
    ):
        assert line in said, line


def test_why_of_a_workspace_that_never_paid(capsys: pytest.CaptureFixture[str]) -> None:
    nothing: dict[str, Any] = {"customers": [], "subscriptions": [], "unpaid": [], "events": []}
    decided = {"access": "free", "plan_id": "free", "access_until": None}
    decided |= {"subscription_id": None, "rule": "no subscription"}
    found = {"workspace": "ws_1", "name": "Shop", "decided": decided, "recorded": None, **nothing}
    billing.why(Asked(found), "ws_1")
    said = capsys.readouterr().out
    assert "because   no subscription" in said
    assert "recorded  nothing yet" in said
    assert "subscriptions  none" in said
