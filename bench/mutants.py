"""Whether the tests notice: small faults, put into the modules that decide, one at a time.

`make mutants` takes a few of every module in `bench/mutants.toml`, always the same ones,
`make mutants MODULE=assets/content` those of a folder, `make mutants MODULE=limits.py` every one of
a module. A fault is a comparison that is one off, a constant, an operator, a
condition, a statement or an argument: what a person gets wrong. Each runs in a process of its own,
with the tests that the file names for its module; a test that fails, or never ends, has noticed.

A fault that changes nothing a caller can see is listed in that file with its reason; so are
functions that are little but SQL, with the tests that run them in a database. The run fails below
95 % noticed of the others, and when a listed fault is noticed or is not in the code any more.
"""

import argparse
import ast
import copy
import gc
import importlib
import importlib.abc
import importlib.util
import io
import os
import random
import re
import signal
import sys
import tempfile
import time
import tomllib
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout, suppress
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYER = ROOT / "layers" / "kyora"
LISTED = ROOT / "bench" / "mutants.toml"
AIM = 0.95
_FEW = 25  # faults of a module, unless all are asked for

_COMPARED: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_REPLACED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
_TWINS = {"min": "max", "max": "min", "any": "all", "all": "any"}


class Mutant(NamedTuple):
    """A fault: where, and what it says there before and after."""

    line: int
    name: str  # `function: before → after`, by which a survivor is listed
    node: int  # its number among those that can be changed
    change: int  # its number among the changes of that node


# ---- faults


def mutants(source: str) -> list[Mutant]:
    """Return every fault that we know for a module, in the order of its lines."""
    found: list[Mutant] = []
    seen: dict[str, int] = {}
    for number, (node, function) in enumerate(_nodes(ast.parse(source))):
        for index, change in enumerate(_changes(node)):
            before = ast.unparse(node)
            after = ast.unparse(change(copy.deepcopy(node)))
            if after == before:
                continue
            name = f"{function}: {_said(node, index, before, after)}"
            seen[name] = seen.get(name, 0) + 1
            name += f" ({seen[name]})" if seen[name] > 1 else ""
            found.append(Mutant(getattr(node, "lineno", 0), name, number, index))
    return sorted(found)


def mutated(source: str, mutant: Mutant) -> ast.Module:
    """Return a module with a fault in it."""
    tree = ast.parse(source)
    node, _ = list(_nodes(tree))[mutant.node]
    new = list(_changes(node))[mutant.change](node)
    if new is not node:
        _put(tree, node, new)
    return ast.fix_missing_locations(tree)


type Change = Callable[[Any], ast.AST]


