"""What every format shares: reading on a budget, what is behind an end, how files begin."""

import io
from typing import Any

import pytest

from kyora.assets.content import identify, signatures, tail, verify
from kyora.assets.content.source import CHUNK, Facts, Policy, Refused, Source, match, whole
from kyora.assets.rules import MAX_PIXELS
from tests.integration.support import samples
from tests.integration.support.samples import box, full

KIB, MIB = 1 << 10, 1 << 20


def source(data: bytes, most_steps: int = 9) -> Source:
    return Source(io.BytesIO(data), most_steps)


# ---- reading


DATA = bytes(range(256)) * 64  # 16 KiB: four windows


@pytest.mark.parametrize("count", [0, 1, 2, 4095, 4096, 4097, 20_000])
@pytest.mark.parametrize("at", [-1, 0, 1, 4095, 4096, 4097, 16_383, 16_384, 16_385])
def test_a_source_reads_what_the_file_has_there(at: int, count: int) -> None:
    expected = DATA[at : at + count] if at >= 0 else b""
    for before in (0, 1, 100, 4096, 9000):  # whatever was read before
        found = source(DATA)
        found.at(before, 10)
        assert found.at(at, count) == expected


def test_headers_that_follow_each_other_are_read_at_once() -> None:
    found = source(DATA)
    for at in (100, 100, 108, 4186, 4192):
        assert found.at(at, 4) == DATA[at : at + 4]
    assert found.bytes_read == 4096
    found.at(4193, 4)  # a byte further than was read
    assert found.bytes_read == 2 * 4096
    found.at(4192, 4)  # a byte before it
    assert found.bytes_read == 3 * 4096


def test_exactly_is_all_or_nothing() -> None:
    assert source(b"abcd").exactly(1, 3) == b"bcd"
    assert source(b"abcd").exactly(4, 0) == b""
    with pytest.raises(EOFError):
        source(b"abcd").exactly(1, 4)


def test_a_file_is_read_six_times_and_four_megabytes_at_most() -> None:
    found = source(bytes(MIB))
    for _ in range(10):
        found.at(0, MIB)
    with pytest.raises(Refused, match=r"^bad_content$"):
        found.at(0, 4097)


def test_a_parser_takes_so_many_steps_and_no_more() -> None:
    Source(io.BytesIO()).step(200_000)
    with pytest.raises(Refused, match=r"^bad_content$"):
        Source(io.BytesIO()).step(200_001)
    found = source(b"", 3)
    found.step()
    found.step(2)
    assert found.steps == 3
    with pytest.raises(Refused, match=r"^bad_content$"):
        found.step()


FOUND: list[tuple[bytes, bytes, tuple[int, ...], int]] = [
    (b"abcabc", b"bc", (), 1),
    (b"abcabc", b"bc", (1,), 1),
    (b"abcabc", b"bc", (2,), 4),
    (b"abcabc", b"bc", (5,), -1),
    (b"abcabc", b"bc", (2, 4), -1),
    (b"abcabc", b"bc", (2, 5), 4),  # it begins before the end
    (b"abcabc", b"bc", (2, 99), 4),
    (b"abcabc", b"bd", (), -1),
    (b"", b"a", (), -1),
    (b"a" * (CHUNK - 1) + b"bc", b"bc", (), CHUNK - 1),
    (b"a" * CHUNK + b"bc", b"bc", (), CHUNK),
    (b"a" * 2 * CHUNK + b"bc", b"bc", (7,), 2 * CHUNK),
]


@pytest.mark.parametrize(("data", "needle", "where", "expected"), FOUND, ids=range(len(FOUND)))
def test_the_first_place_is_found(
    data: bytes, needle: bytes, where: tuple[int, ...], expected: int
) -> None:
    assert source(data).find(needle, *where) == expected


def test_a_refusal_says_why_and_what_the_file_is() -> None:
    match(True)
    whole(True)
    with pytest.raises(Refused) as refused:
        match(False, "image/png")
    assert (refused.value.reason, refused.value.detected) == ("type_mismatch", "image/png")
    assert str(refused.value) == "type_mismatch"
    with pytest.raises(Refused) as refused:
        whole(False)
    assert (refused.value.reason, refused.value.detected) == ("bad_content", None)


