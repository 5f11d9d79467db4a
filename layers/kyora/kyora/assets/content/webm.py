"""WebM and what browsers record (RFC 8794 EBML, RFC 9559 Matroska).

Chrome writes DocType `matroska` when it records H.264, so the codecs decide: a file that browsers
cannot play is Matroska. A live recording has elements of unknown size and no duration.
"""

import struct
from typing import NamedTuple

from kyora.assets.content import tail
from kyora.assets.content.source import Facts, Policy, Source, match, whole

_EBML, _DOC_TYPE, _SEGMENT = 0x1A45DFA3, 0x4282, 0x18538067
_INFO, _SCALE, _DURATION = 0x1549A966, 0x2AD7B1, 0x4489
_TRACKS, _TRACK, _TYPE, _CODEC = 0x1654AE6B, 0xAE, 0x83, 0x86
_VIDEO, _WIDTH, _HEIGHT = 0xE0, 0xB0, 0xBA
_CLUSTER, _TIME, _SIMPLE, _GROUP, _BLOCK = 0x1F43B675, 0xE7, 0xA3, 0xA0, 0xA1
_VOID = 0xEC
_CLUSTER_ID = b"\x1f\x43\xb6\x75"
_CLUSTER_BEGINS = (_TIME, 0xBF, 0xEC)  # a checksum or padding may stand before the time
_PICTURE, _SOUND = 1, 2
_BROWSERS = (
    *(b"V_VP8", b"V_VP9", b"V_AV1", b"V_MPEG4/ISO/AVC", b"V_MPEGH/ISO/HEVC"),
    *(b"A_OPUS", b"A_VORBIS", b"A_PCM/", b"A_AAC"),
)
_MATROSKA = "video/x-matroska"


class _Element(NamedTuple):
    name: int
    start: int
    end: int
    open: bool  # of unknown size: it ends where the next element of its parent begins


class _Track(NamedTuple):
    kind: int
    codec: bytes
    width: int
    height: int


def video(source: Source, policy: Policy) -> Facts:
    """Check a film, or a sound recording that is announced as video/webm."""
    return _read(source)[1]


def audio(source: Source, policy: Policy) -> Facts:
    """Check a recording without pictures."""
    tracks, facts = _read(source)
    match(all(track.kind != _PICTURE for track in tracks), "video/webm")
    return Facts(duration_ms=facts.duration_ms)


def _read(source: Source) -> tuple[list[_Track], Facts]:
    head = _element(source, 0, source.size)
    match(head is not None and head.name == _EBML)
    doc_type = _string(source, head, _DOC_TYPE) if head else b""
    match(doc_type in (b"webm", b"matroska"), _MATROSKA if doc_type else None)
    segment = _element(source, head.end, source.size) if head else None
    if segment and segment.name == _VOID:
        segment = _element(source, segment.end, source.size)
    whole(segment is not None and segment.name == _SEGMENT)
    tracks, scale, duration, clusters = _segment(source, segment)
    whole(bool(tracks))
    if doc_type == b"matroska":
        match(all(track.codec.startswith(_BROWSERS) for track in tracks), _MATROSKA)
    seconds = duration * scale / 1e9 if duration else _played(source, clusters) * scale / 1e9
    picture = next((track for track in tracks if track.kind == _PICTURE and track.width), None)
    width, height = (picture.width, picture.height) if picture else (None, None)
    return tracks, Facts(width, height, round(seconds * 1000) or None)


def _segment(
    source: Source, segment: _Element | None
) -> tuple[list[_Track], int, float, list[_Element]]:
    """Walk the segment. Only clusters of unknown size are searched for their end."""
    tracks: list[_Track] = []
    scale, duration = 1_000_000, 0.0
    clusters: list[_Element] = []
    if segment is None:
        return tracks, scale, duration, clusters
    end = source.size if segment.open else segment.end
    whole(end <= source.size)
    position = segment.start
    while position < end:
        child = _element(source, position, end)
        if child is None:  # a recording's last bytes, or padding
            tail.check(source, position)
            return tracks, scale, duration, clusters
        if child.name == _INFO:
            scale = _number(source, child, _SCALE) or scale
            duration = _float(source, child, _DURATION)
        elif child.name == _TRACKS:
            tracks += _tracks(source, child)
        elif child.name == _CLUSTER:
            clusters.append(child)
        if child.open:
            whole(child.name == _CLUSTER)
            position = _open_end(source, child, end)
            clusters[-1] = child._replace(end=position)
        else:
            whole(child.end <= end)
            position = child.end
    tail.check(source, end)
    return tracks, scale, duration, clusters


