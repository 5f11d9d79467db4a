"""The rules in odd cases: late and unknown events, orphans, failed events, Stripe unreachable."""

import itertools
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kyora import cache, config, limits
from kyora.billing import event_store, stripe_objects
from kyora.billing.api import overview
from kyora.billing.events import process, resync
from kyora.billing.jobs import replay, sweep
from kyora.billing.models import Subscription
from kyora.billing.plans import offers, sync
from kyora.cache import memory
from kyora.errors import Unavailable
from kyora.postgres.connection import connect
from tests.cloud import batch
from tests.integration.support import billing
from tests.integration.support import stripe_lives as lives
from tests.integration.support.stripe_standin import Books, books
from tests.scripted import Answer
from tests.stripe_account import Account
from tests.unit.functions import CONTEXT, captured_log, function
from tests.unit.stripe_shapes import JSON, KEYS

DAY = 86_400


@pytest.fixture
def stripe(account: Account, environment: pytest.MonkeyPatch) -> Iterator[Books]:
    for name, value in lives.ENVIRONMENT.items():
        environment.setenv(name, value)
    config.forget()
    with books(account.engine, environment) as found:
        yield found


def events(account: Account, *kinds: str) -> list[dict[str, Any]]:
    return [e for e in billing.handled(account) if not kinds or e["type"] in kinds]


