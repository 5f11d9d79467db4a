"""`make drill`: break what the stack depends on, one thing at a time, and count what that costs.

Each is broken on a stack of `make run` that has a PostgreSQL, a Memcached and a Resend of its own.
While it is broken, clients go on: they upload files, emit orders, payments and mails, subscribe.
What they were promised (a PUT that the store took, an event whose transaction committed, a
subscription at Stripe) is counted at the other end once it works again: each has its effect, once.

    noticed    seconds until `make status` has a line about it
    recovered  seconds from the repair until all of the work is done and that line is gone

Ends with 1 when something was lost, doubled or not noticed.
"""

import argparse
import asyncio
import base64
import hashlib
import io
import os
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

from bench import load
from bench.load import Journal
from kyora import postgres as database
from local import process
from local.progress import say
from local.settings import ROOT
from local.stack import postgres
from tests.e2e.commands import client, query, run
from tests.e2e.conftest import Stack, request
from tests.fake_resend import API_KEY, FakeResend, Fault, fake_resend
from tests.integration.support.memcached import Memcached
from tests.integration.support.samples import png
from tests.ports import free_port

_EACH = 4  # uploads, and events of each kind, while something is broken
_NOTICE, _RECOVER = 180, 420  # seconds
_PASSWORD = "drill"  # noqa: S105  # of a server on this machine that ends with the drill
_FOR_EVER = 1_000_000  # requests
_SCHEDULES = "kyora-local-"


class Part(NamedTuple):
    """What can break; `lines` are the titles of `make status` that say so: one of them has to."""

    name: str
    broken: Callable[["Site"], Any]  # a context manager: broken inside, whole after it
    lines: tuple[str, ...]


class Result(NamedTuple):
    """What a part cost: seconds, and how much of what was promised."""

    noticed: float | None
    recovered: float | None
    promised: int
    lost: int
    doubled: int


class Site:
    """A stack, and the things around it that can be broken."""

    def __init__(self, home: Path, memcached: Memcached, resend: FakeResend) -> None:
        self.home, self.memcached, self.resend = home, memcached, resend
        self.port, self.runner = free_port(), asyncio.Runner()
        self.server: process.Child | None = None
        url = f"postgresql://kyora:{_PASSWORD}@127.0.0.1:{self.port}/kyora"
        variables = {
            "UPLOAD_EVENT_DELAY": "5",
            "DATABASE_URL": url,
            "DATABASE_OWNER_URL": url.replace("//kyora:", "//kyora_owner:"),
            "CACHE_PROVIDER": "memcached",
            "CACHE_MEMCACHED_SERVERS": memcached.address,
            "EMAIL_PROVIDER": "resend",
            "EMAIL_RESEND_API_KEY": API_KEY,
            "EMAIL_RESEND_BASE_URL": resend.url,
            "EMAIL_FROM_EMAIL": "kyora@example.com",
            "EMAIL_SUPPORT_EMAIL": "help@example.com",
        }
        self.stack = Stack(ROOT, home / "stack", free_port(), variables)

    def start_database(self) -> None:
        """Start the server, with what it has kept."""
        running = postgres.run(self.home / "data", self.port, _PASSWORD, self.home / "log")
        self.server = self.runner.run(running)

    def kill_database(self) -> None:
        """Kill the server, as a power cut would."""
        if self.server is not None:
            os.kill(self.server.process.pid, signal.SIGKILL)
            self.runner.run(process.stop(self.server))
            self.server = None

    def lines(self) -> set[str]:
        """Return the titles of what `make status` is not content with."""
        said = run(self.stack, "status").stdout.splitlines()
        return {line[4:19].strip() for line in said if line.startswith("  ✗ ")}


# ---- what breaks


@contextmanager
def _stripe_down(site: Site) -> Iterator[None]:
    # What happened just before: its webhooks come while Stripe's API is down.
    load.control(site.stack, "pump", hold=False)
    load.control(site.stack, "faults", kind="status", status=503, times=_FOR_EVER)
    yield
    load.control(site.stack, "faults", times=0)


@contextmanager
def _resend_down(site: Site) -> Iterator[None]:
    site.resend.faults = lambda *_: Fault(503, "service_unavailable")
    yield
    site.resend.faults = lambda *_: None


@contextmanager
def _database_down(site: Site) -> Iterator[None]:
    site.kill_database()
    yield
    site.start_database()


@contextmanager
def _cache_down(site: Site) -> Iterator[None]:
    site.memcached.kill()
    yield
    site.memcached.start()


