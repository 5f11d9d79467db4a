"""Resend's REST API over one kept connection, instead of Resend's SDK.

Measured beside each other (bench/email.py; two shared cores, so read the ratios):

            import     a send    connections for 100 messages
    SDK     240 ms     1.5 ms    100
    this     57 ms     0.6 ms    1

The SDK brings `requests`, which a function would load for one POST, and its 100 connections are
100 TLS handshakes with the real API. It waits 30 s where we wait 5 to connect and 15 for an
answer, reports a lost connection as an answer of status 500, and raises no error of its own for a
`null`. What it knows and we have to get right is the request; a test compares ours with its.
"""

import json
import math
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from kyora import __version__, config
from kyora.config import Settings
from kyora.email import Message, Refusal, Sent, check, payload
from kyora.errors import KyoraError

if TYPE_CHECKING:
    import http.client

_CONNECT, _READ = 5.0, 15.0  # seconds
_LONGEST_PAUSE = 1.0  # seconds; Resend counts per second
_LONGEST_ANSWER = 1 << 20  # bytes
_NAME = re.compile(r"[a-z0-9_]{1,60}")

_connections: dict[str, "http.client.HTTPConnection"] = {}
_paused_until: dict[str, float] = {}


class Resend:
    """The provider `resend`."""

    name = "resend"

    def __init__(self, settings: Settings) -> None:
        self._url, self._key = f"{settings.email_base_url}/emails", settings.email_api_key
        self._headers = {
            "Content-Type": "application/json",
            "User-Agent": f"kyora/{__version__}",  # Resend answers 403 to a request without one
        }

    def send(self, message: Message, idempotency_key: str) -> Sent:
        """Post the message; every answer but an id is a Refusal."""
        check(message, idempotency_key)
        time.sleep(max(0.0, _paused_until.get(self._url, 0.0) - time.monotonic()))
        headers, body = self._headers | {"Idempotency-Key": idempotency_key}, payload(message)
        status, answer, got = self._post(body, headers)
        if status in (401, 403) and self._renewed():
            status, answer, got = self._post(body, headers)
        retry_after = _seconds(got.get("retry-after", ""))
        self._pace(status, got, retry_after)
        found = _object(answer)
        if 200 <= status < 300:
            if isinstance(found.get("id"), str) and found["id"]:
                return Sent(found["id"])
            raise Refusal(0, "no_id")
        name = str(found.get("name", ""))
        raise Refusal(
            status,
            name if _NAME.fullmatch(name) else "",
            str(found.get("message", ""))[:300],
            retry_after=retry_after,
        )

    def _renewed(self) -> bool:
        """Read the settings anew; True when the key that was refused has been rotated."""
        config.forget()
        with suppress(KyoraError):  # what is refused waits, and comes again
            if (key := config.settings("database", "email").email_api_key) != self._key:
                self._key = key
                return True
        return False

    def _post(self, body: bytes, headers: dict[str, str]) -> tuple[int, bytes, dict[str, str]]:
        """Post over the kept connection, or a new one where that has gone stale."""
        import http.client  # it brings `ssl`: an error before the first send pays for neither

        kept = _connections.pop(self._url, None)
        parts = urlsplit(self._url)
        secure = parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        connection = kept or kind(parts.netloc, timeout=_CONNECT)
        try:
            if kept is None:
                connection.connect()
                assert connection.sock  # noqa: S101  # for mypy, whose stub knows no `connect`
                connection.sock.settimeout(_READ)
            connection.request(
                "POST", parts.path, body, headers | {"Authorization": f"Bearer {self._key}"}
            )
            response = connection.getresponse()
            answer = response.read(_LONGEST_ANSWER)
            if response.length:  # cut off, or larger than any answer of Resend's
                raise http.client.IncompleteRead(answer, response.length)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            # Resend closes what idles. The key makes it safe to say the same thing again.
            if kept and not isinstance(error, TimeoutError):
                return self._post(body, headers)
            raise Refusal(0, "no_answer") from None
        if response.will_close:
            connection.close()
        else:
            _connections[self._url] = connection
        return response.status, answer, {k.lower(): v for k, v in response.headers.items()}

    def _pace(self, status: int, headers: dict[str, str], retry_after: float | None) -> None:
        """Leave the next send for when Resend counts anew, at most a second from now."""
        pause = 0.0
        if status == 429:
            pause = retry_after or _LONGEST_PAUSE
        elif _seconds(headers.get("ratelimit-remaining", "")) == 0:
            pause = _seconds(headers.get("ratelimit-reset", "")) or _LONGEST_PAUSE
        _paused_until[self._url] = time.monotonic() + min(pause, _LONGEST_PAUSE)


def _object(answer: bytes) -> dict[str, Any]:
    try:
        found = json.loads(answer)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _seconds(text: str) -> float | None:
    """Read a number of seconds, or a date, as HTTP allows for Retry-After."""
    try:
        found = float(text)
    except ValueError:
        if not text:
            return None
        from email.utils import parsedate_to_datetime

        try:
            found = parsedate_to_datetime(text).timestamp() - time.time()
        except ValueError:
            return None
    return None if math.isnan(found) else min(max(found, 0.0), 86_400.0)
