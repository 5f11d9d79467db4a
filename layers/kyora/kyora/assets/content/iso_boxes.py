"""Boxes of the ISO media family (ISO/IEC 14496-12, QuickTime): HEIC, AVIF, MP4, MOV, M4A."""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from kyora.assets.content import tail
from kyora.assets.content.source import Source, whole

# Boxes at the top level. Anything else there, behind the content, is no box.
_KNOWN = frozenset(
    b"ftyp styp moov moof mdat meta free skip wide uuid sidx ssix mfra pnot udta idat emsg prft"
    b" PICT".split()
)


class Box(NamedTuple):
    """A box: its four letters, and where its body begins and ends."""

    name: bytes
    start: int
    end: int


def children(source: Source, start: int, end: int) -> Iterator[Box]:
    """Yield the boxes between `start` and `end`. A rest too short for a box is padding."""
    while end - start >= 8:
        box = _read(source, start, end)
        whole(box is not None and box.end <= end)
        if box is None:
            return
        yield box
        start = box.end


def first(source: Source, parent: Box, name: bytes, skip: int = 0) -> Box | None:
    """Return the first child of this name. `skip` is the length of the parent's own fields."""
    boxes = children(source, parent.start + skip, parent.end)
    return next((box for box in boxes if box.name == name), None)


def top_level(source: Source) -> list[Box]:
    """Return the boxes of a file, in any order. Bytes behind the last known box are ignored.

    Only an `mdat` may end behind the file: the caller decides about what is missing.
    """
    found: list[Box] = []
    position = end = 0
    while position < source.size:
        box = _read(source, position, source.size)
        name = source.at(position + 4, 4)
        if name in _KNOWN:
            whole(box is not None and (box.end <= source.size or name == b"mdat"))
        if box is None or (box.end > source.size and name not in _KNOWN):
            break
        found.append(box)
        position = box.end
        end = position if name in _KNOWN else end
    tail.check(source, min(end, source.size))
    return found


def brands(source: Source, boxes: list[Box]) -> list[bytes]:
    """Return the major brand and the compatible ones; none without an `ftyp`."""
    box = next((box for box in boxes if box.name == b"ftyp"), None)
    if box is None:
        return []
    data = source.at(box.start, min(box.end - box.start, 4096))
    return [data[:4], *(data[i : i + 4] for i in range(8, len(data) - 3, 4))]


def _read(source: Source, position: int, end: int) -> Box | None:
    """Read the header of a box; None if there is none."""
    source.step()
    head = source.at(position, 16)
    if len(head) < 8:
        return None
    length, name = struct.unpack(">L4s", head[:8])
    start = position + 8
    if length == 1:
        if len(head) < 16:
            return None
        length, start = int.from_bytes(head[8:16]), position + 16
    elif length == 0:
        length = end - position  # to the end of the file
    if length < start - position:
        return None
    return Box(name, start, position + length)
