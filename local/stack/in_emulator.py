"""Runs inside the AWS emulator's process: records invocations, shares layers, refuses web pages.

Standard library only: the emulator has an environment of its own. It changes MiniStack by its
names, which `pyproject.toml` pins; `install` fails when one of them is gone.
"""

import fcntl
import hashlib
import importlib
import json
import os
import select
import shutil
import tempfile
import termios
import threading
import time
import zipfile
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# A record is for a person to read: what is longer is cut.
_VALUE_LIMIT, _LOG_LIMIT = 256 * 1024, 64 * 1024  # characters
_FILE_LIMIT = (
    16 * 1024 * 1024
)  # bytes; then the file is begun again, and the old one kept beside it

# MiniStack's names: what runs an invocation, and what starts a worker for it.
_DISPATCH, _SPAWN = "_execute_function_dispatch", "_spawn"
# What reads a worker's log as it is written, and what takes it when an invocation has ended.
_READ, _TAKE, _QUEUED = "_read_stderr", "_drain_stderr_bounded", "_drain_stderr"
# The module with which a worker unpacks its code and its layers, and how it calls a layer's file.
_ZIPS, _LAYER = "zipfile", "layer_*.zip"
# What refuses a signature by its time; what starts the schedules that are due, and when each was.
_SKEWED, _TICK, _FIRED = "request_time_failure", "_tick_schedules", "_schedule_last_fired"

type Scope = MutableMapping[str, Any]
type Application = Callable[[Scope, Any, Any], Awaitable[None]]

_environment = threading.local()  # what the invocation of this thread learnt about its worker
_writing, _unpacking, _reading = threading.Lock(), threading.Lock(), threading.Lock()
_whole = set[Path]()  # folders of unpacked layers that this process has looked through
_LONGEST_LOG = 1.0  # seconds, for a worker that writes on and on


def install(record: Path) -> None:
    """Write every invocation to `record`: a JSON object when it begins, and one at its end.

    The two have the same `id`; what the first said, the second does not repeat.
    """
    server: Any = importlib.import_module("ministack.app")
    server.app = guarded(server.app)
    _follow_clock()
    functions = importlib.import_module("ministack.services.lambda_svc")
    runtime = importlib.import_module("ministack.core.lambda_runtime")
    worker = runtime.Worker
    setattr(
        runtime, _ZIPS, SimpleNamespace(**{**vars(getattr(runtime, _ZIPS)), "ZipFile": Unpacked})
    )
    dispatch, spawn, invoke = getattr(functions, _DISPATCH), getattr(worker, _SPAWN), worker.invoke

    def recorded(func: Any, config: Any, event: Any, request_id: str, started: float) -> Any:
        _environment.__dict__.clear()
        line = {"id": request_id, "function": config.get("FunctionName"), "at": started}
        _write(record, {**line, "running": True, "event": _cut(event)})
        result = dispatch(func, config, event, request_id, started)
        found = result if isinstance(result, dict) else {}
        line |= {
            "ms": round((time.time() - started) * 1000, 1),
            "error": bool(found.get("error")),
            "result": _cut(found.get("body")),
            "log": str(found.get("log") or "")[:_LOG_LIMIT],
            **_environment.__dict__,
        }
        _write(record, line)
        return result

    def spawned(self: Any) -> None:
        began = time.monotonic()
        spawn(self)
        _environment.initMs = round((time.monotonic() - began) * 1000, 1)

    def invoked(self: Any, *values: Any, **named: Any) -> Any:
        answer = invoke(self, *values, **named)
        _environment.cold = bool(answer.get("cold_start"))
        if (process := vars(self).get("_proc")) is not None:
            _environment.memoryMb = _peak(process.pid)
        return answer

    for name, ours in ((_READ, read_log), (_TAKE, take_log)):
        getattr(worker, name)
        setattr(worker, name, ours)
    setattr(functions, _DISPATCH, recorded)
    setattr(worker, _SPAWN, spawned)
    worker.invoke = invoked
    _write(record, {"started": time.time()})


def read_log(worker: Any) -> None:
    """Put each line of a worker's log into its queue, until the worker ends."""
    found, kept = vars(worker), b""
    stream, lines = found["_proc"].stderr, found["_stderr_queue"]
    arrives = select.poll()
    arrives.register(stream, select.POLLIN)
    while arrives.poll():
        with _reading:  # what has left the pipe is in the queue
            data = os.read(stream.fileno(), 1 << 16)
            last = b"\n" if kept else b""  # a process may end in the middle of a line
            *whole, kept = (kept + (data or last)).split(b"\n")
            for line in whole:
                lines.put(line.decode(errors="replace"))
        if not data:
            return


def take_log(worker: Any, **_: Any) -> str:
    """Return what a worker has logged until it answered: whole, and without a pause.

    MiniStack waits 50 ms for a first line and 5 ms for each other one: on a busy machine the rest
    would become the next invocation's, and one that logs nothing is always that much slower.
    """
    ends, found = time.monotonic() + _LONGEST_LOG, vars(worker)
    if found["_proc"] is None:  # it was ended, as its answer was an error: and so does its log
        found["_stderr_thread"].join(_LONGEST_LOG)
    while True:
        with _reading:
            if not _unread(found["_proc"]) or time.monotonic() > ends:
                return str(getattr(worker, _QUEUED)())
        time.sleep(0.001)


