"""What a subscription's schedule plans, as our mirror has it: in any order, and each fact once."""

import itertools
import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import pytest

from kyora.errors import Unavailable
from tests.integration.support import billing
from tests.integration.support.billing import query, run
from tests.integration.support.stripe_standin import Books
from tests.scripted import Answer
from tests.stripe_account import DAY, Account, downgrade, resume_on

type Event = dict[str, Any]


def planned() -> tuple[list[str] | None, datetime | None, datetime | None]:
    """The prices of the next phase, its beginning, and when a pause ends."""
    [row] = query("SELECT pending, pending_at, resume_at FROM subscription_terms")
    prices = [item["price"] for item in row["pending"]] if row["pending"] else None
    return prices, row["pending_at"], row["resume_at"]


def reported(name: str) -> int:
    return len(query("SELECT 1 FROM outbox WHERE detail_type = :name", name=name))


def change(account: Account, sub: str, price: str) -> None:
    """Change a subscription's only item at once, as its schedule allows."""
    [item] = account.sub(sub)["items"]["data"]
    account.post(f"/v1/subscriptions/{sub}", items=[{"id": item["id"], "price": price}])


def begun(account: Account) -> Event:
    """A subscription at `pro` that becomes `basic` with its next period; that is known."""
    sub = account.subscribe(account.pro)
    downgrade(account, sub)
    billing.deliver(billing.handled(account))
    prices, at, _ = planned()
    assert prices == [account.basic]
    assert at == billing.moment(account.sub(sub["id"])["items"]["data"][0]["current_period_end"])
    account.engine.events.clear()
    account.engine.advance(DAY)
    return sub


def test_a_plan_that_is_changed_to_at_once_is_not_to_come_any_more(
    account: Account, stripe: Books
) -> None:
    sub = begun(account)
    change(account, sub["id"], account.basic)
    billing.deliver(billing.handled(account))
    assert planned() == (None, None, None)


def test_a_plan_that_is_left_at_once_is_to_come_again(account: Account, stripe: Books) -> None:
    sub = begun(account)
    change(account, sub["id"], account.basic)
    billing.deliver(billing.handled(account))
    account.engine.events.clear()
    account.engine.advance(DAY)
    change(account, sub["id"], account.yearly)
    billing.deliver(billing.handled(account))
    assert planned()[0] == [account.basic]


def test_what_came_while_stripe_was_away_does_not_say_what_is_planned(
    account: Account, stripe: Books
) -> None:
    """The payload had to do; the next one says as little of the schedule, so Stripe is asked."""
    sub = begun(account)
    change(account, sub["id"], account.basic)
    [missed] = [e for e in billing.handled(account) if e["type"] == "customer.subscription.updated"]
    stripe.trouble = lambda _: Answer(503, b'{"error": {"type": "api_error", "message": "away"}}')
    for _ in range(4):  # the fourth attempt does with the payload
        with suppress(Unavailable):
            billing.deliver([missed])
    stripe.trouble = lambda _: None
    [row] = query("SELECT doubtful FROM subscription")
    assert row["doubtful"]
    account.engine.events.clear()
    account.engine.advance(DAY)
    account.post(f"/v1/subscriptions/{sub['id']}", metadata={"colour": "green"})
    billing.deliver(billing.handled(account))
    assert planned() == (None, None, None)


def paused(account: Account) -> Sequence[Event]:
    """What Stripe reports of a pause with a date of return, apart from the subscription's start."""
    sub = account.subscribe(account.pro)
    billing.deliver(billing.handled(account))
    account.engine.events.clear()
    account.engine.advance(DAY)
    account.post(
        "/v1/subscription_schedules",
        from_subscription=sub["id"],
        pause_schedules=resume_on(account.engine.now + 5 * DAY),
    )
    return billing.handled(account)


def test_a_pause_is_announced_once_whichever_event_comes_first(
    account: Account, stripe: Books
) -> None:
    events = paused(account)
    kinds = {event["type"] for event in events}
    assert {"customer.subscription.paused", "subscription_schedule.updated"} <= kinds
    for order in itertools.permutations(events):
        saved = query("SELECT to_jsonb(s) AS row FROM subscription s")
        billing.deliver(order)
        assert reported("SubscriptionPaused") == 1, [event["type"] for event in order]
        assert planned()[2] == billing.moment(account.engine.now + 5 * DAY)
        run("DELETE FROM outbox WHERE detail_type = 'SubscriptionPaused'")
        run("DELETE FROM billing_fact WHERE key LIKE 'turn:%'")
        run("DELETE FROM stripe_event WHERE type <> 'customer.subscription.created'")
        run("DELETE FROM subscription_terms")
        run("DELETE FROM subscription")
        run(
            "INSERT INTO subscription SELECT * FROM jsonb_populate_record("
            " CAST(NULL AS subscription), CAST(:row AS jsonb))",
            row=json.dumps(saved[0]["row"]),
        )


@pytest.mark.parametrize("first", ["customer.subscription.trial_will_end", ""])
def test_the_end_of_a_trial_is_announced_when_its_plan_becomes_known(
    first: str, account: Account, stripe: Books
) -> None:
    """It left its plan for a price of none; which plan it was, only an older event says."""
    foreign = account.price(700)
    sub = account.subscribe(account.pro, trial_period_days=10)
    account.engine.advance(DAY)
    change(account, sub["id"], foreign)
    account.engine.advance(7 * DAY)
    events = [e for e in billing.handled(account) if e["type"].startswith("customer.subscription")]
    kinds = [event["type"].rpartition(".")[2] for event in events]
    assert kinds == ["created", "updated", "trial_will_end"]
    events.sort(key=lambda event: event["type"] != first)
    billing.deliver(events[:1] if first else [])
    assert reported("TrialEnding") == 0
    billing.deliver(events + events)
    assert reported("TrialEnding") == 1
