"""CORS for what neither gateway nor bucket answers: local files, and the front's own refusals.

The rules are the template's: those of its API and those of its bucket.
"""

from collections.abc import Collection

from aiohttp import web

from kyora.storage import local as provider

_EXPOSED = {provider.PREFIX: "ETag", "/v1/": "location, retry-after, x-request-id"}


def mount(app: web.Application, origins: Collection[str]) -> None:
    """Let pages of these origins read what this application answers, and upload to it."""

    async def allow(request: web.Request, response: web.StreamResponse) -> None:
        origin = request.headers.get("Origin", "")
        exposed = next((v for path, v in _EXPOSED.items() if request.path.startswith(path)), None)
        if exposed is None or origin not in origins:
            return
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers.setdefault("Access-Control-Expose-Headers", exposed)
        response.headers.setdefault("Vary", "Origin")

    async def preflight(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Origin") not in origins:
            return web.Response(status=403)
        return web.Response(
            headers={
                "Access-Control-Allow-Methods": "PUT, GET, HEAD",
                "Access-Control-Allow-Headers": "content-type, if-none-match, "
                "x-amz-checksum-sha256",
                "Access-Control-Max-Age": "600",
            }
        )

    app.on_response_prepare.append(allow)
    app.router.add_route("OPTIONS", provider.PREFIX + "{key:.*}", preflight)
