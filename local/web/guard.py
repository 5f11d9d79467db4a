"""Who may read and use the console: its own pages, and programs that have the token of this start.

A page of another site, or of another port of this machine, may send any request to a loopback
address. Nothing is answered to it: Host and Origin are checked on each request, reads as well. An
act needs a JSON body, which a form cannot send, and the token, which another page cannot read.
"""

import hmac
from urllib.parse import urlsplit

from aiohttp import web

from local.web import visitors

TOKEN = "X-Kyora-Token"  # noqa: S105  # the name of a header
# Nothing from elsewhere runs or is shown in our pages, and they are shown in no other page: a
# button could be pressed by a click that was meant for something else.
PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
FRAMES = {
    "Content-Security-Policy": "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def refuse(request: web.Request, token: str) -> tuple[int, str] | None:
    """Return why a request to `/_console/` is refused, as a status and a sentence; else None."""
    if visitors.is_foreign(request) or _is_another_page(request):
        return 403, "This address is for this machine's own console only."
    return None if request.method in {"GET", "HEAD"} else refuse_act(request, token)


def refuse_act(request: web.Request, token: str) -> tuple[int, str] | None:
    """Return why an act without a JSON body or the token is refused; else None."""
    if request.content_type != "application/json":
        return 415, "Send a JSON body, with Content-Type: application/json."
    given = request.headers.get(TOKEN, "")
    if not hmac.compare_digest(given.encode(errors="replace"), token.encode()):
        return 401, f"Send the token of this start as {TOKEN}: KYORA_CONSOLE_TOKEN in .local/env."
    return None


def _is_another_page(request: web.Request) -> bool:
    """Return whether a page of another origin sent this; programs send none of these headers."""
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != request.host:
        return True
    # "none" is a person who typed the address.
    return request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}
