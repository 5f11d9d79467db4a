"""Files of real programs: each has its verdict and shows what other readers show."""

import csv
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pillow_heif
import pytest
from PIL import Image, ImageFile, ImageOps

from kyora.assets import rules
from kyora.assets.content import verify
from kyora.assets.content.source import Facts, Refused

CORPUS = Path(__file__).parents[1] / "corpus"
with (CORPUS / "verdicts.tsv").open(encoding="utf-8") as table:
    LINES = {line["file"]: line for line in csv.DictReader(table, delimiter="\t")}
# What an extension is not usually: a recording of sound alone.
ANNOUNCED = {"sound-alone.webm": "audio/webm"}
IMAGES = ("jpg", "jpeg", "jfif", "png", "gif", "webp", "heic", "avif")
PLAYED = ("mp4", "m4v", "mov", "webm", "mp3", "wav", "ogg", "opus", "m4a", "aac")


def accepted(*extensions: str) -> list[str]:
    return [
        name
        for name, line in LINES.items()
        if line["verdict"] == "ok" and name.rpartition(".")[2] in extensions
    ]


def number(text: str) -> int | None:
    return int(text) if text else None


def inspect(name: str) -> Facts:
    last = name.rpartition(".")[2]
    with (CORPUS / "files" / name).open("rb") as file:
        return verify.inspect(file, ANNOUNCED.get(name, rules.TYPES[last][0]))


def test_every_file_has_a_line_and_the_corpus_is_small() -> None:
    files = {path.name: path.stat().st_size for path in (CORPUS / "files").iterdir()}
    assert set(files) == set(LINES)
    assert max(files.values()) < 200_000
    assert sum(files.values()) < 2_000_000
    assert {name.rpartition(".")[2] for name in files} >= {
        last for last in rules.TYPES if last not in ("doc", "pptx", "heif", "oga", "zip", "txt")
    }


@pytest.mark.parametrize("name", LINES)
def test_a_real_file_has_the_right_verdict(name: str) -> None:
    line = LINES[name]
    expected = Facts(*(number(line[key]) for key in ("width", "height", "milliseconds")))
    try:
        found: Facts | tuple[str, str] = inspect(name)
    except Refused as refused:
        found = (refused.reason, refused.detected or "")
    assert found == (expected if line["verdict"] == "ok" else (line["verdict"], line["detected"]))


@pytest.mark.parametrize("name", accepted(*IMAGES))
def test_a_picture_has_the_size_that_pillow_and_libheif_show(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # as viewers do
    path = CORPUS / "files" / name
    facts = inspect(name)
    if name.endswith((".heic", ".avif")):
        size = pillow_heif.open_heif(path).size
    else:
        with Image.open(path) as image:
            large = image.width * image.height > 1_000_000  # turning it would decode it
            size = image.size if large else ImageOps.exif_transpose(image).size
    assert (facts.width, facts.height) == size


def probe(name: str) -> dict[str, Any]:
    if shutil.which("ffprobe") is None:
        pytest.skip("ffprobe is not installed (Debian's ffmpeg)")
    done = subprocess.run(
        [
            *("ffprobe", "-v", "error", "-show_format", "-show_streams", "-of", "json"),
            CORPUS / "files" / name,
        ],
        check=True,
        capture_output=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", accepted(*PLAYED))
def test_a_film_or_a_sound_has_the_size_and_duration_that_ffprobe_shows(name: str) -> None:
    facts, probed = inspect(name), probe(name)
    duration = probed["format"].get("duration")  # nothing, in what was written live
    if duration is not None and facts.duration_ms is not None:
        assert facts.duration_ms == pytest.approx(1000 * float(duration), abs=30)
    assert facts.duration_ms is not None
    for stream in probed["streams"]:
        if stream["codec_type"] == "video":
            turns = [int(side.get("rotation", 0)) for side in stream.get("side_data_list", [])]
            size = (stream["width"], stream["height"])
            turned = any(turn % 180 for turn in turns)
            assert (facts.width, facts.height) == (size[::-1] if turned else size)
