"""The cache against a real Memcached and a real Postgres: kept, dropped, damaged, slow and gone."""

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import pytest

from kyora import cache, config, postgres
from kyora import tls as authorities
from kyora.cache import circuit, entry, memcached, memory
from tests.integration.support import memcached as support
from tests.integration.support.cluster import Authority, Cluster
from tests.integration.support.memcached import Memcached, impostor
from tests.integration.support.workers import Crew
from tests.ports import free_port
from tests.unit.functions import CONTEXT, captured_log, function

WRITES_ACCOUNTS = True

NAME = entry.name("test", "plans")
GRACE = 10.0  # seconds a call may be held up by a busy machine


@pytest.fixture(autouse=True)
def fresh(environment: pytest.MonkeyPatch) -> Iterator[None]:
    """No connection, no open circuit and no entry of another test."""
    _forget()
    yield
    _forget()


def _forget() -> None:
    for client in memcached._clients.values():
        client.close()
    for state in (memcached._clients, circuit._open_until, memory._entries):
        state.clear()
    authorities.context.cache_clear()


def use(environment: pytest.MonkeyPatch, *addresses: str, tls: bool = False) -> None:
    environment.setenv("CACHE_PROVIDER", "memcached")
    environment.setenv("CACHE_MEMCACHED_SERVERS", ",".join(addresses))
    environment.setenv("CACHE_MEMCACHED_TLS", "true" if tls else "false")
    config.forget()
    circuit._open_until.clear()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what is not about time: a busy machine is no failure of the server's."""
    monkeypatch.setattr(memcached, "DEADLINE", 20.0)


@pytest.fixture
def real(environment: pytest.MonkeyPatch) -> Iterator[Memcached]:
    with Memcached() as running:
        use(environment, running.address)
        yield running


@pytest.fixture(params=["memory", "memcached", "postgres"])
def provider(
    request: pytest.FixtureRequest, environment: pytest.MonkeyPatch, patient: None
) -> Iterator[str]:
    name: str = request.param
    if name == "memcached":
        request.getfixturevalue("real")
    if name == "postgres":
        request.getfixturevalue("database")
    environment.setenv("CACHE_PROVIDER", name)
    config.forget()
    yield name
    memory._entries.clear()


