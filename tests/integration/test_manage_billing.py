"""The billing routes, against the stand-in's real server and with the real SDK."""

from typing import Any

import pytest

from kyora import postgres
from kyora.billing import access
from kyora.billing.api import subscriptions
from kyora.billing.stripe_objects import TERMINAL
from tests.integration.support import api
from tests.integration.support.shops import GIB, Shop
from tests.integration.support.subscribing import (
    HOME,
    SUBSCRIPTION,
    cancel,
    checkout,
    choose,
    open_businesses,
    payer,
    read,
    resume,
    rows,
)
from tests.integration.support.workers import Crew

__all__ = ["payer"]

WRITES_ACCOUNTS = True


def own(workspace: str = "ws_demo") -> None:
    """Say who owns a workspace."""
    with postgres.transaction() as tx:
        tx.run("UPDATE workspace SET owner_id = 'usr_demo_admin' WHERE id = :id", id=workspace)


# ---- plans


def test_plans_are_public_and_the_cheapest_comes_first(shop: Shop) -> None:
    found = api.call("GET /v1/billing/plans", who=None)
    assert found.status == 200
    assert [plan["id"] for plan in found.body["items"]] == [
        *("starter", "professional", "enterprise", "professional-year")
    ]
    one = api.call("GET /v1/billing/plans/{planId}", plan_id="professional", who=None)
    assert one.body == found.body["items"][1]
    assert (one.body["amount"], one.body["currency"]) == (9900, "AED")


def test_without_a_catalogue_the_free_plan_is_there(database: str) -> None:
    [free] = api.call("GET /v1/billing/plans", who=None).body["items"]
    assert (free["id"], free["amount"], "stripePriceId" in free) == ("free", 0, False)
    assert read()["plan"] == free


@pytest.mark.parametrize("plan", ["nothing", "a%20b", "\0", "x" * 300])
def test_an_unknown_plan_is_not_found(plan: str, shop: Shop) -> None:
    found = api.call("GET /v1/billing/plans/{planId}", plan_id=plan, who=None)
    assert (found.status, found.code) == (404, "billing.plan_not_found")


def test_an_archived_plan_is_shown_and_not_offered(shop: Shop) -> None:
    rows("UPDATE plan SET active = false WHERE id = 'enterprise' RETURNING id")
    listed = api.call("GET /v1/billing/plans", who=None).body["items"]
    assert "enterprise" not in [plan["id"] for plan in listed]
    shown = api.call("GET /v1/billing/plans/{planId}", plan_id="enterprise", who=None)
    assert shown.body["active"] is False
    assert choose("enterprise").code == "billing.plan_not_found"


# ---- reading


def test_a_workspace_that_never_paid_is_on_the_free_plan_and_reading_writes_nothing(
    shop: Shop,
) -> None:
    found = read()
    assert (found["status"], found["access"], found["plan"]["id"]) == ("free", "free", "starter")
    assert found["limits"]["maxBusinesses"] == 1
    assert found["usage"] == {"maxBusinesses": 0, "maxTeamMembers": 2, "maxStorageBytes": 0}
    assert found["overLimit"] == []
    assert not {"currentPeriodEnd", "cancelAt", "paymentMethod"} & found.keys()
    assert rows("SELECT * FROM workspace_billing") == []


def test_usage_counts_this_workspaces_own(shop: Shop) -> None:
    open_businesses(2)
    rows("UPDATE app_user SET deleted_at = now() WHERE id = 'usr_demo_member' RETURNING id")
    rows(
        "INSERT INTO storage_usage (workspace_id, used_bytes, reserved_bytes)"
        f" VALUES ('ws_demo', {GIB}, 5), ('ws_other', 7, 0) RETURNING workspace_id"
    )
    found = read(api.ADMIN)
    assert found["usage"] == {
        "maxBusinesses": 2,
        "maxTeamMembers": 1,
        "maxStorageBytes": GIB + 5,
    }
    assert found["overLimit"] == ["maxBusinesses", "maxStorageBytes"]


def test_a_row_that_names_a_free_plan_of_old_shows_the_one_of_now(shop: Shop) -> None:
    rows(
        "INSERT INTO workspace_billing (workspace_id, plan_id, access, limits, status)"
        " VALUES ('ws_demo', 'free', 'free', '{\"maxBusinesses\": 1}', 'free') RETURNING plan_id"
    )
    assert read()["plan"]["id"] == "starter"


