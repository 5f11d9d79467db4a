"""What a file really is: every type whole, under a wrong name, cut off, glued together, made up."""

import io
import struct
import tempfile
import time
import zipfile
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kyora.assets import content, rules
from kyora.assets.content import Facts, Refused
from tests.integration.support import samples

TYPES = sorted(content._CHECKS)
WHOLE = samples.ALL
MIB = 1 << 20


def inspect(data: bytes, content_type: str) -> Facts:
    return content.inspect(io.BytesIO(data), content_type)


def verdict(data: bytes, content_type: str) -> str:
    """`ok` or the reason of the refusal; anything else that is raised fails the test."""
    started = time.process_time()
    try:
        inspect(data, content_type)
    except Refused as refused:
        return refused.reason
    finally:
        assert time.process_time() - started < 1
    return "ok"


def test_there_is_a_sample_of_every_extension() -> None:
    assert set(WHOLE) == set(rules.TYPES)


@pytest.mark.parametrize("last", WHOLE)
def test_a_whole_file_is_accepted_with_its_dimensions(last: str) -> None:
    sample = WHOLE[last]
    found = inspect(sample.data, rules.TYPES[last][0])
    assert found == Facts(sample.width, sample.height)


@pytest.mark.parametrize("last", WHOLE)
def test_a_file_is_read_from_its_start_wherever_it_stood(last: str) -> None:
    file = io.BytesIO(WHOLE[last].data)
    file.seek(3)
    content.inspect(file, rules.TYPES[last][0])


def webp(kind: bytes, body: bytes) -> bytes:
    chunk = kind + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(chunk) + 4) + b"WEBP" + chunk


VARIANTS = {
    "a lossy WebP": (
        webp(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 640, 480) + b"\0" * 4),
        "image/webp",
        Facts(640, 480),
    ),
    "a WebP with extras": (
        webp(b"VP8X", b"\0" * 4 + (639).to_bytes(3, "little") + (479).to_bytes(3, "little")),
        "image/webp",
        Facts(640, 480),
    ),
    "a JPEG with fill bytes and a tail": (
        samples.jpeg().replace(b"\xff\xdb", b"\xff\xff\xff\xdb", 1) + b"a camera's preview",
        "image/jpeg",
        Facts(5, 4),
    ),
    "an empty ZIP": (b"PK\x05\x06" + b"\0" * 18, "application/zip", Facts()),
    "a QuickTime film from before ftyp": (
        samples.box(b"moov", b"x") + samples.box(b"mdat", b"y"),
        "video/quicktime",
        Facts(),
    ),
    "an MP4 whose last box has no length": (
        samples.iso(b"isom", samples.box(b"moov")) + struct.pack(">I4s", 0, b"mdat") + b"z" * 99,
        "video/mp4",
        Facts(),
    ),
    "an MP4 with a long box": (
        samples.iso(b"isom", samples.box(b"moov")) + struct.pack(">I4sQ", 1, b"mdat", 20) + b"zzzz",
        "video/mp4",
        Facts(),
    ),
    "an MP3 without a tag": (b"\xff\xfb\x90\x00" + b"\0" * 413, "audio/mpeg", Facts()),
    "an AAC with its own header": (b"ADIF" + b"\0" * 40, "audio/aac", Facts()),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_other_honest_shapes_of_a_type_are_accepted(name: str) -> None:
    data, content_type, dimensions = VARIANTS[name]
    assert inspect(data, content_type) == dimensions


# What is honestly both: a ZIP is the container of Office files, and any UTF-8 is a text.
BOTH = {("docx", "zip"), ("xlsx", "zip"), ("mp4", "m4a"), ("csv", "txt"), ("txt", "csv")}
BOTH |= {("pdf", "txt"), ("pdf", "csv"), ("pptx", "zip")}
BOTH |= {(a, b) for a in ("jpg", "jpeg", "jfif") for b in ("jpg", "jpeg", "jfif") if a != b}
BOTH |= {(a, b) for a in ("ogg", "oga", "opus") for b in ("ogg", "oga", "opus") if a != b}
BOTH |= {("mp4", "m4v"), ("m4v", "mp4"), ("m4v", "m4a")}
BOTH |= {("heic", "heif"), ("heif", "heic")}


@pytest.mark.parametrize("last", WHOLE)
def test_bytes_under_the_name_of_another_type_are_refused(last: str) -> None:
    taken = {
        other
        for other in rules.TYPES
        if other != last and verdict(WHOLE[last].data, rules.TYPES[other][0]) == "ok"
    }
    assert taken == {other for mine, other in BOTH if mine == last}


FOREIGN = {
    "nothing": b"",
    "one byte": b"\x00",
    "HTML": b"<!DOCTYPE html><html><script>alert(1)</script></html>",
    "SVG": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" onload="x()"/>',
    "a Windows program": b"MZ\x90\x00" + b"\0" * 60 + b"PE\0\0" + b"\0" * 200,
    "a Linux program": b"\x7fELF\x02\x01\x01" + b"\0" * 200,
    "a class file": b"\xca\xfe\xba\xbe\x00\x00\x00\x3d" + b"\0" * 200,
    "a RAR": b"Rar!\x1a\x07\x01\x00" + b"\0" * 200,
    "zeros": b"\0" * 4096,
}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("content_type", TYPES)
def test_foreign_bytes_are_refused_under_every_name(name: str, content_type: str) -> None:
    as_text = content_type in ("text/plain", "text/csv") and b"\0" not in FOREIGN[name]
    assert verdict(FOREIGN[name], content_type) == ("ok" if as_text else "type_mismatch")


