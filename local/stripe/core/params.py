"""Parameters: the bracket form that Stripe's API takes, and readers that refuse as it does.

A reader takes native values (from tests) and texts (from a form). An empty text unsets.
"""

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from local.stripe.core.errors import Refusal, invalid, required

Params = Mapping[str, Any]


def parse(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Build nested parameters from `a[b][0]=c` pairs; `a[]=c` appends."""
    tree: dict[str, Any] = {}
    for name, value in pairs:
        head, _, rest = name.partition("[")
        steps = [head, *rest.removesuffix("]").split("][")] if rest else [head]
        place = tree
        for step in steps[:-1]:
            place = place.setdefault(_step(place, step), {})
            if not isinstance(place, dict):
                raise invalid(f"Invalid object: {name}", head)
        place[_step(place, steps[-1])] = value
    return {name: _lists(value) for name, value in tree.items()}


def _step(place: dict[str, Any], step: str) -> str:
    return step or str(len(place))


def _lists(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    inside = {name: _lists(item) for name, item in value.items()}
    if inside and all(name.isdigit() for name in inside):
        return [inside[name] for name in sorted(inside, key=int)]
    return inside


def need(params: Params, name: str) -> Any:
    """Return a parameter that may not be absent."""
    if params.get(name) in (None, ""):
        raise required(name)
    return params[name]


def only(params: Params, allowed: set[str] | frozenset[str], place: str = "") -> None:
    """Refuse a parameter that Stripe has and the stand-in does not implement."""
    for name, value in params.items():
        if name not in allowed and value is not None:
            param = f"{place}[{name}]" if place else name
            raise invalid(f"The stand-in does not know what `{param}` does.", param)


def text(value: Any, param: str) -> str | None:
    """Read a text; empty is None."""
    if isinstance(value, dict | list):
        raise invalid("Invalid string", param)
    return None if value in (None, "") else str(value)


def integer(value: Any, param: str) -> int | None:
    """Read a whole number; empty is None."""
    if value in (None, ""):
        return None
    if isinstance(value, bool | float | dict | list) or not str(value).lstrip("-").isdecimal():
        raise invalid(f"Invalid integer: {value}", param, "parameter_invalid_integer")
    return int(value)


def boolean(value: Any, param: str) -> bool | None:
    """Read true or false; empty is None."""
    known = {True: True, False: False, "true": True, "false": False, "1": True, "0": False}
    if value in (None, ""):
        return None
    if isinstance(value, dict | list) or value not in known:
        raise invalid(f"Invalid boolean: {value}", param)
    return known[value]


def decimal(value: Any, param: str) -> str | None:
    """Read a decimal number as its text; empty is None."""
    if value in (None, ""):
        return None
    try:
        return format(Decimal(str(value)).normalize(), "f")
    except InvalidOperation as error:
        raise invalid(f"Invalid decimal: {value}", param, "parameter_invalid_decimal") from error


def mapping(value: Any, param: str) -> dict[str, Any] | None:
    """Read a hash; empty is None."""
    if value in (None, ""):
        return None
    if not isinstance(value, dict):
        raise invalid("Invalid object", param)
    return value


def listing(value: Any, param: str) -> list[Any] | None:
    """Read an array; empty is None."""
    if value in (None, ""):
        return None
    if not isinstance(value, list | tuple):
        raise invalid("Invalid array", param)
    return list(value)


def one_of(*choices: str) -> Callable[[Any, str], str | None]:
    """Return a reader of a text that must be one of these."""

    def read(value: Any, param: str) -> str | None:
        found = text(value, param)
        if found is not None and found not in choices:
            raise invalid(f"Invalid {param}: must be one of {', '.join(choices)}", param)
        return found

    return read


Reader = Callable[[Any, str], Any]


def values(params: Params, readers: Mapping[str, Reader]) -> dict[str, Any]:
    """Read the parameters that are present, by their readers."""
    return {name: read(params[name], name) for name, read in readers.items() if name in params}


def merged(before: Mapping[str, str], params: Params) -> dict[str, str]:
    """Return metadata after a request: its keys are merged, an empty value removes its key."""
    if "metadata" not in params:
        return dict(before)
    given = mapping(params["metadata"], "metadata")
    if given is None:
        return {}
    for key, value in given.items():
        if len(key) > 40 or len(str(value)) > 500:
            raise invalid(f"Metadata is too long: {key}", f"metadata[{key}]")
    both = dict(before) | {key: str(value) for key, value in given.items() if value is not None}
    if len(both) > 50:
        raise Refusal(400, "You can only set up to 50 metadata keys.", param="metadata")
    return {key: value for key, value in both.items() if given.get(key, value) != ""}


def amount(value: Any, param: str) -> int | None:
    """Read an amount in minor units, not negative."""
    found = integer(value, param)
    if found is not None and found < 0:
        raise invalid("Invalid non-negative integer", param, "parameter_invalid_integer")
    return found


def address(value: object, param: str) -> str:
    """Read a web address."""
    if not str(value).startswith(("http://", "https://")):
        raise invalid("Not a valid URL", param, "url_invalid")
    return str(value)
