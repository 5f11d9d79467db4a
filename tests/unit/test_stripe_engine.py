"""The stand-in's engine: what Stripe does, seen in its events, with a clock that a test moves."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local.stripe.core.errors import Refusal
from local.stripe.engine import Engine
from local.stripe.objects import checkout, collection, portal
from tests.stripe_account import DAY, HOUR, LIVES, START, Account, Object, live, mark, session
from tests.unit.stripe_shapes import watched


@pytest.fixture(autouse=True)
def answers_are_stripes() -> Iterator[None]:
    """No answer or event of the engine may differ from the SDK's resources."""
    with watched():
        yield


# ---- signing up


def test_a_sign_up_is_a_burst_of_events_in_one_second() -> None:
    account = Account()
    before = mark(account)
    sub = account.subscribe()
    assert sub["status"] == "active"
    reported = account.reported(before)
    assert 9 <= len(reported) <= 14
    assert {event["created"] for event in account.engine.events[before:]} == {START}
    order = [
        "invoice.created",
        "invoice.finalized",
        "customer.subscription.created",
        "payment_intent.succeeded",
        "invoice.updated",
        "invoice.paid",
        "invoice.payment_succeeded",
        "customer.subscription.updated",
    ]
    assert [kind for kind in reported if kind in order] == order


def test_the_period_is_on_the_items_and_not_on_the_subscription() -> None:
    sub = Account().subscribe()
    assert "current_period_end" not in sub
    item = sub["items"]["data"][0]
    assert item["current_period_start"] == START
    assert item["current_period_end"] == START + 30 * DAY  # 24 December
    assert sub["billing_mode"]["type"] == "flexible"


def test_an_invoice_names_its_subscription_in_its_parent_only() -> None:
    account = Account()
    sub = account.subscribe(metadata={"workspaceId": "ws_1"})
    invoice = account.invoices(sub["id"])[0]
    assert "subscription" not in invoice
    assert "paid" not in invoice
    details = invoice["parent"]["subscription_details"]
    assert details == {"metadata": {"workspaceId": "ws_1"}, "subscription": sub["id"]}
    line = invoice["lines"]["data"][0]
    assert line["pricing"]["price_details"]["price"] == account.basic
    assert line["parent"]["subscription_item_details"]["subscription"] == sub["id"]


INCOMPLETE = [
    # card, payment_behavior, status, the event sent
    ("pm_card_chargeCustomerFail", "allow_incomplete", "incomplete", "invoice.payment_failed"),
    (
        "pm_card_authenticationRequired",
        "allow_incomplete",
        "incomplete",
        "invoice.payment_action_required",
    ),
    ("pm_card_visa", "default_incomplete", "incomplete", "customer.subscription.created"),
    ("", "default_incomplete", "incomplete", "customer.subscription.created"),
    ("pm_card_visa", "error_if_incomplete", "active", "invoice.paid"),
]


@pytest.mark.parametrize(("card", "behavior", "status", "kind"), INCOMPLETE)
def test_the_first_payment_decides_what_a_subscription_begins_as(
    card: str, behavior: str, status: str, kind: str
) -> None:
    account = Account(card)
    before = mark(account)
    assert account.subscribe(payment_behavior=behavior)["status"] == status
    assert kind in account.reported(before)


REFUSED = [
    ("pm_card_chargeCustomerFail", "error_if_incomplete", 402, "card_declined"),
    (
        "pm_card_authenticationRequired",
        "error_if_incomplete",
        402,
        "subscription_payment_intent_requires_action",
    ),
    ("", "allow_incomplete", 400, "resource_missing"),
    ("", "error_if_incomplete", 400, "resource_missing"),
]


@pytest.mark.parametrize(("card", "behavior", "status", "code"), REFUSED)
def test_a_refused_subscription_leaves_nothing_behind(
    card: str, behavior: str, status: int, code: str
) -> None:
    account = Account(card)
    before = mark(account)
    found, error = account.refused(
        "POST",
        "/v1/subscriptions",
        customer=account.customer,
        items=[{"price": account.basic}],
        payment_behavior=behavior,
    )
    assert (found, error["code"]) == (status, code)
    assert account.reported(before) == []
    assert account.call("GET", "/v1/subscriptions", status="all")["data"] == []


def test_an_incomplete_subscription_becomes_active_when_its_payment_is_confirmed() -> None:
    account = Account("")
    sub = account.subscribe(
        payment_behavior="default_incomplete",
        payment_settings={"save_default_payment_method": "on_subscription"},
        expand=["latest_invoice.confirmation_secret"],
    )
    intent = account.intent(sub["latest_invoice"]["id"])
    assert sub["latest_invoice"]["confirmation_secret"]["client_secret"].startswith(intent)
    account.post(f"/v1/payment_intents/{intent}/confirm", payment_method="pm_card_visa")
    after = account.sub(sub["id"])
    assert after["status"] == "active"
    assert after["default_payment_method"] is not None


