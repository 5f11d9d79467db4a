"""What time it is: the one module that reads the machine's clock.

A duration is measured with `time.monotonic`, which no change of the clock moves. SQL takes `now()`,
the transaction's time, and nothing else.
"""

import time
from datetime import UTC, datetime


def now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)


def timestamp() -> float:
    """Return the seconds since 1970, as Stripe, JWTs and signatures count them."""
    return time.time()
