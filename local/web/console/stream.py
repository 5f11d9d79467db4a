"""GET /_console/stream?view=…: views, and each again when it has changed (server-sent events).

The first view comes as the event `view0`, the next as `view1`.

The page keeps one open while it is looked at, and closes it while it is hidden. Nothing is read
while nothing can have changed: Postgres counts what it writes, the emulator's record grows with
each invocation, and the front counts its requests.
"""

import asyncio
from contextlib import suppress
from typing import Any, Self
from urllib.parse import SplitResult, parse_qsl, urlsplit

import pg8000.exceptions
import pg8000.native
from aiohttp import web

from local.stack import postgres
from local.web.console import sources, views
from local.web.running import FRONT, Front

_EVERY = 0.7  # seconds between two looks
# Seconds after which a view is read whatever happened: ages, and queues that only wait.
_AT_LEAST = 10.0
_MOST = 4  # views of one page
_RETRY = 2000  # milliseconds until a browser asks again


class Watch:
    """Looks whether anything has happened, once for all pages that are open."""

    def __init__(self, front: Front, app: web.Application) -> None:
        self._front, self._app = front, app
        self._connection: pg8000.native.Connection | None = None
        self._watchers, self._seen = 0, object()
        self._changed = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._watchers += 1
        if self._task is None:
            self._task = asyncio.ensure_future(self._look())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._watchers -= 1
        if not self._watchers and self._task is not None:
            task, self._task = self._task, None
            task.cancel()
            await asyncio.wait({task})
            if connection := self._connection:
                self._connection = None
                with suppress(OSError, pg8000.exceptions.Error):
                    connection.close()

    async def wait(self) -> None:
        """Return when something has changed, or after a few seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_AT_LEAST), self._changed:
                await self._changed.wait()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_EVERY)
            now = await asyncio.to_thread(self._state)
            if now != self._seen:
                self._seen = now
                async with self._changed:
                    self._changed.notify_all()

    def _state(self) -> Any:
        exchanges = self._front.exchanges
        last = exchanges[-1] if exchanges else None
        record = self._app[views.RECORD].changed()
        return self._written(), record, last and (last.id, last.status), bool(self._front.api)

    def _written(self) -> str:
        """Return the place in Postgres's log: it moves with every write."""
        try:
            if self._connection is None:
                address = self._front.stack.database_url
                self._connection = postgres.connect(address, patience=sources.PATIENCE)
            found = self._connection.run("select pg_current_wal_insert_lsn()::text")
            return str(found[0][0]) if found else ""
        except (OSError, pg8000.exceptions.Error):
            self._connection = None
            return "down"


_WATCH = web.AppKey("watch", Watch)
_OPEN = web.AppKey("open", set[asyncio.Task[Any] | None])


def mount(app: web.Application) -> None:
    """Serve the stream."""
    app[_WATCH] = Watch(app[FRONT], app)
    app[_OPEN] = set()
    app.on_shutdown.append(_end)
    app.router.add_get("/_console/stream", _stream)


async def _end(app: web.Application) -> None:
    """End the streams that pages hold open: they would outlive the server's event loop."""
    if streams := {task for task in app[_OPEN] if task}:
        for task in streams:
            task.cancel()
        await asyncio.wait(streams)


async def _stream(request: web.Request) -> web.StreamResponse:
    asked = [urlsplit(view) for view in request.query.getall("view", [])][:_MOST]
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/event-stream; charset=utf-8",
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
        }
    )
    await response.prepare(request)
    sent = [b""] * len(asked)
    streams, task = request.app[_OPEN], asyncio.current_task()
    streams.add(task)
    try:
        # Ends when the page has gone, which a write notices.
        with suppress(ConnectionResetError):
            await response.write(f"retry: {_RETRY}\n\n".encode())
            await _follow(request, response, asked, sent)
    finally:
        streams.discard(task)
    return response


async def _follow(
    request: web.Request, response: web.StreamResponse, asked: list[SplitResult], sent: list[bytes]
) -> None:
    """Send each view now, and whenever it is another than what was `sent`."""
    async with request.app[_WATCH] as watch:
        while True:
            for number, view in enumerate(asked):
                query = dict(parse_qsl(view.query))
                _, body = await views.read(request.app, view.path, query)
                if body != sent[number]:
                    sent[number] = body
                    event = f"event: view{number}\n".encode()
                    await response.write(event + b"data: " + body + b"\n\n")
            await response.write(b": still here\n\n")
            await watch.wait()
