"""A real Memcached that a test may kill, stall and fill with garbage, and servers that are none."""

import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest

from tests.ports import free_port


class Memcached:
    """A server on a loopback port, which stays its own over a restart; with TLS by a certificate.

    Skips the test where Debian's package is not installed (`make test` does, where it can).
    """

    def __init__(self, certificate: Path | None = None) -> None:
        program = shutil.which("memcached")
        if program is None:
            pytest.skip("memcached is not on this machine (Debian: apt install memcached)")
        self._program, self._certificate = program, certificate
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [self._program, "-l", "127.0.0.1", "-p", str(self.port), "-U", "0", "-t", "1"]
        if os.geteuid() == 0:  # it refuses root without a user to run as
            command += ["-u", "root" if self._certificate else "nobody"]
        if self._certificate:
            command += [
                "-Z",
                "-o",
                f"ssl_chain_cert={self._certificate},ssl_key={self._certificate}",
            ]
        self._process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        ends = time.monotonic() + 120
        while time.monotonic() < ends:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.02)
        self.kill()
        raise AssertionError("memcached does not start")

    def kill(self) -> None:
        """A power cut."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(60)
            self._process = None

    def stall(self) -> None:
        """From now on the kernel takes connections and bytes, and no one answers."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)
        # The signal is taken when a thread of it next runs, which may be in the midst of an answer.
        os.waitpid(self._process.pid, os.WUNTRACED)

    def go_on(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def say(self, command: bytes) -> bytes:
        """Send a raw command and return the first piece of the answer."""
        with socket.create_connection(("127.0.0.1", self.port), 10) as connected:
            connected.sendall(command)
            return connected.recv(65_536)

    def write(self, name: str, value: bytes) -> None:
        """Write past our own code, as another program would."""
        head = f"set {name} 0 0 {len(value)}\r\n".encode()
        assert self.say(head + value + b"\r\n") == b"STORED\r\n"

    def read(self, name: str) -> bytes | None:
        """Read past our own code."""
        answer = self.say(f"get {name}\r\n".encode())
        head, _, rest = answer.partition(b"\r\n")
        return rest[: int(head.split()[3])] if head.startswith(b"VALUE") else None

    def count(self, name: str) -> int:
        """Return a counter of the server's statistics."""
        for line in self.say(b"stats\r\n").decode().splitlines():
            if line.startswith(f"STAT {name} "):
                return int(line.split()[2])
        raise AssertionError(f"no counter {name}")


@contextmanager
def impostor(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """Yield the address of a server that does `talk` with each connection, and then closes it."""
    listener = socket.create_server(("127.0.0.1", 0))
    open_ones: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def serve(client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            talk(client)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                open_ones.append(client)
                threads.append(threading.Thread(target=serve, args=(client,), daemon=True))
                threads[-1].start()

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        for one in (listener, *open_ones):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        listener.close()
        for thread in (acceptor, *threads):
            thread.join(10)


def silent(client: socket.socket) -> None:
    """Take everything and say nothing."""
    while client.recv(65_536):
        pass


def dripping(client: socket.socket) -> None:
    """Answer a byte at a time, never a whole line: each read of the caller's is a quick one."""
    client.recv(65_536)
    while True:
        client.sendall(b"V")
        time.sleep(0.02)


def endless(client: socket.socket) -> None:
    """Announce a value of a terabyte and begin with it."""
    name = client.recv(65_536).split()[1]
    client.sendall(b"VALUE " + name + b" 0 1000000000000\r\n")
    while True:
        client.sendall(b"x" * 65_536)
        time.sleep(0.01)


def saying(answer: bytes) -> Callable[[socket.socket], None]:
    """Give the same answer to everything."""

    def talk(client: socket.socket) -> None:
        while client.recv(65_536):
            client.sendall(answer)

    return talk


def handshake(certificate: Path) -> Callable[[socket.socket], None]:
    """Shake hands with TLS, then be silent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def talk(client: socket.socket) -> None:
        with context.wrap_socket(client, server_side=True) as secure:
            silent(secure)

    return talk
