"""Values held against the types of Resend's SDK: unknown names, missing names, wrong kinds."""

import types
from typing import Any, Literal, NotRequired, Required, Union, get_args, get_origin

import typing_extensions


def faults(value: object, expected: Any, path: str = "") -> list[str]:
    """Return what of `value` a type of the SDK does not allow, by its path."""
    origin, arguments = get_origin(expected), get_args(expected)
    if expected is Any or expected is object:
        return []
    if origin in (NotRequired, Required, typing_extensions.NotRequired):
        return faults(value, arguments[0], path)
    if origin in (Union, types.UnionType):
        found = [faults(value, argument, path) for argument in arguments]
        return min(found, key=len)
    if origin is Literal:
        return [] if value in arguments else [f"{path}: {value!r} is none of {arguments}"]
    if typing_extensions.is_typeddict(expected):
        return _record(value, expected, path)
    if origin is list:
        if not isinstance(value, list):
            return [f"{path}: not a list"]
        items = enumerate(value)
        return [f for n, item in items for f in faults(item, arguments[0], f"{path}[{n}]")]
    if origin is dict:
        if not isinstance(value, dict):
            return [f"{path}: not an object"]
        return [f for name in value for f in faults(value[name], arguments[1], f"{path}.{name}")]
    return [] if isinstance(value, expected) else [f"{path}: not {expected}"]


def fields(expected: Any) -> dict[str, Any]:
    """Return the names of a TypedDict with their types."""
    return typing_extensions.get_type_hints(expected, include_extras=True)


def _record(value: object, expected: Any, path: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{path}: not an object"]
    known = fields(expected)
    found = [f"{path}.{name}: unknown" for name in value if name not in known]
    found += [f"{path}.{name}: missing" for name in expected.__required_keys__ - set(value)]
    for name in set(value) & set(known):
        found += faults(value[name], known[name], f"{path}.{name}")
    return found
