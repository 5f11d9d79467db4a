"""The stand-in as one of the processes that `make run` starts and stops."""

import os
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping

from local.process import Child, start, until
from local.settings import ROOT, Settings

NAME = "the Stripe stand-in"


async def run(stack: Settings, clock: Mapping[str, str], token: str) -> Child:
    """Start it with the state of its last run and wait until it answers.

    `clock` are the variables with which it follows the stack's clock, `token` is the console's.
    """
    secret = stack.secrets["BILLING_STRIPE_WEBHOOK_SECRET"]
    child = await start(
        NAME,
        [
            *(sys.executable, "-m", "local.stripe", "--port", str(stack.stripe_port)),
            *("--state", str(stack.home / "stripe.json")),
            *("--key", stack.secrets["BILLING_STRIPE_API_KEY"]),
            "--shared-clock",
            *("--webhook-url", f"{stack.url}/webhooks/stripe", "--webhook-secret", secret),
        ],
        env={
            **clock,
            "KYORA_CONSOLE_TOKEN": token,
            "PATH": os.environ.get("PATH", ""),
            "PYTHONPATH": os.pathsep.join([str(ROOT), clock["PYTHONPATH"]]),
            "LANG": "C.UTF-8",
        },
        log=stack.logs / "stripe.log",
    )
    await until(lambda: healthy(stack), child, 30)
    return child


def healthy(stack: Settings) -> bool:
    """Return whether it answers."""
    try:
        with urllib.request.urlopen(f"{stack.stripe_url}/_control/state", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
