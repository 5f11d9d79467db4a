"""Upgrades now, downgrades at renewal, ends and pauses: what is charged, credited and shown."""

import urllib.parse
import urllib.request
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kyora.billing.jobs import sweep
from tests.integration.support import api
from tests.integration.support.shops import Shop
from tests.integration.support.subscribing import (
    HOME,
    SUBSCRIPTION,
    bad_card,
    cancel,
    checkout,
    choose,
    good_card,
    live,
    open_businesses,
    pause,
    payer,
    price_id,
    read,
    resume,
    rows,
)

__all__ = ["payer"]
PENDING = f"DELETE {SUBSCRIPTION}/pending-change"


def take_back() -> api.Answer:
    return api.call(PENDING)


def charged(shop: Shop) -> int:
    return sum(c["amount"] for c in shop.all("charge") if c["status"] == "succeeded")


def balance(shop: Shop) -> int:
    [customer] = shop.all("customer")
    return int(customer["balance"])


@pytest.fixture
def enterprise(payer: Shop) -> Shop:
    """A workspace on `enterprise`, upgraded to it from `professional` a moment ago."""
    assert choose("enterprise").status == 200
    payer.deliver()
    return payer


# ---- up


def test_a_better_plan_is_charged_at_once(payer: Shop) -> None:
    payer.advance(15)
    before = charged(payer)
    shown = choose("enterprise", preview="true").body["preview"]
    assert (shown["when"], shown["dueNow"] > 0) == ("now", True)
    assert choose("enterprise").body["plan"]["id"] == "enterprise"
    assert abs(charged(payer) - before - shown["dueNow"]) <= 1  # a second of a month
    assert cancel("now").status == 200
    assert balance(payer) < 0  # what was paid for and not used is a credit


def test_a_better_plan_at_renewal_waits_for_it(payer: Shop) -> None:
    found = choose("enterprise", when="renewal").body
    assert found["plan"]["id"] == "professional"
    assert found["pendingChange"]["plan"]["id"] == "enterprise"


@pytest.mark.parametrize("plan", ["enterprise", "professional-year"])
def test_who_owes_cannot_move_up_before_it_is_paid(payer: Shop, plan: str) -> None:
    bad_card(payer)
    payer.advance(32)
    payer.deliver()
    assert read()["status"] == "past_due"
    refused = choose(plan)
    assert (refused.status, refused.code) == (402, "billing.payment_required")
    assert refused.body["payUrl"] == read()["payUrl"]
    assert refused.body["clientSecret"]
    good_card(payer)
    payer.pay(live(payer)["id"])
    payer.deliver()
    assert choose(plan).body["plan"]["id"] == plan
    assert "payUrl" not in read()


def test_the_current_plan_takes_an_upgrade_back_that_waits_for_its_payment(payer: Shop) -> None:
    bad_card(payer)
    assert choose("enterprise").code == "billing.payment_required"
    payer.deliver()
    assert read()["payUrl"]
    found = choose("professional")
    assert (found.status, found.body["plan"]["id"]) == (200, "professional")
    assert live(payer)["pending_update"] is None
    payer.deliver()
    assert "payUrl" not in read()


def test_an_invoice_that_is_being_charged_is_not_owed(payer: Shop) -> None:
    choose("enterprise")
    assert "payUrl" not in read()
    rows("UPDATE invoice SET status = 'open', attempt_count = 0 WHERE true RETURNING id")
    assert "payUrl" not in read()
    rows("UPDATE invoice SET attempt_count = 1 WHERE true RETURNING id")
    assert read()["payUrl"]


# ---- down


def test_a_smaller_plan_waits_for_the_renewal_and_is_shown(enterprise: Shop) -> None:
    before, ends = charged(enterprise), read()["currentPeriodEnd"]
    shown = choose("professional", preview="true").body["preview"]
    assert (shown["when"], shown["dueNow"], shown["amount"]) == ("renewal", 0, 9900)
    assert shown["dueAt"] == ends
    found = choose("professional")
    assert found.status == 200, found
    assert (found.body["plan"]["id"], found.body["limits"]["maxBusinesses"]) == ("enterprise", -1)
    coming = found.body["pendingChange"]
    assert (coming["plan"]["id"], coming["date"]) == ("professional", ends)
    price = {"amount": 9900, "currency": "AED", "interval": "month", "intervalCount": 1}
    assert coming["price"] == price | {"quantity": 1}
    assert found.body["nextCharge"] == {"amount": 9900, "currency": "AED", "at": ends}
    enterprise.deliver()
    assert read()["pendingChange"] == coming
    assert charged(enterprise) == before
    enterprise.advance(32)
    enterprise.deliver()
    after = read()
    assert (after["plan"]["id"], after["limits"]["maxBusinesses"]) == ("professional", 3)
    assert "pendingChange" not in after
    assert charged(enterprise) == before + 9900
    assert choose("enterprise").body["plan"]["id"] == "enterprise"  # the schedule lets go


