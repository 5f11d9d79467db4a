"""ZIP (PKWARE APPNOTE 6.3.10): the directory at the end of the file, as readers use it.

Python's zipfile is not used: it decodes the extra fields of every entry in quadratic time and
refuses names that other readers show. Only small parts of office files are decompressed.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from kyora.assets.content.signatures import page, signature
from kyora.assets.content.source import Facts, Policy, Refused, Source, match, whole

_END, _END_64, _LOCATOR_64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_ENTRY, _LOCAL = b"PK\x01\x02", b"PK\x03\x04"
_STARTS = (_LOCAL, _END, b"PK00PK\x03\x04", b"PK\x07\x08PK\x03\x04")
_MAX_DIRECTORY = 24 << 20
_ENTRY_LAYOUT = struct.Struct("<4s4xHH8xLLHHH8xL")
_STORED, _DEFLATED = 0, 8


class Entry(NamedTuple):
    """A file in an archive, by its directory entry; `offset` is where its header begins."""

    name: bytes
    encrypted: bool
    method: int
    packed: int
    offset: int


def check(source: Source, policy: Policy) -> Facts:
    """Walk the directory."""
    head = source.at(0, 1024)
    if not head.startswith(
        _STARTS
    ):  # readers skip what comes before it, unless that is a file itself
        other = signature(head) or page(head)
        match(other is None and source.at(source.size - 22, 4) == _END, other)
    for entry in entries(source):
        if entry.encrypted and not policy.passwords:
            raise Refused("encrypted")
    return Facts()


def entries(source: Source) -> Iterator[Entry]:
    """Yield the entries of the directory. Raises Refused `bad_content`."""
    start, length, shift = _directory(source)
    whole(length <= _MAX_DIRECTORY)
    data = source.exactly(start, length)
    position = 0
    while length - position >= _ENTRY_LAYOUT.size:
        source.step()
        mark, flags, method, packed, full, name_length, extra_length, comment_length, offset = (
            _ENTRY_LAYOUT.unpack_from(data, position)
        )
        if mark != _ENTRY:  # a digital signature, or padding
            whole(mark != _LOCAL)
            break
        name_at = position + _ENTRY_LAYOUT.size
        extra_at = name_at + name_length
        comment_at = extra_at + extra_length
        position = comment_at + comment_length
        whole(position <= length)
        if 0xFFFFFFFF in (packed, full, offset):
            wide = _wide(source, data, (extra_at, comment_at), (full, packed, offset))
            full, packed, offset = wide
        offset += shift
        whole(offset + 30 <= start)
        yield Entry(data[name_at:extra_at], bool(flags & 1), method, packed, offset)


def read(source: Source, entry: Entry, most: int) -> bytes:
    """Decompress at most `most` bytes of an entry."""
    head = source.exactly(entry.offset, 30)
    whole(head[:4] == _LOCAL and not entry.encrypted)
    name_length, extra_length = struct.unpack("<HH", head[26:30])
    packed = source.at(entry.offset + 30 + name_length + extra_length, min(entry.packed, most))
    if entry.method == _STORED:
        return packed
    whole(entry.method == _DEFLATED)
    try:
        return zlib.decompressobj(-15).decompress(packed, most)
    except zlib.error:
        raise Refused("bad_content") from None


def _directory(source: Source) -> tuple[int, int, int]:
    """Return the start of the directory, its length, and what to add to its offsets."""
    base = max(0, source.size - (1 << 17))
    data = source.at(base, 1 << 17)
    found = data.rfind(_END)
    while found != -1 and len(data) - found < 22:
        found = data.rfind(_END, 0, found)
    whole(found != -1)
    disk, _, _, count, length, offset = struct.unpack_from("<HHHHLL", data, found + 4)
    end = base + found
    if 0xFFFF in (disk, count) or 0xFFFFFFFF in (length, offset):
        locator = source.at(end - 20, 20) if end >= 20 else b""
        if locator[:4] == _LOCATOR_64:
            end, length, offset = _directory_64(
                source, end, int.from_bytes(locator[8:16], "little")
            )
    start = end - length
    whole(start >= 0)
    if (
        start != offset and source.at(offset, 4) == _ENTRY
    ):  # there is something between the directory and its end record
        return offset, length, 0
    return start, length, start - offset


def _directory_64(source: Source, end: int, said: int) -> tuple[int, int, int]:
    for position in (said, end - 20 - 56):
        record = source.at(position, 56) if position >= 0 else b""
        if record[:4] == _END_64 and len(record) == 56:
            length, offset = struct.unpack_from("<QQ", record, 40)
            return position, length, offset
    raise Refused("bad_content")


def _wide(
    source: Source, data: bytes, extra: tuple[int, int], short: tuple[int, ...]
) -> tuple[int, ...]:
    """Read 64-bit sizes from the extra field; each of its records is read once."""
    start, end = extra
    while end - start >= 4:
        source.step()
        kind, length = struct.unpack_from("<HH", data, start)
        if kind == 1:
            values = iter(
                int.from_bytes(data[at : at + 8], "little")
                for at in range(start + 4, min(start + 4 + length, end) - 7, 8)
            )
            return tuple(next(values, v) if v == 0xFFFFFFFF else v for v in short)
        start += 4 + length
    return short
