"""The cache without a server: names, envelopes, the provider `memory`, and its configuration."""

import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kyora import cache, config
from kyora.cache import entry, memory
from kyora.cache.memcached import server_of
from kyora.config import Cache
from kyora.errors import ConfigError

NOW = 1_790_000_000
KEYS = st.text(st.characters(), max_size=400)
NAME = entry.name("test", "plans")


@pytest.fixture
def in_memory(environment: pytest.MonkeyPatch) -> Iterator[None]:
    environment.setenv("CACHE_PROVIDER", "memory")
    config.forget()
    memory._entries.clear()
    yield
    memory._entries.clear()


# ---- names and envelopes


@given(KEYS)
def test_a_name_is_one_that_memcached_takes(key: str) -> None:
    name = entry.name("prod", key)
    assert len(name) == 55
    assert name.isascii()
    assert name.isprintable()
    assert " " not in name


@given(KEYS, KEYS)
def test_two_keys_have_two_names(one: str, other: str) -> None:
    assert (entry.name("prod", one) == entry.name("prod", other)) == (one == other)


def test_stages_that_share_a_store_share_no_name() -> None:
    assert entry.name("staging", "plans") != entry.name("prod", "plans")


@given(st.binary(max_size=2000))
def test_a_value_comes_back_as_it_was(value: bytes) -> None:
    assert entry.unseal(NAME, entry.seal(NAME, value, NOW + 1), NOW) == value


@given(st.binary(max_size=200), st.data())
def test_a_changed_byte_anywhere_is_a_miss(value: bytes, data: st.DataObject) -> None:
    kept = bytearray(entry.seal(NAME, value, NOW + 1000))
    place = data.draw(st.integers(0, len(kept) - 1))
    kept[place] ^= data.draw(st.integers(1, 255))
    assert entry.unseal(NAME, bytes(kept), NOW) is None


@given(st.binary(max_size=200), st.data())
def test_a_value_cut_short_or_with_something_behind_it_is_a_miss(
    value: bytes, data: st.DataObject
) -> None:
    kept = entry.seal(NAME, value, NOW + 1000)
    assert entry.unseal(NAME, kept[: data.draw(st.integers(0, len(kept) - 1))], NOW) is None
    assert entry.unseal(NAME, kept + data.draw(st.binary(min_size=1, max_size=9)), NOW) is None


@given(st.binary(max_size=300))
def test_garbage_is_a_miss(garbage: bytes) -> None:
    assert entry.unseal(NAME, garbage, NOW) is None


def test_the_value_of_another_key_is_a_miss() -> None:
    kept = entry.seal(entry.name("test", "others"), b"theirs", NOW + 1)
    assert entry.unseal(NAME, kept, NOW) is None


def test_a_value_is_good_until_its_time_and_not_at_it() -> None:
    kept = entry.seal(NAME, b"x", NOW)
    assert entry.unseal(NAME, kept, NOW - 0.001) == b"x"
    assert entry.unseal(NAME, kept, NOW) is None


# ---- which server


SERVERS = tuple((f"cache-{number}", 11211) for number in range(5))


@given(KEYS)
def test_every_process_agrees_whose_a_name_is(key: str) -> None:
    name = entry.name("test", key)
    assert server_of(name, SERVERS) == server_of(name, SERVERS[::-1])


@given(KEYS)
def test_taking_a_server_away_moves_only_its_own_names(key: str) -> None:
    name = entry.name("test", key)
    before, after = server_of(name, SERVERS), server_of(name, SERVERS[1:])
    assert after == before or before == SERVERS[0]


def test_the_servers_share_the_names() -> None:
    owners = [server_of(entry.name("test", str(number)), SERVERS) for number in range(5000)]
    for server in SERVERS:
        assert 800 < owners.count(server) < 1200


# ---- the provider `memory`, and what all providers share


def test_memory_keeps_gives_and_drops(in_memory: None) -> None:
    assert cache.get("plans") is None
    cache.put("plans", b"free,pro", 60)
    assert cache.get("plans") == b"free,pro"
    cache.drop("plans")
    assert cache.get("plans") is None


def test_an_empty_value_is_a_value(in_memory: None) -> None:
    cache.put("plans", b"", 60)
    assert cache.get("plans") == b""


def test_a_value_is_gone_when_its_time_is_up(
    in_memory: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.put("plans", b"x", 60)
    later = time.time() + 61
    monkeypatch.setattr("kyora.clock.timestamp", lambda: later)
    assert cache.get("plans") is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(b"new", 0), (b"new", -5), (b"x" * (cache.LARGEST + 1), 60)],
    ids=["no time", "less than none", "too large"],
)
def test_what_cannot_be_kept_leaves_nothing_old_behind(
    value: bytes, seconds: int, in_memory: None
) -> None:
    cache.put("plans", b"old", 60)
    cache.put("plans", value, seconds)
    assert cache.get("plans") is None


