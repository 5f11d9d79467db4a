"""`make suppressions`: print the addresses that get no mail, as send_email lists them."""

from typing import Any

from local.progress import Trouble, say, shown

_THERE = {
    "removed": "Resend held it, too, and no longer does.",
    "absent": "Resend did not hold it.",
    "restricted": "Whether Resend holds it is not known: the key may only send. Look at"
    " Suppressions in its dashboard, and remove it there.",
}


def report(found: dict[str, Any], lifted: str | None) -> None:
    """Print the answer. Raises Trouble when the provider's list could not be changed."""
    if lifted:
        here, there = found["lifted"], found["there"]
        again = here or there == "removed"
        say("Mail goes there again." if again else "Nothing held mail to this address here.")
        if there in _THERE:
            say(_THERE[there])
        elif there:
            raise Trouble(f"Resend's own list could not be changed: {there}; run it again")
        return
    rows = found["suppressions"]
    for row in rows:
        until = f"until {row['until']}" if row["until"] else "for good"
        say(f"{shown(row['address']):<40} {row['reason']:<11} since {row['since']}  {until}")
    if not rows:
        say("Mail goes to every address.")