def test_a_3d_secure_payment_waits_for_the_cardholder() -> None:
    account = Account("")
    sub = account.subscribe(payment_behavior="default_incomplete")
    name = account.intent(sub["latest_invoice"])
    card = "pm_card_authenticationRequired"
    asked = account.post(f"/v1/payment_intents/{name}/confirm", payment_method=card)
    assert asked["status"] == "requires_action"
    assert asked["next_action"]["redirect_to_url"]["url"].startswith("http")
    assert account.sub(sub["id"])["status"] == "incomplete"
    collection.authenticate(account.engine, account.engine.get(name), passed=False)
    assert account.call("GET", f"/v1/payment_intents/{name}")["status"] == "requires_payment_method"
    account.post(f"/v1/payment_intents/{name}/confirm", payment_method=card)
    collection.authenticate(account.engine, account.engine.get(name), passed=True)
    assert account.sub(sub["id"])["status"] == "active"


def test_an_incomplete_subscription_expires_after_23_hours() -> None:
    account = Account("")
    sub = account.subscribe(payment_behavior="default_incomplete")
    account.engine.advance(23 * HOUR - 1)
    assert account.sub(sub["id"])["status"] == "incomplete"
    before = mark(account)
    account.engine.advance(1)
    assert account.sub(sub["id"])["status"] == "incomplete_expired"
    assert account.invoices(sub["id"])[0]["status"] == "void"
    assert "customer.subscription.updated" in account.reported(before)


def test_a_free_plan_needs_no_card_and_is_active_at_once() -> None:
    account = Account("")
    before = mark(account)
    assert account.subscribe(account.free)["status"] == "active"
    assert "payment_intent.created" not in account.reported(before)
    assert "invoice.paid" in account.reported(before)


# ---- trials


def test_a_trial_is_announced_three_days_before_it_ends_and_then_paid_for() -> None:
    account = Account()
    sub = account.subscribe(trial_period_days=14)
    assert sub["status"] == "trialing"
    assert sub["trial_end"] == START + 14 * DAY
    assert account.invoices(sub["id"])[0]["total"] == 0
    before = mark(account)
    account.engine.advance(11 * DAY - 1)
    assert account.reported(before) == []
    account.engine.advance(1)
    assert account.reported(before) == ["customer.subscription.trial_will_end"]
    account.engine.advance(3 * DAY)
    assert account.sub(sub["id"])["status"] == "active"
    account.engine.advance(HOUR)
    paid = account.invoices(sub["id"])[1]
    assert (paid["total"], paid["status"]) == (2000, "paid")
    assert paid["billing_reason"] == "subscription_cycle"


@pytest.mark.parametrize(
    ("behavior", "status", "kind"),
    [
        ("cancel", "canceled", "customer.subscription.deleted"),
        ("pause", "paused", "customer.subscription.paused"),
        ("create_invoice", "past_due", "invoice.payment_failed"),
    ],
)
def test_a_trial_without_a_card_ends_as_was_chosen(behavior: str, status: str, kind: str) -> None:
    account = Account("")
    chosen = {"end_behavior": {"missing_payment_method": behavior}}
    sub = account.subscribe(trial_period_days=7, trial_settings=chosen)
    account.engine.advance(7 * DAY + HOUR)
    assert account.sub(sub["id"])["status"] == status
    assert kind in account.reported()


def test_a_paused_subscription_resumes_with_a_card() -> None:
    account = Account("")
    chosen = {"end_behavior": {"missing_payment_method": "pause"}}
    sub = account.subscribe(trial_period_days=7, trial_settings=chosen)
    account.engine.advance(8 * DAY)
    account.use("pm_card_visa")
    assert account.post(f"/v1/subscriptions/{sub['id']}/resume")["status"] == "active"
    assert "customer.subscription.resumed" in account.reported()


def test_a_trial_can_be_ended_now() -> None:
    account = Account()
    sub = account.subscribe(trial_period_days=14)
    after = account.post(f"/v1/subscriptions/{sub['id']}", trial_end="now")
    assert after["status"] == "active"
    account.engine.advance(HOUR)
    assert account.invoices(sub["id"])[-1]["amount_paid"] == 2000


# ---- renewals and dunning


