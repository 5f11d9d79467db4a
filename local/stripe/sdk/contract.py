"""Requests and answers held against the Stripe SDK's types.

`check_params` returns what Stripe would refuse of a request, `check_answer` how an answer differs
from Stripe's objects, `check_reads` which fields we read that no object has. The stand-in refuses
by the first and reads forms by the same types (`typed`); tests check its answers by the second;
`make upgrade-check` runs all three against another release.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from local.stripe.core.params import parse
from local.stripe.sdk.types import Member, Ref, Sdk, Shape, installed

_NUMBER = re.compile(r"-?\d+")
_DECIMAL = re.compile(r"-?\d+(\.\d+)?([eE][-+]?\d+)?")
_BOOLEANS = {"true": True, "false": False, "1": True, "0": False}
# Sent by every version but no longer documented: recordings of 2025-11 (clover) have them.
_ALSO_SENT = {"subscription": {"plan", "quantity"}, "plan": {"amount_decimal"}}


class Fault(NamedTuple):
    """Why a parameter is refused: its name in bracket form, Stripe's code and words."""

    param: str
    code: str | None
    message: str


def check_params(
    method: str, path: str, params: Mapping[str, Any], sdk: Sdk | None = None
) -> list[Fault]:
    """Return what Stripe would refuse of a request, in the order of its parameters.

    `params` are nested as `stripe` takes them or as a form decodes: `True` and `"true"`, a list
    and a hash of its indexes, nested members and names in brackets mean the same. `path` holds ids
    (`/v1/customers/cus_1`).
    """
    sdk = sdk or installed()
    if any("[" in name for name in params):
        params = parse(params.items())
    route = sdk.route(method, path)
    if route is None:
        return [Fault("", "url_unknown", f"Unrecognized request URL ({method.upper()}: {path}).")]
    if route.params is None:
        return [_unknown(name) for name in params]
    return list(_members(sdk, route.params, params, ""))


def _unknown(param: str) -> Fault:
    return Fault(param, "parameter_unknown", f"Received unknown parameter: {param}")


def _members(sdk: Sdk, ref: Ref, given: Mapping[str, Any], outer: str) -> Iterator[Fault]:
    known = sdk.members(ref)
    for name, value in given.items():
        param = f"{outer}[{name}]" if outer else name
        if name not in known:
            yield _unknown(param)
        elif value is not None:  # the SDK sends no None
            yield from _value(sdk, known[name].shape, value, param)
    for name, member in known.items():
        if member.required and given.get(name) is None:
            param = f"{outer}[{name}]" if outer else name
            yield Fault(param, "parameter_missing", f"Missing required param: {param}.")


def _value(sdk: Sdk, shape: Shape, value: Any, param: str) -> Iterator[Fault]:
    if isinstance(value, Mapping):
        yield from _hash(sdk, shape, value, param)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        yield from _array(sdk, shape, value, param)
    else:
        yield from _scalar(shape, value, param)


def _hash(sdk: Sdk, shape: Shape, value: Mapping[str, Any], param: str) -> Iterator[Fault]:
    if shape.classes:
        tried = [list(_members(sdk, ref, value, param)) for ref in shape.classes]
        yield from min(tried, key=len)
    elif shape.values:
        for name, item in value.items():
            # An empty value takes a key of metadata away.
            if item is not None and item != "":
                yield from _value(sdk, shape.values, item, f"{param}[{name}]")
    elif shape.items and all(str(name).isdecimal() for name in value):
        yield from _array(sdk, shape, list(value.values()), param)
    else:
        yield _misshapen(shape, value, param)


def _array(sdk: Sdk, shape: Shape, value: Sequence[Any], param: str) -> Iterator[Fault]:
    if shape.items:
        for number, item in enumerate(value):
            yield from _value(sdk, shape.items, item, f"{param}[{number}]")
    elif shape.values:  # a hash whose keys are numbers, as a form decodes it
        yield from _hash(sdk, shape, {str(n): item for n, item in enumerate(value)}, param)
    else:
        yield _misshapen(shape, value, param)


def _scalar(shape: Shape, value: Any, param: str) -> Iterator[Fault]:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if text in shape.words or shape.scalars & {"Any", "object"}:
        return
    if text == "":
        yield Fault(
            param,
            "parameter_invalid_empty",
            f"You passed an empty string for '{param}'. We assume empty values are an attempt to "
            f"unset a parameter; however '{param}' cannot be unset. You should remove '{param}' "
            "from your request or supply a non-empty value.",
        )
    elif not any(_fits(kind, text) for kind in shape.scalars):
        yield _misshapen(shape, text, param)


