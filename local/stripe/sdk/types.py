"""The Stripe SDK's own types, read from its source: what each call takes, what each object holds.

The SDK is generated from Stripe's OpenAPI document, so its `stripe.params` TypedDicts and its
resource classes are the nearest thing to Stripe itself that works without a network. They are
parsed, not imported: another release in another folder is read beside the installed one
(`make upgrade-check`), and nothing of the SDK's own code runs.
"""

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

_SCALARS = {"str", "int", "float", "bool", "Decimal", "Any", "object"}
_WRAPPERS = {"NotRequired", "Required", "Optional", "Union", "ClassVar", "ExpandableField"}
_LISTS, _PAGES = {"List", "list"}, {"ListObject", "SearchResultObject"}
_HASHES = {"Dict", "dict", "Mapping", "UntypedStripeObject"}


class Ref(NamedTuple):
    """A class of the SDK's: its file, relative to the package, and its name inside the file."""

    file: str
    name: str


@dataclass(frozen=True)
class Shape:
    """The values that an annotation allows; an empty shape allows nothing."""

    scalars: frozenset[str] = frozenset()  # of _SCALARS
    words: frozenset[str] = frozenset()  # an enumeration; an empty word unsets
    classes: tuple[Ref, ...] = ()
    items: "Shape | None" = None  # an array of these
    values: "Shape | None" = None  # a hash with free keys
    listed: "Shape | None" = None  # a list object (`data`, `has_more`) of these
    nullable: bool = False

    @property
    def choices(self) -> list[str]:
        """The words of an enumeration; empty when any text will do."""
        return sorted(self.words - {""})


class Member(NamedTuple):
    """A member of a class: what it may be and whether it may be absent."""

    shape: Shape
    required: bool


class Route(NamedTuple):
    """A call: its method, the path with `{}` for ids, its parameters' class, what it answers."""

    method: str
    path: str
    params: Ref | None
    answer: Shape


@dataclass(frozen=True)
class _Module:
    """A source file: its classes by dotted name, and where its imported names come from."""

    classes: Mapping[str, ast.ClassDef]
    dicts: Mapping[str, ast.Dict]  # TypedDict("Name", {…}): members whose names are keywords
    imports: Mapping[str, Ref]