def test_a_renewal_is_a_draft_for_an_hour_and_then_paid() -> None:
    account = Account()
    sub = account.subscribe()
    before = mark(account)
    account.engine.advance(30 * DAY)
    assert account.reported(before) == ["invoice.created", "customer.subscription.updated"]
    event = account.engine.events[-1]
    assert set(event["data"]["previous_attributes"]) == {"items", "latest_invoice"}
    assert account.invoices(sub["id"])[-1]["status"] == "draft"
    account.engine.advance(HOUR)
    assert account.invoices(sub["id"])[-1]["status"] == "paid"
    assert event["request"] == {"id": None, "idempotency_key": None}


def test_the_31st_comes_back_after_a_short_month() -> None:
    account = Account()
    account.engine.advance_to(1_769_860_800)  # 31 January 2026, 12:00 UTC
    sub = account.subscribe()
    ends = []
    for _ in range(3):
        ends.append(account.sub(sub["id"])["items"]["data"][0]["current_period_end"])
        account.engine.advance_to(ends[-1])
    assert ends == [1_772_280_000, 1_774_958_400, 1_777_550_400]  # 28 Feb, 31 Mar, 30 Apr


@pytest.mark.parametrize(
    ("final", "status"), [("cancel", "canceled"), ("unpaid", "unpaid"), ("past_due", "past_due")]
)
def test_a_failing_card_is_tried_on_schedule_and_then_given_up(final: str, status: str) -> None:
    account = Account(final=final)
    sub = account.subscribe()
    account.use("pm_card_chargeCustomerFail")
    account.engine.advance(30 * DAY + HOUR)
    first = account.engine.now
    seen = []
    for days in (0, 3, 5, 7):
        account.engine.advance(days * DAY)
        invoice = account.invoices(sub["id"])[-1]
        seen.append((invoice["attempt_count"], invoice["next_payment_attempt"]))
    assert seen == [
        (1, first + 3 * DAY),
        (2, first + 8 * DAY),
        (3, first + 15 * DAY),
        (4, None),
    ]
    assert account.sub(sub["id"])["status"] == status
    failed = [e for e in account.engine.events if e["type"] == "invoice.payment_failed"]
    assert [e["data"]["object"]["attempt_count"] for e in failed] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("rules", "days", "why"),
    [
        ({"pause_first": True}, 0, "first_payment_failure"),
        ({"final": "pause"}, 15, "final_payment_failure"),
    ],
)
def test_an_account_may_pause_what_is_not_paid(rules: Object, days: int, why: str) -> None:
    account = Account(**rules)
    sub = account.subscribe()
    account.use("pm_card_chargeCustomerFail")
    account.engine.advance(30 * DAY + HOUR)
    account.engine.advance(days * DAY)
    paused = account.sub(sub["id"])
    assert paused["status"] == "paused"
    assert paused["status_details"]["paused"]["subscription"] == {"type": why}
    account.engine.advance(60 * DAY)
    [first, unpaid] = account.invoices(sub["id"])
    assert (first["status"], unpaid["status"]) == ("paid", "open")
    before = mark(account)
    account.use("pm_card_visa")
    account.post(f"/v1/invoices/{unpaid['id']}/pay")
    resumed = account.sub(sub["id"])
    assert (resumed["status"], resumed["status_details"]) == ("active", None)
    assert "customer.subscription.resumed" in account.reported(before)
    [item] = resumed["items"]["data"]
    assert item["current_period_start"] <= account.engine.now < item["current_period_end"]
    # What is left of the period that runs is billed with the next one.
    account.engine.advance(item["current_period_end"] - account.engine.now + 2 * HOUR)
    rest, whole = (line["amount"] for line in account.invoices(sub["id"])[-1]["lines"]["data"])
    assert 0 < rest < whole == 2000


def test_what_cannot_be_paused_is_past_due_and_then_over() -> None:
    account = Account(pause_first=True, final="pause")
    sub = account.subscribe(billing_mode={"type": "classic"})
    account.use("pm_card_chargeCustomerFail")
    account.engine.advance(30 * DAY + HOUR)
    assert account.sub(sub["id"])["status"] == "past_due"
    account.engine.advance(15 * DAY)
    assert account.sub(sub["id"])["status"] == "canceled"


def test_writing_off_what_paused_a_subscription_resumes_it_and_voiding_it_does_not() -> None:
    for what, status in (("mark_uncollectible", "active"), ("void", "paused")):
        account = Account(pause_first=True)
        sub = account.subscribe()
        account.use("pm_card_chargeCustomerFail")
        account.engine.advance(30 * DAY + HOUR)
        account.post(f"/v1/invoices/{account.sub(sub['id'])['latest_invoice']}/{what}")
        assert account.sub(sub["id"])["status"] == status


