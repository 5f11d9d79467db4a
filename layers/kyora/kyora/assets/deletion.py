"""Deletes objects row by row: a row that fails is retried later, and holds up no other."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from kyora.observability import logger

RESERVE = 10.0  # seconds that must be left to start another step
_MAX_FAILURES = 3  # rows whose objects cannot be deleted, before a clean-up stops

type Row = Mapping[str, Any]


def deleted(
    rows: Iterable[Row],
    remaining: Callable[[], float],
    delete: Callable[[Row], None],
    put_back: Callable[[Row], None],
) -> Iterator[Row]:
    """Delete the objects of each row; yield the rows that are done, to be committed one by one.

    A row whose objects cannot be deleted is put back. Stops after three of them, or when the time
    is nearly over.
    """
    failures = 0
    for row in rows:
        if failures == _MAX_FAILURES or remaining() < RESERVE:
            return
        try:
            delete(row)
        except Exception as error:  # of any kind: the other rows must not wait for it
            failures += 1
            logger().warning(
                "objects left to the sweep", asset_id=row["id"], error=type(error).__name__
            )
            put_back(row)
        else:
            yield row
