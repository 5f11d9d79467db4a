"""Run a built function under the real Lambda runtime, without Docker.

The Runtime Interface Emulator, part of the aws-sam-cli wheel, serves the Runtime API that
awslambdaric uses in Lambda, so init, time-outs and log lines are those of Lambda. The function sees
its own code, its layers and the runtime's boto3. Nothing of this project's virtual environment is
on its path: a package that is missing in a layer is missing here.
"""

import hashlib
import http.client
import importlib.util
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import venv
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import psutil

from local import process, settings, template
from local.progress import Trouble
from local.settings import ROOT
from local.stack.deploy import BUILD

# What Lambda's own image brings along.
_RUNTIME = (
    *("awslambdaric", "runtime_client", "simplejson", "snapshot_restore_py"),
    *("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "six", "urllib3"),
)
_PATH = "/2015-03-31/functions/function/invocations"
_INIT = re.compile(r"INIT REPORT\(durationMs: ([\d.]+)")
_INVOKE = re.compile(r"INVOKE RTDONE\(status: \w+.*duration: ([\d.]+)ms")


@dataclass
class Running:
    """A started execution environment. It initialises at its first invocation, as in Lambda."""

    process: subprocess.Popen[bytes]
    port: int
    timeout: float
    lines: list[str] = field(default_factory=list)
    invocations: int = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def invoke(self, event: object) -> Any:
        """Return what the handler answers; an error is an answer with `errorMessage`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=self.timeout + 15)
        try:
            connection.request(
                "POST", _PATH, json.dumps(event), {"Content-Type": "application/json"}
            )
            body = connection.getresponse().read()
        finally:
            connection.close()
        try:
            return json.loads(body)
        except ValueError:  # "Task timed out after 3.00 seconds" is a bare text
            return {"errorMessage": body.decode(errors="replace").strip()}
        finally:
            self.invocations += 1

    def init_milliseconds(self) -> float:
        """Return how long the (last) init took; REPORT's own "Init Duration" is wrong here."""
        return self._figure(_INIT)

    def invoke_milliseconds(self, *, since: int = 0) -> float:
        """Return how long the runtime took for the last invocation, after this many lines."""
        return self._figure(_INVOKE, since)

    def resident_megabytes(self) -> float:
        """Return the memory that the function's process holds now."""
        [runtime] = psutil.Process(self.process.pid).children()
        return float(runtime.memory_info().rss) / 1e6

    def log(self) -> list[str]:
        """Return what the function printed, and START, END and REPORT; not the emulator's notes.

        The last line of an invocation is its REPORT.
        """
        _written(lambda: sum(x.startswith("REPORT") for x in self.lines) >= self.invocations)
        return [line for line in self.lines if "(rapid)" not in line]

    def stop(self) -> None:
        """End the emulator and the function in it."""
        family: list[psutil.Process] = []
        with suppress(psutil.Error):
            # The emulator gives the runtime a process group of its own.
            family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for left in family:
            with suppress(psutil.Error):
                left.kill()

    def _figure(self, pattern: re.Pattern[str], since: int = 0) -> float:
        found = _written(
            lambda: [m[1] for line in self.lines[since:] if (m := pattern.search(line))]
        )
        if not found:
            raise Trouble(f"the runtime printed no {pattern.pattern}: {self.lines[-5:]}")
        return float(found[-1])


def _written[T](read: Callable[[], T]) -> T:
    """Read what the runtime writes just after its answer, for up to 5 seconds."""
    deadline = time.monotonic() + 5
    while not (found := read()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


def start(function: str, env: Mapping[str, str], *, timeout: float | None = None) -> Running:
    """Start a built function (`confirm_upload`); `env` wins over the template's variables."""
    described = template.read()
    logical = known(function)
    properties = template.functions(described)[logical]
    layers = [BUILD / layer["Ref"] / "python" for layer in properties["Layers"]]
    defaults = template.resolve(properties["Environment"], described)
    return start_folder(
        BUILD / logical,
        layers,
        {name: str(value) for name, value in defaults.items()} | dict(env),
        name=template.resolve(properties["FunctionName"], described),
        timeout=timeout or properties["Timeout"],
        memory=template.resolve(properties["MemorySize"], described),
    )


def known(function: str) -> str:
    """Return the logical id of a function; raises Trouble when there is none of that name."""
    functions = template.functions(template.read())
    if (logical := template.logical_id(function)) not in functions:
        names = ", ".join(sorted(template.folder(name) for name in functions))
        raise Trouble(f"there is no function {function!r}; there are {names}")
    return logical


def start_folder(
    code: Path,
    layers: list[Path],
    env: Mapping[str, str],
    *,
    name: str,
    timeout: float,
    memory: int = 512,
) -> Running:
    """Start `app.handler` of a folder with these layers."""
    for needed in (code / "app.py", *layers):
        if not needed.exists():
            raise Trouble(f"{needed.relative_to(ROOT)} is not built; run `make build`")
    port, api_port = _free_ports(2)
    environment = {
        "PATH": os.environ["PATH"],
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
        "PYTHONPATH": os.pathsep.join(map(str, (code, *layers))),
        "PYTHONDONTWRITEBYTECODE": "1",  # /opt and /var/task cannot be written to
        "PYTHONUNBUFFERED": "1",
        "LAMBDA_TASK_ROOT": str(code),
        "_HANDLER": "app.handler",
        "AWS_LAMBDA_FUNCTION_NAME": name,
        "AWS_LAMBDA_FUNCTION_TIMEOUT": str(int(timeout)),
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(memory),
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        **env,
    }
    started = subprocess.Popen(
        [
            str(_emulator()),
            *("--runtime-interface-emulator-address", f"127.0.0.1:{port}"),
            *("--runtime-api-address", f"127.0.0.1:{api_port}"),
            *("--log-level", "info"),
            *(str(interpreter()), "-s", "-m", "awslambdaric", "app.handler"),
        ],
        cwd=code,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    running = Running(started, port, timeout)
    threading.Thread(target=_collect, args=(started.stdout, running.lines), daemon=True).start()
    _wait_for(running)
    return running


def interpreter() -> Path:
    """Return a Python that has what Lambda's own image has, and nothing else; made once.

    It is a virtual environment of its own: this one would show the function every package of ours.
    """
    # Its packages are links into our own environment: another one, or a moved one, makes another.
    ours = hashlib.sha256(f"{sys.prefix} {sys.version}".encode()).hexdigest()[:8]
    home = ROOT / ".local" / f"runtime-{ours}"
    python = home / "bin" / "python"
    if python.exists():
        return python
    home.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=home.parent, prefix="runtime."))
    venv.create(made, symlinks=True)
    [packages] = made.glob("lib/python*/site-packages")
    sources = []
    for name in _RUNTIME:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise Trouble(f"the package {name} is missing; run `make setup`")
        origin = Path(spec.origin)
        source = origin.parent if origin.name == "__init__.py" else origin
        (packages / source.name).symlink_to(source)
        sources.append(source)
    # compileall follows no link to a folder. Lambda's image is compiled: what is not makes every
    # start slower, a bare one by half.
    subprocess.run([made / "bin" / "python", "-m", "compileall", "-q", *sources], check=False)
    with suppress(OSError):  # another process was first
        made.rename(home)
    shutil.rmtree(made, ignore_errors=True)
    return python


def _emulator() -> Path:
    spec = importlib.util.find_spec("samcli")
    if spec is None or spec.origin is None:
        raise Trouble("aws-sam-cli is missing; run `make setup`")
    folder = Path(spec.origin).parent / "local" / "rapid"
    return folder / f"aws-lambda-rie-{settings.architecture()}"


def _free_ports(count: int) -> set[int]:
    chosen: set[int] = set()
    while len(chosen) < count:
        # Below the range that the kernel lends to outgoing connections. The system draws it:
        # programs that seed Python's generator alike would all choose the same ports.
        candidate = random.SystemRandom().randrange(12000, 20000)
        if process.is_free(candidate):
            chosen.add(candidate)
    return chosen


def _collect(output: IO[bytes], lines: list[str]) -> None:
    with output:
        lines.extend(line.decode(errors="replace").rstrip("\n") for line in output)


def _wait_for(running: Running) -> None:
    for _ in range(500):
        if not process.is_free(running.port):
            return
        if running.process.poll() is not None:
            break
        time.sleep(0.01)
    running.stop()
    raise Trouble(f"the runtime did not start: {' '.join(running.lines[-3:])}")