def test_a_planned_change_that_has_begun_lets_its_schedule_go(enterprise: Shop) -> None:
    """It would stay for one more period, and keep the portal from changing anything."""
    choose("professional")
    assert sweep.sweep(lambda: 60.0)["schedules"] == 0
    assert live(enterprise)["schedule"]
    enterprise.advance(32)
    enterprise.deliver()
    assert sweep.sweep(lambda: 60.0)["schedules"] == 1
    assert live(enterprise)["schedule"] is None
    [terms] = rows("SELECT schedule_id, release_due FROM subscription_terms")
    assert terms == {"schedule_id": None, "release_due": False}
    enterprise.deliver()
    assert sweep.sweep(lambda: 60.0)["schedules"] == 0
    assert (read()["plan"]["id"], read()["status"]) == ("professional", "active")


def test_a_schedule_that_is_not_ours_is_left_alone(enterprise: Shop) -> None:
    choose("professional")
    schedule = live(enterprise)["schedule"]
    path = f"subscription_schedules/{schedule}"
    enterprise.request("POST", path, metadata={"kyora_from": ""})
    enterprise.advance(32)
    enterprise.deliver()
    assert sweep.sweep(lambda: 60.0)["schedules"] == 0
    assert live(enterprise)["schedule"] == schedule


def test_an_upgrade_that_is_not_paid_keeps_the_planned_change(payer: Shop) -> None:
    coming = choose("starter").body["pendingChange"]
    bad_card(payer)
    assert choose("enterprise").code == "billing.payment_required"
    payer.deliver()
    assert (read()["plan"]["id"], read()["pendingChange"]) == ("professional", coming)
    assert choose("enterprise").code == "billing.payment_required"  # the same, once more
    payer.advance(2)  # Stripe drops it after 23 hours
    payer.deliver()
    assert live(payer)["pending_update"] is None
    assert sweep.sweep(lambda: 60.0)["schedules"] == 0
    assert read()["pendingChange"] == coming
    payer.advance(30)
    payer.deliver()
    assert read()["plan"]["id"] == "starter"


def test_an_upgrade_that_is_paid_later_ends_the_planned_change(payer: Shop) -> None:
    choose("starter")
    bad_card(payer)
    assert choose("enterprise").code == "billing.payment_required"
    payer.deliver()
    payer.pay(live(payer)["id"])
    payer.deliver()
    assert (read()["plan"]["id"], "pendingChange" in read()) == ("enterprise", False)
    assert sweep.sweep(lambda: 60.0)["schedules"] == 1
    assert live(payer)["schedule"] is None
    payer.advance(32)
    payer.deliver()
    assert read()["plan"]["id"] == "enterprise"


def test_an_upgrade_that_stripe_refuses_beside_a_schedule_is_made_without_it(payer: Shop) -> None:
    choose("starter")
    path = f"/v1/subscriptions/{live(payer)['id']}"
    payer.fail("status", times=1, status=400, path=path, method="POST")
    assert choose("enterprise").body["plan"]["id"] == "enterprise"
    assert live(payer)["schedule"] is None


def test_right_after_paying_a_smaller_plan_waits(payer: Shop) -> None:
    found = choose("starter").body
    assert (found["plan"]["id"], found["access"]) == ("professional", "full")
    assert found["pendingChange"]["plan"]["id"] == "starter"
    payer.advance(32)
    payer.deliver()
    assert read()["plan"]["id"] == "starter"
    assert charged(payer) == 9900


@pytest.mark.parametrize("how", ["route", "choice", "resume"])
def test_what_is_planned_is_taken_back(enterprise: Shop, how: str) -> None:
    choose("professional")
    found = take_back() if how == "route" else choose("enterprise")
    assert (found.status, "pendingChange" in found.body) == (200, False)
    assert live(enterprise)["schedule"] is None
    enterprise.advance(32)
    enterprise.deliver()
    assert read()["plan"]["id"] == "enterprise"
    assert take_back().same_as(take_back())


