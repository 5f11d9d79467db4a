"""The Stripe stand-in on a free port, its engine within a test's reach."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from kyora.billing.plans import sync
from kyora.errors import Unavailable
from local.stripe.server import serve
from local.stripe.standin import Options, StandIn

KEY = "sk_test_standin"


class StripeServer:
    """A running stand-in. What touches its engine runs where the server does."""

    def __init__(self, standin: StandIn, loop: asyncio.AbstractEventLoop) -> None:
        self.standin, self.loop = standin, loop

    @property
    def url(self) -> str:
        return self.standin.url

    def do[T](self, work: Callable[[StandIn], T]) -> T:
        async def there() -> T:
            return work(self.standin)

        return asyncio.run_coroutine_threadsafe(there(), self.loop).result(120)

    def post(self, path: str, **params: Any) -> dict[str, Any]:
        """POST to the API without HTTP between; a refusal fails the test."""
        return self._request("POST", path, params)

    def delete(self, path: str) -> dict[str, Any]:
        return self._request("DELETE", path, {})

    def _request(self, method: str, path: str, params: dict[str, Any]) -> dict[str, Any]:
        status, body = self.do(lambda it: it.engine.request(method, f"/v1/{path}", params))
        assert status == 200, body
        return body

    def events(self) -> list[dict[str, Any]]:
        """The events of Stripe so far, oldest first."""
        return self.do(lambda it: list(it.engine.events))

    def reset(self) -> None:
        self.do(lambda it: it.forget())


@contextmanager
def stripe_server() -> Iterator[StripeServer]:
    loop, ready = asyncio.new_event_loop(), threading.Event()
    found: list[StripeServer] = []
    stop = asyncio.Event()

    async def live() -> None:
        async with serve(Options(key=KEY, seed=1)) as standin:
            found.append(StripeServer(standin, loop))
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(live(),), daemon=True)
    thread.start()
    assert ready.wait(120)
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(120)
        loop.close()


def sync_plans() -> str:
    """Sync in a process of its own; return how it went."""
    try:
        sync.sync()
    except Unavailable as error:
        return error.code
    return "synced"
