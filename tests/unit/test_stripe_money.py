"""Coupons, invoice items, one-off invoices, refunds, credit notes, saved cards, items, search."""

from collections.abc import Iterator
from typing import Any

import pytest

from local.stripe.objects import checkout
from tests.stripe_account import DAY, START, Account, Object, mark
from tests.unit.stripe_shapes import watched

MONTH = 31 * DAY


@pytest.fixture(autouse=True)
def answers_are_stripes() -> Iterator[None]:
    with watched():
        yield


def coupon(account: Account, **fields: Any) -> str:
    return str(account.post("/v1/coupons", **({"percent_off": 50} | fields))["id"])


def totals(account: Account, name: str) -> list[int]:
    return [invoice["total"] for invoice in account.invoices(name)]


def balance(account: Account) -> int:
    return int(account.call("GET", f"/v1/customers/{account.customer}")["balance"])


# ---- coupons


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"duration": "once"}, [1000, 2000, 2000, 2000]),
        ({"duration": "repeating", "duration_in_months": 2}, [1000, 1000, 2000, 2000]),
        ({"duration": "forever"}, [1000, 1000, 1000, 1000]),
        ({"percent_off": 100, "duration": "once"}, [0, 2000, 2000, 2000]),
        (
            {"percent_off": None, "amount_off": 500, "currency": "usd", "duration": "forever"},
            [1500, 1500, 1500, 1500],
        ),
        (
            {"percent_off": None, "amount_off": 9000, "currency": "usd", "duration": "once"},
            [0, 2000, 2000, 2000],
        ),
    ],
)
def test_a_coupon_takes_off_as_long_as_it_says(fields: Object, expected: list[int]) -> None:
    account = Account()
    sub = account.subscribe(discounts=[{"coupon": coupon(account, **fields)}])
    account.engine.advance(95 * DAY)
    assert totals(account, sub["id"]) == expected


def test_an_invoice_says_what_each_discount_took() -> None:
    account = Account()
    names = [{"coupon": coupon(account)}, {"coupon": coupon(account, percent_off=10)}]
    sub = account.subscribe(discounts=names)
    (invoice,) = account.invoices(sub["id"])
    assert (invoice["subtotal"], invoice["total"], invoice["amount_paid"]) == (2000, 900, 900)
    assert [each["amount"] for each in invoice["total_discount_amounts"]] == [1000, 100]
    (line,) = invoice["lines"]["data"]
    assert line["discount_amounts"] == invoice["total_discount_amounts"]
    shown = account.call("GET", f"/v1/subscriptions/{sub['id']}", expand=["discounts"])
    assert shown["discounts"] == []  # once, both


def test_time_paid_at_half_the_price_is_credited_at_half_the_price() -> None:
    account = Account()
    sub = account.subscribe(
        account.pro, discounts=[{"coupon": coupon(account, duration="forever")}]
    )
    account.engine.advance(15 * DAY)
    asked = {"invoice_now": True, "prorate": True}
    account.call("DELETE", f"/v1/subscriptions/{sub['id']}", **asked)
    assert balance(account) == -1250


def test_a_promotion_code_is_for_those_it_is_for() -> None:
    account = Account()
    code = account.post(
        "/v1/promotion_codes",
        promotion={"type": "coupon", "coupon": coupon(account)},
        code="SPRING",
        max_redemptions=1,
        restrictions={"first_time_transaction": True},
    )
    wanted: Object = {"discounts": [{"promotion_code": code["id"]}]}
    sub = account.subscribe(**wanted)
    assert totals(account, sub["id"]) == [1000]
    assert account.call("GET", f"/v1/promotion_codes/{code['id']}")["times_redeemed"] == 1
    asked: Object = {"customer": account.customer, "items": [{"price": account.pro}]}
    status, _ = account.refused("POST", "/v1/subscriptions", **asked, **wanted)
    assert status == 400


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"percent_off": None}, "percent_off"),
        ({"percent_off": 120}, "percent_off"),
        ({"percent_off": None, "amount_off": 5}, "currency"),
        ({"duration": "repeating"}, "duration_in_months"),
    ],
)
def test_a_coupon_that_cannot_be_is_refused(fields: Object, param: str) -> None:
    account = Account()
    asked = {"percent_off": 50} | fields
    assert account.refused("POST", "/v1/coupons", **asked)[1]["param"] == param


