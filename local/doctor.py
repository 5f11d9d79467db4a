"""`make doctor`: what this machine has, what is missing and what to do. Standard library only.

It installs and changes nothing. Exit code 1 when `make run` or `make test` cannot work.
"""

import fcntl
import json
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from local import bootstrap

# Measured on Linux: environments 800 MB, build 250 MB, data and logs; with every service running.
DISK_MEGABYTES = 2_000
MEMORY_MEGABYTES = 1_500
GOOD, OPTIONAL, BAD = "✓", "·", "✗"


@dataclass(frozen=True)
class Finding:
    """One line of the answer: its mark, what was looked at, what was found."""

    mark: str
    what: str
    found: str


def main() -> int:
    """Print every finding; return 1 when one of them stops the stack."""
    findings = list(examine(Path(os.environ.get("KYORA_LOCAL_DIR") or bootstrap.ROOT / ".local")))
    # A terminal that cannot print ✓ gets `?` rather than a traceback.
    encoding = sys.stdout.encoding or "utf-8"
    for each in findings:
        line = f"  {each.mark} {each.what:<26} {each.found}"
        print(line.encode(encoding, "replace").decode(encoding))
    bad = sum(each.mark == BAD for each in findings)
    print(f"\n{bad} to put right." if bad else "\nNothing stands in the way of `make run`.")
    return 1 if bad else 0


def examine(home: Path) -> Iterator[Finding]:
    """Yield what is found of this machine and of the stack whose folder is `home`."""
    yield _python()
    yield from (_needed(name) for name in ("make", "curl"))
    yield _uv()
    yield from (_environment(name, path) for name, path in _ENVIRONMENTS)
    yield _disk()
    yield _memory()
    yield from _stack(home)
    yield from (_optional(name, use) for name, use in _PROGRAMS)


_ENVIRONMENTS = (
    ("Python packages", bootstrap.OURS),
    ("AWS emulator", bootstrap.EMULATOR),
    ("checkov", bootstrap.CHECKOV),
)
# Programs that the stack does without, and what goes without them.
_PROGRAMS = (
    ("chromium/chromium-browser", "the browser tests skip"),
    ("npm", "the tests of what npm brings skip"),
    ("ffprobe", "the tests of video and audio skip"),
    ("memcached", "the tests of the cache skip"),
    ("pgbouncer", "the tests behind a pooler skip"),
    ("spamassassin", "the spam tests of mail skip"),
    ("faketime", "make test-later does not work"),
    ("docker/podman", "sam local does not work"),
)


def _python() -> Finding:
    if bootstrap.python_option() or shutil.which("python3.13") or sys.version_info[:2] == (3, 13):
        return Finding(GOOD, "Python 3.13", "found")
    return Finding(BAD, "Python 3.13", "not found: install it (uv and pyenv are searched as well)")


def _needed(name: str) -> Finding:
    if found := shutil.which(name):
        return Finding(GOOD, name, found)
    return Finding(BAD, name, f"not found: install it (Debian: apt install {name})")


def _uv() -> Finding:
    own = bootstrap.ROOT / ".local/uv/bin/uv"
    if found := shutil.which("uv") or (str(own) if own.exists() else ""):
        return Finding(GOOD, "uv", found)
    return Finding(OPTIONAL, "uv", "not found: `make setup` installs it below .local")


def _environment(name: str, home: Path) -> Finding:
    path = bootstrap.ROOT / home
    if not path.exists():
        return Finding(OPTIONAL, name, f"not installed yet: `make` puts it in {home}")
    if not bootstrap.works(path):
        return Finding(
            OPTIONAL, name, f"{home} has a Python that is gone: `make` installs it again"
        )
    if not bootstrap.current(path):
        return Finding(OPTIONAL, name, f"{home} is older than uv.lock: `make` updates it")
    return Finding(GOOD, name, f"{home}, as in uv.lock")


def _disk() -> Finding:
    free = shutil.disk_usage(bootstrap.ROOT).free // 1_000_000
    needs = 0 if (bootstrap.ROOT / bootstrap.EMULATOR).exists() else DISK_MEGABYTES
    if free < max(needs, 300):
        return Finding(BAD, "disk", f"{free} MB free, the stack needs about {DISK_MEGABYTES} MB")
    return Finding(GOOD, "disk", f"{free // 1000} GB free")


def _memory() -> Finding:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return Finding(OPTIONAL, "memory", f"not known; the stack takes {MEMORY_MEGABYTES} MB")
    figures = {name: int(rest.split()[0]) for name, _, rest in (li.partition(":") for li in lines)}
    free = figures.get("MemAvailable", 0) // 1000
    mark = GOOD if free > MEMORY_MEGABYTES else OPTIONAL
    return Finding(mark, "memory", f"{free} MB available; the stack takes {MEMORY_MEGABYTES} MB")


def _stack(home: Path) -> Iterator[Finding]:
    lock = home / "lock"
    running = _running(lock)
    if running:
        yield Finding(GOOD, "local stack", f"runs on port {running['port']}, pid {running['pid']}")
        return
    yield Finding(OPTIONAL, "local stack", "is not running: `make run`")
    port = os.environ.get("PORT") or "8000"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", int(port)))
        except PermissionError:
            yield Finding(BAD, f"port {port}", "needs root; another: PORT=8001 make run")
        except OSError:
            yield Finding(BAD, f"port {port}", "is taken; another: PORT=8001 make run")
        except ValueError:
            yield Finding(BAD, "PORT", f"must be a number, not {port!r}")
        else:
            yield Finding(GOOD, f"port {port}", "is free")


def _running(lock: Path) -> dict[str, int]:
    """Return the port and process id that a running stack wrote into its lock; else nothing."""
    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        found: dict[str, int] = json.loads(lock.read_text())
        return found
    except OSError:
        pass
    return {}


def _optional(name: str, use: str) -> Finding:
    path = f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin"
    if any(shutil.which(one, path=path) for one in name.split("/")):
        return Finding(GOOD, name, "found")
    return Finding(OPTIONAL, name, f"not found: {use}")


if __name__ == "__main__":
    sys.exit(main())
