"""Mail at work: messages a second with eight workers, statements a message, the SDK's own client.

Part of `make bench`. The fake Resend answers after 20 ms, so eight workers that did nothing but
wait would send 400 messages a second; whatever else this machine does is in the figures.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

from bench.database import database
from kyora import config, postgres
from kyora.config import Email
from kyora.email.message import Message, params
from kyora.email.resend import Resend
from kyora.postgres.connection import Transaction
from local.progress import say
from local.settings import ROOT
from tests.fake_resend import API_KEY, FakeResend, fake_resend
from tests.integration.support import mail_queue

RESULTS = ROOT / "bench" / "email.json"
WORKERS, MESSAGES, ROUNDS, LATENCY = 8, 400, 3, 0.02
AIM = 150  # messages a second
_ONE = Message(
    recipient="dana@example.com",
    sender='"Kyora" <hello@kyora.example>',
    subject="Verify your email",
    html="<p>Hello</p>" * 1000,
    text="Hello\n" * 100,
)


def main() -> int:
    """Measure, print and write bench/email.json."""
    result: dict[str, Any] = {"cores": os.cpu_count()}
    with fake_resend() as resend:
        result["client"] = _clients(resend)
    with database({}), mail_queue.queue() as queue:
        os.environ["AWS_ENDPOINT_URL"] = queue.server.url
        with fake_resend(delay=LATENCY) as resend:
            _point_at(resend)
            result["throughput"] = _throughput(queue, resend)
        with fake_resend() as resend:
            _point_at(resend)
            result["statements"] = _statements()
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    _print(result)
    return 0


def _throughput(queue: mail_queue.Queue, resend: FakeResend) -> dict[str, Any]:
    rates = []
    with tempfile.NamedTemporaryFile() as log:
        workers = mail_queue.Workers(WORKERS, Path(log.name))
        try:
            for number in range(ROUNDS + 1):  # the first one warms up
                count = MESSAGES if number else WORKERS * 5
                events = [mail_queue.verification(f"p{n}@example.com") for n in range(count)]
                bodies = [mail_queue.record(*event)["body"] for event in events]
                before, started = len(resend.deliveries), time.perf_counter()
                mail_queue.Office(workers, queue).run(bodies)
                if number:
                    rates.append(count / (time.perf_counter() - started))
                assert len(resend.deliveries) - before == count  # noqa: S101
        finally:
            workers.stop()
    return {
        "workers": WORKERS,
        "latency_ms": LATENCY * 1000,
        "messages_a_second": [round(rate) for rate in rates],
        "ceiling": round(WORKERS / LATENCY),
    }


def _statements() -> dict[str, int]:
    """Count statements of a message that is sent, and of its copy."""
    found = {}
    event = mail_queue.verification()
    for name in ("first", "copy"):
        counted: list[str] = []
        real = Transaction._execute  # noqa: SLF001

        def counting(
            self: Transaction, sql: str, params: Any, into: Any = counted, run: Any = real
        ) -> Any:
            into.append(sql)
            return run(self, sql, params)

        with patch.object(Transaction, "_execute", counting):
            mail_queue.deliver(mail_queue.record(*event))
        found[name] = sum(sql not in {"BEGIN", "COMMIT"} for sql in counted)
    postgres.close()
    return found


def _clients(resend: FakeResend) -> dict[str, Any]:
    """Send the same message through the SDK with our HTTP client, and with its own."""
    import resend as sdk

    sender = "hello@kyora.test"
    settings = Email("resend", sender, "Kyora", sender, "", API_KEY, resend.url)
    ours = Resend(settings)
    own = sdk.RequestsClient()

    def theirs(key: str) -> object:
        sdk.api_key, sdk.api_url, sdk.default_http_client = API_KEY, resend.url, own
        return sdk.Emails.send(params(_ONE), {"idempotency_key": key})

    senders: dict[str, tuple[str, Callable[[str], object]]] = {
        "ours": (
            "import kyora.email.resend, kyora.email.resend_http",
            lambda k: ours.send(_ONE, k),
        ),
        "its own": ("import resend", theirs),
    }
    found = {}
    for name, (imports, send) in senders.items():
        before, took = resend.server.connections, []
        for number in range(100):
            started = time.perf_counter()
            send(f"{name.replace(' ', '-')}-{number}")
            took.append((time.perf_counter() - started) * 1000)
        found[name] = {
            "import_ms": round(_import(imports) - _import("import pydantic, json, re"), 1),
            "send_ms": round(statistics.median(took), 2),
            "connections": resend.server.connections - before,
        }
    return found


def _import(code: str) -> float:
    took = []
    for _ in range(7):
        started = time.perf_counter()
        env = {**os.environ, "PYTHONPATH": str(ROOT / "layers" / "kyora")}
        subprocess.run(
            [sys.executable, "-c", f"import pydantic, json, re; {code}"], check=True, env=env
        )
        took.append((time.perf_counter() - started) * 1000)
    return min(took)


def _point_at(resend: FakeResend) -> None:
    os.environ |= mail_queue.ENVIRONMENT | {"EMAIL_RESEND_BASE_URL": resend.url}
    config.forget()


def _print(result: dict[str, Any]) -> None:
    rates = result["throughput"]["messages_a_second"]
    middle = statistics.median(rates)
    say(
        f"{middle:.0f} messages a second with {WORKERS} workers ({min(rates)}-{max(rates)} in"
        f" {len(rates)} rounds; waiting alone allows {result['throughput']['ceiling']});"
        f" aim {AIM} {'✓' if middle >= AIM else '✗'}"
    )
    say(f"statements: {result['statements']['first']} a message, {result['statements']['copy']}"
        " for a copy of its event")  # fmt: skip
    for name, figures in result["client"].items():
        say(
            f"{name:<8} import {figures['import_ms']:>6.1f} ms, send {figures['send_ms']:.2f} ms,"
            f" {figures['connections']} connections for 100 messages"
        )


if __name__ == "__main__":
    sys.exit(main())
