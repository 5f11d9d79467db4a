"""WebP (RFC 9649): one RIFF chunk with a still or an animation."""

import struct

from kyora.assets.content import exif, tail
from kyora.assets.content.source import Facts, Policy, Source, match, whole

_MAX_EXIF = 1 << 16


def check(source: Source, policy: Policy) -> Facts:
    """Walk the chunks. The size is that of the canvas, or of the only picture."""
    head = source.at(0, 12)
    match(head[:4] == b"RIFF" and head[8:12] == b"WEBP")
    end = int.from_bytes(head[4:8], "little") + 8
    whole(end <= source.size + 1)  # some writers count a padding byte that is not there
    position, canvas, picture, turned = 12, None, None, False
    while position + 8 <= min(end, source.size):
        source.step()
        name, length = struct.unpack("<4sL", source.exactly(position, 8))
        whole(position + 8 + length <= source.size)
        body = position + 8
        if name == b"VP8X":
            data = source.exactly(body, 10)
            canvas = tuple(int.from_bytes(data[i : i + 3], "little") + 1 for i in (4, 7))
        elif name == b"VP8 " and picture is None:
            picture = _lossy(source.exactly(body, 10))
        elif name == b"VP8L" and picture is None:
            picture = _lossless(source.exactly(body, 5))
        elif name == b"ANMF" and picture is None:
            data = source.exactly(body, 16)
            picture = tuple(int.from_bytes(data[i : i + 3], "little") + 1 for i in (6, 9))
        elif name == b"EXIF":
            turned = exif.sideways(source.at(body, min(length, _MAX_EXIF)))
        position = body + length + length % 2
    whole(picture is not None)
    tail.check(source, min(end, source.size))
    width, height = canvas or picture or (0, 0)
    return Facts(height, width) if turned else Facts(width, height)


def _lossy(data: bytes) -> tuple[int, ...]:
    whole(data[3:6] == b"\x9d\x01\x2a")
    width, height = struct.unpack("<HH", data[6:10])
    return width & 0x3FFF, height & 0x3FFF


def _lossless(data: bytes) -> tuple[int, ...]:
    whole(data[0] == 0x2F)
    bits = int.from_bytes(data[1:], "little")
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
