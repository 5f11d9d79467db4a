"""HEIC and AVIF, byte by byte: where the picture is, how it is coded and how large it is shown."""

import io
import struct
from typing import Any

import pytest

from kyora.assets.content import verify
from kyora.assets.content.source import Refused, Source
from tests.integration.support.samples import box, full

type Shown = tuple[int | None, int | None] | str

BAD, OTHER_TYPE = "bad_content", "type_mismatch"
HEIC, AVIF = "image/heic", "image/avif"


def inspect(data: bytes, content_type: str = HEIC) -> Shown:
    try:
        facts = verify.inspect(io.BytesIO(data), content_type)
    except Refused as refused:
        return f"{refused.reason} {refused.detected or ''}".strip()
    return facts.width, facts.height


def pitm(item: int, version: int = 0) -> bytes:
    return full(b"pitm", struct.pack(">L" if version else ">H", item), version)


def infe(item: int, coding: bytes, version: int = 2) -> bytes:
    return full(b"infe", struct.pack(">LH" if version > 2 else ">HH", item, 0) + coding, version)


def iinf(*entries: bytes, version: int = 0) -> bytes:
    return full(
        b"iinf", struct.pack(">L" if version else ">H", len(entries)) + b"".join(entries), version
    )


def dimg(item: int, *made_of: int, name: bytes = b"dimg", wide: bool = False) -> bytes:
    one = "L" if wide else "H"
    return box(name, struct.pack(f">{one}H{len(made_of)}{one}", item, len(made_of), *made_of))


def iref(*references: bytes, version: int = 0) -> bytes:
    return full(b"iref", b"".join(references), version)


def place(
    item: int, *extents: tuple[int, int], method: int = 0, base: int = 0
) -> tuple[int, int, int, tuple[tuple[int, int], ...]]:
    """An item, whose parts are so many bytes at so many behind `base`."""
    return item, method, base, extents


def iloc(
    *places: Any, version: int = 0, offset: int = 4, length: int = 4, base: int = 0, index: int = 0
) -> bytes:
    """Where items are; numbers have so many bytes."""
    number = 4 if version == 2 else 2
    data = bytes((offset << 4 | length, base << 4 | index)) + len(places).to_bytes(number)
    for item, method, start, extents in places:
        data += item.to_bytes(number) + (method.to_bytes(2) if version else b"") + b"\0\0"
        data += start.to_bytes(base) + len(extents).to_bytes(2)
        for at, size in extents:
            data += (
                b"\xee" * (index if version else 0) + at.to_bytes(offset) + size.to_bytes(length)
            )
    return full(b"iloc", data, version)


def ispe(width: int, height: int) -> bytes:
    return full(b"ispe", struct.pack(">LL", width, height))


def irot(quarters: int) -> bytes:
    return box(b"irot", bytes([quarters]))


def clap(*numbers: int) -> bytes:
    """A clean aperture: width and height as fractions; its offsets are no matter."""
    return box(b"clap", struct.pack(">8L", *numbers, 0, 1, 0, 1))


def ipma(*items: tuple[int, list[int]], version: int = 0, wide: bool = False) -> bytes:
    data = struct.pack(">L", len(items))
    for item, properties in items:
        data += item.to_bytes(4 if version else 2) + bytes([len(properties)])
        data += b"".join(number.to_bytes(2 if wide else 1) for number in properties)
    return box(b"ipma", bytes((version, 0, 0, int(wide))) + data)


SIZES = (ispe(9, 8), ispe(5, 4), irot(1))


def iprp(*associated: bytes, properties: tuple[bytes, ...] = SIZES) -> bytes:
    return box(b"iprp", box(b"ipco", b"".join(properties)) + b"".join(associated))


PLAIN = {
    "hdlr": full(b"hdlr", b"\0\0\0\0pict" + b"\0" * 13),
    "pitm": pitm(1),
    "iinf": iinf(infe(1, b"hvc1")),
    "iloc": iloc(place(1, (28, 6))),
    "iprp": iprp(ipma((1, [1]))),
    "iref": b"",
}


def heif(brand: bytes = b"heic", **parts: bytes) -> bytes:
    """A picture of nine by eight whose six bytes are the 29th and those behind it."""
    meta = full(b"meta", b"".join((PLAIN | parts).values()))
    return box(b"ftyp", brand + b"\0\0\0\0" + brand) + box(b"mdat", b"pixels") + meta


SIZE = len(heif())
GRID = iinf(infe(1, b"grid"), infe(2, b"av01"), infe(3, b"hvc1"))
WIDE = {"version": 1}
HERE = (28, 6)