def test_uploads_take_from_the_plans_storage(shop: Shop) -> None:
    file = {"filename": "a.mp4", "contentType": "video/mp4", "size": 100 << 20}
    granted = [api.call("POST /v1/assets/upload", body=file) for _ in range(11)]
    assert [found.status for found in granted] == [200] * 10 + [403]
    refused = granted[-1]
    reported = {name: refused.body[name] for name in ("code", "limit", "allowed", "used")}
    assert reported == {
        "code": "billing.limit_reached",
        "limit": "maxStorageBytes",
        "allowed": GIB,
        "used": 1000 << 20,
    }
    assert read()["usage"]["maxStorageBytes"] == 1000 << 20
    shop.subscribe("enterprise")
    assert api.call("POST /v1/assets/upload", body=file).status == 200


# ---- beginning


def test_without_a_card_the_first_payment_is_asked_for_and_a_repeat_asks_for_the_same(
    shop: Shop,
) -> None:
    own()
    first = choose("professional")
    assert (first.status, first.code) == (402, "billing.payment_required")
    [sub] = shop.all("subscription")
    assert (sub["status"], sub["metadata"]) == ("incomplete", {"workspaceId": "ws_demo"})
    assert first.body["clientSecret"].startswith("pi_")
    [customer] = shop.all("customer")
    assert customer["email"] == "admin@example.com"
    assert customer["metadata"] == {"workspaceId": "ws_demo"}
    again = choose("professional")
    assert again.body["clientSecret"] == first.body["clientSecret"]
    assert len(shop.all("subscription")) == 1
    shown = read()
    assert (shown["status"], shown["access"], shown["plan"]["id"]) == (
        *("incomplete", "free", "starter"),
    )


def test_once_it_is_paid_the_same_choice_answers_with_the_plan_before_any_webhook(
    shop: Shop,
) -> None:
    choose("professional")
    [sub] = shop.all("subscription")
    shop.pay(sub["id"])
    found = choose("professional")
    assert found.status == 200, found
    assert (found.body["status"], found.body["access"]) == ("active", "full")
    assert (found.body["plan"]["id"], found.body["limits"]["maxBusinesses"]) == ("professional", 3)
    assert "currentPeriodEnd" in found.body


def test_a_saved_card_pays_at_once_and_the_answer_shows_the_plan(payer: Shop) -> None:
    assert cancel("now").status == 200
    [customer] = payer.all("customer")
    payer.save_card(customer["id"], "pm_card_mastercard")
    found = choose("enterprise")
    assert found.status == 200, found
    assert (found.body["status"], found.body["plan"]["id"]) == ("active", "enterprise")
    assert found.body["paymentMethod"]["brand"] == "mastercard"
    assert len(found.body["paymentMethod"]["last4"]) == 4
    assert {s["status"] for s in payer.all("subscription")} == {"canceled", "active"}


def test_a_declined_card_is_reported_with_its_reason_and_nothing_begins(payer: Shop) -> None:
    cancel("now")
    [customer] = payer.all("customer")
    payer.save_card(customer["id"], "pm_card_chargeCustomerFail")
    refused = choose("enterprise")
    assert (refused.status, refused.code) == (402, "billing.card_declined")
    assert refused.body["declineCode"] == "generic_decline"
    assert [s["status"] for s in payer.all("subscription")] == ["canceled"]
    payer.save_card(customer["id"], "pm_card_visa")
    assert choose("enterprise").status == 200  # no key repeats the old refusal


def test_a_card_whose_owner_has_to_be_asked_leads_to_a_payment_to_confirm(payer: Shop) -> None:
    cancel("now")
    [customer] = payer.all("customer")
    payer.save_card(customer["id"], "pm_card_authenticationRequired")
    refused = choose("enterprise")
    assert (refused.status, refused.code) == (402, "billing.payment_required")
    assert refused.body["clientSecret"]
    assert choose("enterprise").body["clientSecret"] == refused.body["clientSecret"]
    assert [s["status"] for s in payer.all("subscription")].count("incomplete") == 1


def test_another_choice_before_the_first_payment_replaces_what_was_never_paid(
    shop: Shop,
) -> None:
    first = choose("professional").body["clientSecret"]
    second = choose("enterprise")
    assert second.code == "billing.payment_required"
    assert second.body["clientSecret"] != first
    statuses = {s["status"] for s in shop.all("subscription")}
    assert statuses == {"incomplete", "incomplete_expired"}


def test_the_free_plan_needs_no_customer_and_no_call(shop: Shop) -> None:
    found = choose("starter")
    assert (found.status, found.body["plan"]["id"]) == (200, "starter")
    assert shop.all("customer") == []


def test_a_page_that_was_paid_without_our_knowing_is_not_paid_twice(shop: Shop) -> None:
    """Its webhook is still on its way: Stripe is asked before a second one begins."""
    choose("professional")
    [customer] = shop.all("customer")
    cancel("now")
    price = rows("SELECT price_id FROM plan WHERE id = 'professional'")[0]["price_id"]
    method = shop.request("POST", "payment_methods/pm_card_visa/attach", customer=customer["id"])
    shop.request(
        "POST",
        "subscriptions",
        customer=customer["id"],
        items=[{"price": price}],
        default_payment_method=method["id"],
    )
    found = choose("professional")
    assert (found.status, found.body["status"]) == (200, "active")
    assert [s["status"] for s in shop.all("subscription")].count("active") == 1


