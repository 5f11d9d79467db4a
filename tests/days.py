"""A day that does not end during a test: what is counted by the day begins again at its end."""

import time
from datetime import UTC, datetime, timedelta

_ENOUGH = timedelta(minutes=2)


def not_at_midnight() -> None:
    """Wait for the next day, UTC, when this one is about to end."""
    now = datetime.now(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    if midnight - now < _ENOUGH:
        time.sleep((midnight - now).total_seconds() + 1)
