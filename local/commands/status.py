"""`make status`: one screen that shows whether everything works, and what to do if not.

The figures come from report_status (what waits in Postgres), from sync_plans (whether Stripe
answers, and what differs there) and from SQS; what they mean is decided here.
"""

import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from local import settings
from local.commands.dead_letters import queue_urls
from local.commands.place import Place
from local.commands.remote import Ask
from local.progress import Trouble, say, shown

_MINUTE, _HOUR = 60, 3600
# Consumer of events → its queue.
_CONSUMERS = {
    "send_email": "emails",
    "record_transaction_fee": "fees",
    "update_analytics": "analytics",
    "make_variants": "variants",
}
_APART = 2.0  # seconds between two looks at the queues: what both see is waiting

type Json = Mapping[str, Any]


class Line(NamedTuple):
    """A line of the screen; `todo` says what to do when it is not `good`."""

    good: bool
    title: str
    text: str
    todo: str = ""


class Queue(NamedTuple):
    """A queue: how many wait, for how many seconds if that is known, how many were given up."""

    name: str
    waiting: int
    oldest: float | None
    dead: int


def show(where: Place, report: Ask, plans: Ask) -> bool:
    """Print the screen; return whether everything works."""
    found, lines = _figures(where, report)
    queues = read_queues(where)
    lines += [*_stripe(plans), *judge_queues(queues)]
    lines += judge_deliveries(found["differences"], queues) if found else []
    lines += [judge_code(settings.undeployed())] if where.local else []
    say(f"{where.bus}, {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC")
    for line in lines:
        say(f"  {'✓' if line.good else '✗'} {line.title:<15} {shown(line.text)}")
        if not line.good and line.todo:
            say(f"    {'':<15} → {line.todo}")
    bad = sum(not line.good for line in lines)
    say(f"{bad} of {len(lines)} need attention." if bad else "Everything works.")
    return not bad


def _figures(where: Place, report: Ask) -> tuple[Json | None, list[Line]]:
    try:
        found = report({"status": True})
    except Trouble as trouble:
        return None, [Line(False, "database", str(trouble), "read the log of report_status")]
    # A schedule of AWS is as exact as a minute; the local one is exact.
    return found, list(judge(found, patience=75 if where.local else 150))


def judge_code(undeployed: str) -> Line:
    """Say whether the functions run what was saved last."""
    first, _, rest = undeployed.partition("\n")
    cause = rest.rstrip().rpartition("\n")[2].strip()
    return Line(
        not undeployed,
        "saved code",
        f"{first} {cause}".strip() if undeployed else "deployed",
        "fix it and save it; until then the last version runs",
    )


def judge(found: Json, *, patience: float) -> Iterable[Line]:
    """Say what report_status's figures mean; a minute's work is late after `patience` seconds."""
    outbox, mail, stripe = found["outbox"], found["mail"], found["stripe"]
    yield Line(
        _young(outbox["oldest"], 30) and not outbox["refused"],
        "events",
        _joined(
            _waiting(outbox, outbox["error"]), _some(outbox["refused"], "will never be published")
        ),
        "`make outbox` lists them; DROP=<id> gives one up"
        if outbox["refused"]
        else "see whether EventBridge answers; nothing is lost, the relay retries",
    )
    beats = found["beats"]
    deployed = beats.get("migrate_database")
    for name, minutes in found["schedules"].items():
        # It has its interval after each deploy, and after a local stack's start, to run again.
        most = patience + (minutes - 1) * _MINUTE
        good = any(_young(age, most) for age in (beats.get(name), deployed) if age is not None)
        yield _ran(name, beats.get(name), good, f"read the log of {name}")
    yield Line(
        not mail["lost"] and not mail["held"] and _young(mail["oldest"], 20),
        "e-mail",
        _joined(
            _waiting(mail, mail["reason"]),
            f"held for {_age(mail['held'])}" if mail["held"] else "",
            _some(mail["lost"], "not sent, as far as is known"),
        ),
        "`make mails FAILED=1` lists them; SEEN=1 says that you have looked"
        if mail["lost"]
        else "see whether Resend answers and takes our key; waiting mail is retried",
    )
    yield from _provider(found)
    yield Line(
        not stripe["parked"] and not stripe["doubtful"] and _young(stripe["oldest"], 30),
        "Stripe's events",
        _joined(
            _waiting(stripe, stripe["error"]),
            _some(stripe["parked"], "failed"),
            _some(stripe["orphans"], "without a workspace"),
            _some(stripe["doubtful"], "to be read again"),
        ),
        "fix what the log of sweep_billing names, then `make replay FAILED=1`",
    )
    customer = stripe["unserved_customer"] or "cus_…"
    yield Line(
        not stripe["unserved"],
        "subscriptions",
        _some(stripe["unserved"], "paid for without access") or "all that is paid for gives access",
        f"`make bind CUSTOMER={customer} WORKSPACE=ws_…` where it is no workspace's; else"
        " `make sync-plans CHECK=1`: its price is no plan's",
    )
    late = found["uploads"]["late"]
    yield Line(
        not late,
        "uploads",
        _some(late, "were not given up in time") or "none is stuck",
        "see whether the store answers; verify_upload's log says",
    )
    wrong = found["differences"].get("storage")
    yield Line(
        not wrong,
        "storage ledger",
        f"{wrong['count']} not the sum of its files: {wrong['example']}"
        if wrong
        else "each is the sum of its files, as far as checked",
        "docs/operate.md, StorageLedgerAlarm: uploads are refused too early, or too late",
    )
    yield from _runs(found["runs"], found["beats"])


