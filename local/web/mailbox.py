"""The mailbox at /mailbox: mail that the mock provider kept, as its recipients would see it.

A mail is untrusted HTML: it is shown in a frame without scripts, without our origin and without
external content.
"""

import asyncio
import hashlib
import json
from typing import Any

import pg8000.exceptions
from aiohttp import web

from local.settings import Settings
from local.stack import postgres

_KEPT = 200
_TIME = """to_char(b.created_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')"""
_LIST = f"""
select b.id, b.recipient, b.sender, b.subject, b.template, b.locale, {_TIME},
       m.status, m.reason, m.event
from mock_mailbox b left join email_message m on m.id = b.idempotency_key
order by b.created_at desc, b.id desc limit {_KEPT}
"""
_ONE = f"""
select b.id, b.recipient, b.sender, b.reply_to, b.subject, b.text, b.headers, b.tags, {_TIME}
from mock_mailbox b where b.id = :id
"""
_FRAME = {
    "Content-Security-Policy": (
        "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; "
        "style-src 'unsafe-inline'; form-action 'none'; frame-ancestors 'self'"
    ),
    # The links in these mails hold tokens.
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def forced(html: str, scheme: str) -> str:
    """Return a mail as a reader in the light or the dark scheme sees it."""
    media = "@media all" if scheme == "dark" else "@media not all"
    return html.replace("@media (prefers-color-scheme: dark)", media)


def mount(app: web.Application, stack: Settings) -> None:
    """Serve /_local/mails on this application."""

    async def rows(sql: str, **values: Any) -> list[list[Any]] | None:
        try:
            return await asyncio.to_thread(postgres.query, stack.database_url, sql, **values)
        except (OSError, pg8000.exceptions.Error):
            return None  # the database does not run, or is not migrated

    async def listed(request: web.Request) -> web.StreamResponse:
        names = (
            *("id", "to", "from", "subject", "template", "locale", "at"),
            *("status", "reason", "event"),
        )
        found = await rows(_LIST)
        if found is None:
            return web.Response(status=503, headers={"Retry-After": "2"})
        body = json.dumps([dict(zip(names, row, strict=True)) for row in found]).encode()
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers=headers)
        return web.Response(body=body, content_type="application/json", headers=headers)

    async def one(request: web.Request) -> web.StreamResponse:
        found = await rows(_ONE, id=request.match_info["id"])
        if not found:
            return web.Response(status=404)
        _, to, sender, reply_to, subject, text, headers, tags, at = found[0]
        shown = {"From": sender, "To": to, "Reply-To": reply_to, "Subject": subject, "Date": at}
        shown |= _object(headers) | {f"Tag: {n}": v for n, v in _object(tags).items()}
        return web.json_response(
            {"text": text, "headers": [[n, v] for n, v in shown.items() if v]},
            headers={"Cache-Control": "no-store"},
        )

    async def page(request: web.Request) -> web.StreamResponse:
        found = await rows(
            "select html from mock_mailbox where id = :id", id=request.match_info["id"]
        )
        if not found:
            return web.Response(status=404)
        scheme = "dark" if request.query.get("scheme") == "dark" else "light"
        # A link opens in another tab, as from a mail client.
        html = str(found[0][0]).replace("<head>", '<head>\n<base target="_blank">', 1)
        return web.Response(text=forced(html, scheme), content_type="text/html", headers=_FRAME)

    app.router.add_get("/_local/mails", listed)
    app.router.add_get("/_local/mails/{id}", one)
    app.router.add_get("/_local/mails/{id}/html", page)


def _object(value: Any) -> dict[str, str]:
    found = json.loads(value) if isinstance(value, str) else value
    return {str(name): str(item) for name, item in (found or {}).items()}