def took(call: Callable[[], Any]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


# ---- what every provider does


def test_a_value_is_kept_replaced_and_dropped(provider: str) -> None:
    assert cache.get("plans") is None
    for value in (
        b"free,pro",
        b"",
        bytes(range(256)),
        b"x" * 500_000,
        b"END\r\nVALUE a 0 1\r\nx\r\n",
    ):
        cache.put("plans", value, 60)
        assert cache.get("plans") == value
    cache.drop("plans")
    assert cache.get("plans") is None


def test_keys_do_not_meet(provider: str) -> None:
    keys = ["", " ", "a b", "x" * 5000, "ü\r\n", "\ud800", "get plans\r\nflush_all"]
    for number, key in enumerate(keys):
        cache.put(key, b"%d" % number, 60)
    assert [cache.get(key) for key in keys] == [b"%d" % number for number in range(len(keys))]


def test_a_long_time_is_not_a_date(provider: str) -> None:
    """Memcached reads more than thirty days as seconds since 1970: gone at once."""
    cache.put("plans", b"x", 400 * 86_400)
    assert cache.get("plans") == b"x"


def test_a_mark_is_seen(provider: str) -> None:
    assert not cache.seen("evt_1")
    cache.mark("evt_1", 60)
    assert cache.seen("evt_1")
    assert not cache.seen("evt_2")


def test_what_is_remembered_is_produced_once(provider: str) -> None:
    made: list[int] = []

    def produce() -> bytes:
        made.append(1)
        return b"made"

    assert [cache.remember("plans", 60, produce) for _ in range(3)] == [b"made"] * 3
    assert len(made) == 1


def test_a_drop_waits_for_the_commit(provider: str, database: str) -> None:
    cache.put("plans", b"old", 60)
    with postgres.transaction() as tx:
        cache.drop_after_commit(tx, "plans")
        tx.run("UPDATE workspace SET name = 'New' WHERE id = 'ws_demo'")
    assert cache.get("plans") is None


def test_what_was_rolled_back_drops_nothing(provider: str, database: str) -> None:
    cache.put("plans", b"old", 60)
    with pytest.raises(LookupError), postgres.transaction() as tx:
        cache.drop_after_commit(tx, "plans")
        raise LookupError
    assert cache.get("plans") == b"old"


def test_development_reports_a_cache_used_inside_a_transaction(
    provider: str, database: str
) -> None:
    for call in (
        lambda: cache.get("plans"),
        lambda: cache.put("plans", b"x", 60),
        lambda: cache.drop("plans"),
    ):
        with postgres.transaction(), pytest.raises(RuntimeError, match="inside a transaction"):
            call()


@pytest.mark.parametrize("stage", ["dev", "staging", "prod"])
def test_a_deployed_stage_does_not_fail_for_it(
    stage: str, provider: str, database: str, environment: pytest.MonkeyPatch
) -> None:
    with postgres.transaction() as tx:
        environment.setenv("STAGE", stage)
        config.forget()
        cache.put("plans", b"x", 60)
        assert cache.get("plans") == (None if provider == "postgres" else b"x")
        assert tx.row("SELECT count(*) AS n FROM cache_entry") == {"n": 0}


# ---- Memcached: wrong values


DAMAGE = {
    "nothing": b"",
    "garbage": os.urandom(500),
    "a text": b"[1, 2]",
    "a pickle": b"cos\nsystem\n(S'exit 3'\ntR.",
    "another key's": entry.seal(entry.name("test", "others"), b"theirs", 1 << 40),
    "another stage's": entry.seal(entry.name("prod", "plans"), b"theirs", 1 << 40),
    "one past its time": entry.seal(NAME, b"old", 1),
    "a value without its last byte": entry.seal(NAME, b"true", 1 << 40)[:-1],
    "the envelope alone": entry.seal(NAME, b"true", 1 << 40)[:31],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_wrong_value_is_a_miss_and_is_replaced(
    damage: str, real: Memcached, patient: None
) -> None:
    cache.put("plans", b"true", 60)
    real.write(NAME, DAMAGE[damage])
    assert cache.get("plans") is None
    assert cache.remember("plans", 60, lambda: b"made") == b"made"
    assert cache.get("plans") == b"made"


def test_a_value_lives_no_longer_than_it_was_given_although_the_server_keeps_it(
    real: Memcached, patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.put("plans", b"x", 60)
    kept = real.read(NAME)
    assert kept
    real.write(NAME, kept)  # without an end
    later = time.time() + 61
    monkeypatch.setattr("kyora.clock.timestamp", lambda: later)
    assert cache.get("plans") is None


def test_the_server_knows_when_a_value_ends(real: Memcached, patient: None) -> None:
    cache.put("plans", b"x", 60)
    answer = real.say(f"mg {NAME} t\r\n".encode())  # its time to live
    assert 50 <= int(answer.split()[1].removeprefix(b"t")) <= 60


# ---- Memcached: gone, slow, talking nonsense


def test_a_server_that_was_never_there_is_a_miss(environment: pytest.MonkeyPatch) -> None:
    use(environment, f"127.0.0.1:{free_port()}")
    cache.put("plans", b"x", 60)
    assert cache.get("plans") is None
    assert cache.remember("plans", 60, lambda: b"made") == b"made"
    cache.drop("plans")


def test_a_restarted_server_is_found_again_at_once(real: Memcached, patient: None) -> None:
    """The kept connection is dead, the server is not: that is no reason to leave it alone."""
    cache.put("plans", b"x", 60)
    real.kill()
    real.start()
    assert cache.get("plans") is None
    cache.put("plans", b"y", 60)
    assert cache.get("plans") == b"y"


def test_a_killed_server_is_asked_again_after_a_pause(
    real: Memcached, patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.put("plans", b"x", 60)
    real.kill()
    assert cache.get("plans") is None
    real.start()
    cache.put("plans", b"y", 60)  # left alone: not kept
    assert real.read(NAME) is None
    later = time.monotonic() + circuit.PAUSE + 1
    monkeypatch.setattr(circuit.time, "monotonic", lambda: later)
    monkeypatch.setattr(memcached, "DEADLINE", 1e6)  # its clock is the same one
    cache.put("plans", b"y", 60)
    assert cache.get("plans") == b"y"


TALK = {
    "silent": support.silent,
    "dripping": support.dripping,
    "endless": support.endless,
    "closing": lambda client: None,
    "an error": support.saying(b"ERROR\r\n"),
    "a refusal": support.saying(b"SERVER_ERROR out of memory storing object\r\n"),
    "HTTP": support.saying(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
    "binary": support.saying(bytes(range(256)) * 10 + b"\r\n"),
    "a bad length": support.saying(b"VALUE " + NAME.encode() + b" 0 -5\r\n\r\nEND\r\n"),
    "no length": support.saying(b"VALUE " + NAME.encode() + b"\r\nEND\r\n"),
    "another key": support.saying(b"VALUE other 0 1\r\nx\r\nEND\r\n"),
    "nothing but ends": support.saying(b"END\r\nEND\r\nEND\r\n"),
}


@pytest.mark.parametrize("talk", TALK)
def test_whatever_a_server_says_no_call_fails_or_waits(
    talk: str, environment: pytest.MonkeyPatch
) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: cache.get("plans"),
        lambda: cache.put("plans", b"x", 60),
        lambda: cache.drop("plans"),
    ]
    with impostor(TALK[talk]) as address:
        for call in calls:
            use(environment, address)
            assert took(call) < memcached.DEADLINE + GRACE
            assert cache.remember("plans", 60, lambda: b"made") == b"made"
        _forget()


@pytest.mark.parametrize("size", [10, cache.LARGEST])
def test_a_stalled_server_costs_one_wait_and_is_then_left_alone(
    size: int, real: Memcached, patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.put("plans", b"x", 60)
    monkeypatch.setattr(memcached, "DEADLINE", 0.3)
    real.stall()
    assert took(lambda: cache.put("plans", bytes(size), 60)) < 0.3 + GRACE
    monkeypatch.setattr(memcached, "DEADLINE", 20.0)
    assert took(lambda: cache.get("plans")) < 10  # one more wait would be 20
    real.go_on()


def test_a_stalled_server_that_goes_on_answers_no_one_elses_question(
    real: Memcached, patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer that came too late belongs to a connection that is out of use."""
    cache.put("plans", b"plans", 60)
    cache.put("limits", b"limits", 60)
    real.stall()
    monkeypatch.setattr(memcached, "DEADLINE", 0.2)
    assert cache.get("plans") is None
    real.go_on()
    monkeypatch.setattr(memcached, "DEADLINE", 20.0)
    circuit._open_until.clear()
    assert cache.get("limits") == b"limits"
    assert cache.get("plans") == b"plans"


def test_who_is_interrupted_leaves_no_answer_for_the_next(
    real: Memcached, patient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.put("plans", b"plans", 60)
    cache.put("limits", b"limits", 60)
    real = memcached.Bounded.recv

    def interrupted(*arguments: Any) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(memcached.Bounded, "recv", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cache.get("plans")
    monkeypatch.setattr(memcached.Bounded, "recv", real)
    assert cache.get("limits") == b"limits"


def test_a_name_that_does_not_resolve_in_time_is_a_miss(
    environment: pytest.MonkeyPatch,
) -> None:
    asked, done = threading.Event(), threading.Event()

    def resolver(*arguments: Any, **more: Any) -> list[Any]:
        asked.set()
        done.wait(60)
        return []

    environment.setattr(socket, "getaddrinfo", resolver)
    use(environment, "cache.example:11211")
    assert took(lambda: cache.get("plans")) < memcached.DEADLINE + GRACE
    assert asked.is_set()
    done.set()


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 70, "a..b"])
def test_a_name_that_is_none_is_a_miss(host: str, environment: pytest.MonkeyPatch) -> None:
    use(environment, f"{host}:11211")
    assert cache.get("plans") is None


def test_the_second_address_of_a_name_is_tried(
    real: Memcached, patient: None, environment: pytest.MonkeyPatch
) -> None:
    def resolver(host: str, port: int, **more: Any) -> list[Any]:
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*kind, ("127.0.0.1", free_port())), (*kind, ("127.0.0.1", port))]

    environment.setattr(socket, "getaddrinfo", resolver)
    use(environment, f"cache.example:{real.port}")
    cache.put("plans", b"x", 60)
    assert cache.get("plans") == b"x"


def test_a_refused_value_is_no_reason_to_leave_the_server_alone(
    environment: pytest.MonkeyPatch, patient: None
) -> None:
    def talk(client: socket.socket) -> None:
        while command := client.recv(65_536):
            refusal = b"SERVER_ERROR object too large for cache\r\n"
            client.sendall(refusal if command.startswith(b"set") else b"END\r\n")

    with impostor(talk) as address:
        use(environment, address)
        cache.put("plans", b"x", 60)
        assert not circuit.is_open(address)
        _forget()


def test_the_log_names_the_failed_server_once_and_quotes_nothing(
    environment: pytest.MonkeyPatch,
) -> None:
    log = captured_log(environment)
    address = f"127.0.0.1:{free_port()}"
    use(environment, address)
    for _ in range(10):
        cache.put("customer-secret", b"value-secret", 60)
    (line,) = log.getvalue().splitlines()
    assert json.loads(line)["peer"] == address
    assert json.loads(line)["cause"] == "ConnectionRefusedError"
    assert "secret" not in line


# ---- several servers


def test_the_loss_of_one_server_costs_only_its_own_keys(
    environment: pytest.MonkeyPatch, patient: None
) -> None:
    servers = [Memcached(), Memcached(), Memcached()]
    with ExitStack() as stack:
        for one in servers:
            stack.enter_context(one)
        use(environment, *(one.address for one in servers))
        keys = [f"plan {number}" for number in range(60)]
        for key in keys:
            cache.put(key, key.encode(), 60)
        lost = [key for key in keys if servers[0].read(entry.name("test", key)) is not None]
        assert 5 < len(lost) < 40
        servers[0].kill()
        for key in keys:
            assert cache.get(key) == (None if key in lost else key.encode())
        for key in keys:  # nor do its keys move in with a neighbour, whom others do not ask
            cache.put(key, key.encode(), 60)
        assert [key for key in keys if cache.get(key) is None] == lost
        _forget()


# ---- TLS


@pytest.fixture
def authority(tmp_path: Path, environment: pytest.MonkeyPatch) -> Authority:
    found = Authority(tmp_path, "ours")
    environment.setenv("SSL_CERT_FILE", str(found.file))
    return found


def test_tls_is_spoken_with_a_server_that_has_a_good_certificate(
    authority: Authority, environment: pytest.MonkeyPatch, patient: None
) -> None:
    with Memcached(authority.certificate("127.0.0.1")) as secure:
        use(environment, secure.address, tls=True)
        for value in (b"x", b"y" * 900_000):
            cache.put("plans", value, 60)
            assert cache.get("plans") == value
        secure.kill()
        secure.start()
        cache.put("plans", b"again", 60)
        assert cache.get("plans") == b"again"
        _forget()


@pytest.mark.parametrize("wrong", ["authority", "host", "no TLS"])
def test_a_server_that_does_not_prove_itself_learns_nothing(
    wrong: str,
    authority: Authority,
    environment: pytest.MonkeyPatch,
    patient: None,
    tmp_path: Path,
) -> None:
    signs = Authority(tmp_path, "theirs") if wrong == "authority" else authority
    certificate = signs.certificate("192.0.2.1" if wrong == "host" else "127.0.0.1")
    if wrong == "no TLS":
        environment.setattr(memcached, "DEADLINE", 0.3)  # it waits for the rest of the "command"
    with Memcached(None if wrong == "no TLS" else certificate) as other:
        use(environment, other.address, tls=True)
        cache.put("plans", b"x", 60)
        assert circuit.is_open(other.address)
        assert cache.get("plans") is None


def test_a_server_that_is_silent_behind_tls_costs_one_wait(
    authority: Authority, environment: pytest.MonkeyPatch
) -> None:
    with impostor(support.handshake(authority.certificate("127.0.0.1"))) as address:
        use(environment, address, tls=True)
        assert took(lambda: cache.put("plans", bytes(900_000), 60)) < memcached.DEADLINE + GRACE
        assert circuit.is_open(address)


# ---- Postgres


def test_a_database_that_is_gone_is_a_miss_and_is_left_alone(
    environment: pytest.MonkeyPatch,
) -> None:
    environment.setenv("CACHE_PROVIDER", "postgres")
    environment.setenv("DATABASE_URL", f"postgresql://u:p@127.0.0.1:{free_port()}/x")
    config.forget()
    assert cache.remember("plans", 60, lambda: b"made") == b"made"
    assert circuit.is_open("postgres")


def test_a_schema_without_the_table_is_a_miss(
    database: str, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("CACHE_PROVIDER", "postgres")
    config.forget()
    with postgres.transaction(owner=True) as tx:
        tx.run("DROP TABLE cache_entry")
    assert cache.remember("plans", 60, lambda: b"made") == b"made"


def test_a_crash_of_the_database_empties_the_cache_and_nothing_else(
    environment: pytest.MonkeyPatch,
) -> None:
    cluster = Cluster()
    try:
        cluster.start()
        environment.setenv("CACHE_PROVIDER", "postgres")
        environment.setenv("DATABASE_URL", cluster.url())
        config.forget()
        postgres.migrate()
        with postgres.transaction() as tx:
            tx.run("INSERT INTO workspace (id, name) VALUES ('ws_demo', 'Demo')")
        cache.put("plans", b"x", 60)
        assert cache.get("plans") == b"x"
        cluster.stop()
        cluster.start()
        assert cache.get("plans") is None
        with postgres.transaction() as tx:
            assert tx.row("SELECT count(*) AS n FROM workspace") == {"n": 1}
    finally:
        postgres.close()
        cluster.remove()


def test_the_purge_deletes_a_thousand_rows_past_their_time(database: str) -> None:
    with postgres.transaction() as tx:
        tx.run(
            "INSERT INTO cache_entry (key, value, expires_at) SELECT 'old-' || n, '', now() -"
            " interval '1 second' FROM generate_series(1, 1500) AS n"
        )
        tx.run("INSERT INTO cache_entry VALUES ('young', '', now() + interval '1 minute')")
    assert cache.forget() == 1000
    function("purge_data").handler({}, CONTEXT)
    with postgres.transaction() as tx:
        assert tx.rows("SELECT key FROM cache_entry") == [{"key": "young"}]


# ---- under load

PAUSE = 1.0  # as long as each of these workers leaves a failed server alone


class Served(NamedTuple):
    """What one execution environment has to say of its requests."""

    durations: list[float]
    wrong: list[str]
    failures: list[float]  # when it began to leave the server alone


def requests(enough: Path) -> Served:
    """Serve as one execution environment until that file is there.

    A request reads a name that Postgres has, through the cache, and skips a duplicate.
    """
    found, leave_alone = Served([], [], []), circuit.open_for

    def noting(peer: str, error: Exception) -> None:
        found.failures.append(time.monotonic())
        leave_alone(peer, error)

    setattr(circuit, "open_for", noting)  # noqa: B010  # this process ends with the test
    circuit.PAUSE = PAUSE
    while not enough.exists():
        number = len(found.durations) % 50
        began = time.monotonic()
        try:
            name = cache.remember(f"name {number}", 60, lambda number=number: truth(number))
            cache.mark(f"evt {number}", 60)
            if cache.seen(f"evt never {number}"):
                found.wrong.append("an event was taken for a duplicate")
        except Exception as error:
            found.wrong.append(repr(error))
        else:
            if name != b"Demo %d" % number:
                found.wrong.append(repr(name))
        found.durations.append(time.monotonic() - began)
    return found


def truth(number: int) -> bytes:
    with postgres.transaction() as tx:
        row = tx.row(
            "SELECT name || :n AS name FROM workspace WHERE id = 'ws_demo'", n=f" {number}"
        )
    return str(row["name"]).encode() if row else b"?"


def test_no_request_fails_or_errs_while_the_server_is_killed_filled_and_stalled(
    real: Memcached, database: str, tmp_path: Path
) -> None:
    workers, enough = 3, tmp_path / "enough"
    crew = Crew(workers, tmp_path / "log")
    found: list[Served] = []
    load = threading.Thread(target=lambda: found.extend(crew.each(requests, [(enough,)] * workers)))
    names = [
        entry.name("test", f"{kind} {number}")
        for kind in ("name", "seen\nevt", "seen\nevt never")
        for number in range(50)
    ]
    try:
        load.start()
        while real.count("get_hits") < 100:  # they are at work
            time.sleep(0.05)
        for _ in range(3):
            for name in names:
                real.write(name, os.urandom(60))
        real.kill()
        time.sleep(0.5)
        real.start()
        while not real.count("get_hits"):  # it is used again after the pause
            time.sleep(0.05)
        real.stall()
        time.sleep(2.5 * PAUSE)
        enough.touch()
        load.join()
        real.go_on()
    finally:
        enough.touch()
        load.join()
        crew.stop()
    assert len(found) == workers
    for durations, wrong, failures in found:
        assert wrong == []
        assert len(durations) > 50
        assert failures, "the server did not fail"
        assert all(after - before >= PAUSE for before, after in pairwise(failures))
        assert median(durations) < memcached.DEADLINE
        assert max(durations) < memcached.DEADLINE + GRACE
