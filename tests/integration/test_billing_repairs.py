"""What is gone at Stripe is ended where it is met; what is paid without access is bound."""

from typing import Any

import pytest

from kyora.billing.jobs import bind, sweep
from kyora.errors import Invalid
from local.commands import status as screen
from tests.integration.support import api, billing
from tests.integration.support.billing import query, run
from tests.integration.support.shops import Shop
from tests.integration.support.stripe_standin import Books
from tests.stripe_account import Account
from tests.unit.functions import CONTEXT, function

HOME = "http://127.0.0.1:8000/billing"
SUBSCRIPTION = "POST /v1/billing/subscription"
PAGE = {"planId": "professional", "successUrl": HOME, "cancelUrl": HOME}


# ---- gone at Stripe


def forget(shop: Shop, *kinds: str) -> None:
    """Have Stripe know nothing of the workspace any more, as after test data were deleted."""

    def work() -> None:
        for kind in kinds:
            for found in list(shop.on.engine.all(kind)):
                shop.on.engine.kinds[kind].remove(found["id"])
                del shop.on.engine.objects[found["id"]]

    shop.calls(work)


def deleted(shop: Shop) -> None:
    """Have the customer deleted at Stripe; its event is never delivered."""
    [customer] = shop.all("customer")
    shop.request("DELETE", f"customers/{customer['id']}")
    shop.delivered = len(shop.on.engine.events)