def test_an_end_is_a_change_to_the_free_plan_and_is_taken_back(payer: Shop) -> None:
    coming = cancel().body["pendingChange"]
    assert (coming["plan"]["id"], coming["date"]) == ("starter", read()["cancelAt"])
    assert coming["price"]["amount"] == 0
    found = take_back().body
    assert not {"pendingChange", "cancelAt"} & found.keys()


@pytest.mark.parametrize("then", ["cancel", "end", "up", "year", "down again", "pause"])
def test_the_schedule_is_released_before_anything_else_is_changed(
    enterprise: Shop, then: str
) -> None:
    choose("professional")
    found = {
        "cancel": cancel,
        "end": lambda: cancel("now"),
        "up": lambda: choose("professional-year", when="now"),
        "year": lambda: choose("professional-year"),
        "down again": lambda: choose("starter"),
        "pause": pause,
    }[then]()
    assert found.status == 200, found
    enterprise.deliver()
    coming = read().get("pendingChange", {}).get("plan", {}).get("id")
    wanted = {"cancel": "starter", "year": "professional-year", "down again": "starter"}
    assert coming == wanted.get(then)
    running = [s for s in enterprise.all("subscription_schedule") if s["status"] == "active"]
    assert len(running) == (then in ("year", "down again"))


def test_a_plan_that_is_too_small_is_refused_for_the_renewal_as_well(enterprise: Shop) -> None:
    open_businesses(4)
    refused = choose("professional")
    assert (refused.status, refused.code) == (409, "billing.downgrade_blocked")
    assert refused.body["over"] == [{"limit": "maxBusinesses", "allowed": 3, "used": 4}]
    assert "pendingChange" not in read()


def test_its_limits_apply_at_the_renewal_and_not_before(enterprise: Shop) -> None:
    choose("professional")
    open_businesses(4)
    assert read()["overLimit"] == []
    enterprise.advance(32)
    enterprise.deliver()
    assert read()["overLimit"] == ["maxBusinesses"]


def test_a_trial_is_not_ended_by_what_is_planned_after_it(payer: Shop) -> None:
    cancel("now")
    [customer] = payer.all("customer")
    payer.save_card(customer["id"])
    payer.request(
        *("POST", "subscriptions"),
        customer=customer["id"],
        items=[{"price": price_id("enterprise")}],
        trial_period_days=10,
        metadata={"workspaceId": "ws_demo"},
    )
    payer.deliver()
    assert read()["status"] == "trialing"
    found = choose("professional").body
    assert (found["status"], found["plan"]["id"]) == ("trialing", "enterprise")
    assert found["pendingChange"]["date"] == found["trialEnd"]
    payer.advance(11)
    payer.deliver()
    assert (read()["status"], read()["plan"]["id"]) == ("active", "professional")


def test_a_schedule_that_is_made_and_not_filled_is_let_go(enterprise: Shop) -> None:
    path = "/v1/subscription_schedules/"
    enterprise.fail("status", times=3, status=500, path=path, method="POST")
    assert choose("professional").status == 503
    assert choose("professional").body["pendingChange"]["plan"]["id"] == "professional"
    running = [s for s in enterprise.all("subscription_schedule") if s["status"] == "active"]
    assert len(running) == 1


def test_a_smaller_plan_asked_for_now_leaves_a_credit(enterprise: Shop) -> None:
    found = choose("professional", when="now").body
    assert found["plan"]["id"] == "professional"
    assert -20000 <= balance(enterprise) < 0
    before = charged(enterprise)
    enterprise.advance(32)
    enterprise.deliver()
    assert charged(enterprise) == before  # the credit covers the next month


# ---- ends


def test_credits_survive_a_new_checkout(enterprise: Shop) -> None:
    choose("starter", when="now")
    credit = balance(enterprise)
    assert credit < -29000
    assert checkout("professional").status == 200
    assert balance(enterprise) == credit


def test_a_period_that_is_not_paid_for_is_credited_to_no_one(payer: Shop) -> None:
    bad_card(payer)
    payer.advance(32)
    payer.deliver()
    assert read()["status"] == "past_due"
    assert cancel("now").status == 200
    assert balance(payer) == 0


