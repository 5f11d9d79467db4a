"""Who may use the local pages: this machine, but no site that its browser has open.

A browser lets any site send requests to a loopback address. A Host that is not ours means that
another site's name points here (DNS rebinding); this cannot happen with a bare address. A request
that changes something must come from a page of the same origin, or from a program, which sends no
Origin.
"""

from ipaddress import ip_address
from urllib.parse import urlsplit

from aiohttp import web

from local.stack.containers import DESKTOP

_READ = {"GET", "HEAD", "OPTIONS"}


def is_foreign(request: web.Request, *, name: str = "localhost") -> bool:
    """Return whether another site sent this request; `name` is a host name of ours."""
    host = urlsplit(f"//{request.host}").hostname or ""
    if host not in {"localhost", DESKTOP, name} and not _is_address(host):
        return True
    if request.method in _READ:
        return False
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != request.host:  # or "null"
        return True
    return request.headers.get("Sec-Fetch-Site", "none") == "cross-site"


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
