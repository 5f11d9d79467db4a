"""Billing periods, counted from an anchor: a cycle of the 31st returns to it after February."""

import calendar
from datetime import UTC, datetime

DAY = 86400
_SECONDS = {"day": DAY, "week": 7 * DAY}
_MONTHS = {"month": 1, "year": 12}


def boundary(anchor: int, interval: str, count: int, number: int) -> int:
    """Return the end of the period of this number (1 is the first), in unix seconds."""
    if interval in _SECONDS:
        return anchor + _SECONDS[interval] * count * number
    at = datetime.fromtimestamp(anchor, UTC)
    years, month = divmod(at.month - 1 + _MONTHS[interval] * count * number, 12)
    last = calendar.monthrange(at.year + years, month + 1)[1]
    moved = at.replace(year=at.year + years, month=month + 1, day=min(at.day, last))
    return int(moved.timestamp())


def following(anchor: int, after: int, interval: str, count: int) -> int:
    """Return the first period boundary after a moment, in unix seconds."""
    if interval in _SECONDS:
        number = (after - anchor) // (_SECONDS[interval] * count)
    else:
        then, start = datetime.fromtimestamp(after, UTC), datetime.fromtimestamp(anchor, UTC)
        months = (then.year - start.year) * 12 + then.month - start.month
        number = months // (_MONTHS[interval] * count) - 1
    while boundary(anchor, interval, count, number) <= after:
        number += 1
    return boundary(anchor, interval, count, number)


def words(at: int) -> str:
    """Return a day as Stripe writes it in an invoice's lines."""
    moment = datetime.fromtimestamp(at, UTC)
    return f"{moment.day} {moment:%b %Y}"