def test_a_spent_coupon_is_refused_and_what_has_it_keeps_it() -> None:
    account = Account()
    name = coupon(account, max_redemptions=1, duration="forever")
    sub = account.subscribe(discounts=[{"coupon": name}])
    assert account.call("GET", f"/v1/coupons/{name}")["valid"] is False
    asked: Object = {"customer": account.customer, "items": [{"price": account.pro}]}
    _, error = account.refused("POST", "/v1/subscriptions", **asked, discounts=[{"coupon": name}])
    assert error["code"] == "coupon_expired"
    account.call("DELETE", f"/v1/coupons/{name}")
    account.engine.advance(MONTH + DAY)
    assert totals(account, sub["id"]) == [1000, 1000]


def test_a_discount_is_put_on_and_taken_off_a_subscription_that_runs() -> None:
    account = Account()
    sub, before = account.subscribe(), mark(account)
    path = f"/v1/subscriptions/{sub['id']}"
    account.post(path, discounts=[{"coupon": coupon(account, duration="forever")}])
    account.engine.advance(MONTH + DAY)
    account.post(path, discounts="")
    account.engine.advance(MONTH)
    assert totals(account, sub["id"]) == [2000, 1000, 2000]
    reported = account.reported(before)
    assert "customer.discount.created" in reported
    assert "customer.discount.deleted" in reported


CARD = {"number": "4242424242424242", "exp_month": "12", "exp_year": "2040"}


@pytest.mark.parametrize(
    ("asked", "form"),
    [
        ({"discounts": True}, {}),
        ({"allow_promotion_codes": True}, {"promotion_code": " spring "}),
    ],
    ids=["by the shop", "typed by the customer"],
)
def test_a_checkout_takes_a_discount(asked: Object, form: Object) -> None:
    account = Account()
    promotion = {"type": "coupon", "coupon": coupon(account, duration="forever")}
    code = account.post("/v1/promotion_codes", promotion=promotion, code="SPRING")
    if asked.get("discounts"):
        asked = {"discounts": [{"promotion_code": code["id"]}]}
    lines = [{"price": account.basic, "quantity": 1}]
    made = account.post(
        "/v1/checkout/sessions",
        mode="subscription",
        line_items=lines,
        success_url="https://example.com",
        **asked,
    )
    checkout.pay_session(account.engine, made["id"], CARD, {"email": "new@example.com", **form})
    paid = account.call("GET", f"/v1/checkout/sessions/{made['id']}")
    assert (paid["amount_total"], paid["total_details"]["amount_discount"]) == (1000, 1000)
    assert totals(account, paid["subscription"]) == [1000]
    shown = account.call("GET", f"/v1/subscriptions/{paid['subscription']}", expand=["discounts"])
    assert [each["promotion_code"] for each in shown["discounts"]] == [code["id"]]


# ---- invoice items and one-off invoices


def test_an_invoice_item_waits_for_the_next_invoice() -> None:
    account = Account()
    sub = account.subscribe()
    item = account.post(
        "/v1/invoiceitems",
        customer=account.customer,
        amount=700,
        currency="usd",
        description="Setup",
    )
    waits = account.call("GET", "/v1/invoiceitems", customer=account.customer, pending=True)
    assert [each["id"] for each in waits["data"]] == [item["id"]]
    account.engine.advance(MONTH)
    assert totals(account, sub["id"]) == [2000, 2700]
    billed = account.call("GET", f"/v1/invoiceitems/{item['id']}")
    assert billed["invoice"] == account.invoices(sub["id"])[-1]["id"]
    assert account.refused("DELETE", f"/v1/invoiceitems/{item['id']}")[0] == 400


def test_a_proration_that_waits_is_an_invoice_item() -> None:
    account = Account()
    sub = account.subscribe()
    account.engine.advance(15 * DAY)
    account.switch(sub["id"], account.pro)
    found = account.call("GET", "/v1/invoiceitems", customer=account.customer)["data"]
    assert [(item["proration"], item["amount"]) for item in found] == [(True, 2500), (True, -1000)]
    for item in found:
        account.call("DELETE", f"/v1/invoiceitems/{item['id']}")
    account.engine.advance(MONTH)
    assert totals(account, sub["id"]) == [2000, 5000]


def test_a_one_off_invoice_bills_what_waits_when_asked_to() -> None:
    account = Account()
    account.post("/v1/invoiceitems", customer=account.customer, amount=700, currency="usd")
    empty = account.post("/v1/invoices", customer=account.customer)
    assert (empty["status"], empty["total"], empty["auto_advance"]) == ("draft", 0, False)
    made = account.post(
        "/v1/invoices", customer=account.customer, pending_invoice_items_behavior="include"
    )
    assert (made["total"], made["billing_reason"]) == (700, "manual")
    account.post(f"/v1/invoices/{made['id']}/finalize")
    assert account.post(f"/v1/invoices/{made['id']}/pay")["status"] == "paid"