@dataclass(frozen=True)
class Sdk:
    """A release of the SDK in a folder."""

    root: Path
    _modules: dict[str, _Module] = field(default_factory=dict, compare=False, repr=False)
    _members: dict[Ref, dict[str, Member]] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def version(self) -> str:
        """The API version that this release is pinned to, `2026-10-28.endive` for one."""
        text = (self.root / "_api_version.py").read_text()
        found = re.search(r"CURRENT = \"([^\"]+)\"", text)
        if found is None:
            raise ValueError(f"{self.root} names no API version")
        return found[1]

    @cached_property
    def routes(self) -> list[Route]:
        """Every call of API v1; those without an id in their path come first."""
        found = []
        for path in sorted(self.root.rglob("_*_service.py")):
            name = str(path.relative_to(self.root))
            if not name.startswith("v2/"):
                found += list(self._calls(name))
        return sorted(found, key=lambda route: route.path.count("{}"))

    @cached_property
    def objects(self) -> dict[str, Ref]:
        """The class of each object by the word in its `object`."""
        found = {}
        for path in sorted(self.root.rglob("_*.py")):
            name = str(path.relative_to(self.root))
            if name.startswith(("v2/", "params/", "events/")) or name.endswith("_service.py"):
                continue
            text = path.read_text()
            for kind in re.findall(r"OBJECT_NAME: ClassVar\[Literal\[\"([^\"]+)\"\]\]", text):
                owner = re.search(r"^class (\w+)\((?s:.)*?OBJECT_NAME", text, re.MULTILINE)
                if owner:
                    found[kind] = Ref(name, owner[1])
        return found

    def route(self, method: str, path: str) -> Route | None:
        """Return the route of a request; `path` holds ids."""
        parts = path.strip("/").split("/")
        for wanted, route in self._by_beginning.get((method.upper(), len(parts), *parts[:2]), []):
            if all(want in ("{}", part) for want, part in zip(wanted, parts, strict=True)):
                return route
        return None

    @cached_property
    def _by_beginning(self) -> dict[tuple[object, ...], list[tuple[list[str], Route]]]:
        """The routes by method, length and their first two steps, which no id is among."""
        found: dict[tuple[object, ...], list[tuple[list[str], Route]]] = {}
        for route in self.routes:
            parts = route.path.strip("/").split("/")
            found.setdefault((route.method, len(parts), *parts[:2]), []).append((parts, route))
        return found

    def members(self, ref: Ref) -> dict[str, Member]:
        """Return the members of a class, inherited ones among them."""
        if ref not in self._members:
            self._members[ref] = self._read_members(ref)
        return self._members[ref]

    def _read_members(self, ref: Ref) -> dict[str, Member]:
        module = self._module(ref.file)
        found: dict[str, Member] = {}
        if ref.name in module.dicts:
            inside = module.dicts[ref.name]
            for key, value in zip(inside.keys, inside.values, strict=True):
                if isinstance(key, ast.Constant):
                    found[str(key.value)] = self._member(value, ref)
        owner = module.classes.get(ref.name)
        if owner is None:
            return found
        for base in owner.bases:
            if isinstance(base, ast.Name) and (base.id in module.dicts):
                found |= self.members(Ref(ref.file, base.id))
        for node in owner.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                name = node.target.id
                if not name.startswith("_") and not _is_class_variable(node.annotation):
                    found[name] = self._member(node.annotation, ref)
        return found

    def _member(self, annotation: ast.expr, scope: Ref) -> Member:
        shape = self.shape(annotation, scope)
        text = ast.unparse(annotation)
        return Member(shape, "NotRequired[" not in text and not shape.nullable)

    # ---- annotations

    def shape(self, node: ast.expr, scope: Ref) -> Shape:
        """Return what an annotation allows. Raises ValueError for one that is not understood."""
        if isinstance(node, ast.Constant):
            if node.value is None:
                return Shape(nullable=True)
            return self.shape(ast.parse(str(node.value), mode="eval").body, scope)
        if isinstance(node, ast.BinOp):
            return _either([self.shape(node.left, scope), self.shape(node.right, scope)])
        if isinstance(node, ast.Name | ast.Attribute):
            name = ast.unparse(node)
            if name in _SCALARS:
                return Shape(scalars=frozenset({name}))
            return Shape(classes=(self._resolve(name, scope),))
        if isinstance(node, ast.Subscript):
            return self._generic(node, scope)
        raise ValueError(f"{scope}: {ast.unparse(node)}")

    def _generic(self, node: ast.Subscript, scope: Ref) -> Shape:
        name = ast.unparse(node.value)
        inside = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if name == "Literal":
            words = [item.value for item in inside if isinstance(item, ast.Constant)]
            if any(isinstance(word, bool) for word in words):
                return Shape(scalars=frozenset({"bool"}))
            return Shape(words=frozenset(str(word) for word in words))
        found = [self.shape(item, scope) for item in inside]
        if name in _WRAPPERS:
            found += [Shape(scalars=frozenset({"str"}))] if name == "ExpandableField" else []
            found += [Shape(nullable=True)] if name == "Optional" else []
            return _either(found)
        if name in _LISTS:
            return Shape(items=found[0])
        if name in _HASHES:
            return Shape(values=found[-1])
        if name in _PAGES:
            return Shape(listed=found[0])
        raise ValueError(f"{scope}: {ast.unparse(node)}")

    def _resolve(self, name: str, scope: Ref) -> Ref:
        """Resolve a name used inside a class: nested, beside it, or imported."""
        module = self._module(scope.file)
        outer = scope.name.split(".")
        for depth in range(len(outer), -1, -1):
            inside = ".".join([*outer[:depth], name])
            if inside in module.classes or inside in module.dicts:
                return Ref(scope.file, inside)
        first, _, rest = name.partition(".")
        if first in module.imports:
            found = module.imports[first]
            return Ref(found.file, f"{found.name}.{rest}" if rest else found.name)
        raise ValueError(f"{scope}: {name} is not defined")

    def _module(self, name: str) -> _Module:
        if name not in self._modules:
            self._modules[name] = _read_module((self.root / name).resolve())
        return self._modules[name]

    # ---- calls

    def _calls(self, name: str) -> Iterable[Route]:
        module = self._module(name)
        for owner in module.classes.values():
            scope = Ref(name, owner.name)
            for node in owner.body:
                if isinstance(node, ast.FunctionDef) and (found := _request(node)):
                    params = _params(node)
                    answer = Shape()
                    if node.returns is not None:
                        answer = self.shape(node.returns, scope)
                    ref = self._resolve(params, scope) if params else None
                    yield Route(found[0].upper(), found[1], ref, answer)


