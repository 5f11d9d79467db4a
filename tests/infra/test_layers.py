"""What `sam build` made is what Lambda can run, and quickly."""

import importlib.util
import json
import marshal
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from local import settings, template
from local.stack import deploy
from tests.infra.rules import of

_ELF_MACHINE = {"x86_64": 62, "arm64": 183}
# pyc: magic, flags, then a hash or a time. Bit 0: by hash. Bit 1: checked against the source.
_UNCHECKED_HASH = 0b01


def parts(built: Path) -> list[Path]:
    return sorted(built.glob("*Layer")) + sorted(built.glob("*Function"))


def uv() -> str:
    found = shutil.which("uv") or str(template.ROOT / ".local" / "uv" / "bin" / "uv")
    assert os.access(found, os.X_OK), "uv is needed: pip install uv"
    return found


def test_every_module_has_bytecode_that_stays_valid_in_lambda(built: Path) -> None:
    """SAM dates every file 1980: bytecode by time is stale there, and compiled at every start."""
    modules = [path for part in parts(built) for path in part.rglob("*.py")]
    assert len(modules) > 300
    for module in modules:
        compiled = Path(importlib.util.cache_from_source(str(module)))
        header = compiled.read_bytes()[:8]
        assert header[:4] == importlib.util.MAGIC_NUMBER, module
        assert int.from_bytes(header[4:], "little") == _UNCHECKED_HASH, module


def test_bytecode_is_of_the_source_beside_it_and_names_it_as_lambda_does(built: Path) -> None:
    for part in parts(built):
        inside = "/opt" if part.name.endswith("Layer") else "/var/task"
        for module in part.rglob("*.py"):
            compiled = Path(importlib.util.cache_from_source(str(module))).read_bytes()
            assert compiled[8:16] == importlib.util.source_hash(module.read_bytes()), module
            assert (
                marshal.loads(compiled[16:]).co_filename == f"{inside}/{module.relative_to(part)}"
            )


def test_the_layer_carries_rdss_authorities(built: Path) -> None:
    ours = template.ROOT / "layers" / "kyora" / "kyora" / "rds-global-bundle.pem"
    found = built / "KyoraLayer" / "python" / "kyora" / "rds-global-bundle.pem"
    assert found.read_bytes() == ours.read_bytes()


def test_no_bytecode_without_a_source(built: Path) -> None:
    for part in parts(built):
        for compiled in part.rglob("*.pyc"):
            assert Path(importlib.util.source_from_cache(str(compiled))).exists()


def test_native_code_is_for_the_architecture_that_was_asked_for(built: Path) -> None:
    native = [path for part in parts(built) for path in part.rglob("*.so*")]
    assert any("pydantic_core" in path.name for path in native)
    for library in native:
        head = library.read_bytes()[:20]
        assert head[:4] == b"\x7fELF", library
        assert int.from_bytes(head[18:20], "little") == _ELF_MACHINE[settings.architecture()], (
            library
        )


def test_nothing_is_shipped_that_the_runtime_has_or_no_one_runs(built: Path) -> None:
    unwanted = re.compile(
        r"(^|/)(boto3|botocore|s3transfer|pip|setuptools|httpx|aiohttp|awslambdaric)(/|-)"
        r"|(^|/)(tests?|\.git|\.mypy_cache|bin)/"
        r"|\.(pyi|c|h|pyx|exe)$|RECORD$"
    )
    for part in parts(built):
        files = [str(path.relative_to(part)) for path in part.rglob("*") if path.is_file()]
        assert [name for name in files if unwanted.search(name)] == []


def test_a_layer_is_zipped_once_for_every_deploy_to_the_emulator(built: Path) -> None:
    deployed = json.loads(deploy._for_the_emulator().read_text())
    for name, layer in of(deployed, "AWS::Serverless::LayerVersion").items():
        with zipfile.ZipFile(built / layer["ContentUri"]) as archive:
            entries = archive.infolist()
            assert all(archive.read(e) == (built / name / e.filename).read_bytes() for e in entries)
        files = [path for path in (built / name).rglob("*") if path.is_file()]
        assert {e.filename for e in entries} == {str(f.relative_to(built / name)) for f in files}
        # Without times: what did not change is the same file, which a deploy leaves alone.
        assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}


