"""Whether functions start: import each handler as the runtime does, and return tracebacks."""

import hashlib
import json
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

from local import template
from local.settings import ROOT
from local.stack import deploy, runtime
from local.stack.deploy import BUILD

_KYORA = "KyoraLayer"
# All in one process, each app.py under a name of its own: the layer is loaded once.
_IMPORT = """
import importlib.util, json, sys, traceback
failed = {}
for folder, path in json.loads(sys.argv[1]).items():
    spec = importlib.util.spec_from_file_location("app_" + folder, path)
    try:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.handler
    except BaseException as error:
        # The first frames are this program's and the import system's.
        lines = traceback.format_exception(error)
        failed[folder] = "".join(l for l in lines if "<frozen importlib" not in l
                                 and 'File "<string>"' not in l)
print(json.dumps(failed))
"""


def failures(folders: Iterable[str]) -> dict[str, str]:
    """Return the traceback of each function whose handler cannot be imported.

    Our code is read from the sources, third-party layers from the last build.
    """
    described = template.functions(template.read())
    groups: dict[tuple[Path, ...], dict[str, str]] = {}
    for folder in folders:
        file = ROOT / "functions" / folder / "app.py"
        properties = described.get(template.logical_id(folder))
        if properties is None or not file.exists():
            continue
        built = [BUILD / layer["Ref"] / "python" for layer in properties["Layers"]]
        layers = tuple(ROOT / "layers/kyora" if _KYORA in path.parts else path for path in built)
        groups.setdefault(layers, {})[folder] = str(file)
    found: dict[str, str] = {}
    for layers, files in groups.items():
        found |= _failures(layers, files)
    return found


def failures_of_build(folders: Iterable[str]) -> dict[str, str]:
    """Return the same for what was built; a build whose functions start is imported only once."""
    packages = hashlib.sha256((ROOT / "uv.lock").read_bytes()).hexdigest()  # the runtime's boto3
    started, checked = BUILD / ".started", f"{deploy.built()} {packages}"
    if started.exists() and started.read_text() == checked:
        return {}
    found = failures(folders)
    if not found:
        started.write_text(checked)
    return found


def _failures(layers: tuple[Path, ...], files: dict[str, str]) -> dict[str, str]:
    done = subprocess.run(
        [runtime.interpreter(), "-s", "-c", _IMPORT, json.dumps(files)],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(map(str, layers)),
            "AWS_LAMBDA_FUNCTION_NAME": "kyora-local",
            "AWS_REGION": "us-east-1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        return dict(json.loads(done.stdout.splitlines()[-1]))
    except (ValueError, IndexError):  # the interpreter itself ended: a crash, an exit in a module
        return dict.fromkeys(files, done.stderr or f"exit code {done.returncode}")


def explain(failed: dict[str, str], most: int = 14) -> str:
    """Describe failures for a terminal: one traceback for all functions of the same last line."""
    causes: dict[str, list[str]] = {}
    for folder, text in sorted(failed.items()):
        causes.setdefault(text.rstrip().rpartition("\n")[2], []).append(folder)
    parts = []
    for names in causes.values():
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        lines = failed[names[0]].replace(f"{ROOT}/", "").rstrip().splitlines()[-most:]
        trace = "\n".join(f"    {line}" for line in lines)
        parts.append(f"{', '.join(names[:4])}{more} cannot start:\n{trace}")
    return "\n".join(parts)
