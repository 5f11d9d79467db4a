"""What the figures behind `make status` mean: each trouble is one line that says what to do."""

import copy
from typing import Any

import pytest

from local import progress
from local.commands import status
from local.commands.status import Queue, judge_code

WELL: dict[str, Any] = {
    "outbox": {"waiting": 0, "oldest": None, "error": None, "refused": 0},
    "stripe": {
        "waiting": 0,
        "oldest": None,
        "parked": 0,
        "error": None,
        "orphans": 0,
        "doubtful": 0,
        "unserved": 0,
        "unserved_customer": None,
    },
    "mail": {"waiting": 0, "oldest": None, "reason": None, "lost": 0, "held": None},
    "suppressions": None,
    "domains": [],
    "uploads": {"late": 0},
    "differences": {},
    "runs": {
        "plans": {"age": 60.0, "begun": 61.0, "result": {"faults": [], "drift": ["a", "b"]}},
        "reconcile": {"age": None, "begun": None, "result": {}},
    },
    "beats": {
        "relay_outbox": 20.0,
        "sweep_billing": 20.0,
        "report_status": 20.0,
        "purge_data": 200.0,
        "sweep_uploads": 200.0,
        "sync_plans": 60.0,
    },
    "schedules": {
        "relay_outbox": 1,
        "sweep_billing": 1,
        "report_status": 1,
        "purge_data": 5,
        "sweep_uploads": 5,
    },
}


def checked(age: float = 60.0, **result: object) -> dict[str, Any]:
    """Return what the daily look at Resend's suppressions found."""
    found = {"theirs": 3, "whole": True, "added": 0, "onlyThere": 0, "onlyHere": 0}
    return {"age": age, "result": found | result}


def changed(path: str, value: object) -> dict[str, Any]:
    found = copy.deepcopy(WELL)
    *parts, last = path.split(".")
    inner = found
    for part in parts:
        inner = inner[part]
    inner[last] = value
    return found


def bad(found: dict[str, Any]) -> list[str]:
    return [line.title for line in status.judge(found, patience=75) if not line.good]


def test_a_stack_that_works_needs_no_one() -> None:
    assert bad(WELL) == []


@pytest.mark.parametrize(
    ("path", "value", "title"),
    [
        ("outbox", WELL["outbox"] | {"waiting": 2, "oldest": 31.0, "error": "Timeout"}, "events"),
        ("outbox", WELL["outbox"] | {"waiting": 1, "oldest": 3.0, "refused": 1}, "events"),
        ("beats.relay_outbox", 76.0, "relay_outbox"),
        ("beats.sweep_billing", 76.0, "sweep_billing"),
        ("beats.report_status", 76.0, "report_status"),
        ("beats.purge_data", 316.0, "purge_data"),
        ("beats.sweep_uploads", 316.0, "sweep_uploads"),
        ("beats", {**WELL["beats"], "sweep_billing": None}, "sweep_billing"),
        (
            "beats",
            {**WELL["beats"], "sweep_billing": None, "migrate_database": 76.0},
            "sweep_billing",
        ),
        ("mail.lost", 1, "e-mail"),
        ("mail.held", 200.0, "e-mail"),
        ("domains", [{"name": "kyora.example", "status": "failed"}], "mail domain"),
        ("suppressions", checked(onlyThere=1), "suppressions"),
        ("suppressions", checked(refused="403 invalid_api_key"), "suppressions"),
        ("suppressions", checked(age=27 * 3600.0), "suppressions"),
        ("stripe.parked", 1, "Stripe's events"),
        ("stripe.doubtful", 1, "Stripe's events"),
        ("uploads.late", 1, "uploads"),
        ("differences", {"storage": {"count": 1, "example": "ws_1"}}, "storage ledger"),
        ("beats.sync_plans", 7300.0, "plan sync"),
        ("runs.plans.result", {"faults": ["prod_1: …"]}, "plan sync"),
        ("runs.reconcile", {"age": 27 * 3600.0, "begun": 0.0, "result": {}}, "reconcile"),
        ("runs.reconcile", {"age": None, "begun": 7300.0, "result": {}}, "reconcile"),
        ("runs.reconcile", {"age": 60.0, "begun": 61.0, "result": {"failed": 2}}, "reconcile"),
    ],
)
def test_a_trouble_is_one_line(path: str, value: object, title: str) -> None:
    assert bad(changed(path, value)) == [title]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("outbox", WELL["outbox"] | {"waiting": 2, "oldest": 3.0}),
        ("beats", {"migrate_database": 74.0}),
        ("beats", {"relay_outbox": 9e4, "sweep_billing": 9e4, "migrate_database": 74.0}),
        ("mail.waiting", 0),
        ("domains", [{"name": "kyora.example", "status": "verified"}]),
        ("suppressions", checked(onlyHere=2)),
        ("suppressions", checked(refused="restricted", whole=False)),
        ("suppressions", checked(refused="mock", whole=False)),
        ("stripe.orphans", 3),  # another product's customer at Stripe is no fault of ours
        ("runs.plans.age", None),
        ("runs.plans.age", 90_000.0),  # only the hourly run, beating above, has to be fresh
        ("runs.reconcile", {"age": None, "begun": 60.0, "result": {}}),
        ("runs.reconcile", {"age": 60.0, "begun": 61.0, "result": {"differences": 3}}),
    ],
)
def test_what_passes_on_its_own_needs_no_one(path: str, value: object) -> None:
    assert bad(changed(path, value)) == []


