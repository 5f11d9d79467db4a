"""The front of a local stack on a port of its own, in a thread."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from local.web.front import Runner, application
from local.web.running import Front


@contextmanager
def serving(front: Front) -> Iterator[int]:
    """Serve a front; returns its port."""
    loop = asyncio.new_event_loop()
    runner = Runner(application(front), access_log=None, shutdown_timeout=0.1)

    async def begin() -> int:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return int(runner.addresses[0][1])

    port = loop.run_until_complete(begin())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield port
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)
        loop.close()
