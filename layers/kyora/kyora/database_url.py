"""DATABASE_URL as libpq reads it, or a fault that names the parameter.

A `postgresql://` address means the same as in psql
(https://www.postgresql.org/docs/current/libpq-connect.html): the query may also name host, port,
user, password and dbname, a host that begins with a slash is the folder of a Unix socket, and the
database defaults to the user's name. What this client cannot do, such as several hosts or a client
certificate, is a fault: a parameter dropped in silence is one that someone relies on.

TLS is stricter than libpq's: every mode but `disable` verifies the server and its name. `allow` and
`prefer` are for development only, where they also accept a server without TLS.
"""

import os
import re
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

_SCHEMES = ("postgresql://", "postgres://")
SHAPE = "postgresql://user:password@host:port/name"
_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
WEAK = frozenset({"disable", "allow", "prefer"})
_LONGEST_NAME = 63  # bytes; PostgreSQL truncates a longer role or database name in silence

# Parameters that have an effect here, and those whose values change nothing: GSSAPI, load balancing
# and other key exchanges are never tried, and TCP keeps a connection alive.
_KNOWN = {
    "host", "port", "user", "password", "dbname", "sslmode", "sslrootcert", "connect_timeout",
    "application_name", "fallback_application_name", "options", "channel_binding",
    "target_session_attrs", "client_encoding",
}  # fmt: skip
_ONLY = {
    "ssl": ("true",),  # JDBC's, which libpq takes for sslmode=require
    "gssencmode": ("disable", "prefer"),
    "keepalives": ("1",),
    "load_balance_hosts": ("disable",),
    "sslnegotiation": ("postgres",),
    "sslcompression": ("0",),
    "sslsni": ("1",),
    "client_encoding": ("utf8", "utf-8", "unicode", "auto"),
    "channel_binding": ("prefer", "require"),
    "target_session_attrs": ("any", "read-write", "primary"),
}


class Address(NamedTuple):
    """Where a database is and how to log in. `folder` is a Unix socket's; then there is no TLS."""

    user: str
    password: str
    host: str
    folder: str
    port: int
    database: str
    mode: str  # sslmode, as given; empty: the stage decides
    root: str  # sslrootcert: a file of authorities, or `system`; empty: what `kyora.tls` trusts
    connect_timeout: float | None  # seconds
    application: str
    options: str  # the server's command-line options, as libpq sends them
    bound: bool  # channel binding is required
    writable: bool  # a read-only server is refused


class BadUrl(ValueError):
    """An invalid or unsupported address; the text names the fault.

    It never repeats a value, which may be a password.
    """


def parse(url: str) -> Address:
    """Read an address. Raises BadUrl."""
    if not (scheme := next((s for s in _SCHEMES if url.startswith(s)), "")):
        raise BadUrl(f"must be {SHAPE}")
    rest = url.removeprefix(scheme)
    # As in libpq, the login ends at the first @ before a slash: a password may hold ? and #.
    login, at, tail = rest.partition("@")
    if not at or "/" in login:
        login, tail = "", rest
    place, _, query = tail.partition("?")
    netloc, _, path = place.partition("/")
    name, _, word = login.partition(":")
    host, port = _split(netloc)
    found = {"user": name, "password": word, "host": host, "port": port, "dbname": path}
    found = {key: _decoded(value, key) for key, value in found.items() if value}
    given: dict[str, str] = {}
    for key, value in _pairs(query):
        if key in given:
            raise BadUrl(f"has a parameter twice: {_shown(key)}")
        given[key] = value
        if key not in _KNOWN and key not in _ONLY:
            raise BadUrl(f"has a parameter that is not supported: {_shown(key)}")
        if key in _ONLY and value.lower() not in _ONLY[key]:
            raise BadUrl(f"has a value of {key} that is not supported")
    return _address(found | {key: value for key, value in given.items() if value})


