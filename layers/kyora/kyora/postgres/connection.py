"""The one connection of this execution environment, and transactions on it.

Nothing here leaves state in the session (no SET, no named statement, no session lock), so that
RDS Proxy and pgbouncer can share their connections. The settings that our parsing relies on are
requested in the startup message: client_encoding, DateStyle and TimeZone, which libpq itself may
send and every pooler therefore accepts. Each is checked against what the server reports. bytea is
parsed in both of its formats, because pgbouncer refuses bytea_output in the startup message.

One function, `_ask`, decides whether the connection is kept after an exception. This is the only
module that knows the driver.
"""

import re
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import date, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from pg8000.converters import BYTES, DATE, TIMESTAMP, TIMESTAMPTZ, array_out
from pg8000.core import (
    BIND_COMPLETE,
    COMMAND_COMPLETE,
    EXECUTE_MSG,
    FLUSH_MSG,
    NO_DATA,
    PARSE_COMPLETE,
    READY_FOR_QUERY,
    SYNC_MSG,
    Context,
    make_params,
)
from pg8000.exceptions import DatabaseError, InterfaceError
from pg8000.native import Connection, to_statement

from kyora import config, database_url, tls, trace
from kyora.database_url import Address
from kyora.errors import ConfigError, Unavailable
from kyora.observability import count, logger
from kyora.postgres.sqlstate import judge

if TYPE_CHECKING:
    import ssl

# Seconds for a connect or one answer. A dead connection followed by a new one that does not answer
# takes two of these; API Gateway gives its authorizer ten.
_TIMEOUT = 4.0
_COARSE = 0.1  # seconds by which a socket's timeout may be off
_LOST = (InterfaceError, OSError, struct.error)  # what pg8000 raises on a dead connection
_BEGIN = "BEGIN"
_AUTH_FAILED = ("28P01", "28000")
# An invalid character; \u0000 in JSON; a time outside the range of timestamptz.
_UNSTORABLE = ("22021", "22P05", "22008")
# They override what the server, database or role has set, and poolers accept them.
_STARTUP = {"client_encoding": "UTF8", "datestyle": "ISO", "timezone": "UTC"}
# As the server reports them, with the start of the only value that our parsing understands.
_REPORTED = {"client_encoding": "UTF8", "DateStyle": "ISO", "standard_conforming_strings": "on"}

_HEADER = 5  # bytes of each message: its code, and its length without the code
_BLOCK = 1 << 16  # bytes that are read at once, at most
_EMPTY = (PARSE_COMPLETE, BIND_COMPLETE, NO_DATA)  # messages that say nothing

_TABLE = re.compile(r"\b(?:FROM|INTO|UPDATE)\s+([a-z_]+)")  # the first that a statement names

_kept: list["_OneTrip"] = []


def _message(code: bytes, data: bytes) -> bytes:
    return code + struct.pack("!i", len(data) + 4) + data


@lru_cache(maxsize=1024)
def _parsing(statement: str) -> bytes:
    """Return the message that has a statement parsed."""
    return _message(b"P", b"\0" + statement.encode() + b"\0\0\0")


def _executing(values: Sequence[bytes | None]) -> bytes:
    """Return the messages that execute the parsed statement with values, given as text.

    Its columns are described after the values: a statement's description would repeat their types.
    """
    bound = [_NULL if value is None else len(value).to_bytes(4) + value for value in values]
    head = struct.pack("!2xhh", 0, len(values))
    return _message(b"B", b"".join((head, *bound, b"\0\0"))) + _DESCRIBE_AND_EXECUTE


_NULL = b"\xff\xff\xff\xff"  # the length -1
_DESCRIBE_AND_EXECUTE: bytes = _message(b"D", b"P\0") + EXECUTE_MSG

# pg8000 parses `:name` character by character, 0.4 ms a statement; ours are constants.
_parsed = lru_cache(maxsize=1024)(to_statement)


