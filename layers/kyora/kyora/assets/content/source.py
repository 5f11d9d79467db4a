"""A file read in pieces, on a budget; and how a parser refuses a file.

Every parser gets its bytes from a Source and counts its steps there. Work is bounded by
construction, so no upload can keep a worker busy: a step is one box, chunk, segment, frame or
directory entry, and costs a few microseconds.
"""

import os
import struct
from dataclasses import dataclass
from typing import BinaryIO

MAX_STEPS = 200_000
_READ_AGAIN = 6  # times the size of the file that may be read in total
_SMALL = 4 << 20  # bytes that may be read on top, of any file
CHUNK = 1 << 20
_WINDOW = 1 << 12

# What parsers raise for bytes that are not of their format.
BROKEN = (struct.error, IndexError, ValueError, EOFError, OverflowError, MemoryError)

type Reason = str  # type_mismatch, bad_content, too_many_pixels, macros or encrypted


class Refused(Exception):
    """The file is not what its type says. `detected` is its real type, if known."""

    def __init__(self, reason: Reason, detected: str | None = None) -> None:
        super().__init__(reason)
        self.reason, self.detected = reason, detected


@dataclass(frozen=True, slots=True)
class Policy:
    """What office files, PDFs and ZIPs may contain."""

    macros: bool = False
    passwords: bool = True


@dataclass(frozen=True, slots=True)
class Facts:
    """What a file shows: its size in pixels as displayed, its duration in milliseconds."""

    width: int | None = None
    height: int | None = None
    duration_ms: int | None = None


class Source:
    """Random access to a file. Raises Refused `bad_content` when the budget is spent."""

    def __init__(self, file: BinaryIO, most_steps: int = MAX_STEPS) -> None:
        self._file, self._most_steps = file, most_steps
        self.size = file.seek(0, os.SEEK_END)
        self.steps = 0
        self.bytes_read = 0
        self._start, self._window = 0, b""
        self._most = _READ_AGAIN * self.size + _SMALL

    def at(self, offset: int, count: int) -> bytes:
        """Return up to `count` bytes at `offset`; fewer where the file ends."""
        if not 0 <= offset < self.size or count <= 0:
            return b""
        if count > _WINDOW:
            return self._read(offset, count)
        at = offset - self._start
        if at < 0 or at + count > len(self._window):  # headers are read one after the other
            self._start, self._window, at = offset, self._read(offset, _WINDOW), 0
        return self._window[at : at + count]

    def _read(self, offset: int, count: int) -> bytes:
        self._file.seek(offset)
        data = self._file.read(min(count, self.size - offset))
        self.bytes_read += len(data)
        if self.bytes_read > self._most:
            raise Refused("bad_content")
        return data

    def exactly(self, offset: int, count: int) -> bytes:
        """Return `count` bytes at `offset`. Raises EOFError where the file ends before."""
        data = self.at(offset, count)
        if len(data) != count:
            raise EOFError
        return data

    def step(self, count: int = 1) -> None:
        """Count so many parts of the file. Raises Refused `bad_content` if there are too many."""
        self.steps += count
        if self.steps > self._most_steps:
            raise Refused("bad_content")

    def find(self, needle: bytes, start: int = 0, end: int | None = None) -> int:
        """Return the first position of `needle` from `start` on, or -1."""
        position, last = start, self.size if end is None else min(end, self.size)
        while position < last:
            data = self.at(position, min(CHUNK, last - position) + len(needle) - 1)
            if (found := data.find(needle)) != -1:
                return position + found
            position += CHUNK
        return -1


def match(condition: bool, detected: str | None = None) -> None:
    """Refuse a file that is of another type."""
    if not condition:
        raise Refused("type_mismatch", detected)


def whole(condition: bool) -> None:
    """Refuse a file of the right type that is broken or incomplete."""
    if not condition:
        raise Refused("bad_content")
