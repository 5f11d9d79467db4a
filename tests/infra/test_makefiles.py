"""The build recipes work wherever the checkout is."""

import shutil
import subprocess
from pathlib import Path

import pytest

from local.settings import ROOT

RECIPES = sorted(
    str(path.relative_to(ROOT))
    for path in [ROOT / "functions/Makefile", *ROOT.glob("layers/*/Makefile")]
)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_works_in_a_path_with_spaces_and_quotes(recipe: str, tmp_path: Path) -> None:
    """As `sam build` calls it: by its whole path, in a copy of the folder somewhere else."""
    checkout = tmp_path / "a seller's  files" / "kyora"
    for name in ("layers/packages.mk", recipe):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, checkout / name)
    elsewhere = tmp_path / "scratch"
    elsewhere.mkdir()
    target = f"build-{Path(recipe).parent.name.capitalize()}Layer"
    done = subprocess.run(
        ["make", "--dry-run", "--makefile", str(checkout / recipe), target],
        cwd=elsewhere,
        env={"PATH": "/usr/bin:/bin", "ARTIFACTS_DIR": str(tmp_path / "out")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    if "stripe" in recipe:  # without a uv on PATH, the one that the bootstrap installs
        assert f'"{checkout.parent}/kyora/layers/stripe/../../.local/uv/bin/uv"' in done.stdout
