"""The provider `memcached`: several servers, TLS, and never longer than PATIENCE.

A key belongs to one server by rendezvous hashing over all that are configured, alive or not. So
every process agrees where a key is, and a drop reaches whoever reads; while a server is down its
share of the keys misses. pymemcache's HashClient moves those keys to a neighbour, each process by
what it has seen fail itself: a drop would miss its readers, and a server that comes back would
answer with what was dropped in between. It also waits per read, and for names without an end.
Here the library speaks the protocol; connections and clocks are ours.
"""

import hashlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from kyora import config
from kyora.cache import circuit
from kyora.config import Settings
from kyora.tls import context

PATIENCE = 0.3  # seconds for one call, whatever it takes: name, connection, handshake, answer

type Server = tuple[str, int]

_clients: dict[Server, Any] = {}


class Bounded:
    """A socket on which every wait is over at `ends`: who drips bytes is as late as who is silent.

    Raises TimeoutError.
    """

    def __init__(self, connected: socket.socket, ends: float) -> None:
        self._socket, self.ends = connected, ends

    def sendall(self, data: bytes) -> None:
        """Send all of it. An SSLSocket's own would take the time-out anew for every piece."""
        rest = memoryview(data)
        while rest:
            self._socket.settimeout(_left(self.ends))
            rest = rest[self._socket.send(rest) :]

    def recv(self, size: int) -> bytes:
        """Return what has arrived, at most `size` bytes."""
        self._socket.settimeout(_left(self.ends))
        return self._socket.recv(size)

    def close(self) -> None:
        """Close it."""
        self._socket.close()


def get(name: str) -> bytes | None:
    """Return an entry, or None: also of a server that is left alone."""
    found = _run(name, lambda client: client.get(name))
    return found if isinstance(found, bytes) else None


def put(name: str, kept: bytes, seconds: int) -> None:
    """Keep an entry."""
    _run(name, lambda client: client.set(name, kept, expire=seconds, noreply=False))


def drop(name: str) -> None:
    """Keep it no more."""
    _run(name, lambda client: client.delete(name, noreply=False))


def server_of(name: str, servers: tuple[Server, ...]) -> Server:
    """Return whose a name is. Taking a server away moves only the names that were its own."""

    def weight(server: Server) -> bytes:
        text = f"{server[0]}\n{server[1]}\n{name}"
        return hashlib.blake2b(text.encode(), digest_size=8).digest()

    return max(servers, key=weight)


def _run(name: str, command: Callable[[Any], object]) -> object:
    """Run a command on the server of `name`; a server that fails is left alone for a while.

    Raises what the server says when it refuses: that is an answer, and no reason to leave it.
    """
    from pymemcache.exceptions import (  # type: ignore[import-untyped]
        MemcacheServerError,
        MemcacheUnexpectedCloseError,
    )

    settings = config.settings("cache")
    server = server_of(name, settings.cache_servers)
    peer = f"{server[0]}:{server[1]}"
    if circuit.is_open(peer):
        return None
    if settings.cache_tls:  # reading the authorities takes its time: not ours
        context()
    ends = time.monotonic() + PATIENCE
    # Out of the table while in use: whoever is stopped half-way leaves no answer for the next.
    kept = _clients.pop(server, None)

    def attempt(client: Any) -> object:
        client.sock.ends = ends
        try:
            found = command(client)
        except BaseException:
            client.close()
            raise
        _clients[server] = client
        return found

    try:
        if kept is not None:
            # The server was restarted, or closes what idles: once more on a new connection.
            with suppress(ConnectionError, ssl.SSLError, MemcacheUnexpectedCloseError):
                return attempt(kept)
        return attempt(_client(server, settings, ends))
    except MemcacheServerError:
        raise
    except Exception as error:
        circuit.open_for(peer, error)
        return None


def _client(server: Server, settings: Settings, ends: float) -> Any:
    """Connect to `server`. Raises OSError; TimeoutError at `ends`."""
    from pymemcache.client.base import Client  # type: ignore[import-untyped]

    client = Client(server)
    client.sock = Bounded(_connect(server, ends, tls=settings.cache_tls), ends)
    return client


def _connect(server: Server, ends: float, *, tls: bool) -> socket.socket:
    """Try each address of the name in its share of the time that is left."""
    addresses = _resolve(server, ends)
    failure: OSError = OSError("no address")
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        connected = socket.socket(family, kind, protocol)
        try:
            connected.settimeout(_left(ends) / (len(addresses) - number))
            connected.connect(address)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if not tls:
                return connected
            connected.settimeout(_left(ends))
            return context().wrap_socket(connected, server_hostname=server[0])
        except OSError as error:
            connected.close()
            failure = error
    raise failure


def _resolve(server: Server, ends: float) -> list[Any]:
    """Look the name up in a thread: the system's resolver knows no time-out of ours."""
    found: list[Any] = []

    def look() -> None:
        with suppress(OSError, UnicodeError):
            found.extend(socket.getaddrinfo(*server, type=socket.SOCK_STREAM))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(_left(ends))
    return list(found)


def _left(ends: float) -> float:
    """Return the seconds until `ends`. Raises TimeoutError when there are none."""
    left = ends - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
