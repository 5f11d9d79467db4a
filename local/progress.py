"""Short lines that say what is going on and how long it took."""

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


class Trouble(Exception):
    """Something a person has to put right, told in one sentence: no traceback."""


# What a terminal obeys or hides: C0 and C1 controls, marks that reorder or hide what follows,
# separators of lines, halves of letters. Joiners are letters in Persian and in emoji: they stay.
_CONTROLS = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\ud800-\udfff\U000e0000-\U000e007f]"
)

_ADDRESS = re.compile(r"([\w.+%-])[\w.+%-]*@(?=[\w-])")
_LINK = re.compile(r"https?://[^\s\"]+")


def shown(value: object) -> str:
    """Return a value as one line that a terminal prints and does not obey.

    For whatever somebody else has written: an event's field, an address, an error's text.
    """
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], str(value))


def mask(value: Any) -> Any:
    """Return a value without its tokens, addresses and links."""
    if isinstance(value, dict):
        return {key: "…" if key == "token" else mask(item) for key, item in value.items()}
    if isinstance(value, list):
        return [mask(item) for item in value]
    if isinstance(value, str):
        return _ADDRESS.sub(r"\1…@", _LINK.sub("…", value))
    return value


def say(text: str = "") -> None:
    """Print lines at once; a terminal that has gone away is no reason to stop.

    Of control characters only a line's end is printed as it is: text that may hold one of somebody
    else's goes through `shown` first.
    """
    with suppress(OSError):
        print("\n".join(map(shown, text.split("\n"))), flush=True)


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
    lines = "\n".join(map(shown, text.split("\n")))
    print(f"\nkyora: {lines}", file=sys.stderr, flush=True)
