"""Child processes: every process that `make run` starts, and how each of them ends.

A child has a session of its own, so that a Ctrl-C reaches only the parent, which stops the children
in order. On Linux the kernel also stops them when the parent is killed (kill -9).
"""

import asyncio
import ctypes
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from local.progress import Trouble

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def shifted_clock() -> dict[str, str]:
    """Return faketime's variables, when it runs us, for a child with an environment of its own."""
    names = ("LD_PRELOAD", "FAKETIME", "FAKETIME_SHARED")
    return {name: os.environ[name] for name in names if "FAKETIME" in os.environ}


@dataclass
class Child:
    """A running process and the signal that asks it to end."""

    name: str
    process: asyncio.subprocess.Process
    log: Path
    stop_signal: signal.Signals

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.returncode is None


def die_with_parent(stop_signal: signal.Signals) -> Callable[[], None]:
    """Return what a child runs before its program, so that the kernel ends it with its parent."""

    def prepare() -> None:  # runs between fork and exec, after the change of user
        if _libc is not None:
            _libc.prctl(PR_SET_PDEATHSIG, int(stop_signal))

    return prepare


async def start(
    name: str,
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    log: Path,
    stop_signal: signal.Signals = signal.SIGTERM,
    user: tuple[int, int] | None = None,
) -> Child:
    """Start a child whose output goes to `log`; `user` is the (uid, gid) to run it as."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        try:
            process = await asyncio.create_subprocess_exec(
                *map(str, argv),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                env=dict(env),
                start_new_session=True,
                preexec_fn=die_with_parent(stop_signal),
                user=None if user is None else user[0],
                group=None if user is None else user[1],
                extra_groups=None if user is None else [],
            )
        except FileNotFoundError as error:
            raise Trouble(f"{name} cannot start: {argv[0]} is missing; run `make setup`") from error
    return Child(name, process, log, stop_signal)


async def stop(child: Child, patience: float = 10) -> None:
    """End a child and everything in its session; kill what still runs after `patience` seconds."""
    for number, wait in ((child.stop_signal, patience), (signal.SIGKILL, 5)):
        if not child.alive:
            break
        with suppress(ProcessLookupError):
            child.process.send_signal(number)
        with suppress(TimeoutError):
            await asyncio.wait_for(child.process.wait(), wait)
    # What the child started itself (Lambda workers) is in the same process group.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.process.pid, signal.SIGKILL)


async def until(ready: Callable[[], bool], child: Child, seconds: float) -> None:
    """Wait until `ready` returns true. Raises Trouble when the child dies or takes too long."""
    try:
        await _until(ready, child, seconds)
    except BaseException:  # also a Ctrl-C: no one else knows of the child yet
        await stop(child)
        raise


async def _until(ready: Callable[[], bool], child: Child, seconds: float) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    while not await asyncio.to_thread(ready):
        if not child.alive:
            raise Trouble(f"{child.name} stopped while starting: {last_line(child.log)}")
        if asyncio.get_running_loop().time() > deadline:
            raise Trouble(f"{child.name} was not ready after {seconds:.0f} s; see {child.log}")
        await asyncio.sleep(0.05)


def last_line(log: Path) -> str:
    """Return the last line of a log, which usually says why a program ended."""
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return f"{lines[-1].strip()} (log: {log})" if lines else f"it said nothing (log: {log})"


def listening(port: int) -> bool:
    """Return whether something answers on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def is_free(port: int) -> bool:
    """Return whether a loopback port can be bound."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
