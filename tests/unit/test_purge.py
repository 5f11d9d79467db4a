"""Batches take turns, end when there is nothing more, and stop in time."""

from collections.abc import Callable
from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from kyora.purge import purge


def table(rows: int, calls: list[str], name: str) -> Callable[[], int]:
    left = [rows]

    def forget() -> int:
        calls.append(name)
        batch = min(1000, left[0])
        left[0] -= batch
        return batch

    return forget


@given(st.lists(st.integers(0, 5000), max_size=4))
def test_every_table_is_emptied(sizes: list[int]) -> None:
    calls: list[str] = []
    tables = [table(size, calls, str(n)) for n, size in enumerate(sizes)]
    assert purge(tables, lambda: 60.0) == sum(sizes)


def test_a_large_table_does_not_keep_a_small_one_waiting() -> None:
    calls: list[str] = []
    purge([table(9000, calls, "large"), table(500, calls, "small")], lambda: 60.0)
    assert calls.index("small") == 1


def test_it_stops_while_there_is_time_left_for_what_comes_after() -> None:
    calls: list[str] = []
    clock = count(8, -1)
    assert purge([table(99_000, calls, "large")], lambda: float(next(clock))) == 4000
