"""pgbouncer in front of a server, in either pooling mode."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.integration.support.cluster import USER, free_port

PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


@contextmanager
def pgbouncer(mode: str, *, folder: str, port: int, size: int = 1) -> Iterator[str]:
    """Run it with `size` connections to the server in the socket's `folder`; yield its folder.

    `mode` is `transaction` or `session`. As it comes: no startup parameter is ignored.
    """
    assert PROGRAM is not None
    home = Path(tempfile.mkdtemp(prefix="pb"))
    home.chmod(0o777)
    users, settings = home / "users", home / "ini"
    users.write_text('"kyora_functions" ""\n"kyora_owner" ""\n"postgres" ""\n')
    listens = free_port()
    settings.write_text(
        f"[databases]\n* = host={folder} port={port}\n[pgbouncer]\npool_mode = {mode}\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {listens}\nunix_socket_dir = {home}\n"
        f"auth_type = trust\nauth_file = {users}\ndefault_pool_size = {size}\n"
        "server_reset_query = DISCARD ALL\nquery_wait_timeout = 5\n"
    )
    for path in (home, users, settings):
        if USER:
            shutil.chown(path, USER)
    log = home / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [PROGRAM, str(settings)],
            user=USER,
            cwd="/",
            env={"PATH": os.environ.get("PATH", "")},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        ready = home / f".s.PGSQL.{listens}"
        for _ in range(200):
            if ready.exists():
                break
            assert process.poll() is None, log.read_text()
            time.sleep(0.02)
        yield f"127.0.0.1:{listens}"
    finally:
        process.kill()
        process.wait(10)
        shutil.rmtree(home, ignore_errors=True)
