"""Whether a JPEG without its end mark has all of its pixels (ITU-T T.81, F.2.2).

Some cameras and tools write no end mark, or lose the last few bytes; viewers show all of it. A file
that was cut in the middle lacks the mark as well, so the Huffman codes are followed, without
decoding a pixel, and the blocks are counted. That takes 0.16 µs per code, half a second for 2 MB.
Progressive and arithmetic files are refused: their last scan only refines the earlier ones.
"""

import struct
from typing import NamedTuple

from kyora.assets.content.source import CHUNK, Source, whole

FOLLOWED = (0xC0, 0xC1)  # frames: baseline and extended, with Huffman codes
_MOST = 4 << 20  # bytes of a scan that are followed
_CODES_IN_A_STEP = 24
_BLOCK = 64  # coefficients
_ZEROS = 8  # bytes of zeros that a scan may end with
_BEHIND = 512  # bytes that the codes of one block may reach behind the end

type Table = list[int]


class Header(NamedTuple):
    """The bodies of the segments that say how a scan is coded, its own among them."""

    frame: bytes
    tables: list[bytes]
    interval: int  # units between restart marks; 0 without them
    scan: bytes


def end(source: Source, header: Header, start: int) -> int:
    """Return where the pixels end in a scan that begins at `start` and has no end mark.

    The last unit may be incomplete: decoders fill it up. Raises Refused `bad_content` if more is
    missing, or if the units cannot be counted.
    """
    height, width, count = struct.unpack(">HHB", header.frame[1:6])
    whole(
        0 < count <= 4 and header.scan[0] == count
    )  # all components in one scan, as cameras write it
    sampling = {
        header.frame[at]: (header.frame[at + 1] >> 4, header.frame[at + 1] & 15)
        for at in range(6, 6 + 3 * count, 3)
    }
    tables = _tables(source, header.tables)
    blocks: list[tuple[Table, Table]] = []
    across = down = 1
    for at in range(1, 1 + 2 * count, 2):
        component, names = header.scan[at], header.scan[at + 1]
        pair = tables.get(names >> 4), tables.get(0x10 | names & 15)
        whole(component in sampling and pair[0] is not None and pair[1] is not None)
        columns, rows = sampling[component] if count > 1 else (1, 1)
        across, down = max(across, columns), max(down, rows)
        blocks += [(pair[0] or [], pair[1] or [])] * (columns * rows)
    units = -(-width // (8 * across)) * -(-height // (8 * down))
    may_lack = units > 1
    if header.interval:  # the units before the last restart mark are there
        marks, start = _restarts(source, start)
        units -= marks * header.interval
        whole(0 < units <= header.interval)
    return _follow(source, start, units, blocks, may_lack=may_lack)


def _tables(source: Source, bodies: list[bytes]) -> dict[int, Table]:
    """Return each Huffman table by its class and number, the last definition of each.

    The next 16 bits are the index. An entry holds the length of code and value in bits, and the
    number of coefficients that they stand for.
    """
    definitions: dict[int, tuple[bytes, bytes]] = {}
    for body in bodies:
        at = 0
        while at < len(body):
            source.step()
            lengths = body[at + 1 : at + 17]
            whole(len(lengths) == 16 and body[at] & 0xEC == 0)
            behind = at + 17 + sum(lengths)
            definitions[body[at]] = lengths, body[at + 17 : behind]
            at = behind
    return {name: _table(name, *definition) for name, definition in definitions.items()}


def _table(name: int, lengths: bytes, symbols: bytes) -> Table:
    whole(len(symbols) == sum(lengths))
    whole(sum(count << 16 - bits for bits, count in enumerate(lengths, 1)) <= 1 << 16)
    found: Table = []
    at = 0
    for bits, count in enumerate(lengths, 1):
        for symbol in symbols[at : at + count]:
            if name < 0x10:  # a difference to the block before: how many bits it has
                entry = (bits + symbol) << 8 | 1
            else:  # zeros to skip and how many bits the next coefficient has, or a block's end
                run, value = symbol >> 4, symbol & 15
                entry = (bits + value) << 8 | (run + 1 if symbol else _BLOCK)
            found += [entry] * (1 << 16 - bits)
        at += count
    return found + [0] * ((1 << 16) - len(found))


def _restarts(source: Source, start: int) -> tuple[int, int]:
    """Return how many restart marks a scan has, and where the last one ends."""
    count, last, position = 0, start, start
    while data := source.at(position, CHUNK + 1):
        source.step()
        for number in range(0xD0, 0xD8):
            mark = bytes((0xFF, number))
            if found := data.count(mark):
                count, last = count + found, max(last, position + data.rfind(mark) + 2)
        position += CHUNK
    return count, last


def _follow(
    source: Source, start: int, units: int, blocks: list[tuple[Table, Table]], *, may_lack: bool
) -> int:
    """Follow the codes of `units` units of these blocks; return where they end."""
    whole(source.size - start <= _MOST)
    data = source.at(start, _MOST)
    # Zeros are codes too, and a file that was never written to its end has many.
    data = data[: len(data.rstrip(b"\0")) + _ZEROS].replace(b"\xff\0", b"\xff")
    size = 8 * len(data)
    padded = data + bytes(_BEHIND)
    words = bytearray(4 * len(padded))  # at each byte, 24 bits from there on, little-endian
    words[2::4], words[1:-4:4], words[:-8:4] = padded, padded[1:], padded[2:]
    bits = memoryview(words).cast("I")
    position = 0
    for unit in range(units):
        codes = 0
        for first, others in blocks:
            table, coefficient = first, 0
            while coefficient < _BLOCK:
                found = table[bits[position >> 3] >> 8 - (position & 7) & 0xFFFF]
                if not found:
                    break
                position += found >> 8
                coefficient += found & 0xFF
                codes += 1
                table = others
            if coefficient < _BLOCK or position > size:
                whole(may_lack and unit == units - 1)
                break
        source.step(1 + codes // _CODES_IN_A_STEP)
    used = min(len(data), -(-position // 8))
    return start + used + data.count(b"\xff", 0, used)
