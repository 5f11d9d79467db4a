"""`make invoke F=…` and `make event F=…`: one built function, and its sample event of today."""

import argparse
import hmac
import json
import os
import sys
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from local import settings, template
from local.progress import Trouble, complain, say
from local.settings import ROOT
from local.stack import runtime
from local.stack.runtime import Running
from local.tools import samples


def environment(function: str) -> dict[str, str]:
    """Return what `make run` gives this function; without a stack, nothing."""
    try:
        home = ROOT / (os.environ.get("KYORA_LOCAL_DIR") or ".local")
        by_function = json.loads((home / "functions.json").read_text())
    except OSError:
        return {}
    return dict(by_function.get(template.logical_id(function), {}))


def sample(function: str, file: Path | None = None) -> Any:
    """Return a sample event of today; ${KYORA_TOKEN} and its like come from `.local/env`."""
    try:
        known = settings.read_env()
    except Trouble:
        known = {}
    found = samples.read(file or samples.EVENTS / f"{function}.json", known)
    whose = "BILLING_STRIPE" if function == "stripe_webhook" else "EMAIL_RESEND"
    return sign(found, known.get(f"{whose}_WEBHOOK_SECRET", ""))


def sign(event: Any, secret: str) -> Any:
    """Sign a webhook's sample as of now, when it asks for that with ${SIGNATURE}."""
    headers = event.get("headers", {}) if isinstance(event, dict) else {}
    if headers.get("stripe-signature") == "${SIGNATURE}":
        stamp = str(int(time.time()))
        digest = hmac.digest(secret.encode(), f"{stamp}.{event['body']}".encode(), "sha256")
        headers["stripe-signature"] = f"t={stamp},v1={digest.hex()}"
    if secret.startswith("whsec_") and headers.get("svix-signature") == "${SIGNATURE}":
        stamp = str(int(time.time()))
        signed = f"{headers['svix-id']}.{stamp}.{event['body']}".encode()
        digest = hmac.digest(b64decode(secret.removeprefix("whsec_")), signed, "sha256")
        headers |= {
            "svix-timestamp": stamp,
            "svix-signature": f"v1,{b64encode(digest).decode()}",
        }
    return event


def main() -> int:
    """Invoke a function once and print its log and its answer."""
    parser = argparse.ArgumentParser(prog="python -m local.tools.invoke", description=__doc__)
    parser.add_argument("function", help="folder under functions/, e.g. confirm_upload")
    parser.add_argument("event", nargs="?", type=Path, help="events/….json; its own by default")
    parser.add_argument("--show", action="store_true", help="only print the event, for other tools")
    chosen = parser.parse_args()
    try:
        runtime.known(chosen.function)
        event = sample(chosen.function, chosen.event)
        if chosen.show:
            say(json.dumps(event, indent=2, ensure_ascii=False))
            return 0
        env = environment(chosen.function)
        if not env:
            complain("no stack has run here (`make run`): the function has the template's defaults")
        with runtime.start(chosen.function, env) as running, _printing(running):
            answer = running.invoke(event)
            init, took = running.init_milliseconds(), running.invoke_milliseconds()
            memory = running.resident_megabytes()
    except Trouble as trouble:
        complain(str(trouble))
        return 1
    say(f"\ninit {init:.0f} ms · handler {took:.1f} ms · resident {memory:.0f} MB\n")
    say(json.dumps(readable(answer), indent=2, ensure_ascii=False))
    return 1 if isinstance(answer, dict) and "errorMessage" in answer else 0


@contextmanager
def _printing(running: Running) -> Iterator[None]:
    try:
        yield
    finally:
        time.sleep(0.05)  # for the last line
        for line in running.log():
            say(line)


def readable(answer: Any) -> Any:
    """Return an answer whose JSON body is shown as JSON."""
    if isinstance(answer, dict) and str(answer.get("body", ""))[:1] in {"{", "["}:
        with suppress(ValueError):
            return answer | {"body": json.loads(answer["body"])}
    return answer


if __name__ == "__main__":
    sys.exit(main())
