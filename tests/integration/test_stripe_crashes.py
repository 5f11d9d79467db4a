"""A webhook that dies at any statement and any request, and is delivered again."""

import itertools
import json
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from kyora import config, limits
from kyora.billing.events import types
from kyora.billing.jobs import sweep
from local.stripe.objects import checkout
from tests.conftest import FUNCTIONS
from tests.integration.support import billing
from tests.integration.support import stripe_lives as lives
from tests.integration.support.crash import Crash, crash_at
from tests.integration.support.stripe_standin import books
from tests.stripe_account import Account, downgrade, session

DAY = 86_400

type Event = dict[str, Any]


@pytest.fixture(autouse=True)
def configured(database: str, environment: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in lives.ENVIRONMENT.items():
        environment.setenv(name, value)
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
    reported = billing.reported()
    assert set(reported) == billing.due(account, account.engine.events), step
    assert set(reported.values()) == {1}, step
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


# ---- each kind of event on its own

GOLD = {"kyora_plan": "gold"} | {f"limit_{name}": "7" for name in limits.NAMES}


def _unpaid(account: Account) -> str:
    sub = account.subscribe()["id"]
    account.use("pm_card_chargeCustomerFail")
    account.engine.advance(32 * DAY)
    return str(account.invoices(sub)[-1]["id"])


def _paused(account: Account) -> str:
    method = account.sub(account.subscribe()["id"])["default_payment_method"]
    assert method is None
    for card in account.engine.all("payment_method"):
        if card["customer"] == account.customer:
            account.post(f"/v1/payment_methods/{card['id']}/detach")
    chosen = {"end_behavior": {"missing_payment_method": "pause"}}
    sub = account.subscribe(trial_period_days=7, trial_settings=chosen)["id"]
    account.engine.advance(7 * DAY + 3600)
    return str(sub)


def _resumed(account: Account) -> None:
    sub = _paused(account)
    account.use("pm_card_visa")
    account.post(f"/v1/subscriptions/{sub}/resume")


def _paid_page(account: Account) -> None:
    """A page of the workspace's customer."""
    page = session(account, customer=account.customer)
    card = {"number": "4242424242424242", "exp_month": "12", "exp_year": "34", "cvc": "123"}
    checkout.pay_session(account.engine, page, card, {"email": "a@example.com"})


def _plan(account: Account) -> str:
    product = account.post("/v1/products", name="Gold", metadata=GOLD)["id"]
    price = {"currency": "usd", "unit_amount": 9, "recurring": {"interval": "month"}}
    account.post("/v1/prices", product=product, **price)
    return str(product)


def _renamed(account: Account) -> None:
    account.post(f"/v1/products/{_plan(account)}", name="More gold")


def _withdrawn(account: Account) -> None:
    _plan(account)
    product = account.post("/v1/products", name="Silver", metadata=GOLD | {"kyora_plan": "silver"})
    account.call("DELETE", f"/v1/products/{product['id']}")


def _archived(account: Account) -> None:
    _plan(account)
    price = account.engine.all("price")[0]["id"]
    account.post(f"/v1/prices/{price}", active=False)


# What happens at Stripe; the event of the kind is the last one of its type.
KINDS: dict[str, Callable[[Account], object]] = {
    "customer.subscription.created": lambda a: a.subscribe(),
    "customer.subscription.updated": lambda a: a.switch(a.subscribe()["id"], a.pro),
    "customer.subscription.deleted": lambda a: a.call(
        "DELETE", f"/v1/subscriptions/{a.subscribe()['id']}"
    ),
    "customer.subscription.paused": _paused,
    "customer.subscription.resumed": _resumed,
    "customer.subscription.trial_will_end": lambda a: (
        a.subscribe(trial_period_days=7),
        a.engine.advance(5 * DAY),
    ),
    "invoice.paid": lambda a: a.subscribe(),
    "invoice.payment_succeeded": lambda a: a.subscribe(),
    "invoice.payment_failed": _unpaid,
    "invoice.finalized": lambda a: a.subscribe(),
    "invoice.voided": lambda a: a.post(f"/v1/invoices/{_unpaid(a)}/void"),
    "invoice.marked_uncollectible": lambda a: a.post(
        f"/v1/invoices/{_unpaid(a)}/mark_uncollectible"
    ),
    "customer.updated": lambda a: a.use("pm_card_mastercard"),
    "customer.deleted": lambda a: (
        a.subscribe(),
        a.call("DELETE", f"/v1/customers/{a.customer}"),
    ),
    "payment_method.attached": lambda a: a.use("pm_card_mastercard"),
    "payment_method.updated": lambda a: a.use("pm_card_mastercard"),
    "payment_method.automatically_updated": lambda a: a.use("pm_card_mastercard"),
    "payment_method.detached": lambda a: a.post(
        f"/v1/payment_methods/{a.use('pm_card_mastercard')}/detach"
    ),
    "checkout.session.completed": _paid_page,
    "subscription_schedule.updated": lambda a: downgrade(a, a.subscribe(a.pro)),
    "product.created": _plan,
    "product.updated": _renamed,
    "product.deleted": _withdrawn,
    "price.created": _plan,
    "price.updated": _archived,
}


def test_each_kind_that_is_handled_is_crashed_in() -> None:
    assert set(types.HANDLERS) <= set(KINDS)
    assert all(types.handled(kind) for kind in KINDS)


def of_kind(kind: str, account: Account) -> tuple[list[Event], Event]:
    """What came before, and the event itself."""
    KINDS[kind](account)
    events = [e for e in account.engine.events if types.handled(e["type"])]
    reported = [event for event in events if event["type"] == kind]
    if not reported:  # the stand-in has no such event: as attached, with a newer expiry
        attached = [e for e in events if e["type"] == "payment_method.attached"][-1]
        reported = [json.loads(json.dumps(attached)) | {"id": "evt_card", "type": kind}]
        reported[0]["data"]["object"]["card"]["exp_year"] += 3
    # Any event of the catalogue reads all of it: an earlier one would leave nothing to do.
    before = [e for e in events if e["type"] not in types.CATALOGUE]
    return [event for event in before if event["id"] != reported[-1]["id"]], reported[-1]


_STATE = {
    "subscription": "SELECT to_jsonb(t) AS row FROM subscription t",
    "terms": "SELECT to_jsonb(t) AS row FROM subscription_terms t",
    "invoice": "SELECT to_jsonb(t) AS row FROM invoice t",
    "card": "SELECT to_jsonb(t) AS row FROM payment_method t",
    "customer": "SELECT to_jsonb(t) - 'version' - 'created_at' - 'deleted_at'"
    " || jsonb_build_object('gone', deleted_at IS NOT NULL) AS row FROM billing_customer t",
    "workspace": "SELECT to_jsonb(t) - 'updated_at' AS row FROM workspace_billing t",
    "plan": "SELECT to_jsonb(t) - 'updated_at' AS row FROM plan t",
    "price": "SELECT to_jsonb(t) AS row FROM plan_price t",
    "event": "SELECT jsonb_build_object('id', id, 'status', status) AS row FROM stripe_event",
    "fact": "SELECT to_jsonb(key) AS row FROM billing_fact",
    "reported": "SELECT jsonb_build_object('name', detail_type, 'data', detail -> 'data') AS row"
    " FROM outbox",
}


def state() -> dict[str, list[str]]:
    """Everything that billing knows and has announced, except our own times."""
    whole = " UNION ALL ".join(
        f"(SELECT '{name}' AS name, s.* FROM ({_STATE[name]}) s)" for name in _STATE
    )
    found: dict[str, list[str]] = {name: [] for name in _STATE}
    for row in billing.query(whole):
        found[row["name"]].append(json.dumps(row["row"], sort_keys=True))
    return {name: sorted(rows) for name, rows in found.items()}


_TABLES = (*billing.TABLES, "billing_run")


def save() -> None:
    """Keep what the tables hold, and a function that puts it back: each step begins with that."""
    for table in _TABLES:
        billing.as_owner(f"CREATE TABLE saved_{table} AS TABLE {table}")
        billing.as_owner(f"GRANT SELECT ON saved_{table} TO {FUNCTIONS}")
    filled = [table for table in _TABLES if billing.query(f"SELECT 1 FROM {table} LIMIT 1")]
    steps = [f"DELETE FROM {table}" for table in _TABLES]
    steps += [f"INSERT INTO {table} TABLE saved_{table}" for table in filled]
    body = "; ".join(steps)
    billing.as_owner(f"CREATE FUNCTION restore() RETURNS void LANGUAGE sql AS $${body}$$")


def restore() -> None:
    billing.query("SELECT restore()")


def swept() -> None:
    billing.run("UPDATE stripe_event SET received_at = now() - interval '3 minutes'")
    sweep.sweep(lambda: 60.0)


@pytest.mark.parametrize("then", ["delivered again", "swept"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_crash_right_after_any_step_ends_as_if_there_had_been_none(
    kind: str, then: str, environment: pytest.MonkeyPatch
) -> None:
    account = billing.account()
    before, event = of_kind(kind, account)
    body = json.dumps(event)
    with books(account.engine, environment):
        billing.deliver(before)
        save()
        untouched = state()
        assert lives.deliver(body) == 200
        swept()  # orphans are done again, and doubtful rows are read
        wanted = state()
        assert wanted != untouched
        died = True
        for step in itertools.count():
            restore()
            with environment.context() as broken:
                crash_at(step, broken, after=True)
                try:
                    lives.deliver(body)
                except Crash:
                    died = True
                else:
                    died = False
            kept = billing.query("SELECT 1 FROM stripe_event WHERE id = :id", id=event["id"])
            # Without a row Stripe has had no answer, and comes again whatever we do.
            if then == "delivered again" or not kept:
                assert lives.deliver(body) == 200
                [row] = billing.query(
                    "SELECT status FROM stripe_event WHERE id = :id", id=event["id"]
                )
                assert row["status"] in ("processed", "orphan"), step
            swept()
            assert state() == wanted, step
            if not died:
                break
            assert lives.deliver(body) == 200  # once more, as Stripe may
            assert state() == wanted, step
        assert step >= 3