def test_an_upgrade_that_waits_for_its_payment_takes_no_credit_away(payer: Shop) -> None:
    """It is dropped: no one is to pay for it once the subscription has ended."""
    bad_card(payer)
    assert choose("enterprise").code == "billing.payment_required"
    assert cancel("now").status == 200
    assert -9900 <= balance(payer) < -9800
    assert {one["status"] for one in payer.all("invoice")} == {"paid", "void"}


def test_a_renewal_that_is_a_draft_still_is_credited_to_no_one(payer: Shop) -> None:
    month = datetime.fromisoformat(read()["currentPeriodEnd"]) - datetime.now(UTC)
    payer.advance(month.total_seconds() / 86400 + 0.01)
    payer.deliver()
    assert cancel("now").status == 200
    assert balance(payer) == 0


def test_a_renewal_that_is_a_draft_still_is_paid_before_a_better_plan(payer: Shop) -> None:
    month = datetime.fromisoformat(read()["currentPeriodEnd"]) - datetime.now(UTC)
    payer.advance(month.total_seconds() / 86400 + 0.01)
    payer.deliver()
    [draft] = [invoice for invoice in payer.all("invoice") if invoice["status"] == "draft"]
    assert choose("enterprise").body["plan"]["id"] == "enterprise"
    found = {invoice["id"]: invoice for invoice in payer.all("invoice")}
    assert (found[draft["id"]]["status"], found[draft["id"]]["amount_paid"]) == (
        *("paid",),
        draft["total"],
    )
    assert {invoice["status"] for invoice in found.values()} == {"paid"}


def test_the_earlier_end_counts(payer: Shop) -> None:
    far = payer.on.engine.now + 180 * 86400
    payer.request("POST", f"subscriptions/{live(payer)['id']}", cancel_at=far)
    payer.deliver()
    found = cancel().body
    assert found["cancelAt"] == found["currentPeriodEnd"]
    soon = payer.on.engine.now + 86400
    payer.request("POST", f"subscriptions/{live(payer)['id']}", cancel_at=soon)
    payer.deliver()
    assert cancel().body["cancelAt"] < found["currentPeriodEnd"]


# ---- previews


def test_a_preview_of_ones_own_plan_is_the_next_invoice(payer: Shop) -> None:
    shown = choose("professional", preview="true").body["preview"]
    assert (shown["dueNow"], shown["amount"], shown["proration"]) == (0, 9900, 0)
    assert shown["dueAt"] == read()["currentPeriodEnd"]


def test_a_preview_of_ones_own_plan_is_without_what_is_planned(enterprise: Shop) -> None:
    choose("professional")
    assert choose("enterprise", preview="true").body["preview"]["amount"] == 29900


def test_a_preview_takes_a_scheduled_end_back_as_the_change_does(payer: Shop) -> None:
    cancel()
    shown = choose("professional", preview="true").body["preview"]
    assert shown["amount"] == 9900
    up = choose("enterprise", preview="true").body["preview"]
    before = charged(payer)
    choose("enterprise")
    assert abs(charged(payer) - before - up["dueNow"]) <= 1


def test_a_preview_of_another_interval_at_renewal_is_its_first_invoice(payer: Shop) -> None:
    choose("professional-year")
    shown = choose("professional", preview="true").body["preview"]
    assert (shown["when"], shown["dueNow"], shown["amount"]) == ("renewal", 0, 9900)


# ---- what is really paid


def test_what_is_shown_is_what_is_paid(payer: Shop) -> None:
    product = payer.request("GET", f"prices/{price_id('professional')}")["product"]
    negotiated = payer.request(
        *("POST", "prices"),
        product=product,
        unit_amount=5000,
        currency="aed",
        recurring={"interval": "month"},
    )
    rows(
        "INSERT INTO plan_price (price_id, plan_id, active) VALUES (:id, 'professional', false)"
        " RETURNING price_id",
        id=negotiated["id"],
    )
    item = live(payer)["items"]["data"][0]["id"]
    payer.request(
        *("POST", f"subscriptions/{live(payer)['id']}"),
        items=[{"id": item, "price": negotiated["id"], "quantity": 3}],
        proration_behavior="none",
    )
    payer.deliver()
    found = read()
    assert found["plan"]["amount"] == 9900
    assert (found["price"]["amount"], found["price"]["quantity"]) == (5000, 3)
    assert found["nextCharge"]["amount"] == 15000
    [customer] = payer.all("customer")
    payer.request("POST", f"customers/{customer['id']}", balance=-1000)
    payer.deliver()
    assert read()["nextCharge"]["amount"] == 14000
    cancel()
    assert "nextCharge" not in read()


