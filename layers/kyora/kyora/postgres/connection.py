"""The one connection of this execution environment, and transactions on it.

Nothing here leaves state in the session (no SET, no named statement, no session lock), so that
RDS Proxy can share its connections. This is the only module that knows the driver.
"""

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from urllib.parse import parse_qs, unquote, urlsplit

from pg8000.core import NULL_BYTE, SYNC_MSG, Context, make_params
from pg8000.exceptions import DatabaseError, InterfaceError
from pg8000.native import Connection, to_statement

from kyora import config, tls
from kyora.errors import Unavailable
from kyora.observability import count, logger

# Seconds for a connect or one answer. A dead connection and a new one that does not answer are
# two of these, and API Gateway gives its authorizer ten.
_TIMEOUT = 4.0
_LOST = (InterfaceError, OSError, struct.error)  # what pg8000 raises on a dead connection
_AUTH_FAILED = ("28P01", "28000")
# Classes of SQLSTATE that speak of the server, not of the statement: connection exceptions,
# too many connections, shutting down, starting up, read-only after a fail-over.
_SERVER_STATES = ("08", "53", "57P", "25006")
_RETRYABLE = ("40001", "40P01", "55P03")  # serialisation failure, deadlock, lock not available

_kept: list[Connection] = []


# pg8000 looks for `:name` letter by letter, 0.4 ms a statement; ours are constants.
_parsed = lru_cache(maxsize=1024)(to_statement)


class _OneTrip(Connection):  # type: ignore[misc]  # the driver has no types
    """A connection whose statements with values take one round trip to the server.

    pg8000 waits after Parse, after Describe and after Execute; the protocol asks for one Sync
    (https://www.postgresql.org/docs/current/protocol-flow.html, "Pipelining"). Measured on a Unix
    socket: half the time of a statement; over a network two of three trips. The version of the
    driver is locked, and tests/integration/test_postgres.py goes through all of this.
    """

    def run(self, sql: str, **params: object) -> list[list[object]] | None:
        """Run a statement; a value is bound, never written into it."""
        if not params:
            self._context = self.execute_simple(sql)
        else:
            statement, values = _parsed(sql)
            # First, so that a value which cannot be sent leaves nothing half said.
            bound = make_params(self.py_types, values(params))
            for value in bound:
                if value is not None:
                    value.encode(self._client_encoding)
            self._context = self._execute(statement, bound)
        rows: list[list[object]] | None = self._context.rows
        return rows

    def _execute(self, statement: str, bound: Sequence[str | None]) -> Context:
        context = Context(statement)
        self.send_PARSE(NULL_BYTE, statement)
        self.send_DESCRIBE_STATEMENT(NULL_BYTE)
        self.send_BIND(NULL_BYTE, bound)
        self.send_EXECUTE()
        self._sock.write(SYNC_MSG)
        self._sock.flush()
        self.handle_messages(context)
        return context


class StatementFailed(Exception):
    """The server refused a statement: a bug of ours. Row values are not repeated here."""


