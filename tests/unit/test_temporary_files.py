"""A run of tests leaves no temporary files: tests/conftest.py gives it a folder that it removes."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_CHILD = "import tempfile, time; print(tempfile.mkdtemp(), flush=True); time.sleep(600)"


def test_a_killed_process_leaves_its_files_in_the_folder_of_the_run() -> None:
    command = [sys.executable, "-c", _CHILD]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        left = Path(child.stdout.readline().strip())
        child.kill()
    assert left.is_dir()
    assert left.parent == Path(tempfile.gettempdir())
    assert left.parent.name.startswith("kyora-")


def test_the_folder_goes_with_the_run(tmp_path: Path) -> None:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "COV_"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", __file__, "-k", "killed"],
        cwd=ROOT,
        env=clean | {"TMPDIR": str(tmp_path), "PYTEST_DEBUG_TEMPROOT": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert [found.name for found in tmp_path.iterdir()] == []