def _fits(kind: str, text: str) -> bool:
    if kind == "int":
        return bool(_NUMBER.fullmatch(text))
    if kind == "bool":
        return text in _BOOLEANS
    if kind in ("float", "Decimal"):
        return bool(_DECIMAL.fullmatch(text))
    return True


def _misshapen(shape: Shape, value: Any, param: str) -> Fault:
    """Return the fault of a value whose type is not the parameter's."""
    if shape.choices and isinstance(value, str):
        words = shape.choices
        said = ", ".join(words[:-1]) + f", or {words[-1]}" if len(words) > 2 else " or ".join(words)
        name = param.rpartition("[")[2].removesuffix("]")
        return Fault(param, None, f"Invalid {name}: must be one of {said}")
    if not isinstance(value, str) or shape.items or shape.classes or shape.values:
        wanted = "array" if shape.items else "object" if shape.classes or shape.values else "string"
        return Fault(param, None, f"Invalid {wanted}")
    kind = next((kind for kind in _WORDS if kind in shape.scalars), "str")
    code, noun = _WORDS[kind]
    return Fault(param, code, f"Invalid {noun}: {value}")


_WORDS = {
    "int": ("parameter_invalid_integer", "integer"),
    "bool": (None, "boolean"),
    "float": ("parameter_invalid_decimal", "decimal"),
    "Decimal": ("parameter_invalid_decimal", "decimal"),
    "str": (None, "string"),
}


def typed(method: str, path: str, params: Mapping[str, Any], sdk: Sdk | None = None) -> Any:
    """Return a form's parameters as values: `"true"` of a boolean is True, `"3"` of a number 3.

    Unknown parameters stay as they are.
    """
    sdk = sdk or installed()
    route = sdk.route(method, path)
    if route is None or route.params is None:
        return dict(params)
    return _typed(sdk, Shape(classes=(route.params,)), params)


