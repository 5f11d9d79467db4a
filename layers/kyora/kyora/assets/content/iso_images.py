"""HEIC, HEIF and AVIF (ISO/IEC 23008-12, 23000-22): the primary item and how it is shown."""

import struct
from fractions import Fraction

from kyora.assets.content import iso_movies
from kyora.assets.content.iso_boxes import Box, brands, children, first, top_level
from kyora.assets.content.source import Facts, Policy, Source, match, whole

# The coding of the pixels, by item type. A derived item has the coding of its parts.
_HEVC, _AV1 = "image/heic", "image/avif"
_CODINGS = {
    b"hvc1": _HEVC,
    b"hev1": _HEVC,
    b"lhv1": _HEVC,
    b"av01": _AV1,
    b"avc1": "image/avci",
    b"jpeg": "image/heif",
    b"j2k1": "image/hej2",
    b"vvc1": "image/heif",
    b"unci": "image/heif",
}
_DERIVED = (b"grid", b"iden", b"iovl", b"tmap")
_MAX_DEPTH = 8

type Item = int


def heic(source: Source, policy: Policy) -> Facts:
    """Check a HEIC or HEIF: any coding but AV1, which makes an AVIF."""
    coding, facts = _picture(source)
    match(coding != _AV1, _AV1)
    return facts


def avif(source: Source, policy: Policy) -> Facts:
    """Check an AVIF."""
    coding, facts = _picture(source)
    match(coding == _AV1, coding)
    return facts


def coding(source: Source) -> str:
    """Return the media type of the primary picture."""
    return _picture(source)[0]


def _picture(source: Source) -> tuple[str, Facts]:
    match(source.at(4, 4) == b"ftyp")
    boxes = top_level(source)
    meta = next((box for box in boxes if box.name == b"meta"), None)
    if meta is None:
        return _sequence(source, boxes)
    parts = {box.name: box for box in children(source, meta.start + 4, meta.end)}
    handler = parts.get(b"hdlr")
    match(handler is not None and source.at(handler.start + 8, 4) == b"pict")
    if not all(name in parts for name in (b"pitm", b"iinf", b"iprp", b"iloc")):
        return _sequence(source, boxes)
    primary = _number(source, parts[b"pitm"])
    types = _types(source, parts[b"iinf"])
    whole(primary in types)
    made_of = _references(source, parts[b"iref"]) if b"iref" in parts else {}
    base = primary
    for _ in range(_MAX_DEPTH):
        if types.get(base) not in _DERIVED or not made_of.get(base):
            break
        base = made_of[base][0]
    found = _CODINGS.get(types.get(base, b""))
    match(found is not None)
    _data_is_there(source, parts[b"iloc"], {primary, base})
    width, height = _shown(source, parts[b"iprp"], primary)
    return found or "", Facts(width, height)


def _sequence(source: Source, boxes: list[Box]) -> tuple[str, Facts]:
    """Read a file whose pictures are in a track only."""
    match(not iso_movies.IMAGE_BRANDS.isdisjoint(brands(source, boxes)))
    tracks = [t for t in iso_movies.tracks(source, boxes) if t.handler == b"pict" and t.width]
    whole(bool(tracks))
    coded = _AV1 if tracks[0].coding == b"av01" else _HEVC
    return coded, Facts(tracks[0].width, tracks[0].height)


def _number(source: Source, box: Box) -> Item:
    """Read `pitm`."""
    version = source.exactly(box.start, 1)[0]
    return int.from_bytes(source.exactly(box.start + 4, 4 if version else 2))


def _types(source: Source, box: Box) -> dict[Item, bytes]:
    """Read `iinf`: the type of each item."""
    version = source.exactly(box.start, 1)[0]
    found = {}
    for entry in children(source, box.start + (8 if version else 6), box.end):
        if entry.name != b"infe":
            continue
        data = source.at(entry.start, 14)
        if data[:1] == b"\2" and len(data) >= 12:
            found[int.from_bytes(data[4:6])] = data[8:12]
        elif data[:1] == b"\3" and len(data) >= 14:
            found[int.from_bytes(data[4:8])] = data[10:14]
    return found


