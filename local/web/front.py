"""The address of the local stack: API, webhooks, storage, docs, mailbox and console.

The front stands for an edge such as a CDN. API Gateway's own refusals (a missing token, a body that
is too large, throttling, its own faults) become problem+json with a stable code, as a CDN's custom
error responses could do; on AWS without such an edge a client gets the gateway's `{"message": …}`
for these. Requests and their tokens are never logged.
"""

import asyncio
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector, web
from aiohttp.http_exceptions import LineTooLong
from yarl import URL

from kyora.storage.local import PREFIX
from local.settings import HOST
from local.web import clock, cors, guard, mailbox, public, state, storage, traces, visitors
from local.web.console import acts, page, stream, views
from local.web.running import FRONT, Exchange, Front

_GATEWAY_LIMIT = 10 * 1024 * 1024  # bytes; API Gateway answers 413 to more
_KEPT_BYTES = 64 * 1024  # of each body, for the console
_WEBHOOK_LIMIT = 6 * 1024 * 1024  # bytes; the limit of a function URL
_STATIC = Path(__file__).parent / "static"
# Hop-by-hop, or restated by the server that passes the answer on (RFC 9110 7.6.1).
_DROP = {
    "connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "content-length",
    "proxy-authenticate", "proxy-authorization", "host", "content-encoding", "date", "server",
}  # fmt: skip
_REQUEST_ID = "X-Request-Id"
_log = logging.getLogger("kyora.front")

_PAGES = {
    "/mailbox": "mailbox.html",
    "/openapi.json": "openapi.json",
}
_TITLES = {
    401: (
        "auth.token_missing",
        "Authentication is required",
        "Send Authorization: Bearer <token>.",
    ),
    404: ("request.not_found", "Not found", "There is nothing at this address."),
    405: ("request.method_not_allowed", "Method not allowed", "This address has other methods."),
    413: ("request.body_too_large", "Too large", "The body is larger than is accepted."),
    429: ("service.throttled", "Too many requests", "Wait a moment and try again."),
    500: ("internal.error", "Internal error", "See .local/logs/front.log."),
    503: ("service.unavailable", "Temporarily unavailable", "Try again in a few seconds."),
}


_SESSION = web.AppKey("session", ClientSession)


def application(front: Front) -> web.Application:
    """Build the server: one route per kind of address."""
    # Each route has its own limit: uploads to the local storage provider are streamed.
    app = web.Application(middlewares=[_identify, _ours_only], client_max_size=0)
    app[FRONT] = front
    app.cleanup_ctx.append(_client)
    for path, file in _PAGES.items():
        app.router.add_get(path, _page(_STATIC / file))
    for part in (page, stream, acts, views):
        part.mount(app)
    app.router.add_get("/_local/state", _state)
    if front.clock is not None:
        clock.mount(app, front.clock)
    traces.mount(app)
    mailbox.mount(app, front.stack)
    cors.mount(app, front.stack.cors_origins)
    storage.mount(app, front.stack)
    public.mount(app, front.stack, storage.configured(front.stack))
    # Never a request to the API: it would invoke a function, whose spans go to such an address.
    app.router.add_route("*", "/_local/{path:.*}", _nothing)
    app.router.add_route("*", "/webhooks/{name:.*}", _webhook)
    # Everything else goes to the gateway, so that an unknown address answers as on AWS.
    app.router.add_route("*", r"/{path:[\s\S]*}", _api)
    return app


class Runner(web.AppRunner):
    """Runs the front; a malformed request is refused without repeating any of it."""

    async def _make_server(self) -> web.Server:
        server: web.Server = await super()._make_server()
        server.__class__ = _Server
        return server


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return _Handler(self, loop=self._loop, **self._kwargs)


class _Handler(web.RequestHandler):
    """Answers malformed requests: aiohttp's own answer repeats the line, which may hold a token."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        super().handle_error(
            request, status, exc, message
        )  # its log goes nowhere; a broken connection raises
        if isinstance(exc, LineTooLong):
            status = 431
        phrase = HTTPStatus(status).phrase
        body = {"type": "about:blank", "title": phrase, "status": status, "detail": phrase}
        response = web.Response(
            status=status,
            body=json.dumps(body).encode(),
            content_type="application/problem+json",
            headers={_REQUEST_ID: str(uuid.uuid4())},
        )
        response.force_close()
        return response


async def _client(app: web.Application) -> AsyncIterator[None]:
    async with ClientSession(
        auto_decompress=False,
        connector=TCPConnector(limit=0, force_close=True),
        timeout=ClientTimeout(total=60),
    ) as session:
        app[_SESSION] = session
        yield


async def _api(request: web.Request) -> web.StreamResponse:
    front = request.app[FRONT]
    if not front.api:
        return problem(request, 503)
    host = f"{front.api}.execute-api.localhost:{front.stack.gateway_port}"
    return await _pass_on(request, host, _GATEWAY_LIMIT)


async def _webhook(request: web.Request) -> web.StreamResponse:
    address = request.app[FRONT].webhooks.get(request.path.rstrip("/"))
    if address is None:
        return not_found(request)
    return await _pass_on(request, urlsplit(address).netloc, _WEBHOOK_LIMIT)


async def _nothing(request: web.Request) -> web.StreamResponse:
    return not_found(request)


async def _state(request: web.Request) -> web.StreamResponse:
    front = request.app[FRONT]
    found = await asyncio.to_thread(state.state, front.stack, front.functions, bool(front.api))
    return web.json_response(found)


def _page(path: Path) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def serve(request: web.Request) -> web.StreamResponse:
        # Checked at each request, so that a page that was just made is served.
        found = await asyncio.to_thread(path.is_file)
        return web.FileResponse(path, headers=guard.FRAMES) if found else not_found(request)

    return serve


@web.middleware
async def _identify(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Give every answer an X-Request-Id, also those made here."""
    given = request.headers.get(_REQUEST_ID, "")
    usable = 0 < len(given) <= 128 and given.isascii() and given.isprintable()
    request[storage.REQUEST_ID] = given if usable else str(uuid.uuid4())
    try:
        # A proxy's form of a request, for another host or for the server itself (RFC 9112, 3.2).
        on_path = request.raw_path.startswith("/")
        response = await handler(request) if on_path else not_found(request)
    except web.HTTPMethodNotAllowed as refused:
        response = problem(request, 405, allow=", ".join(sorted(refused.allowed_methods)))
    except web.HTTPNotFound:  # a path that no pattern takes: one with a line break
        response = problem(request, 404)
    except web.HTTPRequestEntityTooLarge:
        response = problem(request, 413)
    except web.HTTPException:
        raise
    except Exception:
        _log.exception("%s %s", request.method, request.path)
        response = problem(request, 500)
    if not response.prepared and _REQUEST_ID not in response.headers:
        response.headers[_REQUEST_ID] = request[storage.REQUEST_ID]
    return response


