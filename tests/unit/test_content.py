"""What a file really is: every type whole, under a wrong name, cut off, glued together, made up."""

import io
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kyora.assets import rules
from kyora.assets.content import verify
from kyora.assets.content.source import Facts, Refused
from tests.integration.support import samples

TYPES = sorted(verify._CHECKS)
WHOLE = samples.ALL
MIB = 1 << 20


def inspect(data: bytes, content_type: str) -> Facts:
    return verify.inspect(io.BytesIO(data), content_type)


def verdict(data: bytes, content_type: str) -> str:
    """`ok` or the reason of the refusal; anything else that is raised fails the test."""
    try:
        inspect(data, content_type)
    except Refused as refused:
        return refused.reason
    return "ok"


def test_there_is_a_sample_of_every_extension() -> None:
    assert set(WHOLE) == set(rules.TYPES)


@pytest.mark.parametrize("last", WHOLE)
def test_a_whole_file_is_accepted_with_its_size_and_duration(last: str) -> None:
    sample = WHOLE[last]
    expected = Facts(sample.width, sample.height, sample.duration_ms)
    assert inspect(sample.data, rules.TYPES[last][0]) == expected


@pytest.mark.parametrize("last", WHOLE)
def test_a_file_is_read_from_its_start_wherever_it_stood(last: str) -> None:
    file = io.BytesIO(WHOLE[last].data)
    file.seek(3)
    verify.inspect(file, rules.TYPES[last][0])


# What is honestly both: a ZIP is the container of Office files, and any text is a text.
BOTH = {("docx", "zip"), ("xlsx", "zip"), ("pptx", "zip"), ("csv", "txt"), ("txt", "csv")}
BOTH |= {("pdf", "txt"), ("pdf", "csv"), ("heic", "heif"), ("heif", "heic")}
for alike in ("jpg jpeg jfif", "ogg oga opus", "mp4 m4v mov"):
    BOTH |= {(a, b) for a in alike.split() for b in alike.split() if a != b}
# Films have sound, and a film without pictures is still one.
BOTH |= {(film, "m4a") for film in ("mp4", "m4v", "mov")}
BOTH |= {("m4a", film) for film in ("mp4", "m4v", "mov")}


@pytest.mark.parametrize("last", WHOLE)
def test_bytes_under_the_name_of_another_type_are_refused(last: str) -> None:
    taken = {
        other
        for other in rules.TYPES
        if other != last and verdict(WHOLE[last].data, rules.TYPES[other][0]) == "ok"
    }
    assert taken == {other for mine, other in BOTH if mine == last}


def test_a_film_is_no_sound_recording() -> None:
    with pytest.raises(Refused) as refused:
        inspect(samples.webm(), "audio/webm")
    assert (refused.value.reason, refused.value.detected) == ("type_mismatch", "video/webm")
    assert inspect(samples.webm(2, codec=b"A_OPUS"), "audio/webm") == Facts(duration_ms=1500)
    assert inspect(samples.webm(2, codec=b"A_OPUS"), "video/webm") == Facts(duration_ms=1500)


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


# Types whose structure says where the file ends, and what no reader misses: GIF's trailer and the
# end of its last block, PNG's checksums and last chunk, once every pixel is there. A box that is
# missing as a whole is not seen: what is left is a shorter file, with less than a box behind it.
STRUCTURED = ["png", "jpg", "gif", "webp", "zip", "docx", "xlsx", "heic", "mp4", "mov", "m4a"]


def harmless(last: str, data: bytes) -> set[int]:
    if last == "gif":
        return set(range(data.index(b"\x05\x00\x3b"), len(data)))
    if last == "png":
        return set(range(data.index(b"IDAT") + 11, len(data)))
    found, position = set(), 0
    while last in ("heic", "mp4", "mov", "m4a") and position < len(data):
        found |= set(range(position, position + 8))
        position += int.from_bytes(data[position : position + 4])
    return found


@pytest.mark.parametrize("last", STRUCTURED)
def test_a_file_cut_off_anywhere_is_refused(last: str) -> None:
    data, content_type = WHOLE[last].data, rules.TYPES[last][0]
    through = {at for at in range(len(data)) if verdict(data[:at], content_type) == "ok"}
    assert through <= harmless(last, data)


