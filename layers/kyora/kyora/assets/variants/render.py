"""Decode an image and encode its variants. The only module that calls an image library.

It runs in a process of its own (`child`): decoders are written in C and read what strangers made.
What is decoded was verified before, and only the decoder of its type can be reached.

    original ── decode ── to sRGB or RGB with its profile ── 1920 ── upright ── 960 ── 320
                                                               │                │      │
                                                          webp, jpeg       webp, jpeg  …

Nothing of the original's metadata is written: EXIF, GPS, XMP, comments and embedded thumbnails
stay behind. An animation becomes a still, its first frame.
"""

import io
import json
import resource
import sys
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageCms, ImageFile

from kyora.assets.variants import colours

SIZES = {"small": 320, "medium": 960, "large": 1920}  # pixels of the longer side
SUFFIXES = {"webp": "webp", "jpeg": "jpg"}  # of each format
# Decoded at once, in pixels. A baseline JPEG is decoded at a fraction of its size, so it may have
# more: as many as an upload may.
MAX_PIXELS = 64_000_000
MAX_MEMORY = 1536 << 20  # bytes of address space; make_variants has 2048 MB
_MAX_CPU = 60  # seconds
_MAX_OUTPUT = 32 << 20  # bytes of one variant
_MAX_PROFILE = 64 << 10  # bytes; a larger ICC profile is applied instead of kept
# Pillow's decoder for each type that verification can have found.
_DECODERS = {
    "image/jpeg": "JPEG",
    "image/png": "PNG",
    "image/webp": "WEBP",
    "image/gif": "GIF",
    "image/heic": "HEIF",
    "image/heif": "HEIF",
    "image/avif": "AVIF",
}
_ORIENTATION = 0x0112  # EXIF's tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Refused(Exception):
    """There will be no variants; `args[0]` is the reason."""


class _Picture(NamedTuple):
    """Decoded pixels, RGB or RGBA, with the profile that they are in."""

    pixels: Image.Image
    profile: bytes | None


def render(path: Path, content_type: str, folder: Path) -> list[dict[str, Any]]:
    """Write the variants of an image to `folder`; return name, format, size and file of each.

    A variant is never larger than the image: of the sizes that the image does not reach, only the
    smallest is made, as large as the image is. Raises Refused.
    """
    large, made = max(SIZES.values()), list[dict[str, Any]]()
    with _opened(path, content_type) as image:
        picture = _decoded(image, large)
    longest = max(picture.pixels.size)
    wanted = [name for name, side in SIZES.items() if side < longest]
    wanted += [name for name, side in SIZES.items() if side >= longest][:1]
    pixels = picture.pixels
    for name in reversed(wanted):  # each from the next larger one
        pixels = _shrunk(pixels, SIZES[name])
        for kind, suffix in SUFFIXES.items():
            data = _encoded(pixels, picture.profile, kind)
            file = folder / f"{name}.{suffix}"
            file.write_bytes(data)
            width, height = pixels.size
            made.append(
                {
                    "name": name,
                    "format": kind,
                    "width": width,
                    "height": height,
                    "size": len(data),
                    "file": file.name,
                }
            )
    return made


def _opened(path: Path, content_type: str) -> ImageFile.ImageFile:
    """Read the header, with the decoder of this type alone; refuse what is too large to decode."""
    decoder = _DECODERS[content_type]
    if decoder == "HEIF":
        from pillow_heif import register_heif_opener

        # Without them an embedded thumbnail, which may show another picture, is never decoded.
        register_heif_opener(
            thumbnails=False, depth_images=False, aux_images=False, decode_threads=2
        )
    # Verification has found the picture complete; some cameras leave out the mark of its end.
    ImageFile.LOAD_TRUNCATED_IMAGES = decoder == "JPEG"
    Image.MAX_IMAGE_PIXELS = None  # it is held here, with a reason of our own
    image = Image.open(path, formats=[decoder])
    if decoder == "JPEG" and not image.info.get("progressive"):
        _draft(image, max(SIZES.values()))
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise Refused("too_many_pixels")
    return image


def _draft(image: ImageFile.ImageFile, side: int) -> None:
    """Have a baseline JPEG decoded at a half, a quarter or an eighth, if that is still enough."""
    longest = max(image.size)
    if longest > side:
        width, height = (max(1, round(n * side / longest)) for n in image.size)
        image.draft(image.mode, (width, height))


