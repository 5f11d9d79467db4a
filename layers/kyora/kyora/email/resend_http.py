"""Calls to Resend's API through its SDK, over one kept connection and within one deadline.

The SDK opens a connection for each request, waits 30 s for each read of an answer, and reports a
lost connection, a page of a proxy and an answer 500 as the same error. It lets its caller supply
the HTTP client, so this one keeps the connection and the deadline, and remembers what was really
answered: that is what the calls here return, and the SDK's exceptions decide nothing.

Import this module where a call is made: the SDK and what it imports cost about 0.2 s.
"""

import http.client
import io
import json
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, override
from urllib.parse import urlsplit

import resend as sdk
from resend.exceptions import NoContentError, ResendError

_LONGEST_ANSWER = 1 << 20  # bytes

_connections: dict[str, http.client.HTTPConnection] = {}


class Answer(NamedTuple):
    """What Resend answered; `status` is 0 when no whole answer came before the deadline."""

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


def _call(account: Account, ask: Callable[[], object], deadline: float) -> Answer:
    """Run one call of the SDK and return what was answered."""
    client = _Client(deadline)
    sdk.api_url, sdk.api_key, sdk.default_http_client = account.url, account.key, client
    # Also what it does with a body that is no JSON: the answer itself is looked at instead.
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
        status, found, content = _exchange(method.upper(), url, body, headers, self.deadline)
        self.answer = Answer(status, found, _object(content))
        return content, status, found


def encoded(body: object) -> bytes:
    """Return the bytes of a request's body."""
    return json.dumps(body).encode()


def _object(content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _exchange(
    method: str, url: str, body: bytes | None, headers: Mapping[str, str], deadline: float
) -> tuple[int, dict[str, str], bytes]:
    """Send over the kept connection, or a new one where that has gone stale. Raises OSError."""
    parts = urlsplit(url)
    kept = _connections.pop(parts.netloc, None)
    connection = kept or _connect(parts.scheme == "https", parts.netloc, deadline)
    timed: Any = connection.sock
    timed.deadline = deadline
    try:
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        connection.request(method, path, body, dict(headers))
        response = connection.getresponse()
        content = response.read(_LONGEST_ANSWER)
        if response.length:  # cut off, or larger than any answer of Resend's
            raise http.client.IncompleteRead(content, response.length)
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        # Resend closes what idles. The idempotency key makes it safe to say the same thing again.
        if kept and not isinstance(error, TimeoutError):
            return _exchange(method, url, body, headers, deadline)
        raise ConnectionError("no answer") from None
    if response.will_close:
        connection.close()
    else:
        _connections[parts.netloc] = connection
    return response.status, {k.lower(): v for k, v in response.headers.items()}, content


def _connect(secure: bool, netloc: str, deadline: float) -> http.client.HTTPConnection:
    """Return a connection whose socket keeps the deadline that is set on it.

    Only the look-up of the name has its own clock, the system resolver's.
    """
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = kind(netloc)
    failed: OSError = ConnectionError("no address")
    for family, type_, proto, _, address in socket.getaddrinfo(
        connection.host, connection.port, type=socket.SOCK_STREAM
    ):
        plain = socket.socket(family, type_, proto)
        try:
            plain.settimeout(_left(deadline))
            plain.connect(address)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if secure:
                plain.settimeout(_left(deadline))
                context = ssl.create_default_context()
                plain = context.wrap_socket(plain, server_hostname=connection.host)
        except OSError as error:
            plain.close()
            failed = error
            continue
        connection.sock = _Timed(plain, deadline)
        return connection
    raise failed


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the deadline is over")
    return left


class _Timed:
    """A socket whose waits all end at `deadline`: a time-out of its own would start at each read.

    It has what http.client asks of a socket.
    """

    def __init__(self, plain: socket.socket, deadline: float) -> None:
        self._plain, self.deadline = plain, deadline

    def sendall(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            self.wait()
            left = left[self._plain.send(left) :]

    def makefile(self, mode: str) -> io.BufferedReader:
        assert mode == "rb"  # noqa: S101  # what http.client reads with
        return io.BufferedReader(_Reads(self, self._plain.makefile("rb", buffering=0)))

    def wait(self) -> None:
        """Let the next operation take as long as is left. Raises TimeoutError."""
        self._plain.settimeout(_left(self.deadline))

    def close(self) -> None:
        self._plain.close()


class _Reads(io.RawIOBase):
    def __init__(self, timed: _Timed, raw: io.RawIOBase) -> None:
        self._timed, self._raw = timed, raw

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: Any) -> int | None:
        self._timed.wait()
        return self._raw.readinto(buffer)

    @override
    def close(self) -> None:
        self._raw.close()
        super().close()
