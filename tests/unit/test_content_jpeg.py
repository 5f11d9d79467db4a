"""A JPEG without its end mark is accepted when libjpeg shows all of it, and refused when not."""

import io
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from kyora.assets.content import verify
from kyora.assets.content.source import Facts, Refused

END = b"\xff\xd9"
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