def test_a_deleted_customer_is_replaced_by_a_new_one(payer: Shop) -> None:
    [old] = payer.all("customer")
    payer.request("DELETE", f"customers/{old['id']}")
    payer.deliver()
    assert read()["status"] == "free"
    assert choose("professional").code == "billing.payment_required"
    [new] = payer.all("customer")
    assert new["id"] != old["id"]


# ---- changing


def test_a_better_plan_moves_the_one_item_and_is_paid_at_once(payer: Shop) -> None:
    [before] = payer.all("subscription")
    found = choose("enterprise")
    assert found.status == 200, found
    assert (found.body["plan"]["id"], found.body["limits"]["maxBusinesses"]) == ("enterprise", -1)
    [after] = payer.all("subscription")
    assert [i["id"] for i in after["items"]["data"]] == [i["id"] for i in before["items"]["data"]]
    assert [i["price"]["unit_amount"] for i in after["items"]["data"]] == [29900]
    [invoice] = [i for i in payer.all("invoice") if i["billing_reason"] == "subscription_update"]
    assert (invoice["status"], len(invoice["lines"]["data"])) == ("paid", 2)
    assert 0 < invoice["amount_paid"] <= 20000


def test_there_and_back_and_there_again_ends_there(payer: Shop) -> None:
    for plan in ("enterprise", "professional", "enterprise", "professional"):
        assert choose(plan, when="now").body["plan"]["id"] == plan
        [sub] = payer.all("subscription")
        assert read()["plan"]["id"] == plan
        wanted = rows("SELECT price_id FROM plan WHERE id = :id", id=plan)[0]["price_id"]
        assert sub["items"]["data"][0]["price"]["id"] == wanted


def test_the_same_plan_is_no_call_at_all(payer: Shop) -> None:
    payer.fail("status", times=99, status=500)
    found = choose("professional")
    assert (found.status, found.body["plan"]["id"]) == (200, "professional")


def test_a_change_that_has_to_be_paid_at_once_waits_for_the_payment(payer: Shop) -> None:
    [customer] = payer.all("customer")
    bad = payer.save_card(customer["id"], "pm_card_chargeCustomerFail")
    [sub] = payer.all("subscription")
    payer.request("POST", f"subscriptions/{sub['id']}", default_payment_method=bad)
    refused = choose("professional-year")
    assert (refused.status, refused.code) == (402, "billing.payment_required")
    assert read()["plan"]["id"] == "professional"
    assert choose("professional-year").body["clientSecret"] == refused.body["clientSecret"]
    payer.pay(sub["id"])
    payer.deliver()
    assert read()["plan"]["id"] == "professional-year"


def test_a_change_takes_a_scheduled_end_back(payer: Shop) -> None:
    cancel()
    assert "cancelAt" in read()
    assert "cancelAt" not in choose("enterprise").body
    [sub] = payer.all("subscription")
    assert (sub["cancel_at"], sub["cancel_at_period_end"]) == (None, False)


def test_the_same_plan_takes_a_scheduled_end_back(payer: Shop) -> None:
    cancel()
    assert "cancelAt" not in choose("professional").body


def test_a_plan_that_what_is_there_does_not_fit_is_refused_with_what_is_over(
    payer: Shop,
) -> None:
    choose("enterprise")
    open_businesses(4)
    refused = choose("professional")
    assert (refused.status, refused.code) == (409, "billing.downgrade_blocked")
    assert refused.body["over"] == [{"limit": "maxBusinesses", "allowed": 3, "used": 4}]
    assert read()["plan"]["id"] == "enterprise"
    rows("DELETE FROM business WHERE id = 'biz_1' RETURNING id")
    assert choose("professional").status == 200


def test_down_to_the_free_plan_is_a_change_like_any_other(payer: Shop) -> None:
    found = choose("starter", when="now")
    assert (found.status, found.body["plan"]["id"]) == (200, "starter")
    assert found.body["limits"]["maxBusinesses"] == 1
    assert choose("professional").status == 200  # with the card that is there


# ---- previewing


def test_a_preview_says_what_a_change_costs_and_changes_nothing(payer: Shop) -> None:
    before = payer.all("subscription")
    found = choose("enterprise", preview="true")
    assert found.status == 200, found
    preview = found.body["preview"]
    assert found.body["plan"]["id"] == "professional"
    assert (preview["planId"], preview["currency"]) == ("enterprise", "AED")
    assert sum(line["amount"] for line in preview["lines"]) == preview["amount"]
    assert 0 < preview["proration"] <= 20000
    assert payer.all("subscription") == before
    assert "preview" not in read()