def _consumer_off(queue: str) -> Callable[[Site], Any]:
    @contextmanager
    def broken(site: Site) -> Iterator[None]:
        functions = client(site.stack, "lambda")
        found = functions.list_event_source_mappings()["EventSourceMappings"]
        [mapping] = [one for one in found if one["EventSourceArn"].endswith(f"-{queue}")]
        functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=False)
        yield
        functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=True)

    return broken


def _schedules_off(*names: str) -> Callable[[Site], Any]:
    @contextmanager
    def broken(site: Site) -> Iterator[None]:
        scheduler = client(site.stack, "scheduler")
        found = [one["Name"] for one in scheduler.list_schedules()["Schedules"]]
        chosen = [name for name in found if not names or name.removeprefix(_SCHEDULES) in names]
        _switch(scheduler, chosen, "DISABLED")
        # The process that emits does not reach the bus either, so that rows wait for the relay.
        os.environ["AWS_ENDPOINT_URL"] = "http://127.0.0.1:9"
        yield
        os.environ["AWS_ENDPOINT_URL"] = site.stack.env["AWS_ENDPOINT_URL"]
        _switch(scheduler, chosen, "ENABLED")

    return broken


def _switch(scheduler: Any, names: list[str], state: str) -> None:
    for name in names:
        found = scheduler.get_schedule(Name=name)
        kept = ("Name", "GroupName", "ScheduleExpression", "FlexibleTimeWindow", "Target")
        scheduler.update_schedule(**{key: found[key] for key in kept}, State=state)


PARTS = (
    Part("Stripe's API answers 503", _stripe_down, ("Stripe", "Stripe's events")),
    Part("Resend answers 503", _resend_down, ("e-mail",)),
    Part("Postgres is killed", _database_down, ("database",)),
    Part("Memcached is killed", _cache_down, ()),
    Part("send_email is off", _consumer_off("emails"), ("queue emails",)),
    Part("record_transaction_fee is off", _consumer_off("fees"), ("queue fees",)),
    Part("update_analytics is off", _consumer_off("analytics"), ("queue analytics",)),
    Part("verify_upload is off", _consumer_off("uploads"), ("queue uploads",)),
    Part("the relay is off", _schedules_off("relay-outbox"), ("events", "relay_outbox")),
    Part("every schedule is off", _schedules_off(), ("events", "relay_outbox", "sweep_billing")),
)


# ---- the drill


def main() -> int:
    """Start a stack, break each part, print the table."""
    parser = argparse.ArgumentParser(prog="make drill")
    parser.add_argument("--only", default="", help="parts whose name holds one of these words")
    words = parser.parse_args().only.split(",")
    parts = [part for part in PARTS if any(word in part.name for word in words)]
    with (
        tempfile.TemporaryDirectory(prefix="kd") as folder,
        Memcached() as memcached,
        fake_resend() as resend,
    ):
        site = Site(Path(folder), memcached, resend)
        site.start_database()
        try:
            say("  · starting the stack of `make run`")
            site.stack.start(300)
            return _drill(site, parts)
        finally:
            if site.stack.process is not None:
                site.stack.stop()
            site.kill_database()
            site.runner.close()


def _drill(site: Site, parts: Sequence[Part]) -> int:
    load.prepare(site.stack)
    load.control(site.stack, "pump", duplicate=0.0, copies=1, shuffle=False, delay=0)
    say("  · the same work with nothing broken, until everything has started")
    _work(site, Journal(), "warm")
    _until(lambda: not site.lines(), _RECOVER)
    results = {}
    for number, part in enumerate(parts):
        say(f"  · {part.name}")
        results[part.name] = _one(site, part, f"{number}")
        say(f"    {results[part.name]}")
    width = max(map(len, results))
    say(f"\n| {'broken':<{width}} | noticed | recovered | promised | lost | doubled |")
    say(f"|{'-' * (width + 2)}|--------:|----------:|---------:|-----:|--------:|")
    for name, found in results.items():
        times = f"{_shown(found.noticed):>7} | {_shown(found.recovered):>9}"
        counts = f"{found.promised:>8} | {found.lost:>4} | {found.doubled:>7}"
        say(f"| {name:<{width}} | {times} | {counts} |")
    good = all(
        not found.lost
        and not found.doubled
        and found.recovered is not None
        and (found.noticed is not None or not part.lines)
        for part, found in zip(parts, results.values(), strict=True)
    )
    return 0 if good else 1


def _shown(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.0f} s"