def test_what_has_ended_is_not_revived_by_the_invoice_that_paused_it() -> None:
    account = Account(pause_first=True)
    sub = account.subscribe()
    account.use("pm_card_chargeCustomerFail")
    account.engine.advance(30 * DAY + HOUR)
    unpaid = account.sub(sub["id"])["latest_invoice"]
    account.call("DELETE", f"/v1/subscriptions/{sub['id']}")
    account.post(f"/v1/invoices/{unpaid}/mark_uncollectible")
    assert account.sub(sub["id"])["status"] == "canceled"


def test_another_card_brings_a_past_due_subscription_back() -> None:
    account = Account()
    sub = account.subscribe()
    account.use("pm_card_chargeCustomerFail")
    account.engine.advance(30 * DAY + HOUR)
    assert account.sub(sub["id"])["status"] == "past_due"
    account.use("pm_card_visa")
    account.engine.advance(3 * DAY)
    assert account.sub(sub["id"])["status"] == "active"
    assert account.invoices(sub["id"])[-1]["attempt_count"] == 2


def test_an_attempt_by_hand_does_not_move_the_schedule() -> None:
    account = Account()
    sub = account.subscribe()
    account.use("pm_card_chargeCustomerFail")
    account.engine.advance(30 * DAY + HOUR)
    open_invoice = account.invoices(sub["id"])[-1]
    status, error = account.refused("POST", f"/v1/invoices/{open_invoice['id']}/pay")
    assert (status, error["code"]) == (402, "card_declined")
    after = account.invoices(sub["id"])[-1]
    assert after["attempt_count"] == 1
    assert after["next_payment_attempt"] == open_invoice["next_payment_attempt"]
    paid = account.post(f"/v1/invoices/{open_invoice['id']}/pay", payment_method="pm_card_visa")
    assert paid["status"] == "paid"
    assert account.sub(sub["id"])["status"] == "active"


# ---- the end


def test_cancelling_at_the_period_end_ends_it_there_and_can_be_taken_back() -> None:
    account = Account()
    sub = account.subscribe()
    path = f"/v1/subscriptions/{sub['id']}"
    end = sub["items"]["data"][0]["current_period_end"]
    planned = account.post(path, cancel_at_period_end=True)
    assert (planned["cancel_at"], planned["cancel_at_period_end"]) == (end, True)
    kept = account.post(path, cancel_at_period_end=False)
    assert (kept["cancel_at"], kept["canceled_at"]) == (None, None)
    account.post(path, cancel_at_period_end=True)
    account.engine.advance(30 * DAY)
    gone = account.sub(sub["id"])
    assert (gone["status"], gone["ended_at"]) == ("canceled", end)
    assert len(account.invoices(sub["id"])) == 1
    assert account.reported()[-1] == "customer.subscription.deleted"


def test_the_portal_sets_cancel_at_and_leaves_the_flag_alone() -> None:
    account = Account()
    sub = account.subscribe()
    session = account.engine.get(
        account.post("/v1/billing_portal/sessions", customer=account.customer)["id"]
    )
    portal.cancel(account.engine, session, sub["id"])
    after = account.sub(sub["id"])
    assert after["cancel_at"] == sub["items"]["data"][0]["current_period_end"]
    assert after["cancel_at_period_end"] is False
    portal.keep(account.engine, session, sub["id"])
    assert account.sub(sub["id"])["cancel_at"] is None


def test_cancelling_now_is_final() -> None:
    account = Account()
    sub = account.subscribe()
    gone = account.call("DELETE", f"/v1/subscriptions/{sub['id']}")
    assert gone["status"] == "canceled"
    assert account.refused("DELETE", f"/v1/subscriptions/{sub['id']}")[0] == 404
    path = f"/v1/subscriptions/{sub['id']}"
    assert account.refused("POST", path, cancel_at_period_end=False)[0] == 400
    before = mark(account)
    account.engine.advance(400 * DAY)
    assert account.reported(before) == []


def test_deleting_a_customer_cancels_what_it_pays_for() -> None:
    account = Account()
    sub = account.subscribe()
    account.call("DELETE", f"/v1/customers/{account.customer}")
    assert account.sub(sub["id"])["status"] == "canceled"
    assert account.reported()[-1] == "customer.deleted"
    assert account.call("GET", f"/v1/customers/{account.customer}") == {
        "id": account.customer,
        "object": "customer",
        "deleted": True,
    }
    status, error = account.refused(
        "POST", "/v1/subscriptions", customer=account.customer, items=[{"price": account.basic}]
    )
    assert (status, error["param"]) == (400, "customer")


