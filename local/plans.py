"""`make sync-plans` and `make push-plans`: the plans, as the function that keeps them tells."""

import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from local import emulator
from local.progress import Trouble, say
from local.settings import Settings

DRIFT = 2  # exit code of a check that found something

type Ask = Callable[[dict[str, Any]], dict[str, Any]]


def local(stack: Settings, functions: dict[str, str]) -> Ask:
    """Return how to ask the running local stack."""

    def ask(event: dict[str, Any]) -> dict[str, Any]:
        client = emulator.client("lambda", stack.gateway_port)
        answer = client.invoke(
            FunctionName=functions["sync_plans"], Payload=json.dumps(event).encode()
        )
        return _object(answer["Payload"].read().decode())

    return ask


def deployed(env: str) -> Ask:
    """Return how to ask a deployed stack, with the AWS credentials at hand."""

    def ask(event: dict[str, Any]) -> dict[str, Any]:
        command = [
            str(Path(sys.executable).with_name("sam")),
            *("remote", "invoke", "SyncPlansFunction", "--config-env", env),
            *("--event", json.dumps(event), "--output", "text"),
        ]
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise Trouble(f"sync_plans failed in {env}; what it said stands above")
        return _object(done.stdout)

    return ask


def read(file: Path) -> dict[str, Any]:
    """Return a catalogue; its values are checked where it is pushed."""
    try:
        return tomllib.loads(file.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Trouble(f"{file}: {error}") from None


def push(ask: Ask, file: Path) -> None:
    """Put a catalogue into Stripe and print what that changed there."""
    found = ask({"push": read(file)})
    if refused := found.get("refused"):
        faults = "".join(f"\n  {e['field']}: {e['message']}" for e in refused.get("errors", []))
        raise Trouble(f"{file} was not pushed: {refused['detail']}{faults}")
    for what in ("created", "updated", "archived"):
        for name in found[what]:
            say(f"{what:<9} {name}")
    if not any(found[what] for what in ("created", "updated", "archived")):
        say("Stripe has all of it already.")


def sync(ask: Ask, *, check: bool) -> int:
    """Sync, or only check, and print the differences; return the exit code."""
    found = ask({"check": True} if check else {"sync": True})
    for fault in found["faults"]:
        say(f"not applied  {fault}")
    for line in found["drift"]:
        say(f"{'drift' if check else 'synced':<12} {line}")
    if not found["drift"]:
        say("The plans are what Stripe has.")
    return DRIFT if check and found["drift"] else 0


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or "errorMessage" in found:
        said = found.get("errorMessage") if isinstance(found, dict) else text[:200]
        raise Trouble(f"sync_plans failed: {said}")
    return found
