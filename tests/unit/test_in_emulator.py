"""What runs inside the emulator: pages are refused where no signature is needed, layers shared."""

import asyncio
import os
import queue
import subprocess
import sys
import tempfile
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest

from local.stack import emulator, in_emulator
from local.stack.in_emulator import Unpacked, guarded, read_log, take_log


def status(path: str, **headers: str) -> int:
    """Return what is answered; 200 stands for the emulator's own answer."""
    found = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})

    async def send(message: Any) -> None:
        found.append(message.get("status"))

    given = {"host": "127.0.0.1:4566"} | {k.replace("_", "-"): v for k, v in headers.items()}
    scope = {
        "type": "http",
        "path": path,
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
    }
    asyncio.run(guarded(application)(scope, None, send))
    return int(found[0])


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"host": "evil.example:4566"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
    ],
)
@pytest.mark.parametrize(
    "path", ["/_ministack/reset", "/_ministack/config", "/_ministack/sqs/messages"]
)
def test_a_page_cannot_reach_the_emulator_s_own_addresses(
    path: str, headers: dict[str, str]
) -> None:
    assert status(path, **headers) == 403


def test_a_program_can_and_aws_s_operations_are_left_to_their_signature() -> None:
    assert status("/_ministack/health") == 200
    assert status("/_ministack/health", host="localhost:4566") == 200
    assert status("/bucket/key", origin="http://localhost:3000", host="evil.example") == 200


@pytest.mark.parametrize(("name", "shared"), [("layer_0.zip", True), ("code.zip", False)])
def test_a_layer_is_unpacked_once_for_all_workers_and_code_for_each(
    name: str, shared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = []
    for worker in ("a", "b"):
        folder = tmp_path / worker
        folder.mkdir()
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.writestr("python/kyora/__init__.py", "HERE = 1\n")
        with Unpacked(folder / name) as archive:
            archive.extractall(folder)
        found.append(folder / "python" / "kyora" / "__init__.py")
    assert [file.read_text() for file in found] == ["HERE = 1\n"] * 2
    assert found[0].samefile(found[1]) == shared


def test_another_version_of_a_layer_is_unpacked_beside_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for text in ("one", "two"):
        folder = tmp_path / text
        folder.mkdir()
        with zipfile.ZipFile(folder / "layer_0.zip", "w") as archive:
            archive.writestr("python/kyora.py", text)
        with Unpacked(folder / "layer_0.zip") as archive:
            archive.extractall(folder)
    assert [(tmp_path / text / "python/kyora.py").read_text() for text in ("one", "two")] == [
        "one",
        "two",
    ]


def test_the_next_start_uses_what_is_unpacked_but_not_what_a_power_cut_has_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def start(worker: str) -> Path:
        monkeypatch.setattr(in_emulator, "_whole", set())  # it is another process
        folder = tmp_path / worker
        folder.mkdir()
        with zipfile.ZipFile(folder / "layer_0.zip", "w") as archive:
            archive.writestr("python/kyora.py", "HERE = 1\n")
        with Unpacked(folder / "layer_0.zip") as archive:
            archive.extractall(folder)
        return folder / "python"

    unpacked = start("first")
    (unpacked / "compiled").touch()
    assert (start("second") / "compiled").exists()
    (unpacked / "kyora.py").write_bytes(b"")
    again = start("third")
    assert (again / "kyora.py").read_text() == "HERE = 1\n"
    assert not (again / "compiled").exists()


def test_a_start_deletes_the_code_of_the_last_one_and_keeps_the_layers_used_last(
    tmp_path: Path,
) -> None:
    scratch = tmp_path / "tmp"
    for number in range(20):
        (scratch / f"layer-{number:02}").mkdir(parents=True)
        os.utime(scratch / f"layer-{number:02}", (number, number))
    (scratch / "ministack-lambda-check-health").mkdir()
    [old] = emulator._put_aside(tmp_path, scratch)
    kept = sorted(path.name for path in scratch.iterdir())
    assert kept == [f"layer-{number:02}" for number in range(8, 20)]
    assert (Path(old) / "ministack-lambda-check-health").exists()


class Worker:
    """A program as MiniStack keeps it: it logs to one pipe and answers on another."""

    def __init__(self, program: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._proc: subprocess.Popen[bytes] | None = self.process
        self._stderr_queue = queue.SimpleQueue[str]()
        self._stderr_thread = threading.Thread(target=read_log, args=(self,))
        self._stderr_thread.start()

    def _drain_stderr(self) -> str:
        return "\n".join(self._stderr_queue.get() for _ in range(self._stderr_queue.qsize()))

    def answers(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode()


def test_all_that_a_function_logged_before_its_answer_is_its_log() -> None:
    """However busy the machine is: more than a pipe holds, and nothing of the time after."""
    worker = Worker(
        "import sys\n"
        "for number in range(20_000):\n"
        "    print('line', number, file=sys.stderr, flush=True)\n"
        "print('done', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with worker.process:
        assert worker.answers() == "done\n"
        said = take_log(worker).splitlines()
        assert (len(said), said[-1]) == (20_000, "line 19999")
        assert take_log(worker) == ""
        worker.process.kill()
        worker._stderr_thread.join()


def test_the_log_of_a_function_that_was_ended_is_whole_as_well() -> None:
    worker = Worker("import sys; print('why', file=sys.stderr); print('done', flush=True)")
    with worker.process:
        assert worker.answers() == "done\n"
        worker._proc = None  # as MiniStack does for an error, once it has ended the process
        assert take_log(worker) == "why"
