"""What Stripe's documents refuse or bill, and the stand-in once let pass."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.stripe_account import DAY, HOUR, START, Account, Object, mark
from tests.unit.stripe_shapes import watched

MONTH = 31 * DAY


@pytest.fixture(autouse=True)
def answers_are_stripes() -> Iterator[None]:
    with watched():
        yield


def euros(account: Account) -> str:
    made = account.post(
        "/v1/prices",
        product_data={"name": "Plan in euros"},
        currency="eur",
        unit_amount=900,
        recurring={"interval": "month"},
    )
    return str(made["id"])


# ---- nested parameters


@pytest.mark.parametrize(
    ("path", "params", "param"),
    [
        ("/v1/subscriptions", {"items": [{"price": "p", "foo": "1"}]}, "items[0][foo]"),
        ("/v1/prices", {"currency": "usd", "recurring": {"evry": "month"}}, "recurring[evry]"),
        (
            *("/v1/checkout/sessions", {"subscription_data": {"trial": "7"}}),
            "subscription_data[trial]",
        ),
        (
            *("/v1/customers", {"invoice_settings": {"default_card": "pm_1"}}),
            "invoice_settings[default_card]",
        ),
    ],
)
def test_an_unknown_parameter_is_refused_inside_an_object(
    path: str, params: Object, param: str
) -> None:
    status, error = Account().refused("POST", path, **params)
    assert (status, error["type"], error["code"], error["param"]) == (
        *(400, "invalid_request_error", "parameter_unknown"),
        param,
    )


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"billing_cycle_anchor": "unchanged"}, "billing_cycle_anchor"),
        ({"billing_cycle_anchor": {"type": "later"}}, "billing_cycle_anchor[type]"),
        ({"payment_behavior": "resume_when_paid"}, "payment_behavior"),
    ],
)
def test_a_resumption_is_asked_for_in_the_shape_of_the_version(params: Object, param: str) -> None:
    account = Account()
    name = account.subscribe()["id"]
    assert (
        account.refused("POST", f"/v1/subscriptions/{name}/resume", **params)[1]["param"] == param
    )


def test_a_cycle_begins_again_by_an_object() -> None:
    account = Account()
    sub = account.subscribe()
    account.engine.advance(10 * DAY)
    asked = {"billing_cycle_anchor": {"type": "now"}, "proration_behavior": "none"}
    changed = account.post(f"/v1/subscriptions/{sub['id']}", **asked)
    assert changed["billing_cycle_anchor"] == START + 10 * DAY


# ---- currencies


def test_a_customer_has_one_currency_while_something_is_in_it() -> None:
    account = Account()
    other, sub = euros(account), account.subscribe()
    asked: Object = {"customer": account.customer, "items": [{"price": other}]}
    status, error = account.refused("POST", "/v1/subscriptions", **asked)
    assert status == 400
    assert "combine currencies" in error["message"]
    account.call("DELETE", f"/v1/subscriptions/{sub['id']}")
    assert account.post("/v1/subscriptions", **asked)["currency"] == "eur"


def test_a_checkout_is_in_the_customers_currency() -> None:
    account = Account()
    other = euros(account)
    account.subscribe()
    _, error = account.refused("POST", "/v1/checkout/sessions", **checkout(account, other))
    assert "combine currencies" in error["message"]


def test_a_subscription_stays_in_its_currency() -> None:
    account = Account()
    sub = account.subscribe()
    item = sub["items"]["data"][0]["id"]
    change: Object = {"items": [{"id": item, "price": euros(account)}]}
    _, error = account.refused("POST", f"/v1/subscriptions/{sub['id']}", **change)
    assert "expected currency: `usd`" in error["message"]
    asked: Object = {"customer": account.customer, "items": [{"price": account.basic}]}
    _, error = account.refused("POST", "/v1/subscriptions", **asked, currency="eur")
    assert "expected currency: `eur`" in error["message"]


# ---- the catalogue and checkout


def test_a_default_price_is_not_archived() -> None:
    account = Account()
    product = account.call("GET", f"/v1/prices/{account.basic}")["product"]
    account.post(f"/v1/products/{product}", default_price=account.basic)
    status, error = account.refused("POST", f"/v1/prices/{account.basic}", active=False)
    assert (status, error["message"]) == (
        400,
        "This price cannot be archived because it is the default price of its product.",
    )
    recurring = {"interval": "month"}
    other = account.post(
        "/v1/prices", product=product, currency="usd", unit_amount=1, recurring=recurring
    )
    account.post(f"/v1/products/{product}", default_price=other["id"])
    assert account.post(f"/v1/prices/{account.basic}", active=False)["active"] is False


def checkout(account: Account, price: str, **line: Any) -> Object:
    return {
        "mode": "subscription",
        "customer": account.customer,
        "success_url": "https://example.com",
        "line_items": [{"price": price, **({"quantity": 1} | line)}],
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"quantity": None}, "Quantity is required. Add `quantity` to `line_items[0]`"),
        ({"quantity": 0}, "This value must be greater than or equal to 1."),
    ],
)
def test_a_checkout_says_how_many(line: Object, message: str) -> None:
    account = Account()
    asked = checkout(account, account.basic, **line)
    assert account.refused("POST", "/v1/checkout/sessions", **asked)[1]["message"] == message


def test_automatic_tax_is_not_silently_off() -> None:
    account = Account()
    asked: Object = {"customer": account.customer, "items": [{"price": account.basic}]}
    tax = {"automatic_tax": {"enabled": True}}
    for path, params in (
        ("/v1/subscriptions", asked),
        ("/v1/checkout/sessions", checkout(account, account.basic)),
        (f"/v1/subscriptions/{account.subscribe()['id']}", {}),
    ):
        status, error = account.refused("POST", path, **params, **tax)
        assert (status, error["param"]) == (400, "automatic_tax[enabled]")
    assert account.post("/v1/subscriptions", **asked, automatic_tax={"enabled": False})


def test_a_switch_of_the_portal_is_a_boolean_however_it_was_sent() -> None:
    account = Account()
    features = {"subscription_cancel": {"enabled": "true"}, "invoice_history": {"enabled": "0"}}
    made = account.post("/v1/billing_portal/configurations", features=features)
    assert made["features"]["subscription_cancel"]["enabled"] is True
    assert made["features"]["invoice_history"]["enabled"] is False


# ---- quantities and prorations


def test_nothing_costs_nothing() -> None:
    account = Account()
    items = [{"price": account.basic, "quantity": 0}]
    sub = account.post("/v1/subscriptions", customer=account.customer, items=items)
    assert sub["status"] == "active"
    assert [invoice["total"] for invoice in account.invoices(sub["id"])] == [0]
    account.engine.advance(MONTH)
    assert [invoice["total"] for invoice in account.invoices(sub["id"])] == [0, 0]


def test_what_waits_is_billed_when_a_subscription_ends_with_its_period() -> None:
    account = Account()
    sub = account.subscribe()
    account.engine.advance(15 * DAY)
    account.switch(sub["id"], account.pro)
    account.post(f"/v1/subscriptions/{sub['id']}", cancel_at_period_end=True)
    assert [invoice["total"] for invoice in account.invoices(sub["id"])] == [2000]
    account.engine.advance(MONTH)
    first, last = account.invoices(sub["id"])
    assert account.sub(sub["id"])["status"] == "canceled"
    assert (last["total"], last["status"]) == (1500, "paid")  # half a month of the difference
    assert first["id"] != last["id"]


def test_a_credit_that_waits_is_kept_when_a_subscription_ends_with_its_period() -> None:
    account = Account()
    sub = account.subscribe(account.pro)
    account.engine.advance(15 * DAY)
    account.switch(sub["id"], account.basic)
    account.post(f"/v1/subscriptions/{sub['id']}", cancel_at_period_end=True)
    account.engine.advance(MONTH)
    assert account.call("GET", f"/v1/customers/{account.customer}")["balance"] == -1500


# ---- invoices that are sent


def test_an_invoice_that_is_sent_says_when_it_is_due() -> None:
    account = Account()
    asked: Object = {"customer": account.customer, "items": [{"price": account.basic}]}
    _, error = account.refused(
        "POST", "/v1/subscriptions", **asked, collection_method="send_invoice"
    )
    assert error["param"] == "days_until_due"
    _, error = account.refused("POST", "/v1/subscriptions", **asked, days_until_due=30)
    assert error["param"] == "days_until_due"


def sent(account: Account) -> Object:
    return account.subscribe(collection_method="send_invoice", days_until_due=30)


def test_an_invoice_that_is_sent_is_not_charged() -> None:
    account = Account()
    sub = sent(account)
    assert sub["status"] == "active"
    (invoice,) = account.invoices(sub["id"])
    assert (invoice["status"], invoice["collection_method"]) == ("open", "send_invoice")
    assert (invoice["due_date"], invoice["attempt_count"]) == (START + 30 * DAY, 0)
    account.engine.advance(29 * DAY)
    assert account.sub(sub["id"])["status"] == "active"


def test_an_invoice_that_is_sent_makes_past_due_on_its_day_and_is_paid_when_asked() -> None:
    account = Account()
    sub = sent(account)
    before = mark(account)
    account.engine.advance(30 * DAY)
    assert account.sub(sub["id"])["status"] == "past_due"
    assert account.reported(before)[:2] == ["invoice.overdue", "customer.subscription.updated"]
    (invoice, *_) = account.invoices(sub["id"])
    assert account.post(f"/v1/invoices/{invoice['id']}/pay")["status"] == "paid"


# ---- updates that wait


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"metadata": {"a": "b"}}, "metadata"),
        ({"cancel_at_period_end": True}, "cancel_at_period_end"),
        ({"default_payment_method": "pm_card_visa"}, "default_payment_method"),
    ],
)
def test_what_cannot_wait_is_not_part_of_an_update_that_waits(more: Object, param: str) -> None:
    account = Account()
    sub = account.subscribe()
    change: Object = {"items": [{"id": sub["items"]["data"][0]["id"], "price": account.yearly}]}
    _, error = account.refused(
        "POST",
        f"/v1/subscriptions/{sub['id']}",
        **change,
        **more,
        payment_behavior="pending_if_incomplete",
    )
    assert error["param"] == param


def test_an_update_waits_no_longer_than_its_period() -> None:
    account = Account()
    sub = account.subscribe()
    end = sub["items"]["data"][0]["current_period_end"]
    account.engine.advance_to(end - HOUR)
    account.use("pm_card_chargeCustomerFail")
    found = account.switch(sub["id"], account.yearly, payment_behavior="pending_if_incomplete")
    assert found["pending_update"]["expires_at"] == end


# ---- keys


@pytest.mark.parametrize(("length", "status"), [(255, 200), (256, 400)])
def test_an_idempotency_key_has_255_characters_at_most(length: int, status: int) -> None:
    engine = Account().engine
    asked: Object = {"email": "a@example.com"}
    assert engine.request("POST", "/v1/customers", asked, "k" * length)[0] == status
