"""A real HTTP server on loopback that answers from a script, and keeps what it was asked."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Answer:
    """What to answer; `drop` hangs up without a word, `close` hangs up after the answer."""

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    drop: bool = False
    close: bool = False


type Script = Callable[[Request], Answer]


class Server:
    """`answer` decides for each request; `requests` is what came, in order."""

    def __init__(self, answer: Script, certificate: Path | None = None, port: int = 0) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self.connections = 0
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # an answer goes out in two writes
            timeout = 60

            def setup(self) -> None:
                owner.connections += 1
                super().setup()

            def handle(self) -> None:
                with suppress(OSError):  # a client that trusts no certificate of ours hangs up
                    super().handle()

            def _any(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                headers = {k.lower(): v for k, v in self.headers.items()}
                request = Request(self.command, self.path, headers, self.rfile.read(length))
                owner.requests.append(request)
                found = owner.answer(request)
                time.sleep(found.delay)
                if found.drop:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                try:
                    self.send_response_only(found.status)
                    for name, value in found.headers.items():
                        self.send_header(name, value)
                    if self.command != "HEAD":  # whose answer names a length of its own
                        self.send_header("Content-Length", str(len(found.body)))
                    self.end_headers()
                    self.wfile.write(found.body)
                except OSError:  # the client gave up waiting
                    self.close_connection = True
                if found.close:
                    self.close_connection = True

            do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = _any  # noqa: N815  # http.server's names

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
            self.url = f"https://localhost:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def scripted(answer: Script, certificate: Path | None = None, port: int = 0) -> Iterator[Server]:
    """Run a server on `port`, else on a free one; OSError when it is taken.

    With the file of a key and its certificate it speaks TLS, as localhost.
    """
    server = Server(answer, certificate, port)
    try:
        yield server
    finally:
        server.stop()


def in_turn(*answers: Answer) -> Script:
    """Answer the first request with the first answer, and so on; the last one repeats."""
    left = list(answers)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


@contextmanager
def dripping(first: bytes, then: bytes, *, pause: float = 0.05) -> Iterator[str]:
    """Run a server that answers each request with `first` and then a byte each `pause` seconds."""

    def serve(client: socket.socket) -> None:
        with suppress(OSError), client:
            client.recv(1 << 16)
            client.sendall(first)
            for byte in then or bytes(1000):
                if then:
                    client.sendall(bytes([byte]))
                if stopped.wait(pause):
                    return

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                clients.append(client)
                threads.append(threading.Thread(target=serve, args=(client,), daemon=True))
                threads[-1].start()

    threads: list[threading.Thread] = []
    clients: list[socket.socket] = []
    stopped = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    threads.append(threading.Thread(target=accept, daemon=True))
    threads[0].start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        stopped.set()
        for one in (listener, *clients):  # some wait for a request that never comes
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        listener.close()
        for thread in threads:
            thread.join(60)
