"""Where the console reads: Postgres, the emulator, the stand-in. Each answers soon, or Fault."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date, datetime
from decimal import Decimal
from functools import cache
from typing import Any

import pg8000.exceptions
import pg8000.native

from local.settings import Settings
from local.stack import emulator, postgres

PATIENCE = 3.0  # seconds for an answer of any of them


class Fault(Exception):
    """A part of the stack does not answer; its text is a sentence for the page."""


@contextmanager
def database(stack: Settings) -> Iterator["Reader"]:
    """Read from Postgres, in one read-only transaction. Raises Fault when it does not answer."""
    try:
        connection = postgres.connect(stack.database_url, patience=PATIENCE)
    except (OSError, pg8000.exceptions.Error) as error:
        raise Fault(f"PostgreSQL does not answer: {_reason(error)}") from None
    try:
        connection.run("begin transaction read only")
        connection.run(f"set local statement_timeout = {int(PATIENCE * 1000)}")
        yield Reader(connection)
    except (OSError, pg8000.exceptions.Error) as error:
        raise Fault(f"PostgreSQL does not answer: {_reason(error)}") from None
    finally:
        with suppress(OSError, pg8000.exceptions.Error):
            connection.close()


class Reader:
    """Runs statements and returns rows as dictionaries that JSON can hold."""

    def __init__(self, connection: pg8000.native.Connection) -> None:
        self._connection = connection

    def rows(self, sql: str, **values: Any) -> list[dict[str, Any]]:
        """Run a statement; bound values are named as in `:name`."""
        found = self._connection.run(sql, **values) or []
        names = [column["name"] for column in self._connection.columns or []]
        return [dict(zip(names, map(plain, row), strict=True)) for row in found]


def plain(value: Any) -> Any:
    """Return a value of Postgres as JSON holds it; a number may be longer than JSON's."""
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, Decimal | date):
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**53:
        return str(value)
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, list):
        return [plain(item) for item in value]
    return (
        value if value is None or isinstance(value, str | int | float | bool | dict) else str(value)
    )


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer in {PATIENCE:.0f} seconds"
    found = error.args[0] if error.args else ""
    if isinstance(found, dict):
        return str(found.get("M", ""))
    return str(found or type(error).__name__)


@cache
def aws(service: str, port: int) -> Any:
    """Return a client of the emulator that gives up soon."""
    return emulator.client(service, port, patience=PATIENCE)


@contextmanager
def asking_emulator() -> Iterator[None]:
    """Turn what a client raises into Fault."""
    import botocore.exceptions

    try:
        yield
    except botocore.exceptions.ClientError as error:
        raise Fault(f"the AWS emulator refuses: {error}") from None
    except botocore.exceptions.BotoCoreError as error:
        raise Fault(f"the AWS emulator does not answer: {type(error).__name__}") from None


def get_json(what: str, url: str) -> Any:
    """Return what an address of ours answers. Raises Fault."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        error.close()
        raise Fault(f"{what} answers {error.code}") from None
    except (OSError, ValueError) as error:
        raise Fault(f"{what} does not answer: {_reason(error)}") from None


def messages(stack: Settings) -> dict[str, list[dict[str, Any]]]:
    """Return every message in every queue of ours, by the queue's name without `kyora-local-`."""
    address = emulator.messages_address(stack.gateway_port)
    return emulator.messages(get_json("the AWS emulator", address))