def _open_end(source: Source, cluster: _Element, end: int) -> int:
    """Return where a cluster of unknown size ends: at the next one, or with the segment.

    An hour of recording has hundreds of thousands of blocks, so they are not walked.
    """
    position = cluster.start
    while (position := source.find(_CLUSTER_ID, position, end)) != -1:
        found = _element(source, position, end)
        inner = _element(source, found.start, end) if found else None
        if inner and inner.name in _CLUSTER_BEGINS:
            return position
        position += 1
    return end


def _played(source: Source, clusters: list[_Element]) -> int:
    """Return the time of the last block, in the segment's units."""
    if not clusters:
        return 0
    cluster = clusters[-1]
    begin, latest = 0, 0
    for child in _children(source, cluster):
        if child.name == _TIME:
            begin = int.from_bytes(source.at(child.start, min(8, child.end - child.start)))
        block = child
        if child.name == _GROUP:
            block = next((b for b in _children(source, child) if b.name == _BLOCK), child)
        if block.name in (_SIMPLE, _BLOCK):
            data = source.at(block.start, 12)
            _, length = _vint(data, 0)
            (offset,) = struct.unpack_from(">h", data, length)
            latest = max(latest, offset)
    return begin + latest


def _tracks(source: Source, parent: _Element) -> list[_Track]:
    found = []
    for entry in _children(source, parent):
        if entry.name != _TRACK:
            continue
        size = next((c for c in _children(source, entry) if c.name == _VIDEO), None)
        width, height = (
            (_number(source, size, _WIDTH), _number(source, size, _HEIGHT)) if size else (0, 0)
        )
        kind, codec = _number(source, entry, _TYPE), _string(source, entry, _CODEC)
        if codec:
            found.append(_Track(kind, codec, width, height))
    return found


def _children(source: Source, parent: _Element) -> list[_Element]:
    found = []
    position = parent.start
    while position < parent.end:
        child = _element(source, position, parent.end)
        if child is None or child.open or child.end > parent.end:
            break
        found.append(child)
        position = child.end
    return found


def _string(source: Source, parent: _Element, name: int) -> bytes:
    child = next((c for c in _children(source, parent) if c.name == name), None)
    return source.at(child.start, min(64, child.end - child.start)).rstrip(b"\0") if child else b""


def _number(source: Source, parent: _Element, name: int) -> int:
    child = next((c for c in _children(source, parent) if c.name == name), None)
    return int.from_bytes(source.at(child.start, min(8, child.end - child.start))) if child else 0


def _float(source: Source, parent: _Element, name: int) -> float:
    child = next((c for c in _children(source, parent) if c.name == name), None)
    data = source.at(child.start, min(8, child.end - child.start)) if child else b""
    layout = {4: ">f", 8: ">d"}.get(len(data))
    (value,) = struct.unpack(layout, data) if layout else (0.0,)
    return float(value) if 0 < value < 1e15 else 0.0  # NaN and infinity as well


def _element(source: Source, position: int, end: int) -> _Element | None:
    """Read an element's header; None where there is none."""
    source.step()
    data = source.at(position, min(12, end - position))
    name_length = _length(data, 0)
    if not 1 <= name_length <= 4:
        return None
    name = int.from_bytes(data[:name_length])
    size, size_length = _vint(data, name_length)
    if not size_length:
        return None
    start = position + name_length + size_length
    unknown = size == (1 << 7 * size_length) - 1
    return _Element(name, start, end if unknown else start + size, unknown)


def _length(data: bytes, at: int) -> int:
    """Return the length of a number in bytes, by its leading zeros; 0 if it is invalid."""
    return 9 - data[at].bit_length() if len(data) > at and data[at] else 0


def _vint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number without its length marker, and its length; (0, 0) if there is none."""
    length = _length(data, at)
    if not length or len(data) < at + length:
        return 0, 0
    return int.from_bytes(data[at : at + length]) & ((1 << 7 * length) - 1), length
