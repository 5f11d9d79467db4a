"""The engine behind HTTP on loopback: Stripe's API, its webhooks, and the pages people see.

async with serve(Options(port=0, key="sk_test_…", webhooks=[("http://…", "whsec_…")])) as on:
    stripe.StripeClient("sk_test_…", base_addresses={"api": on.url})
"""

import asyncio
import json
import secrets
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from aiohttp import web

from local.stripe import control, faults
from local.stripe.core.errors import Refusal
from local.stripe.core.params import parse
from local.stripe.core.state import API_VERSION
from local.stripe.engine import Answer
from local.stripe.objects.webhooks import same_shapes
from local.stripe.pages import hosted
from local.stripe.standin import STANDIN, Options, StandIn, load, save
from local.web import visitors

HOST = "127.0.0.1"


def application(found: StandIn) -> web.Application:
    """Build the server: the API, its control, and the pages."""
    app = web.Application(client_max_size=2**20, middlewares=[_ours_only])
    app[STANDIN] = found
    app.cleanup_ctx.append(_living)
    app.router.add_route("*", "/v1/{path:.*}", _api)
    control.mount(app)
    hosted.mount(app)
    return app


async def _living(app: web.Application) -> AsyncIterator[None]:
    """Advance the clock and deliver events while the server runs."""
    found = app[STANDIN]
    tasks = [
        asyncio.ensure_future(_passing(found)),
        asyncio.ensure_future(found.pump.run(found.engine)),
    ]
    yield
    for task in tasks:
        task.cancel()
    for task in tasks:
        with suppress(asyncio.CancelledError):
            await task
    save(found)


async def _passing(found: StandIn) -> None:
    saved: Any = None
    while True:
        await asyncio.sleep(0.5)
        found.tick()
        # Written after each change, so that a power cut loses a second or two.
        state = (found.engine.count, len(found.engine.events), found.pump.changes, found.offset)
        if state != saved:
            save(found)
            saved = state


@asynccontextmanager
async def serve(options: Options) -> AsyncIterator[StandIn]:
    """Run a stand-in on loopback; port 0 takes a free one."""
    found = load(options)
    runner = web.AppRunner(application(found), access_log=None, shutdown_timeout=1)
    # The address is part of hosted pages' links, so it has to be known before the first request.
    await runner.setup()
    try:
        site = web.TCPSite(runner, HOST, options.port, reuse_address=True)
        await site.start()
        found.url = f"http://{HOST}:{runner.addresses[0][1]}"
        found.engine.url = options.url or found.url
        yield found
    finally:
        await runner.cleanup()


@web.middleware
async def _ours_only(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Refuse requests from other sites, which a browser on this machine would send."""
    ours = urlsplit(request.app[STANDIN].options.url).hostname or "localhost"
    if visitors.is_foreign(request, name=ours):
        return web.Response(status=403, text="This address is for this machine only.")
    return await handler(request)


# ---- the API


async def _api(request: web.Request) -> web.StreamResponse:
    found = request.app[STANDIN]
    found.tick()
    name = found.engine.identify("req_", 14)
    if refused := _refused(request, found.options.key):
        return _respond(found, request, name, refused)
    fault = faults.strike(found.troubles, request.method, request.path)
    if fault is not None and (spoiled := faults.before(fault)):
        return _respond(found, request, name, spoiled)
    if fault is not None and fault.kind == "refuse":
        return _hang_up(request)
    key = request.headers.get("Idempotency-Key") if request.method == "POST" else None
    if key and key in found.running:
        return _respond(found, request, name, _in_use(key))
    if key:
        found.running.add(key)
    try:
        if fault is not None and fault.seconds:
            await asyncio.sleep(fault.seconds)
        answer = await _ask(found, request, key, name)
    finally:
        found.running.discard(key or "")
    found.pump.take(found.engine)
    if fault is not None and fault.kind == "lose":
        return _hang_up(request)
    return _respond(found, request, name, answer)


async def _ask(found: StandIn, request: web.Request, key: str | None, name: str) -> Answer:
    body = await request.text()
    pairs = parse_qsl(request.rel_url.raw_query_string, keep_blank_values=True)
    if body:
        pairs += parse_qsl(body, keep_blank_values=True)
    try:
        params = parse(pairs)
    except Refusal as refusal:
        return Answer(refusal.status, refusal.body)
    found.tick()
    return found.engine.answer(request.method, request.path, params, key, name)


def authorised(header: str, key: str) -> bool:
    """Return whether a Bearer or Basic header carries the key."""
    scheme, _, value = header.partition(" ")
    given = ""
    if scheme.lower() == "bearer":
        given = value.strip()
    elif scheme.lower() == "basic":
        with suppress(ValueError):
            given = b64decode(value).decode(errors="replace").partition(":")[0]
    return bool(given) and secrets.compare_digest(given.encode(), key.encode())


def _refused(request: web.Request, key: str) -> Answer | None:
    """Refuse a wrong key, and an API version whose objects have other shapes."""
    if not authorised(request.headers.get("Authorization", ""), key):
        return _unauthorised(request)
    version = request.headers.get("Stripe-Version", API_VERSION)
    if version in same_shapes():
        return None
    refusal = Refusal(
        400,
        f"Invalid Stripe API version: {version}. The stand-in answers in {API_VERSION}.",
        param="Stripe-Version",
    )
    return Answer(400, refusal.body)


def _unauthorised(request: web.Request) -> Answer:
    if not request.headers.get("Authorization"):
        refusal = Refusal(
            401,
            "You did not provide an API key. You need to provide your API key in the Authorization "
            "header, using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY').",
        )
    else:
        refusal = Refusal(401, "Invalid API Key provided.")
    return Answer(401, refusal.body)


def _in_use(key: str) -> Answer:
    refusal = Refusal(
        409,
        "There is currently another in-progress request using this Idempotent Key (that probably "
        "means you submitted twice, and the other request is still going through): "
        f"{key}. Please try again later.",
        kind="idempotency_error",
        code="idempotency_key_in_use",
    )
    return Answer(409, refusal.body)


def _hang_up(request: web.Request) -> web.StreamResponse:
    """Close the connection without an answer."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


def _respond(found: StandIn, request: web.Request, name: str, answer: Answer) -> web.StreamResponse:
    headers = {
        "Request-Id": name,
        "Stripe-Version": request.headers.get("Stripe-Version", API_VERSION),
        "Date": formatdate(found.engine.now, usegmt=True),
        "Cache-Control": "no-cache, no-store",
    }
    if key := request.headers.get("Idempotency-Key"):
        headers["Idempotency-Key"] = key
    if answer.replayed:
        headers["Idempotent-Replayed"] = "true"
    if answer.status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="Stripe"'
    return web.Response(
        status=answer.status,
        body=json.dumps(answer.body, indent=2).encode(),
        content_type="application/json",
        headers=headers,
    )
