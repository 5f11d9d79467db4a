"""A saved file is running code two seconds later.

The changed function or the kyora layer is built as `sam build` builds it (a copy with unchecked
hash-based bytecode) and published to the emulator as a new version that the alias points to. Code
that cannot be imported is not published: its traceback is printed, and the last version keeps
running. For a change that a save cannot deploy, the watcher prints what to do.
"""

import asyncio
import compileall
import io
import os
import py_compile
import shutil
import tempfile
import time
import zipfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from local.progress import say
from local.settings import ROOT, Settings, undeployed_file
from local.stack import emulator, starting

FUNCTIONS, KYORA = ROOT / "functions", ROOT / "layers" / "kyora"
_FILES = ("template.yaml", "samconfig.toml", "pyproject.toml", "uv.lock")
_ALIAS = "live"
_LOOK_SECONDS = 0.3
_SETTLE_SECONDS = 0.1  # an editor, a formatter or git writes several files one after the other

type Snapshot = dict[str, tuple[int, int, int]]


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
    """Redeploy what the changed files belong to; return the names of what was redeployed."""
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
    # The template names it; any function's configuration has its ARN.
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
    for version in old[1:]:  # the deployed version and the last one stay
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


def advice(path: Path, functions: Iterable[str]) -> str:
    """Return what to do about a change that a quick redeploy does not cover; "" when it does."""
    again = "stop and `make run` again"
    match path.relative_to(ROOT).parts:
        case ("layers", "kyora", "kyora", "postgres", "migrations", *_):
            return "`make migrate` applies it"
        case ("layers", "kyora", "kyora", *_):
            return ""
        case ("pyproject.toml",):
            return f"`uv lock`, `make -C layers/<layer> lock` for what Lambda needs, then {again}"
        case ("functions", str(name), _, *_) if name not in functions:
            return f"function {name} is not deployed: declare it in template.yaml, then {again}"
        case ("functions", _, _, *_):
            return ""
        case _:
            return f"{again} to deploy it"


def snapshot(top: Path = ROOT) -> Snapshot:
    """Return inode, modification time and size of each watched file, by its path.

    Comparing snapshots cannot miss a save; a file notification can be lost between two reads.
    A snapshot of the few hundred files takes a millisecond.
    """
    found: Snapshot = {}
    for name in _FILES:
        with suppress(FileNotFoundError):
            found[str(top / name)] = _state((top / name).stat())
    folders = [str(top / "functions"), str(top / "layers")]
    while folders:
        with suppress(FileNotFoundError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders += [entry.path] if entry.name != "__pycache__" else []
                elif not entry.name.endswith((".pyc", "~", ".swp")):
                    with suppress(FileNotFoundError):
                        found[entry.path] = _state(entry.stat())
    return found


def _state(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_ino, status.st_mtime_ns, status.st_size


def differences(before: Snapshot, after: Snapshot) -> set[Path]:
    """Return the files that were added, changed or removed between two snapshots."""
    return {Path(p) for p in before.keys() | after.keys() if before.get(p) != after.get(p)}


async def watch(stack: Settings, functions: dict[str, str], seen: Snapshot) -> None:
    """Redeploy on every save after the snapshot `seen` until cancelled."""
    undeployed_file(stack.home).unlink(missing_ok=True)
    pending: set[Path] = set()
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        now = await asyncio.to_thread(snapshot)
        if now == seen:
            continue
        while (later := await _after(_SETTLE_SECONDS)) != now:
            now = later
        changed, seen = differences(seen, now), now
        late = {p: todo for p in sorted(changed) if (todo := advice(p, functions))}
        for path, todo in late.items():
            say(f"  ! {path.relative_to(ROOT)} changed: {todo}")
        # Includes what failed the last time: it was not deployed.
        pending |= {p for p in changed - late.keys() if p.suffix == ".py" or KYORA in p.parents}
        if not pending:
            continue
        done = await asyncio.to_thread(_redeploy, stack, functions, pending)
        pending = set() if done else pending


async def _after(seconds: float) -> Snapshot:
    await asyncio.sleep(seconds)
    return await asyncio.to_thread(snapshot)


def _redeploy(stack: Settings, functions: dict[str, str], changed: set[Path]) -> bool:
    """Publish the changed code and print it; when it cannot start, print why and return False."""
    began = time.monotonic()
    if problem := fault(sorted(changed)):
        return _refuse(stack, problem, "; the last version keeps running")
    layer = any(KYORA in path.parents for path in changed)
    touched = functions if layer else {path.relative_to(FUNCTIONS).parts[0] for path in changed}
    if failed := starting.failures(touched):
        end = "\n    The last version keeps running."
        return _refuse(stack, starting.explain(failed), end)
    (stack.home / "deployed").unlink(missing_ok=True)
    try:
        done = publish(stack, functions, changed)
    except Exception as error:
        return _refuse(stack, f"redeploy failed: {error}")
    undeployed_file(stack.home).unlink(missing_ok=True)
    if done:
        say(f"  ↻ {', '.join(done)} redeployed in {time.monotonic() - began:.1f} s")
    return True


def _refuse(stack: Settings, problem: str, end: str = "") -> bool:
    """Print why a save is not deployed, and keep it for `make status` and the console."""
    undeployed_file(stack.home).write_text(problem)
    say(f"  ✗ {problem}{end}")
    return False


def publish_migrations(stack: Settings, functions: dict[str, str]) -> None:
    """Give migrate_database the present layer, so that it has a new migration file."""
    (stack.home / "deployed").unlink(missing_ok=True)
    client = emulator.client("lambda", stack.gateway_port)
    layer = _publish_layer(client, functions["check_health"])
    _publish_function(client, "migrate_database", functions["migrate_database"], set(), layer)