class _Statement(NamedTuple):
    """A statement with its values, as it is sent."""

    text: str
    values: Sequence[bytes | None] = ()

    @property
    def messages(self) -> bytes:
        return _parsing(self.text) + _executing(self.values)


class _OneTrip(Connection):  # type: ignore[misc]  # the driver has no types
    """A connection whose statements take one round trip to the server, several together if asked.

    pg8000 waits after Parse, after Describe and after Execute, and has the server send each of its
    answers at once; the protocol needs only one Sync
    (https://www.postgresql.org/docs/current/protocol-flow.html, "Pipelining"). BEGIN travels with
    the first statement of its transaction, before the same Sync: if it fails, the server skips
    whatever follows. The version of the driver is locked, and tests/integration/test_postgres.py
    covers all of this.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._described: dict[bytes, tuple[Any, Any]] = {}
        super().__init__(*args, **kwargs)

    patience = _TIMEOUT  # seconds for one whole answer
    begins = False  # whether BEGIN goes with the next statement
    _unread = b""  # what came behind the last answer
    _sock: Any
    _usock: Any

    def statement(self, sql: str, params: Mapping[str, object]) -> _Statement:
        """Bind values to a statement, never written into it. Raises Unstorable."""
        if not params:
            return _Statement(sql)
        text, values = _parsed(sql)
        try:
            bound = make_params(self.py_types, values(params))
            encoded = [None if value is None else value.encode() for value in bound]
        except OverflowError:  # a time whose year in UTC is out of range
            raise Unstorable("a date out of range") from None
        except UnicodeEncodeError:
            encoded = [b"\0"]
        if b"\0" in b"".join(filter(None, encoded)):
            raise Unstorable("a text that Postgres cannot store")
        return _Statement(text, encoded)

    def run(self, sql: str, **params: object) -> list[list[object]] | None:
        """Run a statement."""
        rows: list[list[object]] | None = self.ask([self.statement(sql, params)])[-1].rows
        return rows

    def ask(self, statements: Sequence[_Statement]) -> list[Context]:
        """Run statements in one round trip; return what each answered. After one fails, none runs.

        Alone and without values a statement may be several, separated by semicolons.
        """
        if len(statements) == 1 and not (statements[0].values or self.begins):
            self._context = self.execute_simple(statements[0].text)
            return [self._context]
        contexts = [Context(statement.text) for statement in statements]
        if self.begins:
            # Its answer is sent at once: it distinguishes a slow server from a lost one.
            self._sock.write(_Statement(_BEGIN).messages + FLUSH_MSG)
        self._sock.write(b"".join(statement.messages for statement in statements) + SYNC_MSG)
        self._sock.flush()
        self.handle_messages(*[Context(_BEGIN)] * self.begins, *contexts)
        self._context = contexts[-1]
        return contexts

    def handle_messages(self, *contexts: Context) -> None:
        """Read the answers up to the Sync. What came behind it is kept for the next ones.

        pg8000 reads the head and the rest of each message by themselves, of dozens in an answer.
        """
        ends = time.monotonic() + self.patience
        unread, place, code, at = self._unread, 0, b"", 0
        while code != READY_FOR_QUERY:
            length = int.from_bytes(unread[place + 1 : place + _HEADER])
            if len(unread) < place + _HEADER or len(unread) <= place + length:
                unread, place = unread[place:] + self._receive(ends), 0
                continue
            code, data = unread[place : place + 1], unread[place + _HEADER : place + length + 1]
            place += length + 1
            if code in _EMPTY:
                continue
            self.message_types[code](data, contexts[at])
            if code == COMMAND_COMPLETE and at < len(contexts) - 1:
                at += 1
        self._unread = unread[place:]
        for context in contexts:
            if context.error is not None:
                raise context.error

    def _receive(self, ends: float) -> bytes:
        """Return the bytes that came; until `ends`, since the socket's timeout is for each read.

        To set it is a system call: it is set again only when it is off by a tenth of a second.
        """
        left, allowed = ends - time.monotonic(), self._usock.gettimeout()
        if left <= 0:
            raise TimeoutError
        if allowed is None or abs(allowed - left) > _COARSE:
            self._usock.settimeout(left)
        found: bytes = self._sock.read1(_BLOCK)
        if not found:
            raise InterfaceError("network error")
        return found

    def handle_ROW_DESCRIPTION(self, data: bytes, context: Context) -> None:  # noqa: N802  # theirs
        """Read what columns follow; a statement's are the same each time."""
        if data not in self._described:
            super().handle_ROW_DESCRIPTION(data, context)
            self._described[data] = context.columns, context.input_funcs
        context.columns, context.input_funcs = self._described[data]
        context.rows = []

    def handle_COMMAND_COMPLETE(self, data: bytes, context: Context) -> None:  # noqa: N802  # theirs
        """Note that BEGIN was executed: from here on a lost connection is a lost transaction."""
        if data == b"BEGIN\0":
            self.begins = False
        else:
            super().handle_COMMAND_COMPLETE(data, context)

    def abandon(self) -> None:
        """Close without a Terminate message, which would also flush what is still buffered."""
        stream, raw = self._sock, self._usock
        self._sock = self._usock = None
        if raw is None:
            return
        with suppress(OSError):  # the peer may have closed it
            raw.shutdown(socket.SHUT_RDWR)
        with suppress(OSError, ValueError):  # flushing its buffer fails
            stream.close()
        raw.close()


