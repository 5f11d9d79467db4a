"""MP4, M4V, MOV, 3GP and M4A: tracks and how long they play.

Brands do not decide: phones write `mp42` into .mov and `qt  ` into .mp4, and players only look at
the tracks.
"""

import struct
from typing import NamedTuple

from kyora.assets.content.iso_boxes import Box, brands, children, first, top_level
from kyora.assets.content.source import Facts, Policy, Source, match, whole

_FIRST = (
    b"ftyp",
    b"styp",
    b"moov",
    b"mdat",
    b"wide",
    b"free",
    b"skip",
    b"pnot",
    b"uuid",
    b"PICT",
    b"udta",
)
_VIDEO, _AUDIO = b"vide", b"soun"
_PICTURES = b"pict"  # an image sequence: AVIF and HEIC have such a track
IMAGE_BRANDS = frozenset(
    (b"avif", b"avis", b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
)
_RAW = (b"CRAW",)  # Canon's CR3 is a photograph in the boxes of a film
_FRAGMENTS = 2000  # only the last ones are read: they say where they begin
_UNKNOWN_LENGTH = (0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF)


class Track(NamedTuple):
    """A track: its kind, its coding, its size as shown, its duration in seconds."""

    handler: bytes
    coding: bytes
    width: int
    height: int
    seconds: float
    number: int
    timescale: int


def movie(source: Source, policy: Policy) -> Facts:
    """Check an MP4 or MOV: it has a track of any kind, even of metadata only."""
    boxes = _boxes(source)
    found = [track for track in tracks(source, boxes) if track.handler != _PICTURES]
    match(bool(found))
    named = brands(source, boxes)[:1]
    match(not IMAGE_BRANDS.intersection(named) or any(t.handler == _VIDEO for t in found))
    picture = next((track for track in found if track.handler == _VIDEO and track.width), None)
    width, height = (picture.width, picture.height) if picture else (None, None)
    return Facts(width, height, _duration(source, boxes, found))


def sound(source: Source, policy: Policy) -> Facts:
    """Check an M4A: a track of sound. A cover or chapter pictures may be there too."""
    boxes = _boxes(source)
    found = [track for track in tracks(source, boxes) if track.handler == _AUDIO]
    match(bool(found))
    return Facts(duration_ms=_duration(source, boxes, found))


def _boxes(source: Source) -> list[Box]:
    match(source.at(4, 4) in _FIRST)
    boxes = top_level(source)
    match(b"crx " not in brands(source, boxes), "image/x-canon-cr3")
    whole(all(box.end <= source.size for box in boxes))
    if not any(box.name == b"moov" for box in boxes):
        match(not any(box.name == b"meta" for box in boxes))
        whole(False)
    return boxes


def tracks(source: Source, boxes: list[Box]) -> list[Track]:
    """Return the tracks of a film."""
    moov = next((box for box in boxes if box.name == b"moov"), None)
    if moov is None:
        return []
    return [
        track
        for box in children(source, moov.start, moov.end)
        if box.name == b"trak" and (track := _track(source, box)) and track.coding not in _RAW
    ]


def _track(source: Source, box: Box) -> Track | None:
    parts = {part.name: part for part in children(source, box.start, box.end)}
    mdia = parts.get(b"mdia")
    if mdia is None:
        return None
    media = {part.name: part for part in children(source, mdia.start, mdia.end)}
    if b"hdlr" not in media:
        return None
    handler = source.at(media[b"hdlr"].start + 8, 4)
    timescale, duration = _times(source, media[b"mdhd"]) if b"mdhd" in media else (0, 0)
    coding, width, height = _description(source, media.get(b"minf"))
    number, turned = _header(source, parts[b"tkhd"]) if b"tkhd" in parts else (0, False)
    if turned:
        width, height = height, width
    seconds = duration / timescale if timescale else 0.0
    return Track(handler, coding, width, height, seconds, number, timescale)


def _times(source: Source, box: Box) -> tuple[int, int]:
    """Read `mvhd` or `mdhd`: units per second, and the duration in units; 0 if unknown."""
    long = source.exactly(box.start, 1)[0] == 1
    layout, at = (">LQ", 20) if long else (">LL", 12)
    timescale, duration = struct.unpack(layout, source.exactly(box.start + at, 12 if long else 8))
    return timescale, 0 if duration in _UNKNOWN_LENGTH else duration


def _header(source: Source, box: Box) -> tuple[int, bool]:
    """Read `tkhd`: the track's number and whether its matrix turns it by a quarter."""
    long = source.exactly(box.start, 1)[0] == 1
    number = int.from_bytes(source.exactly(box.start + (20 if long else 12), 4))
    data = source.at(box.start + (52 if long else 40), 36)
    if len(data) < 36:
        return number, False
    a, b, _, c, d = struct.unpack(">5l", data[:20])
    return number, abs(b) + abs(c) > abs(a) + abs(d)


def _description(source: Source, minf: Box | None) -> tuple[bytes, int, int]:
    """Read the first sample description: its coding, and a picture's size."""
    stbl = first(source, minf, b"stbl") if minf else None
    stsd = first(source, stbl, b"stsd") if stbl else None
    if stsd is None:
        return b"", 0, 0
    data = source.at(stsd.start + 8, 40)
    if len(data) < 8:
        return b"", 0, 0
    if len(data) < 36:
        return data[4:8], 0, 0
    width, height = struct.unpack(">HH", data[32:36])
    return data[4:8], width, height


def _duration(source: Source, boxes: list[Box], played: list[Track]) -> int | None:
    """Return the film's length in milliseconds, from its header or the sum of its fragments."""
    moov = next(box for box in boxes if box.name == b"moov")
    parts = {box.name: box for box in children(source, moov.start, moov.end)}
    timescale, duration = _times(source, parts[b"mvhd"]) if b"mvhd" in parts else (0, 0)
    seconds = duration / timescale if timescale else 0.0
    seconds = seconds or max(track.seconds for track in played)
    if b"mvex" in parts:
        seconds = max(seconds, _fragments(source, boxes, parts[b"mvex"], played))
    return round(seconds * 1000) if seconds else None


def _fragments(source: Source, boxes: list[Box], mvex: Box, played: list[Track]) -> float:
    """Return how many seconds of film are in fragments (`moof`)."""
    usual = {}
    for box in children(source, mvex.start, mvex.end):
        if box.name == b"trex":
            number, _, each = struct.unpack(">LLL", source.exactly(box.start + 4, 12))
            usual[number] = each
    scales = {track.number: track.timescale for track in played}
    ends: dict[int, int] = {}
    for moof in [box for box in boxes if box.name == b"moof"][-_FRAGMENTS:]:
        for traf in children(source, moof.start, moof.end):
            if traf.name == b"traf":
                number, start, length = _run(source, traf, usual)
                end = (ends.get(number, 0) if start is None else start) + length
                ends[number] = max(ends.get(number, 0), end)
    return max((end / scales[n] for n, end in ends.items() if scales.get(n)), default=0.0)


def _run(source: Source, traf: Box, usual: dict[int, int]) -> tuple[int, int | None, int]:
    """Return a fragment's track, its start if it says one, and its length."""
    number, each, start, length = 0, 0, None, 0
    for box in children(source, traf.start, traf.end):
        flags = int.from_bytes(source.at(box.start, 4))
        if box.name == b"tfhd":
            data = source.at(box.start + 4, 24)
            number = int.from_bytes(data[:4])
            at = 4 + (8 if flags & 1 else 0) + (4 if flags & 2 else 0)
            each = int.from_bytes(data[at : at + 4]) if flags & 8 else usual.get(number, 0)
        elif box.name == b"tfdt":
            start = int.from_bytes(source.at(box.start + 4, 8 if flags >> 24 else 4))
        elif box.name == b"trun":
            length += _samples(source, box, flags & 0xFFFFFF, each)
    return number, start, length


def _samples(source: Source, box: Box, flags: int, each: int) -> int:
    count = int.from_bytes(source.exactly(box.start + 4, 4))
    if not flags & 0x100:
        return count * each
    at = box.start + 8 + (4 if flags & 1 else 0) + (4 if flags & 4 else 0)
    size = 4 * sum(bool(flags & bit) for bit in (0x100, 0x200, 0x400, 0x800))
    whole(at + count * size <= box.end)
    source.step(count >> 4)
    data = source.exactly(at, count * size)
    return sum(int.from_bytes(data[i : i + 4]) for i in range(0, len(data), size))