TAILS = ["png", "jpg", "gif", "webp", "heic", "avif", "mp4", "mov", "m4a", "webm", "wav", "ogg"]
TAILS += ["pdf"]
HARMLESS_TAILS = {
    "a zero": b"\0",
    "a line break": b"\r\n",
    "100,000 zeros": b"\0" * 100_000,
    "a stray word": b"\0\0 made by a camera",
    "a camera's trailer": b"\x12\x34" * 40 + b"SEFT",
}
HIDING_TAILS = {
    "a page": b"<script>alert(1)</script>",
    "a page behind zeros": b"\0" * 5000 + b"<!DOCTYPE html>",
    "a page behind junk": b"junk" * 20_000 + b"<HTML >",
    "a program of a server": b"<?php system($_GET[0]);",
    "an archive": samples.archive("a.txt"),
    "an archive's directory behind junk": b"junk" * 30_000 + samples.archive("a.txt")[-100:],
    "a Windows program": b"MZ\x90\0" + b"\0" * 60,
}


@pytest.mark.parametrize("last", TAILS)
@pytest.mark.parametrize("tail", HARMLESS_TAILS)
def test_harmless_bytes_behind_the_end_are_no_lie(last: str, tail: str) -> None:
    content_type = rules.TYPES[last][0]
    whole = inspect(WHOLE[last].data, content_type)
    assert inspect(WHOLE[last].data + HARMLESS_TAILS[tail], content_type) == whole


@pytest.mark.parametrize("last", TAILS)
@pytest.mark.parametrize("tail", HIDING_TAILS)
def test_what_hides_behind_the_end_is_refused(last: str, tail: str) -> None:
    assert verdict(WHOLE[last].data + HIDING_TAILS[tail], rules.TYPES[last][0]) == "bad_content"


def detected(data: bytes, content_type: str) -> tuple[str, str | None]:
    with pytest.raises(Refused) as refused:
        inspect(data, content_type)
    return refused.value.reason, refused.value.detected


def test_a_refusal_says_what_the_file_is() -> None:
    found = {
        last: detected(sample.data, "image/gif" if last != "gif" else "image/png")
        for last, sample in WHOLE.items()
        if last not in ("csv", "txt")
    }
    assert found == {
        last: ("type_mismatch", rules.TYPES[last][0] if last != "heif" else "image/heic")
        for last in WHOLE
        if last not in ("csv", "txt")
    } | {"m4v": ("type_mismatch", "video/mp4"), "aac": ("type_mismatch", None)}


