"""The provider `memcached`: several servers, TLS, and no call longer than DEADLINE.

A key belongs to one server by rendezvous hashing over all configured servers, alive or not. So
every process agrees where a key is, and a drop reaches every reader; while a server is down, its
share of the keys misses. pymemcache's HashClient moves those keys to another server, each process
by the failures it has seen itself: a drop would then miss other readers, and a server that comes
back would answer with values dropped in the meantime. It also has a time-out for each read only,
and none for name resolution. Here the library speaks the protocol; connections and deadlines are
ours.
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
from kyora.config import Cache
from kyora.tls import context

DEADLINE = 0.3  # seconds for a whole call: name, connection, handshake, answer

type Server = tuple[str, int]

_clients: dict[Server, Any] = {}


class Bounded:
    """A socket whose waits all end at `ends`, also when the server sends a byte at a time.

    Raises TimeoutError.
    """

    def __init__(self, connected: socket.socket, ends: float) -> None:
        self._socket, self.ends = connected, ends

    def sendall(self, data: bytes) -> None:
        """Send all of it. An SSLSocket's own would start the time-out again for every piece."""
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
    """Return an entry, or None; None as well while its server is skipped."""
    found = _run(name, lambda client: client.get(name))
    return found if isinstance(found, bytes) else None


def put(name: str, kept: bytes, seconds: int) -> None:
    """Store an entry."""
    _run(name, lambda client: client.set(name, kept, expire=seconds, noreply=False))


def drop(name: str) -> None:
    """Delete the entry."""
    _run(name, lambda client: client.delete(name, noreply=False))


def server_of(name: str, servers: tuple[Server, ...]) -> Server:
    """Return the server of a name. Removing a server moves only the names that it had."""

    def weight(server: Server) -> bytes:
        text = f"{server[0]}\n{server[1]}\n{name}"
        return hashlib.blake2b(text.encode(), digest_size=8).digest()

    return max(servers, key=weight)


def _run(name: str, command: Callable[[Any], object]) -> object:
    """Run a command on the server of `name`; a server that fails is skipped for five seconds.

    Raises MemcacheServerError when the server refuses: that is an answer, not a failed server.
    """
    from pymemcache.exceptions import (  # type: ignore[import-untyped]
        MemcacheServerError,
        MemcacheUnexpectedCloseError,
    )

    settings = config.cache()
    server = server_of(name, settings.memcached_servers)
    peer = f"{server[0]}:{server[1]}"
    if circuit.is_open(peer):
        return None
    if settings.memcached_tls:  # reads the authorities' file before the clock starts
        context()
    ends = time.monotonic() + DEADLINE
    # Out of the table while in use: a call that is interrupted leaves no answer for the next one.
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
            # The server was restarted, or closed an idle connection: try once on a new one.
            with suppress(ConnectionError, ssl.SSLError, MemcacheUnexpectedCloseError):
                return attempt(kept)
        return attempt(_client(server, settings, ends))
    except MemcacheServerError:
        raise
    except Exception as error:
        circuit.open_for(peer, error)
        return None


def _client(server: Server, settings: Cache, ends: float) -> Any:
    """Connect to `server`. Raises OSError; TimeoutError at `ends`."""
    from pymemcache.client.base import Client  # type: ignore[import-untyped]

    client = Client(server)
    client.sock = Bounded(_connect(server, ends, tls=settings.memcached_tls), ends)
    return client


def _connect(server: Server, ends: float, *, tls: bool) -> socket.socket:
    """Try each address of the name, with an equal share of the time that is left."""
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
    """Resolve the name in a thread: the system's resolver takes no time-out."""
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
