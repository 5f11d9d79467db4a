"""pgbouncer in front of a server, in either pooling mode."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.integration.support.cluster import USER
from tests.ports import free_port

PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


class Pooler:
    """A pgbouncer on a loopback port, which a test may kill and start again."""

    def __init__(
        self, mode: str, *, host: str, port: int, size: int = 1, password: str = "", **more: object
    ) -> None:
        """Prepare one with `size` connections to the server at `host`, a name or a socket's folder.

        `mode` is `transaction` or `session`. As it comes: no startup parameter is ignored. `more`
        are further settings.
        """
        self._home = Path(tempfile.mkdtemp(prefix="pb"))
        self._home.chmod(0o777)
        self._port = free_port()
        users, self._settings = self._home / "users", self._home / "ini"
        names = ("kyora_functions", "kyora_owner", "postgres")
        users.write_text("".join(f'"{name}" "{password}"\n' for name in names))
        settings = {
            "pool_mode": mode,
            "listen_addr": "127.0.0.1",
            "listen_port": self._port,
            "unix_socket_dir": self._home,
            "auth_type": "trust",
            "auth_file": users,
            "default_pool_size": size,
            "server_reset_query": "DISCARD ALL",
            "query_wait_timeout": 5,
            **more,
        }
        lines = [f"{name} = {value}" for name, value in settings.items()]
        self._settings.write_text(
            "\n".join(["[databases]", f"* = host={host} port={port}", "[pgbouncer]", *lines, ""])
        )
        for path in (self._home, users, self._settings):
            if USER:
                shutil.chown(path, USER)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Its host and port."""
        return f"127.0.0.1:{self._port}"

    def start(self) -> None:
        assert PROGRAM is not None
        log, ready = self._home / "log", self._home / f".s.PGSQL.{self._port}"
        ready.unlink(missing_ok=True)
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [PROGRAM, str(self._settings)],
                user=USER,
                cwd="/",
                env={"PATH": os.environ.get("PATH", "")},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        ends = time.monotonic() + 120
        while not ready.exists():
            assert self._process.poll() is None, log.read_text()
            assert time.monotonic() < ends, log.read_text()
            time.sleep(0.02)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(60)
            self._process = None

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self._home, ignore_errors=True)


@contextmanager
def pgbouncer(mode: str, *, folder: str, port: int, size: int = 1) -> Iterator[str]:
    """Run one in front of the server in the socket's `folder`; yield its address."""
    pooler = Pooler(mode, host=folder, port=port, size=size)
    try:
        pooler.start()
        yield pooler.address
    finally:
        pooler.remove()
