"""Who failed is left alone for some seconds, so that not every request waits for it."""

import time

from kyora.observability import logger

PAUSE = 5.0  # seconds; after it one call tries again

_open_until: dict[str, float] = {}


def is_open(peer: str) -> bool:
    """Tell whether `peer` is to be left alone."""
    return time.monotonic() < _open_until.get(peer, 0.0)


def open_for(peer: str, error: Exception) -> None:
    """Leave `peer` alone from now on."""
    _open_until[peer] = time.monotonic() + PAUSE
    report(peer, error)


def report(peer: str, error: Exception) -> None:
    """Log who failed and how, without the error's text: it may quote a value."""
    logger().warning("cache unavailable", peer=peer, cause=type(error).__name__)
