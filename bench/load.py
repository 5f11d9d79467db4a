"""The whole stack of `make run` under load, then a count at both ends: `make bench LOAD=1`.

Clients that each wait for an answer before they ask again upload files, live at Stripe (whose
webhooks come twice and in any order) and emit events, for a minute. Once everything has drained,
what they were answered is compared with what is there: bytes in the store, our mirror with Stripe,
fees, counts and mail, each exactly once. Ends with 1 when a count differs.
"""

import argparse
import base64
import hashlib
import itertools
import json
import os
import statistics
import sys
import tempfile
import threading
import time
import traceback
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from kyora import config
from kyora import postgres as database
from kyora.bus import outbox
from local.commands.dead_letters import queue_urls
from local.commands.place import Place
from local.progress import say
from local.settings import ROOT
from local.stack import emulator
from tests.e2e.commands import client, query
from tests.e2e.conftest import Stack, request
from tests.integration.support.samples import png
from tests.ports import free_port

UPLOADERS = 2
_WARM, _ROUND = 300, 15  # seconds
_DRAIN = 420  # seconds: an upload's message that was not dealt with is seen again after 360
BUSINESS = "biz_load"
_WAITING = """
SELECT 'outbox' AS place, count(*) FROM outbox WHERE published_at IS NULL
UNION ALL SELECT 'events of Stripe', count(*) FROM stripe_event WHERE status = 'received'
UNION ALL SELECT 'doubtful subscriptions', count(*) FROM subscription WHERE doubtful
UNION ALL SELECT 'mail', count(*) FROM email_message WHERE status IN ('queued', 'sending')
"""
_LAG = """
SELECT extract(epoch FROM i.received_at - o.created_at)::float8 FROM outbox o
JOIN inbox i ON i.event_id = o.id WHERE o.created_at > :begin AND i.consumer =
"""
_LAGS = {
    "event: until its fee is there": f"{_LAG} 'record_transaction_fee'",
    "event: until it is counted": f"{_LAG} 'update_analytics'",
    "event: until its mail is sent": """
        SELECT extract(epoch FROM m.sent_at - o.created_at)::float8 FROM outbox o
        JOIN email_message m ON m.event_id = o.id
        WHERE o.created_at > :begin AND m.sent_at IS NOT NULL""",
    "Stripe: from an event kept to done": """
        SELECT extract(epoch FROM processed_at - received_at)::float8 FROM stripe_event
        WHERE received_at > :begin AND processed_at IS NOT NULL""",
}
WORKSPACE = """
WITH w AS (INSERT INTO workspace (id, name, owner_id) VALUES (:workspace, 'Load', :owner))
INSERT INTO app_user (id, workspace_id, email, role) VALUES (:owner, :workspace, :email, 'admin')
"""


@dataclass
class Journal:
    """What clients did and what they were answered."""

    took: dict[str, list[float]] = field(default_factory=dict)  # seconds by kind of request
    files: dict[str, str] = field(default_factory=dict)  # asset → SHA-256, once confirmed
    events: dict[str, list[str]] = field(default_factory=dict)  # name → subjects
    lives: dict[str, bool] = field(default_factory=dict)  # owner's address → left again
    failures: list[str] = field(default_factory=list)
    began: datetime = field(default_factory=lambda: datetime.now(UTC))

    @contextmanager
    def timed(self, kind: str) -> Iterator[None]:
        """Note how long the block takes."""
        began = time.perf_counter()
        yield
        self.took.setdefault(kind, []).append(time.perf_counter() - began)


def main() -> int:
    """Start a stack, load it, let it drain, count."""
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kl") as folder:
        # A short delay: the path without a confirm is part of what has to drain.
        stack = Stack(ROOT, Path(folder) / "home", free_port(), {"UPLOAD_EVENT_DELAY": "5"})
        try:
            say("  · starting the stack of `make run`")
            stack.start(240)
            return measure(stack, chosen.seconds)
        finally:
            if stack.process is not None:
                stack.stop()