def _one(site: Site, part: Part, name: str) -> Result:
    journal = Journal()
    orders = _orders(site)
    load.control(site.stack, "pump", hold=True)
    _subscribe(site, journal, name)
    with part.broken(site):
        began = time.monotonic()
        load.control(site.stack, "pump", hold=False)
        _work(site, journal, name)
        noticed = None
        if part.lines:
            seen = _until(lambda: site.lines() & set(part.lines), _NOTICE)
            noticed = time.monotonic() - began if seen else None
    repaired, lines = time.monotonic(), set(part.lines)
    database.close()  # its connection may be to a server that is gone

    def counted() -> tuple[int, int, int]:
        return _count(site, journal, orders)

    whole = _until(lambda: counted()[1:] == (0, 0) and not site.lines() & lines, _RECOVER)
    recovered = time.monotonic() - repaired if whole else None
    time.sleep(10)  # a second effect would come by now
    return Result(noticed, recovered, *counted())


def _until(condition: Callable[[], object], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if condition():
                return True
        except Exception:  # noqa: S110  # what is broken may not answer
            pass
        time.sleep(1)
    return False


# ---- the work


def _work(site: Site, journal: Journal, name: str) -> None:
    """Do what clients do; what is refused was not promised."""
    for number in range(_EACH):
        for job in (_upload, _emit):
            try:
                job(site, journal, f"{name}-{number}-{time.time_ns():x}")
            except Exception:
                journal.failures.append(traceback.format_exc(limit=-1))


def _emit(site: Site, journal: Journal, name: str) -> None:
    with redirect_stdout(io.StringIO()):  # its metrics
        load.emit(journal, name)


def _upload(site: Site, journal: Journal, name: str) -> None:
    content = png(note=name.encode())
    digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
    body = {"filename": "a.png", "contentType": "image/png", "size": len(content), "sha256": digest}
    asked = site.stack.call("POST", "/v1/assets/upload", body)
    if asked.status != 200:
        return
    ticket = asked.json
    put = request("PUT", ticket["uploadUrl"], content, ticket["headers"])
    if put.status == 200:  # from here on it is verified, whether a client confirms it or not
        journal.files[ticket["assetId"]] = digest
        if int(name.split("-")[1]) % 2 == 0:
            site.stack.call("POST", f"/v1/assets/{ticket['assetId']}/confirm")


def _subscribe(site: Site, journal: Journal, name: str) -> None:
    """Subscribe a workspace at Stripe; its webhooks are held."""
    stack, workspace, email = site.stack, f"ws_drill_{name}", f"owner-{name}@example.com"
    query(stack, load.WORKSPACE, workspace=workspace, owner=f"usr_drill_{name}", email=email)
    [[price]] = query(stack, "SELECT price_id FROM plan WHERE id = 'professional'")
    metadata = {"workspaceId": workspace}
    customer = load.stripe(stack, "customers", email=email, metadata=metadata)["id"]
    card = load.stripe(stack, "payment_methods/pm_card_visa/attach", customer=customer)["id"]
    load.stripe(stack, f"customers/{customer}", invoice_settings={"default_payment_method": card})
    items = {"0": {"price": price}}
    load.stripe(stack, "subscriptions", customer=customer, items=items, metadata=metadata)
    journal.lives[email] = False


# ---- the count


def _orders(site: Site) -> int:
    return sum(day["orders"] for day in load.summary(site.stack))


def _count(site: Site, journal: Journal, orders: int) -> tuple[int, int, int]:
    """Return how much was promised, how much of it has no effect, and how much has two."""
    stack = site.stack
    emitted, paid = (journal.events.get(n, []) for n in ("OrderCreated", "OrderPaymentSucceeded"))
    mails = journal.events.get("EmailVerificationRequested", [])
    counted = _orders(site) - orders
    sql = "SELECT count(*) FROM transaction_fee WHERE amount = 189 AND order_id = ANY(:ids)"
    fees = query(stack, sql, ids=paid)[0][0]
    box = Counter((d.payload["to"][0], _template(d.payload)) for d in site.resend.deliveries)
    sent = [box[address, "email_verification"] for address in mails]
    sent += [box[address, "subscription_confirmed"] for address in journal.lives]
    theirs, ours = load.at_stripe(stack), load.mirrored(stack)
    lost = len(journal.files) - load.ready(stack, journal)
    lost += max(0, len(emitted) - counted) + len(paid) - fees + sent.count(0)
    lost += sum(ours.get(subscription) != state for subscription, state in theirs.items())
    doubled = max(0, counted - len(emitted)) + sum(max(0, number - 1) for number in sent)
    promised = len(journal.files) + len(emitted) + len(paid) + len(sent) + len(journal.lives)
    return promised, lost, doubled


def _template(payload: dict[str, Any]) -> str:
    return next(str(tag["value"]) for tag in payload["tags"] if tag["name"] == "template")


if __name__ == "__main__":
    sys.exit(main())