def _provider(found: Json) -> Iterable[Line]:
    """Report the sending domain's state and the addresses that the provider suppresses."""
    for domain in found["domains"]:
        todo = "see its DNS records in Resend's dashboard: mail from it is refused or lost"
        status = domain["status"]
        yield Line(status == "verified", "mail domain", f"{domain['name']} is {status}", todo)
    if not (checked := found["suppressions"]):
        return  # the first time is a day after the deploy
    result, late = checked["result"], _late(checked["age"], 26 * _HOUR)
    refused = result.get("refused")
    reading = {
        "restricted": "the key may only send, so they are not compared with Resend's",
        "mock": "nothing to compare with: mail stays here",
    }.get(refused or "", f"not compared: {refused}" if refused else "compared with Resend's")
    yield Line(
        not (result["onlyThere"] or late or refused not in {None, "restricted", "mock"}),
        "suppressions",
        _joined(
            f"{reading} {_age(checked['age'])} ago" if not refused else reading,
            _some(result["onlyThere"], "lifted here, which Resend still holds"),
            _some(result["onlyHere"], "held here alone"),
            "" if refused or result["whole"] else f"the first {result['theirs']} of its list",
            late,
        ),
        "`make suppressions LIFT=` each again, or in Resend's dashboard; send_email's log",
    )


def _runs(runs: Json, beats: Json) -> Iterable[Line]:
    plans, reconcile = runs["plans"], runs["reconcile"]
    result = plans["result"]
    yield _run(
        "plan sync",
        plans,
        {"differed": len(result.get("drift") or []), "faults": len(result.get("faults") or [])},
        # A product's event counts as a sync, too, and the hourly one may be off on purpose.
        late=_late(beats.get("sync_plans"), 2 * _HOUR),
        todo="`make sync-plans CHECK=1`, the log of sync_plans",
    )
    result, age = reconcile["result"], reconcile["age"]
    yield _run(
        "reconcile",
        reconcile,
        {"differed": result.get("differences"), "failed": result.get("failed")},
        # One that is at it has not finished; it needs minutes.
        late=_late(age, 26 * _HOUR) if age is not None else _late(reconcile["begun"], 2 * _HOUR),
        todo="`make reconcile`, the log of reconcile_billing",
    )


def _run(title: str, run: Json, found: Mapping[str, Any], *, late: str, todo: str) -> Line:
    """Say when something ran and what it found; the run has already repaired what differed."""
    when = "has not run yet" if run["begun"] is None else f"began {_age(run['begun'])} ago"
    text = _joined(
        when if run["age"] is None else f"{_age(run['age'])} ago",
        *(_some(number, what) for what, number in found.items()),
        late,
    )
    return Line(not (late or found.get("faults") or found.get("failed")), title, text, todo)


def _late(age: float | None, most: float) -> str:
    return f"late by {_age(age - most)}" if age is not None and age > most else ""


