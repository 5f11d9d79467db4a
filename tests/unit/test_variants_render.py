"""What decoding and encoding make of real images, and of those made to harm."""

import csv
import io
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageCms
from pillow_heif import register_heif_opener

from kyora.assets import filename, rules
from kyora.assets.variants import child, colours, render, variant_row
from tests.integration.support import photos, samples

CORPUS = Path(__file__).parents[1] / "corpus"
type Made = dict[tuple[str, str], Image.Image]


def accepted() -> dict[str, tuple[int, int]]:
    """The images of the corpus that are accepted, with the size that they are shown in."""
    with (CORPUS / "verdicts.tsv").open() as file:
        rows = [row for row in csv.reader(file, delimiter="\t") if len(row) > 4 and row[1] == "ok"]
    found = {row[0]: row for row in rows if content_type(row[0]).startswith("image/")}
    return {name: (int(row[3]), int(row[4])) for name, row in found.items()}


def content_type(name: str) -> str:
    return rules.TYPES.get(filename.extension(name), ("",))[0]


def made(data: bytes, kind: str, folder: Path) -> Made:
    """Render in a process of its own; return the variants by name and format."""
    (folder / "original").write_bytes(data)
    found = {}
    for item in child.render(folder / "original", kind, folder):
        image = Image.open(folder / item["file"])
        image.load()
        assert (image.format, image.size) == (
            item["format"].upper(),
            (item["width"], item["height"]),
        )
        assert item["size"] == (folder / item["file"]).stat().st_size
        found[item["name"], item["format"]] = image
    return found


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    to = io.BytesIO()
    image.save(to, kind, **options)
    return to.getvalue()


@pytest.mark.parametrize("name", accepted())
def test_every_accepted_image_of_the_corpus_has_variants_as_it_is_shown(
    name: str, tmp_path: Path
) -> None:
    width, height = accepted()[name]
    data = (CORPUS / "files" / name).read_bytes()
    for (size, _), image in made(data, content_type(name), tmp_path).items():
        side = min(render.SIZES[size], max(width, height))
        scale = side / max(width, height)
        assert max(image.size) == side
        assert abs(image.width - width * scale) <= 1, image.size
        assert abs(image.height - height * scale) <= 1, image.size


@pytest.mark.parametrize(
    ("longest", "wanted"),
    [
        (100, {"small": 100}),
        (320, {"small": 320}),
        (321, {"small": 320, "medium": 321}),
        (960, {"small": 320, "medium": 960}),
        (1500, {"small": 320, "medium": 960, "large": 1500}),
        (1920, {"small": 320, "medium": 960, "large": 1920}),
        (2500, {"small": 320, "medium": 960, "large": 1920}),
    ],
)
def test_nothing_is_enlarged(longest: int, wanted: dict[str, int], tmp_path: Path) -> None:
    found = made(encode(Image.new("RGB", (longest, 20), "red"), "PNG"), "image/png", tmp_path)
    assert {name: image.width for (name, _), image in found.items()} == wanted
    assert len(found) == 2 * len(wanted)


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_an_image_stands_upright(orientation: int, tmp_path: Path) -> None:
    sample = photos.jpeg(400, 300, orientation)
    for image in made(sample.data, "image/jpeg", tmp_path).values():
        rgb, (width, height) = image.convert("RGB"), image.size
        assert width > height
        corners = [(8, 8), (width - 8, 8), (8, height - 8), (width - 8, height - 8)]
        seen = [tuple(part > 127 for part in rgb.getpixel(at)) for at in corners]  # type: ignore[union-attr]
        red, lime = (True, False, False), (False, True, False)
        assert seen == [red, lime, (False, False, True), (True, True, True)]


@pytest.mark.parametrize("name", ["orientation-5.jfif", "orientation-6.webp", "photo.avif"])
def test_nothing_of_the_metadata_is_written(name: str, tmp_path: Path) -> None:
    for data, kind in (
        (photos.small().data, "image/jpeg"),
        ((CORPUS / "files" / name).read_bytes(), content_type(name)),
    ):
        for image in made(data, kind, tmp_path).values():
            assert dict(image.getexif()) == {}
            left = image.info.keys() - {"icc_profile", "jfif", "jfif_version", "jfif_unit"}
            left -= {"jfif_density", "progressive", "progression"}
            assert left <= {"loop", "background", "timestamp", "duration"}  # of any WebP
        for file in tmp_path.glob("*.*"):
            assert [secret for secret in photos.SECRETS if secret in file.read_bytes()] == []


