"""`make rebuild-analytics`: recount from the events that update_analytics has stored."""

from local.commands.remote import Ask
from local.progress import Trouble, say


def rebuild(ask: Ask, business: str | None) -> None:
    """Rebuild one business, or all; each call of the function does as many as it has time for."""
    done, wrong, after = 0, 0, ""
    while True:
        found = ask({"rebuild": {"business": business, "after": after}})
        done, wrong = done + found["businesses"], wrong + found["wrong"]
        if found["next"] is None:
            break
        after = str(found["next"])
    if business and not done:
        raise Trouble(f"there is no business {business!r}")
    say(f"Recounted; businesses: {done}, wrong before: {wrong}.")