def test_a_schedule_is_late_by_the_interval_it_was_deployed_with() -> None:
    hourly = WELL | {"schedules": dict.fromkeys(WELL["schedules"], 60)}
    for age, late in ((3600.0, []), (3616.0, ["relay_outbox"])):
        assert bad(hourly | {"beats": WELL["beats"] | {"relay_outbox": age}}) == late


def test_a_line_says_what_waits_for_how_long_and_why() -> None:
    found = changed(
        "mail", WELL["mail"] | {"waiting": 3, "oldest": 300.0, "reason": "503 internal"}
    )
    [line] = [line for line in status.judge(found, patience=75) if line.title == "e-mail"]
    assert line.text == "3 wait, the oldest for 5 min: 503 internal"
    assert "Resend" in line.todo


def test_lost_mail_is_listed_by_a_command() -> None:
    found = status.judge(changed("mail.lost", 2), patience=75)
    [line] = [line for line in found if line.title == "e-mail"]
    assert "2 not sent" in line.text
    assert "`make mails FAILED=1`" in line.todo


def test_a_key_that_may_only_send_is_reported() -> None:
    found = changed("suppressions", checked(refused="restricted", whole=False))
    [line] = [line for line in status.judge(found, patience=75) if line.title == "suppressions"]
    assert "the key may only send" in line.text


def test_a_run_says_how_long_ago_it_was_and_what_it_found() -> None:
    run = {"age": 7300.0, "begun": 7400.0, "result": {"differences": 3, "failed": 1}}
    found = changed("runs.reconcile", run)
    texts = {line.title: line.text for line in status.judge(found, patience=75)}
    assert texts["plan sync"] == "60 s ago; 2 differed"
    assert texts["reconcile"] == "2 h ago; 3 differed; 1 failed"


@pytest.mark.parametrize(
    ("queue", "good"),
    [
        (Queue("fees", 0, None, 0), True),
        (Queue("fees", 1, None, 0), False),
        (Queue("fees", 900, 30.0, 0), True),
        (Queue("fees", 1, 130.0, 0), False),
        (Queue("fees", 0, None, 1), False),
    ],
)
def test_a_queue_is_well_while_it_moves_and_nothing_was_given_up(queue: Queue, good: bool) -> None:
    [line] = status.judge_queues([queue])
    assert line.good is good
    assert ("make redrive QUEUE=fees" in line.todo) is bool(queue.dead)


def test_an_event_that_will_never_be_published_is_named_with_the_command_that_drops_it() -> None:
    outbox = {"waiting": 1, "oldest": 9.0, "error": "too large", "refused": 1}
    line = next(iter(status.judge(changed("outbox", WELL["outbox"] | outbox), patience=75)))
    assert "1 will never be published" in line.text
    assert "too large" in line.text
    assert "make outbox" in line.todo


def test_what_someone_else_wrote_is_shown_without_its_control_characters(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = changed(
        "outbox", WELL["outbox"] | {"waiting": 1, "oldest": 90.0, "error": "a\x9b2Jb\nc"}
    )
    for line in status.judge(found, patience=75):
        progress.say(f"{progress.shown(line.text)}")
    out = capsys.readouterr().out
    assert "a\\x9b2Jb\\nc" in out
    assert "\x9b" not in out


@pytest.mark.parametrize(
    ("unhandled", "waiting", "dead", "lost"),
    [
        (0, 0, 0, 0),
        (3, 3, 0, 0),
        (3, 0, 3, 0),
        (3, 1, 2, 0),
        (3, 9, 0, 0),
        (3, 1, 1, 1),
        (3, 0, 0, 3),
    ],
)
def test_an_event_is_lost_when_it_is_not_handled_and_in_no_queue(
    unhandled: int, waiting: int, dead: int, lost: int
) -> None:
    found = (
        {"record_transaction_fee": {"count": unhandled, "example": "evt_1"}} if unhandled else {}
    )
    queues = [Queue("fees", waiting, None, dead), Queue("emails", 9, None, 9)]
    [line] = status.judge_deliveries(found, queues)
    assert line.good is not bool(lost)
    assert line.title == ("lost fees" if lost else "deliveries")
    assert not lost or f"{lost} events of record_transaction_fee, such as evt_1" in line.text


def test_code_that_was_saved_and_does_not_start_is_named_with_its_reason() -> None:
    assert judge_code("").good
    line = judge_code("check_health cannot start:\n    File app.py\n    ImportError: no x\n")
    assert (line.good, line.text) == (False, "check_health cannot start: ImportError: no x")
    assert judge_code("app.py:1: invalid syntax").text == "app.py:1: invalid syntax"
