"""A saved file is running code two seconds later.

A function or the kyora layer is built here as `sam build` builds it (a copy with hash-checked
bytecode) and published to the emulator: a new version, and the alias moved to it. The template,
the dependencies and the migrations need `make run` again, and say so.
"""

import asyncio
import compileall
import io
import py_compile
import shutil
import tempfile
import time
import zipfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from watchfiles import awatch

from local import emulator
from local.progress import say
from local.settings import ROOT, Settings

FUNCTIONS, KYORA = ROOT / "functions", ROOT / "layers" / "kyora"
_ALIAS = "live"


def package(source: Path, inside: str, runtime: str) -> bytes:
    """Zip a folder's content below `inside` with the bytecode that the Makefiles make."""
    with tempfile.TemporaryDirectory() as scratch:
        top = Path(scratch)
        shutil.copytree(
            source,
            top / inside,
            ignore=shutil.ignore_patterns("__pycache__", "Makefile"),
            dirs_exist_ok=True,
        )
        compileall.compile_dir(
            top,
            quiet=2,
            stripdir=scratch,
            prependdir=runtime,
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for path in sorted(top.rglob("*")):
                if path.is_file():
                    archive.write(path, path.relative_to(top))
        return buffer.getvalue()


def publish(stack: Settings, functions: dict[str, str], changed: Iterable[Path]) -> list[str]:
    """Redeploy what the changed files belong to and return the names of it."""
    client = emulator.client("lambda", stack.gateway_port)
    layer, names = "", set[str]()
    for path in changed:
        if path.is_relative_to(KYORA):
            layer = "new"
        elif path.is_relative_to(FUNCTIONS):
            names.add(path.relative_to(FUNCTIONS).parts[0])
    names &= functions.keys()
    if layer:
        layer = _publish_layer(client, functions["check_health"])
    with ThreadPoolExecutor(4) as pool:  # boto3 clients may be shared between threads
        list(pool.map(lambda name: _publish_function(client, name, functions[name], names, layer),
                      functions if layer else names))  # fmt: skip
    return (["layer kyora"] if layer else []) + sorted(names)


def _publish_layer(client: Any, function: str) -> str:
    # Its name is the template's affair; any function tells it.
    [name] = [
        item["Arn"].split(":")[-2]
        for item in client.get_function_configuration(FunctionName=function)["Layers"]
        if item["Arn"].split(":")[-2].endswith("-kyora")
    ]
    old = client.list_layer_versions(LayerName=name)["LayerVersions"]
    made = client.publish_layer_version(
        LayerName=name,
        Content={"ZipFile": package(KYORA / "kyora", "python/kyora", "/opt")},
        CompatibleRuntimes=["python3.13"],
    )
    for version in old[1:]:  # the stack's own and the one before this stay
        if version["Version"] > 1:
            client.delete_layer_version(LayerName=name, VersionNumber=version["Version"])
    return str(made["LayerVersionArn"])


def _publish_function(client: Any, folder: str, name: str, changed: set[str], layer: str) -> None:
    if layer:
        kept = client.get_function_configuration(FunctionName=name).get("Layers", [])
        family = layer.rsplit(":", 1)[0] + ":"
        arns = [layer if item["Arn"].startswith(family) else item["Arn"] for item in kept]
        client.update_function_configuration(FunctionName=name, Layers=arns)
    if folder in changed:
        client.update_function_code(
            FunctionName=name, ZipFile=package(FUNCTIONS / folder, "", "/var/task")
        )
    if client.list_aliases(FunctionName=name)["Aliases"]:  # migrate_database has none
        version = client.publish_version(FunctionName=name)["Version"]
        client.update_alias(FunctionName=name, Name=_ALIAS, FunctionVersion=version)


def fault(paths: Iterable[Path]) -> str:
    """Return one line about the first file that is not Python, or nothing."""
    for path in paths:
        if path.suffix == ".py" and path.exists():
            try:
                compile(path.read_bytes(), str(path), "exec")
            except (SyntaxError, ValueError) as error:
                where = f"{path.relative_to(ROOT)}:{getattr(error, 'lineno', None) or 1}"
                return f"{where}: {getattr(error, 'msg', error)}"
    return ""


def needs_restart(path: Path) -> bool:
    """Tell whether a change is beyond a quick redeploy."""
    return (
        "migrations" in path.parts
        or (ROOT / "layers" in path.parents and ROOT / "layers" / "kyora" not in path.parents)
        or path.parent == ROOT
    )


async def watch(stack: Settings, functions: dict[str, str]) -> None:
    """Redeploy on every save until cancelled."""
    tops = [FUNCTIONS, ROOT / "layers", ROOT / "template.yaml"]
    pending: set[Path] = set()
    async for changes in awatch(*tops, step=50, debounce=200, recursive=True):
        changed = {Path(name) for _, name in changes}
        changed = {p for p in changed if "__pycache__" not in p.parts and p.suffix != ".pyc"}
        changed = {p for p in changed if not p.is_dir() and not p.name.endswith(("~", ".swp"))}
        if not changed:
            continue
        late = {p for p in changed if needs_restart(p)}
        for path in sorted(late):
            say(f"  ! {path.relative_to(ROOT)} changed: stop and `make run` again to deploy it")
        # What failed before is part of the next try: it was not deployed.
        pending |= {p for p in changed - late if p.suffix == ".py" or p.is_relative_to(KYORA)}
        if not pending:
            continue
        if problem := fault(sorted(pending)):
            say(f"  ✗ {problem}; the version before it keeps running")
            continue
        (stack.home / "deployed").unlink(missing_ok=True)
        began = time.monotonic()
        try:
            done = await asyncio.to_thread(publish, stack, functions, pending)
        except Exception as error:
            say(f"  ✗ redeploy failed: {error}")
            continue
        pending = set()
        if done:
            say(f"  ↻ {', '.join(done)} redeployed in {time.monotonic() - began:.1f} s")
