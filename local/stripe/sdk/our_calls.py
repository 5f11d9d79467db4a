"""What we send to Stripe and read of its objects: `our_calls.json`, recorded while the tests run.

`make stripe-record` runs the billing tests with a recorder beside the real client
(tests/integration/support/stripe_recording.py) and writes the file again. A value that is not a
word of an enumeration is recorded as its type only, so that the file changes when our calls do.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from local.settings import ROOT
from local.stripe.sdk.types import Sdk, Shape, installed

FILE = Path(__file__).with_name("our_calls.json")
_TESTS = (
    *("test_plans", "test_manage_billing", "test_billing_reconcile", "test_billing_sweep"),
    *("test_stripe_rules", "test_stripe_orders", "test_plan_changes", "test_billing_access"),
    *("test_billing_repairs", "test_billing_mails"),
)


class Ours(NamedTuple):
    """Our calls (`method`, `path` with `{}` for ids, `params`) and the paths we read by object."""

    calls: list[dict[str, Any]]
    reads: dict[str, list[str]]


def load() -> Ours:
    """Return what was recorded."""
    return Ours(**json.loads(FILE.read_text()))


def merge(parts: Iterable[Mapping[str, Any]], sdk: Sdk | None = None) -> Ours:
    """Return recordings as one, each call and each read once."""
    sdk = sdk or installed()
    calls: dict[str, dict[str, Any]] = {}
    reads: dict[str, set[str]] = {}
    for part in parts:
        for call in part["calls"]:
            made = general(call, sdk)
            calls[json.dumps(made, sort_keys=True)] = made
        for kind, paths in part["reads"].items():
            reads.setdefault(kind, set()).update(map(_plain, paths))
    found = sorted(calls.values(), key=lambda call: (call["path"], call["method"], str(call)))
    return Ours(found, {kind: sorted(reads[kind]) for kind in sorted(reads)})


def _plain(path: str) -> str:
    """Return a path without metadata's keys, which are the account's own."""
    return re.sub(r"(^|\.)metadata\..*", r"\1metadata", path)


def general(call: Mapping[str, Any], sdk: Sdk | None = None) -> dict[str, Any]:
    """Return a call without its incidental values: ids, amounts, texts."""
    sdk = sdk or installed()
    route = sdk.route(call["method"], call["path"])
    shape = Shape(classes=(route.params,)) if route and route.params else Shape()
    path = route.path if route else call["path"]
    return {
        "method": call["method"].upper(),
        "path": path,
        "params": _kind(sdk, shape, call["params"], ""),
    }


def _kind(sdk: Sdk, shape: Shape, value: Any, name: str) -> Any:
    """Return a placeholder for a value of this type."""
    if isinstance(value, Mapping):
        if shape.values:
            return {"key": "text"}
        known = sdk.members(shape.classes[0]) if shape.classes else {}
        return {
            key: _kind(sdk, known[key].shape if key in known else Shape(), item, key)
            for key, item in sorted(value.items())
        }
    if isinstance(value, list | tuple):
        seen: list[Any] = []
        for item in value:
            kind = _kind(sdk, shape.items or Shape(), item, name)
            if kind not in seen:
                seen.append(kind)
        return seen
    # Enumerations are few words; what an expand and a list of event types name is part of it too.
    if isinstance(value, bool) or value in shape.words or name in ("expand", "types"):
        return value
    return 1 if isinstance(value, int) else "" if value == "" else "text"


def main() -> None:
    """Run the tests that call Stripe and write the file."""
    with tempfile.TemporaryDirectory() as folder:
        files = [f"tests/integration/{name}.py" for name in _TESTS]
        command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", *files]
        environment = {**os.environ, "STRIPE_RECORDING": folder}
        done = subprocess.run(command, check=False, cwd=ROOT, env=environment)
        if done.returncode:
            sys.exit("kyora: a test failed; the recording is left as it was")
        parts = [json.loads(path.read_text()) for path in sorted(Path(folder).iterdir())]
    write(merge(parts))


def write(found: Ours) -> None:
    """Write the recording."""
    FILE.write_text(json.dumps(found._asdict(), indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