# Types whose structure tells where the file ends. A box that is missing as a whole is not seen:
# what is left is a shorter file of the same type.
STRUCTURED = ["png", "jpg", "gif", "webp", "zip", "docx", "xlsx", "heic", "mp4", "mov", "m4a"]


def box_borders(data: bytes) -> set[int]:
    found, position = set(), 0
    while position < len(data):
        found.add(position)
        position += int.from_bytes(data[position : position + 4])
    return found


@pytest.mark.parametrize("last", STRUCTURED)
def test_a_file_cut_off_anywhere_is_refused(last: str) -> None:
    data, content_type = WHOLE[last].data, rules.TYPES[last][0]
    through = {at for at in range(len(data)) if verdict(data[:at], content_type) == "ok"}
    harmless = box_borders(data) if last in ("heic", "mp4", "mov", "m4a") else set()
    assert through <= harmless


@pytest.mark.parametrize("last", ["png", "gif", "webp", "heic", "mp4", "mov", "m4a"])
@pytest.mark.parametrize("tail", [b"\0", b"<script>alert(1)</script>", b"PK\x03\x04" + b"\0" * 40])
def test_what_stands_behind_the_end_is_refused(last: str, tail: bytes) -> None:
    assert verdict(WHOLE[last].data + tail, rules.TYPES[last][0]) == "bad_content"


POLYGLOTS = {
    "GIF and JavaScript": (b"GIF89a/*" + b"\0" * 40 + b"*/=1;alert(1)//;", "image/gif"),
    "PNG magic and HTML": (b"\x89PNG\r\n\x1a\n<html>" + b" " * 60, "image/png"),
    "PNG with a ZIP behind": (samples.png(tail=samples.archive("a")), "image/png"),
    "PNG without pixels": (
        b"\x89PNG\r\n\x1a\n"
        + samples.chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
        + samples.chunk(b"IEND", b""),
        "image/png",
    ),
    "PNG with a wrong checksum": (
        samples.png().replace(b"IHDR\0\0\0\3", b"IHDR\0\0\0\4"),
        "image/png",
    ),
    "JPEG of its header only": (samples.jpeg()[:48], "image/jpeg"),
    "JPEG without dimensions": (b"\xff\xd8\xff\xda\x00\x02\xff\xd9", "image/jpeg"),
    "HTML in front of a ZIP": (b"<html>" + samples.archive("a"), "application/zip"),
    "RIFF of another kind": (samples.wav(), "image/webp"),
    "a ZIP as docx": (samples.archive("a.txt"), rules.TYPES["docx"][0]),
    "a docx as xlsx": (samples.office("word/document.xml"), rules.TYPES["xlsx"][0]),
    "a docx with macros": (
        samples.office("word/document.xml", "word/vbaProject.bin"),
        rules.TYPES["docx"][0],
    ),
    "an xls as doc": (samples.ole("Workbook"), "application/msword"),
    "UTF-16 as text": ("héllo".encode("utf-16"), "text/plain"),
    "a text with NUL": (b"a\0b", "text/csv"),
    "half a character": ("é".encode()[:1], "text/plain"),
    "a PDF without an end": (b"%PDF-1.7\n" + b"x" * 70_000, "application/pdf"),
    "a PDF not at its start": (b" %PDF-1.7\n%%EOF", "application/pdf"),
    "ID3 and nothing": (b"ID3\x04\0\0\0\0\0\0", "audio/mpeg"),
    "ID3 of a bad length": (b"ID3\x04\0\0\xff\xff\xff\xff" + b"\0" * 99, "audio/mpeg"),
    "an MP4 without a movie": (samples.iso(b"isom", samples.box(b"mdat", b"x")), "video/mp4"),
    "an MP4 of another brand": (samples.iso(b"evil", samples.box(b"moov")), "video/mp4"),
    "a box longer than the file": (
        samples.iso(b"isom", samples.box(b"moov")) + struct.pack(">I4s", 99, b"mdat"),
        "video/mp4",
    ),
    "a box of 2^64 bytes": (
        samples.iso(b"isom", samples.box(b"moov")) + struct.pack(">I4sQ", 1, b"mdat", 2**64 - 1),
        "video/mp4",
    ),
    "a box of 1 byte": (
        samples.iso(b"isom", samples.box(b"moov")) + struct.pack(">I4s", 7, b"mdat"),
        "video/mp4",
    ),
    "Matroska as WebM": (b"\x1a\x45\xdf\xa3\x93\x42\x82\x88matroska", "video/webm"),
}