@pytest.mark.parametrize(
    ("behavior", "status"),
    [("keep_as_draft", "draft"), ("void", "void"), ("mark_uncollectible", "uncollectible")],
)
def test_a_paused_collection_keeps_renewing_without_charging(behavior: str, status: str) -> None:
    account = Account()
    sub = account.subscribe()
    account.post(f"/v1/subscriptions/{sub['id']}", pause_collection={"behavior": behavior})
    account.engine.advance(30 * DAY + HOUR)
    assert account.invoices(sub["id"])[-1]["status"] == status
    assert account.sub(sub["id"])["status"] == "active"


# ---- changes of plan


def test_half_a_period_is_credited_and_half_is_charged() -> None:
    account = Account()
    sub = account.subscribe()
    account.engine.advance(15 * DAY)
    account.switch(sub["id"], account.pro)
    assert len(account.invoices(sub["id"])) == 1
    account.engine.advance(15 * DAY)
    lines = account.invoices(sub["id"])[-1]["lines"]["data"]
    assert [line["amount"] for line in lines] == [-1000, 2500, 5000]
    flags = [line["parent"]["subscription_item_details"]["proration"] for line in lines]
    assert flags == [True, True, False]


@pytest.mark.parametrize("behavior", ["create_prorations", "always_invoice"])
def test_a_preview_says_what_is_then_billed(behavior: str) -> None:
    account = Account()
    sub = account.subscribe()
    account.engine.advance(10 * DAY)
    item = sub["items"]["data"][0]["id"]
    change = {"items": [{"id": item, "price": account.pro}], "proration_behavior": behavior}
    before = mark(account)
    preview = account.post(
        "/v1/invoices/create_preview", subscription=sub["id"], subscription_details=change
    )
    assert account.reported(before) == []
    account.switch(sub["id"], account.pro, proration_behavior=behavior)
    if behavior == "create_prorations":
        account.engine.advance(20 * DAY)
    billed = account.invoices(sub["id"])[-1]
    assert [line["amount"] for line in billed["lines"]["data"]] == [
        line["amount"] for line in preview["lines"]["data"]
    ]
    assert (billed["total"], billed["amount_due"]) == (preview["total"], preview["amount_due"])


def test_another_interval_or_the_first_paid_plan_starts_a_new_cycle() -> None:
    account = Account()
    for start, target, due in (("basic", "yearly", 19000), ("free", "basic", 2000)):
        sub = account.subscribe(getattr(account, start))
        account.engine.advance(15 * DAY)
        after = account.switch(sub["id"], getattr(account, target))
        assert after["billing_cycle_anchor"] == account.engine.now
        invoice = account.invoices(sub["id"])[-1]
        assert (invoice["total"], invoice["status"]) == (due, "paid")
        assert invoice["billing_reason"] == "subscription_update"


def test_a_downgrade_that_is_billed_at_once_leaves_a_credit_for_the_next_invoice() -> None:
    account = Account()
    sub = account.subscribe(account.pro)
    account.engine.advance(15 * DAY)
    account.switch(sub["id"], account.basic, proration_behavior="always_invoice")
    credit = account.invoices(sub["id"])[-1]
    assert (credit["total"], credit["amount_due"], credit["status"]) == (-1500, 0, "paid")
    balance = account.call("GET", f"/v1/customers/{account.customer}")["balance"]
    assert balance == -1500
    account.engine.advance(15 * DAY + HOUR)
    renewed = account.invoices(sub["id"])[-1]
    assert (renewed["total"], renewed["starting_balance"], renewed["amount_paid"]) == (
        2000,
        -1500,
        500,
    )
    assert account.call("GET", f"/v1/customers/{account.customer}")["balance"] == 0


@pytest.mark.parametrize(
    ("behavior", "answer", "price", "status"),
    [
        ("allow_incomplete", 200, "pro", "past_due"),
        ("default_incomplete", 200, "pro", "past_due"),
        ("error_if_incomplete", 402, "basic", "active"),
        ("pending_if_incomplete", 200, "basic", "active"),
    ],
)
def test_a_change_that_cannot_be_paid_does_what_was_asked(
    behavior: str, answer: int, price: str, status: str
) -> None:
    account = Account()
    sub = account.subscribe()
    account.use("pm_card_chargeCustomerFail")
    found, _ = account.engine.request(
        "POST",
        f"/v1/subscriptions/{sub['id']}",
        {
            "items": [{"id": sub["items"]["data"][0]["id"], "price": account.pro}],
            "proration_behavior": "always_invoice",
            "payment_behavior": behavior,
        },
    )
    after = account.sub(sub["id"])
    assert found == answer
    assert after["items"]["data"][0]["price"]["id"] == getattr(account, price)
    assert after["status"] == status


