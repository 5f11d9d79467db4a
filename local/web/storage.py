"""The HTTP side of the `local` storage provider: it serves the signed URLs."""

import asyncio
import json
from collections.abc import Iterator

from aiohttp import web

from kyora import config
from kyora.errors import KyoraError
from kyora.storage import local as provider
from local.settings import Settings

REQUEST_ID = web.RequestKey("id", str)  # set for every request by the front
_READ_TIMEOUT = 30.0  # seconds a client may be silent in the middle of a body


def configured(stack: Settings) -> config.Storage:
    """Return the configuration of the `local` provider of this stack."""
    return config.load(
        config.storage,
        {
            "STAGE": "local",
            "STORAGE_PROVIDER": "local",
            "STORAGE_LOCAL_PATH": str(stack.assets),
            "APP_BASE_URL": stack.url,
            "AUTH_JWT_SECRET": stack.secrets["AUTH_JWT_SECRET"],
        },
        lambda _: "",
    )


def mount(app: web.Application, stack: Settings) -> None:
    """Serve /_local/storage/* on this application."""
    settings = configured(stack)

    async def put(request: web.Request) -> web.StreamResponse:
        loop = asyncio.get_running_loop()

        def read(size: int) -> bytes:
            # The provider writes files, so it runs in a thread and asks the loop for bytes.
            waiting = asyncio.run_coroutine_threadsafe(request.content.read(size), loop)
            return waiting.result(_READ_TIMEOUT)

        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            tag = await asyncio.to_thread(
                provider.receive, settings, request.match_info["key"], request.query, headers, read
            )
        except KyoraError as error:
            return problem(request, error)
        except (ConnectionError, TimeoutError, web.RequestPayloadError):
            return web.Response(status=400)  # the client went away in the middle of its body
        return web.Response(status=200, headers={"ETag": tag})

    async def get(request: web.Request) -> web.StreamResponse:
        key = request.match_info["key"]
        try:
            headers, chunks = await asyncio.to_thread(provider.serve, settings, key, request.query)
        except KyoraError as error:
            return problem(request, error)
        response = web.StreamResponse(headers={**headers, "X-Request-Id": request[REQUEST_ID]})
        await response.prepare(request)
        if request.method != "HEAD":
            while chunk := await asyncio.to_thread(_next, chunks):
                await response.write(chunk)
        return response

    app.router.add_put(provider.PREFIX + "{key:.*}", put)
    app.router.add_get(provider.PREFIX + "{key:.*}", get)


def _next(chunks: Iterator[bytes]) -> bytes:
    return next(chunks, b"")


def problem(request: web.Request, error: KyoraError) -> web.Response:
    """Return a refusal as problem+json, and close the connection."""
    body = {
        "type": "about:blank",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "instance": request.path,
        "code": error.code,
    }
    response = web.Response(
        status=error.status,
        body=json.dumps(body).encode(),
        content_type="application/problem+json",
        headers=error.headers,
    )
    response.force_close()  # what is left of a refused body is not read
    return response
