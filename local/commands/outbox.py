"""`make outbox`: list events that did not reach the bus, and drop one that never will."""

from local.commands.remote import Ask
from local.progress import Trouble, say, shown


def show(ask: Ask) -> None:
    """List the failed events that wait, starting with those that EventBridge refuses for good."""
    rows = ask({"waiting": True})["events"]
    for row in rows:
        mark = "✗" if row["refused"] else " "
        say(f"{mark} {row['id']}  {shown(row['name'])}, {row['bytes']} bytes")
        say(f"  waits for {row['age']:.0f} s, {row['attempts']} attempts: {shown(row['error'])}")
    if not rows:
        say("No event waits for another attempt.")
    elif any(row["refused"] for row in rows):
        say("✗ is refused for good: DROP=<id> drops it, and its effects with it")


def drop(ask: Ask, event_id: str) -> None:
    """Drop an event. Raises Trouble when it has not failed or is published."""
    if not ask({"drop": event_id})["dropped"]:
        raise Trouble(f"{event_id} has not failed, is published, or is no event")
    say(f"{event_id} is dropped: its consumers will never get it")
