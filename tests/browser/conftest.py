"""The one address of a local stack without the rest of it, for a browser to look at."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from local.settings import Settings
from local.web.front import application
from local.web.running import Front


@dataclass
class Served:
    """The front of a stack whose only running part is its database."""

    url: str = ""
    front: Front | None = None
    acts: list[str] = field(default_factory=list)  # what was done, by verb
    streams: int = 0  # that are open


@pytest.fixture
def served(database: str, tmp_path: Path) -> Iterator[Served]:
    found, loop = Served(), asyncio.new_event_loop()
    stack = Settings(
        home=tmp_path,
        port=8000,  # what its addresses say; it is served elsewhere
        gateway_port=1,
        postgres_port=0,
        stripe_port=1,
        secrets={"AUTH_JWT_SECRET": "s" * 32},
        environ={"DATABASE_URL": database},
    )

    def noted(front: Front, name: str = "") -> dict[str, Any]:
        """Note that something was done."""
        found.acts.append(name)
        return {}

    found.front = Front(stack, api="api", acts={"noted": noted})
    app = application(found.front)

    @web.middleware
    async def count_streams(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if request.path != "/_console/stream":
            return await handler(request)
        found.streams += 1
        try:
            return await handler(request)
        finally:
            found.streams -= 1

    app.middlewares.append(count_streams)

    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)

    async def start() -> None:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(start(), loop).result(60)
    yield found

    async def stop() -> set[str]:
        """Stop the server; return what it has left in the event loop."""
        await runner.cleanup()
        await loop.shutdown_default_executor()
        if rest := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(rest, timeout=60)
        return {repr(task) for task in rest if not task.done()}

    left = asyncio.run_coroutine_threadsafe(stop(), loop).result(120)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
    assert left == set()