def test_a_preview_for_a_workspace_without_a_customer_makes_none(shop: Shop) -> None:
    preview = choose("professional", preview="true").body["preview"]
    assert (preview["amount"], preview["proration"]) == (9900, 0)
    assert shop.all("customer") == []


def test_a_preview_is_refused_as_the_change_would_be(payer: Shop) -> None:
    choose("enterprise")
    open_businesses(4)
    assert choose("professional", preview="true").code == "billing.downgrade_blocked"
    assert choose("nothing", preview="true").code == "billing.plan_not_found"
    assert choose("enterprise", preview="yes").code == "request.validation_failed"


def test_a_preview_for_who_has_paid_before_is_the_first_invoice(payer: Shop) -> None:
    cancel("now")
    preview = choose("enterprise", preview="true").body["preview"]
    assert (preview["dueNow"], preview["proration"]) == (20000, 0)  # less the unused month


# ---- ending and keeping


def test_an_end_with_the_period_is_scheduled_and_can_be_taken_back(payer: Shop) -> None:
    found = cancel()
    assert found.status == 200
    assert found.body["cancelAt"] == found.body["currentPeriodEnd"] == found.body["accessUntil"]
    assert (found.body["access"], cancel().same_as(found)) == ("full", True)
    assert "cancelAt" not in resume().body
    assert resume().status == 200


def test_an_end_that_the_portal_scheduled_can_be_taken_back(payer: Shop) -> None:
    """The portal sets `cancel_at` and leaves the flag alone."""
    [sub] = payer.all("subscription")
    ends = sub["items"]["data"][0]["current_period_end"]
    payer.request("POST", f"subscriptions/{sub['id']}", cancel_at=ends)
    payer.deliver()
    assert "cancelAt" in read()
    assert "cancelAt" not in resume().body
    assert payer.all("subscription")[0]["cancel_at"] is None


def test_a_paused_subscription_goes_on(payer: Shop) -> None:
    cancel("now")
    [customer] = payer.all("customer")
    for method in payer.all("payment_method"):
        payer.request("POST", f"payment_methods/{method['id']}/detach")
    price = rows("SELECT price_id FROM plan WHERE id = 'professional'")[0]["price_id"]
    payer.request(
        "POST",
        "subscriptions",
        customer=customer["id"],
        items=[{"price": price}],
        trial_period_days=1,
        trial_settings={"end_behavior": {"missing_payment_method": "pause"}},
    )
    payer.advance(2)
    payer.deliver()
    assert (read()["status"], read()["access"]) == ("paused", "free")
    payer.save_card(customer["id"])
    found = resume()
    assert (found.status, found.body["status"]) == (200, "active")
    assert found.body["plan"]["id"] == "professional"


def test_an_end_now_is_the_free_plan_now(payer: Shop) -> None:
    found = cancel("now")
    assert (found.status, found.body["status"], found.body["access"]) == (200, "free", "free")
    assert found.body["plan"]["id"] == "starter"
    assert cancel("now").same_as(found)
    assert (resume().status, resume().code) == (409, "billing.no_subscription")


def test_without_a_subscription_there_is_nothing_to_end(shop: Shop) -> None:
    assert cancel().body["status"] == "free"
    assert cancel("never").code == "request.validation_failed"


def test_over_the_limits_after_an_end_nothing_is_lost_and_nothing_new_is_made(
    payer: Shop,
) -> None:
    open_businesses(3)
    found = cancel("now")
    assert found.body["overLimit"] == ["maxBusinesses"]
    refused = api.call("POST /v1/businesses", body={"name": "Shop", "currency": "AED"})
    assert (refused.code, refused.body["used"]) == ("billing.limit_reached", 3)
    assert len(rows("SELECT * FROM business")) == 3


@pytest.mark.parametrize(
    "ask",
    [
        lambda: choose("professional", who=api.MEMBER),
        lambda: choose("professional", who=api.MEMBER, preview="true"),
        lambda: api.call(f"DELETE {SUBSCRIPTION}", who=api.MEMBER),
        lambda: api.call(f"POST {SUBSCRIPTION}/resume", who=api.MEMBER),
        lambda: checkout(who=api.MEMBER),
        lambda: portal(who=api.MEMBER),
    ],
    ids=["choose", "preview", "cancel", "resume", "checkout", "portal"],
)
def test_only_an_admin_changes_anything(ask: Any, shop: Shop) -> None:
    assert ask().code == "auth.forbidden"
    assert shop.all("customer") == []


# ---- Stripe's pages


