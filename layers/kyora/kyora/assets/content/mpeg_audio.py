"""MP3 (ISO/IEC 11172-3, 13818-3) and AAC in ADTS, LATM or ADIF (13818-7, 14496-3).

There is no container: frames follow each other, behind tags, zeros, or a broadcast cut in the
middle. A chain of frames proves the type; a single sync word proves nothing.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from kyora.assets.content.signatures import signature
from kyora.assets.content.source import CHUNK, Facts, Policy, Source, match, whole

_CHAIN = 3  # frames in a row that prove a stream at the start of the file
_CHAIN_BEHIND_JUNK = 12  # and elsewhere, where any file may contain a few by chance
_SEARCHED = 1 << 18  # bytes behind the tags in which a stream must begin
_COUNTED = 120_000  # frames; a longer stream's duration is extrapolated
_TAGS_BEHIND = (b"TAG", b"APETAGEX", b"LYRICSBEGIN", b"ID3", b"3DI")
_RATES = (44100, 48000, 32000)
_LAYER_1 = (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448)
_LAYER_2 = (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384)
_LAYER_3 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_LOW_1 = (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256)
_LOW_23 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_BITRATES = {
    (3, 3): _LAYER_1,
    (3, 2): _LAYER_2,
    (3, 1): _LAYER_3,
    (2, 3): _LOW_1,
    (2, 2): _LOW_23,
    (2, 1): _LOW_23,
}
_ADTS_RATES = (
    *(96000, 88200, 64000, 48000, 44100, 32000, 24000),
    *(22050, 16000, 12000, 11025, 8000, 7350),
)


class Frame(NamedTuple):
    """A frame: its length in bytes, its duration, and what all frames of a stream share."""

    length: int
    seconds: float
    kind: int


type Read = Callable[[bytes, int], Frame | None]


def mp3(source: Source, policy: Policy) -> Facts:
    """Find MPEG audio behind tags and junk, and its duration."""
    start = _behind_tags(source)
    other = signature(source.at(start, 16))
    match(other is None, other)
    first = _find(source, start, _mpeg, re.compile(rb"\xff[\xe2-\xff]"))
    match(first is not None)
    return Facts(
        duration_ms=_milliseconds(
            _announced(source, first or 0) or _play(source, first or 0, _mpeg)
        )
    )


def aac(source: Source, policy: Policy) -> Facts:
    """Find AAC frames behind tags and junk."""
    start = _behind_tags(source)
    if source.at(start, 4) == b"ADIF":
        whole(source.size > start + 16)
        return Facts()
    other = signature(source.at(start, 16))
    match(other is None, other)
    for read, sync in (
        (_adts, re.compile(rb"\xff[\xf0\xf1\xf8\xf9]")),
        (_latm, re.compile(rb"\x56[\xe0-\xff]")),
    ):
        first = _find(source, start, read, sync)
        if first is not None:
            return Facts(duration_ms=_milliseconds(_play(source, first, read)))
    match(False)
    return Facts()


def _behind_tags(source: Source) -> int:
    """Return where the ID3v2 tags end (id3.org, ID3v2.4, 3.1)."""
    position = 0
    while True:
        head = source.at(position, 10)
        if head[:3] != b"ID3" or len(head) < 10:
            return position
        source.step()
        length = sum(part << shift for part, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
        footer = 10 if head[5] & 0x10 else 0
        if any(part >= 0x80 for part in head[6:]) or position + 10 + length >= source.size:
            return position + 10  # a wrong length: search what follows
        position += 10 + length + footer


def _find(source: Source, start: int, read: Read, sync: re.Pattern[bytes]) -> int | None:
    """Return where the first chain of frames begins."""
    data = source.at(start, _SEARCHED)
    for found in sync.finditer(data):
        source.step()
        position = start + found.start()
        # Some tags are longer than they say. An encoder's info frame is no chance hit either.
        sure = position == start or (read is _mpeg and _announced(source, position) > 0)
        if _leads_on(source, position, read, first=sure):
            return position
    return None


def _leads_on(source: Source, position: int, read: Read, *, first: bool) -> bool:
    """Follow a chain of matching frames; at the end of the file it may be shorter."""
    kind = None
    for count in range(_CHAIN if first else _CHAIN_BEHIND_JUNK):
        source.step()
        head = source.at(position, 16)
        frame = read(head, 0)
        if frame is None or (kind is not None and frame.kind != kind):
            at_end = not head.strip(b"\0") or head.startswith(_TAGS_BEHIND)
            return at_end and count > (0 if first else _CHAIN)
        kind = frame.kind
        position += frame.length
        if position > source.size:
            return count > (1 if first else _CHAIN)
    return True


def _play(source: Source, position: int, read: Read) -> float:
    """Return the seconds of all frames; junk between them is skipped as players do."""
    seconds, frames, begin = 0.0, 0, position
    chunk, base = b"", 0
    while frames < _COUNTED:
        if position + 16 > base + len(chunk):
            base, chunk = position, source.at(position, CHUNK)
            if len(chunk) < 4:
                return seconds
        frame = read(chunk, position - base)
        if frame is None:
            if chunk.startswith(_TAGS_BEHIND, position - base):
                return seconds
            source.step()
            found = chunk.find(b"\xff" if read is not _latm else b"\x56", position - base + 1)
            position = base + (found if found != -1 else len(chunk))
            continue
        seconds += frame.seconds
        frames += 1
        position += frame.length
    source.step(frames // 4)
    return seconds * (source.size - begin) / (position - begin)


def _announced(source: Source, start: int) -> float:
    """Return the duration in seconds by the Xing, Info or VBRI header; 0 without one."""
    data = source.at(start, 200)
    frame = _mpeg(data, 0)
    if frame is None:
        return 0.0
    for name, at, counter in ((b"Xing", None, 8), (b"Info", None, 8), (b"VBRI", 36, 14)):
        found = data.find(name, 4, 44) if at is None else (at if data.startswith(name, at) else -1)
        if found == -1 or (at is None and not data[found + 7] & 1):
            continue
        count = int.from_bytes(data[found + counter : found + counter + 4])
        return count * frame.seconds
    return 0.0


def _mpeg(data: bytes, at: int) -> Frame | None:
    """Read the header of an MPEG audio frame of any layer."""
    if len(data) < at + 4 or data[at] != 0xFF or data[at + 1] & 0xE0 != 0xE0:
        return None
    version, layer = data[at + 1] >> 3 & 3, data[at + 1] >> 1 & 3
    index, rate_index, padding = data[at + 2] >> 4, data[at + 2] >> 2 & 3, data[at + 2] >> 1 & 1
    if version == 1 or layer == 0 or index in (0, 15) or rate_index == 3:
        return None
    rate = _RATES[rate_index] >> (0 if version == 3 else 1 if version == 2 else 2)
    bits = _BITRATES[3 if version == 3 else 2, layer][index] * 1000
    kind = data[at + 1] & 0xFE | rate_index << 8
    if layer == 3:
        return Frame((12 * bits // rate + padding) * 4, 384 / rate, kind)
    samples = 576 if layer == 1 and version != 3 else 1152
    return Frame(samples // 8 * bits // rate + padding, samples / rate, kind)


def _adts(data: bytes, at: int) -> Frame | None:
    if len(data) < at + 7 or data[at] != 0xFF or data[at + 1] & 0xF6 != 0xF0:
        return None
    rate_index = data[at + 2] >> 2 & 15
    length = (data[at + 3] & 3) << 11 | data[at + 4] << 3 | data[at + 5] >> 5
    if rate_index >= len(_ADTS_RATES) or length < 7:
        return None
    return Frame(length, 1024 * ((data[at + 6] & 3) + 1) / _ADTS_RATES[rate_index], rate_index)


def _latm(data: bytes, at: int) -> Frame | None:
    """Read a LOAS frame. Its rate is deep inside, so its duration is left at 0."""
    if len(data) < at + 3 or data[at] != 0x56 or data[at + 1] & 0xE0 != 0xE0:
        return None
    return Frame(((data[at + 1] & 0x1F) << 8 | data[at + 2]) + 3, 0.0, 0)


def _milliseconds(seconds: float) -> int | None:
    return round(seconds * 1000) or None


def behind_tag(source: Source) -> str:
    """Return the type of what follows an ID3 tag."""
    return signature(source.at(_behind_tags(source), 16)) or "audio/mpeg"
