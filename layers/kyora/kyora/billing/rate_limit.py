"""Limit how fast we call Stripe: it allows 25 requests a second in test mode and refuses more."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

PER_SECOND = 25.0

_turn: ContextVar[Callable[[], None] | None] = ContextVar("turn", default=None)


@contextmanager
def at(
    per_second: float = PER_SECOND,
    *,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[None]:
    """Within the block, space calls evenly: limiters refuse bursts.

    For background work. A person's request is never delayed.
    """
    before = _turn.set(spaced(1 / per_second, now, sleep))
    try:
        yield
    finally:
        _turn.reset(before)


def wait() -> None:
    """Wait until the next call is allowed; return at once where no rate is set."""
    if turn := _turn.get():
        turn()


def spaced(
    gap: float, now: Callable[[], float], sleep: Callable[[float], None]
) -> Callable[[], None]:
    """Return a function whose calls end at least `gap` seconds apart."""
    free_at = now()

    def turn() -> None:
        nonlocal free_at
        free_at = max(free_at, now())
        begins, free_at = free_at, free_at + gap
        if (left := begins - now()) > 0:
            sleep(left)

    return turn
