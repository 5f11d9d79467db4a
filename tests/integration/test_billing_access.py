"""What a workspace may do, whatever its subscriptions look like at Stripe."""

import itertools
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kyora.billing import access, stripe_objects
from kyora.billing.api import overview
from kyora.billing.jobs import sweep
from kyora.billing.stripe_objects import API_VERSION
from kyora.errors import Invalid
from tests.integration.support import billing
from tests.integration.support.billing import query, run
from tests.integration.support.stripe_standin import Books
from tests.stripe_account import DAY, Account
from tests.unit.functions import CONTEXT, captured_log, function

_numbers = itertools.count()
GRACE = timedelta(days=7)
LIMITS = {
    "basic": {"maxBusinesses": 1, "maxTeamMembers": 1},
    "pro": {"maxBusinesses": 3, "maxTeamMembers": 9},
    "yearly": {"maxBusinesses": 3, "maxTeamMembers": 9},
    "free": {"maxBusinesses": 1, "maxTeamMembers": 1},
}


@pytest.fixture
def account(database: str) -> Account:
    found = billing.account()
    for plan, limits in LIMITS.items():
        run(
            "UPDATE plan SET limits = CAST(:limits AS jsonb), amount = :amount,"
            " interval = :interval WHERE id = :id",
            id=plan,
            limits=json.dumps({"maxOrdersPerMonth": 10, "maxStorageBytes": 10} | limits),
            amount={"basic": 2000, "pro": 5000, "yearly": 20000, "free": 0}[plan],
            interval="year" if plan == "yearly" else "month",
        )
    return found


def deliver(account: Account) -> None:
    billing.deliver(billing.handled(account))


def event(kind: str, found: dict[str, Any], created: int, **more: Any) -> dict[str, Any]:
    return {
        "id": f"evt_access{next(_numbers)}",
        "object": "event",
        "api_version": API_VERSION,
        "created": created,
        "livemode": False,
        "type": kind,
        "data": {"object": found, "previous_attributes": more.pop("previous", {})},
    } | more


def item(price: str, product: str = "", quantity: int | None = 1, **more: Any) -> dict[str, Any]:
    now = int(time.time())
    return {
        "id": f"si_{price}",
        "object": "subscription_item",
        "quantity": quantity,
        "price": {"id": price, "product": product} | more,
        "current_period_start": now,
        "current_period_end": now + 30 * DAY,
    }


