"""Calls to Resend's API through its SDK, over one kept connection and within one deadline.

The SDK opens a connection for each request, waits 30 s for each read, and reports a lost
connection, a proxy's page and an answer 500 as the same error. It accepts an HTTP client, so ours
keeps the connection, enforces the deadline and remembers the real answer. The calls here return
that answer; the SDK's exceptions are ignored.

Import this module where a call is made: the SDK and its dependencies take about 0.2 s.
"""

import http.client
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, override

import resend as sdk
from resend.exceptions import NoContentError, ResendError

from kyora import timed_http

_LONGEST_ANSWER = 1 << 20  # bytes

_connections: dict[str, http.client.HTTPConnection] = {}


class Answer(NamedTuple):
    """What Resend answered; `status` is 0 when no complete answer came before the deadline."""

    status: int = 0
    headers: Mapping[str, str] = {}  # names in lower case
    body: Mapping[str, Any] = {}  # empty unless it is a JSON object


class Account(NamedTuple):
    """Whose account, and where its API is."""

    url: str
    key: str


def send(
    account: Account, message: sdk.Emails.SendParams, idempotency_key: str, deadline: float
) -> Answer:
    """Send a message; `deadline` is a reading of `time.monotonic`."""
    options: sdk.Emails.SendOptions = {"idempotency_key": idempotency_key}
    return _call(account, lambda: sdk.Emails.send(message, options), deadline)


def suppressed(account: Account, after: str, deadline: float) -> Answer:
    """Read up to a hundred suppressed addresses, after the entry with the id `after`."""
    page: sdk.Suppressions.ListParams = {"limit": 100}
    if after:
        page["after"] = after
    return _call(account, lambda: sdk.Suppressions.list(page), deadline)


def lift(account: Account, address: str, deadline: float) -> Answer:
    """Remove an address from Resend's suppression list."""
    return _call(account, lambda: sdk.Suppressions.remove(address), deadline)


def _call(account: Account, ask: Callable[[], object], deadline: float) -> Answer:
    """Run one call of the SDK and return Resend's answer."""
    client = _Client(deadline)
    sdk.api_url, sdk.api_key, sdk.default_http_client = account.url, account.key, client
    # The others are what the SDK raises for a body that is not JSON: we read the answer ourselves.
    with suppress(ResendError, NoContentError, AttributeError, TypeError, ValueError):
        ask()
    return client.answer


class _Client(sdk.HTTPClient):
    """The SDK's transport, for one call."""

    def __init__(self, deadline: float) -> None:
        self.deadline, self.answer = deadline, Answer()

    @override
    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        json: dict[str, object] | list[object] | None = None,
        files: dict[str, Any] | None = None,
        data: dict[str, str] | None = None,
    ) -> tuple[bytes, int, Mapping[str, str]]:
        body = None if method.upper() == "GET" or json is None else encoded(json)
        headers = {**headers, "Content-Type": "application/json"} if body else dict(headers)
        # Safe to send again on a new connection: the request carries an idempotency key.
        found = timed_http.exchange(
            _connections,
            method.upper(),
            url,
            deadline=self.deadline,
            longest=_LONGEST_ANSWER,
            body=body,
            headers=headers,
        )
        self.answer = Answer(found.status, found.headers, _object(found.body))
        return found.body, found.status, found.headers


def encoded(body: object) -> bytes:
    """Return the bytes of a request's body."""
    return json.dumps(body).encode()


def _object(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
