"""A webhook that dies at any statement and any request, and is delivered again."""

import itertools
import random
from collections.abc import Iterator
from contextlib import suppress

import pytest

from kyora import config
from kyora.billing import sweep
from tests.integration.support import billing
from tests.integration.support.crash import Crash, crash_at
from tests.integration.support.stripe_standin import books
from tests.unit.test_stripe_engine import Account

DAY = 86_400


@pytest.fixture(autouse=True)
def configured(database: str, environment: pytest.MonkeyPatch) -> Iterator[None]:
    config.forget()
    yield
    config.forget()


def a_life() -> Account:
    """Everything that happens to a subscription, until it ends: every kind of event."""
    found = billing.account()
    sub = found.subscribe(trial_period_days=7)
    found.engine.advance(8 * DAY)
    item = found.sub(sub["id"])["items"]["data"][0]["id"]
    for price in (found.pro, found.basic, found.pro):  # in one second
        found.post(f"/v1/subscriptions/{sub['id']}", items=[{"id": item, "price": price}])
    found.use("pm_card_chargeCustomerFail")
    found.engine.advance(34 * DAY)
    found.use("pm_card_visa")
    found.engine.advance(4 * DAY)
    found.post(f"/v1/subscriptions/{sub['id']}", cancel_at_period_end=True)
    found.engine.advance(35 * DAY)
    return found


def whole(account: Account, step: object) -> None:
    assert billing.ours() == billing.of_stripe(account), step
    told = billing.told()
    assert set(told) == billing.due(account, account.engine.events), step
    assert set(told.values()) == {1}, step
    assert billing.query("SELECT DISTINCT status FROM stripe_event") == [{"status": "processed"}]
    assert billing.query("SELECT access, plan_id FROM workspace_billing") == [
        {"access": "free", "plan_id": "free"}
    ]


@pytest.mark.parametrize("order", ["as it happened", "backwards", "neighbours swapped"])
def test_a_crash_at_every_step_of_every_event_is_made_good_by_its_next_delivery(
    order: str, environment: pytest.MonkeyPatch
) -> None:
    account = a_life()
    events = billing.handled(account)
    kinds = {event["type"] for event in events}
    assert {"customer.subscription.trial_will_end", "invoice.payment_failed"} <= kinds
    events = events[::-1] if order == "backwards" else events
    if order == "neighbours swapped":
        events = [event for pair in zip(events[1::2], events[::2], strict=False) for event in pair]
        events += billing.handled(account)[len(events) :]
    steps = 0
    with books(account.engine, environment) as stripe:
        for event in events:
            for step in itertools.count():
                with environment.context() as broken:
                    crash_at(step, broken)
                    try:
                        billing.deliver([event])
                    except Crash:
                        steps += 1
                    else:
                        break
            assert step > 0  # there was something to crash at
        whole(account, order)
        assert steps > 5 * len(events)
        assert order != "neighbours swapped" or stripe.asked


@pytest.mark.parametrize("seed", range(6))
def test_what_a_crash_left_behind_is_done_by_one_more_delivery_or_by_the_sweep(
    seed: int, environment: pytest.MonkeyPatch
) -> None:
    dice = random.Random(seed)
    account = a_life()
    events = billing.handled(account)
    dice.shuffle(events)
    with books(account.engine, environment):
        for event in events:
            with environment.context() as broken:
                crash_at(dice.randrange(14), broken)
                with suppress(Crash):
                    billing.deliver([event])
            kept = billing.query("SELECT 1 FROM stripe_event WHERE id = :id", id=event["id"])
            if not kept or dice.random() < 0.5:  # without a row Stripe has had no answer
                billing.deliver([event])
        billing.run("UPDATE stripe_event SET received_at = now() - interval '3 minutes'")
        sweep.sweep(lambda: 60.0)
        whole(account, seed)
