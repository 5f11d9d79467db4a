"""Variants a second and peak memory of make_variants' decoding process, beside Pillow alone.

Both make three sizes in two formats of the same photographs, in turns, two at a time. "Pillow
alone" is what a script would do: open the file in a process that has imported Pillow already, and
for each size make a thumbnail of the whole picture, upright, without metadata.

    python -m bench.photos
"""

import io
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from PIL import Image, ImageFilter, ImageOps

from kyora.assets.variants import child, render
from local.settings import ROOT

RESULTS = ROOT / "bench" / "photos.json"
_PHOTOS, _ROUNDS, _AT_ONCE = 4, 3, 2
# A phone's photograph, the largest that is decoded whole, and the largest that may be uploaded.
SHAPES = {
    "12 MP JPEG": (4032, 3024, "JPEG", "image/jpeg"),
    "12 MP HEIC": (4032, 3024, "HEIF", "image/heic"),
    "64 MP PNG": (9200, 6900, "PNG", "image/png"),
    "64 MP WebP": (9200, 6900, "WEBP", "image/webp"),
    "245 MP JPEG": (16000, 15300, "JPEG", "image/jpeg"),
}


def photograph(width: int, height: int, kind: str) -> bytes:
    """Return a picture with the detail of a photograph: soft shapes, some grain."""
    small = Image.merge("RGB", [Image.effect_noise((96, 72), 90) for _ in range(3)])
    picture = small.filter(ImageFilter.GaussianBlur(2)).resize((width, height))
    grain = Image.effect_noise((512, 512), 24).convert("RGB")
    for x in range(0, width, 512):
        for y in range(0, height, 512):
            at = (x, y, min(x + 512, width), min(y + 512, height))
            tile = grain.crop((0, 0, at[2] - x, at[3] - y))
            picture.paste(Image.blend(picture.crop(at), tile, 0.15), at)
    to = io.BytesIO()
    options = {"compress_level": 1} if kind == "PNG" else {"quality": 90}
    picture.save(to, kind, **options)
    return to.getvalue()


def ours(path: Path, content_type: str) -> int:
    """Make the variants as make_variants does; return how many."""
    with tempfile.TemporaryDirectory() as name:
        return len(child.render(path, content_type, Path(name)))


def alone(path: Path, _content_type: str) -> int:
    """Make the same with a few lines of Pillow; return how many."""
    made = 0
    for side in render.SIZES.values():
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            upright.thumbnail((side, side))
            for kind, options in (
                ("WEBP", {"quality": 80, "method": 4}),
                ("JPEG", {"quality": 82, "progressive": True, "optimize": True}),
            ):
                upright.convert("RGB").save(io.BytesIO(), kind, **options)
                made += 1
    return made


def rate(make: Callable[[Path, str], int], paths: list[Path], pool: object) -> float:
    """Return variants per second."""
    began = time.monotonic()
    made = sum(pool.map(make, paths, ["image/jpeg"] * len(paths)))  # type: ignore[attr-defined]
    return made / (time.monotonic() - began)


def peak(data: bytes, content_type: str) -> tuple[float, float]:
    """Return the decoding process's largest resident memory in MB, and its seconds."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "original"
        path.write_bytes(data)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
            return fresh.submit(_peak, path, content_type).result()


def _peak(path: Path, content_type: str) -> tuple[float, float]:
    began = time.monotonic()
    ours(path, content_type)
    spent = time.monotonic() - began
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024, spent


def main() -> None:
    """Measure, print, and keep the figures."""
    from pillow_heif import register_heif_opener

    register_heif_opener()
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        paths = []
        for number in range(_PHOTOS):
            path = Path(name) / f"{number}.jpg"
            path.write_bytes(photograph(*SHAPES["12 MP JPEG"][:2], "JPEG"))
            paths.append(path)
        with (
            ThreadPoolExecutor(_AT_ONCE) as threads,
            ProcessPoolExecutor(_AT_ONCE, mp_context=get_context("spawn")) as processes,
        ):
            rate(alone, paths[:_AT_ONCE], processes)  # they import Pillow
            pairs = [
                (rate(ours, paths, threads), rate(alone, paths, processes)) for _ in range(_ROUNDS)
            ]
    mine, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"12 MP photographs, {_AT_ONCE} at once on {os.cpu_count()} processors")
    print(f"  make_variants  {mine:6.1f} variants/s")
    print(f"  Pillow alone   {theirs:6.1f} variants/s")
    print(f"  ratio          {mine / theirs:6.2f}")
    figures["12 MP JPEG, variants per second"] = {
        "make_variants": round(mine, 1),
        "Pillow alone": round(theirs, 1),
        "ratio": round(mine / theirs, 2),
    }
    for shape, (width, height, kind, content_type) in SHAPES.items():
        megabytes, spent = peak(photograph(width, height, kind), content_type)
        print(f"  {shape:12} {megabytes:6.0f} MB  {spent:5.1f} s")
        figures[shape] = {"peak MB": round(megabytes), "seconds": round(spent, 2)}
    RESULTS.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
