"""What commands print: progress lines, errors, and values that are safe to show."""

import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any


class Trouble(Exception):
    """A problem that the user has to fix, described in one sentence, without a traceback."""


# Characters that control a terminal or hide text: C0 and C1 controls, marks that change direction,
# line separators, lone surrogates. Joiners stay: Persian and emoji need them.
_CONTROLS = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\ud800-\udfff\U000e0000-\U000e007f]"
)

_ADDRESS = re.compile(r"([\w.+%-])[\w.+%-]*@(?=[\w-])")
_LINK = re.compile(r"https?://[^\s\"]+")


def shown(value: object) -> str:
    """Return a value as one line without control characters.

    For text that we did not write: an event's field, an address, an error's text.
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


_heard: ContextVar[list[str] | None] = ContextVar("heard", default=None)


def say(text: str = "") -> None:
    """Print lines and flush; a closed terminal is not an error.

    Control characters are escaped, except for line ends: text that others wrote goes through
    `shown` first.
    """
    lines = [shown(line) for line in text.split("\n")]
    if (kept := _heard.get()) is not None:
        kept += lines
        return
    with suppress(OSError):
        print("\n".join(lines), flush=True)


@contextmanager
def hearing() -> Iterator[list[str]]:
    """Collect what this context says instead of printing it."""
    lines: list[str] = []
    before = _heard.set(lines)
    try:
        yield lines
    finally:
        _heard.reset(before)


@contextmanager
def step(title: str, *, starting: str = "") -> Iterator[list[str]]:
    """Time a step and print its line at the end; append details to the yielded list.

    A long step announces itself with `starting`, so that the terminal is not silent.
    """
    if starting:
        say(f"  · {starting}")
    details: list[str] = []
    began = time.monotonic()
    try:
        yield details
    except Exception:  # not a Ctrl-C
        say(f"  ✗ {title}")
        raise
    line = " ".join([title, *details])
    say(f"  ✓ {line:<64} {time.monotonic() - began:5.1f} s")


def complain(text: str) -> None:
    """Print why the command stopped, in one sentence."""
    lines = "\n".join(map(shown, text.split("\n")))
    print(f"\nkyora: {lines}", file=sys.stderr, flush=True)