LIES = {
    "GIF and JavaScript": (b"GIF89a/*" + b"\0" * 40 + b"*/=1;alert(1)//;", "image/gif"),
    "PNG magic and HTML": (b"\x89PNG\r\n\x1a\n<html>" + b" " * 60, "image/png"),
    "PNG whose pixels are a page": (
        b"\x89PNG\r\n\x1a\n"
        + samples.chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
        + samples.chunk(b"IDAT", b"<html><script>alert(1)</script></html>")
        + samples.chunk(b"IEND", b""),
        "image/png",
    ),
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
    "WebP of a canvas alone": (
        b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + b"\0" * 10,
        "image/webp",
    ),
    "HEIC of one size and a page": (
        samples.iso(b"heic", samples.full(b"meta", samples.full(b"ispe", b"\0\0\0\1" * 2)))
        + b"<html>",
        "image/heic",
    ),
    "HEIC that locates more than it has": (
        samples.heic().replace(b"\x44\0\0\1", b"\x44\0\xff\xff"),
        "image/heic",
    ),
    "HEIC whose pixels are not there": (samples.heic()[:-14], "image/heic"),
    "HTML in front of a ZIP": (b"<html>" + samples.archive("a"), "application/zip"),
    "HTML in front of a PDF": (b"<html>" + samples.PDF, "application/pdf"),
    "a ZIP in front of a PDF": (samples.archive("a") + samples.PDF, "application/pdf"),
    "RIFF of another kind": (samples.wav(), "image/webp"),
    "a PDF without an object": (b"%PDF-1.7\n%%EOF", "application/pdf"),
    "a PDF cut before its catalogue": (b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n", "application/pdf"),
    "a PDF behind 1,024 bytes": (b"\n" * 1025 + b"%PDF-1.7\n" + samples.PDF[9:], "application/pdf"),
    "ID3 and nothing": (b"ID3\x04\0\0\0\0\0\0", "audio/mpeg"),
    "ID3 and a program": (b"ID3\x04\0\0\0\0\0\0MZ\x90\0" + b"\0" * 400, "audio/mpeg"),
    "ID3 and FLAC": (b"ID3\x04\0\0\0\0\0\0fLaC" + b"\0" * 400, "audio/mpeg"),
    "one sync word": (b"\xff\xfb\x90\0" + b"junk" * 300, "audio/mpeg"),
    "MP3 frames inside a program": (b"MZ" + b"\0" * 99 + samples.MP3_FRAME * 20, "audio/mpeg"),
    "Ogg magic and HTML": (b"OggS\0<html><script>alert(1)</script>", "audio/ogg"),
    "Ogg of headers only": (samples.ogg()[:47], "audio/ogg"),
    "WAV without sound": (b"RIFF\x04\0\0\0WAVE", "audio/wav"),
    "an MP4 without a movie": (samples.iso(b"isom", samples.box(b"mdat", b"x")), "video/mp4"),
    "an MP4 without a track": (samples.iso(b"isom", samples.moov()), "video/mp4"),
    "a photograph of Canon's": (samples.movie(b"crx "), "video/mp4"),
    "an AVIF": (samples.heic(brand=b"avif"), "video/mp4"),
    "a box longer than the file": (
        samples.movie(b"isom") + struct.pack(">I4s", 99, b"mdat"),
        "video/mp4",
    ),
    "a box of 2^64 bytes": (
        samples.movie(b"isom") + struct.pack(">I4sQ", 1, b"mdat", 2**64 - 1),
        "video/mp4",
    ),
    "a box of 7 bytes": (samples.movie(b"isom") + struct.pack(">I4s", 7, b"mdat"), "video/mp4"),
    "EBML magic and a program": (
        b"\x1a\x45\xdf\xa3\x9f\x42\x82\x84webmMZ" + b"\0" * 99,
        "video/webm",
    ),
    "Matroska that no browser plays": (
        samples.webm(doc_type=b"matroska", codec=b"V_MPEG2"),
        "video/webm",
    ),
    "WebM without a track": (
        samples.element("1a45dfa3", samples.element("4282", b"webm"))
        + samples.element("18538067", samples.element("1549a966", b"")),
        "video/webm",
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_made_up_files_are_refused(name: str) -> None:
    assert verdict(*LIES[name]) in ("type_mismatch", "bad_content")


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (25_000, 10_000, "ok"),
        (25_000, 10_001, "too_many_pixels"),
        (50_000, 50_000, "too_many_pixels"),
        (2**31 - 1, 2**31 - 1, "too_many_pixels"),
        (0, 5, "bad_content"),
        (5, 0, "bad_content"),
        (1, 600, "ok"),
        (1000, 4, "ok"),
        (60_000, 1, "ok"),
    ],
)
def test_pixels_are_counted_by_the_header(width: int, height: int, expected: str) -> None:
    assert verdict(samples.png(width, height), "image/png") == expected
    assert verdict(samples.heic(width, height), "image/heic") == expected
    assert verdict(samples.heic(width, height, b"avif"), "image/avif") == expected
    if width < 65_536:
        assert verdict(samples.jpeg(width, height), "image/jpeg") == expected
    if 0 < width < 65_536 and height > 0:
        assert verdict(samples.gif(width, height), "image/gif") == expected
    if 0 < width < 16_384 and height > 0:
        assert verdict(samples.webp(width, height), "image/webp") == expected


NUMBERS = {
    "an MP4 of 4 billion seconds": (
        samples.iso(b"isom", samples.moov(samples.track(b"vide", b"avc1", 2**32 - 2, 64, 48)))
        .replace(struct.pack(">I", 2500), struct.pack(">I", 2**32 - 2))
        .replace(struct.pack(">II", 1000, 2**32 - 2), struct.pack(">II", 1, 2**32 - 2)),
        "video/mp4",
        Facts(64, 48),
    ),
    "a WebM of 2^60 pixels": (
        samples.webm().replace(
            samples.element("b0", b"\x40"), samples.element("b0", b"\x10" + b"\0" * 7)
        ),
        "video/webm",
        Facts(duration_ms=1500),
    ),
    "a WebM that plays for ever": (
        samples.webm().replace(struct.pack(">d", 1500.0), struct.pack(">d", float("inf"))),
        "video/webm",
        Facts(64, 48),
    ),
    "an Ogg that ends at 2^63": (
        samples.ogg().replace(struct.pack("<q", 48312), struct.pack("<q", 2**63 - 1)),
        "audio/ogg",
        Facts(),
    ),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_that_no_film_has_are_left_out(name: str) -> None:
    data, content_type, expected = NUMBERS[name]
    assert inspect(data, content_type) == expected


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