class Transaction:
    """A running transaction: statements with named parameters (`:name`), rows as dictionaries.

    A statement raises Unavailable when the server is gone or asks for a retry, and
    StatementFailed when it refuses.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.committed: dict[Callable[[list[str]], None], list[str]] = {}

    def rows(self, sql: str, **params: object) -> list[dict[str, object]]:
        """Run a statement and return its rows."""
        found = self._execute(sql, params)
        names = [str(column["name"]) for column in self._connection.columns or ()]
        return [dict(zip(names, row, strict=True)) for row in found]

    def row(self, sql: str, **params: object) -> dict[str, object] | None:
        """Run a statement and return its first row, or None."""
        found = self.rows(sql, **params)
        return found[0] if found else None

    def run(self, sql: str, **params: object) -> int:
        """Run a statement and return how many rows it touched."""
        self._execute(sql, params)
        return max(int(self._connection.row_count), 0)

    def after_commit(self, callback: Callable[[list[str]], None], item: str) -> None:
        """Call `callback` once, after the commit, with all items given for it."""
        self.committed.setdefault(callback, []).append(item)

    def _execute(self, sql: str, params: Mapping[str, object]) -> list[list[object]]:
        try:
            return self._connection.run(sql, **params) or []
        except (*_LOST, DatabaseError) as error:
            raise _translate(error) from None


_running: list[Transaction] = []


@contextmanager
def transaction(*, timeout: float | None = None, owner: bool = False) -> Iterator[Transaction]:
    """Open a transaction that commits at the end of the block and rolls back on an exception.

    With a `timeout` in seconds each statement may take that long, on a connection of its own;
    otherwise four. As `owner` it may change the schema, also on a connection of its own.
    A connection found dead at the start is replaced once. Raises Unavailable when the database
    cannot be reached, or is lost on the way: then nothing of the block was committed, unless the
    answer to COMMIT itself was lost.
    """
    if _running:  # its COMMIT would commit half of the outer one
        raise RuntimeError("a transaction is running already")
    alone = owner or timeout is not None
    if alone:
        close()
    connection = _begin(timeout or _TIMEOUT, owner=owner)
    tx = Transaction(connection)
    _running.append(tx)
    try:
        yield tx
        tx.run("COMMIT")
    except BaseException:
        try:
            connection.run("ROLLBACK")
        except (*_LOST, DatabaseError):
            close()
        raise
    finally:
        _running.clear()
        if alone:
            close()
    for callback, items in tx.committed.items():
        callback(items)


def in_transaction() -> bool:
    """Tell whether a transaction is running."""
    return bool(_running)


def close() -> None:
    """Close the kept connection, if there is one."""
    while _kept:
        with suppress(*_LOST, DatabaseError):
            _kept.pop().close()


def connect(url: str, *, development: bool, timeout: float | None = None) -> Connection:
    """Open a connection to `url`.

    TLS is verified, host name included, against the file `sslrootcert` of the address, or the
    system's authorities and, for RDS and Aurora, Amazon's (`kyora.tls`).
    In development a server without TLS is accepted (`sslmode=disable`, the default there).
    `host=/path` in the query means a Unix socket's folder.
    """
    parts = urlsplit(url)
    options = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    mode = options.get("sslmode", "disable" if development else "verify-full")
    context = None
    if mode != "disable":
        context = tls.database_context(parts.hostname or "", options.get("sslrootcert"))
    socket_folder = options.get("host", "")
    port = parts.port or 5432
    return _OneTrip(
        unquote(parts.username or "postgres"),
        host=parts.hostname or "localhost",
        port=port,
        unix_sock=f"{socket_folder}/.s.PGSQL.{port}" if socket_folder else None,
        database=unquote(parts.path.lstrip("/")) or "postgres",
        password=unquote(parts.password or ""),
        # False, not None: with None pg8000 goes on in the clear when the server refuses TLS.
        ssl_context=context or False,
        timeout=timeout or _TIMEOUT,
        application_name="kyora",
    )


def _begin(timeout: float, *, owner: bool) -> Connection:
    """Start a transaction on the kept connection, or on a new one when that is dead."""
    if _kept:
        try:
            _kept[0].run("BEGIN")
            return _kept[0]
        except (*_LOST, DatabaseError):  # gone, or ended by an administrator
            close()
    try:
        _kept.append(_open(timeout, owner=owner))
        _kept[0].run("BEGIN")
    except (*_LOST, DatabaseError) as error:
        close()
        raise _unavailable(error) from error
    return _kept[0]


def _open(timeout: float, *, owner: bool) -> Connection:
    """Connect; when the password is refused, read the settings anew once: it may have rotated."""
    try:
        return _connect(timeout, owner=owner)
    except DatabaseError as error:
        if _state(error) not in _AUTH_FAILED:
            raise
    config.forget()
    return _connect(timeout, owner=owner)


def _connect(timeout: float, *, owner: bool) -> Connection:
    found = config.settings("database_owner" if owner else "database")
    url = found.database_owner_url if owner else found.database_url
    return connect(url, development=found.development, timeout=timeout)


def _translate(error: Exception) -> Exception:
    """Return Unavailable for an error that speaks of the server, else StatementFailed.

    pg8000's own text is left out: its field D holds the failing row.
    """
    if isinstance(error, DatabaseError):
        state = _state(error)
        if state.startswith(_SERVER_STATES) or state in _RETRYABLE:
            return _unavailable(error)
        detail = error.args[0] if error.args else {}
        # Class 22, data exceptions, quotes the value itself.
        quotes = state.startswith("22") or not isinstance(detail, dict)
        return StatementFailed(state if quotes else f"{state} {detail.get('M', '')}")
    if isinstance(error, InterfaceError) and "placeholder" in str(error):
        return StatementFailed(str(error))
    return _unavailable(error)


def _state(error: DatabaseError) -> str:
    """Return the SQLSTATE of a server's error, or an empty text."""
    detail = error.args[0] if error.args else {}
    return str(detail.get("C", "")) if isinstance(detail, dict) else ""


def _unavailable(cause: BaseException) -> Unavailable:
    """Log what happened, without the server's own words: they may hold values of a row."""
    state = _state(cause) if isinstance(cause, DatabaseError) else ""
    logger().warning("database unavailable", extra={"cause": type(cause).__name__, "state": state})
    if state not in _RETRYABLE:  # it answers well: two of ours were in each other's way
        # Its alarm is in template.yaml.
        count(config.settings("database").stage, "DatabaseUnavailable")
    return Unavailable("The database cannot be reached.", code="database.unavailable")