def test_memory_lets_go_of_what_was_not_used_for_longest(in_memory: None) -> None:
    for number in range(1000):
        cache.put(str(number), b"x", 60)
    cache.get("0")
    cache.put("one more", b"x", 60)
    assert cache.get("0") == b"x"
    assert cache.get("1") is None


def test_memory_keeps_sixteen_megabytes_at_most(in_memory: None) -> None:
    for number in range(40):
        cache.put(str(number), bytes(cache.LARGEST), 60)
        assert sum(map(len, memory._entries.values())) <= 16 << 20
    assert cache.get("39") is not None


def test_what_is_remembered_is_produced_once(in_memory: None) -> None:
    made: list[bytes] = []

    def produce() -> bytes:
        made.append(b"%d" % len(made))
        return made[-1]

    assert [cache.remember("plans", 60, produce) for _ in range(3)] == [b"0"] * 3
    assert len(made) == 1


def test_what_cannot_be_produced_is_not_remembered(in_memory: None) -> None:
    def produce() -> bytes:
        raise LookupError

    with pytest.raises(LookupError):
        cache.remember("plans", 60, produce)
    assert cache.get("plans") is None


def test_an_id_is_seen_once_it_is_marked_and_is_no_value(in_memory: None) -> None:
    assert not cache.seen("evt_1")
    cache.mark("evt_1", 60)
    assert cache.seen("evt_1")
    assert not cache.seen("evt_2")
    assert cache.get("evt_1") is None


def test_without_a_cache_everything_is_a_miss(environment: pytest.MonkeyPatch) -> None:
    cache.put("plans", b"x", 60)
    cache.mark("evt_1", 60)
    assert cache.get("plans") is None
    assert not cache.seen("evt_1")
    assert cache.remember("plans", 60, lambda: b"made") == b"made"
    cache.drop("plans")


# ---- configuration


def load(**environ: str) -> Cache:
    return config.load(config.cache, environ, lambda arn: arn)


def test_there_is_no_cache_unless_one_is_asked_for() -> None:
    assert load().provider == "none"


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("127.0.0.1:11211", [("127.0.0.1", 11211)]),
        ("a.example:1, b-2.example:65535", [("a.example", 1), ("b-2.example", 65535)]),
        ("[::1]:11211,[2001:db8::2]:11212", [("::1", 11211), ("2001:db8::2", 11212)]),
        ("Cache.Example:11211", [("cache.example", 11211)]),
    ],
)
def test_servers_are_names_or_addresses_with_a_port(
    text: str, servers: list[tuple[str, int]]
) -> None:
    found = load(CACHE_PROVIDER="memcached", CACHE_MEMCACHED_SERVERS=text)
    assert found.memcached_servers == tuple(servers)


@pytest.mark.parametrize(
    ("environ", "fault"),
    [
        ({"CACHE_PROVIDER": "redis"}, "CACHE_PROVIDER must be one of"),
        ({"CACHE_PROVIDER": "memcached"}, "CACHE_MEMCACHED_SERVERS is not set"),
        ({"CACHE_MEMCACHED_TLS": "yes"}, "CACHE_MEMCACHED_TLS must be one of true, false"),
        *(
            ({"CACHE_MEMCACHED_SERVERS": text}, "CACHE_MEMCACHED_SERVERS must be host:port")
            for text in (
                *("cache", "cache:", ":11211", "cache:0", "cache:65536", "cache:http", "::1:11211"),
                *("[::1]", "[cache]:1", "[:::]:1", "http://cache:1", "user@cache:1", "a:1/x"),
                *("a:1,", ",a:1", "a:1,,b:1", "a:1 b:1", "a:1,a:1", "a:1,A:1", "a b:1", "a:+1"),
            )
        ),
    ],
    ids=str,
)
def test_a_wrong_variable_is_named_at_start_up(environ: dict[str, str], fault: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(**environ)
    (found,) = refused.value.faults
    assert found.startswith(fault)


@given(st.text(max_size=60))
def test_any_text_for_servers_is_read_or_a_fault(text: str) -> None:
    found: tuple[tuple[str, int], ...] = ()
    with suppress(ConfigError):
        found = load(CACHE_MEMCACHED_SERVERS=text).memcached_servers
    assert all(host and 0 < port < 65_536 for host, port in found)
