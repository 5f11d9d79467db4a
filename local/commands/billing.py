"""`make reconcile`, `make replay` and `make bind`: billing work started by hand."""

import time
from collections.abc import Callable, Mapping

from local.commands.remote import Ask
from local.progress import Trouble, say

_BUSY = 5.0  # seconds between two looks at a run that another invocation works on


def reconcile(ask: Ask, sleep: Callable[[float], None] = time.sleep) -> None:
    """Start a run, continue it until it is finished, and print its report."""
    found = ask({"start": True})
    while not found["finished"]:
        if found.get("busy"):
            say("another invocation is working on it …")
            sleep(_BUSY)
        else:
            listed = ", ".join(f"{n} {name}" for name, n in found["listed"].items() if n)
            say(f"{found['phase']}: {listed or 'nothing yet'} …")
        found = ask({})
    if "skipped" in found:
        say(f"Nothing was done: {found['skipped']}.")
        return
    for kind, listed in found["listed"].items():
        say(f"{kind:<14} {listed:>7} at Stripe   {found['repaired'][kind]:>5} repaired")
    for one in found["drift"]:
        say(f"{one['id']}  {one['field']}: {one['ours']} → {one['stripe']}")
    if (rest := found["differences"] - len(found["drift"])) > 0:
        say(f"… and {rest} more")
    if found["orphans"]:
        say(f"{found['orphans']} customers pay for no workspace of ours")
    if found["failed"]:
        say(f"{found['failed']} could not be read; the log of reconcile_billing says why")
    if not found["differences"]:
        say("Nothing differed.")


def replay(ask: Ask, asked: Mapping[str, object]) -> None:
    """Process events again and print the results. Raises Trouble when some failed."""
    found = ask({"replay": {name: value for name, value in asked.items() if value}})
    for event_id in found["done"]:
        say(f"done    {event_id}")
    for event_id in found["failed"]:
        say(f"failed  {event_id}")
    if found["left"]:
        say(f"{found['left']} are left to sweep_billing, which runs every minute")
    if found["gone"]:
        say(f"{found['gone']} came more than 35 days ago: their bodies are not kept so long")
    if not (found["done"] or found["failed"] or found["left"] or found["gone"]):
        say("No event matches.")
    if found["failed"]:
        raise Trouble("some failed and are tried again; stripe_event.last_error says why")


def bind(ask: Ask, customer: str, workspace: str) -> None:
    """Link a Stripe customer to a workspace, and print the workspace's plan and access."""
    found = ask({"bind": {"customer": customer, "workspace": workspace}})
    say(f"{found['customer']} is {found['workspace']}'s, which is on {found['plan_id']}:")
    say(f"access {found['access']}")
