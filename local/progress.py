"""Short lines that say what is going on and how long it took."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Trouble(Exception):
    """Something a person has to put right, told in one sentence: no traceback."""


def say(text: str = "") -> None:
    """Print one line at once; a terminal that has gone away is no reason to stop."""
    with suppress(OSError):
        print(text, flush=True)


@contextmanager
def step(title: str, *, starting: str = "") -> Iterator[list[str]]:
    """Time a step and print its line when it is done; append to the yielded list for details.

    A step that takes long says so with `starting`, so that nobody looks at a silent terminal.
    """
    if starting:
        say(f"  · {starting}")
    details: list[str] = []
    began = time.monotonic()
    try:
        yield details
    except Exception:  # a Ctrl-C is no failure
        say(f"  ✗ {title}")
        raise
    line = " ".join([title, *details])
    say(f"  ✓ {line:<64} {time.monotonic() - began:5.1f} s")


def complain(text: str) -> None:
    """Print the one sentence that says why it stopped."""
    print(f"\nkyora: {text}", file=sys.stderr, flush=True)
