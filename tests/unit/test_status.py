"""What the figures behind `make status` mean: each trouble is one line that says what to do."""

import copy
from typing import Any

import pytest

from local import status
from local.status import Queue

WELL: dict[str, Any] = {
    "outbox": {"waiting": 0, "oldest": None, "error": None},
    "stripe": {
        "waiting": 0,
        "oldest": None,
        "parked": 0,
        "error": None,
        "orphans": 0,
        "doubtful": 0,
    },
    "mail": {"waiting": 0, "oldest": None, "reason": None, "lost": 0, "held": None},
    "uploads": {"late": 0},
    "runs": {
        "plans": {"age": 60.0, "result": {"faults": []}},
        "reconcile": {"age": None, "result": {}},
    },
    "beats": {"relay_outbox": 20.0, "sweep_billing": 20.0},
}


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


def test_a_stack_that_works_needs_nobody() -> None:
    assert bad(WELL) == []


@pytest.mark.parametrize(
    ("path", "value", "title"),
    [
        ("outbox", {"waiting": 2, "oldest": 31.0, "error": "Timeout"}, "events"),
        ("beats.relay_outbox", 76.0, "event relay"),
        ("beats", {"relay_outbox": 1.0}, "billing sweep"),
        ("mail.lost", 1, "e-mail"),
        ("mail.held", 200.0, "e-mail"),
        ("stripe.parked", 1, "Stripe's events"),
        ("stripe.doubtful", 1, "Stripe's events"),
        ("uploads.late", 1, "uploads"),
        ("runs.plans.age", 7300.0, "plan sync"),
        ("runs.plans.result", {"faults": ["prod_1: …"]}, "plan sync"),
        ("runs.reconcile", {"age": 27 * 3600.0, "result": {}}, "reconcile"),
        ("runs.reconcile", {"age": 60.0, "result": {"failed": 2}}, "reconcile"),
    ],
)
def test_a_trouble_is_one_line(path: str, value: object, title: str) -> None:
    assert bad(changed(path, value)) == [title]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("outbox", {"waiting": 2, "oldest": 3.0, "error": None}),
        ("mail.waiting", 0),
        ("stripe.orphans", 3),  # somebody else's customer at Stripe is no fault of ours
        ("runs.plans.age", None),
    ],
)
def test_what_passes_by_itself_needs_nobody(path: str, value: object) -> None:
    assert bad(changed(path, value)) == []


def test_a_line_says_what_waits_for_how_long_and_why() -> None:
    found = changed(
        "mail", WELL["mail"] | {"waiting": 3, "oldest": 300.0, "reason": "503 internal"}
    )
    [line] = [line for line in status.judge(found, patience=75) if line.title == "e-mail"]
    assert line.text == "3 wait, the oldest for 5 min: 503 internal"
    assert "Resend" in line.todo


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
