"""sweep_billing: what waits is done, what is in doubt is read, graces end, what is old goes."""

import io
import itertools
import json
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from kyora import limits as limits_
from kyora import purge
from kyora.billing import access, event_store, retention, stripe_objects
from kyora.billing.events import ingest, process
from kyora.billing.jobs import replay, sweep
from kyora.errors import Invalid
from tests.integration.support import billing
from tests.integration.support.billing import query, run
from tests.integration.support.stripe_standin import Books
from tests.scripted import Answer
from tests.stripe_account import DAY, Account
from tests.unit.functions import CONTEXT, function

_numbers = itertools.count()


def enough() -> float:
    return 60.0


def keep(payload: dict[str, Any], minutes: int = 10) -> str:
    """Keep an event as T1 does, so long ago; nothing is done about it."""
    event = stripe_objects.event(payload)
    assert event is not None
    event_store.keep(event, json.dumps(payload), "webhook", wanted=True)
    run(
        "UPDATE stripe_event SET received_at = now() - make_interval(mins => :minutes)"
        " WHERE id = :id",
        id=event.id,
        minutes=minutes,
    )
    return event.id


def poison(**more: Any) -> dict[str, Any]:
    """An event whose object is none."""
    return {
        "id": f"evt_poison{next(_numbers)}",
        "object": "event",
        "type": "customer.subscription.updated",
        "created": int(time.time()),
        "api_version": stripe_objects.API_VERSION,
        "livemode": False,
        "data": {"object": {"object": "subscription", "id": "sub_x", "customer": "cus_x"}},
    } | more


def statuses() -> dict[str, str]:
    return {str(row["id"]): str(row["status"]) for row in query("SELECT * FROM stripe_event")}


# ---- events that wait


def test_an_event_whose_worker_died_is_done(account: Account, stripe: Books) -> None:
    account.subscribe()
    for event in billing.handled(account):
        keep(event)
    assert sweep.sweep(enough)["events"] == len(billing.handled(account))
    assert set(statuses().values()) == {"processed"}
    assert billing.ours() == billing.of_stripe(account)


def test_an_event_of_this_moment_is_left_to_its_own_worker(account: Account, stripe: Books) -> None:
    account.subscribe()
    ids = [keep(event, minutes=0) for event in billing.handled(account)]
    assert sweep.sweep(enough)["events"] == 0
    assert statuses() == dict.fromkeys(ids, "received")


def test_an_orphan_is_done_again_as_soon_as_its_workspace_is_known(
    account: Account, stripe: Books
) -> None:
    run("UPDATE billing_customer SET workspace_id = NULL")
    account.subscribe()
    billing.deliver(billing.handled(account))
    assert "orphan" in statuses().values()
    assert billing.reported() == {}
    with billing.postgres.transaction() as tx:
        tx.run("UPDATE billing_customer SET workspace_id = 'ws_demo'")
        event_store.reopen(tx, account.customer)
    sweep.sweep(enough)
    assert set(statuses().values()) == {"processed"}
    assert set(billing.reported()) == billing.due(account, account.engine.events)


def test_an_event_is_tried_once_a_sweep_and_has_failed_at_the_fifth(
    account: Account, stripe: Books
) -> None:
    event_id = keep(poison())
    for attempt in range(1, 6):
        sweep.sweep(enough)
        [row] = query("SELECT attempts, status, last_error FROM stripe_event")
        assert row["attempts"] == attempt
    assert (row["status"], row["last_error"]) == ("failed", "Unreadable: subscription.status")
    sweep.sweep(enough)
    assert query("SELECT attempts FROM stripe_event") == [{"attempts": 5}]
    assert sweep.backlog().parked == 1
    assert statuses() == {event_id: "failed"}