def measure(stack: Stack, seconds: float) -> int:
    """Load a running stack for so long and count; return how many counts differ, at most 1."""
    prepare(stack)
    journal = Journal()
    say("  · the same without counting, until no more functions have to start")
    _warm_up(stack, journal)
    journal.took.clear()
    journal.failures.clear()
    journal.began = datetime.now(UTC)
    say(f"  · load for {seconds:.0f} s")
    began = time.monotonic()
    _work(stack, journal, began + seconds)
    loaded = time.monotonic() - began
    say("  · waiting until nothing is on its way")
    left = drain(stack)
    drained = time.monotonic() - began - loaded
    _report(stack, journal, loaded)
    say(f"drained after {drained:.0f} s")
    counts = _counts(stack, journal) | {
        "still on its way": ({}, left),
        "failures": (0, len(journal.failures)),
    }
    for name, (expected, found) in counts.items():
        say(f"{'✓' if expected == found else '✗'} {name:<46}{expected or 0!s:>9} {found or 0!s:>8}")
    for failure in journal.failures[:5]:
        say(failure)
    return int(any(expected != found for expected, found in counts.values()))


def _warm_up(stack: Stack, journal: Journal) -> None:
    """Work until the functions have started as often as clients ask at once.

    A start takes the emulator ten seconds, and most of a minute under load: whatever gives up on
    one is no loss, and not what is measured.
    """
    ends = time.monotonic() + _WARM
    before = -1
    while (started := _started(stack)) != before and time.monotonic() < ends:
        before = started
        _work(stack, journal, time.monotonic() + _ROUND)


def _started(stack: Stack) -> int:
    log = (stack.home / "logs" / "emulator.log").read_text(errors="replace")
    return log.count("Lambda worker spawned")


def prepare(stack: Stack) -> None:
    """Make a business whose card payments cost a fee, and let this process emit events."""
    query(
        stack,
        "WITH b AS (INSERT INTO business (id, workspace_id, name, currency)"
        " VALUES (:id, 'ws_demo', 'Load', 'USD') ON CONFLICT DO NOTHING)"
        " INSERT INTO payment_method_fee (workspace_id, business_id, method, percent, fixed)"
        " VALUES ('ws_demo', :id, 'credit_card', 0.029, 0.30) ON CONFLICT DO NOTHING",
        id=BUSINESS,
    )
    control(stack, "pump", duplicate=0.5, copies=2, shuffle=True, delay=1)
    # This process emits events as the application does: a row in its transaction.
    os.environ |= {name: stack.env[name] for name in ("DATABASE_URL", "AWS_ENDPOINT_URL")}
    os.environ |= emulator.KEYS
    os.environ |= {"AWS_REGION": emulator.REGION, "STAGE": "local", "BUS_NAME": "kyora-local"}
    os.environ["LOG_LEVEL"] = "ERROR"  # what cannot be published at once waits for the relay
    config.forget()