def portal(key: str = "", who: Any = api.ADMIN, url: str = HOME) -> api.Answer:
    headers = {"idempotency-key": key} if key else {}
    body = {"returnUrl": url}
    return api.call("POST /v1/billing/portal-session", body=body, who=who, headers=headers)


def test_a_checkout_page_knows_whose_it_is(shop: Shop) -> None:
    found = checkout(successUrl=HOME + "?id={CHECKOUT_SESSION_ID}")
    assert found.status == 200, found
    [session] = shop.all("checkout.session")
    assert found.body == {"url": session["url"]}
    [customer] = shop.all("customer")
    assert session["customer"] == customer["id"]
    assert session["client_reference_id"] == "ws_demo"
    assert session["metadata"]["workspaceId"] == "ws_demo"
    assert rows("SELECT workspace_id FROM billing_customer") == [{"workspace_id": "ws_demo"}]


def test_a_paid_page_puts_the_workspace_on_its_plan(shop: Shop) -> None:
    from local.stripe.objects import checkout as pages

    checkout()
    [session] = shop.all("checkout.session")
    card = {"number": "4242424242424242", "exp_month": "12", "exp_year": "34", "cvc": "123"}
    person = {"email": "a@example.com", "name": "A"}
    shop.calls(lambda: pages.pay_session(shop.on.engine, session["id"], card, person))
    shop.deliver()
    found = read()
    assert (found["status"], found["plan"]["id"]) == ("active", "professional")
    assert found["paymentMethod"]["last4"] == "4242"
    assert shop.all("subscription")[0]["metadata"]["workspaceId"] == "ws_demo"


def test_a_second_page_closes_the_first(shop: Shop) -> None:
    checkout()
    checkout("enterprise")
    statuses = [s["status"] for s in shop.all("checkout.session")]
    assert sorted(statuses) == ["expired", "open"]


def test_a_repeated_key_gets_the_same_page(shop: Shop) -> None:
    first = checkout(key="k")
    assert checkout(key="k").same_as(first)
    assert checkout("enterprise", key="k").code == "idempotency.key_reused"
    assert len(shop.all("checkout.session")) == 1


def test_who_has_a_paid_subscription_gets_no_page_for_a_second(payer: Shop) -> None:
    refused = checkout("enterprise")
    assert (refused.status, refused.code) == (409, "billing.already_subscribed")
    assert payer.all("checkout.session") == []


def price_of(plan: str) -> str:
    [row] = rows("SELECT price_id FROM plan WHERE id = :id", id=plan)
    return str(row["price_id"])


def subscribe_by_hand(shop: Shop, *prices: str) -> str:
    """Subscribe the workspace's customer as a person in the dashboard does."""
    [row] = rows("SELECT id FROM billing_customer WHERE workspace_id = 'ws_demo'")
    found = shop.request(
        "POST",
        "subscriptions",
        customer=row["id"],
        items=[{"price": price} for price in prices],
    )
    shop.deliver()
    return str(found["id"])


def add_on(shop: Shop) -> str:
    product = shop.request("POST", "products", name="Support")["id"]
    monthly = {"unit_amount": 700, "currency": "aed", "recurring": {"interval": "month"}}
    return str(shop.request("POST", "prices", product=product, **monthly)["id"])


def test_beside_a_free_subscription_no_second_paid_one_is_sold(payer: Shop) -> None:
    """The free one ends later, and counts once the other one is not paid for any more."""
    free = payer.request("POST", "products", name="Starter")["id"]
    yearly = {"unit_amount": 0, "currency": "aed", "recurring": {"interval": "year"}}
    price = payer.request("POST", "prices", product=free, **yearly)["id"]
    rows(
        "INSERT INTO plan SELECT 'starter-year', :product, :price, name, description, 0, currency,"
        " 'year', 1, features, limits, true FROM plan WHERE id = 'starter' RETURNING id",
        product=free,
        price=price,
    )
    subscribe_by_hand(payer, str(price))
    assert read()["plan"]["id"] == "professional"
    assert checkout("enterprise").code == "billing.already_subscribed"
    rows("UPDATE subscription SET status = 'unpaid' WHERE plan_id = 'professional' RETURNING id")
    with postgres.transaction() as tx:
        assert access.settle(tx, "ws_demo").plan_id == "starter-year"
    live = subscriptions.find("ws_demo")
    assert live is not None
    assert live.plan_id == "professional"
    assert len([s for s in payer.all("subscription") if s["status"] == "active"]) == 2


def test_a_change_leaves_the_add_on_alone(payer: Shop) -> None:
    [old] = payer.all("subscription")
    payer.request("DELETE", f"subscriptions/{old['id']}")
    payer.save_card(old["customer"])
    extra = add_on(payer)
    sub = subscribe_by_hand(payer, extra, price_of("professional"))
    assert (read()["access"], read()["plan"]["id"]) == ("full", "professional")
    shown = choose("enterprise", preview="true")
    assert shown.status == 200, shown
    assert choose("enterprise").status == 200
    found = payer.request("GET", f"subscriptions/{sub}")
    prices = [item["price"]["id"] for item in found["items"]["data"]]
    assert sorted(prices) == sorted([extra, price_of("enterprise")])
    assert read()["plan"]["id"] == "enterprise"


