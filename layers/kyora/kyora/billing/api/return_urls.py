"""Addresses that Stripe's pages may return to: only the web application's own."""

import re
from urllib.parse import urlsplit

from kyora import config
from kyora.errors import Invalid

_PLAIN = re.compile(r"[!#$%&()*+,\-./0-9:;=?@A-Z\[\]_a-z{}~]+")  # no blank, backslash or quote
_HERE = ("localhost", "127.0.0.1")


def require_own(**urls: str) -> None:
    """Raise Invalid naming each field whose address is not in the web application.

    Anything else would lend our name, and Stripe's, to the author of the link. In development a
    page on this machine is allowed, on any port and without TLS.
    """
    base, development = config.app_base_url(), config.is_development()
    faults = [
        {"field": field, "message": "must be an address of the web application"}
        for field, url in urls.items()
        if not own(url, base, development=development)
    ]
    if faults:
        raise Invalid("Some fields are not valid.", errors=faults)


def own(url: str, base_url: str, *, development: bool) -> bool:
    """Return whether an address is on the host of `base_url`, over https."""
    if not _PLAIN.fullmatch(url):
        return False
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # an invalid port raises
    except ValueError:
        return False
    # Browsers accept HTTP://, Stripe refuses it.
    if not host or "@" in parts.netloc or not url.startswith(f"{parts.scheme}://"):
        return False
    if development and host in _HERE:
        return parts.scheme in ("http", "https")
    return parts.scheme == "https" and parts.netloc.lower() == urlsplit(base_url).netloc.lower()