def _decoded(image: ImageFile.ImageFile, side: int) -> _Picture:
    image.load()
    pixels: Image.Image = image
    if pixels.mode.startswith("I;16"):  # sixteen bits of grey: Pillow would clip them
        pixels = pixels.point(lambda value: value / 256).convert("L")
    if pixels.mode not in ("RGB", "RGBA", "L", "CMYK"):
        clear = pixels.has_transparency_data
        pixels = pixels.convert("RGBA" if clear else "RGB")
    elif pixels.mode in ("RGB", "L") and "transparency" in image.info:
        pixels = pixels.convert("RGBA")
    pixels = _shrunk(pixels, side)
    named = colours.profile_of(image.info.get("nclx_profile"))
    pixels, profile = _coloured(pixels, image.info.get("icc_profile") or named)
    if pixels.mode == "RGBA" and pixels.getchannel("A").getextrema() == (255, 255):
        pixels = pixels.convert("RGB")
    return _Picture(_turned(pixels, image), profile)


def _shrunk(pixels: Image.Image, side: int) -> Image.Image:
    """Shrink to at most `side` pixels, keeping the shape; a side never becomes 0."""
    longest = max(pixels.size)
    if longest <= side:
        return pixels
    width, height = (max(1, round(n * side / longest)) for n in pixels.size)
    return pixels.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)


def _coloured(pixels: Image.Image, profile: bytes | None) -> tuple[Image.Image, bytes | None]:
    """Return RGB or RGBA and the profile to keep.

    A profile of RGB colours is kept; one of printing inks, of grey, or a huge one is applied, and
    the result is sRGB.
    """
    if not profile:
        return _rgb(pixels), None
    space = profile[16:20]  # ICC.1, 7.2.8: the data colour space
    if space == b"RGB " and pixels.mode in ("RGB", "RGBA") and len(profile) <= _MAX_PROFILE:
        return pixels, profile
    if {b"RGB ": "RGB", b"CMYK": "CMYK", b"GRAY": "L"}.get(space) != pixels.mode:
        return _rgb(pixels), None  # it describes other colours than there are
    try:
        found = ImageCms.profileToProfile(
            pixels, io.BytesIO(profile), ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError, ValueError):
        return _rgb(pixels), None
    return found or _rgb(pixels), None


def _rgb(pixels: Image.Image) -> Image.Image:
    return pixels if pixels.mode in ("RGB", "RGBA") else pixels.convert("RGB")


def _turned(pixels: Image.Image, image: ImageFile.ImageFile) -> Image.Image:
    """Apply EXIF's orientation. libheif has applied a HEIF's own; Pillow states AVIF's as EXIF."""
    turn = None
    if image.format != "HEIF" and image.info.get("exif"):
        exif = Image.Exif()
        try:
            exif.load(image.info["exif"])
            turn = _UPRIGHT.get(exif.get(_ORIENTATION, 1))
        except (SyntaxError, ValueError, TypeError, KeyError, OSError):
            turn = None  # damaged EXIF turns nothing, in browsers neither
    return pixels.transpose(turn) if turn is not None else pixels


def _encoded(pixels: Image.Image, profile: bytes | None, kind: str) -> bytes:
    """Encode a fresh picture: none of what the decoder noted goes along."""
    if kind == "jpeg" and pixels.mode == "RGBA":
        flat = Image.new("RGB", pixels.size, "white")
        flat.paste(pixels, mask=pixels.getchannel("A"))
        pixels = flat
    clean = pixels.copy()
    clean.info = {}
    to = io.BytesIO()
    if kind == "webp":
        clean.save(to, "WEBP", quality=80, method=4, icc_profile=profile or "")
    else:
        clean.save(
            to, "JPEG", quality=82, progressive=True, optimize=True, icc_profile=profile or b""
        )
    return to.getvalue()


def limit() -> None:
    """Limit this process: memory, processor time, size of a file, and no core dump."""
    for what, most in (
        (resource.RLIMIT_AS, MAX_MEMORY),
        (resource.RLIMIT_CPU, _MAX_CPU),
        (resource.RLIMIT_FSIZE, _MAX_OUTPUT),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


def main(path: str, content_type: str, folder: str) -> None:
    """Render in this process; print the variants, or why there are none, as JSON."""
    limit()
    warnings.simplefilter("ignore")  # about metadata, which is left out
    answer: dict[str, Any]
    try:
        answer = {"variants": render(Path(path), content_type, Path(folder))}
    except Refused as refusal:
        answer = {"refused": refusal.args[0]}
    except MemoryError:
        answer = {"refused": "too_heavy"}
    except Exception as error:  # a decoder's, of any kind: it cannot read the file
        answer = {"refused": "bad_content", "error": type(error).__name__}
    print(json.dumps(answer))  # the answer to the parent


if __name__ == "__main__":
    main(*sys.argv[1:])