def subscription(account: Account, items: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {
        "id": "sub_x",
        "object": "subscription",
        "customer": account.customer,
        "status": "active",
        "created": int(time.time()) - 100,
        "metadata": {},
        "items": {"object": "list", "has_more": False, "data": items},
        "cancel_at": None,
        "cancel_at_period_end": False,
    } | more


def report(account: Account, items: list[dict[str, Any]], **more: Any) -> None:
    found = subscription(account, items, **more)
    billing.deliver([event("customer.subscription.updated", found, int(time.time()))])


def decided() -> tuple[str, str]:
    found = billing.standing()
    return str(found["access"]), str(found.get("plan_id"))


# ---- which item is the plan


ITEMS: dict[str, tuple[list[tuple[str, int]], str]] = {
    "alone": ([("pro", 1)], "pro"),
    "behind an add-on": ([("addon", 1), ("pro", 1)], "pro"),
    "before an add-on": ([("pro", 1), ("addon", 1)], "pro"),
    "between add-ons": ([("addon", 4), ("pro", 1), ("extra", 2)], "pro"),
    "behind a lesser plan": ([("basic", 1), ("pro", 1)], "pro"),
    "before a lesser plan": ([("pro", 1), ("basic", 1)], "pro"),
    "beside a better plan of quantity 0": ([("pro", 0), ("basic", 1)], "basic"),
}


@pytest.mark.parametrize("case", ITEMS)
def test_the_plan_is_found_by_its_price_wherever_it_stands(
    case: str, account: Account, stripe: Books
) -> None:
    items, plan = ITEMS[case]
    report(account, [item(getattr(account, name, f"price_{name}"), "", n) for name, n in items])
    assert decided() == ("full", plan)
    [row] = query("SELECT item_id, price_id FROM subscription")
    assert row == {
        "item_id": f"si_{getattr(account, plan)}",
        "price_id": getattr(account, plan),
    }


def test_a_price_of_our_product_that_is_no_plans_is_its_products_plan(
    account: Account, stripe: Books
) -> None:
    report(account, [item("price_negotiated", "prod_pro", None)])
    assert decided() == ("full", "pro")


def test_of_a_products_plans_that_of_the_same_interval_and_currency_counts(
    account: Account, stripe: Books
) -> None:
    run("UPDATE plan SET product_id = 'prod_pro' WHERE id = 'yearly'")
    yearly = {"currency": "usd", "recurring": {"interval": "year", "interval_count": 1}}
    report(account, [item("price_negotiated", "prod_pro", **yearly)])
    assert decided() == ("full", "yearly")


def test_an_item_of_quantity_0_gives_nothing(account: Account, stripe: Books) -> None:
    report(account, [item(account.pro, "", 0)])
    assert decided()[0] == "free"
    assert billing.standing()["status"] == "active"


def test_a_waived_collection_keeps_the_access_of_its_status(
    account: Account, stripe: Books
) -> None:
    report(account, [item(account.pro)], pause_collection={"behavior": "void", "resumes_at": None})
    assert decided() == ("full", "pro")


# ---- a price of no plan


def test_a_switch_to_a_price_of_no_plan_keeps_the_last_plan_for_the_grace_period(
    account: Account, stripe: Books, capsys: pytest.CaptureFixture[str]
) -> None:
    sub = account.subscribe(account.pro)["id"]
    deliver(account)
    account.engine.advance(60)
    account.switch(sub, account.price(10))
    deliver(account)
    assert decided() == ("grace", "pro")
    [row] = query("SELECT unplanned_since FROM subscription")
    until = billing.standing()["access_until"]
    assert until == row["unplanned_since"] + GRACE
    assert '"StripeUnknownPrice":[1.0]' in capsys.readouterr().out
    billing.reconciled()
    assert billing.standing()["access_until"] == until
    run("UPDATE subscription SET unplanned_since = :over", over=row["unplanned_since"] - 2 * GRACE)
    run("UPDATE workspace_billing SET access_until = now() - interval '1 second'")
    sweep.sweep(lambda: 60.0)
    billing.reconciled()
    assert decided()[0] == "free"


def test_back_at_a_price_of_a_plan_the_grace_period_is_forgotten(
    account: Account, stripe: Books
) -> None:
    report(account, [item("price_none")])
    billing.deliver(
        [
            event(
                "customer.subscription.updated",
                subscription(account, [item(account.basic)]),
                int(time.time()) + 10,
            )
        ]
    )
    assert decided() == ("full", "basic")
    assert query("SELECT unplanned_since FROM subscription") == [{"unplanned_since": None}]


def test_a_price_that_never_was_a_plans_gives_nothing(account: Account, stripe: Books) -> None:
    report(account, [item("price_none", "prod_none")])
    assert decided()[0] == "free"


def test_reconcile_notices_that_a_price_is_no_plans_any_more(
    account: Account, stripe: Books
) -> None:
    account.subscribe(account.pro)
    deliver(account)
    run("DELETE FROM plan_price WHERE plan_id = 'pro'")
    run("UPDATE plan SET price_id = 'price_other' WHERE id = 'pro'")
    billing.reconciled()
    assert decided() == ("grace", "pro")


# ---- the best of several


def test_a_better_plan_counts_although_a_free_one_ends_later(
    account: Account, stripe: Books
) -> None:
    run("UPDATE plan SET amount = 0 WHERE id = 'yearly'")
    run("UPDATE plan SET limits = (SELECT limits FROM plan WHERE id = 'basic') WHERE id = 'yearly'")
    paid = account.subscribe(account.pro)["id"]
    account.subscribe(account.yearly)
    deliver(account)
    assert billing.standing()["subscription_id"] == paid


def test_an_older_better_plan_counts_before_a_newer_one(account: Account, stripe: Books) -> None:
    old = account.subscribe(account.pro)["id"]
    account.engine.advance(3600)
    account.subscribe(account.basic)
    deliver(account)
    assert billing.standing()["subscription_id"] == old


def test_of_two_with_the_same_limits_the_dearer_one_counts(account: Account, stripe: Books) -> None:
    """A year for 200.00 is less a month than 50.00."""
    monthly = account.subscribe(account.pro)["id"]
    account.engine.advance(3600)
    account.subscribe(account.yearly)
    deliver(account)
    assert billing.standing()["subscription_id"] == monthly


def test_what_gives_access_counts_before_a_better_plan_that_does_not(
    account: Account, stripe: Books
) -> None:
    report(account, [item(account.pro)], status="unpaid", id="sub_better")
    report(account, [item(account.basic)])
    assert decided() == ("full", "basic")


# ---- whose events are believed


@pytest.mark.parametrize("of", ["account", "context"])
def test_an_event_of_another_account_gives_nothing_and_is_counted(
    of: str, account: Account, stripe: Books, capsys: pytest.CaptureFixture[str]
) -> None:
    found = subscription(account, [item(account.pro)], metadata={"workspaceId": "ws_demo"})
    found["customer"] = "cus_of_connected_account"
    foreign = event("customer.subscription.created", found, int(time.time()))
    billing.deliver([foreign | {of: "acct_1CONNECTED"}] * 2)
    assert decided()[0] == "free"
    assert query("SELECT id FROM subscription") == []
    assert query("SELECT status, body FROM stripe_event") == [{"status": "ignored", "body": None}]
    assert capsys.readouterr().out.count('"StripeForeignEvents":[1.0]') == 2
    assert stripe.asked == []


def test_an_event_of_no_other_account_says_so_with_null(account: Account, stripe: Books) -> None:
    found = subscription(account, [item(account.pro)])
    reported = event("customer.subscription.created", found, int(time.time()))
    billing.deliver([reported | {"account": None, "context": None}])
    assert decided() == ("full", "pro")


PAGES: dict[str, dict[str, Any]] = {
    "a payment link": {"mode": "payment", "payment_link": "plink_1", "subscription": None},
    "a payment link for a subscription": {"mode": "subscription", "payment_link": "plink_1"},
    "a page that says that it is ours": {
        "mode": "subscription",
        "metadata": {"workspaceId": "ws_other"},
    },
}


@pytest.mark.parametrize("page", PAGES)
def test_no_page_gives_a_customer_to_a_workspace(
    page: str, account: Account, stripe: Books
) -> None:
    """The payer writes `client_reference_id` into the address of a payment link."""
    paid = {
        "id": "cs_test_link",
        "object": "checkout.session",
        "status": "complete",
        "customer": "cus_stranger",
        "client_reference_id": "ws_other",
        "metadata": {},
        "subscription": "sub_stranger",
    } | PAGES[page]
    billing.deliver([event("checkout.session.completed", paid, int(time.time()))])
    assert query("SELECT workspace_id FROM billing_customer WHERE id = 'cus_stranger'") == [
        {"workspace_id": None}
    ]


def test_what_came_before_its_workspace_was_known_is_done_with_the_event_that_says_so(
    account: Account, stripe: Books
) -> None:
    run("DELETE FROM billing_customer")
    account.subscribe(account.pro)
    deliver(account)
    assert query("SELECT status FROM stripe_event WHERE status = 'orphan'")
    before = len(account.engine.events)
    account.post(f"/v1/customers/{account.customer}", metadata={"workspaceId": "ws_demo"})
    billing.deliver(account.engine.events[before:])
    assert query("SELECT DISTINCT status FROM stripe_event") == [{"status": "processed"}]
    assert {name for name, *_ in billing.reported()} == {
        "SubscriptionActivated",
        "PaymentSucceeded",
    }


# ---- grace begins when it begins


def failed(account: Account, created: int, **invoice: Any) -> dict[str, Any]:
    found = {
        "id": f"in_{next(_numbers)}",
        "object": "invoice",
        "customer": account.customer,
        "status": "open",
        "currency": "usd",
        "total": 5000,
        "amount_due": 5000,
        "amount_paid": 0,
        "attempt_count": 1,
        "created": created,
        "parent": {"subscription_details": {"subscription": "sub_x"}},
    } | invoice
    return event("invoice.payment_failed", found, int(time.time()))


def states(account: Account, *reported: tuple[str, int], **more: Any) -> list[dict[str, Any]]:
    """Events of a subscription that had these statuses, so many days ago."""
    now = int(time.time())
    found, before = [], ""
    for status, days in reported:
        object_ = subscription(account, [item(account.pro)], status=status, **more)
        kind = "updated" if before else "created"
        previous = {"status": before} if before else {}
        found.append(
            event(f"customer.subscription.{kind}", object_, now - days * DAY, previous=previous)
        )
        before = status
    return found


def days_left() -> float:
    until = billing.standing()["access_until"]
    return float((until - datetime.now(UTC)) / timedelta(days=1))


def test_an_invoice_of_thirty_days_shortens_no_grace(account: Account, stripe: Books) -> None:
    """It is to be paid within thirty days, and its time is up today."""
    now = int(time.time())
    sent = {"attempt_count": 0, "due_date": now, "collection_method": "send_invoice"}
    invoice = failed(account, now - 30 * DAY, **sent) | {"type": "invoice.finalized"}
    created, due = states(account, ("active", 30), ("past_due", 0))
    billing.deliver([created, invoice, due])
    assert decided() == ("grace", "pro")
    assert 6.9 < days_left() <= 7


@pytest.mark.parametrize("turned", [False, True])
def test_a_failure_in_the_middle_of_a_period_begins_a_grace_of_its_own(
    account: Account, stripe: Books, *, turned: bool
) -> None:
    created, due = states(account, ("active", 150), ("past_due", 0))
    later = [due, failed(account, int(time.time()) - 5)]
    billing.deliver([created, *(later[::-1] if turned else later)])
    assert decided() == ("grace", "pro")
    assert 6.9 < days_left() <= 7


@pytest.mark.parametrize("first", [False, True])
def test_an_old_open_invoice_shortens_no_grace(
    account: Account, stripe: Books, *, first: bool
) -> None:
    now = int(time.time())
    created, due = states(account, ("active", 120), ("past_due", 0))
    invoices = [
        failed(account, now - 90 * DAY, attempt_count=4),
        failed(account, now - 60 * DAY, status="paid", amount_paid=5000) | {"type": "invoice.paid"},
        failed(account, now - 60),
    ]
    billing.deliver([created, *invoices, due] if first else [created, due, *invoices])
    assert decided() == ("grace", "pro")
    assert 6.9 < days_left() <= 7


def test_what_is_left_to_pay_is_what_is_owed(account: Account, stripe: Books) -> None:
    """A part of an invoice may be paid: Stripe's `amount_remaining`."""
    again = int(time.time()) + DAY
    invoice = failed(account, again - 2 * DAY, amount_paid=2000, next_payment_attempt=again)
    billing.deliver([*states(account, ("active", 30), ("past_due", 0)), invoice])
    said = query("SELECT detail FROM outbox WHERE detail_type = 'PaymentFailed'")
    assert [row["detail"]["data"]["amount"] for row in said] == [3000]
    charge = overview.read("ws_demo").next_charge
    assert charge is not None
    assert charge.amount == 3000


def test_the_grace_period_goes_on_from_where_it_began(account: Account, stripe: Books) -> None:
    billing.deliver(states(account, ("active", 20), ("past_due", 3)))
    again = subscription(account, [item(account.pro)], status="past_due", metadata={"a": "b"})
    billing.deliver([event("customer.subscription.updated", again, int(time.time()) - DAY)])
    assert 3.9 < days_left() <= 4


def test_a_new_failure_after_a_payment_begins_again(account: Account, stripe: Books) -> None:
    reported = (("active", 30), ("past_due", 20), ("active", 15), ("past_due", 1))
    billing.deliver(states(account, *reported))
    assert 5.9 < days_left() <= 6


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_in_any_order_the_grace_period_begins_when_the_payment_failed(
    account: Account, stripe: Books, order: tuple[int, ...]
) -> None:
    reported = states(account, ("active", 30), ("past_due", 20), ("active", 15), ("past_due", 1))
    billing.deliver([reported[at] for at in order])
    assert decided() == ("grace", "pro")
    assert 5.9 < days_left() <= 6


def test_an_older_sight_of_it_moves_no_beginning_earlier(account: Account, stripe: Books) -> None:
    now = int(time.time())
    found = subscription(account, [item(account.pro)], status="past_due")
    billing.deliver([event("customer.subscription.updated", found, now)])
    billing.deliver([event("customer.subscription.updated", found, now - 6 * DAY)])
    assert 6.9 < days_left() <= 7


@pytest.mark.parametrize("why", ["first_payment_failure", "final_payment_failure"])
def test_a_pause_for_a_failed_payment_is_a_grace(why: str, account: Account, stripe: Books) -> None:
    paused = {"paused": {"type": "subscription", "subscription": {"type": why}}}
    billing.deliver(states(account, ("active", 9), ("paused", 2), status_details=paused))
    assert decided() == ("grace", "pro")
    assert 4.9 < days_left() <= 5


def test_a_pause_after_a_failed_payment_does_not_begin_again(
    account: Account, stripe: Books
) -> None:
    paused = {"paused": {"subscription": {"type": "final_payment_failure"}}}
    reported = (("active", 9), ("past_due", 5), ("paused", 1))
    billing.deliver(states(account, *reported, status_details=paused))
    assert 1.9 < days_left() <= 2


@pytest.mark.parametrize("why", ["pause_requested", "trial_end_without_payment_method", "system"])
def test_any_other_pause_gives_nothing(why: str, account: Account, stripe: Books) -> None:
    paused = {"paused": {"type": "subscription", "subscription": {"type": why}}}
    billing.deliver(states(account, ("active", 9), ("paused", 2), status_details=paused))
    assert decided()[0] == "free"


def test_a_failure_that_only_a_read_shows_counts_from_its_invoice(
    account: Account, stripe: Books
) -> None:
    """Its events were lost; the renewal failed 12 days before Stripe is asked."""
    account.subscribe(account.pro)
    deliver(account)
    account.use("pm_card_chargeCustomerFail")
    account.engine.advance(42 * DAY)
    run("UPDATE subscription SET doubtful = true")
    sweep.sweep(lambda: 60.0)
    [sub] = account.engine.all("subscription")
    if sub["status"] != "past_due":
        pytest.skip("the stand-in has given up by then")
    [row] = query("SELECT grace_since FROM subscription")
    final = account.invoices(sub["id"])[-1]["status_transitions"]["finalized_at"]
    assert row["grace_since"] == billing.moment(final)


def test_the_log_says_what_changed_and_by_which_rule(
    account: Account, stripe: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = captured_log(monkeypatch)
    billing.deliver(states(account, ("active", 20), ("past_due", 3)))
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    reported = [line for line in lines if line["message"] == "access decided"]
    assert [(line["old"], line["new"], line["rule"]) for line in reported] == [
        ("free free", "full pro", "it is active"),
        ("full pro", "grace pro", "its payment failed, in the grace period"),
    ]


def test_why_names_the_rule_the_subscriptions_the_debt_and_the_last_events(
    account: Account, stripe: Books
) -> None:
    billing.deliver(states(account, ("active", 20), ("past_due", 3)))
    run(
        "INSERT INTO invoice (id, customer_id, subscription_id, status, currency, total,"
        " amount_due, amount_paid, attempt_count, hosted_url, created_at)"
        " SELECT 'in_why', customer_id, id, 'open', 'aed', 100, 100, 0, 1,"
        " 'https://invoice.stripe.com/hosted', now() FROM subscription"
    )
    reported = function("sweep_billing").handler({"why": "ws_demo"}, CONTEXT)
    json.dumps(reported)  # the answer of a function
    [sub] = reported["subscriptions"]
    assert reported["decided"]["subscription_id"] == sub["id"]
    assert (reported["decided"]["access"], reported["decided"]["plan_id"]) == ("grace", "pro")
    assert reported["decided"]["rule"] == sub["rule"] == "its payment failed, in the grace period"
    assert reported["recorded"]["access"] == "grace"
    assert reported["decided"]["access_until"] == reported["recorded"]["access_until"]
    [invoice] = reported["unpaid"]
    assert (invoice["subscription_id"], invoice["status"]) == (sub["id"], "open")
    assert "hosted" not in json.dumps(reported)
    assert 0 < len(reported["events"]) <= 10
    times = [event["created"] for event in reported["events"]]
    assert times == sorted(times, reverse=True)
    assert {event["status"] for event in reported["events"]} == {"processed"}


def test_why_says_what_each_subscription_would_give_and_what_is_not_recorded_yet(
    account: Account, stripe: Books
) -> None:
    old = account.subscribe(account.basic)["id"]
    account.call("DELETE", f"/v1/subscriptions/{old}")
    new = account.subscribe(account.pro)["id"]
    billing.deliver(billing.handled(account))
    run("UPDATE workspace_billing SET access = 'free', plan_id = 'free'")
    reported = access.explain("ws_demo")
    rules = {sub["id"]: (sub["gives"], sub["rule"]) for sub in reported["subscriptions"]}
    assert rules == {new: ("full", "it is active"), old: ("free", "it is canceled")}
    assert (reported["decided"]["access"], reported["recorded"]["access"]) == ("full", "free")
    assert query("SELECT access FROM workspace_billing") == [{"access": "free"}]  # only read


def test_why_knows_a_workspace_without_billing_and_refuses_an_unknown_one(database: str) -> None:
    billing.empty()
    reported = access.explain("ws_demo")
    assert (reported["decided"]["access"], reported["decided"]["rule"]) == (
        "free",
        "no subscription",
    )
    assert reported["recorded"] is None
    assert [reported[name] for name in ("customers", "subscriptions", "unpaid", "events")] == [
        []
    ] * 4
    with pytest.raises(Invalid, match="ws_nobody"):
        access.explain("ws_nobody")


def test_every_status_that_stripe_knows_has_a_rule() -> None:
    rows = [
        {
            "id": "sub",
            "status": status,
            "payment_failed": False,
            "quantity": 1,
            "began_at": datetime.now(UTC),
            "cancel_at": None,
            "grace_since": None,
            "unplanned_since": None,
            "plan_id": "pro",
            "limits": LIMITS["pro"],
            "amount": 1,
            "interval": "month",
            "interval_count": 1,
        }
        for status in stripe_objects.STATUSES
    ]
    found = {str(r["status"]): access.choose([r], datetime.now(UTC), 7).access for r in rows}
    assert found == {
        "trialing": "full",
        "active": "full",
        "past_due": "grace",
        "unpaid": "free",
        "paused": "free",
        "incomplete": "free",
        "canceled": "free",
        "incomplete_expired": "free",
    }
