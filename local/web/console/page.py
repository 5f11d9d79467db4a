"""The pages that act: `/` and `/docs`, with the token of this start in them, and their files."""

import asyncio
from html import escape
from pathlib import Path

from aiohttp import web

from local.settings import ROOT
from local.web import guard
from local.web.running import FRONT

_DOCS = Path(__file__).parent.parent / "static" / "docs.html"
_STATIC = _DOCS.parent / "console"
_UPLOAD = ROOT / "examples" / "upload.html"
_WHERE = """<p>On this machine it is KYORA_TOKEN in .local/env, which <code>make run</code> printed.
<a href="/#/uploads" style="color: inherit">The console</a> shows what arrives.</p>
"""
_KINDS = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


def mount(app: web.Application) -> None:
    """Serve the pages and the console's files."""
    app.router.add_get("/", _index)
    app.router.add_get("/docs", _docs)
    app.router.add_get("/upload", _upload)
    app.router.add_get("/favicon.ico", _icon)
    app.router.add_get("/_console/static/{path:.+}", _file)


async def _index(request: web.Request) -> web.StreamResponse:
    text = await _with_token(request, _STATIC / "index.html")
    return web.Response(text=text, content_type="text/html", headers=guard.PAGE_HEADERS)


async def _docs(request: web.Request) -> web.StreamResponse:
    text = await _with_token(request, _DOCS)
    return web.Response(text=text, content_type="text/html", headers=guard.FRAMES)


async def _upload(request: web.Request) -> web.StreamResponse:
    """Serve the page of examples/, which knows nothing of this machine, with its token's place."""
    text = await asyncio.to_thread(_UPLOAD.read_text, encoding="utf-8")
    text = text.replace('<ul id="list">', f'{_WHERE}<ul id="list">', 1)
    return web.Response(text=text, content_type="text/html", headers=guard.FRAMES)


async def _icon(_: web.Request) -> web.StreamResponse:
    # What a browser asks for on its own: not a request to the API, which would invoke a function.
    return web.FileResponse(_STATIC / "icon.svg")


async def _with_token(request: web.Request, file: Path) -> str:
    text = await asyncio.to_thread(file.read_text, encoding="utf-8")
    return text.replace("{{token}}", escape(request.app[FRONT].token))


async def _file(request: web.Request) -> web.StreamResponse:
    file = (_STATIC / request.match_info["path"]).resolve()
    known = file.is_relative_to(_STATIC) and file.suffix in _KINDS
    if not known or not await asyncio.to_thread(file.is_file):
        return web.json_response({"error": "there is no such file"}, status=404)
    body = await asyncio.to_thread(file.read_bytes)
    # Revalidated at each load, so that a saved file is seen.
    headers = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
    return web.Response(
        body=body, content_type=_KINDS[file.suffix], charset="utf-8", headers=headers
    )
