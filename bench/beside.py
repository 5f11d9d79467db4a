"""Today's code beside an older commit's, in one run: `make bench BESIDE=<commit>`.

The commit is checked out below .local/beside and built there; its own benchmarks run in turn with
ours, so that whatever else the machine does falls on both. Read the ratio, now to then.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from local.progress import Trouble, complain, say
from local.settings import ROOT

FUNCTIONS = ("request_upload", "confirm_upload", "stripe_webhook", "send_email")
ROUNDS = 2
_SHARED = (".venv", ".local/ministack", ".local/uv")


def main() -> int:
    """Measure both and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.beside", description=__doc__)
    parser.add_argument("commit")
    try:
        then = _checkout(parser.parse_args().commit)
        rounds: list[tuple[dict[str, float], dict[str, float]]] = []
        for number in range(ROUNDS):
            say(f"  · round {number + 1} of {ROUNDS}")
            rounds.append((_measure(then), _measure(ROOT)))
    except Trouble as trouble:
        complain(str(trouble))
        return 1
    say(f"\n{'':<34}{'then':>10}{'now':>10}{'ratio':>8}")
    for name in rounds[0][1]:
        pairs = [(old[name], new[name]) for old, new in rounds if name in old and name in new]
        if pairs:
            old, new = (statistics.median(side) for side in zip(*pairs, strict=True))
            ratio = statistics.median(mine / its for its, mine in pairs)
            say(f"{name:<34}{old:>10.1f}{new:>10.1f}{ratio:>8.2f}")
    return 0


def _checkout(commit: str) -> Path:
    """Check a commit out, with the programs of this checkout. Raises Trouble."""
    found = subprocess.run(
        ["git", "rev-parse", "--short", f"{commit}^{{commit}}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode:
        raise Trouble(f"git does not know the commit {commit}")
    tree = ROOT / ".local" / "beside" / found.stdout.strip()
    if not tree.exists():
        # A clone, and no worktree, which would be left in this repository's list.
        _run(ROOT, "git", "clone", "-q", "--shared", "--no-checkout", str(ROOT), str(tree))
        _run(tree, "git", "checkout", "-q", found.stdout.strip())
        for name in _SHARED:
            if (ROOT / name).exists():
                (tree / name).parent.mkdir(exist_ok=True)
                (tree / name).symlink_to(ROOT / name)
    say(f"  · building {found.stdout.strip()}")
    _run(tree, sys.executable, "-m", "local", "build")
    return tree


def _measure(tree: Path) -> dict[str, float]:
    """Run a tree's own benchmarks and return its figures by name. Raises Trouble."""
    program = (sys.executable, "-W", "ignore", "-m")
    _run(tree, *program, "bench", *FUNCTIONS, "--cold", "5", "--warm", "200")
    _run(tree, *program, "bench.stripe")
    return dict(
        [
            *_functions(json.loads((tree / "bench" / "results.json").read_text())),
            *_webhooks(json.loads((tree / "bench" / "stripe.json").read_text())),
        ]
    )


def _functions(found: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name in FUNCTIONS:
        row = found["functions"].get(name, {})
        for key, title in (("init_ratio", "init, x bare"), ("warm_p50_ms", "warm p50, ms")):
            if key in row:
                yield f"{name}: {title}", row[key]


def _webhooks(found: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for kind in ("lives", "changes"):
        for key, title in (("deliveries_a_second", "per second"), ("p99_ms", "p99, ms")):
            yield f"{kind}: {title}", statistics.median(row[key] for row in found[kind])


def _run(tree: Path, *command: str) -> None:
    done = subprocess.run(
        command,
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree / "layers" / "kyora")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Trouble(f"{' '.join(command[-4:])} failed:\n{done.stdout[-2000:]}")


if __name__ == "__main__":
    raise SystemExit(main())
