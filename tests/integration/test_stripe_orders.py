"""Whatever order, however often, however late: the end is what Stripe has, and each fact once."""

import json
import os
import random
import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from kyora import config, postgres
from kyora.billing import access, event_store
from kyora.billing.events import process
from tests.integration.support import stripe_lives as lives
from tests.integration.support.billing import reconciled
from tests.integration.support.stripe_lives import Stripe, Workers

WRITES_ACCOUNTS = True

# KYORA_SEEDS=200 for thousands of lives, from KYORA_FIRST on; a run of the suite has some.
FIRST = int(os.environ.get("KYORA_FIRST", "0"))
SEEDS = range(FIRST, FIRST + int(os.environ.get("KYORA_SEEDS", "3")))
LIVES, STEPS = 24, 9


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    found = Workers(8, tmp_path_factory.mktemp("stripe") / "log")
    yield found
    found.stop()


@pytest.fixture
def billing(database: str, environment: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in lives.ENVIRONMENT.items():
        environment.setenv(name, value)
    config.forget()
    return environment


def workspaces(count: int) -> list[str]:
    names = [f"ws_{number}" for number in range(count)]
    with postgres.transaction() as tx:
        tx.run(
            "INSERT INTO workspace (id, name) SELECT n, n FROM unnest(CAST(:names AS text[])) AS n",
            names=names,
        )
    return names


def begin(environment: pytest.MonkeyPatch, stripe: Stripe) -> None:
    environment.setenv("BILLING_STRIPE_BASE_URL", stripe.url)
    config.forget()


def pump(stripe: Stripe, since: int, dice: random.Random) -> list[str]:
    """The events since then, each one to three times, in any order."""
    since = max(since, stripe.catalogue)  # the plans are known
    found = [json.dumps(event) for event in stripe.engine.events[since:]]
    many = [body for body in found for _ in range(dice.choice([1, 1, 2, 3]))]
    dice.shuffle(many)
    return many


def sweep() -> None:
    """Do what waits, as sweep_billing does: events of a customer who had no workspace."""
    with postgres.transaction() as tx:
        rows = tx.rows("SELECT id FROM stripe_event WHERE status = 'received'")
    for row in rows:
        kept = event_store.load(str(row["id"]))
        assert kept is not None
        process.attempt(kept[0])


def check(stripe: Stripe, *, every: bool = True) -> None:
    """Compare everything with Stripe's objects; with `every` event nothing is left unsaid."""
    sweep()
    assert lives.mirrored() == lives.mirror(stripe)
    assert lives.planned_here() == lives.planned(stripe)
    assert lives.invoiced() == lives.invoices(stripe)
    for whose in lives.allowed():  # the engine's time is not ours: a grace may be over by now
        with postgres.transaction() as tx:
            access.settle(tx, whose)
    right = lives.access(stripe, datetime.now(UTC), lost=not every)
    allowed = lives.allowed()
    assert allowed.keys() == right.keys()
    assert {w: a for w, a in allowed.items() if a not in right[w]} == {}
    if every:
        assert lives.reported() == lives.facts(stripe)
        assert +lives.booked() == +lives.charged(stripe)
    else:
        assert lives.reported() <= lives.facts(stripe)
    with postgres.transaction() as tx:
        left = tx.rows(
            "SELECT id, type, status, last_error FROM stripe_event"
            " WHERE status NOT IN ('processed', 'ignored')"
            " AND customer_id IS DISTINCT FROM 'cus_stranger'"
        )
    assert left == []


@pytest.mark.timeout(280)
@pytest.mark.parametrize("seed", SEEDS)
def test_any_order_of_all_events_ends_in_stripes_own_state(
    seed: int, billing: pytest.MonkeyPatch, workers: Workers
) -> None:
    dice = random.Random(seed)
    began = int(datetime.now(UTC).timestamp()) - dice.choice([3600, 20 * 86_400, 70 * 86_400])
    with lives.stripe(began, seed) as stripe:
        begin(billing, stripe)
        lives.live(stripe, workspaces(LIVES), STEPS, dice)
        reported = pump(stripe, 0, dice) + lives.strangers(stripe, dice)
        dice.shuffle(reported)
        workers.until_taken(reported)
        check(stripe)


@pytest.mark.timeout(280)
@pytest.mark.parametrize("seed", SEEDS)
def test_events_that_come_while_life_goes_on_end_in_stripes_own_state(
    seed: int, billing: pytest.MonkeyPatch, workers: Workers
) -> None:
    """Stripe changes under the workers' reads; what is late waits for a later round."""
    dice = random.Random(seed)
    began = int(datetime.now(UTC).timestamp()) - 40 * 86_400
    with lives.stripe(began, seed) as stripe:
        begin(billing, stripe)
        names = workspaces(LIVES)
        late: list[str] = []
        people = [lives.Life(stripe, name, dice) for name in names]
        for _ in range(STEPS):
            before = len(stripe.engine.events)
            for one in people:
                one.step()
            stripe.engine.advance(people[0].pause())
            now = late + pump(stripe, before, dice) + lives.strangers(stripe, dice, before)
            dice.shuffle(now)
            cut = dice.randrange(len(now) + 1)
            now, late = now[:cut], now[cut:]
            others = threading.Thread(target=lambda: [one.step() for one in people[::3]])
            others.start()
            workers.until_taken(now)
            others.join()
            late += [json.dumps(e) for e in stripe.engine.events[before:] if dice.random() < 0.2]
        workers.until_taken(late + pump(stripe, 0, dice))
        check(stripe)


@pytest.mark.timeout(280)
@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_was_lost_is_made_good_by_the_daily_comparison(
    seed: int, billing: pytest.MonkeyPatch, workers: Workers
) -> None:
    """Most events never arrive, some of them only long after."""
    dice = random.Random(seed)
    began = int(datetime.now(UTC).timestamp()) - dice.choice([20 * 86_400, 70 * 86_400])
    with lives.stripe(began, seed) as stripe:
        begin(billing, stripe)
        lives.live(stripe, workspaces(LIVES), STEPS, dice)
        reported = pump(stripe, 0, dice) + lives.strangers(stripe, dice)
        dice.shuffle(reported)
        kept = reported[: int(len(reported) * dice.choice([0.0, 0.1, 0.5, 0.9]))]
        workers.until_taken(kept)
        reconciled()
        workers.until_taken(dice.sample(reported, len(reported) // 4))
        check(stripe, every=False)