def test_a_pending_change_happens_when_it_is_paid_or_is_forgotten_after_23_hours() -> None:
    for card, price in (("pm_card_visa", "pro"), ("", "basic")):
        account = Account()
        sub = account.subscribe()
        account.use("pm_card_chargeCustomerFail")
        account.switch(
            sub["id"],
            account.pro,
            proration_behavior="always_invoice",
            payment_behavior="pending_if_incomplete",
        )
        assert account.sub(sub["id"])["pending_update"] is not None
        if card:
            latest = account.sub(sub["id"])["latest_invoice"]
            account.post(f"/v1/invoices/{latest}/pay", payment_method=card)
        account.engine.advance(23 * HOUR)
        after = account.sub(sub["id"])
        assert after["pending_update"] is None
        assert after["items"]["data"][0]["price"]["id"] == getattr(account, price)


# ---- prices


def test_a_lookup_key_moves_only_when_that_is_asked_for() -> None:
    account = Account()
    params: Object = {"product": account.call("GET", f"/v1/prices/{account.basic}")["product"]}
    params |= {"currency": "usd", "unit_amount": 1, "lookup_key": "pro_monthly"}
    first = account.post("/v1/prices", **params)["id"]
    assert account.refused("POST", "/v1/prices", **params)[1]["param"] == "lookup_key"
    second = account.post("/v1/prices", **params, transfer_lookup_key=True)["id"]
    found = account.call("GET", "/v1/prices", lookup_keys=["pro_monthly"])["data"]
    assert [price["id"] for price in found] == [second]
    assert account.call("GET", f"/v1/prices/{first}")["lookup_key"] is None


def test_an_archived_price_keeps_its_subscribers_and_takes_no_new_ones() -> None:
    account = Account()
    sub = account.subscribe()
    account.post(f"/v1/prices/{account.basic}", active=False)
    account.engine.advance(30 * DAY + HOUR)
    assert account.invoices(sub["id"])[-1]["status"] == "paid"
    status, error = account.refused(
        "POST", "/v1/subscriptions", customer=account.customer, items=[{"price": account.basic}]
    )
    assert (status, error["param"]) == (400, "items[0][price]")


@pytest.mark.parametrize(
    ("mode", "quantity", "amount"),
    [
        ("graduated", 3, 3 * 1000),
        ("graduated", 7, 5 * 1000 + 2 * 800 + 500),
        ("volume", 3, 3 * 1000),
        ("volume", 7, 7 * 800 + 500),
    ],
)
def test_tiers_are_counted_as_their_mode_says(mode: str, quantity: int, amount: int) -> None:
    account = Account()
    price = account.post(
        "/v1/prices",
        product_data={"name": "Seats"},
        currency="usd",
        billing_scheme="tiered",
        tiers_mode=mode,
        tiers=[
            {"up_to": 5, "unit_amount": 1000},
            {"up_to": "inf", "unit_amount": 800, "flat_amount": 500},
        ],
        recurring={"interval": "month"},
    )
    assert "tiers" not in price
    sub = account.post(
        "/v1/subscriptions",
        customer=account.customer,
        items=[{"price": price["id"], "quantity": quantity}],
    )
    assert account.invoices(sub["id"])[0]["total"] == amount


# ---- cards


@pytest.mark.parametrize(
    ("number", "code", "decline"),
    [
        ("4000000000000002", "card_declined", "generic_decline"),
        ("4000000000009995", "card_declined", "insufficient_funds"),
        ("4000000000000069", "expired_card", None),
        ("4000000000000127", "incorrect_cvc", None),
        ("4242424242424241", "incorrect_number", None),
        ("4012888888881881", "card_declined", "test_mode_live_card"),
    ],
)
def test_a_card_that_declines_cannot_be_attached(
    number: str, code: str, decline: str | None
) -> None:
    account = Account("")
    card = {"number": number, "exp_month": 12, "exp_year": 2034, "cvc": "123"}
    status, body = account.engine.request(
        "POST", "/v1/payment_methods", {"type": "card", "card": card}
    )
    if status == 200:
        status, body = account.engine.request(
            "POST", f"/v1/payment_methods/{body['id']}/attach", {"customer": account.customer}
        )
    error = body["error"]
    assert (status, error["type"]) == (402, "card_error")
    assert (error["code"], error.get("decline_code")) == (code, decline)


def test_a_card_number_is_kept_nowhere() -> None:
    account = Account("")
    card = {"number": "4242424242424242", "exp_month": 12, "exp_year": 2034, "cvc": "987"}
    method = account.post("/v1/payment_methods", type="card", card=card)
    account.post(f"/v1/payment_methods/{method['id']}/attach", customer=account.customer)
    assert "4242424242424242" not in json.dumps(account.engine.dump())


# ---- checkout


CARD = {"number": "4242 4242 4242 4242", "exp_month": "12", "exp_year": "34", "cvc": "123"}