def _is_class_variable(annotation: ast.expr) -> bool:
    return isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "ClassVar"


def _either(shapes: list[Shape]) -> Shape:
    """Return the union; `Literal['a'] | str` is an open enumeration, and its words are meant."""
    scalars = frozenset[str]().union(*(shape.scalars for shape in shapes))
    words = frozenset[str]().union(*(shape.words for shape in shapes))
    if words - {""}:
        scalars -= {"str"}
    return Shape(
        scalars=scalars,
        words=words,
        classes=tuple(dict.fromkeys(ref for shape in shapes for ref in shape.classes)),
        items=next((shape.items for shape in shapes if shape.items), None),
        values=next((shape.values for shape in shapes if shape.values), None),
        listed=next((shape.listed for shape in shapes if shape.listed), None),
        nullable=any(shape.nullable for shape in shapes),
    )


@cache
def _read_module(file: Path) -> _Module:
    classes: dict[str, ast.ClassDef] = {}
    dicts: dict[str, ast.Dict] = {}
    imports: dict[str, Ref] = {}

    def read(body: list[ast.stmt], outer: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef):
                classes[f"{outer}{node.name}"] = node
                read(node.body, f"{outer}{node.name}.")
            elif isinstance(node, ast.If):
                read(node.body, outer)
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("stripe"):
                path = str(node.module).removeprefix("stripe").strip(".").replace(".", "/")
                for alias in node.names:
                    imports[alias.asname or alias.name] = Ref(f"{path}.py", alias.name)
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
                _functional(node, dicts)

    read(ast.parse(file.read_text()).body, "")
    return _Module(classes, dicts, imports)


def _functional(node: ast.Assign, dicts: dict[str, ast.Dict]) -> None:
    call, target = node.value, node.targets[0]
    if (
        isinstance(call, ast.Call)
        and isinstance(target, ast.Name)
        and ast.unparse(call.func) == "TypedDict"
        and isinstance(call.args[1], ast.Dict)
    ):
        dicts[target.id] = call.args[1]


def _request(function: ast.FunctionDef) -> tuple[str, str] | None:
    """Return the method and the path that a service's function asks for."""
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "self._request":
            method, path = node.args[0], node.args[1]
            if isinstance(path, ast.Call):  # "/v1/…/{id}".format(…)
                path = path.func.value if isinstance(path.func, ast.Attribute) else path
            if isinstance(method, ast.Constant) and isinstance(path, ast.Constant):
                return str(method.value), re.sub(r"\{\w+\}", "{}", str(path.value))
    return None


def _params(function: ast.FunctionDef) -> str | None:
    arguments = [*function.args.args, *function.args.posonlyargs, *function.args.kwonlyargs]
    for argument in arguments:
        if argument.arg == "params" and argument.annotation is not None:
            text = ast.unparse(argument.annotation)
            found = re.search(r"(\w+Params)\b", text)
            return found[1] if found else None
    return None


@cache
def installed() -> Sdk:
    """Return the release that is installed here, which is the one in uv.lock."""
    found = find_spec("stripe")
    if found is None or not found.submodule_search_locations:
        raise LookupError("the stripe package is not installed")
    return Sdk(Path(found.submodule_search_locations[0]))
