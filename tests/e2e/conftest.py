"""The real stack, started as `make run` starts it, from a copy of the checkout on free ports.

A copy, because a test edits a function; one stack for all tests that do not need one of their own.
"""

import base64
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
_COPIED = ("Makefile", "template.yaml", "samconfig.toml", "pyproject.toml", "uv.lock",
           ".python-version", "functions", "layers", "local", "events", "plans.toml")  # fmt: skip
UP = "Ctrl-C stops everything."
_shared: "list[Stack]" = []


@dataclass(frozen=True)
class Answer:
    """What a client got."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def problem(self) -> str:
        """The code of a refusal, which must be a problem document in every detail."""
        assert self.headers["content-type"] == "application/problem+json", (self.status, self.body)
        found = self.json
        assert found["status"] == self.status
        assert found["title"]
        assert found["type"]
        assert self.headers["x-request-id"]
        return str(found["code"])


def request(
    method: str,
    url: str,
    body: object = None,
    headers: Mapping[str, str] | None = None,
    seconds: float = 120,
) -> Answer:
    """Make one HTTP request; a status is an answer, a broken connection an error."""
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    sent = {"Content-Type": "application/json"} | dict(headers or {})
    outgoing = urllib.request.Request(url, data, sent, method=method)
    try:
        with urllib.request.urlopen(outgoing, timeout=seconds) as found:
            return Answer(found.status, _lower(found.headers), found.read())
    except urllib.error.HTTPError as refused:
        with refused:
            return Answer(refused.code, _lower(refused.headers), refused.read())


def _lower(headers: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


@dataclass
class Stack:
    """A stack that runs, or ran, in a folder of its own."""

    checkout: Path
    home: Path
    port: int
    variables: Mapping[str, str] = field(default_factory=dict)
    process: "subprocess.Popen[bytes] | None" = None
    output: Path = Path()

    def start(self, seconds: float = 240, until: str = UP) -> None:
        """Start it and wait until it says that it is up, or as far as `until`."""
        self.output = self.home.with_name(f"output-{self.port}.txt")
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "PYTEST_"))}
        clean.pop("DATABASE_URL", None)
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "local", "run"],
                cwd=self.checkout,
                env={**clean, "PORT": str(self.port), "KYORA_LOCAL_DIR": str(self.home),
                     **self.variables},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        wait(lambda: until in self.said() or self.process_ended(), seconds)
        assert until in self.said(), self.said()

    def process_ended(self) -> bool:
        assert self.process is not None
        return self.process.poll() is not None

    def said(self) -> str:
        """Everything it has printed."""
        return self.output.read_text(errors="replace")

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """End it and return its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)
        return self.process.wait(120)

    def leftovers(self) -> list[str]:
        """Return the processes that still belong to it."""
        found = []
        for process in psutil.process_iter(["cmdline", "pid", "status"]):
            command = " ".join(process.info["cmdline"] or [])
            if str(self.home) in command and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(command)
        return found

    def children(self, name: str) -> list[psutil.Process]:
        """Return the stack's own processes whose command holds a word."""
        assert self.process is not None
        return [
            c for c in psutil.Process(self.process.pid).children() if name in " ".join(c.cmdline())
        ]

    @property
    def env(self) -> dict[str, str]:
        lines = (self.home / "env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    @property
    def commands(self) -> list[str]:
        """The three commands it printed."""
        return re.findall(r"^# \d\. .*\n(.+)$", self.said(), re.MULTILINE)

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        token: str | None = "KYORA_TOKEN",
        **headers: str,
    ) -> Answer:
        """Call the API, by default as the demo admin."""
        env = self.env
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token:
            sent["Authorization"] = f"Bearer {env.get(token, token)}"
        return request(method, env["KYORA_URL"] + path, body, sent)

    def put(self, content: bytes) -> str:
        """Ask for the upload of a PNG and PUT it; return the asset's id."""
        digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
        asked = self.call(
            "POST",
            "/v1/assets/upload",
            {
                "filename": "a.png",
                "contentType": "image/png",
                "size": len(content),
                "sha256": digest,
            },
        )
        assert asked.status == 200, asked
        ticket = asked.json
        put = request("PUT", ticket["uploadUrl"], content, ticket["headers"])
        assert put.status == 200, put
        return str(ticket["assetId"])

    def upload(self, content: bytes) -> dict[str, Any]:
        """Take a PNG through request, PUT and confirm; return the asset."""
        asset_id = self.put(content)
        confirmed = self.call("POST", f"/v1/assets/{asset_id}/confirm")
        if confirmed.status == 202:  # the bucket's event was first, and is at it
            wait(lambda: self.asset(asset_id)["status"] == "ready", 60, f"{asset_id} is ready")
            confirmed = self.call("POST", f"/v1/assets/{asset_id}/confirm")
        assert confirmed.status == 200, confirmed
        asset: dict[str, Any] = confirmed.json
        assert base64.b64decode(asset["sha256"]) == hashlib.sha256(content).digest()
        return asset

    def asset(self, asset_id: str) -> dict[str, Any]:
        """Return what the API says of an asset."""
        found: dict[str, Any] = self.call("GET", f"/v1/assets/{asset_id}").json
        return found


