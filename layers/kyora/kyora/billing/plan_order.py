"""Which of two plans is the better one."""

from collections.abc import Mapping
from typing import Any

from kyora import limits

DAYS = {"day": 1, "week": 7, "month": 30, "year": 365}
_MOST = 2**53 - 1  # the largest whole number that every reader of JSON has


def worth(plan: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return a key that orders plans: by their limits, then by their price per day.

    A row has `limits, amount, interval, interval_count`. Amounts of two currencies are compared as
    numbers: all that matters is that two plans are always ordered the same way.
    """
    reach = limits.whole(plan["limits"]).values()
    days = DAYS.get(plan["interval"], 30) * (plan["interval_count"] or 1)
    return *(_MOST if one == limits.UNLIMITED else one for one in reach), plan["amount"] / days
