"""PNG and APNG (W3C PNG, third edition): chunks with checksums, pixels in one zlib stream."""

import struct
import zlib

from kyora.assets.content import exif, tail
from kyora.assets.content.source import Facts, Policy, Source, match, whole

_MAX_EXIF = 1 << 16
_UNPACK = 1 << 20  # bytes at a time
_ADAM7 = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)


def check(source: Source, policy: Policy) -> Facts:
    """Walk the chunks to IEND. Only the first pixels are decompressed."""
    match(source.at(0, 8) == b"\x89PNG\r\n\x1a\n")
    length, name = struct.unpack(">L4s", source.exactly(8, 8))
    whole(name == b"IHDR" and length == 13)
    header = source.exactly(16, 13)
    whole(zlib.crc32(name + header) == int.from_bytes(source.exactly(29, 4)))
    width, height = struct.unpack(">LL", header[:8])
    position, turned = 33, False
    pixels: list[tuple[int, int]] = []
    while True:
        source.step()
        head = source.at(position, 8)
        length, name = struct.unpack(">L4s", head) if len(head) == 8 else (0, b"")
        end = position + 12 + length
        if name == b"IDAT":
            pixels.append((position + 8, min(length, source.size - position - 8)))
        if end > source.size or not name:  # cut: viewers show it if every pixel is there
            whole(bool(pixels) and _complete(source, pixels, _expected(header)))
            return _facts(width, height, turned)
        if name == b"IDAT" and len(pixels) == 1:
            whole(_begins(source, *pixels[0]))
        elif name == b"eXIf":
            turned = exif.sideways(source.at(position + 8, min(length, _MAX_EXIF)))
        elif name == b"IEND":
            whole(bool(pixels))
            tail.check(source, end)
            return _facts(width, height, turned)
        position = end


def _begins(source: Source, start: int, length: int) -> bool:
    """Return True if the pixels begin like a zlib stream."""
    try:
        zlib.decompressobj().decompress(source.at(start, min(length, 1024)), 256)
    except zlib.error:
        return False
    return True


def _expected(header: bytes) -> int:
    """Return the size of the decompressed pixels in bytes (11.2.1, 7.2, 8.1)."""
    width, height, depth, color, _, _, interlaced = struct.unpack(">LLBBBBB", header)
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(color, 4)
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    total = 0
    for left, top, across, down in passes:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            total += rows * (1 + -(-columns * bits // 8))
    return total


def _complete(source: Source, parts: list[tuple[int, int]], expected: int) -> bool:
    """Decompress the pixels, keeping none; True if all are there or their stream is complete."""
    stream = zlib.decompressobj()
    total = 0
    for start, length in parts:
        data = source.at(start, length)
        while data:
            source.step(_UNPACK >> 9)
            try:
                total += len(stream.decompress(data, _UNPACK))
            except zlib.error:
                return total >= expected
            data = stream.unconsumed_tail
    return stream.eof or total >= expected


def _facts(width: int, height: int, turned: bool) -> Facts:
    return Facts(height, width) if turned else Facts(width, height)
