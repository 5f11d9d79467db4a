"""Subscribing over the API as a workspace's admin does: choose, check out, cancel, read."""

from typing import Any

import pytest

from kyora import postgres
from tests.integration.support import api
from tests.integration.support.shops import Shop

SUBSCRIPTION = "/v1/billing/subscription"


def choose(
    plan: str, key: str = "", who: Any = api.ADMIN, when: str = "", **query: str
) -> api.Answer:
    headers = {"idempotency-key": key} if key else {}
    body = {"planId": plan} | ({"when": when} if when else {})
    return api.call(f"POST {SUBSCRIPTION}", body=body, who=who, headers=headers, query=query)


def pay_page(shop: Shop) -> None:
    """Pay on the one checkout page that there is, as a person does."""
    from local.stripe.objects import checkout as pages

    [session] = shop.all("checkout.session")
    card = {"number": "4242424242424242", "exp_month": "12", "exp_year": "34", "cvc": "123"}
    person = {"email": "a@example.com", "name": "A"}
    shop.calls(lambda: pages.pay_session(shop.on.engine, session["id"], card, person))


def read(who: Any = api.MEMBER) -> Any:
    found = api.call(f"GET {SUBSCRIPTION}", who=who)
    assert found.status == 200, found
    return found.body


def cancel(when: str = "") -> api.Answer:
    return api.call(f"DELETE {SUBSCRIPTION}", query={"when": when} if when else {})


def resume() -> api.Answer:
    return api.call(f"POST {SUBSCRIPTION}/resume")


def rows(sql: str, **params: object) -> list[dict[str, Any]]:
    with postgres.transaction() as tx:
        return tx.rows(sql, **params)


def open_businesses(count: int) -> None:
    with postgres.transaction() as tx:
        tx.run(
            "INSERT INTO business (id, workspace_id, name, currency)"
            " SELECT 'biz_' || n, 'ws_demo', 'Shop', 'AED'"
            " FROM generate_series(1, CAST(:count AS int)) n",
            count=count,
        )


@pytest.fixture
def payer(shop: Shop) -> Shop:
    """A workspace on `professional`, paid by a card that works."""
    shop.subscribe()
    assert read()["status"] == "active"
    return shop


HOME = "http://127.0.0.1:8000/billing"


def checkout(plan: str = "professional", key: str = "", **changes: Any) -> api.Answer:
    who = changes.pop("who", api.ADMIN)
    body = {"planId": plan, "successUrl": f"{HOME}?paid=1", "cancelUrl": HOME} | changes
    headers = {"idempotency-key": key} if key else {}
    return api.call("POST /v1/billing/checkout-session", body=body, who=who, headers=headers)


def pause(**body: Any) -> api.Answer:
    return api.call(f"POST {SUBSCRIPTION}/pause", body=body)


def live(shop: Shop) -> Any:
    [sub] = [s for s in shop.all("subscription") if s["status"] != "canceled"]
    return sub


def price_id(plan: str) -> str:
    return str(rows("SELECT price_id FROM plan WHERE id = :id", id=plan)[0]["price_id"])


def bad_card(shop: Shop) -> None:
    [customer] = shop.all("customer")
    method = shop.save_card(customer["id"], "pm_card_chargeCustomerFail")
    shop.request("POST", f"subscriptions/{live(shop)['id']}", default_payment_method=method)
    shop.deliver()


def good_card(shop: Shop) -> None:
    [customer] = shop.all("customer")
    method = shop.save_card(customer["id"])
    shop.request("POST", f"subscriptions/{live(shop)['id']}", default_payment_method=method)
    shop.deliver()