def _unread(process: Any) -> bool:
    """Return whether a process has written something that is still to be read."""
    return process is not None and any(
        fcntl.ioctl(process.stderr.fileno(), termios.FIONREAD, bytes(4))
    )


class Unpacked(zipfile.ZipFile):
    """An archive whose content, if it is a layer's, is unpacked once and then linked to.

    MiniStack unpacks every layer for every worker: thousands of files, and half a second of each
    cold start. As on Lambda, nothing writes into a layer. The next start of the stack uses the
    same folders.
    """

    def namelist(self) -> list[str]:
        """Return no name of a layer: MiniStack would look for each where a link leads to."""
        return [] if self._is_layer() else super().namelist()

    def extractall(self, path: Any = None, members: Any = None, pwd: bytes | None = None) -> None:
        """Unpack into a folder, or link its entries to those of the layer."""
        if not self._is_layer():
            super().extractall(path, members, pwd)
            return
        digest = hashlib.sha256(Path(str(self.filename)).read_bytes()).hexdigest()
        shared = Path(tempfile.gettempdir()) / f"layer-{digest}"
        with _unpacking:
            if shared not in _whole and not self._is_whole(shared):
                shutil.rmtree(shared, ignore_errors=True)
                making = shared.with_suffix(".new")
                super().extractall(making, super().namelist(), pwd)
                making.rename(shared)
            _whole.add(shared)
            shared.touch()  # what was used last is kept for the next start
        for entry in shared.iterdir():
            (Path(path) / entry.name).symlink_to(entry)

    def _is_whole(self, folder: Path) -> bool:
        """Return whether it was unpacked before: after a power cut, files may be empty."""
        files = [(folder / entry.filename, entry.file_size) for entry in self.infolist()]
        return all(file.exists() and file.stat().st_size == size for file, size in files)

    def _is_layer(self) -> bool:
        return Path(str(self.filename)).match(_LAYER)


def _cut(value: Any) -> Any:
    """Return a value as it is, or the beginning of its JSON when it is very long."""
    text = json.dumps(value, default=str)
    return value if len(text) <= _VALUE_LIMIT else {"cut": text[:_VALUE_LIMIT]}


def _peak(process: int) -> int | None:
    """Return the most memory that a process has had, in MiB; None where /proc does not say."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return None
    sizes = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(sizes[0]) // 1024 if sizes else None


def _write(record: Path, line: dict[str, Any]) -> None:
    data = json.dumps(line, default=str) + "\n"
    with _writing:
        if record.exists() and record.stat().st_size > _FILE_LIMIT:
            record.replace(record.with_suffix(".old"))
        # Its events hold tokens.
        record.touch(mode=0o600)
        with record.open("a") as file:
            file.write(data)


def _follow_clock() -> None:
    """Let `make time` move the emulator, whose Python follows the stack's clock already.

    A tool that signs with the machine's clock is accepted as well. A schedule does not wait for a
    time before which the clock was set back, and while the clock moves `make time` runs them.
    """
    clock = importlib.import_module("sitecustomize")
    shift = clock.Shift(Path(os.environ[clock.VARIABLE]))
    signatures = importlib.import_module("ministack.core.sigv4")
    schedules = importlib.import_module("ministack.services.scheduler")
    skewed, tick = getattr(signatures, _SKEWED), getattr(schedules, _TICK)

    def skewed_on_both_clocks(signature: Any, *, now: datetime | None = None) -> Any:
        now = now or datetime.now(UTC)
        real = now - timedelta(seconds=shift.seconds)
        return skewed(signature, now=now) and skewed(signature, now=real)

    def tick_unless_moving() -> None:
        now, fired = time.time(), getattr(schedules, _FIRED)
        for key, at in list(fired.items()):
            if shift.moving or at > now:
                fired[key] = now
        if not shift.moving:
            tick()

    setattr(signatures, _SKEWED, skewed_on_both_clocks)
    setattr(schedules, _TICK, tick_unless_moving)


def guarded(application: Application) -> Application:
    """Refuse a browser's requests to MiniStack's own addresses, which need no signature.

    They list what is in the queues, reset the state and change the configuration. AWS's own
    operations are signed.
    """

    async def ask(scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/_ministack/") and _is_page(scope):
            start = {"type": "http.response.start", "status": 403, "headers": []}
            await send(start)
            await send({"type": "http.response.body", "body": b"for programs on this machine only"})
            return
        await application(scope, receive, send)

    return ask


def _is_page(scope: Scope) -> bool:
    """Return whether a page sent this, or a name of another site led here (DNS rebinding)."""
    headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
    host = headers.get(b"host", "").rpartition(":")[0] or headers.get(b"host", "")
    if host not in {"127.0.0.1", "localhost", "[::1]"}:
        return True
    fetched = headers.get(b"sec-fetch-site", "none")
    return b"origin" in headers or fetched not in {"none", "same-origin"}