def test_a_profile_of_rgb_is_kept_and_others_are_applied(tmp_path: Path) -> None:
    kept = made(photos.small().data, "image/jpeg", tmp_path)
    assert {image.info["icc_profile"] for image in kept.values()} == {photos.profile()}
    grey = encode(Image.new("L", (40, 30), 128), "PNG", icc_profile=photos.profile())
    for image in made(grey, "image/png", tmp_path).values():  # it describes other colours
        assert "icc_profile" not in image.info
        assert image.mode == "RGB"
    huge = photos.profile() + bytes(100_000)
    for image in made(
        encode(Image.new("RGB", (40, 30), "red"), "PNG", icc_profile=huge), "image/png", tmp_path
    ).values():
        assert "icc_profile" not in image.info


# Colours of sRGB as Display P3 writes them, by the matrices of CSS Color 4, 10.2.
IN_P3 = {(255, 0, 0): (234, 51, 35), (64, 192, 96): (103, 189, 106), (128, 128, 128): (128,) * 3}


def test_a_heic_that_names_display_p3_gets_its_profile(tmp_path: Path) -> None:
    register_heif_opener()
    picture = Image.new("RGB", (300, 100))
    for band, colour in enumerate(IN_P3.values()):
        picture.paste(colour, (band * 100, 0, band * 100 + 100, 100))
    data = encode(picture, "HEIF", quality=95, color_primaries=12, transfer_characteristics=13)
    assert b"colrnclx" in data
    assert b"colrprof" not in data
    for image in made(data, "image/heic", tmp_path).values():
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        assert ImageCms.getProfileDescription(profile).strip() == "Display P3"
        seen = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"))
        assert seen is not None
        for band, colour in enumerate(IN_P3):
            assert seen.getpixel((band * 100 + 50, 50)) == pytest.approx(colour, abs=6)


@pytest.mark.parametrize(
    ("nclx", "named"),
    [
        (None, False),
        ({"color_primaries": 1, "transfer_characteristics": 13}, False),
        ({"color_primaries": 9, "transfer_characteristics": 16}, False),
        ({"color_primaries": 12, "transfer_characteristics": 16}, False),
        ({"color_primaries": 12, "transfer_characteristics": 18}, False),
        ({"color_primaries": 12, "transfer_characteristics": 13}, True),
        ({"color_primaries": 12, "transfer_characteristics": 1}, True),
    ],
)
def test_only_display_p3_without_hdr_has_a_profile(
    nclx: dict[str, int] | None, named: bool
) -> None:
    assert colours.profile_of(nclx) == (colours.display_p3() if named else None)


def test_a_heics_own_profile_is_kept_whatever_the_numbers_are(tmp_path: Path) -> None:
    register_heif_opener()
    picture = Image.new("RGB", (40, 30), "red")
    data = encode(picture, "HEIF", icc_profile=photos.profile(), color_primaries=12)
    for image in made(data, "image/heic", tmp_path).values():
        assert image.info["icc_profile"] == photos.profile()


def test_inks_become_colours(tmp_path: Path) -> None:
    data = (CORPUS / "files" / "progressive-cmyk.jpeg").read_bytes()
    for image in made(data, "image/jpeg", tmp_path).values():
        assert image.mode == "RGB"


def test_transparency_stays_in_webp_and_is_white_in_jpeg(tmp_path: Path) -> None:
    data = encode(Image.new("RGBA", (40, 30), (255, 0, 0, 0)), "PNG")
    found = made(data, "image/png", tmp_path)
    assert found["small", "webp"].getchannel("A").getextrema() == (0, 0)
    assert found["small", "jpeg"].getpixel((20, 15)) == (255, 255, 255)
    opaque = encode(Image.new("RGBA", (40, 30), "red"), "PNG")
    assert made(opaque, "image/png", tmp_path)["small", "webp"].mode == "RGB"


def test_sixteen_bits_of_grey_keep_their_shades(tmp_path: Path) -> None:
    picture = Image.new("I;16", (64, 64), 32768)
    found = made(encode(picture, "PNG"), "image/png", tmp_path)["small", "jpeg"]
    assert found.convert("L").getpixel((32, 32)) == pytest.approx(128, abs=2)


