"""`make time`: move the clock of the whole stack, a day at a time.

Functions, emulator, front and Stripe's stand-in read one shift (`local/shift`), PostgreSQL a row
that `now()` adds (`postgres`). A jump would skip what happens on the way: so a move is
made of steps. A step ends where Stripe has something due or a grace period ends, and after a day at
the latest; then Stripe delivers its webhooks, every schedule runs once, and the queues empty.
"""

import json
import re
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from math import inf
from pathlib import Path
from typing import Any

import pg8000.exceptions
import pg8000.native
from botocore.exceptions import BotoCoreError, ClientError

from local.progress import Trouble
from local.settings import ROOT, WORKSPACE, Settings
from local.shift import sitecustomize
from local.stack import emulator, postgres

STEP = timedelta(days=1)
SHORTEST = timedelta(hours=1)
# The first step: what a queue holds back for a minute comes before what expires in an hour.
FIRST = timedelta(minutes=2)
LONGEST = timedelta(days=3 * 366)

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_BY = re.compile(r"\+(\d{1,6})([smhdw])")
_QUIET_SECONDS = 20.0  # a step waits no longer for queues: a poisoned message stays for hours
_AFTERWARDS = timedelta(minutes=1)
# Stripe keeps the invoice of a renewal as a draft for an hour, and then charges it.
_DRAFT = timedelta(hours=1)

# An event that failed waits for a sweep, and a mail for its next attempt: they need another step.
_WAITING = """
select count(*) from outbox
where published_at is null and (attempts = 0 or next_attempt_at <= now())
"""
# When the last day of a grace period begins, and when the period ends: a mail for each.
_DEADLINES = """
select extract(epoch from min(at))::float8 from workspace_billing,
    lateral (values (access_until - interval '1 day'), (access_until)) as deadlines (at)
where access = 'grace' and at > now()
"""
_GOALS = {
    "renewal": """
        select min(period_end) from subscription s
        join billing_customer c on c.id = s.customer_id
        where c.workspace_id = :workspace and s.status in ('trialing', 'active', 'past_due')
            and s.cancel_at is null and s.period_end > now()""",
    "trial-end": """
        select min(trial_end) from subscription s
        join billing_customer c on c.id = s.customer_id
        where c.workspace_id = :workspace and s.status = 'trialing' and s.trial_end > now()""",
    "grace-end": """
        select access_until from workspace_billing
        where workspace_id = :workspace and access = 'grace' and access_until > now()""",
}


def environment(home: Path) -> dict[str, str]:
    """Return the variables with which a Python process follows the stack's clock."""
    return {"PYTHONPATH": str(ROOT / "local" / "shift"), sitecustomize.VARIABLE: str(file(home))}


def file(home: Path) -> Path:
    """Return the file that holds the shift."""
    return home / "clock"


class Moving(Trouble):
    """The clock is on its way already."""


