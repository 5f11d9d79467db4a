"""`make time`: one shift for every process of the local stack, and none for a deployed one."""

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import time_machine

from local.commands.acts import move_clock
from local.process import shifted_clock
from local.progress import Trouble
from local.settings import ROOT, Settings
from local.shift import sitecustomize
from local.stack import clock
from local.stripe.engine import Engine
from local.stripe.pump import Pump
from local.stripe.standin import Options, StandIn
from local.web.running import Front
from tests.scripted import Answer, scripted

ABOUT = timedelta(minutes=2)
WEEK = 7 * 86400


def stack(home: Path, **environ: str) -> Settings:
    return Settings(home, 8000, 1, 1, 1, {"POSTGRES_PASSWORD": "x"}, environ)


def a_clock(home: Path, **environ: str) -> clock.Clock:
    return clock.Clock(stack(home, **environ), sitecustomize.Shift(clock.file(home)))


# ---- the shift

_FOLLOWS = """
import email.utils, sys, time, uuid
from datetime import date, datetime, UTC
import jwt
from kyora import clock

for _ in sys.stdin:
    token = jwt.encode({"exp": int(REAL) + 60}, "k" * 32, algorithm="HS256")
    try:
        jwt.decode(token, "k" * 32, algorithms=["HS256"])
        valid = True
    except jwt.ExpiredSignatureError:
        valid = False
    print(clock.now().timestamp(), clock.timestamp(), time.time_ns() / 1e9,
        datetime.now(UTC).timestamp(), email.utils.localtime().timestamp(), int(valid),
        time.monotonic(), flush=True)
"""


def test_a_running_process_follows_the_shift_with_all_that_it_imports(tmp_path: Path) -> None:
    shift = sitecustomize.Shift(clock.file(tmp_path))
    there = clock.environment(tmp_path)
    path = os.pathsep.join([there["PYTHONPATH"], str(ROOT / "layers" / "kyora")])
    with subprocess.Popen(
        [sys.executable, "-c", _FOLLOWS.replace("REAL", str(time.time()))],
        env={**shifted_clock(), **there, "PYTHONPATH": path},  # as faketime runs us
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def look() -> list[float]:
            print(file=process.stdin, flush=True)
            assert process.stdout is not None
            return [float(part) for part in process.stdout.readline().split()]

        *before, valid, began = look()
        assert before == pytest.approx([time.time()] * 5, abs=60)
        assert valid
        shift.set(WEEK, moving=True)
        *after, valid, ended = look()
        assert after == pytest.approx([time.time() + WEEK] * 5, abs=60)
        assert not valid
        assert ended - began < 60  # a duration is what it was
        shift.set(0, moving=False)
        assert look()[:5] == pytest.approx([time.time()] * 5, abs=60)


def test_two_views_of_the_file_are_one_shift(tmp_path: Path) -> None:
    one, other = (sitecustomize.Shift(clock.file(tmp_path)) for _ in range(2))
    one.set(WEEK, moving=True)
    assert (other.seconds, other.moving) == (WEEK, True)
    other.set(0, moving=False)
    assert (one.seconds, one.moving) == (0, False)


# ---- where to


@pytest.mark.parametrize(
    ("words", "ahead"),
    [
        ("+90s", timedelta(seconds=90)),
        ("+5m", timedelta(minutes=5)),
        ("+12h", timedelta(hours=12)),
        ("+7d", timedelta(days=7)),
        ("+2w", timedelta(days=14)),
    ],
)
def test_a_duration_is_added_to_now(tmp_path: Path, words: str, ahead: timedelta) -> None:
    assert abs(a_clock(tmp_path).aim(words) - datetime.now(UTC) - ahead) < ABOUT


def test_a_date_is_midnight_in_utc_unless_it_says_more(tmp_path: Path) -> None:
    year = datetime.now(UTC).year + 1
    found = a_clock(tmp_path)
    assert found.aim(f"{year}-01-31") == datetime(year, 1, 31, tzinfo=UTC)
    assert found.aim(f"{year}-01-31T10:00+02:00") == datetime(year, 1, 31, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("tomorrow", "is no time"),
        ("7d", "is no time"),
        ("-7d", "is no time"),
        ("+7y", "is no time"),
        ("", "is no time"),
        ("2001-01-01", "goes forward"),
        ("+0d", "goes forward"),
        ("+2000d", "1098 days at most"),
    ],
)
def test_what_is_no_time_ahead_is_refused(tmp_path: Path, words: str, why: str) -> None:
    with pytest.raises(Trouble, match=why):
        a_clock(tmp_path).aim(words)


# ---- only here


@pytest.mark.parametrize(
    ("variable", "value", "why"),
    [
        ("DATABASE_URL", "postgresql://kyora@db.example/kyora", "DATABASE_URL"),
        ("BILLING_STRIPE_API_KEY", "sk_test_1", "test clocks"),
    ],
)
def test_a_clock_with_a_foreign_part_is_not_moved(
    tmp_path: Path, variable: str, value: str, why: str
) -> None:
    assert a_clock(tmp_path).fixed() == ""
    assert why in a_clock(tmp_path, **{variable: value}).fixed()


