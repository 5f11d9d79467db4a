"""Circuit breaker: skip a server that failed for five seconds, so that requests need not wait."""

import time

from kyora.observability import logger

PAUSE = 5.0  # seconds; after that the next call tries again

_open_until: dict[str, float] = {}


def is_open(peer: str) -> bool:
    """Return whether `peer` is to be skipped."""
    return time.monotonic() < _open_until.get(peer, 0.0)


def open_for(peer: str, error: Exception) -> None:
    """Skip `peer` for the next PAUSE seconds."""
    _open_until[peer] = time.monotonic() + PAUSE
    report(peer, error)


def report(peer: str, error: Exception) -> None:
    """Log which peer failed and how, without the error's text: it may quote a value."""
    logger().warning("cache unavailable", peer=peer, cause=type(error).__name__)