def test_the_usual_policy_allows_passwords_and_no_macros() -> None:
    assert (Policy().macros, Policy().passwords) == (False, True)


# ---- behind the end

PROGRAMS = (
    *(b"PK\x03\x04", b"PK\x05\x06", b"Rar!\x1a\x07", b"7z\xbc\xaf\x27\x1c", b"MZ", b"\x7fELF"),
    *(b"\xca\xfe\xba\xbe", b"\xcf\xfa\xed\xfe", b"%PDF-", b"#!"),
)
TAGS = ("!doctype", "html", "head", "body", "script", "svg", "iframe", "object", "embed", "img")
NEAR = 64 * KIB
JUNK = b"abcd" * (NEAR // 2)  # more than is searched at either end
DIRECTORY = b"PK\x05\x06"


def hides(behind: bytes) -> bool:
    try:
        tail.check(source(b"picture" + behind), 7)
    except Refused as refused:
        return refused.reason == "bad_content"
    return False


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_or_an_archive_behind_the_end_is_found_where_it_begins(program: bytes) -> None:
    assert hides(program)
    assert hides(b"\0 \t\r\n\x1a" + program)
    assert hides(b"\0" * (2 * MIB) + program)
    assert hides(program + JUNK)
    if program != DIRECTORY:
        assert not hides(b"x" + program)


@pytest.mark.parametrize("tag", TAGS)
def test_a_page_behind_the_end_is_found_near_both_ends(tag: str) -> None:
    for page in (f"<{tag}>", f"<{tag.upper()} ", f"<{tag}/"):
        assert hides(page.encode())
    assert not hides(f"<{tag}x>".encode())
    page = f"<{tag}>".encode()
    assert hides(JUNK[: NEAR - len(page)] + page + JUNK)
    assert not hides(JUNK[: NEAR - len(page) + 1] + page + JUNK)
    assert hides(JUNK + page + JUNK[: NEAR - len(page)])
    assert not hides(JUNK + page + JUNK[: NEAR - len(page) + 1])


def test_an_archive_behind_the_end_is_found_by_its_directory() -> None:
    assert hides(b"x" + DIRECTORY)
    assert hides(JUNK + DIRECTORY + JUNK[: NEAR - 4])
    assert not hides(JUNK + DIRECTORY + JUNK[: NEAR - 3])
    assert hides(JUNK[:100] + DIRECTORY + JUNK[: NEAR - 4])  # only its end is searched for it
    assert not hides(JUNK[:100] + DIRECTORY + JUNK[: NEAR - 3])


def test_a_file_that_ends_where_it_should_hides_nothing() -> None:
    tail.check(source(b"<html>"), 6)
    tail.check(source(b"<html>"), 7)
    assert not hides(b"\0" * (MIB + 1))


# ---- how files begin

BEGINNINGS = {
    "application/zip": b"PK\3\4",
    "application/x-ole-storage": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
    "video/x-matroska": b"\x1a\x45\xdf\xa3",
    "image/png": b"\x89PNG\r\n\x1a\n",
    "image/jpeg": b"\xff\xd8\xff",
    "image/bmp": b"BM",
    "image/vnd.adobe.photoshop": b"8BPS",
    "application/pdf": b"%PDF-",
    "application/rtf": b"{\\rtf",
    "audio/ogg": b"OggS",
    "audio/flac": b"fLaC",
    "audio/x-ape": b"MAC ",
    "audio/x-wavpack": b"wvPk",
    "audio/aiff": b"FORM",
    "video/x-flv": b"FLV",
    "video/mpeg": b"\0\0\1\xba",
    "video/x-ms-asf": b"0&\xb2u\x8ef\xcf\x11",
    "application/vnd.rar": b"Rar!\x1a\7",
    "application/x-7z-compressed": b"7z\xbc\xaf\x27\x1c",
    "application/gzip": b"\x1f\x8b\x08",
    "application/x-bzip2": b"BZh",
    "application/x-xz": b"\xfd7zXZ\0",
    "audio/x-musepack": b"MPCK",
    "application/vnd.microsoft.portable-executable": b"MZ",
    "application/x-elf": b"\x7fELF",
}
MORE = [
    *((b"GIF87a", "image/gif"), (b"GIF89a", "image/gif"), (b"GIF88a", None)),
    *((b"II*\0", "image/tiff"), (b"MM\0*", "image/tiff")),
    *((b"RIFF1234WEBP", "image/webp"), (b"RIFF1234WAVE", "audio/wav")),
    *((b"RF641234WAVE", "audio/wav"), (b"RIFF1234AVI ", "video/x-msvideo")),
    *((b"RIFF1234abcd", None), (b"RIFX1234WAVE", None)),
    *((b"1234ftypabcd", "video/mp4"), (b"12345ftypabc", None)),
    *((b"hello", None), (b"", None)),
]


@pytest.mark.parametrize(("begin", "expected"), [*((b, n) for n, b in BEGINNINGS.items()), *MORE])
def test_a_file_is_known_by_how_it_begins(begin: bytes, expected: str | None) -> None:
    assert signatures.signature(begin + b" and more") == expected
    assert signatures.signature(begin) == expected
    assert signatures.signature(b"x" + begin) is None


HTML, SVG = "text/html", "image/svg+xml"
PAGES = [
    *((b"<!DOCTYPE html>", HTML), (b"<html>", HTML), (b"<script>", HTML), (b"<Body", HTML)),
    *((b"\xef\xbb\xbf \t\r\n<html>", HTML), (b"x<html>", None), (b"<p>", None), (b"", None)),
    *((b"<svg>", SVG), (b"<?xml version='1.0'?>\n<SVG>", SVG), (b"<?xml?><html>", None)),
    *((b"x<svg>", None), (b"<!doctype x>", None)),
]


@pytest.mark.parametrize(("begin", "expected"), PAGES)
def test_a_page_is_known_by_how_it_begins(begin: bytes, expected: str | None) -> None:
    assert signatures.page(begin) == expected


# ---- what a refused file is


def iso(brand: bytes, *more: bytes) -> bytes:
    return box(b"ftyp", brand + b"\0\0\0\0" + b"".join(more))


def film_of_a_picture(brand: bytes) -> bytes:
    data = samples.heic()
    return data[:8] + brand + data[12:]


BROKEN_META = full(
    b"meta",
    full(b"hdlr", b"\0\0\0\0pict" + b"\0" * 13)
    + b"".join(box(name) for name in (b"iinf", b"iprp", b"iloc", b"pitm")),
)
KNOWN = {
    "QuickTime": (iso(b"qt  "), "video/quicktime"),
    "a sound": (iso(b"M4A "), "audio/mp4"),
    "an audio book": (iso(b"M4B "), "audio/mp4"),
    "a photograph of Canon's": (iso(b"crx "), "image/x-canon-cr3"),
    "JPEG 2000": (iso(b"jp2 "), "image/jp2"),
    "a film": (iso(b"isom"), "video/mp4"),
    "a film of version 1": (iso(b"mp41"), "video/mp4"),
    "a film of version 2": (iso(b"mp42"), "video/mp4"),
    "a film that mentions others": (iso(b"isom", b"qt  ", b"M4A "), "video/mp4"),
    "a film with a picture in it": (film_of_a_picture(b"isom"), "video/mp4"),
    "a film of version 1 with a picture in it": (film_of_a_picture(b"mp41"), "video/mp4"),
    "a film of version 2 with a picture in it": (film_of_a_picture(b"mp42"), "video/mp4"),
    "a film of a broken picture": (iso(b"dash") + BROKEN_META, "video/mp4"),
    "a film that mentions a broken picture": (iso(b"dash", b"heic") + BROKEN_META, "video/mp4"),
    "a broken picture": (iso(b"heic") + BROKEN_META, None),
    "a film of an unknown brand": (iso(b"dash"), "video/mp4"),
    "a picture": (samples.heic(), "image/heic"),
    "a picture of AV1": (samples.heic(brand=b"avif"), "image/avif"),
    "a picture of an unknown brand": (samples.heic(brand=b"abcd"), "image/heic"),
    "a picture that is broken": (samples.heic()[:60], None),
    "a picture of nothing": (iso(b"mif1"), None),
    "boxes that are broken": (iso(b"isom") + b"\0\0\0\1moov", None),
    "a WebM": (samples.webm(), "video/webm"),
    "a Matroska": (samples.webm(doc_type=b"matroska"), "video/x-matroska"),
    "webm, in a text": (b"webm" + b"." * 99, None),
    "a Matroska that mentions it": (b"\x1a\x45\xdf\xa3" + b"." * 56 + b"webm", "video/webm"),
    "a Matroska that mentions it late": (
        b"\x1a\x45\xdf\xa3" + b"." * 57 + b"webm",
        "video/x-matroska",
    ),
    "a Word file": (samples.word(), "application/msword"),
    "a compound file": (samples.ole("abc"), "application/x-ole-storage"),
    "a compound file that is broken": (samples.word()[:300], None),
    "a Word file of today": (samples.ALL["docx"].data, samples.WORD),
    "a ZIP": (samples.archive("a"), "application/zip"),
    "a ZIP that is broken": (samples.archive("a")[:30], "application/zip"),
    "MP3 behind a tag": (samples.MP3, "audio/mpeg"),
    "FLAC behind a tag": (b"ID3\4\0\0\0\0\0\0fLaC", "audio/flac"),
    "a picture by its signature": (samples.png(), "image/png"),
    "a page": (b"\r\n<html>", "text/html"),
    "a drawing": (b"<?xml?>" + b" " * 1013 + b"<svg", "image/svg+xml"),
    "a drawing that begins late": (b"<?xml?>" + b" " * 1014 + b"<svg", None),
    "a text": (b"hello", None),
    "nothing": (b"", None),
}  # fmt: skip


@pytest.mark.parametrize("name", KNOWN)
def test_what_a_file_is_is_known_by_its_beginning(name: str) -> None:
    data, expected = KNOWN[name]
    assert identify.media_type(source(data, 999)) == expected


def test_what_a_file_is_may_cost_little() -> None:
    """It only helps people: a verdict may cost ten times as much."""
    boxes = box(b"free") * 21_000
    with pytest.raises(Refused) as refused:
        verify.inspect(io.BytesIO(iso(b"qt  ") + boxes), "image/png")
    assert refused.value.detected is None
    with pytest.raises(Refused) as refused:
        verify.inspect(io.BytesIO(iso(b"qt  ") + boxes[: 8 * 19_990]), "image/png")
    assert refused.value.detected == "video/quicktime"


# ---- the limits of all types


def refusal(data: bytes, content_type: str, *policy: Policy) -> tuple[str, str | None]:
    with pytest.raises(Refused) as refused:
        verify.inspect(io.BytesIO(data), content_type, *policy)
    return refused.value.reason, refused.value.detected


def test_a_picture_may_have_so_many_pixels_and_no_more() -> None:
    height = MAX_PIXELS // 1000
    data = samples.png(1000, height)
    assert verify.inspect(io.BytesIO(data), "image/png") == Facts(1000, height)
    assert refusal(samples.png(1000, height + 1), "image/png") == ("too_many_pixels", None)


@pytest.mark.parametrize(("width", "height"), [(0, 5), (5, 0)])
def test_a_picture_has_a_width_and_a_height(width: int, height: int) -> None:
    assert refusal(samples.png(width, height), "image/png") == ("bad_content", None)


DAYS = 86_400  # seconds
LENGTHS = [(1, 1000), (1000 * DAYS, 1000 * DAYS * 1000), (1000 * DAYS + 1, None), (0, None)]


@pytest.mark.parametrize(("seconds", "expected"), LENGTHS)
def test_a_duration_that_no_film_has_is_left_out(seconds: int, expected: int | None) -> None:
    times = full(b"mvhd", (b"\0" * 8) + (1).to_bytes(4) + seconds.to_bytes(4) + b"\0" * 80)
    film = samples.track(b"vide", b"avc1", 0, 64, 48)
    data = samples.iso(b"isom", samples.box(b"moov", times + film))
    assert verify.inspect(io.BytesIO(data), "video/mp4") == Facts(64, 48, expected)


def test_a_refusal_names_a_type_only_when_it_is_another() -> None:
    cut = samples.jpeg()[:40]
    assert refusal(cut, "image/jpeg") == ("bad_content", None)
    assert refusal(cut, "image/png") == ("type_mismatch", "image/jpeg")
    macros = samples.office("word/document.xml", "word/vbaProject.bin")
    assert refusal(macros, samples.WORD) == ("macros", None)
    password = samples.ole("EncryptionInfo", "EncryptedPackage")
    assert refusal(password, samples.WORD, Policy(passwords=False)) == ("encrypted", None)
    broken = samples.png(0, 5)
    assert refusal(broken + b"<html>", "image/png") == ("bad_content", None)


def gif(extensions: bytes) -> bytes:
    return samples.gif()[:19] + extensions + samples.gif()[19:]


def jpeg(segments: bytes) -> bytes:
    return samples.jpeg()[:2] + segments + samples.jpeg()[2:]


def within(chunks: bytes, data: bytes) -> bytes:
    """A RIFF with more chunks, before the others of a WebP, behind the first of a WAV."""
    at = 12 if data[8:12] == b"WEBP" else 36
    size = int.from_bytes(data[4:8], "little") + len(chunks)
    return data[:4] + size.to_bytes(4, "little") + data[8:at] + chunks + data[at:]


def film(boxes: bytes) -> bytes:
    return samples.iso(b"isom", boxes, samples.moov(samples.track(b"vide", b"avc1", 9, 6, 4)))


def webm(elements: bytes) -> bytes:
    data = samples.webm()
    at = data.index(bytes.fromhex("18538067")) + 4
    size = (int.from_bytes(data[at : at + 4]) + len(elements)).to_bytes(4)
    return data[:at] + size + data[at + 4 :] + elements


PNG, FRAME = samples.png(), samples.MP3_FRAME
NONE = samples.chunk(b"none", b"")
TAG = b"ID3\4\0\0\0\0\0\0"
EXCEL_4 = b"\x09\x04\6\0\0\0\x10\0\0\0"
MP3 = "audio/mpeg"
STEPS: dict[str, tuple[str, Any]] = {
    "a chunk of a PNG": ("image/png", lambda n: PNG[:33] + NONE * n + PNG[33:]),
    "an extension of a GIF": ("image/gif", lambda n: gif(b"\x21\xfe\0" * n)),
    "a block of a GIF": ("image/gif", lambda n: gif(b"\x21\xfe" + b"\1x" * n + b"\0")),
    "a segment of a JPEG": ("image/jpeg", lambda n: jpeg(b"\xff\xfe\0\2" * n)),
    "a mark of a JPEG": ("image/jpeg", lambda n: jpeg(b"\xff\x01" * n)),
    "a chunk of a WebP": ("image/webp", lambda n: within(b"ICCP\0\0\0\0" * n, samples.webp())),
    "a chunk of a WAV": ("audio/wav", lambda n: within(b"LIST\0\0\0\0" * n, samples.wav())),
    "a box of a film": ("video/mp4", lambda n: film(box(b"free") * n)),
    "an element of a WebM": ("video/webm", lambda n: webm(samples.element("ec", b"") * n)),
    "a tag of an MP3": (MP3, lambda n: TAG * n + FRAME * 4),
    "a sync of an MP3": (MP3, lambda n: b"\xff\xfb\xf0" * n + FRAME * 12),
    "junk in an MP3": (MP3, lambda n: FRAME * 4 + b"\xff\0" * n + FRAME * 4),
    "an entry of a ZIP": ("application/zip", lambda n: samples.archive(*map(str, range(n)))),
    "an element of a docx": (
        samples.WORD,
        lambda n: samples.office("word/document.xml", types="<a/>" * n),
    ),
    "a record of an xls": ("application/vnd.ms-excel", lambda n: EXCEL_4 + b"\1\0\0\0" * n),
}


@pytest.mark.parametrize("name", STEPS)
def test_every_part_of_a_file_counts_as_a_step(name: str) -> None:
    content_type, made = STEPS[name]

    def steps(parts: int) -> int:
        found = source(made(parts), 99_999)
        verify.parse(found, content_type)
        return found.steps

    assert steps(300) - steps(100) >= 200