class StatementFailed(Exception):
    """The server refused a statement: a bug of ours. Row values are not repeated here."""


class Unstorable(StatementFailed):
    """A value that Postgres cannot store: a text with NUL or a lone surrogate, a date out of range.

    When it came from outside it is the sender's mistake, and trying again does not help.
    """


type Row = dict[str, object]
type _Sql = tuple[str, Mapping[str, object]]


class Transaction:
    """A running transaction: statements with named parameters (`:name`), rows as dictionaries.

    A statement raises Unavailable when the server is gone or asks for a retry, Unstorable for a
    value that Postgres cannot store, and StatementFailed when the server refuses.
    """

    def __init__(
        self, connection: _OneTrip, timeout: float = _TIMEOUT, *, owner: bool = False
    ) -> None:
        self._connection, self._timeout, self._owner = connection, timeout, owner
        self.committed: dict[Callable[[list[Any]], None], list[Any]] = {}
        self._waiting: list[_Sql] = []  # what goes with the next statement
        self._answers: list[Context] = []  # of the last trip
        self._over = False

    def rows(self, sql: str, **params: object) -> list[Row]:
        """Run a statement and return its rows."""
        self._execute(sql, params)
        return _rows(self._answers[-1])

    def row(self, sql: str, **params: object) -> Row | None:
        """Run a statement and return its first row, or None."""
        found = self.rows(sql, **params)
        return found[0] if found else None

    def value[T](self, kind: type[T], sql: str, /, **params: object) -> T | None:
        """Run a statement of one column; return its value in the first row, None without a row.

        Raises TypeError for a value of another type than `kind`: a fault of the statement.
        """
        found = self._execute(sql, params)
        value = found[0][0] if found else None
        if value is not None and not isinstance(value, kind):
            raise TypeError(f"{kind.__name__} expected, not {type(value).__name__}")
        return value

    def run(self, sql: str, **params: object) -> int:
        """Run a statement and return how many rows it touched."""
        self._execute(sql, params)
        return max(int(self._connection.row_count), 0)

    def later(self, sql: str, **params: object) -> None:
        """Run a statement whose answer does not matter, with the next one or with COMMIT.

        It costs no round trip. If it fails, that one raises what it would have raised.
        """
        self._waiting.append((sql, params))

    def together(self, *statements: _Sql) -> list[list[Row]]:
        """Run statements in one round trip, each after the one before; return the rows of each."""
        self._waiting += statements[:-1]
        self._execute(*statements[-1])
        return [_rows(answer) for answer in self._answers[-len(statements) :]]

    def end_with(self, *statements: _Sql) -> list[list[Row]]:
        """Run the last statements and COMMIT in one round trip; return the rows of each."""
        self._waiting += statements
        self._execute("COMMIT", {})
        self._over = True
        return [_rows(answer) for answer in self._answers[-len(statements) - 1 : -1]]

    def after_commit[T](self, callback: Callable[[list[T]], None], item: T) -> None:
        """Call `callback` once, after the commit, with all items given for it."""
        self.committed.setdefault(callback, []).append(item)

    def commit(self) -> None:
        """End the transaction; without a statement none has begun."""
        if self._waiting or not (self._over or self._connection.begins):
            self.run("COMMIT")

    def abort(self) -> None:
        """Roll back, or close the connection when that is not possible."""
        try:
            if not self._connection.begins:
                _ask(self._connection, [("ROLLBACK", {})])
        except Exception:
            _drop(self._connection)

    def _execute(self, sql: str, params: Mapping[str, object]) -> list[list[object]]:
        """Run a statement, and what waited for it: one round trip."""
        statements, self._waiting = [*self._waiting, (sql, params)], []
        try:
            self._answers = self._ask(statements)
        except (*_LOST, DatabaseError) as error:
            raise _translate(error) from None
        return self._answers[-1].rows or []

    def _ask(self, statements: Sequence[_Sql]) -> list[Context]:
        try:
            return _ask(self._connection, statements)
        except (*_LOST, DatabaseError):
            if not self._connection.begins:
                raise
        # The kept connection was gone, or ended by an administrator, and nothing was executed.
        self._connection = _new(self._timeout, owner=self._owner)
        return _ask(self._connection, statements)


