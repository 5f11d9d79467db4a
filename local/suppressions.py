"""`make suppressions`: addresses that get no mail, as the function that keeps them tells."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from local import emulator
from local.progress import Trouble, say
from local.settings import Settings

type Ask = Callable[[dict[str, Any]], dict[str, Any]]


def local(stack: Settings, functions: dict[str, str]) -> Ask:
    """Return how to ask the running local stack."""

    def ask(event: dict[str, Any]) -> dict[str, Any]:
        client = emulator.client("lambda", stack.gateway_port)
        name = functions["resend_webhook"]
        answer = client.invoke(FunctionName=name, Payload=json.dumps(event).encode())
        return _object(answer["Payload"].read().decode())

    return ask


def deployed(env: str) -> Ask:
    """Return how to ask a deployed stack, with the AWS credentials at hand."""

    def ask(event: dict[str, Any]) -> dict[str, Any]:
        command = [
            str(Path(sys.executable).with_name("sam")),
            *("remote", "invoke", "ResendWebhookFunction", "--config-env", env),
            *("--event", json.dumps(event), "--output", "text"),
        ]
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise Trouble(f"resend_webhook failed in {env}; what it said stands above")
        return _object(done.stdout)

    return ask


def report(found: dict[str, Any], lifted: str | None) -> None:
    """Print the answer."""
    if lifted:
        say("Mail goes there again." if found["lifted"] else "Nothing held mail to this address.")
        return
    rows = found["suppressions"]
    for row in rows:
        until = f"until {row['until']}" if row["until"] else "for good"
        say(f"{row['address']:<40} {row['reason']:<11} since {row['since']}  {until}")
    if not rows:
        say("Mail goes to every address.")


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or "errorMessage" in found:
        said = found.get("errorMessage") if isinstance(found, dict) else text[:200]
        raise Trouble(f"resend_webhook failed: {said}")
    return found
