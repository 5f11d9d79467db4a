"""JPEG (ITU-T T.81): segments to the first scan, then to the end of the image.

Decoders skip bytes between segments, so stray ones there are accepted.
"""

import re
import struct

from kyora.assets.content import exif, jpeg_scan, tail
from kyora.assets.content.source import CHUNK, Facts, Policy, Source, match, whole

_MARKER = re.compile(rb"\xff[\x01-\xfe]")
_NEXT_IN_SCAN = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # neither a stuffed 0xFF nor a restart
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length
_FIRST_LOOK = 64
_EXIF, _SCAN, _END, _TABLES, _RESTART = 0xE1, 0xDA, 0xD9, 0xC4, 0xDD


def check(source: Source, policy: Policy) -> Facts:
    """Read the frame header, the orientation and where the image ends."""
    match(source.at(0, 3) == b"\xff\xd8\xff")
    position, size, turned = 2, None, None
    header = jpeg_scan.Header(b"", [], 0, b"")
    while True:
        source.step()
        position, marker = _next(source, position, in_scan=False)
        whole(marker != _END)
        if marker in _ALONE:
            continue
        length = int.from_bytes(source.exactly(position, 2))
        whole(length >= 2)
        if marker in _FRAMES and size is None:
            height, width = struct.unpack(">HH", source.exactly(position + 3, 4))
            size = (width, height)
            if marker in jpeg_scan.FOLLOWED:
                header = header._replace(frame=source.at(position + 2, length - 2))
        elif marker == _EXIF and turned is None:
            data = source.at(position + 2, length - 2)
            turned = exif.sideways(data) if data.startswith(b"Exif\0\0") else None
        elif marker == _TABLES:
            header.tables.append(source.at(position + 2, length - 2))
        elif marker == _RESTART:
            header = header._replace(interval=int.from_bytes(source.exactly(position + 2, 2)))
        elif marker == _SCAN:
            whole(size is not None)
            header = header._replace(scan=source.at(position + 2, length - 2))
            break
        position += length
    tail.check(source, _end(source, position, header))
    width, height = size or (0, 0)
    return Facts(height, width) if turned else Facts(width, height)


def _end(source: Source, position: int, header: jpeg_scan.Header) -> int:
    """Return where the image ends: at its end mark, or behind its last block if it has none."""
    first = position
    try:
        while True:
            source.step()
            position += int.from_bytes(source.exactly(position, 2))
            position, marker = _next(source, position, in_scan=True)
            while marker in _ALONE:
                position, marker = _next(source, position, in_scan=True)
            if marker == _END:
                return position
    except EOFError:  # damaged scans: decoders only look for the end mark
        found = source.find(b"\xff\xd9", first)
        if found != -1:
            return found + 2
        whole(header.frame != b"")
        return jpeg_scan.end(source, header, first + len(header.scan) + 2)


def _next(source: Source, position: int, *, in_scan: bool) -> tuple[int, int]:
    """Return where the next marker ends and which it is."""
    pattern = _NEXT_IN_SCAN if in_scan else _MARKER
    count = _FIRST_LOOK  # most markers are near; a scan may be long
    while len(data := source.at(position, count)) > 1:
        if found := pattern.search(data):
            return position + found.end(), data[found.end() - 1]
        source.step()
        position += len(data) - 1  # an 0xFF may be its last byte
        count = min(4 * count, CHUNK)
    raise EOFError
