"""A JPEG without its end mark is accepted when libjpeg shows all of it, and refused when not."""

import io
import random
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from kyora.assets.content import jpeg_scan, verify
from kyora.assets.content.source import CHUNK, Facts, Refused, Source

END = b"\xff\xd9"
BAD, OTHER_TYPE = "bad_content", "type_mismatch"
UNIT = 16 + 2  # pixels: the largest unit, and what the colours of its neighbours take from it


def inspect(data: bytes) -> Facts | str:
    try:
        return verify.inspect(io.BytesIO(data), "image/jpeg")
    except Refused as refused:
        return refused.reason


def shown(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return image.copy()


def jpeg(size: tuple[int, int], mode: str, **options: Any) -> bytes:
    noise = random.Random(7)
    bands = [Image.frombytes("L", size, noise.randbytes(size[0] * size[1])) for _ in mode]
    buffer = io.BytesIO()
    Image.merge(mode, bands).save(buffer, "JPEG", **options)
    return buffer.getvalue()


JPEGS = st.builds(
    jpeg,
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.sampled_from(["L", "RGB", "CMYK"]),
    quality=st.integers(5, 95),
    subsampling=st.integers(0, 2),
    optimize=st.booleans(),
    restart_marker_blocks=st.integers(0, 7),
)


@settings(max_examples=100)
@given(JPEGS)
def test_a_jpeg_that_only_lacks_its_end_mark_is_accepted(data: bytes) -> None:
    assert data.endswith(END)
    assert inspect(data[:-2]) == inspect(data)
    assert inspect(data[:-2] + b"\0" * 5000) == inspect(data)


@settings(max_examples=200)
@given(JPEGS, st.floats(0, 1))
def test_a_jpeg_that_was_cut_is_accepted_only_if_its_last_unit_is_all_that_is_missing(
    data: bytes, where: float
) -> None:
    scan = data.index(b"\xff\xda") + 14
    cut = data[: scan + int(where * (len(data) - 2 - scan))]
    if inspect(cut) == "bad_content":
        return
    whole = shown(data)
    rest = (0, 0, whole.width, max(1, whole.height - UNIT))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
        assert whole.height <= UNIT or shown(cut).crop(rest) == whole.crop(rest)


def test_restart_marks_do_not_stand_for_units() -> None:
    """More of them than the picture has units, and nothing between them."""
    data = jpeg((64, 64), "L", restart_marker_blocks=4)
    scan = data.index(b"\xff\xda") + 10
    marks = b"".join(bytes((0xFF, 0xD0 + number % 8)) for number in range(40))
    assert inspect(data[:scan] + marks) == "bad_content"


def test_a_progressive_jpeg_needs_its_end_mark() -> None:
    """Its last scan refines the others: how much of it is there cannot be counted."""
    data = jpeg((64, 64), "RGB", progressive=True)
    assert inspect(data) == Facts(64, 64)
    assert inspect(data[:-2]) == "bad_content"


def test_a_page_behind_the_last_unit_is_found() -> None:
    data = jpeg((64, 64), "RGB")
    page = b"<html><script>alert(document.domain)</script></html>"
    assert inspect(data[:-2] + page) == "bad_content"


# ---- segments


def segment(marker: int, data: bytes = b"", said: int | None = None) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2 if said is None else said) + data


def frame(width: int = 5, height: int = 4, marker: int = 0xC0) -> bytes:
    return segment(marker, struct.pack(">BHHB", 8, height, width, 1) + b"\x01\x11\x00")


def turned(value: int, name: bytes = b"Exif\0\0") -> bytes:
    tiff = b"II*\0" + struct.pack("<LHHHLHH", 8, 1, 0x0112, 3, 1, value, 0)
    return segment(0xE1, name + tiff)


START = b"\xff\xd8"
TABLE = segment(0xC4, bytes([0x00, 1, *[0] * 15, 0]))
SCAN = segment(0xDA, b"\x01\x01\x00\x00\x3f\x00")
CODES = b"\x12\x34\xff\x00\x56"
COMMENT = segment(0xFE, b"\xff\xd9\xff\xda\xff\xc0")  # marks that are none
PAGE = b"<html>"


def made(*parts: bytes) -> bytes:
    return START + b"".join(parts)