def test_a_paid_checkout_makes_a_subscription_and_says_so_last() -> None:
    account = Account("")
    name = session(
        account,
        customer=account.customer,
        client_reference_id="ws_1",
        subscription_data={"metadata": {"workspaceId": "ws_1"}},
    )
    before = mark(account)
    where = checkout.pay_session(account.engine, name, CARD, {"email": "a@example.com"})
    assert where == f"https://kyora.test/done?session={name}"
    found = account.call("GET", f"/v1/checkout/sessions/{name}", expand=["subscription"])
    assert (found["status"], found["payment_status"]) == ("complete", "paid")
    assert found["subscription"]["status"] == "active"
    assert found["subscription"]["metadata"] == {"workspaceId": "ws_1"}
    reported = account.reported(before)
    assert 10 <= len(reported) <= 14
    assert reported[-1] == "checkout.session.completed"


def test_a_declined_checkout_stays_open_and_makes_nothing() -> None:
    account = Account("")
    name = session(account)
    before = mark(account)
    with pytest.raises(Refusal, match="insufficient funds"):
        checkout.pay_session(account.engine, name, CARD | {"number": "4000000000009995"}, {})
    assert account.reported(before) == []
    assert account.call("GET", f"/v1/checkout/sessions/{name}")["status"] == "open"


def test_a_checkout_with_3d_secure_is_done_when_the_challenge_is_passed() -> None:
    account = Account("")
    name = session(account)
    card = CARD | {"number": "4000002500003155"}
    assert "/3ds/" in checkout.pay_session(account.engine, name, card, {})
    with pytest.raises(Refusal, match="unable to authenticate"):
        checkout.pass_challenge(account.engine, name, passed=False)
    checkout.pay_session(account.engine, name, card, {})
    checkout.pass_challenge(account.engine, name, passed=True)
    sub = account.call("GET", f"/v1/checkout/sessions/{name}", expand=["subscription"])
    assert sub["subscription"]["status"] == "active"
    account.engine.advance(31 * DAY)  # authenticated once, the card renews automatically
    assert account.sub(sub["subscription"]["id"])["status"] == "active"


def test_an_unpaid_checkout_expires_after_a_day() -> None:
    account = Account()
    name = session(account)
    account.engine.advance(DAY)
    assert account.call("GET", f"/v1/checkout/sessions/{name}")["status"] == "expired"
    assert account.reported()[-1] == "checkout.session.expired"


# ---- requests


def test_the_same_key_answers_the_same_and_does_nothing_twice() -> None:
    account = Account()
    engine = account.engine
    first = engine.answer("POST", "/v1/customers", {"email": "a@b.co"}, "key-1")
    again = engine.answer("POST", "/v1/customers", {"email": "a@b.co"}, "key-1")
    assert again.body == first.body
    assert (first.replayed, again.replayed) == (False, True)
    other = engine.answer("POST", "/v1/customers", {"email": "c@d.co"}, "key-1")
    assert (other.status, other.body["error"]["type"]) == (400, "idempotency_error")
    engine.advance(DAY)
    assert engine.answer("POST", "/v1/customers", {"email": "c@d.co"}, "key-1").status == 200


def test_a_request_refused_before_it_ran_may_be_tried_again_with_its_key() -> None:
    account = Account()
    assert account.engine.request("POST", "/v1/customers", {"balance": "x"}, "key-1")[0] == 400
    assert account.engine.request("POST", "/v1/customers", {"balance": 1}, "key-1")[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "params", "status", "code", "param"),
    [
        ("GET", "/v1/customers/cus_x", {}, 404, "resource_missing", "id"),
        ("GET", "/v1/unknown", {}, 404, None, None),
        ("DELETE", "/v1/prices/price_x", {}, 404, None, None),
        ("POST", "/v1/subscriptions", {}, 400, "parameter_missing", "customer"),
        ("POST", "/v1/customers", {"emial": "x"}, 400, "parameter_unknown", "emial"),
        ("GET", "/v1/prices", {"limit": "ten"}, 400, "parameter_invalid_integer", "limit"),
        ("GET", "/v1/prices", {"limit": 101}, 400, None, "limit"),
        ("GET", "/v1/prices", {"active": "perhaps"}, 400, None, "active"),
        ("GET", "/v1/prices", {"starting_after": "p"}, 400, "resource_missing", "starting_after"),
        ("GET", "/v1/customers", {"expand": ["data.email"]}, 400, None, "expand"),
        (
            *("GET", "/v1/customers", {"expand": ["a.b.c.d.e"]}, 400),
            *("property_expansion_max_depth", "expand"),
        ),
        ("POST", "/v1/products", {"name": ""}, 400, "parameter_invalid_empty", "name"),
    ],
)
def test_a_request_that_cannot_be_is_refused_by_name(
    method: str, path: str, params: Object, status: int, code: str | None, param: str | None
) -> None:
    account = Account()
    before = account.engine.dump()["objects"]
    found, error = account.refused(method, path, **params)
    assert (found, error.get("code"), error.get("param")) == (status, code, param)
    assert error["type"] == "invalid_request_error"
    assert account.engine.dump()["objects"] == before


