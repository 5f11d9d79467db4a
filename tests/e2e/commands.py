"""Commands on the running stack, and questions to its database and services."""

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from local.stack import emulator, postgres
from tests.e2e.conftest import Stack, request, wait


def run(stack: Stack, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run what a target of the Makefile runs."""
    return subprocess.run(
        [sys.executable, "-m", "local", *arguments],
        cwd=stack.checkout,
        env={"KYORA_LOCAL_DIR": str(stack.home), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def emit(stack: Stack, name: str, file: Path | None = None) -> str:
    """Emit a sample and return the event's id."""
    done = run(stack, "emit", name, *(("--file", str(file)) if file else ()))
    assert done.returncode == 0, done.stderr
    [event_id] = re.findall(r"evt_\w+", done.stdout)
    return str(event_id)


def query(stack: Stack, sql: str, **values: Any) -> list[list[Any]]:
    return postgres.query(stack.env["DATABASE_URL"], sql, **values)


def client(stack: Stack, service: str) -> Any:
    return emulator.client(service, int(stack.env["AWS_ENDPOINT_URL"].rpartition(":")[2]))


def save(stack: Stack, path: Path, text: str | None) -> str:
    """Save or remove a file and return the line in which the stack answers that."""
    top, *inside = path.relative_to(stack.checkout).parts
    belongs_to = {"functions": inside[:1], "layers": ["kyora"]}.get(top) or [path.name]
    # Not just any line: another file, of an earlier test, may be answered late.
    said = said_after(stack, path, text, rf"^.*\b{belongs_to[0]}\b.*\n")
    return said.splitlines()[-1]


def said_after(stack: Stack, path: Path, text: str | None, until: str) -> str:
    """Save or remove a file and return what the stack says, up to the end of the match `until`."""
    before = len(stack.said())
    path.parent.mkdir(exist_ok=True)
    path.unlink() if text is None else path.write_text(text)

    def answered() -> re.Match[str] | None:
        return re.search(until, stack.said()[before:], re.MULTILINE)

    wait(answered, 180)
    found, said = answered(), stack.said()[before:]
    assert found, f"{path.name} was saved, and after three minutes the stack said: {said!r}"
    return said[: found.end()]


_ON_ITS_WAY = (
    "SELECT (SELECT count(*) FROM outbox WHERE published_at IS NULL"
    " AND (attempts = 0 OR next_attempt_at <= now()))"
    " + (SELECT count(*) FROM email_message WHERE status = 'pending')"
)


def waiting(stack: Stack, *queues: str) -> int:
    """How many messages are in queues, those that are being handled or held back included."""
    address = emulator.messages_address(int(stack.env["AWS_ENDPOINT_URL"].rpartition(":")[2]))
    found = emulator.messages(request("GET", address).json)
    return sum(len(found[queue]) for queue in queues)


def quiet(stack: Stack) -> None:
    """Wait until what tests before set in motion has come to its end.

    An upload's event is not waited for: one that met a confirm comes again, at first after seconds.
    """
    calm = 0  # twice in a row: a message may be on its way from one place to the next

    def is_calm() -> bool:
        nonlocal calm
        moves = query(stack, _ON_ITS_WAY) != [[0]] or waiting(
            stack, "analytics", "emails", "fees", "stripe", "variants"
        )
        calm = 0 if moves else calm + 1
        return calm == 2

    wait(is_calm, 120, "what tests before have sent is handled")


def bury(stack: Stack) -> None:
    """Empty the dead-letter queues of what other tests left there, or are about to leave."""
    quiet(stack)
    sqs = client(stack, "sqs")
    for url in sqs.list_queues()["QueueUrls"]:
        if url.endswith("-dead"):
            sqs.purge_queue(QueueUrl=url)


def move_clock(stack: Stack, **asked: Any) -> dict[str, Any]:
    """Move the stack's clock as the console does; return its state."""
    token = {"X-Kyora-Token": stack.env["KYORA_CONSOLE_TOKEN"]}
    answer = request("POST", f"{stack.env['KYORA_URL']}/_local/time", asked, token, 900)
    assert answer.status == 200, answer
    found: dict[str, Any] = answer.json
    return found


def control(stack: Stack, path: str, **given: Any) -> None:
    request = urllib.request.Request(
        f"{stack.env['STRIPE_URL']}/_control/{path}",
        json.dumps(given).encode(),
        {"Content-Type": "application/json", "X-Kyora-Token": stack.env["KYORA_CONSOLE_TOKEN"]},
        method="POST",
    )
    urllib.request.urlopen(request, timeout=120).close()


PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000080000000808020000004b6d29dc"
    "000000114944415478da6390af8ac18a1886960400dfe13d4122f02d7c0000000049454e44ae426082"
)


def subscribe(stack: Stack, plan: str = "professional") -> None:
    """Have the demo workspace pay for a plan on the stand-in's page, unless it does already."""
    if stack.call("GET", "/v1/billing/subscription").json["status"] not in {"free", "canceled"}:
        return
    back = f"{stack.env['KYORA_URL']}/"
    asked = {"planId": plan, "successUrl": back, "cancelUrl": back}
    answer = stack.call("POST", "/v1/billing/checkout-session", asked)
    assert answer.status == 200, answer
    card = {"number": "4242424242424242", "expiry": "12/34", "cvc": "123"}
    given = urlencode({"email": "admin@demo.example", "name": "Dana", **card}).encode()
    urllib.request.urlopen(answer.json["url"], given, timeout=120).close()
    wait(
        lambda: stack.call("GET", "/v1/billing/subscription").json["status"] == "active",
        120,
        "the subscription is active",
    )
