"""`make suppressions`: addresses that get no mail, as the function that keeps them tells."""

from typing import Any

from local.progress import say


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
