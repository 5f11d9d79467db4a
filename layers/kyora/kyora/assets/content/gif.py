"""GIF 87a and 89a: blocks to the trailer, which some encoders forget."""

import struct

from kyora.assets.content import tail
from kyora.assets.content.source import Facts, Policy, Source, match, whole

_MAX_BITS, _CODES = 12, 4096
_EXTENSION, _IMAGE, _TRAILER = 0x21, 0x2C, 0x3B


def check(source: Source, policy: Policy) -> Facts:
    """Walk the blocks. A first frame larger than the screen enlarges it, as in viewers."""
    match(source.at(0, 6) in (b"GIF87a", b"GIF89a"))
    width, height, flags = struct.unpack("<HHBxx", source.exactly(6, 7))
    position, images = 13 + _colors(flags), 0
    while position < source.size or not images:
        source.step()
        kind = source.exactly(position, 1)[0]
        position += 1
        if kind == _TRAILER:
            whole(images > 0)
            tail.check(source, position)
            return Facts(width, height)
        if kind == _EXTENSION:
            position = _blocks(source, position + 1)
        elif kind == _IMAGE and images:
            flags = source.at(position + 8, 1)
            position = _blocks(source, position + 10 + _colors(flags[0] if flags else 0))
        elif kind == _IMAGE:
            left, top, across, down, flags = struct.unpack("<HHHHB", source.exactly(position, 9))
            width, height = max(width, left + across), max(height, top + down)
            position += 9 + _colors(flags)
            bits = source.exactly(position, 1)[0]
            start, position = position + 1, _blocks(source, position + 1)
            whole(position <= source.size or _pixels(source, start, bits) >= across * down)
            images = 1
        # Anything else is a stray byte, which decoders skip.
    return Facts(width, height)  # cut in a later frame, or without a trailer


def _blocks(source: Source, position: int) -> int:
    """Return where a chain of data blocks ends: behind the file if the file ends in one."""
    while position < source.size and (length := source.at(position, 1)[0]):
        source.step()
        position += 1 + length
    return position + 1


def _pixels(source: Source, position: int, bits: int) -> int:
    """Count the pixels of an incomplete frame, by the lengths of its LZW codes."""
    whole(0 < bits < _MAX_BITS)
    clear, stop = 1 << bits, (1 << bits) + 1
    pixels, pool, pool_bits, width = 0, 0, 0, bits + 1
    lengths: list[int] = []
    last = 0
    while position < source.size:
        length = source.at(position, 1)[0]
        block = source.at(position + 1, length)
        position += 1 + length
        source.step(1 + len(block) // 2)
        for byte in block:
            pool |= byte << pool_bits
            pool_bits += 8
            while pool_bits >= width:
                code, pool, pool_bits = pool & ((1 << width) - 1), pool >> width, pool_bits - width
                if code == stop:
                    return pixels
                if code == clear:
                    lengths, last, width = [], 0, bits + 1
                    continue
                index = code - clear - 2
                length = 1 if code < clear else lengths[index] if index < len(lengths) else last + 1
                if last and len(lengths) + clear + 2 < _CODES:
                    lengths.append(last + 1)
                    if len(lengths) + clear + 2 == 1 << width and width < _MAX_BITS:
                        width += 1
                pixels, last = pixels + length, length
    return pixels


def _colors(flags: int) -> int:
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0