def _typed(sdk: Sdk, shape: Shape, value: Any) -> Any:
    if isinstance(value, Mapping):
        known: dict[str, Member] = {}
        for ref in shape.classes:
            known |= sdk.members(ref)
        free = Member(shape.values or Shape(), required=False)
        return {n: _typed(sdk, known.get(n, free).shape, item) for n, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        if shape.values and not shape.items:  # a hash whose keys are numbers
            return {str(n): _typed(sdk, shape.values, item) for n, item in enumerate(value)}
        return [_typed(sdk, shape.items or Shape(), item) for item in value]
    if not isinstance(value, str) or value in shape.words or "str" in shape.scalars:
        return value
    if "bool" in shape.scalars and value in _BOOLEANS:
        return _BOOLEANS[value]
    return int(value) if "int" in shape.scalars and _NUMBER.fullmatch(value) else value


# ---- answers


def check_answer(answer: Any, shape: Shape | None = None, sdk: Sdk | None = None) -> list[str]:
    """Return how an answer differs from the SDK's resources; `shape` is what the call returns.

    Fields that no resource has, values of another kind, words outside an enumeration, and the
    absence of what is always there; `<object>.<path>: why`.
    """
    sdk = sdk or installed()
    if isinstance(answer, Mapping) and answer.get("object") in ("list", "search_result"):
        inside = shape.listed if shape else None
        return list(_page(sdk, inside, answer, str(answer["object"])))
    kind = answer.get("object") if isinstance(answer, Mapping) else None
    ref = sdk.objects.get(str(kind))
    if ref is None:
        return [f"{kind}: not an object of Stripe's"]
    if shape and shape.classes and ref not in shape.classes:
        return [f"{kind}: the call returns {', '.join(each.name for each in shape.classes)}"]
    return list(_resource(sdk, ref, answer, str(kind)))


def _page(sdk: Sdk, shape: Shape | None, answer: Mapping[str, Any], where: str) -> Iterator[str]:
    known = {"object", "data", "has_more", "url", "total_count", "next_page"}
    for name in sorted(set(answer) - known):
        yield f"{where}.{name}: unknown"
    for name in ("data", "has_more", "url"):
        if name not in answer:
            yield f"{where}.{name}: missing"
    for item in answer.get("data") or []:
        if shape is not None and (shape.classes or shape.scalars):
            yield from _found(sdk, Member(shape, True), item, f"{where}.data[]")
        else:
            yield from check_answer(item, sdk=sdk)


def _resource(sdk: Sdk, ref: Ref, answer: Mapping[str, Any], where: str) -> Iterator[str]:
    known = sdk.members(ref)
    if answer.get("deleted") is True:
        known = {n: Member(m.shape, required=False) for n, m in known.items()}
    sent = _ALSO_SENT.get(str(answer.get("object")), set())
    for name, value in answer.items():
        if name in known:
            if not _plain(known[name].shape, value):
                yield from _found(sdk, known[name], value, f"{where}.{name}")
        elif name not in sent:
            yield f"{where}.{name}: unknown"
    for name, member in known.items():
        if member.required and name not in answer:
            yield f"{where}.{name}: missing"


def _plain(shape: Shape, value: Any) -> bool:
    """Return whether a value is a scalar that fits, as most are; `_found` judges the others."""
    if value is None:
        return shape.nullable
    if isinstance(value, str):
        return value in shape.words or "str" in shape.scalars
    return isinstance(value, bool | int) and type(value).__name__ in shape.scalars


def _found(sdk: Sdk, member: Member, value: Any, where: str) -> Iterator[str]:
    shape = member.shape
    if shape.scalars & {"Any", "object"}:
        return
    if value is None:
        if not shape.nullable:
            yield f"{where}: null"
    elif isinstance(value, Mapping):
        yield from _found_hash(sdk, shape, value, where)
    elif isinstance(value, list):
        if shape.items is None:
            yield f"{where}: an array"
        for item in value if shape.items else []:
            yield from _found(sdk, Member(shape.items or Shape(), True), item, f"{where}[]")
    elif not _is(shape, value):
        yield f"{where}: {value!r}"


def _found_hash(sdk: Sdk, shape: Shape, value: Mapping[str, Any], where: str) -> Iterator[str]:
    named = sdk.objects.get(str(value.get("object")))
    if shape.listed:
        yield from _page(sdk, shape.listed, value, where)
    elif named and named in shape.classes:
        yield from _resource(sdk, named, value, where)
    elif shape.classes:
        tried = [list(_resource(sdk, ref, value, where)) for ref in shape.classes]
        yield from min(tried, key=len)
    elif shape.values:
        for name, item in value.items():
            yield from _found(sdk, Member(shape.values, True), item, f"{where}.{name}")
    else:
        yield f"{where}: an object"


def _is(shape: Shape, value: Any) -> bool:
    if isinstance(value, bool):
        return "bool" in shape.scalars
    if isinstance(value, int):
        return bool(shape.scalars & {"int", "float"})
    if isinstance(value, float):
        return "float" in shape.scalars
    if value in shape.words or "str" in shape.scalars:
        return True
    return "Decimal" in shape.scalars and bool(_DECIMAL.fullmatch(value))


# ---- reads


def check_reads(kind: str, paths: Iterable[str], sdk: Sdk | None = None) -> list[str]:
    """Return the paths that an object of this kind does not have.

    A path is dotted: `items.data.price.id`; an array's members are reached without a step.
    """
    sdk = sdk or installed()
    ref = sdk.objects.get(kind)
    if ref is None:
        return [f"{kind}: not an object of Stripe's"]
    start = Shape(classes=(ref,))
    return [path for path in paths if not _reaches(sdk, start, path.split("."))]


def read_shape(kind: str, path: str, sdk: Sdk | None = None) -> Shape | None:
    """Return what a path of an object may be, or None when there is no such field."""
    sdk = sdk or installed()
    ref = sdk.objects.get(kind)
    found = [Shape(classes=(ref,))] if ref else []
    for step in path.split("."):
        found = [inside for shape in found for inside in _step(sdk, shape, step)]
    return found[0] if found else None


def _reaches(sdk: Sdk, shape: Shape, steps: Sequence[str]) -> bool:
    if not steps:
        return True
    return any(_reaches(sdk, inside, steps[1:]) for inside in _step(sdk, shape, steps[0]))


def _step(sdk: Sdk, shape: Shape, step: str) -> Iterator[Shape]:
    """Yield what a name leads to."""
    if shape.items:
        yield from _step(sdk, shape.items, step)
    if shape.values:
        yield shape.values
    if shape.scalars & {"Any", "object"}:
        yield shape
    if shape.listed:
        plain = {
            "data": Shape(items=shape.listed),
            "has_more": Shape(scalars=frozenset({"bool"})),
            "url": Shape(scalars=frozenset({"str"})),
        }
        if step in plain:
            yield plain[step]
    for ref in shape.classes:
        if member := sdk.members(ref).get(step):
            yield member.shape
