"""What a function's code can reach, read from syntax trees: no import, no run.

A node is a top-level name of a module (`kyora.bus.outbox.add`); a module's own statements are the
node of its name. An edge is a mention: what is named may be called, there or by what it is
handed to. So nothing that can run is missed, and a test that says "never" may believe it.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
_LAYER = ROOT / "layers" / "kyora"
FUNCTIONS = tuple(sorted(path.parent.name for path in ROOT.glob("functions/*/app.py")))


@cache
def sources() -> dict[str, ast.Module]:
    """Every module of ours by its import name; a function's is `functions.<name>`."""
    found = {}
    for path in sorted((_LAYER / "kyora").rglob("*.py")):
        parts = path.relative_to(_LAYER).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = ast.parse(path.read_text())
    for name in FUNCTIONS:
        text = (ROOT / "functions" / name / "app.py").read_text()
        found[f"functions.{name}"] = ast.parse(text)
    return found


@cache
def nodes() -> dict[str, list[ast.stmt]]:
    """The statements behind each node."""
    found: dict[str, list[ast.stmt]] = {}
    for module, tree in sources().items():
        found[module] = []
        for statement in tree.body:
            for name in _defines(statement):
                found.setdefault(f"{module}.{name}", []).append(statement)
            if not isinstance(statement, ast.FunctionDef | ast.ClassDef | ast.Assign):
                found[module].append(statement)
            elif isinstance(statement, ast.FunctionDef | ast.ClassDef):
                found[module] += [ast.Expr(each) for each in statement.decorator_list]
    return found


def _defines(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        yield statement.name
    for target in getattr(statement, "targets", [getattr(statement, "target", None)]):
        for node in ast.walk(target) if target else ():
            if isinstance(node, ast.Name):
                yield node.id


@cache
def _imported(module: str) -> dict[str, str]:
    """Local name → what an import anywhere in the module binds it to."""
    found = {}
    for node in ast.walk(sources()[module]):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return found


@cache
def edges(node: str) -> frozenset[str]:
    """Every node that this one mentions."""
    module = _module(node)
    found = {module}
    for statement in nodes()[node]:
        for part in ast.walk(statement):
            if isinstance(part, ast.Name | ast.Attribute):
                found |= _named(_dotted(part), module)
    return frozenset(found - {node})


def _dotted(part: ast.expr) -> str:
    if isinstance(part, ast.Name):
        return part.id
    if isinstance(part, ast.Attribute) and (head := _dotted(part.value)):
        return f"{head}.{part.attr}"
    return ""


def _named(dotted: str, module: str) -> set[str]:
    """The node that a dotted name means inside a module; one that is re-exported is followed."""
    head, _, rest = dotted.partition(".")
    for _ in range(5):
        if f"{module}.{head}" in nodes():
            return {f"{module}.{head}"}
        full = _imported(module).get(head, "")
        if not full.startswith("kyora"):
            return set()
        if full in sources():  # a module: the next part is one of its names
            module, (head, _, rest) = full, rest.partition(".")
            if not head:
                return {module}
            if f"{module}.{head}" in sources():  # or a module below it
                module, (head, _, rest) = f"{module}.{head}", rest.partition(".")
                if not head:
                    return {module}
        else:
            module, _, head = full.rpartition(".")
    return set()


def _module(node: str) -> str:
    return node if node in sources() else node.rpartition(".")[0]


@cache
def reach(*starts: str) -> frozenset[str]:
    """Every node that can be reached from these, themselves included."""
    found: set[str] = set()
    todo = list(starts)
    while todo:
        node = todo.pop()
        if node not in found and node in nodes():
            found.add(node)
            todo += edges(node)
    return frozenset(found)


def of(function: str) -> frozenset[str]:
    """Every node that functions/<function>/app.py can reach."""
    module = f"functions.{function}"
    return reach(*(name for name in nodes() if f"{name}.".startswith(f"{module}.")))


def calls(found: frozenset[str], *names: str) -> Iterator[ast.Call]:
    """Every call inside these nodes of something that ends with one of `names`."""
    for node in sorted(found):
        yield from (call for name, call in _calls(node) if name in names)


@cache
def _calls(node: str) -> list[tuple[str, ast.Call]]:
    """Every call inside a node, with the last part of what is called."""
    parts = (part for statement in nodes()[node] for part in ast.walk(statement))
    return [(_dotted(p.func).split(".")[-1], p) for p in parts if isinstance(p, ast.Call)]


def texts(call: ast.Call) -> list[str]:
    """The texts that stand as arguments of a call."""
    values = [part.value for part in call.args if isinstance(part, ast.Constant)]
    return [value for value in values if isinstance(value, str)]


def operations(found: frozenset[str]) -> set[tuple[str, str]]:
    """(service, operation) of every call of AWS's API but S3's in what can be reached."""
    asked = set()
    for call in calls(found, "call", "_send"):
        match texts(call):
            case [("events" | "sqs" | "secretsmanager") as service, operation]:
                asked.add((service, operation))
            case [operation] if getattr(call.func, "id", "") == "_send":
                asked.add(("sqs", operation))
    return asked