def _rows(answer: Context) -> list[Row]:
    names = [str(column["name"]) for column in answer.columns or ()]
    return [dict(zip(names, row, strict=True)) for row in answer.rows or ()]


_running: list[Transaction] = []


@contextmanager
def transaction(*, timeout: float | None = None, owner: bool = False) -> Iterator[Transaction]:
    """Open a transaction that commits at the end of the block and rolls back on an exception.

    Each statement may take four seconds, or `timeout` seconds on a connection of its own. As
    `owner` it may change the schema, also on a connection of its own. A connection that is dead
    before anything has begun is replaced once. Raises Unavailable when the database cannot be
    reached, or is lost during the block: then nothing was committed, unless the answer to COMMIT
    itself was lost; and RuntimeError inside another one.
    """
    if _running:  # the inner COMMIT would commit half of the outer transaction
        raise RuntimeError("a transaction is running already")
    alone = owner or timeout is not None
    if alone:
        close()
    limit = timeout or _TIMEOUT
    tx = Transaction(_begin(limit, owner=owner), limit, owner=owner)
    _running.append(tx)
    try:
        yield tx
        tx.commit()
    except BaseException:
        tx.abort()
        raise
    finally:
        _running.clear()
        if alone:
            close()
    for callback, items in tx.committed.items():
        callback(items)


def alone(sql: str, /, **params: object) -> list[Row]:
    """Run one statement in a transaction of its own, in one round trip; return its rows.

    BEGIN and COMMIT travel with it. It has to be one that may run twice: if the connection is lost
    before BEGIN is answered, it runs again on a new one, and the server may have run it already.
    """
    with transaction() as tx:
        return tx.end_with((sql, params))[0]


def require_writable() -> None:
    """Raise Unavailable when the database is read-only: a demoted primary, or a standby.

    The connection is closed then, so that the next one finds the writer.
    """
    with transaction() as tx:
        row = tx.row("SELECT current_setting('transaction_read_only') AS read_only")
    if row != {"read_only": "off"}:
        close()
        raise _unavailable(DatabaseError({"C": "25006"}))