@web.middleware
async def _ours_only(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Refuse other sites the local pages: mails hold tokens.

    The API, webhooks and stored files check tokens and signatures, and may be reached by another
    host name (a tunnel).
    """
    if request.path.startswith("/_console/") or request.path == clock.PATH:
        if refused := guard.refuse(request, request.app[FRONT].token):
            return web.json_response({"error": refused[1]}, status=refused[0])
        return await handler(request)
    stored = request.path.startswith(PREFIX)  # its URLs are signed
    inside = request.path.startswith(("/_local/", "/trace/")) and not stored
    ours = request.path in {"/", "/docs", *_PAGES} or inside
    if ours and visitors.is_foreign(request):
        return web.Response(status=403, text="This address is for this machine only.")
    return await handler(request)


async def _pass_on(request: web.Request, host: str, limit: int) -> web.StreamResponse:
    if (request.content_length or 0) > limit:
        return problem(request, 413)
    body = bytearray()
    async for chunk in request.content.iter_chunked(65536):
        body += chunk
        if len(body) > limit:
            return problem(request, 413)
    # Bytes that are not UTF-8 must stay different: a key or a token could become another one.
    headers = {
        name: value.encode(errors="surrogateescape").decode(errors="replace")
        for name, value in request.headers.items()
        if name.lower() not in _DROP
    }
    headers |= {"Host": host, _REQUEST_ID: request[storage.REQUEST_ID], "X-Forwarded-Proto": "http"}
    if encoding := request.headers.get("Content-Encoding"):
        headers["Content-Encoding"] = encoding
    target = f"http://{HOST}:{request.app[FRONT].stack.gateway_port}{request.raw_path}"
    seen = Exchange(
        id=request[storage.REQUEST_ID],
        at=time.time(),
        method=request.method,
        path=request.raw_path,
        request_headers=dict(request.headers),
        request_body=bytes(body[:_KEPT_BYTES]),
    )
    request.app[FRONT].exchanges.append(seen)
    response = await _ask(request, URL(target, encoded=True), headers, bytes(body))
    seen.status, seen.milliseconds = response.status, (time.time() - seen.at) * 1000
    seen.response_headers = dict(response.headers)
    if isinstance(response.body, bytes):
        seen.response_body = response.body[:_KEPT_BYTES]
    return response


async def _ask(
    request: web.Request, target: URL, headers: dict[str, str], body: bytes
) -> web.Response:
    """Pass a request on and return the answer."""
    try:
        async with request.app[_SESSION].request(
            request.method,
            target,
            headers=headers,
            data=body or None,
            allow_redirects=False,
        ) as answer:
            content = await answer.read()
            shaped = _edge(request, answer.status, answer.content_type, content)
            if shaped is not None:
                return shaped
            kept = [(k, v) for k, v in answer.headers.items() if k.lower() not in _DROP]
            response = web.Response(status=answer.status, body=content)
            response.headers.popall("Content-Type", None)
            for name, value in kept:
                response.headers.add(name, value)
            if encoding := answer.headers.get("Content-Encoding"):
                response.headers["Content-Encoding"] = encoding
            return response
    except (ClientError, TimeoutError):
        return problem(request, 503)


def _edge(request: web.Request, status: int, kind: str, content: bytes) -> web.Response | None:
    """Shape a refusal that the gateway made itself; None for an answer of a function."""
    if status < 400 or kind == "application/problem+json":
        return None
    if status in {401, 413, 429}:
        return problem(request, status)
    if status == 404 and content == b'{"message":"Not Found"}':
        return not_found(request)
    return problem(request, 503) if status >= 500 else None


def problem(request: web.Request, status: int, *, allow: str = "") -> web.Response:
    """Make an answer as the functions make theirs (RFC 9457)."""
    code, title, detail = _TITLES[status]
    body = {
        "type": f"urn:kyora:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": request.path,
        "code": code,
    }
    headers = {_REQUEST_ID: request[storage.REQUEST_ID]}
    if status in {429, 503}:
        headers["Retry-After"] = "5"
    if allow:
        headers["Allow"] = allow
    return web.Response(
        status=status,
        body=json.dumps(body).encode(),
        content_type="application/problem+json",
        headers=headers,
    )


def not_found(request: web.Request) -> web.Response:
    """Answer an address that nothing serves."""
    return problem(request, 404)
