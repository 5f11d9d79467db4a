"""`make sync-plans` and `make push-plans`: what sync_plans is asked, and its answer printed."""

import tomllib
from pathlib import Path
from typing import Any

from local.commands.remote import Ask
from local.progress import Trouble, say
from local.settings import ROOT

SAMPLE = ROOT / "plans.toml"
DRIFT = 2  # exit code of a check that found something


def read(file: Path) -> dict[str, Any]:
    """Return a catalogue; its values are checked where it is pushed."""
    try:
        return tomllib.loads(file.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Trouble(f"{file}: {error}") from None


def push(ask: Ask, file: Path) -> None:
    """Write a catalogue to Stripe and print what changed there."""
    found = ask({"push": read(file)})
    if refused := found.get("refused"):
        faults = "".join(f"\n  {e['field']}: {e['message']}" for e in refused.get("errors", []))
        raise Trouble(f"{file} was not pushed: {refused['detail']}{faults}")
    for what in ("created", "updated", "archived"):
        for name in found[what]:
            say(f"{what:<9} {name}")
    if not any(found[what] for what in ("created", "updated", "archived")):
        say("Stripe has everything already.")


def begin(ask: Ask) -> None:
    """Give an empty stack the sample catalogue, without waiting for Stripe's events about it."""
    ask({"push": read(SAMPLE)})
    ask({"sync": True})


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