@pytest.mark.parametrize("name", POLYGLOTS)
def test_made_up_files_are_refused(name: str) -> None:
    assert verdict(*POLYGLOTS[name]) in ("type_mismatch", "bad_content")


@pytest.mark.parametrize(
    ("width", "height", "good"),
    [
        (10_000, 5_000, True),
        (10_000, 5_001, False),
        (50_000, 50_000, False),
        (2**31 - 1, 2**31 - 1, False),
        (0, 5, False),
        (5, 0, False),
        (200, 1, True),
        (201, 1, False),
        (1, 201, False),
    ],
)
def test_decompression_bombs_are_known_by_their_header(width: int, height: int, good: bool) -> None:
    expected = "ok" if good else "bad_content"
    assert verdict(samples.png(width, height), "image/png") == expected
    assert verdict(samples.heic(width, height), "image/heic") == expected
    if width < 65_536:
        assert verdict(samples.jpeg(width, height), "image/jpeg") == expected
        assert verdict(samples.gif(width, height), "image/gif") == expected
    if 0 < width < 16_384 and height > 0:
        assert verdict(samples.webp(width, height), "image/webp") == expected


def central(count: int, version: int = 20) -> bytes:
    """A ZIP whose directory holds `count` entries of nothing."""
    entry = struct.pack(
        "<4s4B4HL2L5H2L", b"PK\1\2", 20, 0, version, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
    )
    lengths = (0, 0, count & 0xFFFF, count & 0xFFFF, len(entry) * count, 30, 0)
    return b"PK\x03\x04" + b"\0" * 26 + entry * count + struct.pack("<4s4H2LH", b"PK\5\6", *lengths)


def test_a_zip_of_a_version_from_the_future_is_refused() -> None:
    assert verdict(central(1), "application/zip") == "ok"
    assert verdict(central(1, version=99), "application/zip") == "bad_content"


def test_a_zip_is_never_unpacked() -> None:
    """A bomb of 10 MiB of zeros: its directory is read, nothing else."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", b"\0" * (10 * MIB))
    data = buffer.getvalue()
    broken = data.replace(data[60:90], b"\xff" * 30, 1)  # would fail to unpack
    assert verdict(broken, "application/zip") == "ok"


BUSY = {
    "a PNG of empty chunks": (
        samples.png()[:33] + samples.chunk(b"tEXt", b"") * (10 * MIB // 12),
        "image/png",
    ),
    "a JPEG of fill bytes": (b"\xff\xd8" + b"\xff" * (10 * MIB), "image/jpeg"),
    "a JPEG of empty segments": (b"\xff\xd8" + b"\xff\xe0\0\x02" * (10 * MIB // 4), "image/jpeg"),
    "a GIF of tiny blocks": (
        b"GIF89a\1\0\1\0\0\0\0\x21\xf9" + b"\x01\x01" * (5 * MIB),
        "image/gif",
    ),
    "a GIF of empty extensions": (
        b"GIF89a\1\0\1\0\0\0\0" + b"\x21\xf9\x00" * (3 * MIB),
        "image/gif",
    ),
    "an MP4 of empty boxes": (
        samples.iso(b"isom") + samples.box(b"free") * (20 * MIB // 8),
        "video/mp4",
    ),
    "a HEIC full of sizes": (
        samples.iso(b"heic", samples.box(b"meta", b"ispe" * (MIB // 2))),
        "image/heic",
    ),
    "a ZIP of countless entries": (central(20 * MIB // 46), "application/zip"),
    "an OLE file without its stream": (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"W\0" * (5 * MIB),
        "application/msword",
    ),
    "a text of one line": (b"a" * (10 * MIB), "text/plain"),
}


@pytest.mark.parametrize("name", BUSY)
def test_no_file_keeps_us_busy(name: str) -> None:
    data, content_type = BUSY[name]
    with tempfile.SpooledTemporaryFile(max_size=16 * MIB) as file:
        file.write(data)
        started = time.process_time()
        with suppress(Refused):
            content.inspect(file, content_type)  # type: ignore[arg-type]
        assert time.process_time() - started < 1


HEADS = [sample.data[:24] for sample in WHOLE.values()]


@settings(max_examples=400)
@given(
    st.sampled_from(TYPES),
    st.builds(bytes.__add__, st.sampled_from([*HEADS, b""]), st.binary(max_size=200)),
)
def test_random_bytes_are_accepted_or_refused_and_nothing_else(
    content_type: str, data: bytes
) -> None:
    verdict(data, content_type)


@settings(max_examples=800)
@given(st.sampled_from(sorted(WHOLE)), st.data())
def test_a_damaged_file_is_accepted_or_refused_and_nothing_else(
    last: str, draw: st.DataObject
) -> None:
    data = bytearray(WHOLE[last].data)
    for _ in range(draw.draw(st.integers(1, 4))):
        at = draw.draw(st.integers(0, len(data)))
        gone = draw.draw(st.integers(0, 8))
        data[at : at + gone] = draw.draw(
            st.binary(max_size=8) | st.sampled_from([b"\xff" * 8, b"\0" * 8, b"\x7f" * 8])
        )
    verdict(bytes(data), rules.TYPES[last][0])