def test_a_page_ends_what_was_never_paid_or_costs_nothing(payer: Shop) -> None:
    choose("starter", when="now")
    assert checkout("professional").status == 200
    assert {s["status"] for s in payer.all("subscription")} == {"canceled"}
    assert read()["plan"]["id"] == "starter"


def test_there_is_no_page_for_a_plan_that_costs_nothing(shop: Shop) -> None:
    refused = checkout("starter")
    assert (refused.status, refused.body["errors"][0]["field"]) == (422, "planId")
    assert checkout("nothing").code == "billing.plan_not_found"


def test_what_is_there_has_to_fit_the_plan_that_is_paid_for(shop: Shop) -> None:
    open_businesses(4)
    assert checkout("professional").code == "billing.downgrade_blocked"


def test_the_portal_leads_back_to_us(shop: Shop) -> None:
    found = portal(key="k")
    assert found.status == 200, found
    [session] = shop.all("billing_portal.session")
    assert (found.body["url"], session["return_url"]) == (session["url"], HOME)
    assert portal(key="k").same_as(found)


EVIL = (
    *("https://evil.example/", "//evil.example/", "javascript:alert(1)", "/billing", "https://"),
    *("http://app.example.com/", "https://app.example.com.evil.example/", "https://a b/"),
    *("https://app.example.com@evil.example/", "https://app.example.com\\@evil.example/"),
    *("https://app.example.com:8443/", "https://evil.example/?https://app.example.com/"),
    *("https://[::1/", "https://app.example.com:x/", "ftp://app.example.com/", "\thttps://x/"),
    *(
        "https://user:pw@app.example.com/",
        "https://xn--app-example-com/",
        "https://\u0430pp.example.com",
    ),
    *("http://localhost:3000/", "http://127.0.0.1/", "https://app.example.com\n.evil.example/"),
)


@pytest.mark.parametrize("url", EVIL)
def test_an_address_outside_the_application_is_refused(url: str) -> None:
    from kyora.billing.api import return_urls

    assert not return_urls.own(url, "https://app.example.com", development=False)


@pytest.mark.parametrize(
    ("url", "development"),
    [
        ("https://app.example.com", False),
        ("https://APP.example.com/billing?a=b&c={CHECKOUT_SESSION_ID}#top", False),
        ("http://localhost:3000/billing", True),
        ("http://127.0.0.1:8000/", True),
    ],
)
def test_an_address_of_the_application_is_taken(url: str, development: bool) -> None:
    from kyora.billing.api import return_urls

    assert return_urls.own(url, "https://app.example.com", development=development)


@pytest.mark.parametrize(
    "url", ["HTTP://LOCALHOST/", "Http://localhost:3000/", "HTTPS://127.0.0.1/", "http:/localhost/"]
)
def test_a_scheme_that_stripe_refuses_is_a_fault_of_the_field(url: str, shop: Shop) -> None:
    """It passed here, and Stripe's own refusal came out as a 409."""
    for refused, fields in (
        (checkout(successUrl=url, cancelUrl=url), ["successUrl", "cancelUrl"]),
        (portal(url=url), ["returnUrl"]),
    ):
        assert refused.status == 422
        assert [error["field"] for error in refused.body["errors"]] == fields


def test_each_address_that_is_refused_is_named(shop: Shop) -> None:
    refused = checkout(successUrl="https://evil.example/", cancelUrl="https://evil.example/")
    assert [error["field"] for error in refused.body["errors"]] == ["successUrl", "cancelUrl"]
    assert [e["field"] for e in portal(url="https://evil.example/").body["errors"]] == ["returnUrl"]
    assert shop.all("customer") == []


# ---- invoices


def invoices(who: Any = api.MEMBER, **query: str) -> api.Answer:
    return api.call("GET /v1/billing/invoices", who=who, query=query)


def test_invoices_are_shown_the_newest_first(payer: Shop) -> None:
    payer.advance(32)
    payer.deliver()
    found = invoices().body["items"]
    ours = [item["id"] for item in payer.all("invoice")]
    assert [item["invoiceId"] for item in found] == ours
    assert (found[0]["status"], found[0]["total"], found[0]["currency"]) == ("paid", 9900, "AED")
    assert found[0]["hostedInvoiceUrl"].startswith(payer.url)


