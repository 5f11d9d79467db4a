"""DATABASE_URL: what libpq takes it for, or a fault that names the parameter."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kyora.database_url import Address, BadUrl, parse

BASE = "postgresql://u:p@db.example/kyora"


def field(url: str, name: str) -> object:
    return getattr(parse(url), name)


def fault(url: str) -> str:
    with pytest.raises(BadUrl) as refused:
        parse(url)
    return str(refused.value)


def test_a_plain_address_is_read_whole() -> None:
    assert parse("postgres://u:p%40ss@db.example:6543/kyora") == Address(
        user="u",
        password="p@ss",
        host="db.example",
        folder="",
        port=6543,
        database="kyora",
        mode="",
        root="",
        connect_timeout=None,
        application="kyora",
        options="",
        bound=False,
        writable=False,
    )


@pytest.mark.parametrize(
    ("url", "name", "value"),
    [
        # libpq's defaults
        ("postgresql://ada@db", "database", "ada"),
        ("postgresql://ada@db/", "database", "ada"),
        ("postgresql://ada@db?sslmode=require", "database", "ada"),
        ("postgresql://ada@db", "port", 5432),
        ("postgresql://ada@/x", "host", "localhost"),
        # the query says the same as the rest, and wins
        (f"{BASE}?host=other.example", "host", "other.example"),
        (f"{BASE}?port=6432", "port", 6432),
        (f"{BASE}?user=eve", "user", "eve"),
        (f"{BASE}?password=a%26b", "password", "a&b"),
        (f"{BASE}?dbname=other", "database", "other"),
        ("postgresql://?user=u&host=h&dbname=d", "database", "d"),
        # a folder is a Unix socket's
        ("postgresql://u@%2Fvar%2Frun%2Fpostgresql/x", "folder", "/var/run/postgresql"),
        ("postgresql://u@/x?host=/tmp/pg", "folder", "/tmp/pg"),
        ("postgresql://u@%2Frun:6432/x", "port", 6432),
        ("postgresql://u@localhost/x", "folder", ""),
        # addresses
        ("postgresql://u@[::1]/x", "host", "::1"),
        ("postgresql://u@[2001:db8::5]:6432/x", "port", 6432),
        ("postgresql://u@10.0.0.1/x", "host", "10.0.0.1"),
        # letters that others misread
        ("postgresql://u:a?b#c@db/x", "password", "a?b#c"),
        ("postgresql://u:a+b@db/x", "password", "a+b"),
        ("postgresql://u:a:b@db/x", "password", "a:b"),
        ("postgresql://%D8%B9:p@db/x", "user", "ع"),
        ("postgresql://u@db/a%2Fb", "database", "a/b"),
        # TLS and the rest
        (f"{BASE}?sslrootcert=system", "root", "system"),
        (f"{BASE}?sslrootcert={__file__}", "root", __file__),
        (f"{BASE}?ssl=true", "mode", "require"),
        (f"{BASE}?sslmode=verify-ca", "mode", "verify-ca"),
        (f"{BASE}?options=-c%20statement_timeout%3D5s", "options", "-c statement_timeout=5s"),
        (f"{BASE}?options=endpoint%3Dep-cool-1", "options", "endpoint=ep-cool-1"),
        (f"{BASE}?connect_timeout=2", "connect_timeout", 2.0),
        (f"{BASE}?connect_timeout=0", "connect_timeout", None),
        (f"{BASE}?application_name=shop", "application", "shop"),
        (f"{BASE}?fallback_application_name=shop", "application", "shop"),
        (f"{BASE}?channel_binding=require", "bound", True),
        (f"{BASE}?channel_binding=prefer", "bound", False),
        (f"{BASE}?target_session_attrs=read-write", "writable", True),
        (f"{BASE}?target_session_attrs=primary", "writable", True),
        (f"{BASE}?target_session_attrs=any", "writable", False),
        (f"{BASE}?client_encoding=UTF8&keepalives=1&gssencmode=disable", "host", "db.example"),
        (f"{BASE}?sslmode=", "mode", ""),
    ],
)
def test_an_address_means_what_libpq_takes_it_for(url: str, name: str, value: object) -> None:
    assert field(url, name) == value


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("mysql://db/x", "postgresql://user:password@host:port/name"),
        ("db.example", "postgresql://user:password@host:port/name"),
        ("", "postgresql://user:password@host:port/name"),
        ("postgresql://u@a,b/x", "several hosts"),
        ("postgresql://u@a:1,b:2/x", "several hosts"),
        ("postgresql://u@[::1],[::2]/x", "host"),
        (f"{BASE}?host=a,b", "several hosts"),
        (f"{BASE}?port=1,2", "several hosts"),
        ("postgresql://u@db:0/x", "port"),
        ("postgresql://u@db:65536/x", "port"),
        ("postgresql://u@db:port/x", "port"),
        ("postgresql://u@db:-1/x", "port"),
        ("postgresql://u@[::1/x", "host"),
        ("postgresql://u@[db]/x", "host"),
        ("postgresql://u@d b/x", "host"),
        ("postgresql://u@bücher.example/x", "host"),
        ("postgresql://u@@db/x", "host"),
        (f"{BASE}?schema=public", "schema"),
        (f"{BASE}?currentSchema=public", "currentSchema"),
        (f"{BASE}?pgbouncer=true", "pgbouncer"),
        (f"{BASE}?connection_limit=1", "connection_limit"),
        (f"{BASE}?hostaddr=10.0.0.1", "hostaddr"),
        (f"{BASE}?service=x", "service"),
        (f"{BASE}?passfile=/x", "passfile"),
        (f"{BASE}?sslcert=/x", "sslcert"),
        (f"{BASE}?sslkey=/x", "sslkey"),
        (f"{BASE}?sslcrl=/x", "sslcrl"),
        (f"{BASE}?require_auth=md5", "require_auth"),
        (f"{BASE}?replication=true", "replication"),
        (f"{BASE}?sslmode=verify_full", "sslmode"),
        (f"{BASE}?sslmode=disable&sslmode=verify-full", "twice: sslmode"),
        (f"{BASE}?sslmode=verify-full&sslmode=disable", "twice: sslmode"),
        (f"{BASE}?sslrootcert=/no/such/file", "sslrootcert"),
        (f"{BASE}?sslrootcert=system&sslmode=prefer", "sslmode"),
        (f"{BASE}?sslnegotiation=direct", "sslnegotiation"),
        (f"{BASE}?gssencmode=require", "gssencmode"),
        (f"{BASE}?channel_binding=disable", "channel_binding"),
        (f"{BASE}?channel_binding=require&sslmode=disable", "channel_binding"),
        ("postgresql://u@/x?host=/tmp&channel_binding=require", "channel_binding"),
        (f"{BASE}?target_session_attrs=read-only", "target_session_attrs"),
        (f"{BASE}?target_session_attrs=standby", "target_session_attrs"),
        (f"{BASE}?client_encoding=latin1", "client_encoding"),
        (f"{BASE}?keepalives=0", "keepalives"),
        (f"{BASE}?connect_timeout=soon", "connect_timeout"),
        (f"{BASE}?sslmode", "sslmode"),
        (f"{BASE}?options=a=b", "options"),
        ("postgresql://u:100%@db/x", "password"),
        ("postgresql://u:%00@db/x", "password"),
        ("postgresql://%ff@db/x", "user"),
        (f"postgresql://{'u' * 64}@db/x", "user"),
        (f"postgresql://u@db/{'x' * 64}", "dbname"),
    ],
)
def test_what_cannot_be_done_is_a_fault_that_names_it(url: str, named: str) -> None:
    assert named in fault(url)


def test_without_a_user_it_is_the_one_the_process_runs_as() -> None:
    assert field("postgresql://db/x", "user") == Path("~").expanduser().owner()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://canary:canary@canary,b/canary",
        "postgresql://canary:canary%@db/x",
        "postgresql://u:p@db/x?sslmode=canary",
        "postgresql://u:p@db/x?sslrootcert=canary",
        "postgresql://u:p@db/x?canary%1b[2J=1",
    ],
)
def test_a_fault_repeats_no_value_and_no_control_character(url: str) -> None:
    text = fault(url)
    assert text.isprintable()
    assert "canary" not in text.replace("supported: canary", "")


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_is_read_or_refused(login: str, rest: str) -> None:
    found = None
    with suppress(BadUrl):
        found = parse(f"postgresql://{login}@{rest}")
    if found:
        assert 0 < found.port < 65_536
        assert found.user
        assert found.database