def test_an_item_is_put_on_a_draft_and_waits_again_when_that_is_deleted() -> None:
    account = Account()
    draft = account.post("/v1/invoices", customer=account.customer)
    asked: Object = {"customer": account.customer, "currency": "usd", "invoice": draft["id"]}
    account.post("/v1/invoiceitems", **asked, amount=300)
    account.post("/v1/invoiceitems", **asked, amount=-100)
    assert account.call("GET", f"/v1/invoices/{draft['id']}")["total"] == 200
    account.call("DELETE", f"/v1/invoices/{draft['id']}")
    waits = account.call("GET", "/v1/invoiceitems", pending=True)["data"]
    assert [item["amount"] for item in waits] == [-100, 300]


def test_a_one_off_invoice_is_sent() -> None:
    account = Account(card="")
    account.post("/v1/invoiceitems", customer=account.customer, amount=700, currency="usd")
    made = account.post(
        "/v1/invoices",
        customer=account.customer,
        collection_method="send_invoice",
        days_until_due=14,
        pending_invoice_items_behavior="include",
    )
    before = mark(account)
    sent = account.post(f"/v1/invoices/{made['id']}/send")
    assert (sent["status"], sent["due_date"]) == ("open", START + 14 * DAY)
    assert account.reported(before)[-1] == "invoice.sent"


# ---- refunds and credit notes


def charged(account: Account) -> tuple[Object, str]:
    sub = account.subscribe()
    (invoice,) = account.invoices(sub["id"])
    return invoice, account.intent(invoice["id"])


def test_a_refund_gives_back_no_more_than_was_paid() -> None:
    account = Account()
    _, intent = charged(account)
    before = mark(account)
    first = account.post("/v1/refunds", payment_intent=intent, amount=500)
    assert (first["amount"], first["status"]) == (500, "succeeded")
    assert account.reported(before) == ["refund.created", "charge.refunded"]
    assert account.refused("POST", "/v1/refunds", payment_intent=intent, amount=1600)[0] == 400
    assert account.post("/v1/refunds", payment_intent=intent)["amount"] == 1500
    charge = account.call("GET", f"/v1/charges/{first['charge']}")
    assert (charge["amount_refunded"], charge["refunded"]) == (2000, True)
    _, error = account.refused("POST", "/v1/refunds", charge=first["charge"])
    assert error["code"] == "charge_already_refunded"
    assert len(account.call("GET", "/v1/refunds", charge=first["charge"])["data"]) == 2


def test_a_credit_note_of_a_paid_invoice_gives_back_what_it_says() -> None:
    account = Account()
    invoice, _ = charged(account)
    asked: Object = {"invoice": invoice["id"], "amount": 1200}
    assert account.refused("POST", "/v1/credit_notes", **asked)[0] == 400
    split = {"credit_amount": 700, "refund_amount": 400, "out_of_band_amount": 100}
    note = account.post("/v1/credit_notes", **asked, **split, reason="order_change")
    assert (note["type"], note["post_payment_amount"]) == ("post_payment", 1200)
    assert [each["amount_refunded"] for each in note["refunds"]] == [400]
    assert balance(account) == -700
    assert account.refused("POST", "/v1/credit_notes", **asked | {"credit_amount": 1200})[0] == 400


def test_a_credit_note_of_an_open_invoice_lowers_what_is_owed() -> None:
    account = Account(card="")
    sub = account.subscribe(collection_method="send_invoice", days_until_due=9)
    (invoice,) = account.invoices(sub["id"])
    line = invoice["lines"]["data"][0]["id"]
    lines = [{"type": "invoice_line_item", "invoice_line_item": line, "amount": 500}]
    note = account.post("/v1/credit_notes", invoice=invoice["id"], lines=lines)
    owed = account.call("GET", f"/v1/invoices/{invoice['id']}")
    assert (owed["amount_due"], owed["amount_remaining"], owed["total"]) == (1500, 1500, 2000)
    account.post(f"/v1/credit_notes/{note['id']}/void")
    assert account.call("GET", f"/v1/invoices/{invoice['id']}")["amount_remaining"] == 2000
    account.post("/v1/credit_notes", invoice=invoice["id"], amount=2000)
    assert account.call("GET", f"/v1/invoices/{invoice['id']}")["status"] == "paid"


# ---- saving cards