def _ran(title: str, age: float | None, good: bool, todo: str) -> Line:
    text = "has not run yet" if age is None else f"ran {_age(age)} ago"
    return Line(good, title, text, todo)


def _stripe(plans: Ask) -> Iterable[Line]:
    try:
        found = plans({"check": True})
    except Trouble as trouble:
        todo = "is the key right, is Stripe up? Webhooks are kept, and done when it answers"
        return [Line(False, "Stripe", f"does not answer: {trouble}", todo)]
    drift = len(found["drift"])
    text = "answers; " + (f"{drift} plans differ" if drift else "our plans are what it has")
    return [Line(not found["faults"], "Stripe", text, "`make sync-plans CHECK=1` says what")]


def read_queues(where: Place) -> list[Queue]:
    """Return every queue of the stack; what waits is what two looks agree on."""
    found = _look(where)
    names = sorted(n.removesuffix("-dead") for n in found if n.endswith("-dead"))
    waiting = {name: found.get(name, 0) for name in names}
    if any(waiting.values()):
        time.sleep(_APART)
        again = _look(where)
        waiting = {name: min(count, again.get(name, count)) for name, count in waiting.items()}
    ages = {} if where.local else _ages(where, names)
    return [Queue(name, waiting[name], ages.get(name), found[f"{name}-dead"]) for name in names]


def _look(where: Place) -> dict[str, int]:
    """Return how many messages are in each queue, the dead-letter queues among them."""
    client = where.client("sqs")
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    found = {}
    for name, url in queue_urls(client, where).items():
        got = client.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        found[name] = sum(int(got[key]) for key in names)
    return found


def _ages(where: Place, names: Iterable[str]) -> dict[str, float]:
    client, now = where.client("cloudwatch"), datetime.now(UTC)
    found = {}
    for name in names:
        points = client.get_metric_statistics(
            Namespace="AWS/SQS",
            MetricName="ApproximateAgeOfOldestMessage",
            Dimensions=[{"Name": "QueueName", "Value": f"kyora-{where.stage}-{name}"}],
            StartTime=now - timedelta(minutes=10),
            EndTime=now,
            Period=_MINUTE,
            Statistics=["Maximum"],
        )["Datapoints"]
        if points:
            found[name] = max(points, key=lambda point: point["Timestamp"])["Maximum"]
    return found


def judge_queues(queues: Iterable[Queue]) -> Iterable[Line]:
    """Say what the queues' figures mean."""
    for queue in queues:
        slow = queue.waiting > 0 if queue.oldest is None else queue.oldest > 2 * _MINUTE
        text = f"{queue.waiting} wait" if queue.waiting else "nothing waits"
        if queue.oldest:
            text += f", the oldest for {_age(queue.oldest)}"
        text = _joined(text, _some(queue.dead, "given up"))
        todo = "the consumer's log says why"
        if queue.dead and queue.name != "jobs":
            todo += f"; fix it, then `make redrive QUEUE={queue.name}`"
        yield Line(not queue.dead and not slow, f"queue {queue.name}", text, todo)


def judge_deliveries(differences: Json, queues: Iterable[Queue]) -> list[Line]:
    """Say which events are neither handled nor in a queue: published ten minutes ago or earlier."""
    kept = {queue.name: queue.waiting + queue.dead for queue in queues}
    lost = []
    for consumer, name in _CONSUMERS.items():
        found = differences.get(consumer, {"count": 0, "example": ""})
        if (count := found["count"] - kept.get(name, 0)) > 0:
            text = f"{count} events of {consumer}, such as {found['example']}"
            todo = "is its rule on the bus enabled? docs/operate.md says how to send them again"
            lost.append(Line(False, f"lost {name}", text, todo))
    return lost or [Line(True, "deliveries", "every event is handled, waits or was given up")]


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _some(number: int | None, what: str) -> str:
    return f"{number} {what}" if number else ""


def _young(age: float | None, most: float) -> bool:
    return age is None or age < most


def _waiting(found: Json, why: str | None) -> str:
    if not found["waiting"]:
        return "nothing waits"
    reason = f": {why}" if why else ""
    return f"{found['waiting']} wait, the oldest for {_age(found['oldest'])}{reason}"


def _age(seconds: float) -> str:
    for length, name in ((86_400, "d"), (_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {name}"
    return f"{seconds:.0f} s"
