"""Deleting what is past its time: many small transactions, so that nobody waits for a large one."""

from collections.abc import Callable, Iterable

_RESERVE = 5.0  # seconds for the batch that runs and for what comes after


def purge(forgets: Iterable[Callable[[], int]], remaining: Callable[[], float]) -> int:
    """Call each again and again until it finds nothing more; return how many rows they deleted.

    Each deletes a batch and returns its size. They take turns, so that a table with a million old
    rows does not keep the others waiting. `remaining` gives the seconds left to work.
    """
    deleted, busy = 0, list(forgets)
    while busy:
        found = []
        for forget in busy:
            if remaining() < _RESERVE:
                return deleted
            if count := forget():
                deleted += count
                found.append(forget)
        busy = found
    return deleted
