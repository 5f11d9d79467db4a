"""The stack that the front stands before: shared by everything that the front serves."""

import secrets
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from local.settings import Settings
from local.stack.clock import Clock

_KEPT = 300  # requests that are kept for the console


@dataclass
class Exchange:
    """A request that came through the front, and its answer."""

    id: str  # X-Request-Id
    at: float
    method: str
    path: str
    request_headers: dict[str, str]
    request_body: bytes
    status: int = 0
    milliseconds: float = 0
    response_headers: dict[str, str] = field(default_factory=dict)
    response_body: bytes = b""


@dataclass
class Front:
    """Where the front passes requests to; empty until the stack is up."""

    stack: Settings
    clock: Clock | None = None
    api: str = ""
    webhooks: dict[str, str] = field(default_factory=dict)
    functions: dict[str, str] = field(default_factory=dict)
    # What the console may do, by name, and the token of this start that each act needs.
    acts: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    exchanges: deque[Exchange] = field(default_factory=lambda: deque(maxlen=_KEPT))


FRONT = web.AppKey("front", Front)