def test_pages_of_invoices_hold_each_once_also_when_one_is_added_meanwhile(database: str) -> None:
    rows("INSERT INTO billing_customer (id, workspace_id) VALUES ('cus_1', 'ws_demo') RETURNING id")
    rows(
        "INSERT INTO invoice (id, customer_id, status, currency, total, amount_due, amount_paid,"
        " created_at) SELECT 'in_' || n, 'cus_1', 'paid', 'aed', n, n, n,"
        " to_timestamp(1790000000 + n / 3) FROM generate_series(1, 25) n RETURNING id"
    )
    seen, cursor = [], ""
    while True:
        page = invoices(limit="4", **({"cursor": cursor} if cursor else {})).body
        seen += [item["total"] for item in page["items"]]
        if "nextCursor" not in page:
            break
        cursor = page["nextCursor"]
        rows(
            "INSERT INTO invoice (id, customer_id, status, currency, total, amount_due,"
            " amount_paid, created_at) VALUES ('in_new_' || :n, 'cus_1', 'paid', 'aed', 0, 0, 0,"
            " now()) RETURNING id",
            n=str(len(seen)),
        )
    assert sorted(seen) == list(range(1, 26))
    assert invoices(who=api.STRANGER).body == {"items": []}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        *(({"limit": bad}, "limit") for bad in ("0", "101", "-1", "x", "1.5", "٣", "1000")),
        *(
            ({"cursor": bad}, "cursor")
            for bad in ("x", "!!", "W10", "WzEsMl0", "bnVsbA", "W1sxXV0")
        ),
        *(({"cursor": bad}, "cursor") for bad in ("ey", "WzEsIid4Il0", "WyIxIiwiYSJd", "é")),
    ],
)
def test_a_page_that_cannot_be_is_refused(query: dict[str, str], field: str, database: str) -> None:
    refused = invoices(**query)
    assert (refused.status, refused.body["errors"][0]["field"]) == (422, field)


# ---- trouble


def test_stripe_away_is_503_and_what_was_done_is_found_out_next_time(payer: Shop) -> None:
    """The answer is lost every time: the change was made, and we do not know."""
    payer.fail("lose", times=3, path="/v1/subscriptions", method="POST")
    refused = choose("enterprise")
    assert (refused.status, refused.code) == (503, "billing.stripe_unavailable")
    assert int(refused.headers["Retry-After"]) > 0
    assert read()["plan"]["id"] == "professional"
    assert choose("professional", when="now").body["plan"]["id"] == "professional"
    [sub] = payer.all("subscription")
    assert sub["items"]["data"][0]["price"]["unit_amount"] == 9900


def test_a_begin_whose_answer_is_lost_begins_once(shop: Shop) -> None:
    shop.fail("lose", times=3, path="/v1/subscriptions", method="POST")
    assert choose("professional").status == 503
    assert choose("professional").code == "billing.payment_required"
    assert len(shop.all("subscription")) == 1
    assert rows("SELECT * FROM billing_operation") == []


def test_a_customer_whose_answer_is_lost_is_made_once(shop: Shop) -> None:
    shop.fail("lose", times=3, path="/v1/customers", method="POST")
    assert choose("professional").status == 503
    assert choose("professional").code == "billing.payment_required"
    assert len(shop.all("customer")) == 1


@pytest.mark.parametrize("status", [429, 500, 503])
def test_stripes_own_failures_are_503_with_a_time_to_come_back(status: int, shop: Shop) -> None:
    shop.fail("status", times=9, status=status)
    refused = choose("professional")
    assert (refused.status, refused.code) == (503, "billing.stripe_unavailable")
    assert "Stripe's end" not in refused.text
    assert int(refused.headers["Retry-After"]) > 0


def test_a_turn_that_no_one_ended_is_over_after_a_minute(shop: Shop) -> None:
    rows(
        "INSERT INTO billing_operation (workspace_id, token, attempt, until)"
        " VALUES ('ws_demo', 'dead', 'dead', now() + interval '1 minute') RETURNING token"
    )
    refused = choose("professional")
    assert (refused.status, refused.code) == (409, "billing.in_progress")
    assert int(refused.headers["Retry-After"]) > 0
    rows("UPDATE billing_operation SET until = now() RETURNING token")
    assert choose("professional").code == "billing.payment_required"
    assert any(":dead" in key for key in shop.used_keys())


