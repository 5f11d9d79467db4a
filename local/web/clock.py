"""`/_local/time`: what time it is here, and moving it.

GET answers `{now, aheadSeconds, movingTo, goals, fixed, faults}`, with the goals of `?workspace=`.
POST takes one of `{"to": "+7d" | "2027-01-31" | "renewal" | "trial-end" | "grace-end"}`, with a
`workspace` for the last three and `stepDays` (1 to 7, else 1), and `{"reset": true}`; it answers
when the clock is there. Both are guarded as the console is, a move by the token of this start. A
second move at the same time is refused with 409, what cannot be done with 422.
"""

import asyncio
import json
from datetime import timedelta
from typing import Any

from aiohttp import web

from local.progress import Trouble
from local.settings import WORKSPACE
from local.stack.clock import Clock, Moving

PATH = "/_local/time"


def mount(app: web.Application, clock: Clock) -> None:
    """Serve the clock on this application."""

    async def show(request: web.Request) -> web.StreamResponse:
        workspace = request.query.get("workspace", WORKSPACE)
        return web.json_response(await asyncio.to_thread(clock.state, workspace))

    async def move(request: web.Request) -> web.StreamResponse:
        try:
            asked = await _asked(request)
            await asyncio.to_thread(_do, clock, asked)
        except Moving as moving:
            return _refused(409, str(moving))
        except Trouble as trouble:
            return _refused(422, str(trouble))
        return web.json_response(await asyncio.to_thread(clock.state, _workspace(asked)))

    app.router.add_get(PATH, show)
    app.router.add_post(PATH, move)


def _do(clock: Clock, asked: dict[str, Any]) -> None:
    days = asked.get("stepDays", 1)
    if days not in range(1, 8):
        raise Trouble("stepDays is a number from 1 to 7")
    to = "reset" if asked.get("reset") is True else str(asked.get("to", ""))
    clock.act(to, _workspace(asked), timedelta(days=days))


async def _asked(request: web.Request) -> dict[str, Any]:
    body = await request.content.read(4096)
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Trouble('the body is a JSON object such as {"to": "+7d"}')
    return found


def _workspace(asked: dict[str, Any]) -> str:
    return str(asked.get("workspace") or WORKSPACE)


def _refused(status: int, why: str) -> web.Response:
    return web.json_response({"error": why}, status=status)
