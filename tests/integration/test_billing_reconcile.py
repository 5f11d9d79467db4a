"""reconcile_billing: whatever was lost, our mirror ends as Stripe's, each fact announced once."""

import itertools
import os
import random
import time
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kyora.billing.events import types
from kyora.billing.jobs import reconcile, sweep
from local.stripe.standin import StandIn
from tests.integration.support import billing
from tests.integration.support.billing import Clock, invoke, query, reconciled
from tests.integration.support.crash import Crash, crash_at
from tests.integration.support.stripe_standin import Books, books
from tests.scripted import Answer
from tests.stripe_account import DAY, LIVES, Account, live
from tests.unit.functions import CONTEXT, function

WRITES_ACCOUNTS = True

# One step in ten is crashed at, another one each time; every one with KYORA_SEEDS=100.
SEEDS = int(os.environ.get("KYORA_SEEDS", "10"))
STRIDE = max(1, 100 // SEEDS)
BUSY = b'{"error": {"type": "invalid_request_error", "code": "rate_limit"}}'
SLOWLY = settings(
    max_examples=4 * SEEDS,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@SLOWLY
@given(LIVES, st.data())
def test_lost_events_end_in_stripes_state_and_announce_each_fact_once(
    database: str,
    environment: pytest.MonkeyPatch,
    actions: list[tuple[str, Any]],
    data: st.DataObject,
) -> None:
    billing.empty()
    account = billing.account()
    live(account, actions)
    events = billing.handled(account)
    came = data.draw(st.lists(st.booleans(), min_size=len(events), max_size=len(events)))
    arrived = [event for event, here in zip(events, came, strict=True) if here]
    order = data.draw(st.permutations(arrived))
    listed = [event for event in events if event["created"] > account.engine.now - 30 * DAY]
    with books(account.engine, environment):
        billing.deliver(order)
        report = reconciled()
        assert billing.ours() == billing.of_stripe(account)
        facts = billing.reported()
        assert set(facts) == billing.due(account, [*arrived, *listed])
        assert set(facts.values()) <= {1}
        assert report["failed"] == 0
        _is_settled(account)
        assert reconciled()["differences"] == 0
        assert billing.reported() == facts


def _is_settled(account: Account) -> None:
    """What the workspace may do follows from the best of its subscriptions."""
    running = [account.sub(sub["id"]) for sub in account.engine.all("subscription")]
    statuses = {sub["id"]: sub["status"] for sub in running if sub["ended_at"] is None}
    standing = billing.standing()
    if set(statuses.values()) & {"active", "trialing"}:
        assert standing["access"] == "full"
        assert statuses[standing["subscription_id"]] in ("active", "trialing")
    elif "past_due" in statuses.values():
        assert standing["status"] == "past_due"
    else:
        assert standing["access"] == "free"


# ---- in detail


def test_an_event_that_never_arrived_happens_as_if_it_came_late(
    account: Account, stripe: Books
) -> None:
    account.use("pm_card_chargeCustomerFail")
    account.engine.request("POST", "/v1/subscriptions", _trial(account))
    account.engine.advance(5 * DAY)
    report = reconciled()
    facts = {name for name, *_ in billing.reported()}
    assert facts == {"SubscriptionActivated", "TrialEnding", "PaymentFailed"}
    rows = query("SELECT DISTINCT source, status FROM stripe_event")
    assert rows == [{"source": "reconcile", "status": "processed"}]
    assert report["repaired"]["events"] == len(billing.handled(account))


def test_more_types_than_one_request_takes_are_listed_one_batch_after_another(
    account: Account, stripe: Books, environment: pytest.MonkeyPatch
) -> None:
    kinds = sorted(types.HANDLERS)
    environment.setattr(reconcile, "BATCHES", [kinds[:7], kinds[7:12], kinds[12:]])
    environment.setattr(reconcile, "_PAGE", 2)
    account.switch(account.subscribe()["id"], account.pro)
    account.use("pm_card_mastercard")
    events = billing.handled(account)
    report = reconciled()
    assert report["repaired"]["events"] == report["listed"]["events"] == len(events) > 6
    assert billing.ours() == billing.of_stripe(account)
    assert reconciled()["differences"] == 0


def _trial(account: Account) -> dict[str, Any]:
    items = [{"price": account.basic}]
    return {"customer": account.customer, "items": items, "trial_period_days": 4}


def test_what_stripe_lists_no_events_of_any_more_is_repaired_from_the_objects(
    account: Account, stripe: Books
) -> None:
    account.subscribe()
    account.engine.advance(100 * DAY)
    account.engine.forget()
    account.engine.events.clear()
    report = reconciled()
    assert report["repaired"]["events"] == 0
    assert billing.ours() == billing.of_stripe(account)
    assert billing.standing()["access"] == "full"
    # The sign-up and three renewals.
    assert sum(name == "PaymentSucceeded" for name, *_ in billing.reported()) == 4


def test_only_what_was_missed_after_the_first_run_raises_an_alarm(
    account: Account, stripe: Books
) -> None:
    account.subscribe()
    for event in account.engine.events:
        event["created"] -= 7200
    assert reconciled()["missed"] == 0
    seen = len(billing.handled(account))
    account.subscribe()
    late, *in_time = billing.handled(account)[seen:]
    late["created"] -= 3700
    billing.run("UPDATE billing_run SET result = result || '{\"began\": 1}'")
    report = reconciled()
    assert (report["missed"], report["repaired"]["events"]) == (1, 1 + len(in_time))


def test_the_report_names_what_differed_by_field(account: Account, stripe: Books) -> None:
    sub = account.subscribe()["id"]
    billing.deliver(billing.handled(account))
    billing.run("UPDATE subscription SET quantity = 9, status = 'past_due'")
    billing.run("UPDATE invoice SET number = 'wrong', hosted_url = NULL")
    report = reconciled()
    [invoice] = account.invoices(sub)
    assert report["drift"] == [
        {"id": sub, "field": "quantity", "ours": 9, "stripe": 1},
        {"id": sub, "field": "status", "ours": "past_due", "stripe": "active"},
        {"id": invoice["id"], "field": "hosted_url", "ours": "…", "stripe": "…"},
        {"id": invoice["id"], "field": "number", "ours": "wrong", "stripe": invoice["number"]},
    ]
    assert report["differences"] == 4
    assert billing.ours() == billing.of_stripe(account)


def test_nothing_differs_when_every_event_arrived(account: Account, stripe: Books) -> None:
    account.subscribe()
    account.engine.advance(40 * DAY)
    billing.deliver(billing.handled(account))
    before = (billing.ours(), billing.reported())
    report = reconciled()
    assert (report["differences"], report["missed"], report["drift"]) == (0, 0, [])
    assert (billing.ours(), billing.reported()) == before


def test_a_subscription_of_ours_that_stripe_does_not_list_is_asked_for_by_id(
    account: Account, stripe: Books
) -> None:
    """One on a test clock: Stripe leaves it out of lists that do not name the clock."""
    sub = account.subscribe()["id"]
    other = account.subscribe()["id"]
    billing.deliver(billing.handled(account))
    billing.run("UPDATE subscription SET status = 'unpaid'")
    account.engine.kinds["subscription"].remove(sub)
    reconciled()
    rows = query("SELECT id, status FROM subscription ORDER BY status")
    assert {row["id"]: row["status"] for row in rows} == {sub: "active", other: "active"}
    assert f"/v1/subscriptions/{sub}" in stripe.asked


def test_a_subscription_that_stripe_does_not_know_is_reported_and_left(
    account: Account, stripe: Books
) -> None:
    sub = account.subscribe()["id"]
    billing.deliver(billing.handled(account))
    account.engine.kinds["subscription"].remove(sub)
    del account.engine.objects[sub]
    report = reconciled()
    assert report["drift"] == [{"id": sub, "field": "id", "ours": sub, "stripe": None}]
    assert query("SELECT status FROM subscription") == [{"status": "active"}]


def test_more_unlisted_ones_than_there_is_time_for_come_to_an_end(
    account: Account, stripe: Books
) -> None:
    subs = [account.subscribe()["id"] for _ in range(10)]
    billing.deliver(billing.handled(account))
    account.engine.kinds["subscription"].clear()
    billing.run("UPDATE subscription SET quantity = 9")
    report = invoke(Clock(reconcile.MARGIN + 0.2), start=True)
    calls = 1
    while not report["finished"]:
        report = invoke(Clock(reconcile.MARGIN + 0.2))
        calls += 1
        assert calls < 10
    assert calls > 1
    assert query("SELECT DISTINCT quantity FROM subscription") == [{"quantity": 1}]
    assert sorted(one["id"] for one in report["drift"]) == sorted(subs)


def test_an_object_that_our_database_refuses_does_not_stop_the_rest(
    account: Account, stripe: Books
) -> None:
    broken = account.subscribe()
    whole = account.subscribe()["id"]
    account.engine.events.clear()
    account.engine.objects[broken["id"]]["items"]["data"][0]["quantity"] = 10**12
    [invoice] = account.invoices(broken["id"])
    account.engine.objects[invoice["id"]]["attempt_count"] = 10**12
    report = reconciled()
    assert report["failed"] == 2
    assert query("SELECT id FROM subscription") == [{"id": whole}]


def test_an_open_invoice_of_last_year_is_asked_for_by_id(account: Account, stripe: Books) -> None:
    sub = account.subscribe()["id"]
    account.use("pm_card_chargeCustomerFail")
    reconciled()
    account.engine.advance(45 * DAY)
    [_, unpaid] = account.invoices(sub)
    account.engine.advance(100 * DAY)
    reconciled()
    assert unpaid["id"] in billing.ours()
    account.post(f"/v1/invoices/{unpaid['id']}/void")
    account.engine.events.clear()
    billing.run("UPDATE invoice SET created_at = now() - interval '1 year' WHERE status = 'open'")
    account.engine.objects[unpaid["id"]]["created"] -= 500 * DAY
    stripe.server.requests.clear()
    reconciled()
    assert f"/v1/invoices/{unpaid['id']}" in stripe.asked
    assert billing.ours()[unpaid["id"]]["status"] == "void"


def test_customers_of_no_workspace_are_counted(account: Account, stripe: Books) -> None:
    billing.run("UPDATE billing_customer SET workspace_id = NULL")
    account.subscribe()
    assert reconciled()["orphans"] == 1


def test_an_object_that_cannot_be_read_does_not_stop_the_rest(
    account: Account, stripe: Books
) -> None:
    broken = account.subscribe()["id"]
    whole = account.subscribe()["id"]
    account.engine.events.clear()
    account.engine.objects[broken]["status"] = None
    report = reconciled()
    assert report["failed"] == 1
    assert query("SELECT id FROM subscription") == [{"id": whole}]


def test_without_a_key_there_is_nothing_to_do(
    account: Account, stripe: Books, environment: pytest.MonkeyPatch
) -> None:
    environment.delenv("BILLING_STRIPE_API_KEY")
    reconcile.config.forget()
    assert invoke()["finished"]
    assert stripe.asked == []


def test_the_function_repairs_over_the_stand_ins_own_server(
    database: str, stripe_server: StandIn
) -> None:
    engine = stripe_server.engine

    def post(path: str, **params: Any) -> dict[str, Any]:
        status, made = engine.request("POST", path, params)
        assert status == 200, made
        return made

    product = post("/v1/products", name="Basic")["id"]
    month = {"interval": "month"}
    price = post("/v1/prices", product=product, currency="usd", unit_amount=900, recurring=month)[
        "id"
    ]
    customer = post("/v1/customers", metadata={"workspaceId": "ws_demo"})["id"]
    method = post("/v1/payment_methods/pm_card_visa/attach", customer=customer)["id"]
    post(f"/v1/customers/{customer}", invoice_settings={"default_payment_method": method})
    sub = post("/v1/subscriptions", customer=customer, items=[{"price": price}])["id"]
    billing.add_plan("basic", price)
    answer = function("reconcile_billing").handler({"start": True}, CONTEXT)
    assert answer["finished"]
    assert billing.standing() | {"access_until": None} == {
        "access": "full",
        "status": "active",
        "plan_id": "basic",
        "subscription_id": sub,
        "access_until": None,
    }
    again = function("reconcile_billing").handler({"start": True}, CONTEXT)
    assert (again["finished"], again["differences"]) == (True, 0)


# ---- runs


def test_a_run_starts_once_a_day_unless_it_is_asked_for(account: Account, stripe: Books) -> None:
    account.subscribe()
    first = reconciled(start=False)
    asked = len(stripe.asked)
    assert invoke() == first
    assert len(stripe.asked) == asked
    assert invoke(start=True)["began"] > first["began"]
    billing.run("UPDATE billing_run SET started_at = now() - interval '25 hours'")
    asked = len(stripe.asked)
    invoke()
    assert len(stripe.asked) > asked


def test_a_run_that_runs_out_of_time_goes_on_where_it_stopped(
    account: Account, stripe: Books, environment: pytest.MonkeyPatch
) -> None:
    environment.setattr(reconcile, "_PAGE", 2)
    for _ in range(3):
        account.subscribe()
    report = invoke(Clock(reconcile.MARGIN + 0.06), start=True)
    assert (report["finished"], report["phase"]) == (False, "events")
    asked = [request.path for request in stripe.server.requests]
    final = reconciled(start=False)
    again = [r.path for r in stripe.server.requests][len(asked) :]
    lists = [path for path in again if path.startswith("/v1/events")]
    assert "starting_after" in lists[0]
    assert final["repaired"]["events"] == len(billing.handled(account))
    assert billing.ours() == billing.of_stripe(account)


def test_a_run_of_another_release_is_begun_again(account: Account, stripe: Books) -> None:
    account.subscribe()
    billing.run("UPDATE billing_run SET state = jsonb_build_object('phase', 'customers')")
    assert reconciled(start=False)["repaired"]["events"] == len(billing.handled(account))


def test_the_next_run_lists_the_events_since_the_last_one_and_an_hour_before(
    account: Account, stripe: Books
) -> None:
    account.subscribe()
    began = reconciled()["began"]
    stripe.server.requests.clear()
    reconciled()
    lists = [r.path for r in stripe.server.requests if r.path.startswith("/v1/events")]
    assert len(lists) == len(reconcile.BATCHES)
    for listed in lists:
        assert dict(parse_qsl(urlsplit(listed).query))["created[gte]"] == str(int(began - 3600))


def test_two_invocations_at_once_do_the_work_once(account: Account, stripe: Books) -> None:
    account.subscribe()
    answers: list[dict[str, Any]] = []

    def meanwhile(_: object) -> None:
        if not answers:  # the second one comes while the first waits for Stripe
            answers.append({})
            answers.append(invoke(start=True))

    stripe.trouble = meanwhile
    assert reconciled()["finished"]
    assert billing.ours() == billing.of_stripe(account)
    assert answers[1] == {"finished": False, "busy": True}


def test_an_invocation_that_was_overtaken_stops(account: Account, stripe: Books) -> None:
    account.subscribe()

    def overtake(_: object) -> None:
        billing.run("UPDATE billing_run SET version = version + 1")

    stripe.trouble = overtake
    assert invoke(start=True) == {"finished": False, "busy": True}
    assert "/v1/subscriptions" not in stripe.asked


def test_a_crash_at_any_statement_and_request_is_made_good_by_the_next_run(
    database: str, environment: pytest.MonkeyPatch
) -> None:
    for step in itertools.count(random.randrange(STRIDE), STRIDE):
        billing.empty()
        account = billing.account()
        account.subscribe()
        account.use("pm_card_chargeCustomerFail")
        with books(account.engine, environment):
            # Half of the events came, and a row was spoiled.
            billing.deliver(billing.handled(account)[::2])
            account.engine.advance(32 * DAY)
            billing.run("UPDATE invoice SET number = 'wrong'")
            with environment.context() as broken:
                crash_at(step, broken)
                try:
                    invoke(start=True)
                except Crash:
                    whole = False
                else:
                    whole = True
            billing.lease_over()
            reconciled()
            # An event that was kept when the process ended is the sweep's, two minutes later.
            billing.run("UPDATE stripe_event SET received_at = now() - interval '3 minutes'")
            sweep.sweep(lambda: 60.0)
            assert billing.ours() == billing.of_stripe(account), step
            facts = billing.reported()
            assert set(facts) == billing.due(account, account.engine.events), step
            assert set(facts.values()) == {1}, step
            rows = query("SELECT DISTINCT status FROM stripe_event")
            assert rows == [{"status": "processed"}], step
        if whole:
            assert step > 50
            return


# ---- Stripe's limits


def test_stripe_is_asked_at_most_25_times_a_second(
    account: Account, stripe: Books, environment: pytest.MonkeyPatch
) -> None:
    environment.setattr(reconcile, "_PAGE", 1)
    for _ in range(8):
        account.subscribe()
    clock, moments = Clock(), list[float]()

    def note(_: object) -> Answer | None:
        moments.append(clock.time)
        return None

    stripe.trouble = note
    report = invoke(clock, start=True)
    assert report["finished"]
    assert len(moments) > 60
    for first, last in zip(moments, moments[25:], strict=False):
        assert last - first >= 1 - 1e-9


def test_a_refusal_for_asking_too_much_is_waited_out_as_long_as_stripe_says(
    account: Account, stripe: Books
) -> None:
    account.subscribe()
    refused = [Answer(429, BUSY, {"Retry-After": "7"})] * 2
    stripe.trouble = lambda _: refused.pop() if refused else None
    clock = Clock()
    report = invoke(clock, start=True)
    assert report["finished"]
    assert clock.time >= 14


def test_a_wait_longer_than_the_invocation_is_left_to_the_next_one(
    account: Account, stripe: Books
) -> None:
    account.subscribe()
    stripe.trouble = lambda _: Answer(429, BUSY, {"Retry-After": "600"})
    clock = Clock()
    report = invoke(clock, start=True)
    assert (report["finished"], clock.time < 600) == (False, True)
    stripe.trouble = lambda _: None
    reconciled(start=False)
    assert billing.ours() == billing.of_stripe(account)


# ---- old news


def test_the_first_run_on_an_old_account_sends_no_mail(
    account: Account, stripe: Books, environment: pytest.MonkeyPatch
) -> None:
    from kyora.bus.events import parse
    from kyora.email import delivery

    sub = account.subscribe(trial_period_days=5)["id"]
    account.engine.advance(400 * DAY)
    account.post(f"/v1/subscriptions/{sub}", cancel_at_period_end=True)
    account.engine.advance(60 * DAY)
    account.subscribe()
    account.engine.advance(30 * DAY)
    # The stand-in's books begin today: for us they are as old as they are long.
    shift = account.engine.now - int(time.time())
    _grow_older(account, shift)
    reconciled()
    billing.run("UPDATE workspace SET owner_id = 'usr_demo_admin' WHERE id = 'ws_demo'")
    environment.setenv("EMAIL_PROVIDER", "mock")
    reconcile.config.forget()
    rows = query("SELECT detail_type, detail FROM outbox")
    assert {"SubscriptionActivated", "SubscriptionCancelled"} <= {r["detail_type"] for r in rows}
    for row in rows:
        delivery.deliver(parse(row["detail_type"], row["detail"]))
    assert query("SELECT DISTINCT status, reason FROM email_message") == [
        {"status": "skipped", "reason": "expired"}
    ]


def _grow_older(account: Account, seconds: int) -> None:
    """Move everything that has a time into the past."""

    def older(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: older(item) for name, item in value.items()}
        if isinstance(value, list):
            return [older(item) for item in value]
        plain = isinstance(value, int) and not isinstance(value, bool)
        return value - seconds if plain and value > 1_500_000_000 else value

    engine = account.engine
    for found in engine.objects.values():
        found.update(older(found))
    engine.events[:] = [older(event) for event in engine.events]
    engine.now -= seconds
