"""What the console does, by verb: the `make` commands, in a process that serves meanwhile.

Each takes the front and its parameters, prints what its command prints, and returns what is worth
reading by a program. docs/console.md lists them.
"""

import json
import threading
import urllib.error
import urllib.parse
import urllib.request
from base64 import b64decode
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from local import settings
from local.commands import billing, dead_letters, events, mails, outbox, plans, remote
from local.commands.place import Place
from local.commands.remote import Ask
from local.progress import Trouble, say
from local.stack import emulator, postgres, seed
from local.tools import invoke as tool
from local.tools import samples
from local.tools.event_samples import sample
from local.web import guard
from local.web.console import consumers
from local.web.running import Front

_PATIENCE = 60.0  # seconds for one answer of a function
_PUBLISHED = """
select source, detail_type, detail from outbox where id = :id and published_at is not null
"""

type Json = dict[str, Any]


def emit(
    front: Front, event: str, data: Json | None = None, workspace: str | None = settings.WORKSPACE
) -> Json:
    """Put an event on the bus, as the outbox would: its sample, or this data."""
    from kyora.bus.events import EVENTS, check

    if event not in EVENTS:
        raise Trouble(f"there is no event {event!r}; there are {', '.join(EVENTS)}")
    if data is None:
        data, workspace = sample(event)
    try:
        check(event, data)
    except ValueError as error:
        raise Trouble(str(error)) from error
    event_id = events.put(_place(front), event, data, workspace)
    say(f"{event} {event_id} is on kyora-local")
    return {"event": event_id}


def replay(front: Front, event: str, consumer: str) -> Json:
    """Deliver an event again, to one consumer only; one that has done it sees a repeat."""
    rows = postgres.query(front.stack.database_url, _PUBLISHED, id=event)
    if not rows:
        raise Trouble(f"{event} is not in the outbox, or not published yet")
    source, name, detail = rows[0]
    known = {one.function: one.queue for one in consumers.by_event().get(name, [])}
    if consumer not in known:
        raise Trouble(f"{name} is consumed by {', '.join(known) or 'no function'}, not {consumer}")
    sqs = _client(front, "sqs")
    queue = sqs.get_queue_url(QueueName=f"kyora-local-{known[consumer]}")["QueueUrl"]
    body = {
        "version": "0",
        "id": event,
        "detail-type": name,
        "source": source,
        "account": "000000000000",
        "time": detail["occurredAt"],
        "region": emulator.REGION,
        "resources": [],
        "replay-name": "console",
        "detail": detail,
    }
    message = sqs.send_message(QueueUrl=queue, MessageBody=json.dumps(body))["MessageId"]
    say(f"{name} {event} is in kyora-local-{known[consumer]} again")
    return {"queue": known[consumer], "message": message}


def drop(front: Front, event: str) -> Json:
    """Give up an event that the bus refuses: its consumers will never get it."""
    outbox.drop(_ask(front, "relay_outbox"), event)
    return {}


def redrive(front: Front, queue: str, message: str = "") -> Json:
    """Send a queue's dead letters back to it: all, or the one with this message id."""
    where = _place(front)
    if dead_letters.queue_name(where, queue) == "emails":
        moved = mails.redrive(where, _ask(front, "send_email"), only=message)
    else:
        moved = dead_letters.redrive(where, queue, only=message)
    if message and not moved:
        raise Trouble(f"{message} was not sent back")
    return {"moved": moved}


def call(
    front: Front, method: str, path: str, body: Any = None, user: str = settings.ADMIN
) -> Json:
    """Send a request to the API as a user of the demo workspace; the token stays here."""
    if not path.startswith("/v1/"):
        raise Trouble("the path must begin with /v1/")
    if user not in {settings.ADMIN, settings.MEMBER}:
        raise Trouble(f"the users of the demo are {settings.ADMIN} and {settings.MEMBER}")
    request = urllib.request.Request(
        f"{front.stack.url}{urllib.parse.quote(path, safe='/?&=%,:+-._~')}",
        None if body is None else json.dumps(body).encode(),
        {"Authorization": f"Bearer {seed.token(front.stack, user)}"}
        | ({} if body is None else {"Content-Type": "application/json"}),
        method=method.upper(),
    )
    try:
        answer = urllib.request.urlopen(request, timeout=_PATIENCE)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        text, headers = answer.read().decode(errors="replace"), dict(answer.headers)
    try:
        found = json.loads(text) if text else None
    except ValueError:
        found = text
    say(f"{answer.status} {method.upper()} {path}")
    return {"status": answer.status, "headers": headers, "body": found}


def confirm(front: Front, asset: str) -> Json:
    """Confirm an upload, as its client would: POST /v1/assets/{assetId}/confirm."""
    rows = postgres.query(
        front.stack.database_url,
        "select created_by, workspace_id from asset where id = :id",
        id=asset,
    )
    if not rows:
        raise Trouble(f"there is no asset {asset}")
    if rows[0][1] != settings.WORKSPACE:
        raise Trouble(f"{asset} is {rows[0][1]}'s, not the demo workspace's")
    found = call(front, "POST", f"/v1/assets/{asset}/confirm")
    answer = found["body"] or {}
    say(f"{found['status']} {answer.get('code') or answer.get('status', '')}".strip())
    return found


def sweep(front: Front) -> Json:
    """Run sweep_uploads: end uploads whose time has passed, delete what no asset needs."""
    found = _ask(front, "sweep_uploads")({})
    say(", ".join(f"{name} {count}" for name, count in found.items()) or "nothing to do")
    return {"result": found}