WAYS = {
    "deleted": deleted,
    "unknown": lambda shop: forget(shop, "subscription", "customer"),
}
ASKED: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "checkout": ("POST /v1/billing/checkout-session", PAGE, (200,)),
    "choose": (SUBSCRIPTION, {"planId": "enterprise"}, (200, 402)),
    "portal": ("POST /v1/billing/portal-session", {"returnUrl": HOME}, (200,)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("paid", [False, True])
@pytest.mark.parametrize("asked", ASKED)
def test_a_customer_that_is_gone_is_replaced_where_it_is_met(
    shop: Shop, asked: str, way: str, *, paid: bool
) -> None:
    if paid:
        shop.subscribe()
    else:
        assert api.call(ASKED["portal"][0], body=ASKED["portal"][1]).status == 200
    [old] = query("SELECT id FROM billing_customer")
    WAYS[way](shop)
    route, body, expected = ASKED[asked]
    found = api.call(route, body=body)
    assert found.status in expected, found
    rows = query("SELECT id FROM billing_customer WHERE deleted_at IS NULL")
    assert len(rows) == 1
    assert rows != [old]
    assert query("SELECT 1 FROM subscription WHERE status = 'active'") == []


@pytest.mark.parametrize("way", WAYS)
def test_a_preview_meets_a_customer_that_is_gone(shop: Shop, way: str) -> None:
    shop.subscribe()
    WAYS[way](shop)
    found = api.call(SUBSCRIPTION, body={"planId": "enterprise"}, query={"preview": "true"})
    assert found.status == 200, found
    assert found.body["access"] == "free"
    assert found.body["preview"]["amount"] == 29900


def test_a_subscription_that_is_unknown_is_over_where_it_is_met(shop: Shop) -> None:
    shop.subscribe()
    forget(shop, "subscription")
    found = api.call(SUBSCRIPTION, body={"planId": "enterprise"})
    assert found.status in (200, 402), found
    assert len(query("SELECT 1 FROM billing_customer")) == 1


def test_with_a_key_of_another_account_nothing_is_ended(shop: Shop) -> None:
    shop.subscribe()
    forget(shop, "subscription", "customer", "price")
    found = api.call(ASKED["portal"][0], body=ASKED["portal"][1])
    assert (found.status, found.code) == (404, "billing.stripe_missing")
    assert query("SELECT status FROM subscription") == [{"status": "active"}]
    assert query("SELECT deleted_at FROM billing_customer") == [{"deleted_at": None}]


def test_reconcile_ends_a_customer_whose_event_was_lost(account: Account, stripe: Books) -> None:
    account.subscribe(account.pro)
    billing.deliver(billing.handled(account))
    account.call("DELETE", f"/v1/customers/{account.customer}")
    account.engine.events.clear()  # more than thirty days ago
    report = billing.reconciled()
    assert report["repaired"]["customers"] == 1
    assert query("SELECT deleted_at IS NULL AS here FROM billing_customer") == [{"here": False}]
    assert billing.standing()["access"] == "free"


def test_reconcile_asks_for_customers_without_a_subscription_some_in_each_run(
    account: Account, stripe: Books, environment: pytest.MonkeyPatch
) -> None:
    environment.setattr("kyora.billing.jobs.reconcile._ASKED", 20)
    run("UPDATE billing_customer SET workspace_id = NULL")
    billing.as_owner(
        "INSERT INTO workspace (id, name) SELECT 'ws_' || n, 'A' FROM generate_series(0, 29) AS n"
    )
    for number in range(30):
        run(
            "INSERT INTO billing_customer (id, workspace_id) VALUES (:id, :workspace)",
            id=f"cus_{number:02}",
            workspace=f"ws_{number}",
        )
    billing.reconciled()
    assert len(query("SELECT 1 FROM billing_customer WHERE deleted_at IS NOT NULL")) == 20
    billing.reconciled()
    assert len(query("SELECT 1 FROM billing_customer WHERE deleted_at IS NOT NULL")) == 30


# ---- paid without access


def second_customer(account: Account) -> tuple[str, str]:
    """A colleague subscribes the workspace in the dashboard, with another customer."""
    other = account.post("/v1/customers", email="other@example.com")["id"]
    method = account.post("/v1/payment_methods/pm_card_visa/attach", customer=other)["id"]
    account.post(f"/v1/customers/{other}", invoice_settings={"default_payment_method": method})
    items = [{"price": account.pro}]
    sub = account.post(
        "/v1/subscriptions", customer=other, items=items, metadata={"workspaceId": "ws_demo"}
    )
    return str(other), str(sub["id"])


def unserved() -> int:
    return sweep.backlog().unserved


def test_what_is_paid_for_no_one_is_counted_and_red_until_it_is_bound(
    account: Account, stripe: Books, capsys: pytest.CaptureFixture[str]
) -> None:
    other, _ = second_customer(account)
    billing.deliver(billing.handled(account))
    assert billing.standing()["access"] == "free"
    assert unserved() == 1
    answer = function("sweep_billing").handler({}, CONTEXT)
    assert answer["unserved"] == 1
    assert '"StripeUnserved":[1.0]' in capsys.readouterr().out
    figures = function("report_status").handler({"status": True}, CONTEXT)
    [line] = [x for x in screen.judge(figures, patience=75) if x.title == "subscriptions"]
    assert not line.good
    assert f"CUSTOMER={other}" in line.todo

    bound = function("sweep_billing").handler(
        {"bind": {"customer": other, "workspace": "ws_demo"}}, CONTEXT
    )

    assert bound == {
        "customer": other,
        "workspace": "ws_demo",
        "access": "full",
        "plan_id": "pro",
    }
    assert unserved() == 0
    assert {row["status"] for row in query("SELECT status FROM stripe_event")} == {"processed"}
    assert query("SELECT id FROM billing_customer WHERE NOT beside") == [{"id": account.customer}]
    shown = account.call("GET", f"/v1/customers/{other}")
    assert shown["metadata"] == {"workspaceId": "ws_demo"}


def test_a_subscriptions_id_stands_for_its_customer(account: Account, stripe: Books) -> None:
    other, sub = second_customer(account)
    assert bind.bind({"customer": sub, "workspace": "ws_demo"})["customer"] == other
    assert billing.standing()["subscription_id"] == sub


def test_of_what_two_customers_pay_for_the_better_plan_counts(
    account: Account, stripe: Books
) -> None:
    run("UPDATE plan SET amount = 200 WHERE id = 'pro'")
    account.subscribe(account.basic)
    billing.deliver(billing.handled(account))
    other, sub = second_customer(account)
    bind.bind({"customer": other, "workspace": "ws_demo"})
    assert billing.standing()["subscription_id"] == sub
    account.call("DELETE", f"/v1/subscriptions/{sub}")
    billing.deliver(billing.handled(account))
    assert billing.standing()["plan_id"] == "basic"


REFUSED = {
    "no id": {"customer": "somebody", "workspace": "ws_demo"},
    "nobody Stripe knows": {"customer": "cus_nobody", "workspace": "ws_demo"},
    "no workspace": {"customer": "CUSTOMER", "workspace": "ws_nothing"},
    "another's": {"customer": "OURS", "workspace": "ws_other"},
    "nothing": {},
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_bound_is_refused_and_changes_nothing(
    case: str, account: Account, stripe: Books
) -> None:
    other, _ = second_customer(account)
    names = {"CUSTOMER": other, "OURS": account.customer}
    asked = REFUSED[case]
    given = asked | {"customer": names.get(asked.get("customer", ""), asked.get("customer", ""))}
    before = query("SELECT id, workspace_id FROM billing_customer ORDER BY id")
    with pytest.raises(Invalid):
        bind.bind(given)
    assert query("SELECT id, workspace_id FROM billing_customer ORDER BY id") == before


def test_a_customer_of_another_business_is_nobodys_concern(account: Account, stripe: Books) -> None:
    """Its price is no plan of ours, and it says nothing of a workspace."""
    other = account.post("/v1/customers")["id"]
    method = account.post("/v1/payment_methods/pm_card_visa/attach", customer=other)["id"]
    account.post(f"/v1/customers/{other}", invoice_settings={"default_payment_method": method})
    account.post("/v1/subscriptions", customer=other, items=[{"price": account.price(900)}])
    billing.deliver(billing.handled(account))
    assert unserved() == 0


def test_a_price_of_no_plan_is_red(account: Account, stripe: Books) -> None:
    account.subscribe(account.price(900))
    billing.deliver(billing.handled(account))
    assert unserved() == 1
