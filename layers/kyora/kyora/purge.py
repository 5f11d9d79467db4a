"""Deletion of expired rows, in many small transactions so that no one waits for a large one."""

import time
from collections.abc import Callable, Iterable

_RESERVE = 5.0  # seconds left for the running batch and the rest of the function


def purge(
    forgets: Iterable[Callable[[], int]],
    remaining: Callable[[], float],
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Call each function until it finds nothing more; return how many rows were deleted.

    Each deletes a batch and returns its size. They alternate, so that a table with a million old
    rows does not delay the others, and pause as long as they worked: requests come first.
    `remaining` gives the seconds left to work.
    """
    deleted, busy = 0, list(forgets)
    while busy:
        found = []
        for forget in busy:
            if remaining() < _RESERVE:
                return deleted
            began = time.monotonic()
            if count := forget():
                deleted += count
                found.append(forget)
                sleep(time.monotonic() - began)
        busy = found
    return deleted