def wait(condition: Callable[[], object], seconds: float, what: str = "") -> None:
    """Wait until something holds; fails with `what` was waited for, or the caller asserts it."""
    deadline, pause = time.monotonic() + seconds, 0.05
    while not condition():
        if time.monotonic() > deadline:
            if what:
                pytest.fail(f"not within {seconds:.0f} s: {what}")
            return
        time.sleep(pause)
        pause = min(pause * 1.5, 0.3)  # what is asked often takes the time of what is waited for


@contextmanager
def copied() -> Iterator[Path]:
    """A copy of what a clone holds, with this checkout's installed tools."""
    copy = Path(tempfile.mkdtemp(prefix="a seller's kyora-"))
    for name in _COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy)
    # sam build is skipped when `make build` has been here: the sources are the same.
    if (ROOT / ".aws-sam").exists():
        shutil.copytree(ROOT / ".aws-sam", copy / ".aws-sam", symlinks=True)
    (copy / ".venv").symlink_to(ROOT / ".venv")
    (copy / ".local").mkdir()
    for name in ("ministack", "uv"):
        if (ROOT / ".local" / name).exists():
            (copy / ".local" / name).symlink_to(ROOT / ".local" / name)
    yield copy
    subprocess.run(["rm", "-rf", copy], check=True)


@pytest.fixture(scope="session")
def checkout() -> Iterator[Path]:
    """The copy that the shared stack runs in, and its commands."""
    with copied() as copy:
        yield copy


@pytest.fixture
def stack(shared: Stack) -> Stack:
    """A stack that is up, whatever a test before has done to it."""
    if shared.process_ended():
        shared.start()
    return shared


@pytest.fixture(scope="session")
def shared(checkout: Path) -> Iterator[Stack]:
    """The stack that the tests share; they ask for `stack`."""
    # A short delay, so that a test need not wait a minute for the path without a confirm.
    running = Stack(checkout, checkout / ".local", free_port(), {"UPLOAD_EVENT_DELAY": "2"})
    running.start()
    _shared.append(running)
    yield running
    assert running.stop(signal.SIGTERM) == 0
    wait(lambda: not running.leftovers(), 60)
    assert not running.leftovers()


@pytest.hookimpl(trylast=True)  # after the test's own fixtures
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Stop the shared stack after the last test of this folder: idle, it uses processor time."""
    if nextitem is None or nextitem.path.parent != item.path.parent:
        for running in _shared:
            running.stop(signal.SIGTERM)


@pytest.fixture(scope="module")
def moved() -> Iterator[Stack]:
    """A stack whose clock a file's tests move: what is written in the future stays there."""
    with copied() as copy:
        running = Stack(copy, copy / ".local", free_port())
        running.start()
        yield running
        running.stop()
