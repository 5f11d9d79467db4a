"""The Stripe stand-in as tests use it: the real server, or its engine with a clock of the test's.

`stripe_server` runs local/stripe's own server, which keeps real time. `Books` answers with the
engine alone, so that months pass in no time and nothing happens unless the test says so.
"""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from kyora import config
from kyora.billing import stripe_client
from local.stripe.core.params import parse
from local.stripe.engine import Engine
from local.stripe.server import serve
from local.stripe.standin import Options, StandIn
from tests.integration.support import billing
from tests.scripted import Answer, Request, Server, scripted
from tests.stripe_account import Account

KEY = "sk_test_standin"


def configure(environment: pytest.MonkeyPatch, url: str) -> None:
    """Have the code ask the stand-in at `url`."""
    environment.setenv("BILLING_STRIPE_API_KEY", KEY)
    environment.setenv("BILLING_STRIPE_BASE_URL", url)
    config.forget()
    stripe_client._clients.clear()


@pytest.fixture
def stripe_server(environment: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """The stand-in's server on a free port; its engine may be asked from the test as well."""
    ready: list[tuple[StandIn, asyncio.AbstractEventLoop]] = []
    up, stop = threading.Event(), asyncio.Event()

    async def run() -> None:
        async with serve(Options(key=KEY, seed=7)) as found:
            ready.append((found, asyncio.get_running_loop()))
            up.set()
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    assert up.wait(120), "the stand-in did not start"
    found, loop = ready[0]
    configure(environment, found.url)
    yield found
    loop.call_soon_threadsafe(stop.set)
    thread.join()


class Books:
    """A server that answers from an engine; `trouble` may answer instead of it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.trouble: Callable[[Request], Answer | None] = lambda _: None
        self.server: Server

    def __call__(self, request: Request) -> Answer:
        if found := self.trouble(request):
            return found
        parts = urlsplit(request.path)
        pairs = parse_qsl(parts.query) + parse_qsl(request.body.decode())
        answer = self.engine.answer(request.method, parts.path, parse(pairs))
        return Answer(
            answer.status,
            json.dumps(answer.body).encode(),
            {"Date": formatdate(self.engine.now, usegmt=True), "Content-Type": "application/json"},
        )

    @property
    def asked(self) -> list[str]:
        """The paths that were asked for, in order."""
        return [urlsplit(request.path).path for request in self.server.requests]


@contextmanager
def books(engine: Engine, environment: pytest.MonkeyPatch) -> Iterator[Books]:
    """Serve an engine's books, and have the code ask there."""
    found = Books(engine)
    with scripted(found) as server:
        found.server = server
        configure(environment, server.url)
        yield found
    stripe_client._clients.clear()


def text(event: dict[str, Any]) -> str:
    """Return an event as a webhook's body."""
    return json.dumps(event)


@pytest.fixture
def account(database: str) -> Account:
    """An account at the stand-in's engine, whose customer pays for the demo workspace."""
    return billing.account()


@pytest.fixture
def stripe(account: Account, environment: pytest.MonkeyPatch) -> Iterator[Books]:
    """Stripe, answering with the account's engine."""
    with books(account.engine, environment) as found:
        yield found
