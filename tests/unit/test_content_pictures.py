"""PNG, GIF, WebP and EXIF, byte by byte: what is counted, skipped and shown."""

import io
import random
import struct
import zlib

import pytest
from PIL import Image

from kyora.assets.content import exif, verify
from kyora.assets.content.source import Facts, Refused
from tests.integration.support.samples import chunk


def inspect(data: bytes, content_type: str) -> Facts | str:
    try:
        return verify.inspect(io.BytesIO(data), content_type)
    except Refused as refused:
        return refused.reason


# ---- EXIF


def tiff(
    *entries: tuple[int, int, int], order: str = "<", start: int = 8, count: int | None = None
) -> bytes:
    """A TIFF structure whose entries are a tag, a format and a value; they begin at `start`."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    data = mark + struct.pack(f"{order}L", start) + b"\0" * (start - 8)
    data += struct.pack(f"{order}H", len(entries) if count is None else count)
    for tag, kind, value in entries:
        one = struct.pack(order + {1: "Bxxx", 3: "Hxx"}.get(kind, "L"), value)
        data += struct.pack(f"{order}HHL", tag, kind, 1) + one
    return data


BYTE, ASCII, SHORT, LONG = 1, 2, 3, 4
ORIENTATION = 0x0112


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [BYTE, SHORT, LONG])
def test_four_of_the_orientations_lie_on_their_side(order: str, kind: int) -> None:
    found = {
        value for value in range(10) if exif.sideways(tiff((ORIENTATION, kind, value), order=order))
    }
    assert found == {5, 6, 7, 8}


TURNED = (ORIENTATION, SHORT, 6)
OTHER = (0x010F, ASCII, 6)
EXIFS = {
    "behind JPEG's mark": (b"Exif\0\0" + tiff(TURNED), True),
    "behind other entries": (tiff(OTHER, (0x0111, SHORT, 1), (0x0113, SHORT, 1), TURNED), True),
    "entries that begin later": (tiff(TURNED, start=21), True),
    "the first of two": (tiff((ORIENTATION, SHORT, 1), TURNED), False),
    "an orientation in letters": (tiff((ORIENTATION, ASCII, 6)), False),
    "letters, then a number": (tiff((ORIENTATION, ASCII, 1), TURNED), True),
    "behind the last entry": (tiff(OTHER, TURNED, count=1), False),
    "the thousandth entry": (tiff(*[OTHER] * 999, TURNED), True),
    "one entry more": (tiff(*[OTHER] * 1000, TURNED), False),
    "cut in its entry": (tiff(TURNED)[:-3], False),
    "cut before it": (tiff(OTHER, TURNED)[:22], False),
    "nothing": (b"", False),
    "no byte order": (b"XX" + tiff(TURNED)[2:], False),
    "no orientation": (tiff(OTHER), False),
}


@pytest.mark.parametrize("name", EXIFS)
def test_an_orientation_is_found_where_viewers_find_it(name: str) -> None:
    data, expected = EXIFS[name]
    assert exif.sideways(data) is expected


# ---- PNG

PNG = b"\x89PNG\r\n\x1a\n"


def header(
    width: int = 3, height: int = 2, depth: int = 8, color: int = 2, interlaced: int = 0
) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced))


def open_chunk(name: bytes, data: bytes) -> bytes:
    """A chunk without the checksum that ends it: the file was cut there."""
    return struct.pack(">I", len(data)) + name + data


def unfinished(size: int) -> bytes:
    """A zlib stream of so many bytes, without its end."""
    stream = zlib.compressobj()
    return stream.compress(b"\0" * size) + stream.flush(zlib.Z_SYNC_FLUSH)


# Width, height, depth, kind of colour, interlaced, and how many bytes the rows and their filters
# take (W3C PNG, 7.2, 8.1).
PIXELS = [
    (3, 2, 8, 2, 0, 2 * (1 + 9)),
    (5, 3, 1, 0, 0, 3 * (1 + 1)),
    (9, 1, 1, 0, 0, 1 + 2),
    (8, 1, 1, 0, 0, 1 + 1),
    (3, 1, 4, 3, 0, 1 + 2),
    (2, 1, 8, 4, 0, 1 + 4),
    (1, 2, 16, 6, 0, 2 * (1 + 8)),
    (1, 1, 16, 0, 0, 1 + 2),
    (1, 1, 8, 5, 0, 1 + 4),  # there is no such kind: as many as the widest has
    (2000, 1000, 8, 0, 0, 1000 * 2001),  # more than is unpacked at once
    (1, 1, 8, 0, 1, 2),
    (3, 2, 8, 0, 1, 2 + 2 + 2 + 4),
    (5, 5, 8, 0, 1, 2 + 2 + 3 + 4 + 4 * 1 + 3 * 3 + 2 * 6),
    (8, 8, 8, 0, 1, 2 + 2 + 3 + 2 * 3 + 2 * 5 + 4 * 5 + 4 * 9),
    (8, 8, 1, 0, 1, 2 + 2 + 2 + 2 * 2 + 2 * 2 + 4 * 2 + 4 * 2),
]


@pytest.mark.parametrize(("width", "height", "depth", "color", "interlaced", "size"), PIXELS)
def test_a_png_that_was_cut_is_accepted_when_its_last_pixel_is_there(
    width: int, height: int, depth: int, color: int, interlaced: int, size: int
) -> None:
    begin = PNG + header(width, height, depth, color, interlaced)
    whole = begin + open_chunk(b"IDAT", unfinished(size))
    assert inspect(whole, "image/png") == Facts(width, height)
    assert inspect(begin + open_chunk(b"IDAT", unfinished(size - 1)), "image/png") == "bad_content"


LINES = zlib.compress(b"\0" * 20)  # of three by two pixels
IDAT, IEND = chunk(b"IDAT", LINES), chunk(b"IEND", b"")
SIDEWAYS = chunk(b"eXIf", tiff(TURNED))
LONG_HEADER = open_chunk(b"IHDR", header()[8:21])
PNGS = {
    "chunks of no interest": (
        PNG + header() + chunk(b"gAMA", b"\0\0\0\1") + IDAT + chunk(b"tEXt", b"a\0b") + IEND,
        Facts(3, 2),
    ),
    "an orientation": (PNG + header() + SIDEWAYS + IDAT + IEND, Facts(2, 3)),
    "an orientation far behind": (
        PNG + header() + chunk(b"eXIf", tiff(TURNED, start=65_000)) + IDAT + IEND,
        Facts(2, 3),
    ),
    "an orientation further than is read": (
        PNG + header() + chunk(b"eXIf", tiff(TURNED, start=65_530)) + IDAT + IEND,
        Facts(3, 2),
    ),
    "an orientation behind the pixels": (PNG + header() + IDAT + SIDEWAYS + IEND, Facts(2, 3)),
    "an orientation of a file that was cut": (PNG + header() + SIDEWAYS + IDAT, Facts(2, 3)),
    "pixels in two parts": (
        PNG + header() + chunk(b"IDAT", LINES[:5]) + chunk(b"IDAT", LINES[5:]) + IEND,
        Facts(3, 2),
    ),
    "pixels in two parts, cut": (
        PNG + header() + chunk(b"IDAT", LINES[:5]) + open_chunk(b"IDAT", LINES[5:]),
        Facts(3, 2),
    ),
    "a stream that ends early": (
        PNG + header() + open_chunk(b"IDAT", zlib.compress(b"\0" * 7)),
        Facts(3, 2),
    ),
    "junk behind all pixels": (
        PNG + header() + chunk(b"IDAT", unfinished(20)) + open_chunk(b"IDAT", b"\xff" * 9),
        Facts(3, 2),
    ),
    "junk behind some pixels": (
        PNG + header() + chunk(b"IDAT", unfinished(19)) + open_chunk(b"IDAT", b"\xff" * 9),
        "bad_content",
    ),
    "a page in the second part": (
        PNG + header() + IDAT + chunk(b"IDAT", b"<html>") + IEND,
        Facts(3, 2),
    ),
    "a page in the first part": (
        PNG + header() + chunk(b"IDAT", b"<html>") + IDAT + IEND,
        "bad_content",
    ),
    "cut before its pixels": (PNG + header() + chunk(b"tEXt", b"a\0b"), "bad_content"),
    "cut in the name of a chunk": (PNG + header() + IDAT + b"\0\0\0\5tEX", Facts(3, 2)),
    "no pixels": (PNG + header() + IEND, "bad_content"),
    "a header of another name": (PNG + chunk(b"IHDS", header()[8:21]) + IDAT + IEND, "bad_content"),
    "a header that says another length": (
        PNG
        + struct.pack(">I", 14)
        + LONG_HEADER[4:]
        + struct.pack(">I", zlib.crc32(LONG_HEADER[4:]))
        + IDAT
        + IEND,
        "bad_content",
    ),
    "an orientation behind the end of its chunk": (
        PNG
        + header()
        + chunk(b"eXIf", tiff(TURNED, start=20)[:8])
        + chunk(b"tEXt", tiff(TURNED)[8:])
        + IDAT
        + IEND,
        Facts(3, 2),
    ),
    "no width": (PNG + header(0) + IDAT + IEND, "bad_content"),
}


@pytest.mark.parametrize("name", PNGS)
def test_a_png_is_read_as_viewers_read_it(name: str) -> None:
    data, expected = PNGS[name]
    assert inspect(data, "image/png") == expected


# ---- GIF


def gif(
    *blocks: bytes, width: int = 5, height: int = 4, flags: int = 0, name: bytes = b"GIF89a"
) -> bytes:
    return name + struct.pack("<HHBxx", width, height, flags) + b"".join(blocks)


def frame(
    left: int = 0, top: int = 0, across: int = 2, down: int = 2, flags: int = 0, table: bytes = b""
) -> bytes:
    """A frame of four pixels."""
    place = struct.pack("<HHHHB", left, top, across, down, flags)
    return b"\x2c" + place + table + b"\x02\x03\x44\x34\x05\x00"


TRAILER = b"\x3b"
COMMENT = b"\x21\xfe" + b"\x03;;;" + b"\x01;" + b"\0"  # in blocks full of trailers


def colors(number: int) -> bytes:
    """A table of colours that each look like a trailer."""
    return TRAILER * (3 << number + 1)


@pytest.mark.parametrize("number", range(8))
def test_the_tables_of_colours_of_a_gif_are_skipped_whole(number: int) -> None:
    flags = 0x80 | number
    ours = frame(flags=flags, table=colors(number))
    for data in (
        gif(colors(number), frame(), TRAILER, flags=flags),
        gif(ours, TRAILER),
        gif(frame(), ours, frame(across=1, down=1), TRAILER),
        gif(frame(flags=number), TRAILER, flags=number),  # a size, but no table
    ):
        assert inspect(data, "image/gif") == Facts(5, 4)
        assert inspect(data + b"<html>", "image/gif") == "bad_content"


GIFS = {
    "of 1987": (gif(frame(), TRAILER, name=b"GIF87a"), Facts(5, 4)),
    "of 1988": (gif(frame(), TRAILER, name=b"GIF88a"), "type_mismatch"),
    "comments": (gif(COMMENT, frame(), COMMENT, TRAILER), Facts(5, 4)),
    "stray bytes": (gif(b"\0", frame(), b"\0\0", TRAILER), Facts(5, 4)),
    "a first frame that is wider": (gif(frame(left=3, across=4), TRAILER), Facts(7, 4)),
    "a first frame that is higher": (gif(frame(top=3, down=4), TRAILER), Facts(5, 7)),
    "a second frame that is wider": (gif(frame(), frame(left=9, top=9), TRAILER), Facts(5, 4)),
    "no trailer": (gif(frame()), Facts(5, 4)),
    "no frame": (gif(TRAILER), "bad_content"),
    "nothing behind its header": (gif(), "bad_content"),
    "a comment alone": (gif(COMMENT), "bad_content"),
    "cut in its first frame": (gif(frame()[:-4]), "bad_content"),
    "cut in the place of its second frame": (gif(frame(), frame()[:5]), Facts(5, 4)),
    "cut in its second frame": (gif(frame(), frame()[:-4]), Facts(5, 4)),
    "cut behind its last code": (gif(frame()[:-1]), Facts(5, 4)),
    "cut behind its only pixel": (
        gif(b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x01\x04"),
        Facts(5, 4),
    ),
    "fewer pixels than it says": (gif(frame(across=9, down=9), TRAILER), Facts(9, 9)),
    "fewer pixels than it says, no trailer": (gif(frame(across=9, down=9)), Facts(9, 9)),
    "a screen of no size": (gif(frame(), TRAILER, width=0, height=0), Facts(2, 2)),
}


@pytest.mark.parametrize("name", GIFS)
def test_a_gif_is_read_as_viewers_read_it(name: str) -> None:
    data, expected = GIFS[name]
    assert inspect(data, "image/gif") == expected


def noise(size: tuple[int, int], shades: int) -> Image.Image:
    dice = random.Random(shades)
    image = Image.new("P", size)
    image.putdata([dice.randrange(shades) for _ in range(size[0] * size[1])])
    image.putpalette([index % 256 for index in range(3 * shades)])
    return image


@pytest.mark.parametrize(("size", "shades"), [((9, 7), 2), ((40, 30), 16), ((110, 90), 256)])
def test_a_gif_cut_in_its_only_frame_needs_the_code_of_its_last_pixel(
    size: tuple[int, int], shades: int
) -> None:
    """As Pillow writes it: the largest fills the table of codes twice."""
    buffer = io.BytesIO()
    noise(size, shades).save(buffer, "GIF", optimize=False)
    data = buffer.getvalue()
    assert data.endswith(b"\0;")
    assert inspect(data[:-2], "image/gif") == Facts(*size)
    # More than the mark of the end and the bits that fill its last byte.
    assert inspect(data[:-5], "image/gif") == "bad_content"


@pytest.mark.parametrize(("bits", "through"), [(0, False), (1, True), (11, True), (12, False)])
def test_the_codes_of_a_gif_have_a_length_that_decoders_know(bits: int, through: bool) -> None:
    place = struct.pack("<HHHHB", 0, 0, 1, 1, 0)
    codes = b"\x02\0\0"  # the code 0, however long it is
    found = inspect(gif(b"\x2c" + place + bytes([bits]) + codes), "image/gif")
    assert (found == Facts(5, 4)) is through


# ---- WebP


def riff(*chunks: bytes, longer: int = 0, kind: bytes = b"WEBP") -> bytes:
    body = kind + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body) + longer) + body


def part(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def lossy(width: int, height: int, mark: bytes = b"\x9d\x01\x2a") -> bytes:
    return part(b"VP8 ", b"\0\0\0" + mark + struct.pack("<HH", width, height))


def lossless(width: int, height: int, mark: int = 0x2F) -> bytes:
    return part(b"VP8L", struct.pack("<BI", mark, (width - 1) | (height - 1) << 14))


def of_three(*numbers: int) -> bytes:
    return b"".join((number - 1).to_bytes(3, "little") for number in numbers)


def canvas(width: int, height: int) -> bytes:
    return part(b"VP8X", b"\x10\0\0\0" + of_three(width, height))


def moving(width: int, height: int) -> bytes:
    return part(b"ANMF", of_three(1, 1) + of_three(width, height) + b"\0" * 4)


WEBPS = {
    "lossy": (riff(lossy(301, 202)), Facts(301, 202)),
    "lossy, to be shown larger": (riff(lossy(0x4000 | 30, 0xC000 | 20)), Facts(30, 20)),
    "lossy, of the largest sides": (riff(lossy(16383, 15)), Facts(16383, 15)),
    "lossy, of another mark": (riff(lossy(30, 20, b"\x9d\x01\x2b")), "bad_content"),
    "lossless": (riff(lossless(16384, 1)), Facts(16384, 1)),
    "lossless, high": (riff(lossless(1, 16384)), Facts(1, 16384)),
    "lossless, of another mark": (riff(lossless(30, 20, 0x2E)), "bad_content"),
    "a canvas": (riff(canvas(10_000, 300), lossy(30, 20)), Facts(10000, 300)),
    "an animation": (riff(moving(400, 300), moving(1, 1)), Facts(400, 300)),
    "an animation on a canvas": (riff(canvas(500, 400), moving(40, 30)), Facts(500, 400)),
    "the first of two pictures": (riff(lossless(30, 20), lossless(3, 2)), Facts(30, 20)),
    "the first of two lossy pictures": (riff(lossy(30, 20), lossy(3, 2)), Facts(30, 20)),
    "a lossless picture behind a lossy one": (riff(lossy(30, 20), lossless(3, 2)), Facts(30, 20)),
    "padding": (riff(part(b"ICCP", b"abc"), lossy(30, 20)), Facts(30, 20)),
    "an orientation": (riff(lossy(30, 20), part(b"EXIF", tiff(TURNED))), Facts(20, 30)),
    "an orientation behind the end of its chunk": (
        riff(
            lossy(30, 20),
            part(b"EXIF", tiff(TURNED, start=16)[:8]),
            part(b"XMP ", tiff(TURNED)[8:]),
        ),
        Facts(30, 20),
    ),
    "an orientation far behind": (
        riff(lossy(30, 20), part(b"EXIF", tiff(TURNED, start=65_000))),
        Facts(20, 30),
    ),
    "an orientation further than is read": (
        riff(lossy(30, 20), part(b"EXIF", tiff(TURNED, start=65_530))),
        Facts(30, 20),
    ),
    "a high canvas": (riff(canvas(300, 70_000), lossy(30, 20)), Facts(300, 70_000)),
    "a wide canvas": (riff(canvas(70_000, 300), lossy(30, 20)), Facts(70_000, 300)),
    "a high animation": (riff(moving(300, 70_000)), Facts(300, 70_000)),
    "a wide animation": (riff(moving(70_000, 300)), Facts(70_000, 300)),
    "a last chunk without its padding": (riff(lossless(30, 20))[:-1], Facts(30, 20)),
    "no picture": (riff(part(b"ICCP", b"abc")), "bad_content"),
    "no chunk": (riff(), "bad_content"),
    "another kind": (riff(lossy(30, 20), kind=b"WEBQ"), "type_mismatch"),
    "another container": (b"RIFX" + riff(lossy(30, 20))[4:], "type_mismatch"),
    "a byte that is not there": (riff(lossy(30, 20), longer=1), Facts(30, 20)),
    "two bytes that are not there": (riff(lossy(30, 20), longer=2), "bad_content"),
    "a chunk that is longer than the file": (
        riff(lossy(30, 20), b"ICCP\5\0\0\0abcd"),
        "bad_content",
    ),
    "a chunk behind its end": (
        riff(lossy(30, 20)) + part(b"EXIF", tiff(TURNED)),
        Facts(30, 20),
    ),
    "less than a chunk at its end": (riff(lossy(30, 20), b"ICCP\0\0"), Facts(30, 20)),
}  # fmt: skip


@pytest.mark.parametrize("name", WEBPS)
def test_a_webp_is_read_as_viewers_read_it(name: str) -> None:
    data, expected = WEBPS[name]
    assert inspect(data, "image/webp") == expected