def in_transaction() -> bool:
    """Return whether a transaction is running."""
    return bool(_running)


def close() -> None:
    """Close the kept connection, if there is one."""
    while _kept:
        connection = _kept.pop()
        with suppress(*_LOST, DatabaseError):
            connection.close()


def connect(url: str, *, development: bool, timeout: float | None = None) -> _OneTrip:
    """Open a connection to `url`, which means what libpq says (`kyora.database_url`).

    TLS is verified, host name included, against the URL's `sslrootcert`, or the system's
    authorities and, for RDS and Aurora, Amazon's (`kyora.tls`). In development a server without
    TLS is accepted (`sslmode=disable`, the default there). Raises BadUrl, ConfigError for a server
    whose settings our parsing does not understand, and what the driver raises.
    """
    found = database_url.parse(url)
    limit = timeout or _TIMEOUT
    waits = min(limit, found.connect_timeout or limit)
    connection = _OneTrip(
        found.user,
        host=found.host,
        port=found.port,
        unix_sock=f"{found.folder}/.s.PGSQL.{found.port}" if found.folder else None,
        database=found.database,
        password=found.password,
        ssl_context=_tls(found, development=development),
        timeout=waits,
        application_name=found.application,
        startup_params=_STARTUP | ({"options": found.options} if found.options else {}),
    )
    connection.patience = limit
    for oid, reader in _READERS.items():
        connection.register_in_adapter(oid, reader)
    connection.register_out_adapter(list, _array)
    try:
        _check(connection, found)
    except BaseException:
        connection.abandon()
        raise
    return connection


def _tls(found: Address, *, development: bool) -> "ssl.SSLContext | bool | None":
    """Return what pg8000 takes: a context, False for plain text, None for TLS where offered."""
    mode = found.mode or ("disable" if development else "verify-full")
    if found.folder or mode == "disable":
        return False
    if mode in database_url.WEAK:
        return None  # config allows it in development only
    if found.root == "system":
        return tls.context()
    return tls.database_context(found.host, found.root or None)


def _check(connection: _OneTrip, found: Address) -> None:
    """Refuse a server whose answers we would misread, or that is not what the URL asks for."""
    for name, start in _REPORTED.items():
        if not connection.parameter_statuses.get(name, start).startswith(start):
            raise ConfigError([f"DATABASE_URL: the server does not accept {name} = {start}"])
    if found.bound and not _bound(connection):
        raise InterfaceError("the server does not offer channel binding")
    if found.writable and connection.run("SHOW transaction_read_only") != [["off"]]:
        raise DatabaseError({"C": "25006"})


def _bound(connection: _OneTrip) -> bool:
    """Return whether the login was bound to the TLS channel (SCRAM-SHA-256-PLUS)."""
    login = getattr(connection, "auth", None)
    return str(getattr(login, "mechanism_name", "")).endswith("-PLUS")


def _array(values: Sequence[object]) -> str:
    """Write an array. pg8000 takes each text apart, and leaves `null` bare, which is a NULL."""
    return "{" + ",".join(_element(value) for value in values) + "}"


def _element(value: object) -> str:
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(array_out(value))


def _bytes(text: str) -> bytes:
    """Read a bytea in either format of bytea_output (PostgreSQL manual, 8.4)."""
    if text.startswith("\\x"):
        return bytes.fromhex(text[2:])
    raw, found, place = text.encode(), bytearray(), 0
    while place < len(raw):
        if raw[place] != 0x5C:
            found.append(raw[place])
            place += 1
        elif raw[place + 1 : place + 2] == b"\\":
            found.append(0x5C)
            place += 2
        else:
            found.append(int(raw[place + 1 : place + 4], 8))
            place += 4
    return bytes(found)