@dataclass
class Clock:
    """The clock of one stack, and what its last move met."""

    stack: Settings
    shift: sitecustomize.Shift
    heading: datetime | None = None  # where a move that is under way ends
    faults: list[str] = field(default_factory=list)
    _one: threading.Lock = field(default_factory=threading.Lock)
    _database: pg8000.native.Connection = field(init=False, repr=False)  # while it moves

    def state(self, workspace: str = WORKSPACE) -> dict[str, Any]:
        """Return what the clock says and where it can be moved for a workspace."""
        return {
            "now": _text(datetime.now(UTC)),
            "aheadSeconds": round(self.shift.seconds),
            "movingTo": _text(self.heading) if self.heading else None,
            "goals": {name: _text(at) for name, at in self._goals(workspace).items() if at},
            "fixed": self.fixed(),
            "faults": self.faults,
        }

    def fixed(self) -> str:
        """Return why this clock cannot be moved, or an empty text."""
        if not self.stack.own_postgres:
            return "the database in DATABASE_URL has a clock of its own"
        if not self.stack.own_stripe:
            return "Stripe's test mode has a clock of its own (use its test clocks)"
        return ""

    def aim(self, words: str, workspace: str = WORKSPACE) -> datetime:
        """Read `+7d`, `renewal`, `trial-end`, `grace-end` or a date. Raises Trouble."""
        now = datetime.now(UTC)
        if found := _BY.fullmatch(words):
            aimed = now + timedelta(**{_UNITS[found[2]]: int(found[1])})
        elif words in _GOALS:
            at = self._goals(workspace)[words]
            if at is None:
                raise Trouble(f"workspace {workspace} has no {words} ahead")
            aimed = at + _AFTERWARDS + (timedelta() if words == "grace-end" else _DRAFT)
        else:
            try:
                aimed = datetime.fromisoformat(words)
            except ValueError:
                raise Trouble(
                    f"{words!r} is no time: give +7d (s, m, h, d, w), a date, or one of "
                    f"{', '.join(_GOALS)}"
                ) from None
            aimed = aimed if aimed.tzinfo else aimed.replace(tzinfo=UTC)
        if aimed <= now:
            raise Trouble("the clock goes forward, or back to the machine's with `make time reset`")
        if aimed - now > LONGEST:
            raise Trouble(f"one move is {LONGEST.days} days at most")
        return aimed

    def act(self, to: str, workspace: str = WORKSPACE, step: timedelta = STEP) -> None:
        """Move to where `aim` reads, or `reset`. Raises Moving, and Trouble for what cannot be."""
        if why := self.fixed():
            raise Trouble(f"the clock cannot be moved: {why}")
        if not self._one.acquire(blocking=False):
            raise Moving("the clock is being moved")
        try:
            self.faults.clear()
            aimed = None if to == "reset" else self.aim(to, workspace)
            with self._connected():
                if aimed is None:
                    self._reset()
                else:
                    self._move(aimed, step)
        finally:
            self._one.release()

    def _move(self, aimed: datetime, step: timedelta) -> None:
        """Walk there in steps; what a schedule failed with is noted, and stops nothing."""
        self.heading = aimed
        at = round(self.shift.seconds)
        end = at + max(round((aimed - datetime.now(UTC)).total_seconds()), 1)
        try:
            self._settle()  # what is on its way now belongs before the move
            schedules = self._schedules()
            stride = round(FIRST.total_seconds())
            while at < end:
                at = min(at + stride, end)
                self._set(at, moving=True)
                self._live(schedules)
                stride = self._stride(step)
        finally:
            self.heading = None
            self._set(at, moving=False)

    def _stride(self, longest: timedelta) -> int:
        """Return the seconds to where the next thing is due."""
        now = time.time()
        due = [self._stripe()["next"]]
        due += self._ask(_DEADLINES)
        first = min((moment - now + 1 for moment in due if moment), default=inf)
        bounds = SHORTEST.total_seconds(), longest.total_seconds()
        return round(max(bounds[0], min(first, bounds[1])))

    def _reset(self) -> None:
        """Go back to the machine's time; what was written meanwhile keeps its dates."""
        self._settle()
        self._set(0, moving=False)
        self._stripe()

    def follow(self) -> None:
        """Give PostgreSQL the shift that the file keeps between two starts."""
        if not self.stack.own_postgres:
            self.shift.set(0, moving=False)
            return
        with self._connected():
            self._set(0 if self.fixed() else round(self.shift.seconds), moving=False)

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Keep a connection to the stack's own database: a move asks it hundreds of times."""
        with closing(postgres.administer(self.stack)) as self._database:
            yield

    def _ask(self, sql: str) -> list[Any]:
        [row] = self._database.run(sql) or []
        return list(row)

    def _set(self, seconds: int, *, moving: bool) -> None:
        self.shift.set(seconds, moving=moving)
        postgres.set_clock(self._database, seconds)

    def _goals(self, workspace: str) -> dict[str, datetime | None]:
        found: dict[str, datetime | None] = {}
        for name, sql in _GOALS.items():
            rows: list[list[Any]] = []
            with suppress(OSError, pg8000.exceptions.Error):
                rows = postgres.query(self.stack.database_url, sql, workspace=workspace)
            found[name] = rows[0][0] if rows else None
        return found

    @cached_property
    def _clients(self) -> dict[str, Any]:
        # Made once: each takes longer than a step should.
        names = ("lambda", "scheduler")
        return {name: emulator.client(name, self.stack.gateway_port) for name in names}

    def _schedules(self) -> list[tuple[str, str, bytes]]:
        """Return the name of each schedule, its function and what that is given."""
        client = self._clients["scheduler"]
        found = []
        for page in client.get_paginator("list_schedules").paginate():
            for name in (schedule["Name"] for schedule in page["Schedules"]):
                target = client.get_schedule(Name=name)["Target"]
                found.append((name, target["Arn"], target.get("Input", "{}").encode()))
        return found

    def _live(self, schedules: list[tuple[str, str, bytes]]) -> None:
        """Do what a step of time brings about."""

        def run(schedule: tuple[str, str, bytes]) -> None:
            name, function, event = schedule
            try:
                answer = self._clients["lambda"].invoke(FunctionName=function, Payload=event)
            except (BotoCoreError, ClientError) as error:
                self.faults.append(f"{name}: {error}")
                return
            if answer.get("FunctionError"):
                said = json.loads(answer["Payload"].read() or b"{}")
                self.faults.append(f"{name}: {said.get('errorMessage', said)}")

        self._settle()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(run, schedules))
        self._settle(relayed=True)

    def _settle(self, *, relayed: bool = False) -> None:
        """Wait until Stripe has delivered and no queue holds anything.

        `relayed`: nor the outbox, which waits for its relay until the schedules have run.
        """
        deadline = time.monotonic() + _QUIET_SECONDS

        def waits() -> str:
            if self._stripe()["due"]:
                return "a delivery of Stripe's"
            if relayed and self._ask(_WAITING)[0]:
                return "the outbox"
            found = emulator.messages(_read(emulator.messages_address(self.stack.gateway_port)))
            for queue, messages in found.items():
                # A message that is not visible and was never received is held back: it is not due.
                due = any(m["IsVisible"] or m["ReceiveCount"] for m in messages)
                if due and not queue.endswith("-dead"):
                    return f"the queue {queue}"
            return ""

        # Twice in a row: between two places a message is in neither.
        calm = 0
        while calm < 2:
            calm = 0 if (what := waits()) else calm + 1
            if time.monotonic() > deadline:
                self.faults.append(f"{_text(datetime.now(UTC))}: {what} still waits")
                return
            time.sleep(0.02)

    def _stripe(self) -> dict[str, Any]:
        """Let Stripe's stand-in do what is due; return its state."""
        return _read(f"{self.stack.stripe_url}/_control/state")


def _read(address: str) -> dict[str, Any]:
    with urllib.request.urlopen(address, timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
