"""Two hundred events of all kinds and more, while workers, backends, PostgreSQL and pgbouncer die.

At the end each mail was accepted once, each order has its fee, everything is counted, and no
message is dead. `KYORA_SEEDS=4` (as `make test` sets it) plays two different days, without it one.
"""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import batched
from pathlib import Path
from typing import Any

import psutil
import pytest
from pg8000.exceptions import DatabaseError

from kyora import config, postgres
from kyora.bus.names import DOMAINS
from kyora.email.mails.catalogue import MAIL_OF
from kyora.postgres.connection import _LOST as LOST
from kyora.postgres.connection import connect
from local.tools.event_samples import sample
from tests.conftest import FUNCTIONS, OWNER
from tests.fake_resend import FakeResend, Fault, fake_resend
from tests.integration.support import invariants, killable, mail_queue, pgbouncer
from tests.integration.support.cluster import PASSWORD, Cluster

SEEDS = max(1, int(os.environ.get("KYORA_SEEDS", "2")) // 2)
OWNERS = 10
EVENTS = {**dict.fromkeys(MAIL_OF, 10), **dict.fromkeys(sorted(set(DOMAINS) - set(MAIL_OF)), 0)}
EVENTS |= {"OrderPaymentSucceeded": 20, "OrderCreated": 20, "CustomerCreated": 20}
# What is killed while more events come, one of them each time.
VICTIMS = (
    *("worker", "worker", "backend", "worker", "pgbouncer", "worker", "backend", "worker"),
    *("postgres", "worker", "backend", "worker", "crash", "worker", "backend", "worker"),
    *("pgbouncer", "worker", "postgres", "backend"),
)

pytestmark = pytest.mark.skipif(pgbouncer.PROGRAM is None, reason="pgbouncer is not installed")


@pytest.fixture(scope="module")
def cluster(server: object) -> Iterator[Cluster]:
    """A PostgreSQL that may be killed; `server` has made the user that it runs as."""
    found = Cluster()
    found.start()
    with closing(connect(found.url(), development=True)) as connection:
        for role in (OWNER, FUNCTIONS):
            connection.run(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
    yield found
    found.remove()


@pytest.fixture
def pooler(cluster: Cluster, environment: pytest.MonkeyPatch) -> Iterator[pgbouncer.Pooler]:
    """pgbouncer before a new, migrated database with ten workspaces and their owners."""
    name = f"killed_{time.monotonic_ns()}"
    with closing(connect(cluster.url(), development=True)) as connection:
        connection.run(f"CREATE DATABASE {name} OWNER {OWNER}")
    word = PASSWORD.replace(" ", "%20")
    place = f"127.0.0.1:{cluster.port}/{name}"
    environment.setenv("DATABASE_OWNER_URL", f"postgresql://{OWNER}:{word}@{place}")
    environment.setenv("DATABASE_URL", f"postgresql://{FUNCTIONS}:{word}@{place}")
    config.forget()
    postgres.migrate()
    with postgres.transaction(owner=True) as tx:
        tx.run(
            "INSERT INTO workspace (id, name, owner_id)"
            " SELECT 'ws_' || n, 'Shop ' || n, 'usr_' || n FROM generate_series(0, 9) AS n"
        )
        tx.run(
            "INSERT INTO app_user (id, workspace_id, email, name, role, locale) SELECT 'usr_' || n,"
            " 'ws_' || n, 'owner' || n || '@example.com', 'Owner ' || n, 'admin',"
            " CASE n % 2 WHEN 0 THEN 'en' ELSE 'ar' END FROM generate_series(0, 9) AS n"
        )
        tx.run(
            "INSERT INTO business (id, workspace_id, name, currency)"
            " SELECT 'biz_' || n, 'ws_' || n, 'Shop ' || n, 'USD' FROM generate_series(0, 9) AS n"
        )
        tx.run(
            "INSERT INTO payment_method_fee"
            " (workspace_id, business_id, method, enabled, percent, fixed)"
            " SELECT 'ws_' || n, 'biz_' || n, 'credit_card', true, 0.029, 0.30"
            " FROM generate_series(0, 9) AS n"
        )
    postgres.close()
    found = pgbouncer.Pooler(
        "transaction",
        host="127.0.0.1",
        port=cluster.port,
        size=10,
        password=PASSWORD,
        server_login_retry=1,
    )
    found.start()
    environment.setenv("DATABASE_URL", f"postgresql://{FUNCTIONS}:{word}@{found.address}/{name}")
    config.forget()
    yield found
    postgres.close()
    found.remove()


def events(chance: random.Random) -> list[dict[str, Any]]:
    """Ten of each kind of mail and twenty of each other, in any order, each with its own effect."""
    found = []
    for name, count in EVENTS.items():
        for number in range(count):
            owner = number % OWNERS
            data, _ = sample(name)
            if "email" in data:
                data["email"] = f"{name.lower()}{number}@example.com"
            if "businessId" in data:
                data["businessId"] = f"biz_{owner}"
            if "total" in data:
                data |= {"total": "100.00", "currency": "USD"}
            found.append(
                {
                    "id": f"{name}-{number}",
                    "name": name,
                    "domain": DOMAINS[name],
                    "data": data,
                    "workspace": f"ws_{owner}",
                }
            )
    chance.shuffle(found)
    return found


def bad_network(seed: int) -> Any:
    """One request to Resend of six goes wrong, each at most twice."""

    def faults(key: str, nth: int) -> Fault | None:
        roll = random.Random(f"{seed} {key} {nth}").random()
        if nth > 1 or roll > 0.16:
            return None
        if roll < 0.08:
            return Fault(taken=True)  # the answer is lost
        return Fault() if roll < 0.12 else Fault(500, "application_error", taken=roll < 0.14)

    return faults


def kill(
    victim: str,
    works: killable.Works,
    cluster: Cluster,
    pooler: pgbouncer.Pooler,
    chance: random.Random,
) -> None:
    """Kill one of them; what is no worker is started again a moment later."""
    if victim == "worker":
        works.kill_one(chance)
    elif victim == "pgbouncer":
        pooler.kill()
        time.sleep(chance.uniform(0, 0.3))
        pooler.start()
    elif victim == "postgres":
        cluster.stop(signal.SIGKILL)
        time.sleep(chance.uniform(0, 0.3))
        cluster.start()
    elif pid := busy_backend(cluster):
        if victim == "backend":
            with closing(dial(cluster)) as connection:
                connection.run("SELECT pg_terminate_backend(:pid)", pid=pid)
        else:  # one that is killed takes all the others along
            with suppress(psutil.NoSuchProcess):
                psutil.Process(pid).kill()
            cluster.wait()


def dial(cluster: Cluster) -> Any:
    """Connect once the server takes connections: it notices a killed backend a moment later."""
    deadline = time.monotonic() + 120
    while True:
        try:
            return connect(cluster.url(), development=True)
        except (*LOST, DatabaseError):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def busy_backend(cluster: Cluster) -> int | None:
    """The process of a connection that a function uses, one in the middle of something first."""
    with closing(dial(cluster)) as connection:
        rows = connection.run(
            f"SELECT pid FROM pg_stat_activity WHERE usename = '{FUNCTIONS}'"
            " ORDER BY state = 'idle', random() LIMIT 1"
        )
    return int(str(rows[0][0])) if rows else None


@pytest.mark.parametrize("seed", range(SEEDS))
def test_everything_happens_once_whatever_is_killed(
    seed: int,
    cluster: Cluster,
    pooler: pgbouncer.Pooler,
    environment: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    chance = random.Random(seed)
    wanted = events(chance)
    size = -(-len(wanted) // len(VICTIMS))
    parts = batched(wanted, size, strict=False)
    log = tmp_path / "workers.log"
    cloud = killable.Cloud(chance)
    environment.setenv("AWS_ENDPOINT_URL", cloud.server.url)
    with fake_resend(bad_network(seed), delay=0.01) as resend:
        for name, value in mail_queue.ENVIRONMENT.items():
            environment.setenv(name, value)
        environment.setenv("EMAIL_RESEND_BASE_URL", resend.url)
        parent = killable.Parent(log)
        works = killable.Works(cloud, parent.path)
        try:
            with killable.faster(cluster.url().replace("/postgres?", f"/{database_name()}?")):
                for part, victim in zip(parts, VICTIMS, strict=True):
                    works.add(part)
                    time.sleep(chance.uniform(0, 0.1))
                    kill(victim, works, cluster, pooler, chance)
                finish(works)
        finally:
            works.stop()
            parent.stop()
            cloud.server.stop()

    assert works.killed >= VICTIMS.count("worker") - 3, "nothing was killed"
    assert works.failed, "no worker noticed that the database was away"
    assert not any(queue.dead for queue in cloud.queues)
    assert set(cloud.published) == {row["id"] for row in invariants.rows("SELECT id FROM outbox")}
    assert len(set(cloud.published)) == len(wanted)
    mails_were_sent_once(resend)
    orders_were_counted_once()
    text = log.read_text()
    assert not mail_queue.LEAK.findall(text), text[-3000:]
    assert not invariants.secrets_in(text), text[-3000:]


def database_name() -> str:
    return os.environ["DATABASE_URL"].rpartition("/")[2]


def finish(works: killable.Works) -> None:
    """Wait until nothing is left to do."""
    deadline = time.monotonic() + 240
    while True:
        if works.idle() and not invariants.rows("SELECT 1 FROM outbox WHERE published_at IS NULL"):
            return
        assert time.monotonic() < deadline, works.cloud.queues
        time.sleep(0.1)


def mails_were_sent_once(resend: FakeResend) -> None:
    rows = invariants.rows(
        "SELECT id, event, recipient, status, provider_id, data FROM email_message"
    )
    assert [row for row in rows if row["status"] != "sent"] == []
    assert Counter(row["event"] for row in rows) == dict.fromkeys(MAIL_OF, 10)
    sent = {delivery.key: delivery.id for delivery in resend.deliveries}
    assert len(resend.deliveries) == len(sent) == len(rows) == 10 * len(MAIL_OF)
    assert {row["id"]: row["provider_id"] for row in rows} == sent
    assert not any(row["data"] for row in rows), "what a mail says is not kept"


def orders_were_counted_once() -> None:
    fees = invariants.rows("SELECT amount, currency FROM transaction_fee")
    assert [(row["amount"], row["currency"]) for row in fees] == [(320, "USD")] * 20
    counted = invariants.rows(
        "SELECT kind, sum(count)::int AS count, sum(amount)::bigint AS amount FROM analytics_day"
        " GROUP BY kind ORDER BY kind"
    )
    found = {row["kind"]: (row["count"], row["amount"]) for row in counted}
    assert found == {"order": (20, 20 * 10_000), "customer": (20, 0)}
