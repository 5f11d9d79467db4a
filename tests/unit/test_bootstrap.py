"""The environments are made once, and again when they are stale, moved or broken."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from local import bootstrap

# What uv would do, as far as it matters here: a folder whose Python starts.
UV = f"""#!/bin/sh
echo "$UV_PROJECT_ENVIRONMENT" >> calls
mkdir -p "$UV_PROJECT_ENVIRONMENT/bin"
ln -sf "{sys.executable}" "$UV_PROJECT_ENVIRONMENT/bin/python"
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root, programs = tmp_path / "a seller's project", tmp_path / "bin"
    for folder in (root, programs):
        folder.mkdir()
    for name in ("uv.lock", "pyproject.toml", ".python-version"):
        (root / name).write_text(name)
    (programs / "uv").write_text(UV)
    (programs / "uv").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(bootstrap, "ROOT", root)
    return root


def installed(project: Path) -> list[str]:
    """Set everything up and return what was installed for that."""
    (project / "calls").unlink(missing_ok=True)
    bootstrap.main()
    calls = project / "calls"
    return calls.read_text().split() if calls.exists() else []


BOTH = [".venv", ".local/ministack"]


def test_the_first_start_installs_and_the_second_finds_everything(project: Path) -> None:
    assert installed(project) == BOTH
    assert installed(project) == []


def test_a_changed_lock_file_is_installed_into_what_is_there(project: Path) -> None:
    installed(project)
    (project / ".venv/kept").touch()
    (project / "uv.lock").write_text("another")
    assert installed(project) == BOTH
    assert (project / ".venv/kept").exists()


def test_an_environment_whose_python_is_gone_is_made_again(project: Path) -> None:
    installed(project)
    python = project / ".venv/bin/python"
    python.unlink()
    python.symlink_to("/nowhere/python3.13")
    assert installed(project) == [".venv"]
    assert bootstrap.works(project / ".venv")


def test_a_moved_checkout_makes_its_environments_again(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(project)
    (project / ".venv/bin/program").write_text(f"#!{project}/.venv/bin/python")
    moved = project.with_name("moved")
    shutil.move(project, moved)
    monkeypatch.setattr(bootstrap, "ROOT", moved)
    assert installed(moved) == BOTH
    assert not (moved / ".venv/bin/program").exists()


def test_an_installation_that_was_cut_off_is_done_again(project: Path) -> None:
    installed(project)
    (project / ".venv/.installed").unlink()
    assert installed(project) == [".venv"]
