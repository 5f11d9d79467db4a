"""Routes: a method and a path, the parameters it takes, and what answers it.

A module of objects lists its own in `ROUTES`. A route names the parameters that the stand-in
implements; their types come from the SDK (`contract`).
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from local.stripe.core.errors import missing
from local.stripe.core.params import Params
from local.stripe.core.state import State
from local.stripe.core.views import Object

type Handler = Callable[..., Any]
_LIST = {"limit", "starting_after", "ending_before", "expand", "created"}


@dataclass(frozen=True)
class Route:
    """A method and a path, the parameters it takes, and what answers it."""

    method: str
    path: re.Pattern[str]
    handler: Handler
    params: frozenset[str]
    lists: bool


def _route(method: str, path: str, handler: Handler, params: set[str], lists: bool) -> Route:
    pattern = re.compile(re.sub(r"\{\}", r"([^/]+)", re.escape(path).replace(r"\{\}", "{}")))
    return Route(method, pattern, handler, frozenset(params | {"expand"}), lists)


def post(path: str, handler: Handler, *params: str) -> Route:
    """Return a route that creates or changes."""
    return _route("POST", path, handler, set(params), lists=False)


def delete(path: str, handler: Handler, *params: str) -> Route:
    """Return a route that deletes."""
    return _route("DELETE", path, handler, set(params), lists=False)


def get(path: str, handler: Handler) -> Route:
    """Return a route that shows one object."""
    return _route("GET", path, handler, set(), lists=False)


def search(path: str, handler: Handler) -> Route:
    """Return a route that searches; its handler answers with a page of its own."""
    return _route("GET", path, handler, {"query", "limit", "page"}, lists=False)


def pages(path: str, handler: Handler, *params: str) -> Route:
    """Return a route that lists objects, newest first, in pages."""
    return _route("GET", path, handler, {*params} | _LIST, lists=True)


def one(kind: str) -> Handler:
    """Return a handler that shows an object of a kind by its id."""

    def show(state: State, params: Params, name: str) -> Object:
        found = state.find(kind, name)
        if found.get("_deleted"):
            raise missing(kind, name)
        return found

    return show