def _work(stack: Stack, journal: Journal, until: float) -> None:
    run = f"{time.time_ns():x}"
    jobs: list[Callable[[str], None]] = [lambda name: _upload(stack, journal, name)] * UPLOADERS
    jobs += [lambda name: _life(stack, journal, name), lambda name: emit(journal, name)]

    def loop(job: Callable[[str], None], worker: int) -> None:
        for number in itertools.count():
            try:
                job(f"{run}-{worker}-{number}")
            except Exception:
                journal.failures.append(traceback.format_exc(limit=-2))
            if time.monotonic() > until:
                break

    threads = [threading.Thread(target=loop, args=(job, n)) for n, job in enumerate(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    database.close()


# ---- what clients do


def _upload(stack: Stack, journal: Journal, name: str) -> None:
    content = png(note=name.encode())
    digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
    body = {"filename": "a.png", "contentType": "image/png", "size": len(content), "sha256": digest}
    with journal.timed("upload: ask"):
        asked = stack.call("POST", "/v1/assets/upload", body, Idempotency_Key=name)
    assert asked.status == 200, asked  # noqa: S101
    ticket = asked.json
    with journal.timed("upload: put"):
        put = request("PUT", ticket["uploadUrl"], content, ticket["headers"])
    assert put.status == 200, put  # noqa: S101
    confirmed = None
    while confirmed is None or confirmed.status == 202:
        with journal.timed("upload: confirm"):
            confirmed = stack.call("POST", f"/v1/assets/{ticket['assetId']}/confirm")
    assert confirmed.status == 200, confirmed  # noqa: S101
    journal.files[ticket["assetId"]] = digest


def emit(journal: Journal, name: str) -> None:
    """Emit an order, its payment, a customer and a mail; note what was committed."""
    order = {"orderId": f"ord_{name}", "businessId": BUSINESS, "total": "54.99", "currency": "USD"}
    paid = {"paymentMethod": "credit_card", "paidAt": datetime.now(UTC).isoformat()}
    customer = {"customerId": f"cus_{name}", "businessId": BUSINESS, "source": "instagram"}
    mail = {"email": f"mail-{name}@example.com", "name": "Dana", "token": "t", "locale": "en"}
    for domain, event, data, subject in (
        ("orders", "OrderCreated", order, order["orderId"]),
        ("orders", "OrderPaymentSucceeded", order | paid, order["orderId"]),
        ("customers", "CustomerCreated", customer, customer["customerId"]),
        ("accounts", "EmailVerificationRequested", mail, mail["email"]),
    ):
        with journal.timed("event: commit and publish"), database.transaction() as tx:
            outbox.add(tx, domain, event, data, "ws_demo")
        journal.events.setdefault(event, []).append(subject)


def _life(stack: Stack, journal: Journal, name: str) -> None:
    """Sign up, pay, change the plan; every second one leaves again."""
    workspace, email = f"ws_{name}", f"owner-{name}@example.com"
    query(stack, WORKSPACE, workspace=workspace, owner=f"usr_{name}", email=email)
    prices = dict(query(stack, "SELECT id, price_id FROM plan WHERE active"))
    with journal.timed("Stripe: a customer's life"):
        customer = stripe(stack, "customers", email=email, metadata={"workspaceId": workspace})
        owner = customer["id"]
        card = stripe(stack, "payment_methods/pm_card_visa/attach", customer=owner)
        default = {"default_payment_method": card["id"]}
        stripe(stack, f"customers/{owner}", invoice_settings=default)
        sub = stripe(
            *(stack, "subscriptions"),
            customer=owner,
            items={"0": {"price": prices["professional"]}},
            metadata={"workspaceId": workspace},
        )
        item = {"id": sub["items"]["data"][0]["id"], "price": prices["enterprise"]}
        path = f"subscriptions/{sub['id']}"
        stripe(stack, path, items={"0": item}, proration_behavior="create_prorations")
        leaves = int(name.rpartition("-")[2]) % 2 == 1
        if leaves:
            stripe(stack, path, method="DELETE")
        journal.lives[email] = leaves
    with journal.timed("Stripe: until its webhooks are taken"):
        while control(stack, "state")["waiting"]:
            time.sleep(0.1)


# ---- the end


def drain(stack: Stack) -> dict[str, int]:
    """Wait until nothing is on its way; return what still is after `_DRAIN`, by where."""
    deadline = time.monotonic() + _DRAIN
    quiet = 0
    while True:
        places = dict(query(stack, _WAITING)) | queues(stack, dead=False)
        places["deliveries of Stripe"] = control(stack, "state")["waiting"]
        waiting = {place: int(count) for place, count in places.items() if count}
        # What leaves one place for the next may be seen in neither.
        quiet = quiet + 1 if not waiting else 0
        if quiet == 3 or time.monotonic() > deadline:
            return waiting
        time.sleep(1)


def queues(stack: Stack, *, dead: bool) -> dict[str, int]:
    """Return how many messages are in each queue, or in each dead-letter queue."""
    sqs = client(stack, "sqs")
    found = {}
    for queue, url in queue_urls(sqs, Place("local", stack.env)).items():
        if queue.endswith("-dead") == dead:
            all_of = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
            names = ("", "NotVisible", "Delayed")
            found[queue] = sum(int(all_of[f"ApproximateNumberOfMessages{name}"]) for name in names)
    return found


def _counts(stack: Stack, journal: Journal) -> dict[str, tuple[Any, Any]]:
    """Return, of everything that must be equal, what clients know and what is there."""
    orders, paid = (
        journal.events.get("OrderCreated", []),
        journal.events.get("OrderPaymentSucceeded", []),
    )
    customers = journal.events.get("CustomerCreated", [])
    mails = journal.events.get("EmailVerificationRequested", [])
    box = Counter(
        (r[0], r[1]) for r in query(stack, "SELECT recipient, template FROM mock_mailbox")
    )
    theirs, ours = at_stripe(stack), mirrored(stack)
    days = summary(stack)
    fees = query(
        stack,
        "SELECT order_id, amount FROM transaction_fee WHERE order_id = ANY(:orders)",
        orders=paid,
    )
    left = [email for email, leaves in journal.lives.items() if leaves]
    stayed = [email for email, leaves in journal.lives.items() if not leaves]
    return {
        "uploads confirmed · ready with their bytes": (len(journal.files), ready(stack, journal)),
        "orders emitted · counted": (len(orders), sum(day["orders"] for day in days)),
        "their revenue in cents · counted": (
            5499 * len(orders),
            sum(round(float(day["revenue"].get("USD", 0)) * 100) for day in days),
        ),
        "customers emitted · counted": (
            len(customers),
            sum(day["customers"].get("instagram", 0) for day in days),
        ),
        "payments emitted · fees of 1.89": (len(paid), sum(int(fee[1]) == 189 for fee in fees)),
        "mails asked for · sent once": (
            len(mails),
            sum(box[address, "email_verification"] == 1 for address in mails),
        ),
        "subscriptions at Stripe · equal in our mirror": (
            len(theirs),
            sum(ours.get(name) == state for name, state in theirs.items()),
        ),
        "subscriptions that run · confirmed once": (
            len(stayed),
            sum(box[address, "subscription_confirmed"] == 1 for address in stayed),
        ),
        # Most ended before their mail was written: it would not be true any more.
        "subscriptions ended · confirmed twice": (
            0,
            sum(box[address, "subscription_confirmed"] > 1 for address in left),
        ),
        "subscriptions ended · mail once": (
            len(left),
            sum(box[address, "subscription_cancelled"] == 1 for address in left),
        ),
        "Stripe's events sent · kept and done": _done(stack),
        "dead letters, failed events": (
            0,
            sum(queues(stack, dead=True).values())
            + query(stack, "SELECT count(*) FROM stripe_event WHERE status = 'failed'")[0][0],
        ),
    }


def ready(stack: Stack, journal: Journal) -> int:
    """Count the confirmed files whose bytes are in the store as they were sent."""
    s3 = client(stack, "s3")
    [bucket] = [b["Name"] for b in s3.list_buckets()["Buckets"] if b["Name"].startswith("kyora-")]
    rows = query(
        stack,
        "SELECT id, workspace_id, final_attempt FROM asset"
        " WHERE status = 'ready' AND id = ANY(:ids)",
        ids=list(journal.files),
    )
    right = 0
    for name, workspace, attempt in rows:
        key = f"assets/{workspace}/{name}/{attempt}"
        content = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
        right += digest == journal.files[name]
    return right


def at_stripe(stack: Stack) -> dict[str, tuple[Any, ...]]:
    """Return Stripe's subscriptions: status, price and the end of their period."""
    found: dict[str, tuple[Any, ...]] = {}
    after: dict[str, str] = {}
    while True:
        query = urlencode({"status": "all", "limit": 100, **after})
        page = stripe(stack, f"subscriptions?{query}", method="GET")
        for sub in page["data"]:
            item = sub["items"]["data"][0]
            found[sub["id"]] = (sub["status"], item["price"]["id"], item["current_period_end"])
        if not page["has_more"]:
            return found
        after = {"starting_after": page["data"][-1]["id"]}


def mirrored(stack: Stack) -> dict[str, tuple[Any, ...]]:
    """Return ours in the same form."""
    rows = query(
        stack,
        "SELECT id, status, price_id, extract(epoch FROM period_end)::bigint FROM subscription",
    )
    return {row[0]: tuple(row[1:]) for row in rows}


def _done(stack: Stack) -> tuple[int, int]:
    """Return how many events Stripe sent to us, and how many of these we have done."""
    sent = [
        event["id"]
        for event in control(stack, "events?limit=1000000")
        if any(delivery["status"] == "sent" for delivery in event["deliveries"])
    ]
    done = "SELECT count(*) FROM stripe_event WHERE id = ANY(:ids)"
    done += " AND status IN ('processed', 'ignored')"
    return len(sent), query(stack, done, ids=sent)[0][0]


def summary(stack: Stack) -> list[dict[str, Any]]:
    """Return the days of the load, as the API shows them."""
    today = datetime.now(UTC).date()
    first = (today - timedelta(1)).isoformat()
    path = f"/v1/analytics/summary?businessId={BUSINESS}&from={first}&to={today.isoformat()}"
    days: list[dict[str, Any]] = stack.call("GET", path).json["days"]
    return days


def _report(stack: Stack, journal: Journal, seconds: float) -> None:
    """Print how many of each kind there were, and how long they took."""
    for kind, sql in _LAGS.items():
        journal.took[kind] = [row[0] for row in query(stack, sql, begin=journal.began)]
    say(f"\n{'':<40}{'count':>7}{'a second':>10}{'p50':>9}{'p99':>9}")
    for kind, took in sorted(journal.took.items()):
        if len(took) > 1:
            p99 = statistics.quantiles(took, n=100, method="inclusive")[98]
            say(
                f"{kind:<40}{len(took):>7}{len(took) / seconds:>10.1f}"
                f"{statistics.median(took):>7.2f} s{p99:>7.2f} s"
            )


# ---- who is asked


def control(stack: Stack, path: str, **given: Any) -> Any:
    """Ask the stand-in what Stripe does not offer."""
    address = f"{stack.env['STRIPE_URL']}/_control/{path}"
    body = json.dumps(given).encode() if given else None
    sent = {"Content-Type": "application/json", "X-Kyora-Token": stack.env["KYORA_CONSOLE_TOKEN"]}
    with urllib.request.urlopen(urllib.request.Request(address, body, sent), timeout=30) as answer:
        return json.load(answer)


def stripe(stack: Stack, path: str, method: str = "POST", **params: Any) -> dict[str, Any]:
    """Call Stripe's API."""
    answer = request(
        method,
        f"{stack.env['STRIPE_URL']}/v1/{path}",
        urlencode(list(_flat("", params))).encode() if params else None,
        {
            "Authorization": f"Bearer {stack.env['BILLING_STRIPE_API_KEY']}",
            "Content-Type": "application/x-www-form-urlencoded",
        },
    )
    assert answer.status == 200, answer  # noqa: S101
    found: dict[str, Any] = answer.json
    return found


def _flat(prefix: str, params: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in params.items():
        name = f"{prefix}[{key}]" if prefix else key
        if isinstance(value, dict):
            yield from _flat(name, value)
        else:
            yield name, str(value)


if __name__ == "__main__":
    sys.exit(main())