REST = (TABLE, SCAN, CODES, END)
SEGMENTS: dict[str, tuple[bytes, Facts | str]] = {
    "plain": (made(frame(), *REST), Facts(5, 4)),
    "no mark at its start": (made(b"\0", frame(), *REST), OTHER_TYPE),
    "another start": (b"\xff\xd7" + made(frame(), *REST)[2:], OTHER_TYPE),
    "a comment": (made(COMMENT, frame(), COMMENT, *REST), Facts(5, 4)),
    "an empty segment": (made(segment(0xFE), frame(), *REST), Facts(5, 4)),
    "a segment of a wrong length": (made(segment(0xFE, said=1), frame(), *REST), BAD),
    "a long segment": (made(segment(0xE2, b"\xff\xd9" * 30_000), frame(), *REST), Facts(5, 4)),
    "stray bytes": (made(COMMENT, b"\0\1\2", frame(), b"\3" * 99, *REST), Facts(5, 4)),
    "bytes that fill": (made(b"\xff\xff\xff", frame(), b"\xff", *REST), Facts(5, 4)),
    "a stuffed byte": (made(b"\xff\0", frame(), *REST), Facts(5, 4)),
    "the first of two frames": (made(frame(), frame(50, 40), *REST), Facts(5, 4)),
    "no frame": (made(*REST), BAD),
    "an end before the scan": (made(frame(), END, *REST), BAD),
    "no scan": (made(frame(), TABLE), BAD),
    "cut in a frame": (made(frame()[:8]), BAD),
    "cut in a length": (made(frame(), b"\xff\xfe\0"), BAD),
    "no size": (made(frame(0, 4), *REST), BAD),
    "sideways": (made(turned(6), frame(), *REST), Facts(4, 5)),
    "sideways, behind the frame": (made(frame(), turned(6), *REST), Facts(4, 5)),
    "the first of two orientations": (made(turned(1), turned(6), frame(), *REST), Facts(5, 4)),
    "an orientation behind other notes": (
        made(turned(1, b"http://ns.adobe.com/\0"), turned(6), frame(), *REST),
        Facts(4, 5),
    ),
    "an orientation in the last two bytes": (
        made(segment(0xE1, turned(6)[4:-2]), frame(), *REST),
        Facts(4, 5),
    ),
    "an orientation behind the last byte": (
        made(segment(0xE1, turned(6)[4:-4]), turned(6)[-4:], frame(), *REST),
        Facts(5, 4),
    ),
    "an orientation of another name": (made(turned(6, b"Exix\0\0"), frame(), *REST), Facts(5, 4)),
    "restarts in the scan": (
        made(frame(), SCAN, CODES, b"\xff\xd0", CODES, b"\xff\xd7", END),
        Facts(5, 4),
    ),
    "two scans": (made(frame(), *REST[:3], COMMENT, *REST), Facts(5, 4)),
    "a page behind the first scan's comment": (
        made(frame(), *REST[:3], segment(0xFE, END + PAGE), *REST),
        Facts(5, 4),
    ),
    "a mark without a length in a scan": (
        made(frame(), SCAN, CODES, b"\xff\x01", *REST[2:]),
        Facts(5, 4),
    ),
    "a page behind the end": (made(frame(), *REST) + PAGE, BAD),
    "a page a byte into the end": (made(frame(), *REST, b"<") + b"x" + PAGE[1:], Facts(5, 4)),
    "a cut segment in a scan, and an end": (
        made(frame(), SCAN, CODES, b"\xff\xfe\xff\xff", END) + b"\0",
        Facts(5, 4),
    ),
    "a page behind a damaged scan": (
        made(frame(), SCAN, CODES, b"\xff\xfe\xff\xff", END) + PAGE,
        BAD,
    ),
    "a damaged scan without an end": (
        made(frame(marker=0xC2), SCAN, CODES, b"\xff\xfe\xff\xff"),
        BAD,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SEGMENTS)
def test_the_segments_of_a_jpeg_are_read_as_decoders_read_them(name: str) -> None:
    data, expected = SEGMENTS[name]
    assert inspect(data) == expected


FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}


@pytest.mark.parametrize("marker", sorted({*range(1, 0xFF)} - {0xD9, 0xDA}))
def test_a_jpeg_has_the_size_of_its_frame_whatever_else_it_has(marker: int) -> None:
    alone = marker == 0x01 or 0xD0 <= marker <= 0xD8
    other = bytes((0xFF, marker)) if alone else frame(50, 40, marker)
    if marker == 0xC4:
        other = TABLE
    expected = Facts(50, 40) if marker in FRAMES else Facts(5, 4)
    assert inspect(made(other, frame(), *REST)) == expected
    # A mark without a length is followed by what looks like one.
    if alone:
        assert inspect(made(other, b"\0\x63", frame(), *REST)) == Facts(5, 4)