def resend(front: Front, mail: str) -> Json:
    """Send a mail again, by its id (eml_…), and delete its dead letter."""
    mails.resend(_place(front), _ask(front, "send_email"), mail)
    return {}


def sync_plans(front: Front, check: bool = False) -> Json:  # a JSON field
    """Copy Stripe's plans to ours; with `check` only say what differs."""
    differs = plans.sync(_ask(front, "sync_plans"), check=check)
    return {"differs": bool(differs)}


def reconcile(front: Front) -> Json:
    """Compare our billing data with Stripe's, and repair it."""
    billing.reconcile(_ask(front, "reconcile_billing"))
    return {}


def replay_stripe(front: Front, event: str = "", failed: bool = False) -> Json:
    """Process an event of Stripe's again, or all that failed."""
    if bool(event) == failed:
        raise Trouble("name an event, or ask for those that failed")
    billing.replay(_ask(front, "sweep_billing"), {"event": event, "failed": failed, "since": ""})
    return {}


def redeliver(front: Front, event: str) -> Json:
    """Have the stand-in send an event of its own to our webhook again."""
    if not front.stack.own_stripe:
        raise Trouble("Stripe itself delivers here: resend the event in its dashboard")
    request = urllib.request.Request(
        f"{front.stack.stripe_url}/_control/redeliver",
        json.dumps({"event": event}).encode(),
        {"Content-Type": "application/json", guard.TOKEN: front.token},
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        found = json.load(answer)
    if not found["endpoints"]:
        raise Trouble(f"the stand-in knows no event {event}")
    say(f"{event} is sent again")
    return dict(found)


def why(front: Front, workspace: str) -> Json:
    """Say why a workspace has the access that it has."""
    billing.why(_ask(front, "sweep_billing"), workspace)
    return {}


def invoke(front: Front, function: str, event: Any = None, sample: str = "") -> Json:
    """Invoke a function with an event, or with a sample of events/; `${…}` in it are filled in."""
    if function not in front.functions:
        raise Trouble(f"there is no function {function!r}")
    known = _values(front)
    if event is None:
        event = samples.read(samples.EVENTS / f"{_sample(function, sample)}.json", known)
    else:
        event = _filled(event, known)
    whose = "BILLING_STRIPE" if function == "stripe_webhook" else "EMAIL_RESEND"
    event = tool.sign(event, known.get(f"{whose}_WEBHOOK_SECRET", ""))
    answer = emulator.client("lambda", front.stack.gateway_port, patience=_PATIENCE).invoke(
        FunctionName=front.functions[function],
        Payload=json.dumps(event).encode(),
        LogType="Tail",
    )
    text = answer["Payload"].read().decode(errors="replace")
    try:
        result = json.loads(text)
    except ValueError:
        result = text
    failed = bool(answer.get("FunctionError"))
    say(f"{function} {'failed' if failed else 'answered'}")
    log = b64decode(answer.get("LogResult", "")).decode(errors="replace").splitlines()
    return {"failed": failed, "result": tool.readable(result), "log": log}


def _sample(function: str, name: str) -> str:
    """Return the name of a function's sample; no other file can be named."""
    names = [path.stem for path in samples.EVENTS.glob("*.json")]
    known = [one for one in names if one.split(".")[0] == function]
    if (chosen := name or function) not in known:
        raise Trouble(f"{function} has no sample {chosen!r}; there are {', '.join(sorted(known))}")
    return chosen


def _filled(value: Any, known: Mapping[str, str]) -> Any:
    """Fill in `${KYORA_TOKEN}` and its like in every text of an event."""
    if isinstance(value, dict):
        return {key: _filled(item, known) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, known) for item in value]
    if isinstance(value, str):
        for name, text in known.items():
            value = value.replace(f"${{{name}}}", text)
    return value


def move_clock(front: Front, to: str, workspace: str = settings.WORKSPACE) -> Json:
    """Move the clock: +7d, a date, renewal, trial-end, grace-end or reset; it goes on meanwhile."""
    clock = front.clock
    if clock is None:
        raise Trouble("this stack has no clock to move")
    if to != "reset":
        clock.aim(to, workspace)  # what makes no sense is refused at once

    def go() -> None:
        with suppress(Trouble):  # another move began at the same moment
            clock.act(to, workspace)

    if (why := clock.fixed()) or clock.heading is not None:
        raise Trouble(f"the clock cannot be moved: {why or 'it is being moved'}")
    threading.Thread(target=go, daemon=True).start()
    say("The clock is back." if to == "reset" else f"The clock moves to {to}.")
    return {}


def _values(front: Front) -> dict[str, str]:
    return settings.read_env(front.stack.home)


def _place(front: Front) -> Place:
    endpoint = emulator.endpoint(front.stack.gateway_port)
    values = {"AWS_ENDPOINT_URL": endpoint, "DATABASE_URL": front.stack.database_url}
    return Place("local", values, _PATIENCE)


def _client(front: Front, service: str) -> Any:
    return emulator.client(service, front.stack.gateway_port, patience=_PATIENCE)


def _ask(front: Front, folder: str) -> Ask:
    return remote.local(front.stack, front.functions, folder, patience=_PATIENCE)


ACTS: Mapping[str, Callable[..., Json]] = {
    "emit": emit,
    "replay": replay,
    "drop": drop,
    "redrive": redrive,
    "call": call,
    "confirm": confirm,
    "sweep": sweep,
    "resend": resend,
    "sync-plans": sync_plans,
    "reconcile": reconcile,
    "replay-stripe": replay_stripe,
    "redeliver": redeliver,
    "why": why,
    "invoke": invoke,
    "time": move_clock,
}
