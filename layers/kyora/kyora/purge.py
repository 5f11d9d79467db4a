"""Deleting what is past its time: many small transactions, so that nobody waits for a large one."""

import time
from collections.abc import Callable, Iterable

_RESERVE = 5.0  # seconds for the batch that runs and for what comes after


def purge(
    forgets: Iterable[Callable[[], int]],
    remaining: Callable[[], float],
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Call each again and again until it finds nothing more; return how many rows they deleted.

    Each deletes a batch and returns its size. They take turns, so that a table with a million old
    rows does not keep the others waiting, and rest as long as they worked: requests come first.
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