@pytest.mark.parametrize("stray", [*range(55, 70), *range(310, 330), *range(1340, 1360), 1_200_000])
def test_a_mark_is_found_however_far_it_is(stray: int) -> None:
    assert inspect(made(COMMENT, b"\0" * stray, frame(), *REST)) == Facts(5, 4)
    data = made(frame(), TABLE, SCAN, b"\x12" * stray, END)
    assert inspect(data) == Facts(5, 4)
    assert inspect(data + PAGE) == BAD


# ---- codes, counted in a file without an end mark


def table(name: int, lengths: list[int], symbols: bytes = b"\0") -> bytes:
    return segment(0xC4, bytes([name, *lengths, *[0] * (16 - len(lengths))]) + symbols)


DIRECT, ALTERNATING = table(0x00, [1]), table(0x10, [1])  # of one code, a zero, each


def units(count: int, codes: bytes, *tables: bytes, of: int = 1) -> Facts | str:
    """Blocks beside each other: the code of its brightness, and the code of its end."""
    scan = segment(0xDA, bytes((1, of, 0, 0, 0x3F, 0)))
    found = inspect(made(frame(8 * count, 8), *(tables or (DIRECT, ALTERNATING)), scan, codes))
    return "ok" if found == Facts(8 * count, 8) else found


UNITS = [
    (1, b"\x3f", "ok"),
    (2, b"\x3f", "ok"),  # the second one has a code that there is not, and may lack
    (3, b"\x3f", BAD),
    (1, b"\xbf", BAD),  # nothing of the only one
    (4, b"\0", "ok"),
    (5, b"\0", "ok"),
    (6, b"\0", BAD),
    (33, b"\0" * 9, "ok"),  # of zeros at the end, eight bytes count
    (34, b"\0" * 9, BAD),
    (34, b"\0" * 8 + b"\x3f", "ok"),
    (35, b"\0" * 8 + b"\x3f", BAD),
]


@pytest.mark.parametrize(("count", "codes", "expected"), UNITS)
def test_the_units_of_a_jpeg_are_counted_by_their_codes(
    count: int, codes: bytes, expected: str
) -> None:
    assert units(count, codes) == expected


TABLES = {
    "as many as there can be": ([table(0x00, [2], b"\0\0"), ALTERNATING], "ok"),
    "one more than there can be": ([table(0x00, [3], b"\0\0\0"), ALTERNATING], BAD),
    "the last of two with one name": ([table(0x00, [0, 1]), DIRECT, ALTERNATING], "ok"),
    "two in one segment": ([segment(0xC4, DIRECT[4:] + ALTERNATING[4:])], "ok"),
    "symbols that are cut": ([DIRECT, table(0x10, [2], b"\0")], BAD),
    "lengths that are cut": ([DIRECT, ALTERNATING, segment(0xC4, b"\1" * 16)], BAD),
    "a name that there is not": ([DIRECT, ALTERNATING, table(0x20, [1])], BAD),
    "only for brightness": ([DIRECT], BAD),
    "only for the rest": ([ALTERNATING], BAD),
}


@pytest.mark.parametrize("name", TABLES)
def test_the_tables_of_a_jpeg_are_those_of_its_scan(name: str) -> None:
    tables, expected = TABLES[name]
    assert units(4, b"\0", *tables) == expected


def test_a_scan_is_of_a_component_of_its_frame() -> None:
    assert units(4, b"\0", of=2) == BAD


def test_restart_marks_are_found_across_the_parts_that_are_read() -> None:
    for at in (0, 5, CHUNK - 2, CHUNK - 1, CHUNK, 2 * CHUNK - 1):
        data = b"x" * 3 + b"y" * at + b"\xff\xd7" + b"z" * 9
        found = jpeg_scan._restarts(Source(io.BytesIO(data)), 3)
        assert found == (1, 3 + at + 2)
    marks = b"".join(bytes((0xFF, number)) for number in range(0xCF, 0xD9))
    assert jpeg_scan._restarts(Source(io.BytesIO(marks)), 0) == (8, 18)
    assert jpeg_scan._restarts(Source(io.BytesIO(b"abc")), 1) == (0, 1)