def test_a_card_is_saved_without_being_charged() -> None:
    account = Account(card="")
    made = account.post("/v1/setup_intents", customer=account.customer)
    assert made["status"] == "requires_payment_method"
    found = account.post(f"/v1/setup_intents/{made['id']}/confirm", payment_method="pm_card_visa")
    assert found["status"] == "succeeded"
    saved = account.call("GET", f"/v1/customers/{account.customer}/payment_methods")["data"]
    assert [method["id"] for method in saved] == [found["payment_method"]]
    assert account.refused("POST", f"/v1/setup_intents/{made['id']}/cancel")[0] == 400


def test_a_card_that_declines_is_not_saved() -> None:
    account = Account(card="")
    asked: Object = {"customer": account.customer, "confirm": True}
    status, error = account.refused(
        "POST", "/v1/setup_intents", **asked, payment_method="pm_card_chargeDeclined"
    )
    assert (status, error["code"]) == (402, "card_declined")
    (made,) = account.call("GET", "/v1/setup_intents")["data"]
    assert (made["status"], made["last_setup_error"]["code"]) == (
        *("requires_payment_method",),
        "card_declined",
    )


# ---- items, prices of a request's own, search


def test_items_are_written_one_at_a_time() -> None:
    account = Account()
    sub = account.subscribe()
    made = account.post(
        "/v1/subscription_items", subscription=sub["id"], price=account.pro, quantity=2
    )
    assert (made["price"]["id"], made["quantity"]) == (account.pro, 2)
    changed = account.post(f"/v1/subscription_items/{made['id']}", quantity=3)
    assert changed["quantity"] == 3
    listed = account.call("GET", "/v1/subscription_items", subscription=sub["id"])["data"]
    assert len(listed) == 2
    gone = account.call("DELETE", f"/v1/subscription_items/{made['id']}")
    assert gone["deleted"] is True
    last = listed[0]["id"] if listed[0]["id"] != made["id"] else listed[1]["id"]
    assert account.refused("DELETE", f"/v1/subscription_items/{last}")[0] == 400


def test_a_price_is_made_for_one_item_alone() -> None:
    account = Account()
    product = account.call("GET", f"/v1/prices/{account.basic}")["product"]
    data = {
        "currency": "usd",
        "product": product,
        "unit_amount": 1234,
        "recurring": {"interval": "month"},
    }
    items = [{"price_data": data}]
    sub = account.post("/v1/subscriptions", customer=account.customer, items=items)
    price = sub["items"]["data"][0]["price"]
    assert (price["unit_amount"], price["active"]) == (1234, False)
    assert totals(account, sub["id"]) == [1234]
    both = [{"price_data": data, "price": account.basic}]
    asked: Object = {"customer": account.customer, "items": both}
    assert account.refused("POST", "/v1/subscriptions", **asked)[0] == 400


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("email:'ann@example.com'", ["Ann"]),
        ("email~'EXAMPLE.com' AND name:'Bob'", ["Bob"]),
        ("name:'Ann' OR name:'Bob'", ["Bob", "Ann"]),
        ("metadata['plan']:'gold'", ["Bob"]),
        ('-metadata["plan"]:"gold" AND name~"ann"', ["Ann"]),
        ("phone:null AND email~'example'", ["Bob", "Ann"]),
        (f"created>={START} AND name:'Ann'", ["Ann"]),
        (f"created>{START}", []),
    ],
)
def test_search_is_a_search(query: str, expected: list[str]) -> None:
    account = Account()
    account.post("/v1/customers", name="Ann", email="ann@example.com")
    account.post("/v1/customers", name="Bob", email="bob@example.com", metadata={"plan": "gold"})
    found = account.call("GET", "/v1/customers/search", query=query)
    assert found["object"] == "search_result"
    named = [customer["name"] for customer in found["data"] if customer["name"]]
    assert named == expected


@pytest.mark.parametrize("query", ["", "email", "age:'3'", "email:'a' AND name:'b' OR phone:'c'"])
def test_a_search_that_cannot_be_read_is_refused(query: str) -> None:
    status, error = Account().refused("GET", "/v1/customers/search", query=query)
    assert (status, error["param"]) == (400, "query")


def test_a_search_goes_on_where_its_page_ended() -> None:
    account = Account()
    for number in range(3):
        account.post("/v1/customers", name=f"Customer {number}")
    first = account.call("GET", "/v1/customers/search", query="name~'customer'", limit=2)
    rest = account.call(
        "GET", "/v1/customers/search", query="name~'customer'", limit=2, page=first["next_page"]
    )
    names = [customer["name"] for customer in first["data"] + rest["data"]]
    assert names == ["Customer 2", "Customer 1", "Customer 0"]
    assert (first["has_more"], rest["has_more"], rest["next_page"]) == (True, False, None)