def changed(event: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The event with another id and a changed object."""
    found: dict[str, Any] = json.loads(json.dumps(event))
    found["data"]["object"] |= more
    return found | {"id": f"{event['id']}x"}


def statuses() -> set[str]:
    return {row["status"] for row in billing.query("SELECT status FROM stripe_event")}


def metrics(text: str, name: str) -> int:
    return sum(f'"{name}":[1.0]' in line for line in text.splitlines())


def test_a_late_end_of_an_old_subscription_leaves_the_new_one_alone(
    account: Account, stripe: Books
) -> None:
    old = account.subscribe()["id"]
    account.call("DELETE", f"/v1/subscriptions/{old}")
    new = account.subscribe(account.pro)["id"]
    [end] = events(account, "customer.subscription.deleted")
    billing.deliver([event for event in events(account) if event is not end])
    billing.deliver([end])
    found = billing.standing()
    assert (found["access"], found["plan_id"], found["subscription_id"]) == ("full", "pro", new)


def test_a_late_payment_of_one_that_has_ended_is_recorded_and_revives_nothing(
    account: Account, stripe: Books
) -> None:
    sub = account.subscribe()["id"]
    account.call("DELETE", f"/v1/subscriptions/{sub}")
    paid = events(account, "invoice.paid", "invoice.payment_succeeded")
    assert len(paid) == 2
    billing.deliver([event for event in events(account) if event not in paid])
    before = billing.standing()
    billing.deliver(paid)
    assert billing.standing() == before
    assert before["access"] == "free"
    assert sum(name == "PaymentSucceeded" for name, *_ in billing.reported()) == 1


def test_an_end_that_is_set_without_the_flag_is_an_end(account: Account, stripe: Books) -> None:
    sub = account.subscribe()["id"]
    account.post(f"/v1/subscriptions/{sub}", cancel_at=account.engine.now + 9 * DAY)
    assert account.sub(sub)["cancel_at_period_end"] is False
    billing.deliver(events(account))
    assert billing.standing()["access_until"] == billing.moment(account.sub(sub)["cancel_at"])


def test_an_unknown_status_is_asked_for_counted_and_changes_nothing(
    account: Account, stripe: Books, capsys: pytest.CaptureFixture[str]
) -> None:
    account.subscribe(account.pro)
    billing.deliver(events(account))
    before = billing.standing()
    account.engine.advance(60)
    [sub] = account.engine.all("subscription")
    sub["status"] = "hibernating"
    [first, *_] = events(account, "customer.subscription.created")
    asked = len(stripe.asked)
    billing.deliver([changed(first, status="hibernating") | {"created": account.engine.now}])
    assert len(stripe.asked) == asked + 1
    assert metrics(capsys.readouterr().out, "StripeUnknownStatus") == 1
    assert billing.standing() == before
    assert statuses() == {"processed"}


def test_a_price_that_is_no_plans_gives_nothing_until_the_plans_know_it(
    account: Account, stripe: Books, capsys: pytest.CaptureFixture[str]
) -> None:
    product = account.post(
        "/v1/products",
        name="Gold",
        metadata={"kyora_plan": "gold"} | {f"limit_{name}": "7" for name in limits.NAMES},
    )["id"]
    monthly = {"currency": "usd", "unit_amount": 9, "recurring": {"interval": "month"}}
    price = account.post("/v1/prices", product=product, **monthly)["id"]
    account.subscribe(price)
    billing.deliver(events(account))
    assert billing.standing()["access"] == "free"
    assert metrics(capsys.readouterr().out, "StripeUnknownPrice") > 0
    assert not any(name == "SubscriptionActivated" for name, *_ in billing.reported())
    sync.sync()
    sweep.sweep(lambda: 60.0)
    assert (billing.standing()["access"], billing.standing()["plan_id"]) == ("full", "gold")
    assert sum(name == "SubscriptionActivated" for name, *_ in billing.reported()) == 1


def test_a_subscriber_whose_price_becomes_unknown_keeps_the_plan(
    account: Account, stripe: Books
) -> None:
    account.subscribe(account.pro)
    billing.deliver(events(account))
    billing.run("DELETE FROM plan_price WHERE plan_id = 'pro'")
    account.engine.advance(32 * DAY)
    billing.deliver(events(account))
    assert (billing.standing()["access"], billing.standing()["plan_id"]) == ("full", "pro")


def test_nobodys_events_are_counted_and_done_once_it_is_known_whose_they_are(
    account: Account, stripe: Books, capsys: pytest.CaptureFixture[str]
) -> None:
    billing.run("DELETE FROM billing_customer")
    account.subscribe(account.pro)
    billing.deliver(events(account))
    assert "orphan" in statuses()
    assert metrics(capsys.readouterr().out, "StripeOrphans") > 0
    assert billing.reported() == {}
    before = len(account.engine.events)
    account.post(f"/v1/customers/{account.customer}", metadata={"workspaceId": "ws_demo"})
    billing.deliver(account.engine.events[before:])
    sweep.sweep(lambda: 60.0)
    assert statuses() == {"processed"}
    assert billing.standing()["plan_id"] == "pro"
    assert {name for name, *_ in billing.reported()} == {
        "SubscriptionActivated",
        "PaymentSucceeded",
    }


def test_a_customer_is_never_given_to_a_workspace_that_has_one(
    account: Account, stripe: Books
) -> None:
    account.subscribe()
    [event, *_] = events(account, "customer.subscription.created")
    billing.deliver(
        [changed(event, id="sub_x", customer="cus_x", metadata={"workspaceId": "ws_demo"})]
    )
    assert billing.query("SELECT workspace_id FROM billing_customer WHERE id = 'cus_x'") == [
        {"workspace_id": None}
    ]


def test_of_two_customers_given_to_one_workspace_at_once_one_gets_it(database: str) -> None:
    """The other one's worker has bound its own, and has not committed yet."""
    billing.run("INSERT INTO billing_customer (id) VALUES ('cus_one'), ('cus_two')")
    other = connect(database, development=True)
    other.run("BEGIN")
    other.run("SELECT pg_advisory_xact_lock(hashtextextended('customer of ws_demo', 0))")
    other.run("UPDATE billing_customer SET workspace_id = 'ws_demo' WHERE id = 'cus_one'")
    with ThreadPoolExecutor(1) as second:
        done = second.submit(resync.adopt, "cus_two", "ws_demo")
        with pytest.raises(TimeoutError):
            done.result(0.3)
        other.run("COMMIT")
        done.result(60)
    other.close()
    found = billing.query("SELECT id, workspace_id FROM billing_customer ORDER BY id")
    assert [row["workspace_id"] for row in found] == ["ws_demo", None]


# ---- what fails


def poison(account: Account) -> str:
    account.subscribe()
    [event, *_] = events(account, "invoice.paid")
    return json.dumps(changed(event, total="much", id="in_poison"))


def test_what_fails_on_its_own_five_times_has_failed_with_a_line_a_figure_and_200(
    account: Account,
    stripe: Books,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = captured_log(monkeypatch)
    body = poison(account)
    answers = [lives.deliver(body) for _ in range(event_store.MAX_ATTEMPTS + 1)]
    assert answers == [500, 500, 500, 500, 200, 200]
    assert billing.query("SELECT status, attempts FROM stripe_event") == [
        {"status": "failed", "attempts": 5}
    ]
    assert log.getvalue().count("Stripe event failed for good") == 1
    assert metrics(capsys.readouterr().out, "StripeEventsParked") == 1
    assert "much" not in log.getvalue()


def test_a_failed_event_is_done_by_a_replay_once_it_can_be(
    account: Account, stripe: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = poison(account)
    for _ in range(5):
        lives.deliver(body)
    real = stripe_objects.invoice
    monkeypatch.setattr(stripe_objects, "invoice", lambda it: real(it | {"total": 1}))
    report = replay.replay({"failed": True}, lambda: 60.0)
    assert len(report["done"]) == 1
    assert statuses() == {"processed"}


AWAY: dict[str, Answer] = {
    "answers 503": Answer(503, b'{"error": {"type": "api_error"}}'),
    "hangs up": Answer(drop=True),
    "is busy": Answer(429, b'{"error": {"code": "rate_limit"}}'),
    "answers nonsense": Answer(502, b"<html>"),
}


@pytest.mark.parametrize("how", AWAY)
def test_while_stripe_is_away_the_payload_has_to_do_and_is_looked_at_again_later(
    how: str, account: Account, stripe: Books
) -> None:
    sub = account.subscribe()["id"]
    item = account.sub(sub)["items"]["data"][0]["id"]
    account.post(f"/v1/subscriptions/{sub}", items=[{"id": item, "price": account.pro}])
    first = events(account, "customer.subscription.updated")[0]
    billing.deliver([event for event in events(account) if event is not first])
    stripe.trouble = lambda _: AWAY[how]
    body = json.dumps(first)  # in the same second as another one: Stripe has to be asked
    assert [lives.deliver(body) for _ in range(4)] == [500, 500, 500, 200]
    assert billing.query("SELECT count(*) AS n FROM subscription WHERE doubtful") == [{"n": 1}]
    stripe.trouble = lambda _: None
    sweep.sweep(lambda: 60.0)
    assert billing.query("SELECT count(*) AS n FROM subscription WHERE doubtful") == [{"n": 0}]
    assert billing.ours() == billing.of_stripe(account)
    assert billing.standing()["plan_id"] == "pro"


def test_what_a_dependency_is_to_blame_for_never_fails_for_good(
    account: Account, stripe: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    account.subscribe()
    [event, *_] = events(account, "invoice.paid")

    def away(_: object) -> None:
        raise Unavailable("away", code="database.unavailable")

    with monkeypatch.context() as broken:
        broken.setattr(process, "apply", away)
        answers = {lives.deliver(json.dumps(event)) for _ in range(9)}
    assert answers == {500}
    assert statuses() == {"received"}
    assert lives.deliver(json.dumps(event)) == 200
    assert statuses() == {"processed"}


_numbers = itertools.count()
_STRANGE = ("\0", "\ud800", "a\0b", "c" * 9000)
_TEXTS = st.text() | st.sampled_from(_STRANGE)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    kind=st.sampled_from(("customer.created", "customer.updated", "customer.subscription.updated"))
    | st.sampled_from(("invoice.paid", "payment_method.attached", "checkout.session.completed")),
    created=st.integers() | st.integers(1_700_000_000, 1_800_000_000),
    version=_TEXTS,
    about=_TEXTS,
    more=st.dictionaries(KEYS, JSON),
)
@example(kind="invoice.paid", created=10**30, version="", about="in_1", more={})
@example(kind="invoice.paid", created=10**15, version="", about="in_1", more={})
@example(kind="customer.created", created=1_790_000_000, version="\0", about="cus_1", more={})
@example(kind="customer.created", created=1_790_000_000, version="", about="\ud800", more={})
@example(
    kind="customer.subscription.updated",
    created=1_790_000_000,
    version="",
    about="sub_\0",
    more={"customer": "cus_1"},
)
def test_whatever_stripe_signs_is_answered_for_good_by_the_fifth_delivery(
    kind: str, created: int, version: str, about: str, more: dict[str, Any], stripe: Books
) -> None:
    """An endpoint that only fails is closed by Stripe."""
    name = kind.split(".")[-2].replace("session", "checkout.session")
    event = {
        "id": f"evt_{next(_numbers)}",
        "object": "event",
        "type": kind,
        "created": created,
        "livemode": False,
        "api_version": version,
        "data": {"object": {"id": about, "object": name} | more},
    }
    answers = [lives.deliver(json.dumps(event)) for _ in range(event_store.MAX_ATTEMPTS)]
    assert answers[-1] in (200, 400), answers


# ---- the other way in


def over_the_bus(found: dict[str, Any]) -> list[str]:
    body = json.dumps({"detail-type": found["type"], "source": "aws.partner/x", "detail": found})
    answer = function("stripe_webhook").handler(batch(body), CONTEXT)
    return [item["itemIdentifier"] for item in answer["batchItemFailures"]]


@pytest.mark.parametrize("first", ["webhook", "eventbridge"])
def test_both_channels_end_in_one_inbox_and_do_an_event_once(
    first: str, account: Account, stripe: Books
) -> None:
    account.subscribe(account.pro)
    ways: list[Callable[[dict[str, Any]], object]] = [
        lambda event: lives.deliver(json.dumps(event)),
        over_the_bus,
    ]
    for event in events(account):
        for way in ways if first == "webhook" else ways[::-1]:
            assert way(event) in (200, [])
    assert billing.query("SELECT DISTINCT source, attempts FROM stripe_event") == [
        {"source": first, "attempts": 1}
    ]
    assert set(billing.reported().values()) == {1}
    assert billing.standing()["plan_id"] == "pro"


def test_an_event_of_the_other_mode_is_left_alone_on_the_bus(
    account: Account, stripe: Books
) -> None:
    account.subscribe()
    assert over_the_bus(events(account)[0] | {"livemode": True}) == []
    assert statuses() == set()


def test_what_fails_on_the_bus_comes_again(account: Account, stripe: Books) -> None:
    assert over_the_bus(json.loads(poison(account))) == ["m0"]


def test_an_event_of_no_interest_is_kept_without_its_body(account: Account, stripe: Books) -> None:
    account.subscribe()
    [event, *_] = [e for e in account.engine.events if e["type"] == "charge.succeeded"]
    assert lives.deliver(json.dumps(event)) == 200
    assert billing.query("SELECT status, body FROM stripe_event") == [
        {"status": "ignored", "body": None}
    ]


# ---- the cache saves work, and decides nothing


@pytest.fixture(params=["memory", "postgres"])
def cached(
    request: pytest.FixtureRequest, stripe: Books, environment: pytest.MonkeyPatch
) -> Iterator[None]:
    environment.setenv("CACHE_PROVIDER", request.param)
    config.forget()
    memory._entries.clear()
    yield
    memory._entries.clear()


def test_a_repetition_of_what_is_done_is_answered_without_the_inbox(
    account: Account, cached: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    account.subscribe()
    [event] = events(account, "invoice.paid")
    assert lives.deliver(json.dumps(event)) == 200

    def asked(*_: object, **__: object) -> str:
        raise AssertionError("the inbox was asked")

    monkeypatch.setattr(event_store, "keep", asked)
    assert lives.deliver(json.dumps(event)) == 200


def test_what_failed_is_never_taken_for_done(account: Account, cached: None) -> None:
    body = poison(account)
    assert [lives.deliver(body) for _ in range(7)] == [500, 500, 500, 500, 200, 200, 200]
    billing.run("UPDATE stripe_event SET status = 'received', attempts = 0")
    assert lives.deliver(body) == 500


def test_a_forged_repetition_is_refused_whatever_the_cache_says(
    account: Account, cached: None
) -> None:
    account.subscribe()
    body = json.dumps(events(account)[0])
    assert lives.deliver(body) == 200
    forged = lives.request(body, secret="whsec_somebody-elses-secret")
    assert function("stripe_webhook").handler(forged, CONTEXT)["statusCode"] == 400


def subscribed(account: Account) -> Subscription:
    """Subscribe and mirror it; return what the API shows."""
    account.subscribe()
    for event in events(account):
        lives.deliver(json.dumps(event))
    return overview.read("ws_demo")


def test_the_plan_of_a_workspace_is_shown_from_the_cache_and_its_limits_are_not(
    account: Account, cached: None
) -> None:
    before = subscribed(account)
    billing.run("UPDATE plan SET name = 'Renamed' WHERE id = :id", id=before.plan.id)
    billing.run("UPDATE workspace_billing SET limits = limits || '{\"maxBusinesses\": 7}'")
    after = overview.read("ws_demo")
    assert (after.plan, after.limits) == (before.plan, before.limits | {"maxBusinesses": 7})
    cache.drop(offers.LISTED)
    assert overview.read("ws_demo").plan.name == "Renamed"


def test_a_plan_that_is_offered_no_more_is_shown_to_who_is_on_it(
    account: Account, cached: None
) -> None:
    mine = subscribed(account).plan
    billing.run("UPDATE plan SET active = false")
    cache.drop(offers.LISTED)
    assert overview.read("ws_demo").plan == mine.model_copy(update={"active": False})


def test_the_list_of_plans_is_kept_and_dropped_when_they_change(
    account: Account, cached: None
) -> None:
    before = [plan.id for plan in offers.listed().items]
    billing.run("UPDATE plan SET active = false WHERE id = 'pro'")
    assert [plan.id for plan in offers.listed().items] == before
    sync.sync()  # none of them is at Stripe as a plan
    assert [plan.id for plan in offers.listed().items] == ["free"]  # the built-in one


def test_a_change_of_a_subscription_costs_five_round_trips(
    account: Account, stripe: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What changes the workspace's access, and announces it, travels with COMMIT."""
    from kyora.postgres import connection

    found = account.subscribe()["id"]
    billing.deliver(events(account))
    account.engine.advance(60)
    account.call("POST", f"/v1/subscriptions/{found}", metadata={"note": "changed"})
    *_, change = events(account, "customer.subscription.updated")
    counted: list[str] = []
    real = connection.Transaction._execute

    def counting(self: Any, sql: str, params: Any) -> Any:
        counted.append(" ".join(sql.split()))
        return real(self, sql, params)

    asked = len(stripe.asked)
    monkeypatch.setattr(connection.Transaction, "_execute", counting)
    billing.deliver([change])
    assert len(stripe.asked) == asked
    assert counted.count("COMMIT") == 2
    assert len(counted) == 5, counted