@given(st.integers(1, 7), st.integers(0, 20))
def test_pages_are_a_partition_in_both_directions(limit: int, number: int) -> None:
    engine = Engine(now=START)
    for _ in range(number):
        engine.request("POST", "/v1/customers", {})
    everything = [item["id"] for item in reversed(engine.objects.values())]
    for key, place in (("starting_after", -1), ("ending_before", 0)):
        seen: list[str] = []
        params: Object = {"limit": limit}
        if key == "ending_before" and everything:
            params[key], seen = everything[-1], [everything[-1]]
        while True:
            _, page = engine.request("GET", "/v1/customers", params)
            ids = [item["id"] for item in page["data"]]
            seen = seen + ids if key == "starting_after" else ids + seen
            if not page["has_more"]:
                break
            params[key] = ids[place]
        assert seen == everything


# ---- properties of any life


SLOWLY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@SLOWLY
@given(LIVES)
def test_the_sums_of_every_invoice_agree_at_every_moment(actions: list[tuple[str, Any]]) -> None:
    account = Account()
    live(account, actions)
    for event in account.engine.events:
        invoice = event["data"]["object"]
        if invoice["object"] != "invoice":
            continue
        assert sum(line["amount"] for line in invoice["lines"]["data"]) == invoice["total"]
        due = max(0, invoice["total"] + invoice["starting_balance"])
        assert invoice["amount_due"] == due
        if invoice["status"] != "void":
            assert invoice["amount_paid"] + invoice["amount_remaining"] == due
        if invoice["status"] == "paid":
            assert invoice["amount_remaining"] == 0
            assert invoice["next_payment_attempt"] is None


def _restore(now: Any, previous: Any) -> Any:
    """Return an object as it was before its `previous_attributes` changed."""
    if not isinstance(now, dict) or not isinstance(previous, dict):
        return previous
    return now | {name: _restore(now.get(name), value) for name, value in previous.items()}


@SLOWLY
@given(LIVES)
def test_previous_attributes_lead_back_to_the_last_snapshot(
    actions: list[tuple[str, Any]],
) -> None:
    account = Account()
    live(account, actions)
    last: dict[str, Object] = {}
    for event in account.engine.events:
        shown = event["data"]["object"]
        # The number of the next invoice counts up without an event, at Stripe too.
        comparable = {key: v for key, v in shown.items() if key != "next_invoice_sequence"}
        previous = event["data"].get("previous_attributes")
        assert (previous is not None) == (
            event["type"].endswith((".updated", ".detached", "pending_update_expired"))
        )
        if previous is not None:
            assert previous
            assert _restore(comparable, previous) == last[shown["id"]], event["type"]
        last[shown["id"]] = comparable


@SLOWLY
@given(LIVES)
def test_what_the_api_shows_is_what_the_last_event_said(actions: list[tuple[str, Any]]) -> None:
    account = Account()
    live(account, actions)
    last = {
        event["data"]["object"]["id"]: event["data"]["object"] for event in account.engine.events
    }
    for kind in ("subscription", "invoice", "customer", "payment_method"):
        for found in account.engine.all(kind):
            shown = account.engine.show(found)
            reported = last[shown["id"]]
            for each in (shown, reported):
                each.pop("next_invoice_sequence", None)
            assert shown == reported


@SLOWLY
@given(LIVES, LIVES)
def test_a_life_goes_on_the_same_after_a_dump(
    before: list[tuple[str, Any]], after: list[tuple[str, Any]]
) -> None:
    account = Account()
    live(account, before)
    twin = Account()
    twin.engine = Engine.load(account.engine.dump())
    assert twin.engine.dump() == account.engine.dump()
    for each in (account, twin):
        live(each, after)
    assert twin.engine.dump() == account.engine.dump()


@SLOWLY
@given(LIVES, st.integers(1, 200))
def test_time_in_steps_comes_to_the_same_as_time_in_one(
    actions: list[tuple[str, Any]], step: int
) -> None:
    whole, steps = Account(), Account()
    for account in (whole, steps):
        live(account, actions)
    days = 100
    whole.engine.advance(days * DAY)
    left = days * DAY
    while left:
        part = min(left, step * HOUR)
        steps.engine.advance(part)
        left -= part
    assert whole.engine.dump() == steps.engine.dump()
