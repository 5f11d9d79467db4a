"""dj-stripe, an application of Django's that mirrors Stripe, with the same signed deliveries.

It runs in an environment of its own (`uv pip install dj-stripe psycopg[binary]`, made below
`.local/peer` at the first use), against the same PostgreSQL server and the same stand-in, with
eight processes as ours has. What it does for each delivery is more than ours: it mirrors every
object and reads each from Stripe; so this says what that costs, not which is better.
"""

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from local import bootstrap
from local.settings import ROOT
from tests.integration.support import stripe_lives as lives
from tests.integration.support.stripe_lives import Stripe

HOME = ROOT / ".local" / "peer"
_PROGRAM = Path(__file__).with_name("peer_program.py")


def measure(bodies: list[str], stripe: Stripe) -> dict[str, Any]:
    """Deliver each event once to dj-stripe; return its figures, or why there are none."""
    program = _environment()
    socket = parse_qs(urlsplit(os.environ["DATABASE_URL"]).query)["host"][0]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(bodies, file)
        file.flush()
        done = subprocess.run(
            [
                program,
                "-P",
                _PROGRAM,
                file.name,
                socket,
                stripe.url,
                lives.SECRET,
                f"sk_test_{'x' * 24}",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        return {"failed": done.stderr[-500:]}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _environment() -> Path:
    python = HOME / "bin" / "python"
    if not python.exists():
        uv = bootstrap.find_uv()
        subprocess.run([uv, "venv", "-q", "--python", ROOT / ".venv/bin/python", HOME], check=True)
        subprocess.run(
            [uv, "pip", "install", "-q", "--python", python, "dj-stripe", "psycopg[binary]"],
            check=True,
        )
    return python