def chain(hops: int) -> dict[str, bytes]:
    """A picture that is made of one that is made of one, and so on."""
    kinds = [infe(item, b"iden") for item in range(1, hops + 1)]
    return {
        "iinf": iinf(*kinds, infe(hops + 1, b"hvc1")),
        "iref": iref(*(dimg(item, item + 1) for item in range(1, hops + 1))),
    }


PICTURES: dict[str, tuple[dict[str, bytes], Shown]] = {
    "plain": ({}, (9, 8)),
    "a long number": ({"pitm": pitm(1, 1)}, (9, 8)),
    "a long list": ({"iinf": iinf(infe(1, b"hvc1"), version=1)}, (9, 8)),
    "a long entry": ({"iinf": iinf(infe(1, b"hvc1", 3))}, (9, 8)),
    "an old entry": ({"iinf": iinf(infe(1, b"hvc1", 1))}, BAD),
    "an entry of another name": (
        {"iinf": iinf(box(b"abcd", b"\2\0\0\0\0\1\0\0av01"), infe(1, b"hvc1"))},
        (9, 8),
    ),
    "numbers beyond a byte": (
        {
            "pitm": pitm(0x1234),
            "iinf": iinf(infe(0x34, b"av01"), infe(0x1234, b"hvc1")),
            "iprp": iprp(ipma((0x34, [2]), (0x1234, [1]))),
        },
        (9, 8),
    ),
    "numbers beyond two bytes": (
        {
            "pitm": pitm(0x12345, 1),
            "iinf": iinf(infe(0x2345, b"av01"), infe(0x12345, b"hvc1", 3)),
            "iprp": iprp(ipma((0x2345, [2]), (0x12345, [1]), version=1)),
        },
        (9, 8),
    ),
    "a primary picture that is not there": ({"pitm": pitm(2)}, BAD),
    "the second of two": (
        {
            "pitm": pitm(2),
            "iinf": iinf(infe(1, b"av01"), infe(2, b"hvc1")),
            "iprp": iprp(ipma((1, [1]), (2, [2]))),
        },
        (5, 4),
    ),
    "something that is no picture": (
        {"hdlr": full(b"hdlr", b"\0\0\0\0vide" + b"\0" * 13)},
        OTHER_TYPE,
    ),
    "no handler": ({"hdlr": b""}, OTHER_TYPE),
    "no primary picture": ({"pitm": b""}, BAD),
    "no list": ({"iinf": b""}, BAD),
    "no places": ({"iloc": b""}, BAD),
    "no properties": ({"iprp": b""}, BAD),
    "of unknown coding": ({"iinf": iinf(infe(1, b"mime"))}, OTHER_TYPE),
    # Pictures made of others.
    "a grid": ({"iinf": GRID, "iref": iref(dimg(1, 3, 2))}, (9, 8)),
    "a grid of AV1": ({"iinf": GRID, "iref": iref(dimg(1, 2, 3))}, "type_mismatch image/avif"),
    "a grid, long": ({"iinf": GRID, "iref": iref(dimg(1, 3, 2, wide=True), **WIDE)}, (9, 8)),
    "a grid behind other references": (
        {"iinf": GRID, "iref": iref(dimg(1, 2, name=b"thmb"), dimg(3, 2), dimg(1, 3))},
        (9, 8),
    ),
    "a grid before other references": (
        {"iinf": GRID, "iref": iref(dimg(1, 3), dimg(1, 2, name=b"cdsc"))},
        (9, 8),
    ),
    "a grid of nothing": ({"iinf": GRID}, OTHER_TYPE),
    "a grid of a part that is cut": (
        {"iinf": GRID, "iref": iref(box(b"dimg", b"\0\1\0\1\0"))},
        OTHER_TYPE,
    ),
    "references of a plain picture": ({"iref": iref(dimg(1, 2))}, (9, 8)),
    "an overlay": (
        {"iinf": iinf(infe(1, b"iovl"), infe(2, b"hvc1")), "iref": iref(dimg(1, 2))},
        (9, 8),
    ),
    "with a map of tones": (
        {"iinf": iinf(infe(1, b"tmap"), infe(2, b"hvc1")), "iref": iref(dimg(1, 2))},
        (9, 8),
    ),
    "made of a made one": (chain(2), (9, 8)),
    "made of eight": (chain(8), (9, 8)),
    "made of nine": (chain(9), OTHER_TYPE),
    "made of itself": (
        {"iinf": iinf(infe(1, b"iden")), "iref": iref(dimg(1, 1))},
        OTHER_TYPE,
    ),
    # Where the bytes are.
    "up to the last byte": ({"iloc": iloc(place(1, (SIZE - 6, 6)))}, (9, 8)),
    "a byte too long": ({"iloc": iloc(place(1, (SIZE - 6, 7)))}, BAD),
    "a byte too far": ({"iloc": iloc(place(1, (SIZE - 5, 6)))}, BAD),
    "the last byte": ({"iloc": iloc(place(1, (SIZE - 1, 1)))}, (9, 8)),
    "nothing at the end": ({"iloc": iloc(place(1, (SIZE, 0)))}, BAD),
    "its second part too far": ({"iloc": iloc(place(1, HERE, HERE))}, (9, 8)),
    "its third part too far": (
        {"iloc": iloc(place(1, HERE, HERE, (9999, 1)))},
        BAD,
    ),
    "no part": ({"iloc": iloc(place(1))}, (9, 8)),
    "another picture too far": ({"iloc": iloc(place(7, (9999, 1)), place(1, HERE))}, (9, 8)),
    "behind another picture, too far": ({"iloc": iloc(place(7, HERE), place(1, (9999, 1)))}, BAD),
    "the part of a grid too far": (
        {
            "iinf": GRID,
            "iref": iref(dimg(1, 3)),
            "iloc": iloc(place(1, HERE), place(3, (9999, 1))),
        },
        BAD,
    ),
    "a grid itself too far": (
        {
            "iinf": GRID,
            "iref": iref(dimg(1, 3)),
            "iloc": iloc(place(3, HERE), place(1, (9999, 1))),
        },
        BAD,
    ),
    "another part of a grid too far": (
        {
            "iinf": GRID,
            "iref": iref(dimg(1, 3, 2)),
            "iloc": iloc(place(2, (9999, 1)), place(3, HERE)),
        },
        (9, 8),
    ),
    "in the meta itself": (
        {"iloc": iloc(place(1, (9999, 1), method=1), place(7, HERE), version=1)},
        (9, 8),
    ),
    "made of other pictures": (
        {"iloc": iloc(place(1, (9999, 1), method=2), version=2)},
        (9, 8),
    ),
    "in the file, with bits of the future": (
        {"iloc": iloc(place(1, (9999, 1), method=0x10), version=1)},
        BAD,
    ),
    "of more pictures than are listed": (
        {"iloc": iloc(place(1, HERE))[:15] + b"\2" + iloc(place(1, HERE))[16:]},
        BAD,
    ),
    # How large it is shown.
    "no size": ({"iprp": iprp(ipma((1, [])))}, BAD),
    "of no property": ({"iprp": iprp(ipma((1, [0, 1])))}, (9, 8)),
    "of a property that there is not": ({"iprp": iprp(ipma((1, [4, 1])))}, (9, 8)),
    "of the last property": ({"iprp": iprp(ipma((1, [1, 3])))}, (8, 9)),
    "another picture's": ({"iprp": iprp(ipma((2, [2]), (1, [1]), (3, [2])))}, (9, 8)),
    "said twice": ({"iprp": iprp(ipma((1, [1]), (1, [3])))}, (8, 9)),
    "said in two places": ({"iprp": iprp(ipma((1, [1])), ipma((1, [3])))}, (8, 9)),
    "essential": ({"iprp": iprp(ipma((1, [0x81, 0x83])))}, (8, 9)),
    "long": ({"iprp": iprp(ipma((1, [1, 3]), wide=True))}, (8, 9)),
    "long and essential": ({"iprp": iprp(ipma((1, [0x8001, 0x8003]), wide=True))}, (8, 9)),
    "of the three hundredth property": (
        {
            "iprp": iprp(
                ipma((1, [300]), wide=True), properties=(*[ispe(5, 4)] * 299, ispe(7, 6))
            )
        },
        (7, 6),
    ),
    "no container of properties": (
        {"iprp": box(b"iprp", ipma((1, [1])))},
        BAD,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_read_as_libheif_reads_it(name: str) -> None:
    parts, expected = PICTURES[name]
    assert inspect(heif(**parts)) == expected


@pytest.mark.parametrize("version", [0, 1, 2])
@pytest.mark.parametrize("size", [0, 4, 8])
@pytest.mark.parametrize("base", [0, 4, 8])
@pytest.mark.parametrize("index", [0, 4])
def test_places_are_read_in_numbers_of_any_size(
    version: int, size: int, base: int, index: int
) -> None:
    """Up to the last byte, and a byte further."""

    def picture(at: int, length: int) -> bytes:
        start = at - 1 if base and size else at if base else 0
        extent = at - start if size else 0
        one = place(1, (extent, length if size else 0), base=start)
        sizes = {"version": version, "offset": size, "length": size, "base": base}
        return heif(iloc=iloc(place(7, *[(0, 0)] * 2), one, index=index, **sizes))

    end = len(picture(1, 0))
    if size or (base and index and version):  # a part without numbers is the whole file
        assert inspect(picture(end - 1, 1)) == (9, 8)
        assert inspect(picture(end, 1)) == BAD
    if size:
        assert inspect(picture(end - 1, 2)) == BAD


TURNS = {
    "upright": ([irot(0)], (90, 80)),
    "by a quarter": ([irot(1)], (80, 90)),
    "by a half": ([irot(2)], (90, 80)),
    "by three quarters": ([irot(3)], (80, 90)),
    "twice": ([irot(1), irot(3)], (90, 80)),
    "cut": ([clap(50, 1, 40, 1)], (50, 40)),
    "cut, then turned": ([clap(50, 1, 40, 1), irot(1)], (40, 50)),
    "turned, then cut": ([irot(1), clap(50, 1, 85, 1)], (50, 85)),
    "cut by fractions": ([clap(99, 2, 79, 2)], (50, 40)),
    "cut by a third": ([clap(100, 3, 101, 3)], (33, 34)),
    "cut to more than there is": ([clap(91, 1, 81, 1)], (90, 80)),
    "cut by no fraction across": ([clap(50, 0, 40, 1)], (90, 80)),
    "cut by no fraction down": ([clap(50, 1, 40, 0)], (90, 80)),
    "cut to a pixel": ([clap(1, 1, 1, 1)], (1, 1)),
}


@pytest.mark.parametrize("name", TURNS)
def test_a_picture_is_turned_and_cut_in_the_order_of_the_file(name: str) -> None:
    applied, expected = TURNS[name]
    numbers = [*range(2, 2 + len(applied)), 1]  # its size may be named last
    parts = iprp(ipma((1, numbers)), properties=(ispe(90, 80), *applied))
    assert inspect(heif(iprp=parts)) == expected


CODINGS = {
    **dict.fromkeys((b"hvc1", b"hev1", b"lhv1"), HEIC),
    b"av01": AVIF,
    b"avc1": "image/avci",
    b"j2k1": "image/hej2",
    **dict.fromkeys((b"jpeg", b"vvc1", b"unci"), "image/heif"),
}


@pytest.mark.parametrize("coding", CODINGS)
def test_a_picture_is_what_its_pixels_are_coded_in(coding: bytes) -> None:
    data = heif(iinf=iinf(infe(1, coding)))
    expected = CODINGS[coding]
    assert inspect(data, AVIF) == ((9, 8) if expected == AVIF else f"type_mismatch {expected}")
    assert inspect(data, HEIC) == ("type_mismatch image/avif" if expected == AVIF else (9, 8))


BEHIND: dict[str, tuple[bytes, Shown]] = {
    "a few bytes": (b"\0\0\0", (9, 8)),
    "a box": (box(b"free", b"abc"), (9, 8)),
    "a box of no length": (b"\0\0\0\7free", BAD),
    "a box that is cut": (box(b"free", b"abc")[:-1], BAD),
    "more data that is cut": (box(b"mdat", b"abc")[:-1], (9, 8)),
    "an unknown box that is cut": (box(b"abcd", b"abc")[:-1], (9, 8)),
    "an unknown box of no length": (b"\0\0\0\7abcd", (9, 8)),
    "a long box without its length": (b"\0\0\0\1free", BAD),
    "a box to the end": (b"\0\0\0\0free123", (9, 8)),
    "an unknown box, and a known one": (box(b"abcd", b"<html>") + box(b"free"), (9, 8)),
}


@pytest.mark.parametrize("name", BEHIND)
def test_what_is_behind_a_picture_is_a_box_or_nothing(name: str) -> None:
    behind, expected = BEHIND[name]
    assert inspect(heif() + behind) == expected


def test_every_place_of_a_picture_counts_as_a_step() -> None:
    def steps(places: bytes) -> int:
        source = Source(io.BytesIO(heif(iloc=places)))
        verify.parse(source, HEIC)
        return source.steps

    assert steps(iloc(*[place(7)] * 300, place(1))) - steps(iloc(place(1))) >= 300
    assert steps(iloc(place(1, *[HERE] * 300))) - steps(iloc(place(1))) >= 300


def test_a_picture_whose_file_is_not_of_boxes_is_none() -> None:
    assert inspect(heif()[20:]) == OTHER_TYPE
    assert inspect(box(b"free", b"\0" * 8) + heif()) == OTHER_TYPE