def _nodes(tree: ast.AST, function: str = "") -> Iterator[tuple[ast.AST, str]]:
    """Yield what can be changed, with the function that it is in: no types, no log lines."""
    for field, value in ast.iter_fields(tree):
        if field in ("annotation", "returns", "type_params", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or _aside(child):
                continue
            if isinstance(child, ast.Constant) and isinstance(tree, ast.Tuple | ast.List | ast.Set):
                continue  # that it is missing is tried
            inside = _name(child) if isinstance(tree, ast.Module | ast.ClassDef) else function
            yield child, inside
            yield from _nodes(child, inside)


def _name(node: ast.AST) -> str:
    """Return what a statement of a module or class defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return node.name
    targets = getattr(node, "targets", None) or [getattr(node, "target", node)]
    return ast.unparse(targets[0])


def _aside(node: ast.AST) -> bool:
    """Whether a node decides nothing: docstrings, imports, types, log lines, text for people."""
    if isinstance(node, ast.Import | ast.ImportFrom | ast.TypeAlias | ast.JoinedStr):
        return True
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return True
    if isinstance(node, ast.Expr):
        text = ast.unparse(node)
        return isinstance(node.value, ast.Constant) or text.startswith(("logger()", "super()"))
    return False


def _changes(node: ast.AST) -> Iterator[Change]:
    """Yield the changes of a node; each returns what stands in its place."""
    for kind, changes in _CHANGES.items():
        if isinstance(node, kind):
            yield from changes(node)


def _comparisons(node: ast.Compare) -> Iterator[Change]:
    for index, operator in enumerate(node.ops):
        for other in _COMPARED[type(operator)]:
            yield _set("ops", other(), index)


def _operators(node: ast.BinOp) -> Iterator[Change]:
    if other := _REPLACED.get(type(node.op)):
        yield _set("op", other())


def _conditions(node: ast.BoolOp) -> Iterator[Change]:
    yield _set("op", ast.Or() if isinstance(node.op, ast.And) else ast.And())
    yield from (_drop("values", index) for index in range(len(node.values)))


def _negations(node: ast.UnaryOp) -> Iterator[Change]:
    if isinstance(node.op, ast.Not | ast.USub):
        yield _only("operand")


def _branches(node: ast.IfExp) -> Iterator[Change]:
    yield from (_only("body"), _only("orelse"))


def _blocks(node: ast.If | ast.While) -> Iterator[Change]:
    yield _set("test", ast.UnaryOp(ast.Not(), node.test))
    yield _instead(ast.Pass())


def _filters(node: ast.comprehension) -> Iterator[Change]:
    yield from (_drop("ifs", index) for index in range(len(node.ifs)))


def _constants(node: ast.Constant) -> Iterator[Change]:
    """Yield what a constant is mistaken for; not SQL, not sentences, not patterns."""
    value = node.value
    if isinstance(value, bool):
        yield _instead(ast.Constant(not value))
    elif isinstance(value, int | float):
        yield from (_instead(ast.Constant(value + step)) for step in (1, -1))
    elif isinstance(value, str) and re.fullmatch(r"[\w./:-]+", value):
        yield _instead(ast.Constant(f"{value}?"))


def _results(node: ast.Return) -> Iterator[Change]:
    if node.value is not None:
        yield _set("value", ast.Constant(None))


def _statements(node: ast.stmt) -> Iterator[Change]:
    yield _instead(ast.Pass())


def _calls(node: ast.Call) -> Iterator[Change]:
    named = ast.unparse(node.func)
    if len(node.args) > 1 and named not in _TWINS:
        first, second, *rest = node.args
        if not isinstance(first, ast.Starred) and not isinstance(second, ast.Starred):
            yield _set("args", [second, first, *rest])
    if named in _TWINS:
        yield _set("func", ast.Name(_TWINS[named], ast.Load()))
    yield from (_drop("keywords", index) for index in range(len(node.keywords)))


def _entries(node: ast.Dict) -> Iterator[Change]:
    yield from (_drop("keys values", index) for index in range(len(node.keys)))


def _members(node: ast.Set | ast.List | ast.Tuple) -> Iterator[Change]:
    if isinstance(getattr(node, "ctx", ast.Load()), ast.Load):
        yield from (_drop("elts", index) for index in range(len(node.elts)))


_CHANGES: dict[Any, Callable[[Any], Iterator[Change]]] = {
    ast.Compare: _comparisons,
    ast.BinOp | ast.AugAssign: _operators,
    ast.BoolOp: _conditions,
    ast.UnaryOp: _negations,
    ast.IfExp: _branches,
    ast.If | ast.While: _blocks,
    ast.comprehension: _filters,
    ast.Constant: _constants,
    ast.Return: _results,
    ast.Raise | ast.AugAssign | ast.Expr: _statements,
    ast.Continue: lambda _: iter([_instead(ast.Break())]),
    ast.Break: lambda _: iter([_instead(ast.Continue())]),
    ast.Call: _calls,
    ast.Dict: _entries,
    ast.Set | ast.List | ast.Tuple: _members,
}


def _set(field: str, value: Any, index: int | None = None) -> Change:
    def change(twin: Any) -> ast.AST:
        if index is None:
            setattr(twin, field, value)
        else:
            getattr(twin, field)[index] = value
        return twin  # type: ignore[no-any-return]

    return change


def _drop(fields: str, index: int) -> Change:
    def change(twin: Any) -> ast.AST:
        for field in fields.split():
            del getattr(twin, field)[index]
        alone = isinstance(twin, ast.BoolOp) and len(twin.values) == 1
        return twin.values[0] if alone else twin  # type: ignore[no-any-return]

    return change


def _only(field: str) -> Change:
    return lambda twin: getattr(twin, field)


def _instead(new: ast.AST) -> Change:
    return lambda _: new


def _put(tree: ast.Module, old: ast.AST, new: ast.AST) -> None:
    for parent in ast.walk(tree):
        for field, value in ast.iter_fields(parent):
            if value is old:
                setattr(parent, field, new)
            elif isinstance(value, list):
                value[:] = [new if one is old else one for one in value]


def _said(node: ast.AST, index: int, before: str, after: str) -> str:
    if isinstance(node, ast.Dict):
        return f"no {ast.unparse(node.keys[index] or node.values[index])}: …"
    if isinstance(node, ast.Set | ast.List | ast.Tuple):
        return f"no {_short(ast.unparse(node.elts[index]), '')} in a row of {len(node.elts)}"
    return f"{_short(before, after)} → {'nothing' if after == 'pass' else _short(after, before)}"


def _short(text: str, other: str) -> str:
    """Return the first line of a text that differs from the other one's."""
    for line, twin in zip(text.splitlines(), [*other.splitlines(), *[""] * 999], strict=False):
        if line != twin:
            return line.strip()[:120]
    return text.splitlines()[0][:120] if text else ""


# ---- running


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a tree instead of its file."""

    def __init__(self, module: str, path: Path, tree: ast.Module) -> None:
        self._module, self._path, self._tree = module, path, tree

    def find_spec(self, fullname: str, *_: Any) -> Any:
        """Return where the module is; nothing for every other one."""
        if fullname != self._module:
            return None
        return importlib.util.spec_from_file_location(fullname, self._path, loader=self)

    def exec_module(self, module: ModuleType) -> None:
        """Run the tree."""
        exec(compile(self._tree, self._path, "exec"), module.__dict__)  # noqa: S102


class _Unhurried:
    """Properties look for one counter-example: the smallest one is no matter here."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> None:
        from hypothesis import Phase, settings

        settings.register_profile(
            "mutants", derandomize=True, phases=(Phase.explicit, Phase.generate), database=None
        )
        settings.load_profile("mutants")


def _run(tests: Sequence[str], finder: _Finder | None, seconds: float) -> str | None:
    """Run the tests in a process of its own; None when they pass within so many seconds."""
    with tempfile.TemporaryFile("w+") as output:
        child = os.fork()
        if child == 0:
            os.setpgid(0, 0)
            for stream in (1, 2):
                os.dup2(output.fileno(), stream)
            if finder:
                sys.meta_path.insert(0, finder)
            os._exit(_pytest(["-x", *tests], _Unhurried()))
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                output.seek(0)
                return None if status == 0 else output.read()
            time.sleep(0.005)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return "no end"


def _pytest(arguments: Sequence[str], *plugins: object) -> int:
    # What _load has imported cannot be rewritten any more, and need not be.
    ours = ["-W", "ignore::pytest.PytestAssertRewriteWarning", "-q", "-n", "0", "--assert=plain"]
    # Half of the time of a short run.
    without = ("randomly", "schemathesis", "unraisableexception", "threadexception")
    ours += [word for name in without for word in ("-p", f"no:{name}")]
    gc.freeze()
    try:
        return int(pytest.main([*ours, *arguments], plugins=plugins))
    except BaseException:
        traceback.print_exc()
        return 1


def _load(tests: Sequence[str]) -> None:
    """Import, once for all processes, what the tests import of other people's code."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        with redirect_stdout(io.StringIO()):
            _pytest(["--collect-only", *tests])
        ours = (str(LAYER), *(str(ROOT / name) for name in ("tests", "local", "functions")))
        with os.fdopen(writer, "w") as out:
            for name, module in list(sys.modules.items()):
                path = getattr(module, "__file__", None) or ""
                if path and not path.startswith(ours):
                    out.write(f"{name}\n")
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as names:
        for name in names.read().split():
            with suppress(Exception):
                importlib.import_module(name)
    os.wait()


def file(module: str) -> Path:
    """Return the file of a module: one of the layer, or one of the commands."""
    return ROOT / module if module.startswith("local/") else LAYER / "kyora" / module


def main() -> int:
    """Run the faults of the modules asked for and print what went unnoticed."""
    parser = argparse.ArgumentParser(prog="make mutants")
    parser.add_argument("--module", help="one of bench/mutants.toml, or a folder")
    parser.add_argument("--part", default="1/1", help="2/5: every fifth fault, from the second on")
    arguments = parser.parse_args()
    listed: dict[str, dict[str, Any]] = tomllib.loads(LISTED.read_text())
    asked: str = arguments.module or ""
    modules = [asked] if asked in listed else [name for name in listed if name.startswith(asked)]
    if not modules:
        print(f"{LISTED.name} names no {asked}: {', '.join(listed)}")
        return 2
    part, parts = map(int, arguments.part.split("/"))
    os.chdir(ROOT)
    good = True
    with tempfile.TemporaryDirectory(prefix="mutants", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)  # PostgreSQL runs as a user of its own
        os.environ |= {"HYPOTHESIS_STORAGE_DIRECTORY": folder, "TMPDIR": folder}
        tempfile.tempdir = folder  # and of the processes that are forked
        for module in modules:
            found = mutants(file(module).read_text())
            if asked != module:
                found = random.Random(module).sample(found, min(_FEW, len(found)))
            good &= _module(module, found[part - 1 :: parts], listed[module])
    return 0 if good else 1


def _module(module: str, found: Sequence[Mutant], listed: dict[str, Any]) -> bool:
    """Run the faults of a module; False when too few are noticed, or a list is out of date."""
    tests, survivors = listed["tests"], dict(listed.get("survivors", {}))
    path = file(module)
    source = path.read_text()
    root = LAYER if path.is_relative_to(LAYER) else ROOT
    name = ".".join(path.relative_to(root).with_suffix("").parts)
    _load(tests)
    began = time.monotonic()
    if failure := _run(tests, None, 300):
        print(f"{failure[-3000:]}\n{module}: its tests fail without a fault")
        return False
    patience = 10 + 4 * (time.monotonic() - began)
    lines, noticed, judged = [], 0, 0
    for mutant in found:
        if mutant.name.partition(":")[0] in listed.get("elsewhere", {}):
            continue
        survives = not _run(tests, _Finder(name, path, mutated(source, mutant)), patience)
        if mutant.name not in survivors:
            judged += 1
            noticed += not survives
        if survives != (mutant.name in survivors):
            lines.append(f"{module}:{mutant.line} {mutant.name}" + ": noticed" * (not survives))
            print(lines[-1], flush=True)
    gone = set(survivors) - {mutant.name for mutant in mutants(source)}
    share = noticed / judged if judged else 1.0
    print(
        f"{module}: {noticed} of {judged} noticed ({share:.0%}) in"
        f" {time.monotonic() - began:.0f} s; listed: {len(survivors)}",
        *sorted(f"  {name}: not in the code any more" for name in gone),
        sep="\n",
        flush=True,
    )
    return share >= AIM and not gone and not any(line.endswith(": noticed") for line in lines)


if __name__ == "__main__":
    sys.exit(main())
