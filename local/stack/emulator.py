"""AWS on loopback: MiniStack in its own environment, with signatures and IAM checked."""

import asyncio
import json
import os
import shutil
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from local.process import Child, shifted_clock, start, until
from local.progress import say

NAME = "the AWS emulator"
REGION = "us-east-1"
# MiniStack's root keys; they are valid nowhere else.
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}

_KEPT = "state.before"  # beside `state`
_SAVE_SECONDS = 10.0
_LAYERS_KEPT = 12  # twice as many as there are: another branch has others

_making = threading.Lock()

# MiniStack saves its state only when it is stopped with a signal. This saves it on SIGUSR1 as well,
# so that a deployed stack survives a power cut. Its reset needs no signature: it is refused.
# in_emulator.py records invocations and follows the
# stack's clock. The version is pinned in pyproject.toml.
_LAUNCH = """
import os, pathlib, runpy, signal, sys
from ministack import app

here, record = pathlib.Path(sys.argv.pop(1)), pathlib.Path(sys.argv.pop(1))
runpy.run_path(str(here))["install"](record)

async def refuse_reset(path, method, query_params):
    if path == "/_ministack/reset":
        return 403, {"Content-Type": "text/plain"}, b"make clean forgets the data"

assert app._handle_admin_reset
app._handle_admin_reset = refuse_reset

def save(*_):
    app.save_all(app._build_persistence_save_dict())
    pathlib.Path(os.environ["STATE_DIR"]).with_name("saved").touch()

signal.signal(signal.SIGUSR1, save)
app.main()
"""


async def run(python: Path, home: Path, port: int, log: Path, clock: Mapping[str, str]) -> Child:
    """Start MiniStack with its state under `home` and wait until it answers.

    `clock` are the variables with which it and its functions follow the stack's clock.
    """
    scratch = home / "tmp"  # unpacked functions, worthless after a stop, and layers
    if old := _put_aside(home, scratch):
        # Thousands of files, when it was killed: deleted in the background.
        await asyncio.create_subprocess_exec("rm", "-rf", *old)
    undo_cut_deploy(home)
    if not (home / "state").exists():
        # Objects without the stack that owns their bucket would block a new stack.
        shutil.rmtree(home / "s3", ignore_errors=True)
    # A bare environment: MiniStack passes its own to every function.
    env = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(home),
        "TMPDIR": str(scratch),
        "TZ": "UTC",
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "AUTH": "true",
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "MINISTACK_REGION": REGION,
        "PERSIST_STATE": "1",
        "STATE_DIR": str(home / "state"),
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(home / "s3"),
        "LAMBDA_EXECUTOR": "local",
        "DOCKER_HOST": "unix:///nonexistent",
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "AWS_EC2_METADATA_DISABLED": "true",
        **shifted_clock(),
        **clock,
    }
    child = await start(
        NAME,
        [python, "-c", _LAUNCH, Path(__file__).with_name("in_emulator.py"), invocations(home)],
        env=env,
        log=log,
        stop_signal=signal.SIGINT,
    )
    await until(lambda: healthy(port), child, 60)
    return child


def invocations(home: Path) -> Path:
    """Return the file that records invocations: a JSON object a line, see in_emulator.py."""
    return home / "invocations.jsonl"


def _put_aside(home: Path, scratch: Path) -> list[str]:
    """Empty the scratch folder but for the layers used last; return what is to be deleted."""
    old = home / f"old-{time.time_ns()}"
    if scratch.exists():
        scratch.rename(old)
    scratch.mkdir(parents=True)
    for layer in sorted(old.glob("layer-*"), key=_changed_at)[-_LAYERS_KEPT:]:
        layer.rename(scratch / layer.name)
    return [str(path) for path in home.glob("old-*")]


def healthy(port: int) -> bool:
    """Return whether the emulator on this port answers."""
    try:
        with urllib.request.urlopen(f"{endpoint(port)}/_ministack/health", timeout=2) as answer:
            json.load(answer)
    except (OSError, ValueError):
        return False
    return True


def messages_address(port: int) -> str:
    """Return where the emulator lists all messages without receiving them: no delivery counts."""
    return f"{endpoint(port)}/_ministack/sqs/messages"


def messages(answer: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return each message of that answer by its queue's name without `kyora-local-`."""
    return {
        address.rpartition("/")[2].removeprefix("kyora-local-"): listed
        for regions in answer["messages"].values()
        for queues in regions.values()
        for address, listed in queues.items()
        if "/kyora-local-" in address and "-tail-" not in address
    }


def save(child: Child, home: Path) -> None:
    """Make the emulator save its state, and wait until it has."""
    saved = home / "saved"  # touched by _LAUNCH once every service has written its file
    before = _changed_at(saved)
    child.process.send_signal(signal.SIGUSR1)
    deadline = time.monotonic() + _SAVE_SECONDS
    while _changed_at(saved) == before and time.monotonic() < deadline:
        time.sleep(0.02)


def keep_before_deploy(child: Child, home: Path, *, first: bool) -> None:
    """Keep a copy of the state until the deploy is complete; the first deploy has none."""
    kept, making = home / _KEPT, home / f"{_KEPT}.new"
    shutil.rmtree(making, ignore_errors=True)
    if first:
        making.mkdir()
    else:
        save(child, home)
        shutil.copytree(home / "state", making)
    making.rename(kept)


def deploy_is_whole(home: Path) -> None:
    """Delete the copy of the state before the deploy."""
    shutil.rmtree(home / _KEPT, ignore_errors=True)


def undo_cut_deploy(home: Path) -> None:
    """Go back to the state before a deploy that a Ctrl-C, a crash or a full disk interrupted.

    A stack left in the middle of a deploy accepts no other one.
    """
    kept = home / _KEPT
    if not kept.exists():
        return
    say("  ! the last deploy was interrupted: it is undone and repeated")
    shutil.rmtree(home / "state", ignore_errors=True)
    if any(kept.iterdir()):
        kept.rename(home / "state")
    else:
        kept.rmdir()


def _changed_at(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def endpoint(port: int) -> str:
    """Return the address of every AWS service."""
    return f"http://127.0.0.1:{port}"


def credentials(port: int) -> dict[str, str]:
    """Return the variables that point any AWS tool at the emulator and away from AWS."""
    return {
        **KEYS,
        "AWS_ENDPOINT_URL": endpoint(port),
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def client(service: Any, port: int, *, patience: float | None = None) -> Any:
    """Return a boto3 client for the emulator, whatever profile the shell has.

    With `patience`, a call is tried once and given up after that many seconds.
    """
    from botocore.config import Config

    hasty = Config(
        connect_timeout=2, read_timeout=patience or 60, retries={"total_max_attempts": 1}
    )
    with _making:
        return _session().client(
            service, endpoint_url=endpoint(port), config=hasty if patience else None
        )


@cache
def _session() -> Any:
    # A session keeps what it has read of botocore's models: one for all clients. Only a client may
    # be used by several threads.
    import boto3  # a quarter of a second: not for commands that never call AWS

    return boto3.Session(
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        region_name=REGION,
    )
