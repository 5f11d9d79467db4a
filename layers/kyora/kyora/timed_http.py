"""HTTP over a kept connection, with one deadline for the whole exchange.

A socket's own time-out, which is all that HTTP libraries offer, starts again at each read: a peer
that sends a byte a second keeps a function waiting until it is killed. Here connecting, the
handshake, sending, and the last byte of the answer share one deadline. Only the DNS look-up has
its own clock, the system resolver's.

It uses the standard library only: urllib3 is in Lambda's runtime beside boto3 but we do not choose
its version, the Stripe SDK would import httpx too, and neither has a deadline for the whole
exchange. http.client also follows no redirect, which is what we want everywhere. Import this module
where a call is made.
"""

import http.client
import io
import socket
import time
from collections.abc import Mapping, MutableMapping
from typing import Any, NamedTuple, override
from urllib.parse import urlsplit

from kyora import tls


class Reply(NamedTuple):
    """An answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class NoReply(ConnectionError):
    """No complete answer arrived before the deadline."""


def exchange(
    kept: MutableMapping[str, http.client.HTTPConnection] | None,
    method: str,
    url: str,
    *,
    deadline: float,
    longest: int,
    body: bytes | None = None,
    headers: Mapping[str, str],
) -> Reply:
    """Send over the connection that `kept` has for the host, or a new one when it is stale.

    With None for `kept` the connection is closed after the answer.
    `deadline` is a reading of `time.monotonic`, `longest` the largest answer in bytes. The request
    may be sent twice, the second time over a new connection. Raises NoReply.
    """
    parts = urlsplit(url)
    name = f"{parts.scheme}://{parts.netloc}"
    old = kept.pop(name, None) if kept else None
    try:
        connection = old or _connect(parts.scheme == "https", parts.netloc, deadline)
    except (OSError, ValueError) as error:
        raise NoReply("no answer") from error
    timed: Any = connection.sock
    timed.deadline = deadline
    try:
        path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        connection.request(method, path, body, dict(headers))
        response = connection.getresponse()
        content = response.read(longest)
        if response.length or (response.chunked and response.read(1)):
            raise http.client.IncompleteRead(content, response.length)  # cut off, or too large
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        # The peer may have closed an idle connection; after a time-out there is no time left.
        if old and not isinstance(error, TimeoutError):
            return exchange(
                kept,
                method,
                url,
                deadline=deadline,
                longest=longest,
                body=body,
                headers=headers,
            )
        raise NoReply("no answer") from error
    if kept is None or response.will_close:
        connection.close()
    else:
        kept[name] = connection
    return Reply(response.status, {k.lower(): v for k, v in response.headers.items()}, content)


def _connect(secure: bool, netloc: str, deadline: float) -> http.client.HTTPConnection:
    """Return a connection whose socket honours the deadline set on it."""
    connection = (
        http.client.HTTPSConnection(netloc, context=tls.context())
        if secure
        else http.client.HTTPConnection(netloc)
    )
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
                plain = tls.context().wrap_socket(plain, server_hostname=connection.host)
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
        raise TimeoutError("the deadline has passed")
    return left


class _Timed:
    """A socket whose waits all end at `deadline`, with the methods that http.client calls."""

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
        """Give the next operation the time that is left. Raises TimeoutError."""
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