def test_a_key_that_stripe_refuses_parks_no_event(account: Account, stripe: Books) -> None:
    account.subscribe()
    ids = [keep(event | {"api_version": "2024-01-01"}) for event in billing.handled(account)]
    refused = Answer(401, b'{"error": {"type": "invalid_request_error", "message": "no"}}')
    stripe.trouble = lambda _: refused
    for _ in range(7):
        sweep.sweep(enough)
    assert "received" in statuses().values()
    assert "failed" not in statuses().values()
    stripe.trouble = lambda _: None
    sweep.sweep(enough)
    assert statuses() == dict.fromkeys(ids, "processed")


def test_a_poisonous_event_holds_up_no_other(
    account: Account, stripe: Books, environment: pytest.MonkeyPatch
) -> None:
    environment.setattr(sweep, "_BATCH", 1)
    bad = [keep(poison(), minutes=60) for _ in range(3)]
    account.subscribe()
    good = [keep(event) for event in billing.handled(account)]
    sweep.sweep(enough)
    assert statuses() == dict.fromkeys(bad, "received") | dict.fromkeys(good, "processed")


def test_the_sweep_stops_when_its_time_is_over(account: Account, stripe: Books) -> None:
    account.subscribe()
    for event in billing.handled(account):
        keep(event)
    left = iter([60.0, 60.0, 60.0, *itertools.repeat(sweep.MARGIN - 1, 100)])
    assert sweep.sweep(lambda: next(left))["events"] == 2
    assert list(statuses().values()).count("processed") == 2


