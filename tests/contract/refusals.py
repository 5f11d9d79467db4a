"""Which refusals the code can answer with, read from its source: class and code."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

from kyora import auth
from kyora.errors import KyoraError
from local.settings import ROOT

_LAYER = ROOT / "layers" / "kyora"


def reachable() -> list[Path]:
    """Return the source of every function of the API and of each kyora module it may import."""
    found: dict[Path, None] = {}
    waiting = [
        path
        for path in sorted((ROOT / "functions").glob("*/app.py"))
        if path.parent.name == "authorize_request"
        or any(word in path.read_text() for word in ("http.entrypoint(", "http.unrouted("))
    ]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found[path] = None
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
                names += [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            waiting += [file for name in names if (file := _file(name))]
    return sorted(found)


def raised() -> dict[str, set[str]]:
    """Return the classes by the codes they are made with."""
    found: dict[str, set[str]] = {}
    paths = reachable()
    classes = {kind.__name__: kind for kind in _subclasses(KyoraError, paths)}
    for path in paths:
        for kind, code in _made(path, classes):
            found.setdefault(code, set()).add(kind)
    # The one place where a code is no constant: its callers name it from this table.
    for code in auth._DETAILS:
        found.setdefault(code, set()).add("Unauthenticated")
    return found


def _made(path: Path, classes: dict[str, type[KyoraError]]) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            continue
        kind = classes.get(node.func.id)
        if kind is None:
            continue
        given = next((word.value for word in node.keywords if word.arg == "code"), None)
        if given is None:
            yield kind.__name__, kind.code
        elif isinstance(given, ast.Constant):
            yield kind.__name__, str(given.value)
        else:
            where = f"{path.relative_to(ROOT)}:{node.lineno}"
            assert path.name == "auth.py", f"{where}: a code must be readable where it is raised"


def _subclasses(kind: type[KyoraError], paths: list[Path]) -> Iterator[type[KyoraError]]:
    for module in paths:
        if module.is_relative_to(_LAYER):
            parts = module.relative_to(_LAYER).with_suffix("").parts
            importlib.import_module(".".join(parts).removesuffix(".__init__"))
    waiting = [kind]
    while waiting:
        found = waiting.pop()
        yield found
        waiting += found.__subclasses__()


def _file(name: str) -> Path | None:
    base = _LAYER.joinpath(*name.split("."))
    candidates = (base.with_suffix(".py"), base / "__init__.py")
    return next((file for file in candidates if name.startswith("kyora") and file.is_file()), None)
