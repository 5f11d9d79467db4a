"""`make upgrade-check VERSION=…`: what another release of the Stripe SDK changes for us.

The release is installed beside, below `.local/stripe-sdk/`, and never imported. Our calls
(`our_calls.json`) are held against its parameters, the fields we read against its objects, and what
`stripe_client` imports against its names. Breaking changes are listed first and set exit code 1: a
parameter, field, name or word of ours that is gone, or a changed shape. New and removed words that
we do not use follow: our reader accepts unknown ones.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from local.bootstrap import find_uv
from local.settings import ROOT
from local.stripe.sdk import our_calls
from local.stripe.sdk.contract import check_params, read_shape
from local.stripe.sdk.types import Sdk, Shape, installed

HOME = ROOT / ".local/stripe-sdk"
_BILLING = ROOT / "layers/kyora/kyora/billing"


def main(version: str) -> int:
    """Report on a release, or on a folder that holds one; 1 when something breaks for us."""
    old, new = installed(), fetch(version)
    broken, noted = compare(our_calls.load(), old, new)
    print(f"stripe {version}: API version {new.version} (ours is {old.version})")
    for title, lines in (("breaks", broken), ("other", noted)):
        for line in lines:
            print(f"  {title:<7} {line}")
    print(
        f"{len(broken)} of what we send and read would break; {len(noted)} other changes of words"
    )
    return 1 if broken else 0


def fetch(version: str) -> Sdk:
    """Install a release into a folder of its own, once. Exits when there is none."""
    if (Path(version) / "stripe").is_dir():
        return Sdk(Path(version) / "stripe")
    home = HOME / version
    if not (home / "stripe/_api_version.py").exists():
        command = [find_uv(), "pip", "install", "--quiet", "--no-deps", "--target", str(home)]
        command += ["--python", sys.executable, f"stripe=={version}"]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{done.stderr.strip()}\nkyora: stripe {version} could not be installed")
    return Sdk(home / "stripe")


def compare(found: our_calls.Ours, old: Sdk, new: Sdk) -> tuple[list[str], list[str]]:
    """Return what breaks for us, and which words that we do not name come and go."""
    broken, noted = [*_calls(found, old, new), *_names(new)], []
    named = _our_words()
    for kind, paths in found.reads.items():
        for path in paths:
            before = read_shape(kind, path, old)
            if before is None:
                continue  # of an older shape of Stripe's than the installed release's
            after = read_shape(kind, path, new)
            if after is None:
                broken.append(f"{kind}.{path} is gone")
                continue
            if _form(before) != _form(after):
                broken.append(f"{kind}.{path} was {_said(before)}, is {_said(after)}")
            gone = before.words - after.words
            broken += [f"{kind}.{path}: '{word}' is gone" for word in gone & named]
            noted += [f"{kind}.{path}: '{word}' is gone" for word in gone - named]
            noted += [f"{kind}.{path}: '{word}' is new" for word in after.words - before.words]
    return sorted(dict.fromkeys(broken)), sorted(noted)


@cache
def _our_words() -> set[str]:
    """Return every text in the code that reads Stripe's objects."""
    nodes = (node for path in _BILLING.rglob("*.py") for node in ast.walk(_parsed(path)))
    return {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}


def _names(new: Sdk) -> Iterator[str]:
    """Yield what `stripe_client` uses of the package and the release does not have."""
    known = {
        name for node in ast.walk(_parsed(new.root / "__init__.py")) for name in _defined(node)
    }
    for node in ast.walk(_parsed(_BILLING / "stripe_client.py")):
        ours_of_it = isinstance(node, ast.Attribute) and ast.unparse(node.value) == "stripe"
        if isinstance(node, ast.Attribute) and ours_of_it and node.attr not in known:
            yield f"stripe.{node.attr} is gone"


def _defined(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        return [alias.asname or alias.name for alias in node.names]
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return [target.id for target in targets if isinstance(target, ast.Name)]
    # Names that are imported when they are first used stand in a table of texts.
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _calls(found: our_calls.Ours, old: Sdk, new: Sdk) -> Iterator[str]:
    for call in found.calls:
        path = call["path"].replace("{}", "xyz_1")
        before = check_params(call["method"], path, call["params"], old)
        for fault in check_params(call["method"], path, call["params"], new):
            if fault not in before:
                yield f"{call['method']} {call['path']}: {fault.param}: {fault.message}"


def _form(shape: Shape) -> tuple[object, ...]:
    """Return how a value is read; an enumeration that opens or a text that closes is no change."""
    scalars = shape.scalars | ({"str"} if shape.words else set())
    return (
        "float" if "Decimal" in scalars else ",".join(sorted(scalars)),
        bool(shape.classes),
        bool(shape.items),
        bool(shape.values),
        bool(shape.listed),
    )


def _said(shape: Shape) -> str:
    kinds = [
        *sorted(shape.scalars),
        *(["a word"] if shape.words else []),
        *(["an object"] if shape.classes else []),
        *(["an array"] if shape.items else []),
        *(["a hash"] if shape.values else []),
        *(["a list"] if shape.listed else []),
    ]
    return " or ".join(kinds)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
