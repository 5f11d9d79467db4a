"""`make doctor`: each thing that is missing is named with what to do, and nothing is changed."""

import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A folder of programs with nothing but Python 3.13."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "python3.13").symlink_to(sys.executable)
    return programs


def ask(tmp_path: Path, programs: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "local.doctor"],
        cwd=ROOT,
        env={"PATH": str(programs), "KYORA_LOCAL_DIR": str(tmp_path / "home"), **variables},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )


def lines(done: "subprocess.CompletedProcess[str]") -> dict[str, str]:
    """The mark of each line by what it is about."""
    found = [line.split(maxsplit=1) for line in done.stdout.splitlines() if line.startswith("  ")]
    return {rest.split("  ")[0].strip(): mark for mark, rest in found}


def add(programs: Path, *names: str) -> None:
    for name in names:
        (programs / name).symlink_to(shutil.which("true") or "/bin/true")


@pytest.fixture
def free() -> str:
    return str(free_port())


def test_what_make_run_needs_is_named_and_the_exit_code_is_1(
    tmp_path: Path, bare: Path, free: str
) -> None:
    done = ask(tmp_path, bare, PORT=free)
    assert done.returncode == 1, done
    found = lines(done)
    assert (found["make"], found["curl"], found["Python 3.13"]) == ("✗", "✗", "✓")
    assert "apt install make" in done.stdout
    assert "2 to put right." in done.stdout


def test_what_only_tests_need_is_no_fault(tmp_path: Path, bare: Path, free: str) -> None:
    add(bare, "make", "curl", "memcached")
    done = ask(tmp_path, bare, PORT=free)
    assert done.returncode == 0, done
    found = lines(done)
    assert (found["memcached"], found["ffprobe"]) == ("✓", "·")
    assert "Nothing stands in the way" in done.stdout


def test_a_taken_port_is_a_fault_and_another_is_offered(tmp_path: Path, bare: Path) -> None:
    add(bare, "make", "curl")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = ask(tmp_path, bare, PORT=port)
    assert done.returncode == 1
    assert lines(done)[f"port {port}"] == "✗"


def test_a_running_stack_is_named_with_its_process(tmp_path: Path, bare: Path, free: str) -> None:
    add(bare, "make", "curl")
    (tmp_path / "home").mkdir()
    with (tmp_path / "home" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(json.dumps({"port": 8123, "pid": os.getpid()}))
        lock.flush()
        done = ask(tmp_path, bare, PORT=free)
    assert f"runs on port 8123, pid {os.getpid()}" in done.stdout


def test_a_terminal_that_cannot_print_the_marks_gets_no_traceback(
    tmp_path: Path, bare: Path, free: str
) -> None:
    add(bare, "make", "curl")
    done = ask(tmp_path, bare, PORT=free, PYTHONIOENCODING="latin-1")
    assert done.returncode == 0, done.stderr
    assert not done.stderr
