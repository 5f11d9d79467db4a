"""Ogg (RFC 3533) with Vorbis, Opus (RFC 7845), FLAC or Speex; Theora beside them is accepted."""

import struct
from typing import NamedTuple

from kyora.assets.content import tail
from kyora.assets.content.source import Facts, Policy, Source, match, whole

_HEADER = 27
_MAX_STREAMS = 64
_LAST = 1 << 17  # bytes at the end that contain the last page: a page has at most 65,307
_OPUS_RATE = 48_000


# Recognised, but without a known rate: FLAC before 2004, CELT, PCM, Theora, Dirac.
_OTHERS = (b"fLaC", b"CELT    ", b"PCM     ", b"\x80theora", b"BBCD\0")


class _Stream(NamedTuple):
    serial: int
    rate: int
    skipped: int  # samples at the start that are not played


class _Page(NamedTuple):
    begins: bool
    granule: int
    serial: int
    body: int
    end: int


def check(source: Source, policy: Policy) -> Facts:
    """Read the first page of each stream, and the last page for the duration."""
    match(source.at(0, 4) == b"OggS")
    streams: list[_Stream] = []
    known = False
    position = 0
    for number in range(_MAX_STREAMS):
        page = _page(source, position)
        if page is None or not page.begins:
            whole(number > 0)
            break
        packet = source.at(page.body, min(page.end - page.body, 64))
        stream = _stream(page.serial, packet)
        known = known or stream is not None or packet.startswith(_OTHERS)
        if stream:
            streams.append(stream)
        position = page.end
    match(known)
    whole(position < source.size)  # nothing but headers
    return Facts(duration_ms=_duration(source, position, streams))


def _page(source: Source, position: int) -> _Page | None:
    source.step()
    head = source.at(position, _HEADER)
    if len(head) < _HEADER or head[:5] != b"OggS\0" or head[5] > 7:
        return None
    flags, granule, serial = struct.unpack("<Bql", head[5:18])
    lengths = source.exactly(position + _HEADER, head[26])
    body = position + _HEADER + len(lengths)
    return _Page(bool(flags & 2), granule, serial, body, body + sum(lengths))


def _stream(serial: int, packet: bytes) -> _Stream | None:
    """Recognise a coding by the beginning of its first packet."""
    if packet.startswith(b"OpusHead") and len(packet) >= 12:
        return _Stream(serial, _OPUS_RATE, int.from_bytes(packet[10:12], "little"))
    if packet.startswith(b"\x01vorbis") and len(packet) >= 16:
        return _Stream(serial, int.from_bytes(packet[12:16], "little"), 0)
    if packet.startswith(b"\x7fFLAC\x01") and len(packet) >= 30:
        return _Stream(serial, int.from_bytes(packet[27:30]) >> 4, 0)
    if packet.startswith(b"Speex   ") and len(packet) >= 40:
        return _Stream(serial, int.from_bytes(packet[36:40], "little"), 0)
    return None


def _duration(source: Source, first: int, streams: list[_Stream]) -> int | None:
    """Return the duration of the longest stream, by the position in its last page."""
    start = max(first, source.size - _LAST)
    data = source.at(start, _LAST)
    seconds, end, at = 0.0, 0, data.rfind(b"OggS")
    left = {stream.serial: stream for stream in streams if stream.rate}
    while at != -1:
        page = _page(source, start + at)
        if page and not end:
            end = page.end
            tail.check(source, min(end, source.size))
        if page and page.granule >= 0 and page.serial in left:
            stream = left.pop(page.serial)
            seconds = max(seconds, (page.granule - stream.skipped) / stream.rate)
        if not left:
            break
        at = data.rfind(b"OggS", 0, at)
    return round(seconds * 1000) if seconds > 0 else None
