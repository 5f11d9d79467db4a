"""Boxes in any order, padded and cut: accepted or refused as libheif and ffprobe do."""

import io
import shutil
import struct
import subprocess
from pathlib import Path

import pillow_heif
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kyora.assets.content import verify
from kyora.assets.content.source import Facts, Refused
from tests.integration.support import samples

FILES = Path(__file__).parents[1] / "corpus" / "files"
HEIC = (FILES / "data-before-boxes.heic").read_bytes()
FILM = (FILES / "fragmented.mp4").read_bytes()
MIB = 1 << 20


def boxes(data: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 4])
        found.append(data[at : at + length])
        at += length
    return found


def ours(data: bytes, content_type: str) -> Facts | None:
    try:
        return verify.inspect(io.BytesIO(data), content_type)
    except Refused:
        return None


def libheifs(data: bytes) -> tuple[int, int] | None:
    try:
        image = pillow_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False)
        image[0].load() if hasattr(image[0], "load") else bytes(image.data)
    except (ValueError, OSError, RuntimeError, SyntaxError, EOFError):
        return None
    return image.size


PADDING = st.sampled_from([0, 1, 100, 70_000]).map(lambda size: samples.box(b"free", b"\0" * size))


@settings(max_examples=60, deadline=None)
@given(PADDING, PADDING, st.sampled_from([b"", b"\0", b"\0" * 9, b"\r\n", b"stray bytes"]))
def test_a_padded_heic_is_the_picture_that_libheif_shows(
    before: bytes, behind: bytes, tail: bytes
) -> None:
    """Padding behind the data moves nothing that is addressed."""
    ftyp, mdat, meta = boxes(HEIC)
    data = ftyp + mdat + before + meta + behind + tail
    facts = ours(data, "image/heic")
    assert facts is not None
    assert (facts.width, facts.height) == libheifs(data)


@pytest.mark.parametrize("size", [MIB, 3 * MIB])
def test_boxes_behind_megabytes_of_data_are_found(size: int) -> None:
    ftyp, mdat, meta = boxes(HEIC)
    data = ftyp + mdat + samples.box(b"free", b"\0" * size) + meta
    assert ours(data, "image/heic") == Facts(160, 120)
    assert libheifs(data) == (160, 120)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(HEIC)))
def test_a_cut_heic_is_refused_as_libheif_refuses_it(length: int) -> None:
    data = HEIC[:length]
    # libheif draws what it has of a cut picture, and both read what lacks nothing.
    if libheifs(data) is None:
        assert ours(data, "image/heic") is None
    if ours(data, "image/heic") is not None:
        assert libheifs(data) == (160, 120)


def long_box(box: bytes) -> bytes:
    """The same box with a size of 64 bits."""
    return struct.pack(">I4sQ", 1, box[4:8], len(box) + 8) + box[8:]


def endless(box: bytes) -> bytes:
    """The same box with the size that means: to the end of the file."""
    return b"\0\0\0\0" + box[4:]


@settings(max_examples=100, deadline=None)
@given(st.permutations([b"moov", b"mdat", b"free", b"udta"]), st.booleans(), st.booleans())
def test_a_film_is_read_with_its_boxes_in_any_order(
    order: list[bytes], long: bool, open_end: bool
) -> None:
    film = {box[4:8]: box for box in boxes(samples.movie(b"isom"))}
    film |= {b"free": samples.box(b"free", b"\0" * 40), b"udta": samples.box(b"udta")}
    parts = [long_box(film[name]) if long else film[name] for name in order]
    if open_end and not long:
        parts[-1] = endless(parts[-1])
    assert ours(film[b"ftyp"] + b"".join(parts), "video/mp4") == Facts(64, 48, 2500)


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffprobe is not installed")
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_a_film_that_we_accept_in_another_order_is_one_that_ffprobe_plays(
    draw: st.DataObject,
) -> None:
    """Only padding moves: fragments address their data from their own start."""
    parts = boxes(FILM)
    at = draw.draw(st.integers(1, len(parts)))
    parts.insert(at, draw.draw(PADDING))
    data = b"".join(parts) + draw.draw(st.sampled_from([b"", b"\0\0", b"\0" * 50]))
    facts = ours(data, "video/mp4")
    done = subprocess.run(
        [
            *("ffprobe", "-v", "quiet", "-show_entries", "stream=width,height", "-of", "csv=p=0"),
            "-",
        ],
        input=data,
        capture_output=True,
        check=False,
    )
    assert facts is not None
    assert f"{facts.width},{facts.height}".encode() in done.stdout


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(FILM) - 1))
def test_a_film_cut_in_a_box_is_refused(length: int) -> None:
    ends, at = set(), 0
    for box in boxes(FILM):
        at += len(box)
        ends |= set(range(at, at + 8))  # less than a box behind it
    facts = ours(FILM[:length], "video/mp4")
    assert facts is None or length in ends