# ISO only: pg8000 guesses at other styles, and reads 2 March as 3 February.
_READERS: Mapping[int, Callable[[str], object]] = {
    BYTES: _bytes,
    DATE: date.fromisoformat,
    TIMESTAMP: datetime.fromisoformat,
    TIMESTAMPTZ: datetime.fromisoformat,
}


def storable(text: str) -> bool:
    """Return whether Postgres can store a text: no NUL, no lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _ask(connection: _OneTrip, statements: Sequence[_Sql]) -> list[Context]:
    """Run statements in one trip: the one place that decides whether the connection is kept.

    A refusal by the server is a complete answer: the connection is kept, unless its SQLSTATE is
    about the server itself (`kyora.postgres.sqlstate`). After any other exception the rest of the
    answer may still arrive, and the next statement would read it: the connection is closed.
    """
    try:
        asked = [connection.statement(sql, params) for sql, params in statements]
        if trace.is_recording():
            return _traced(connection, asked, [sql for sql, _ in statements])
        return connection.ask(asked)
    except DatabaseError as error:
        if judge(_state(error)).drop:
            _drop(connection)
        raise
    except Unstorable:  # nothing was sent
        raise
    except BaseException:
        _drop(connection)
        raise


def _traced(
    connection: _OneTrip, statements: Sequence[_Statement], texts: Sequence[str]
) -> list[Context]:
    """Run statements in a span with their texts, which hold no values."""
    texts = [" ".join(text.split()) for text in texts]
    table = _TABLE.search(texts[0])
    name = " ".join((texts[0].partition(" ")[0], *((table[1],) if table else ())))
    text = "; ".join(texts)[:2000]
    with trace.span(name, db__system__name="postgresql", db__query__text=text):
        return connection.ask(statements)


def _drop(connection: _OneTrip) -> None:
    """Close a connection that must not be used again."""
    if connection in _kept:
        _kept.remove(connection)
    connection.abandon()


def _begin(timeout: float, *, owner: bool) -> _OneTrip:
    """Return the kept connection, or a new one, whose next statement is in a transaction."""
    if not _kept:
        return _new(timeout, owner=owner)
    _kept[0].begins = True
    return _kept[0]


def _new(timeout: float, *, owner: bool) -> _OneTrip:
    """Replace the kept connection. Raises Unavailable."""
    close()
    try:
        connection = _open(timeout, owner=owner)
        _kept.append(connection)
        if owner:  # a migration is many statements in one, which cannot share a BEGIN's Sync
            _ask(connection, [(_BEGIN, {})])
        else:
            connection.begins = True
    except (*_LOST, DatabaseError) as error:
        close()
        raise _unavailable(error) from error
    return connection


def _open(timeout: float, *, owner: bool) -> _OneTrip:
    """Connect; after a refused password read the settings again, once: it may have rotated."""
    try:
        return _connect(timeout, owner=owner)
    except DatabaseError as error:
        if _state(error) not in _AUTH_FAILED:
            raise
    config.forget()
    return _connect(timeout, owner=owner)


def _connect(timeout: float, *, owner: bool) -> _OneTrip:
    url = config.database_owner_url() if owner else config.database_url()
    return connect(url, development=config.is_development(), timeout=timeout)


def _translate(error: Exception) -> Exception:
    """Return Unavailable for an error of the server or the network, else StatementFailed.

    pg8000's own text is left out: its field D holds the failing row.
    """
    if isinstance(error, DatabaseError):
        state = _state(error)
        if judge(state).retry:
            return _unavailable(error)
        if state in _UNSTORABLE:
            return Unstorable(state)
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
    """Log what happened, without the server's message: it may quote values of a row."""
    state = _state(cause) if isinstance(cause, DatabaseError) else ""
    logger().warning("database unavailable", extra={"cause": type(cause).__name__, "state": state})
    if not (state and judge(state).contention):
        # DatabaseUnavailableAlarm in template.yaml
        count("DatabaseUnavailable")
    return Unavailable("The database cannot be reached.", code="database.unavailable")