@pytest.mark.parametrize(("kind", "name"), [("image/gif", "GIF"), ("image/webp", "WEBP")])
def test_an_animation_becomes_its_first_frame(kind: str, name: str, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    data = encode(frames[0], name, save_all=True, append_images=frames[1:])
    for image in made(data, kind, tmp_path).values():
        assert getattr(image, "n_frames", 1) == 1
        red, _, blue = image.convert("RGB").getpixel((20, 15))  # type: ignore[misc]
        assert red > 200 > 50 > blue


# ---- what is made to harm


def reason(data: bytes, kind: str, folder: Path, **options: Any) -> str:
    (folder / "original").write_bytes(data)
    with pytest.raises(child.Refused) as refused:
        child.render(folder / "original", kind, folder, **options)
    assert {path.name for path in folder.iterdir()} == {"original"}
    return refused.value.reason


def bomb(width: int, height: int) -> bytes:
    """A small PNG of many pixels: a row of zeros, over and over."""
    row = zlib.compressobj(9)
    pixels = b"".join(row.compress(bytes(1 + width)) for _ in range(height)) + row.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + samples.chunk(b"IHDR", header)
        + samples.chunk(b"IDAT", pixels)
        + samples.chunk(b"IEND", b"")
    )


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    data = bomb(10_000, 10_000)
    assert len(data) < 200_000
    assert reason(data, "image/png", tmp_path) == "too_many_pixels"


def test_a_large_baseline_jpeg_is_decoded_at_a_fraction(tmp_path: Path) -> None:
    picture = Image.new("L", (10_000, 8_000), 200)
    assert picture.width * picture.height > render.MAX_PIXELS
    found = made(encode(picture, "JPEG"), "image/jpeg", tmp_path)
    assert found["large", "webp"].size == (1920, 1536)
    progressive = encode(picture, "JPEG", progressive=True)  # kept whole in memory by its decoder
    for path in tmp_path.iterdir():
        path.unlink()
    assert reason(progressive, "image/jpeg", tmp_path) == "too_many_pixels"


@pytest.mark.parametrize("data", [b"", b"MZ", b"\xff\xd8\xff\xe0", samples.png(64, 64)[:60]])
@pytest.mark.parametrize("kind", ["image/jpeg", "image/png", "image/webp", "image/heic"])
def test_a_broken_file_is_refused(data: bytes, kind: str, tmp_path: Path) -> None:
    assert reason(data, kind, tmp_path) == "bad_content"


@pytest.mark.parametrize("kind", ["image/png", "image/webp", "image/gif", "image/heic"])
def test_a_file_is_read_by_the_decoder_of_its_type_alone(kind: str, tmp_path: Path) -> None:
    for other in ("JPEG", "TIFF", "BMP", "PPM", "ICO", "PDF"):
        data = encode(Image.new("RGB", (40, 30)), other)
        assert reason(data, kind, tmp_path) == "bad_content"


def test_what_takes_too_much_ends_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert reason(photos.small().data, "image/jpeg", tmp_path, seconds=0.001) == "too_slow"
    module = tmp_path / "harm.py"
    for harm, wanted in {
        'print(\'{"refused": "too_heavy"}\') if _full() else None': "too_heavy",
        "os.abort()": "too_heavy",
        "os.kill(os.getpid(), 24)": "too_slow",
    }.items():
        module.write_text(
            "import os\nfrom kyora.assets.variants import render\n"
            "def _full():\n    render.limit()\n    try:\n        bytearray(render.MAX_MEMORY)\n"
            f"    except MemoryError:\n        return True\n{harm}\n"
        )
        monkeypatch.setattr(child, "_PYTHON", (sys.executable, "-P", str(module)))
        (tmp_path / "original").write_bytes(b"")
        with pytest.raises(child.Refused, match=wanted):
            child.render(tmp_path / "original", "image/jpeg", tmp_path)


def test_the_decoding_process_has_no_setting_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("DATABASE_URL", "postgresql://secret")
    module = tmp_path / "look.py"
    module.write_text(
        "import json, os\nprint(json.dumps({'variants': [{k: v} for k, v in os.environ.items()]}))"
    )
    monkeypatch.setattr(child, "_PYTHON", (sys.executable, "-P", str(module)))
    seen = {key for item in child.render(module, "image/jpeg", tmp_path) for key in item}
    assert seen <= {
        *("PYTHONPATH", "LD_LIBRARY_PATH", "PYTHONDONTWRITEBYTECODE", "MALLOC_ARENA_MAX"),
        "LC_CTYPE",  # Python's own
    }
    assert "secret" not in str(child._environment())


def test_the_rows_know_the_sizes_and_formats_that_are_made() -> None:
    assert tuple(render.SIZES) == variant_row.NAMES
    assert {kind: suffix for kind, (suffix, _) in variant_row.FORMATS.items()} == render.SUFFIXES
    assert set(render._DECODERS) == {
        kind for kinds in rules.TYPES.values() for kind in kinds if kind.startswith("image/")
    }
    assert ImageCms.ImageCmsProfile(io.BytesIO(photos.profile()))