def test_a_repeated_key_gets_the_first_answer_and_makes_no_call(payer: Shop) -> None:
    first = choose("enterprise", key="k")
    assert first.status == 200
    choose("professional", when="now")
    assert choose("enterprise", key="k").same_as(first)
    assert read()["plan"]["id"] == "professional"
    assert choose("professional", key="k").code == "idempotency.key_reused"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    "step",
    [
        "kyora.billing.stripe_client:call",
        "kyora.billing.events.resync:adopt",
        "kyora.billing.events.resync:subscription",
    ],
)
def test_a_process_that_dies_on_the_way_leaves_nothing_to_be_done_twice(
    step: str, when: str, shop: Shop, crew: Crew
) -> None:
    crew.crash(step, when, f"POST {SUBSCRIPTION}", body={"planId": "professional"})
    assert choose("professional").code == "billing.in_progress"
    rows("UPDATE billing_operation SET until = now() RETURNING token")
    assert choose("professional").code == "billing.payment_required"
    assert len(shop.all("customer")) == 1
    assert len(shop.all("subscription")) == 1
    assert rows("SELECT * FROM billing_operation") == []


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    "step",
    [
        "kyora.billing.api.subscriptions:refresh",
        "kyora.billing.stripe_client:call",
        "kyora.billing.events.resync:subscription",
    ],
)
def test_a_process_that_dies_in_a_second_beginning_leaves_nothing_to_be_done_twice(
    step: str, when: str, payer: Shop, crew: Crew
) -> None:
    cancel("now")
    crew.crash(step, when, f"POST {SUBSCRIPTION}", body={"planId": "enterprise"})
    rows("UPDATE billing_operation SET until = now() RETURNING token")
    found = choose("enterprise")
    assert (found.status, found.body["plan"]["id"]) == (200, "enterprise")
    live = [sub for sub in payer.all("subscription") if sub["status"] not in TERMINAL]
    assert len(live) == 1


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    "step", ["kyora.billing.stripe_client:call", "kyora.billing.events.resync:subscription"]
)
def test_a_process_that_dies_in_a_change_is_found_out_by_the_next(
    step: str, when: str, payer: Shop, crew: Crew
) -> None:
    crew.crash(step, when, f"POST {SUBSCRIPTION}", body={"planId": "enterprise"})
    rows("UPDATE billing_operation SET until = now() RETURNING token")
    found = choose("professional", when="now")
    assert (found.status, found.body["plan"]["id"]) == (200, "professional")
    [sub] = payer.all("subscription")
    assert sub["items"]["data"][0]["price"]["unit_amount"] == 9900


def test_webhooks_do_not_wait_for_a_request_that_waits_for_stripe(payer: Shop, crew: Crew) -> None:
    [sub] = payer.all("subscription")
    payer.request("POST", f"subscriptions/{sub['id']}", metadata={"note": "x"})
    job = {"body": {"planId": "enterprise"}}
    step = "kyora.billing.stripe_client:call"
    with crew.stalled(step, "before", f"POST {SUBSCRIPTION}", **job) as finish:
        payer.deliver()
        assert rows("SELECT id FROM stripe_event WHERE status = 'received'") == []
        answer = finish()
    assert (answer.status, answer.body["plan"]["id"]) == (200, "enterprise")


# ---- at once


def test_sixteen_at_once_with_one_key_get_one_answer(payer: Shop, crew: Crew) -> None:
    job = {"body": {"planId": "enterprise"}, "headers": {"idempotency-key": "k"}}
    answers = crew.together([(f"POST {SUBSCRIPTION}", job)] * 16)
    assert {a.code for a in answers if a.status != 200} <= {"idempotency.in_progress"}
    assert len({a.text for a in answers if a.status == 200}) == 1


def test_sixteen_at_once_begin_one_subscription_of_one_customer(shop: Shop, crew: Crew) -> None:
    job = (f"POST {SUBSCRIPTION}", {"body": {"planId": "professional"}})
    answers = crew.together([job] * 16)
    assert {a.code for a in answers} <= {"billing.payment_required", "billing.in_progress"}
    assert any(a.code == "billing.payment_required" for a in answers)
    assert len(shop.all("subscription")) == 1
    assert len(shop.all("customer")) == 1
    assert rows("SELECT * FROM billing_operation") == []


def test_sixteen_at_once_of_every_kind_end_with_one_customer_and_one_that_is_live(
    shop: Shop, crew: Crew
) -> None:
    page = {"planId": "professional", "successUrl": HOME, "cancelUrl": HOME}
    jobs: list[Any] = [
        (f"POST {SUBSCRIPTION}", {"body": {"planId": "professional"}}),
        (f"POST {SUBSCRIPTION}", {"body": {"planId": "enterprise"}}),
        ("POST /v1/billing/checkout-session", {"body": page}),
        ("POST /v1/billing/portal-session", {"body": {"returnUrl": HOME}}),
    ]
    for _ in range(3):
        answers = crew.together(jobs * 4)
        assert {a.status for a in answers} <= {200, 402, 409}
    assert len(shop.all("customer")) == 1
    live = [s for s in shop.all("subscription") if s["status"] == "incomplete"]
    assert len(live) <= 1
    assert len([s for s in shop.all("checkout.session") if s["status"] == "open"]) <= 1