def test_who_pays_nothing_is_shown_the_free_plans_price(shop: Shop) -> None:
    found = read()
    assert (found["price"]["amount"], found["price"]["currency"]) == (0, "AED")
    assert not {"nextCharge", "payUrl", "pendingChange", "pausedUntil"} & found.keys()


# ---- pauses


def test_a_pause_takes_access_and_invoices_away_until_it_is_resumed(payer: Shop) -> None:
    payer.advance(15)
    found = pause()
    assert (found.status, found.body["status"], found.body["access"]) == (200, "paused", "free")
    payer.advance(60)
    payer.deliver()
    assert charged(payer) == 9900
    back = resume()
    assert (back.status, back.body["status"], back.body["plan"]["id"]) == (
        *(200, "active", "professional"),
    )
    assert 9900 + 4000 < charged(payer) < 9900 + 6000  # less what was left of the first month


def test_a_pause_ends_on_its_day(payer: Shop) -> None:
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=40)
    found = pause(resumeAt=until.isoformat())
    assert found.status == 200, found
    assert datetime.fromisoformat(found.body["pausedUntil"]) == until
    later = until + timedelta(days=5)
    moved = pause(resumeAt=later.isoformat()).body
    assert datetime.fromisoformat(moved["pausedUntil"]) == later
    payer.advance(42)
    payer.deliver()
    assert read()["status"] == "paused"
    payer.advance(5)
    payer.deliver()
    assert (read()["status"], "pausedUntil" in read()) == ("active", False)


@pytest.mark.parametrize("day", ["2020-01-01T00:00:00Z", "2200-01-01T00:00:00Z", "tomorrow"])
def test_a_pause_ends_in_the_next_two_years(payer: Shop, day: str) -> None:
    refused = pause(resumeAt=day)
    assert (refused.status, refused.body["errors"][0]["field"]) == (422, "resumeAt")


@pytest.mark.parametrize("state", ["ending", "owing", "none"])
def test_only_what_is_paid_for_and_goes_on_is_paused(payer: Shop, state: str) -> None:
    if state == "ending":
        cancel()
    elif state == "owing":
        bad_card(payer)
        payer.advance(32)
        payer.deliver()
    else:
        cancel("now")
    refused = pause()
    code = "billing.no_subscription" if state == "none" else "billing.cannot_pause"
    assert (refused.status, refused.code) == (409, code)


def test_an_old_subscription_becomes_flexible_to_be_paused(payer: Shop) -> None:
    cancel("now")
    [customer] = payer.all("customer")
    payer.save_card(customer["id"])
    payer.request(
        *("POST", "subscriptions"),
        customer=customer["id"],
        items=[{"price": price_id("professional")}],
        billing_mode={"type": "classic"},
    )
    payer.deliver()
    assert pause().body["status"] == "paused"


@pytest.mark.parametrize("ask", [resume, lambda: choose("professional")], ids=["resume", "choose"])
@pytest.mark.parametrize("card", ["none", "bad"])
def test_who_cannot_pay_the_resumption_is_shown_the_way(payer: Shop, card: str, ask: Any) -> None:
    payer.advance(15)
    pause()
    bad_card(payer)
    if card == "none":
        for method in payer.all("payment_method"):
            if method["customer"]:
                payer.request("POST", f"payment_methods/{method['id']}/detach")
    payer.deliver()
    refused = ask()
    assert (refused.status, refused.code) == (402, "billing.payment_required")
    assert refused.body["payUrl"].startswith(payer.url)
    assert ask().body["payUrl"] == refused.body["payUrl"]
    good_card(payer)
    payer.pay(live(payer)["id"])
    payer.deliver()
    assert (read()["status"], read()["access"]) == ("active", "full")


def test_another_plan_ends_the_pause_and_uses_its_credit(payer: Shop) -> None:
    payer.advance(15)
    pause()
    found = choose("enterprise")
    assert found.status == 200, found
    assert found.body["plan"]["id"] == "enterprise"
    assert 24000 + 9900 < charged(payer) < 26000 + 9900


