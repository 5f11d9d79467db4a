"""GET /_console/<view>: what each page shows, as JSON with its secrets masked."""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from local.settings import WORKSPACE, Settings
from local.stack import emulator
from local.web.console import (
    billing,
    configuration,
    copying,
    events,
    invocations,
    masking,
    orders,
    overview,
    queues,
    samples,
    sources,
    stripe,
    tables,
    uploads,
)
from local.web.console.invocations import Record
from local.web.running import FRONT, Front

RECORD = web.AppKey("record", Record)
_SECONDS = 12.0  # a view that has more to wait for is at fault

type View = Callable[[Front, Record, list[str], Mapping[str, str]], Any]


def mount(app: web.Application) -> None:
    """Serve every view."""
    app[RECORD] = Record(emulator.invocations(app[FRONT].stack.home / "emulator"))
    app.router.add_get("/_console/uploads/{id}/picture", _picture)
    app.router.add_get("/_console/{path:.+}", _view)


async def read(app: web.Application, path: str, asked: Mapping[str, str]) -> tuple[int, bytes]:
    """Return a view's status and JSON. What does not answer in time is said in `fault`."""
    front, (name, *rest) = app[FRONT], [unquote(part) for part in path.split("/")]
    view = _VIEWS.get(name)
    try:
        if view is None or len(rest) > 1:
            found = None
        else:
            work = asyncio.to_thread(view, front, app[RECORD], rest, asked)
            found = await asyncio.wait_for(work, _SECONDS)
    except sources.Fault as fault:
        return 503, _json({"fault": str(fault)}, front)
    except TimeoutError:
        return 504, _json({"fault": f"no answer in {_SECONDS:.0f} seconds"}, front)
    if found is None:
        return 404, _json({"fault": "There is nothing here (any more)."}, front)
    return 200, _json(found, front)


def _json(found: Any, front: Front) -> bytes:
    shown = masking.clean(found, masking.secrets_of(front.stack))
    return json.dumps(shown, ensure_ascii=False, default=str).encode(errors="replace")


async def _view(request: web.Request) -> web.StreamResponse:
    status, body = await read(request.app, request.match_info["path"], request.query)
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)


async def _picture(request: web.Request) -> web.StreamResponse:
    front = request.app[FRONT]
    asset, variant = request.match_info["id"], request.query.get("variant", "")
    try:
        found = await asyncio.to_thread(
            uploads.picture, front.stack, await _bucket(front), asset, variant
        )
    except sources.Fault as fault:
        return web.json_response({"fault": str(fault)}, status=503)
    if found is None:
        return web.json_response({"fault": "There is no picture."}, status=404)
    # A stranger's bytes: an image and nothing else.
    headers = {
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "private, max-age=3600",
    }
    return web.Response(body=found[0], content_type=found[1], headers=headers)


async def _bucket(front: Front) -> str:
    """Return the name of the bucket that the functions use."""
    if front.stack.environ.get("STORAGE_PROVIDER") == "local" or not front.functions:
        return ""

    def ask() -> str:
        with sources.asking_emulator():
            client = sources.aws("lambda", front.stack.gateway_port)
            name = front.functions["confirm_upload"]
            found = client.get_function_configuration(FunctionName=name)
        return str(found["Environment"]["Variables"]["STORAGE_S3_BUCKET"])

    return await asyncio.to_thread(ask)


def _overview(front: Front, record: Record, rest: list[str], asked: Mapping[str, str]) -> Any:
    return None if rest else overview.read(front, record)


def _invocations(front: Front, record: Record, rest: list[str], asked: Mapping[str, str]) -> Any:
    if not rest:
        return {"invocations": invocations.listed(record, asked), "functions": invocations.names()}
    line = next((one for one in record.read() if one["id"] == rest[0]), None)
    if line is None:
        return None
    name = invocations.request_id(line)
    exchange = next((one for one in front.exchanges if one.id == name), None)
    return invocations.detail(line, exchange) | {"copy": copying.of_invocation(line)}


def _events(front: Front, record: Record, rest: list[str], asked: Mapping[str, str]) -> Any:
    if not rest:
        return events.listed(front.stack, record, asked)
    found = events.one(front.stack, record, rest[0])
    return found and found | {"copy": copying.of_event(found)}


def _stripe(front: Front, record: Record, rest: list[str], asked: Mapping[str, str]) -> Any:
    return stripe.one(front.stack, rest[0]) if rest else stripe.listed(front.stack, asked)


def _uploads(front: Front, record: Record, rest: list[str], asked: Mapping[str, str]) -> Any:
    return uploads.one(front.stack, rest[0]) if rest else uploads.listed(front.stack, asked)


def _clock(front: Front, record: Record, rest: list[str], asked: Mapping[str, str]) -> Any:
    return front.clock.state(asked.get("workspace") or WORKSPACE) if front.clock else None


def _tables(front: Front, record: Record, rest: list[str], asked: Mapping[str, str]) -> Any:
    return tables.rows(front.stack, rest[0], asked) if rest else tables.listed(front.stack)


def _samples(front: Front, record: Record, rest: list[str], asked: Mapping[str, str]) -> Any:
    return samples.of_function(rest[0]) if rest else samples.of_events()


def _of(read: Callable[[Settings], Any]) -> View:
    """Return the view of a page without parameters."""

    def view(front: Front, _record: Record, rest: list[str], _asked: Mapping[str, str]) -> Any:
        return None if rest else read(front.stack)

    return view


_VIEWS: dict[str, View] = {
    "overview": _overview,
    "invocations": _invocations,
    "events": _events,
    "queues": _of(queues.listed),
    "stripe": _stripe,
    "uploads": _uploads,
    "billing": _of(billing.read),
    "orders": _of(orders.read),
    "clock": _clock,
    "configuration": _of(configuration.read),
    "tables": _tables,
    "samples": _samples,
}