def test_what_a_function_loads_is_small(built: Path, source: dict[str, Any]) -> None:
    """What it downloads and unpacks at a cold start is all of its layers together."""
    sizes = deploy.layer_sizes()
    for name, described in template.functions(source).items():
        layers = [sizes[layer["Ref"]] for layer in described["Layers"]]
        unpacked, zipped = map(sum, zip(*layers, strict=True))
        # Of make_variants half is the codecs of its photos layer.
        most = (85, 35) if name == "MakeVariantsFunction" else (45, 15)
        assert (unpacked <= most[0], zipped <= most[1]) == (True, True), (name, unpacked, zipped)


PICTURES = {
    "image/jpeg": "orientation-6.jpg",
    "image/png": "orientation-8-in-exif.png",
    "image/webp": "orientation-6.webp",
    "image/gif": "no-trailer.gif",
    "image/heic": "turned-by-irot.heic",
    "image/avif": "photo.avif",
}


def test_the_photos_layer_has_the_decoders_of_accepted_types_and_no_others(
    built: Path, tmp_path: Path
) -> None:
    """What is left out of Pillow is left out on purpose: what is there reads and writes."""
    layer = built / "PhotosLayer" / "python"
    plugins = {path.name.removesuffix("ImagePlugin.py") for path in layer.glob("PIL/*Plugin.py")}
    wanted = {"Avif", "Gif", "Jpeg", "Mpo", "Png", "WebP"}
    assert plugins == wanted | {"Tiff"}  # which reads EXIF
    for content_type, name in PICTURES.items():
        folder = tmp_path / name
        folder.mkdir()
        done = subprocess.run(
            [
                *(sys.executable, "-S", "-P", "-m", "kyora.assets.variants.render"),
                *(template.ROOT / "tests/corpus/files" / name, content_type, folder),
            ],
            env={"PYTHONPATH": f"{layer}:{built / 'KyoraLayer' / 'python'}"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert "variants" in done.stdout, (content_type, done.stdout, done.stderr)


def test_our_package_is_whole(built: Path) -> None:
    source = template.ROOT / "layers" / "kyora" / "kyora"
    made = built / "KyoraLayer" / "python" / "kyora"

    def files(folder: Path) -> set[str]:
        found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
        return {str(path) for path in found if "__pycache__" not in path.parts}

    assert files(made) == files(source)


@pytest.mark.parametrize(
    ("layer", "chosen"),
    [
        ("vendor", ["--no-dev"]),
        ("stripe", ["--only-group", "stripe"]),
        ("resend", ["--only-group", "resend"]),
        ("media", ["--only-group", "media"]),
        ("photos", ["--only-group", "photos"]),
    ],
)
def test_a_layer_is_what_the_lock_says(layer: str, chosen: list[str]) -> None:
    """`make -C layers/<layer> lock` writes the file again."""
    exported = subprocess.run(
        [
            *(uv(), "export", "--quiet", "--frozen", "--offline", *chosen, "--no-emit-project"),
            *("--no-annotate", "--no-header", "--format", "requirements-txt"),
        ],
        cwd=template.ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert (template.ROOT / f"layers/{layer}/requirements.txt").read_text() == exported.stdout


@pytest.mark.parametrize("layer", ["vendor", "stripe", "resend", "media", "photos"])
def test_every_requirement_is_pinned_by_hash(layer: str) -> None:
    text = (template.ROOT / f"layers/{layer}/requirements.txt").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip()]
    assert lines
    assert [line for line in lines if "==" not in line or "--hash=sha256:" not in line] == []


def make_vendor_layer(architecture: str, into: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--makefile", template.ROOT / "layers/vendor/Makefile", "build-VendorLayer"],
        cwd=template.ROOT / "layers" / "vendor",
        env=os.environ | {"ARTIFACTS_DIR": str(into), "ARCHITECTURE": architecture},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_vendor_layer_builds_for_another_architecture_than_this_one(tmp_path: Path) -> None:
    other = "x86_64" if settings.architecture() == "arm64" else "arm64"
    made = make_vendor_layer(other, tmp_path)
    if made.returncode and re.search(
        "fetch|error sending request|network", made.stderr, re.IGNORECASE
    ):
        pytest.skip(f"the wheels for {other} are not cached and the registry is out of reach")
    assert made.returncode == 0, made.stderr
    native = list(tmp_path.rglob("*.so"))
    assert {int.from_bytes(p.read_bytes()[18:20], "little") for p in native} == {
        _ELF_MACHINE[other]
    }


def test_an_unknown_architecture_is_refused(tmp_path: Path) -> None:
    made = make_vendor_layer("riscv", tmp_path)
    assert made.returncode != 0
    assert 'not "riscv"' in made.stderr