@pytest.mark.parametrize("then", ["paid", "voided"])
def test_what_stripe_paused_for_a_failed_payment_is_paid_before_another_plan(
    payer: Shop, then: str
) -> None:
    payer.calls(lambda: object.__setattr__(payer.on.engine.rules, "pause_first", True))
    bad_card(payer)
    payer.advance(32)
    payer.deliver()
    assert (read()["status"], read()["access"]) == ("paused", "grace")
    good_card(payer)
    refused = choose("enterprise")
    assert (refused.status, refused.code) == (402, "billing.payment_required")
    assert refused.body["payUrl"] == read()["payUrl"]
    if then == "paid":
        payer.pay(live(payer)["id"])
    else:
        payer.request("POST", f"invoices/{live(payer)['latest_invoice']}/void")
    payer.deliver()
    assert choose("enterprise").body["plan"]["id"] == "enterprise"
    assert len([sub for sub in payer.all("subscription") if sub["status"] == "active"]) == 1


# ---- unpaid, and pages


@pytest.mark.parametrize("tens", [6, 8], ids=["its last invoice is open", "a draft"])
def test_unpaid_is_answered_with_the_way_to_pay(payer: Shop, tens: int) -> None:
    bad_card(payer)
    payer.calls(lambda: object.__setattr__(payer.on.engine.rules, "final", "unpaid"))
    for _ in range(tens):
        payer.advance(10)
    payer.deliver()
    assert read()["status"] == "unpaid"
    for refused in (resume(), choose("professional"), choose("enterprise"), checkout("enterprise")):
        assert (refused.status, refused.code) == (402, "billing.payment_required")
        assert refused.body["payUrl"]
    good_card(payer)
    payer.pay(live(payer)["id"])
    payer.deliver()
    assert (read()["status"], read()["access"]) == ("active", "full")


@pytest.mark.parametrize(
    "flow", ["payment_method_update", "subscription_cancel", "subscription_update"]
)
def test_the_portal_opens_at_one_task(payer: Shop, flow: str) -> None:
    body = {"returnUrl": HOME, "flow": flow}
    found = api.call("POST /v1/billing/portal-session", body=body)
    assert found.status == 200, found
    [session] = payer.all("billing_portal.session")
    assert session["flow"]["type"] == flow
    if flow != "payment_method_update":
        assert session["flow"][flow] == {"subscription": live(payer)["id"]}


def page(url: str, **form: str) -> tuple[str, str]:
    """Open a page of the stand-in's, or send its form; return where that leads and what it says."""
    data = urllib.parse.urlencode(form).encode() or None
    with urllib.request.urlopen(url, data) as answer:  # the stand-in's
        return answer.url, answer.read().decode()


def test_a_task_shows_nothing_else_and_leads_back(payer: Shop) -> None:
    for flow, there, absent in (
        ("payment_method_update", "Save card", "Cancel subscription"),
        ("subscription_cancel", "Cancel subscription", "Save card"),
        ("subscription_update", "Change plan", "Cancel subscription"),
    ):
        body = {"returnUrl": HOME, "flow": flow}
        url = api.call("POST /v1/billing/portal-session", body=body).body["url"]
        _, said = page(url)
        assert there in said
        assert absent not in said
        assert "Invoices" not in said
    [session, *_] = payer.all("billing_portal.session")
    assert session["flow"]["after_completion"]["redirect"]["return_url"] == HOME


def test_the_portal_shows_what_is_planned_and_paused(enterprise: Shop) -> None:
    choose("professional")
    url = api.call("POST /v1/billing/portal-session", body={"returnUrl": HOME}).body["url"]
    assert "Changes to <bdi>Professional</bdi> on" in page(url)[1]
    pause()
    assert "Paused" in page(url)[1]


def test_the_portal_has_no_task_for_a_subscription_that_is_not_there(shop: Shop) -> None:
    body = {"returnUrl": HOME, "flow": "subscription_cancel"}
    assert api.call("POST /v1/billing/portal-session", body=body).code == "billing.no_subscription"
    body["flow"] = "everything"
    assert api.call("POST /v1/billing/portal-session", body=body).status == 422


@pytest.mark.parametrize(
    "ask",
    [
        lambda: api.call(f"POST {SUBSCRIPTION}/pause", body={}, who=api.MEMBER),
        lambda: api.call(PENDING, who=api.MEMBER),
    ],
    ids=["pause", "take back"],
)
def test_only_an_admin_pauses_or_takes_back(payer: Shop, ask: Any) -> None:
    assert ask().code == "auth.forbidden"