def _address(found: dict[str, str]) -> Address:
    host, port = found.get("host", "localhost"), found.get("port", "5432")
    if "," in host or "," in port:
        raise BadUrl("names several hosts, which is not supported: name the writer's or a pooler's")
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65_536:
        raise BadUrl("has an invalid port")
    folder = host if host.startswith("/") else ""
    if not folder and not re.fullmatch(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*", host):
        raise BadUrl("has an invalid host")
    user = found.get("user") or _own_name()
    database = found.get("dbname") or user
    for name, value in (("user", user), ("dbname", database)):
        if len(value.encode()) > _LONGEST_NAME:
            raise BadUrl(f"has a {name} of more than {_LONGEST_NAME} bytes")
    return Address(
        user=user,
        password=found.get("password", ""),
        host=host,
        folder=folder,
        port=int(port),
        database=database,
        mode=_mode(found, folder),
        root=found.get("sslrootcert", ""),
        connect_timeout=_seconds(found.get("connect_timeout", "")),
        application=found.get("application_name")
        or found.get("fallback_application_name")
        or "kyora",
        options=found.get("options", ""),
        bound=found.get("channel_binding", "") == "require",
        writable=found.get("target_session_attrs", "any") != "any",
    )


def _mode(found: dict[str, str], folder: str) -> str:
    mode = found.get("sslmode", "require" if "ssl" in found else "")
    if mode and mode not in _MODES:
        raise BadUrl("has a value of sslmode that is not supported")
    root = found.get("sslrootcert", "")
    if root == "system" and mode in WEAK:
        raise BadUrl("has a value of sslmode that is too weak for sslrootcert=system")
    if root not in ("", "system"):
        from pathlib import Path  # eleven modules that most addresses do not need

        if not Path(root).is_file():
            raise BadUrl("has an sslrootcert that is not a file here")
    bound = found.get("channel_binding") == "require"
    if bound and (folder or mode in WEAK):
        raise BadUrl("has channel_binding=require, which needs TLS")
    return mode


def _split(netloc: str) -> tuple[str, str]:
    """Separate host and port; an IPv6 address is in brackets."""
    if netloc.startswith("["):
        host, bracket, rest = netloc[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")) or ":" not in host:
            raise BadUrl("has an invalid host")
        return host, rest[1:]
    host, _, port = netloc.partition(":")
    return (netloc, "") if "," in netloc else (host, port)


def _pairs(query: str) -> Iterator[tuple[str, str]]:
    """Yield the query's parameters in their order."""
    for pair in query.split("&") if query else ():
        key, equals, value = pair.partition("=")
        if not equals or "=" in value:
            raise BadUrl(f"has a parameter that is not name=value: {_shown(key)}")
        yield _decoded(key, "parameter"), _decoded(value, _shown(key))


def _decoded(text: str, name: str) -> str:
    """Decode percent signs; a plus is a plus (libpq's rule, not a form's)."""
    if re.search(r"%(?![0-9A-Fa-f]{2})", text):
        raise BadUrl(f"has a percent sign in its {name} that is not written as %25")
    try:
        found = unquote_to_bytes(text).decode()
    except UnicodeError:
        found = "\0"
    if "\0" in found:
        raise BadUrl(f"has a {name} that is not text")
    return found


def _seconds(text: str) -> float | None:
    if not text:
        return None
    if not re.fullmatch(r"-?[0-9]{1,9}", text):
        raise BadUrl("has a connect_timeout that is not a whole number of seconds")
    return float(text) if int(text) > 0 else None  # as in libpq, zero is no limit of its own


def _own_name() -> str:
    """Return libpq's default user: the name of the process's owner."""
    try:
        import pwd

        return pwd.getpwuid(os.geteuid()).pw_name
    except (ImportError, KeyError):  # Lambda's users have no name
        raise BadUrl("names no user") from None


def _shown(key: str) -> str:
    return "".join(letter for letter in key[:40] if re.fullmatch(r"[A-Za-z0-9_.-]", letter))