def _references(source: Source, box: Box) -> dict[Item, list[Item]]:
    """Read `iref`: the parts of derived items."""
    wide = 4 if source.exactly(box.start, 1)[0] else 2
    found = {}
    for entry in children(source, box.start + 4, box.end):
        if entry.name == b"dimg":
            data = source.at(entry.start, min(entry.end - entry.start, 2 * wide + 2))
            if len(data) == 2 * wide + 2:
                found[int.from_bytes(data[:wide])] = [int.from_bytes(data[wide + 2 :])]
    return found


def _data_is_there(source: Source, box: Box, items: set[Item]) -> None:
    """Refuse a file that ends before the data of these items (`iloc`)."""
    data = source.exactly(box.start, box.end - box.start)
    version = data[0]
    offset_size, length_size = data[4] >> 4, data[4] & 15
    base_size, index_size = data[5] >> 4, data[5] & 15 if version else 0
    number = 4 if version == 2 else 2
    position, count = 6 + number, int.from_bytes(data[6 : 6 + number])
    for _ in range(count):
        source.step()
        item = int.from_bytes(data[position : position + number])
        position += number
        method = 0
        if version:
            method = int.from_bytes(data[position : position + 2]) & 15
            position += 2
        position += 2  # data_reference_index
        base = int.from_bytes(data[position : position + base_size])
        position += base_size
        (extents,) = struct.unpack_from(">H", data, position)
        position += 2
        each = index_size + offset_size + length_size
        if item in items and method == 0:
            for at in range(position, position + extents * each, each or 1):
                source.step()
                at += index_size  # noqa: PLW2901
                start = base + int.from_bytes(data[at : at + offset_size])
                at += offset_size  # noqa: PLW2901
                length = int.from_bytes(data[at : at + length_size])
                whole(start < source.size and start + length <= source.size)
        position += extents * each
        whole(position <= len(data))


def _shown(source: Source, box: Box, item: Item) -> tuple[int, int]:
    """Read `iprp`: the item's size after its clean aperture and rotations, in file order."""
    container = first(source, box, b"ipco")
    whole(container is not None)
    properties = list(children(source, container.start, container.end)) if container else []
    width = height = 0
    applied: list[Box] = []
    for entry in children(source, box.start, box.end):
        if entry.name == b"ipma":
            indexes = _associations(source, entry).get(item, [])
            applied += [properties[i - 1] for i in indexes if 0 < i <= len(properties)]
    for prop in applied:
        if prop.name == b"ispe":
            width, height = struct.unpack(">LL", source.exactly(prop.start + 4, 8))
    for prop in applied:
        if prop.name == b"clap":
            width, height = _aperture(source.exactly(prop.start, 32), width, height)
        elif prop.name == b"irot" and source.exactly(prop.start, 1)[0] & 1:
            width, height = height, width
    return width, height


def _associations(source: Source, box: Box) -> dict[Item, list[int]]:
    """Read `ipma`: the properties of each item, by their number in `ipco`."""
    data = source.exactly(box.start, box.end - box.start)
    number = 4 if data[0] else 2
    wide = 2 if data[3] & 1 else 1
    (count,) = struct.unpack_from(">L", data, 4)
    found: dict[Item, list[int]] = {}
    position = 8
    for _ in range(count):
        item = int.from_bytes(data[position : position + number])
        position += number
        each = data[position]
        source.step(1 + each)
        position += 1
        numbers = (
            int.from_bytes(data[at : at + wide]) & (0x7FFF if wide == 2 else 0x7F)
            for at in range(position, position + each * wide, wide)
        )
        found.setdefault(item, []).extend(numbers)
        position += each * wide
    return found


def _aperture(data: bytes, width: int, height: int) -> tuple[int, int]:
    """Apply `clap`: a size in fractions, rounded, at most the size that is there."""
    across, across_of, down, down_of = struct.unpack(">LLLL", data[:16])
    if not (across_of and down_of):
        return width, height
    clean = [
        int(Fraction(n, d) + Fraction(1, 2)) for n, d in ((across, across_of), (down, down_of))
    ]
    return min(width, clean[0]), min(height, clean[1])