def test_the_gauges_are_a_line_each_minute_even_when_nothing_waits(
    account: Account, stripe: Books, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = function("sweep_billing").handler({}, CONTEXT)
    assert (answer["oldestSeconds"], answer["parked"]) == (0.0, 0)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = {
        name: line[name]
        for line in lines
        for name in ("StripeOldestSeconds", "StripeParked")
        if name in line
    }
    assert found == {"StripeOldestSeconds": [0.0], "StripeParked": [0.0]}


def test_the_age_is_that_of_the_oldest_event_that_waits(account: Account, stripe: Books) -> None:
    account.subscribe()
    first, second = billing.handled(account)[:2]
    keep(first, minutes=90)
    keep(second, minutes=30)
    assert 5400 <= sweep.backlog().oldest < 5500
    sweep.sweep(enough)
    assert sweep.backlog().oldest == 0


def test_a_killed_attempt_counts_and_the_fifth_is_the_last(account: Account, stripe: Books) -> None:
    account.subscribe()
    [first, *_] = billing.handled(account)
    event_id = keep(first)
    for attempt in range(1, 6):
        assert (
            event_store.begin(event_id) is not None
        )  # and then nothing more is heard of the worker
        run("UPDATE stripe_event SET tried_at = tried_at - interval '61 seconds'")
        assert query("SELECT attempts, status FROM stripe_event") == [
            {"attempts": attempt, "status": "received"}
        ]
    sweep.sweep(enough)
    assert query("SELECT status, last_error FROM stripe_event") == [
        {"status": "failed", "last_error": "killed"}
    ]
    assert replay.replay({"failed": True}, enough)["done"] == [event_id]


def test_one_that_was_killed_is_not_the_first_of_the_next_sweep(
    account: Account, stripe: Books, environment: pytest.MonkeyPatch
) -> None:
    account.subscribe()
    first, second = [e for e in billing.handled(account) if e["type"].startswith("invoice")][:2]
    keep(first, minutes=60)
    keep(second, minutes=10)
    event_store.begin(first["id"])
    assert [event_id for event_id, _ in event_store.waiting()] == [second["id"], first["id"]]


def test_many_deliveries_at_once_of_one_event_are_no_killed_attempts(
    account: Account, stripe: Books
) -> None:
    account.subscribe()
    [first, *_] = billing.handled(account)
    event = stripe_objects.event(first)
    assert event is not None
    statuses_ = [
        event_store.keep(event, json.dumps(first), "webhook", wanted=True, begin=True)[1]
        for _ in range(9)
    ]
    assert set(statuses_) == {"received"}
    assert process.attempt(event)


def test_what_failed_is_due_again_within_seconds(account: Account, stripe: Books) -> None:
    """Not two minutes after it came."""
    account.subscribe()
    [first, *_] = billing.handled(account)
    event_id = keep(first, minutes=0)
    event_store.begin(event_id)
    event_store.failed(event_id, "database.unavailable", counts=False)
    assert event_store.waiting() == []
    run("UPDATE stripe_event SET next_at = next_at - interval '3 seconds'")
    assert sweep.sweep(enough)["events"] == 1


@pytest.fixture
def watch(environment: pytest.MonkeyPatch) -> billing.Clock:
    """The sweep's clock, which only slow answers of Stripe move."""
    found = billing.Clock()
    environment.setattr(sweep, "time", SimpleNamespace(monotonic=found.now))
    return found


def slowly(books: Books, path: str, seconds: float, watch: billing.Clock) -> None:
    def trouble(request: Any) -> None:
        if path in request.path:
            watch.sleep(seconds)

    books.trouble = trouble


def test_a_slow_kind_holds_up_no_other(
    account: Account, stripe: Books, watch: billing.Clock
) -> None:
    """There is time for one card, which takes six seconds to read, and there are twenty."""
    sub = account.subscribe()["id"]
    method = account.use("pm_card_mastercard")
    [card] = [e for e in account.engine.events if e["type"] == "payment_method.attached"]
    for number in range(20):
        keep(card | {"id": f"evt_card{number}", "api_version": "2020-08-27"}, minutes=60)
    for event in billing.handled(account):
        if "payment_method" not in event["type"]:
            keep(event, minutes=5)
    slowly(stripe, method, 6, watch)
    watch.length = 8
    sweep.sweep(lambda: sweep.MARGIN + watch.remaining())
    left = {name for name, status in statuses().items() if status == "received"}
    assert left
    assert all(name.startswith("evt_card") for name in left)
    assert billing.ours()[sub]["status"] == "active"


# ---- the catalogue


def catalogue_event(account: Account, product: str, number: int = 0, **more: Any) -> dict[str, Any]:
    found = account.call("GET", f"/v1/products/{product}")
    return {
        "id": f"evt_product{next(_numbers)}",
        "object": "event",
        "type": "product.updated",
        "created": int(time.time()),
        "api_version": stripe_objects.API_VERSION,
        "livemode": False,
        "data": {"object": found | more, "previous_attributes": {"name": str(number)}},
    }


def our_product(account: Account) -> str:
    limits = {f"limit_{name}": "3" for name in limits_.NAMES}
    made = account.post("/v1/products", name="Gold", metadata={"kyora_plan": "gold"} | limits)
    monthly = {"currency": "usd", "unit_amount": 9, "recurring": {"interval": "month"}}
    account.post("/v1/prices", product=made["id"], **monthly)
    return str(made["id"])


def reads(stripe: Books) -> list[str]:
    return [path for path in stripe.asked if path.startswith(("/v1/products", "/v1/prices"))]


def test_events_of_other_products_ask_nothing(account: Account, stripe: Books) -> None:
    mug = str(account.post("/v1/products", name="Mug")["id"])
    billing.deliver([catalogue_event(account, mug)])
    price = {"object": "price", "id": "price_x", "product": mug, "active": True}
    billing.deliver(
        [catalogue_event(account, mug) | {"type": "price.created", "data": {"object": price}}]
    )
    assert reads(stripe) == []
    assert set(statuses().values()) == {"processed"}


def test_only_our_products_and_their_prices_are_read(account: Account, stripe: Books) -> None:
    ours = our_product(account)
    billing.deliver([catalogue_event(account, ours)])
    assert reads(stripe) == ["/v1/products", "/v1/prices"]
    assert query("SELECT id FROM plan WHERE id = 'gold'") == [{"id": "gold"}]
    asked = [r.path for r in stripe.server.requests if r.path.startswith("/v1/prices")]
    assert all(f"product={ours}" in path for path in asked)


def test_a_burst_is_done_with_one_read(account: Account, stripe: Books) -> None:
    ours = our_product(account)
    events = [catalogue_event(account, ours, number) for number in range(30)]
    for event in events:
        keep(event)
    assert sweep.sweep(enough)["catalogue"] == 1
    assert set(statuses().values()) == {"processed"}
    assert reads(stripe) == ["/v1/products", "/v1/prices"]


def test_a_burst_that_comes_while_the_catalogue_is_read_costs_one_more(
    account: Account, stripe: Books, environment: pytest.MonkeyPatch
) -> None:
    ours = our_product(account)
    late = [catalogue_event(account, ours, number) for number in range(10)]
    once = iter([True])

    def more(request: Any) -> None:
        if request.path.startswith("/v1/prices") and next(once, False):
            for event in late:  # each taken by a worker of its own, in its own process
                keep(event, minutes=0)

    stripe.trouble = more
    billing.deliver([catalogue_event(account, ours)])
    assert set(statuses().values()) == {"processed"}
    assert len(reads(stripe)) == 4


def test_who_comes_while_another_reads_leaves_its_event_to_that_one(
    account: Account, stripe: Books
) -> None:
    ours = our_product(account)
    lease = json.dumps({"reading": time.time() + 60, "reader": "evt_another"})
    run("UPDATE billing_run SET state = CAST(:s AS jsonb) WHERE name = 'plans'", s=lease)
    billing.deliver([catalogue_event(account, ours)])
    assert set(statuses().values()) == {"received"}
    assert reads(stripe) == []
    run("UPDATE billing_run SET state = '{}' WHERE name = 'plans'")  # it has died
    run("UPDATE stripe_event SET next_at = now()")
    sweep.sweep(enough)
    assert set(statuses().values()) == {"processed"}


def test_a_catalogue_that_cannot_be_read_holds_up_no_subscription(
    account: Account, stripe: Books, watch: billing.Clock
) -> None:
    ours = our_product(account)
    keep(catalogue_event(account, ours), minutes=60)
    account.subscribe()
    for event in billing.handled(account):
        keep(event)
    slowly(stripe, "/v1/products", 15, watch)
    watch.length = 10
    sweep.sweep(lambda: sweep.MARGIN + watch.remaining())
    assert billing.ours() == billing.of_stripe(account)


def test_a_product_that_stops_being_a_plan_is_still_of_interest(
    account: Account, stripe: Books
) -> None:
    ours = our_product(account)
    billing.deliver([catalogue_event(account, ours)])
    account.post(f"/v1/products/{ours}", metadata={"kyora_plan": ""})
    billing.deliver([catalogue_event(account, ours) | {"created": int(time.time()) + 9}])
    assert query("SELECT active FROM plan WHERE id = 'gold'") == [{"active": False}]


# ---- doubt


def test_a_doubtful_subscription_is_read_from_stripe(account: Account, stripe: Books) -> None:
    account.subscribe()
    billing.deliver(billing.handled(account))
    run("UPDATE subscription SET doubtful = true, status = 'unpaid'")
    assert sweep.sweep(enough)["doubtful"] == 1
    assert query("SELECT status, doubtful FROM subscription") == [
        {"status": "active", "doubtful": False}
    ]
    assert billing.standing()["access"] == "full"


def test_a_subscription_that_waited_for_its_plan_is_announced(
    account: Account, stripe: Books
) -> None:
    run("DELETE FROM plan")
    run("DELETE FROM plan_price")
    sub = account.subscribe()["id"]
    billing.deliver(billing.handled(account))
    assert ("SubscriptionActivated", sub) not in billing.reported()
    billing.add_plan("basic", account.basic)
    run("UPDATE subscription SET doubtful = true")  # as the sync of plans says
    sweep.sweep(enough)
    assert billing.reported()["SubscriptionActivated", sub] == 1
    assert billing.standing()["plan_id"] == "basic"


def test_doubt_stays_while_stripe_is_away(account: Account, stripe: Books) -> None:
    account.subscribe()
    billing.deliver(billing.handled(account))
    run("UPDATE subscription SET doubtful = true")
    stripe.trouble = lambda _: Answer(429, b"{}")
    assert sweep.sweep(enough)["doubtful"] == 0
    assert query("SELECT doubtful FROM subscription") == [{"doubtful": True}]


def test_doubt_about_what_stripe_does_not_know_is_not_asked_for_ever(
    account: Account, stripe: Books
) -> None:
    sub = account.subscribe()["id"]
    billing.deliver(billing.handled(account))
    run("UPDATE subscription SET doubtful = true")
    del account.engine.objects[sub]
    sweep.sweep(enough)
    assert query("SELECT status, doubtful FROM subscription") == [
        {"status": "active", "doubtful": False}
    ]


# ---- graces


def test_a_grace_period_ends_in_the_free_plan_and_is_announced_once(
    account: Account, stripe: Books
) -> None:
    account.subscribe()
    account.use("pm_card_chargeCustomerFail")
    account.engine.advance(32 * DAY)
    billing.deliver(billing.handled(account))
    assert billing.standing()["access"] == "grace"
    assert sweep.sweep(enough)["graces"] == 0
    run("UPDATE subscription SET grace_since = grace_since - interval '60 days'")
    run("UPDATE workspace_billing SET access_until = now() - interval '1 second'")
    run("DELETE FROM outbox")
    assert sweep.sweep(enough)["graces"] == 1
    assert (billing.standing()["access"], billing.standing()["status"]) == ("free", "past_due")
    assert sweep.sweep(enough)["graces"] == 0
    assert [row["detail_type"] for row in query("SELECT detail_type FROM outbox")] == [
        "SubscriptionChanged"
    ]


# ---- forgetting

AGES = [
    # status, days, kept as
    ("processed", 34, "processed with body"),
    ("processed", 36, "processed"),
    ("orphan", 36, "processed"),
    ("failed", 399, "failed with body"),
    ("received", 36, "received with body"),
    ("ignored", 399, "ignored"),
    ("ignored", 401, "gone"),
    ("processed", 401, "gone"),
]


def forget() -> None:
    forgets = (retention.forget_bodies, retention.forget_events, retention.forget_facts)
    purge.purge(forgets, lambda: 60.0)


@pytest.mark.parametrize(("status", "days", "kept"), AGES)
def test_a_body_is_kept_for_35_days_and_an_event_for_400(
    status: str, days: int, kept: str, database: str
) -> None:
    run(
        "INSERT INTO stripe_event (id, type, created, source, body, status, received_at)"
        " VALUES ('evt_1', 'customer.updated', 1, 'webhook', :body, :status,"
        " now() - make_interval(days => :days))",
        body=None if status == "ignored" else "{}",
        status=status,
        days=days,
    )
    forget()
    forget()
    rows = query("SELECT status, body FROM stripe_event")
    found = [f"{row['status']}{' with body' if row['body'] else ''}" for row in rows]
    assert (found or ["gone"]) == [kept]


FACTS = {
    "activated:sub_1": True,  # the subscription can be read from Stripe for ever
    "cancelled:sub_1": True,
    "receipt:in_1": True,
    "dunning:in_1:2": False,  # known from events alone, which are not kept for a year
    "trial_ending:sub_1:1795582796": False,
}


def test_a_fact_that_can_be_learned_again_is_never_forgotten(database: str) -> None:
    for key in FACTS:
        run("INSERT INTO billing_fact VALUES (:key, now() - interval '401 days')", key=key)
        run("INSERT INTO billing_fact VALUES (:key, now() - interval '399 days')", key=f"{key}:new")
    forget()
    left = {row["key"] for row in query("SELECT key FROM billing_fact")}
    assert left == {f"{key}:new" for key in FACTS} | {key for key, kept in FACTS.items() if kept}


def test_an_old_subscription_is_not_announced_again_after_years(
    account: Account, stripe: Books
) -> None:
    account.subscribe()
    billing.deliver(billing.handled(account))
    facts = billing.reported()
    run("UPDATE billing_fact SET created_at = now() - interval '5 years'")
    run("UPDATE stripe_event SET received_at = now() - interval '5 years'")
    for _ in range(3):
        forget()
    run("UPDATE subscription SET doubtful = true")
    sweep.sweep(enough)
    billing.reconciled()
    assert billing.reported() == facts


def test_a_row_that_someone_holds_is_left(database: str) -> None:
    """Two sweeps at once do not wait for each other."""
    run(
        "INSERT INTO stripe_event (id, type, created, source, body, status, received_at) VALUES"
        " ('evt_1', 'customer.updated', 1, 'webhook', '{}', 'processed', now() - interval '36 d'),"
        " ('evt_2', 'customer.updated', 1, 'webhook', '{}', 'processed', now() - interval '36 d')"
    )
    from kyora import config
    from kyora.postgres import connection

    other = connection.connect(config.database_url(), development=True)
    other.run("BEGIN")
    other.run("SELECT 1 FROM stripe_event WHERE id = 'evt_1' FOR UPDATE")
    assert retention.forget_bodies() == 1
    other.close()


INDEXED: dict[str, tuple[str, Callable[[], str]]] = {
    "bodies": ("stripe_event_received", lambda: retention._FORGET_BODIES),
    "events": ("stripe_event_bare", lambda: retention._FORGET_EVENTS),
    "facts": ("billing_fact_passing", lambda: retention._FORGET_FACTS),
}


@pytest.mark.parametrize("name", INDEXED)
def test_forgetting_reads_an_index_and_not_the_table(name: str, database: str) -> None:
    index, statement = INDEXED[name]
    run(
        "INSERT INTO stripe_event (id, type, created, source, body, status, received_at)"
        " SELECT 'evt_' || n, 'x', 1, 'webhook', CASE WHEN n % 2 = 0 THEN '{}' END, 'processed',"
        " now() - make_interval(mins => n) FROM generate_series(1, 20000) AS n"
    )
    run(
        "INSERT INTO billing_fact SELECT 'dunning:in_' || n, now() - make_interval(mins => n)"
        " FROM generate_series(1, 20000) AS n"
    )
    billing.as_owner("ANALYZE stripe_event")
    billing.as_owner("ANALYZE billing_fact")
    plan = json.dumps(query(f"EXPLAIN {statement()}", limit=1000))
    assert index in plan, plan


# ---- by hand


def test_a_failed_event_is_done_when_its_cause_is_fixed(
    account: Account, stripe: Books, environment: pytest.MonkeyPatch
) -> None:
    account.subscribe()
    ids = [keep(event) for event in billing.handled(account)]
    with environment.context() as broken:
        broken.setattr(access, "settle", _bug)
        for _ in range(5):
            sweep.sweep(enough)
    assert "failed" in statuses().values()
    parked = {event_id for event_id, status in statuses().items() if status == "failed"}
    answer = replay.replay({"failed": True}, enough)
    assert set(answer["done"]) == parked
    assert (answer["failed"], answer["left"], answer["gone"]) == ([], 0, 0)
    assert statuses() == dict.fromkeys(ids, "processed")
    assert billing.ours() == billing.of_stripe(account)


def _bug(*_: object, **__: object) -> None:
    raise RuntimeError("a bug")


@pytest.mark.parametrize("asked", ["event", "since"])
def test_what_an_event_did_before_it_does_not_do_again(
    asked: str, account: Account, stripe: Books
) -> None:
    account.use("pm_card_chargeCustomerFail")
    account.post(
        "/v1/subscriptions",
        customer=account.customer,
        items=[{"price": account.basic}],
        trial_period_days=4,
    )
    account.engine.advance(5 * DAY)
    billing.deliver(billing.handled(account))
    before = (billing.ours(), query("SELECT id, detail FROM outbox ORDER BY id"))
    ids = set(statuses())
    done = []
    if asked == "since":
        done = replay.replay({"since": "2020-01-01"}, enough)["done"]
    else:
        for event_id in ids:
            done += replay.replay({"event": event_id}, enough)["done"]
    assert set(done) == ids
    assert (billing.ours(), query("SELECT id, detail FROM outbox ORDER BY id")) == before


def test_what_there_is_no_time_for_is_left_to_the_sweep(account: Account, stripe: Books) -> None:
    account.subscribe()
    billing.deliver(billing.handled(account))
    count = len(statuses())
    left = iter([60.0, *itertools.repeat(sweep.MARGIN - 1, 100)])
    answer = replay.replay({"since": "2020-01-01T00:00:00+02:00"}, lambda: next(left))
    assert (len(answer["done"]), answer["left"]) == (1, count - 1)
    assert sweep.sweep(enough)["events"] == count - 1  # at once: nothing waits for two minutes
    assert set(statuses().values()) == {"processed"}


def test_an_event_that_fails_again_is_named(account: Account, stripe: Books) -> None:
    event_id = keep(poison())
    answer = replay.replay({"event": event_id}, enough)
    assert (answer["done"], answer["failed"]) == ([], [event_id])


def test_an_event_whose_body_is_forgotten_is_counted_as_gone(
    account: Account, stripe: Books
) -> None:
    account.subscribe()
    billing.deliver(billing.handled(account)[:1])
    [event_id] = statuses()
    run("UPDATE stripe_event SET body = NULL")
    answer = replay.replay({"event": event_id}, enough)
    assert answer == {"done": [], "failed": [], "left": 0, "gone": 1}
    assert replay.replay({"event": "evt_unknown"}, enough)["gone"] == 0


def test_an_ignored_event_stays_ignored(account: Account, stripe: Books) -> None:
    event = stripe_objects.event(poison(type="charge.succeeded"))
    assert event is not None
    ingest.take(event, "{}", "webhook")
    answer = replay.replay({"since": "2020-01-01"}, enough)
    assert answer == {"done": [], "failed": [], "left": 0, "gone": 0}


WRONG: list[object] = [
    *({}, None, [], "evt_1", {"event": ""}, {"failed": False}, {"event": "in_1"}),
    *({"event": "evt_1", "failed": True}, {"since": "yesterday"}, {"since": 1}, {"all": True}),
    *({"event": "evt_1; DROP TABLE"}, {"failed": "true"}, {"event": ["evt_1"]}),
]


@pytest.mark.parametrize("asked", WRONG, ids=str)
def test_what_is_not_one_clear_choice_is_refused(asked: object, database: str) -> None:
    with pytest.raises(Invalid):
        replay.replay(asked, enough)


def test_more_than_a_thousand_are_marked(
    account: Account, stripe: Books, environment: pytest.MonkeyPatch
) -> None:
    environment.setattr(replay, "_MANY", 2)
    account.subscribe()
    billing.deliver(billing.handled(account))
    answer = replay.replay({"since": "2020-01-01"}, enough)
    assert set(answer["done"]) == set(statuses())


def test_the_function_replays_what_it_is_asked_for(account: Account, stripe: Books) -> None:
    account.subscribe()
    billing.deliver(billing.handled(account))
    context = SimpleNamespace(aws_request_id="run", get_remaining_time_in_millis=lambda: 55_000)
    [event_id, *_] = statuses()
    answer = function("sweep_billing").handler({"replay": {"event": event_id}}, context)
    assert answer["done"] == [event_id]


def test_nothing_of_a_poisonous_event_is_logged(
    account: Account, stripe: Books, logs: io.StringIO
) -> None:
    keep(
        poison(
            data={
                "object": {
                    "object": "subscription",
                    "id": "sub_x",
                    "customer": "cus_x",
                    "metadata": {"note": "owner@example.com"},
                }
            }
        )
    )
    sweep.sweep(enough)
    assert "owner@" not in logs.getvalue()