def test_the_clock_of_a_deployed_stage_cannot_be_moved() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "local", "time", "+7d", "--env", "prod"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "only the local stack's clock can be moved" in done.stderr + done.stdout


def test_nothing_that_is_deployed_knows_of_the_shift() -> None:
    deployed = [ROOT / "template.yaml", ROOT / "samconfig.toml"]
    for folder, kinds in (("functions", ".py"), ("layers", ".py .sql .txt .mk Makefile")):
        deployed += [
            path
            for path in (ROOT / folder).rglob("*")
            if path.is_file() and path.name.endswith(tuple(kinds.split()))
        ]
    assert len(deployed) > 200
    words = re.compile(
        rf"{sitecustomize.VARIABLE}|time.machine|sitecustomize|faketime", re.IGNORECASE
    )
    assert [str(path) for path in deployed if words.search(path.read_text())] == []


@pytest.mark.parametrize(
    ("to", "environ", "why"),
    [
        ("never", {}, "is no time"),
        ("+1d", {"DATABASE_URL": "postgresql://kyora@db.example/kyora"}, "DATABASE_URL"),
    ],
)
def test_the_console_says_at_once_what_cannot_be(
    tmp_path: Path, to: str, environ: dict[str, str], why: str
) -> None:
    found = Front(stack(tmp_path), a_clock(tmp_path, **environ))
    with pytest.raises(Trouble, match=why):
        move_clock(found, to)


def test_a_second_move_waits_for_no_first_one(tmp_path: Path) -> None:
    found = a_clock(tmp_path)
    with found._one, pytest.raises(clock.Moving):
        found.act("+1d")
    with pytest.raises(Trouble, match="is no time"):
        found.act("never")  # and the first one leaves the clock free


@pytest.mark.parametrize(
    ("queue", "message", "waits"),
    [
        ("emails", {"IsVisible": True, "ReceiveCount": 0}, True),
        ("emails", {"IsVisible": False, "ReceiveCount": 1}, True),  # a function has it
        ("emails", {"IsVisible": False, "ReceiveCount": 0}, False),  # held back: it is not due
        ("emails-dead", {"IsVisible": True, "ReceiveCount": 6}, False),
    ],
)
def test_a_step_ends_when_no_queue_holds_anything_that_is_due(
    tmp_path: Path,
    queue: str,
    message: dict[str, object],
    waits: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = f"http://127.0.0.1/000000000000/kyora-local-{queue}"
    queues = {"messages": {"000000000000": {"us-east-1": {address: [message]}}}}
    answers = {"/_control/state": {"due": 0}, "/_ministack/sqs/messages": queues}
    monkeypatch.setattr(clock, "_QUIET_SECONDS", 0.1)
    with scripted(lambda asked: Answer(body=json.dumps(answers[asked.path]).encode())) as server:
        port = urlsplit(server.url).port or 0
        found = a_clock(tmp_path)
        found.stack = replace(found.stack, gateway_port=port, stripe_port=port)
        found._settle()
    assert [fault.partition(": ")[2] for fault in found.faults] == (
        [f"the queue {queue} still waits"] if waits else []
    )


# ---- Make


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["+7d"], "-m local time +7d"),
        (["reset"], "-m local time reset"),
        (["grace-end", "WORKSPACE=ws_1"], "-m local time grace-end --workspace ws_1"),
        (["TO=2027-01-31T10:00"], "-m local time 2027-01-31T10:00"),
        ([], "-m local time"),
        (["+7d", "ENV=prod"], "-m local time +7d --env prod"),
    ],
)
def test_make_takes_the_second_word_for_a_time(words: list[str], command: str) -> None:
    done = subprocess.run(
        ["make", "--dry-run", "time", *words],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f".venv/bin/python {command}" in " ".join(done.stdout.split())


def test_make_does_not_take_another_target_for_a_time() -> None:
    done = subprocess.run(
        ["make", "--dry-run", "time", "tomorrow"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0


# ---- Stripe's stand-in


def a_stand_in() -> StandIn:
    return StandIn(Options(), Engine(now=int(time.time())), Pump())


def test_the_stand_in_comes_back_with_the_clock_while_nothing_has_happened() -> None:
    real = int(time.time())
    with time_machine.travel(real, tick=False) as traveller:
        found = a_stand_in()
        found.tick()
        traveller.move_to(real + WEEK)
        found.tick()
        assert found.engine.now == real + WEEK
        traveller.move_to(real)
        found.tick()
        assert found.engine.now == found.now() == real


def test_the_stand_in_stays_after_its_newest_event() -> None:
    """An event that is older than one before it would be taken for old news."""
    real = int(time.time())
    with time_machine.travel(real, tick=False) as traveller:
        found = a_stand_in()
        found.tick()
        traveller.move_to(real + WEEK)
        found.tick()
        found.engine.request("POST", "/v1/customers", {})
        traveller.move_to(real + WEEK + 60)
        found.tick()
        traveller.move_to(real)
        found.tick()
        assert found.engine.now == found.now() == real + WEEK
        traveller.move_to(real + 60)
        found.tick()
        assert found.engine.now == real + WEEK + 60
