"""`make reconcile`, `make replay`, `make bind` and `make why`: billing work started by hand."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from kyora import money
from local.commands.remote import Ask
from local.progress import Trouble, say, shown

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
        say(f"{found['left']} are left to sweep_billing, which runs on a schedule")
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


def why(ask: Ask, workspace: str) -> None:
    """Print why a workspace has the access that it has: one decision and what it rests on."""
    found = ask({"why": workspace})
    decided, recorded = found["decided"], found["recorded"]
    say(f"{found['workspace']}  {shown(found['name'])}")
    say(f"access    {_access(decided)}")
    counts = decided["subscription_id"]
    say(f"because   {f'of {counts}: ' if counts else ''}{decided['rule']}")
    if recorded is None:
        say("recorded  nothing yet: it has never used billing")
    elif _access(recorded) != _access(decided):
        say(f"recorded  {_access(recorded)}, since {_time(recorded['updated_at'])}")
        say("          sweep_billing brings that up to date at its next run")
    for one in found["customers"]:
        more = " by `make bind`" if one["beside"] else ""
        more += f", deleted {_time(one['deleted_at'])}" if one["deleted_at"] else ""
        say(f"customer  {one['id']}{more}")
    say("subscriptions" if found["subscriptions"] else "subscriptions  none")
    for one in found["subscriptions"]:
        mark = "→" if one["id"] == counts else " "
        plan = one["plan_id"] or f"no plan ({one['price_id']})"
        reason = f"{one['gives']}, {one['rule']}{_dates(one)}"
        say(f"{mark} {one['id']}  {one['status']}  {plan}: {reason}")
    say("unpaid" if found["unpaid"] else "unpaid  nothing")
    for one in found["unpaid"]:
        again = f", again {_time(one['next_attempt_at'])}" if one["next_attempt_at"] else ""
        currency = one["currency"].upper()
        amount = f"{money.stripe_text(one['amount_due'], currency)} {currency}"
        say(f"  {one['id']}  {one['status']}  {amount}, {one['attempt_count']} attempts{again}")
    say("last Stripe events" if found["events"] else "last Stripe events  none")
    for one in found["events"]:
        error = f"  {shown(one['last_error'])}" if one["last_error"] else ""
        say(f"  {_time(one['created'])}  {one['type']:<38} {one['status']:<10} {one['id']}{error}")


def _access(found: Mapping[str, Any]) -> str:
    until = f" until {_time(found['access_until'])}" if found["access_until"] else ""
    return f"{found['access']} on {found['plan_id']}{until}"


def _dates(found: Mapping[str, Any]) -> str:
    """Return the dates of a subscription that say something."""
    names = {
        "ended_at": "ended",
        "cancel_at": "ends",
        "period_end": "period ends",
        "grace_since": "payment due since",
        "unplanned_since": "at a price of no plan since",
    }
    said = [f"{word} {_time(found[name])}" for name, word in names.items() if found[name]]
    if found["ended_at"]:
        said = said[:1]
    if found["doubtful"]:
        said.append("to be read from Stripe again")
    return "".join(f"; {one}" for one in said)


def _time(iso: str) -> str:
    return iso[:19].replace("T", " ")
