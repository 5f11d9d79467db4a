"""Every call that the stand-in knows, made once, its answer held against the SDK's resources."""

from typing import Any

import pytest

from local.stripe.engine import ROUTES
from local.stripe.sdk.types import installed
from tests.stripe_account import DAY, START, Account, Object
from tests.unit.stripe_shapes import watched

HOOK = "https://example.com/hook"


def catalogue(account: Account) -> None:
    product = account.post("/v1/products", name="Gone", metadata={"a": "b"})["id"]
    account.call("GET", "/v1/products", active=True)
    account.call("GET", f"/v1/products/{product}")
    account.post(f"/v1/products/{product}", description="Soon")
    account.call("DELETE", f"/v1/products/{product}")
    account.call("GET", "/v1/prices", expand=["data.tiers", "data.currency_options"])
    account.call("GET", f"/v1/prices/{account.basic}", expand=["product"])
    account.post(f"/v1/prices/{account.basic}", nickname="Basic")
    account.call("GET", "/v1/account")


def customers(account: Account) -> None:
    path = f"/v1/customers/{account.customer}"
    account.call("GET", path, expand=["subscriptions", "invoice_settings.default_payment_method"])
    account.call("GET", "/v1/customers", email="owner@example.com")
    card = {"number": "4242424242424242", "exp_month": 12, "exp_year": 2040}
    method = account.post("/v1/payment_methods", type="card", card=card)["id"]
    account.post(f"/v1/payment_methods/{method}/attach", customer=account.customer)
    account.call("GET", "/v1/payment_methods", customer=account.customer)
    account.call("GET", f"/v1/payment_methods/{method}")
    account.post(f"/v1/payment_methods/{method}", metadata={"a": "b"})
    account.call("GET", f"{path}/payment_methods")
    account.call("GET", f"{path}/payment_methods/{method}")
    account.post(f"/v1/payment_methods/{method}/detach")
    other = account.post("/v1/customers", name="Gone")["id"]
    account.call("DELETE", f"/v1/customers/{other}")
    assert account.call("GET", f"/v1/customers/{other}")["deleted"]
    setup = account.post("/v1/setup_intents", customer=account.customer)["id"]
    account.post(f"/v1/setup_intents/{setup}", payment_method="pm_card_visa")
    account.post(f"/v1/setup_intents/{setup}/confirm")
    account.call("GET", f"/v1/setup_intents/{setup}")
    account.call("GET", "/v1/setup_intents", customer=account.customer)
    over = account.post("/v1/setup_intents", customer=account.customer)["id"]
    account.post(f"/v1/setup_intents/{over}/cancel")


def subscriptions(account: Account) -> None:
    coupon = account.post("/v1/coupons", percent_off=10, duration="forever")["id"]
    sub = account.subscribe(discounts=[{"coupon": coupon}], trial_period_days=7)["id"]
    path = f"/v1/subscriptions/{sub}"
    account.call("GET", path, expand=["latest_invoice.confirmation_secret", "discounts"])
    account.call("GET", "/v1/subscriptions", status="all")
    account.post(path, cancel_at_period_end=True)
    account.call("DELETE", f"{path}/discount")
    item = account.post("/v1/subscription_items", subscription=sub, price=account.pro)["id"]
    account.call("GET", "/v1/subscription_items", subscription=sub)
    account.call("GET", f"/v1/subscription_items/{item}")
    account.post(f"/v1/subscription_items/{item}", quantity=2)
    account.call("DELETE", f"/v1/subscription_items/{item}")
    account.call("DELETE", path)
    classic = account.subscribe(billing_mode={"type": "classic"})["id"]
    path = f"/v1/subscriptions/{classic}"
    account.post(f"{path}/migrate", billing_mode={"type": "flexible"})
    account.post(f"{path}/pause", type="subscription")
    account.post(f"{path}/resume", billing_cycle_anchor={"type": "now"})


def schedules(account: Account) -> None:
    for last in ("release", "cancel"):
        sub = account.subscribe()
        made = account.post("/v1/subscription_schedules", from_subscription=sub["id"])
        path = f"/v1/subscription_schedules/{made['id']}"
        account.call("GET", path, expand=["subscription"])
        now = made["current_phase"]
        phases: list[Object] = [
            {
                "items": [{"price": account.basic, "quantity": 1}],
                "start_date": now["start_date"],
                "end_date": now["end_date"],
            },
            {"items": [{"price": account.pro, "quantity": 1}]},
        ]
        account.post(path, phases=phases, end_behavior="release")
        account.call("GET", "/v1/subscription_schedules", customer=account.customer)
        account.post(f"{path}/{last}")


def invoices(account: Account) -> None:
    sub = account.subscribe()
    (invoice,) = account.invoices(sub["id"])
    path = f"/v1/invoices/{invoice['id']}"
    account.call("GET", path, expand=["payments", "customer", "lines.data"])
    account.post(path, description="Thank you")
    account.call("GET", f"{path}/lines")
    payment = account.call("GET", "/v1/invoice_payments", invoice=invoice["id"])["data"][0]
    account.call("GET", f"/v1/invoice_payments/{payment['id']}")
    intent = account.intent(invoice["id"])
    account.call("GET", f"/v1/payment_intents/{intent}", expand=["latest_charge"])
    account.call("GET", "/v1/payment_intents", customer=account.customer)
    charge = account.call("GET", "/v1/charges", payment_intent=intent)["data"][0]["id"]
    account.call("GET", f"/v1/charges/{charge}")
    refund = account.post("/v1/refunds", charge=charge, amount=5)["id"]
    account.call("GET", "/v1/refunds", charge=charge)
    account.call("GET", f"/v1/refunds/{refund}", expand=["charge"])
    account.post(f"/v1/refunds/{refund}", metadata={"a": "b"})
    change = {"items": [{"id": sub["items"]["data"][0]["id"], "price": account.pro}]}
    account.post("/v1/invoices/create_preview", subscription=sub["id"], subscription_details=change)


def one_off_invoices(account: Account) -> None:
    item = account.post("/v1/invoiceitems", customer=account.customer, amount=700, currency="usd")[
        "id"
    ]
    account.post(f"/v1/invoiceitems/{item}", amount=900)
    account.call("GET", f"/v1/invoiceitems/{item}")
    account.call("GET", "/v1/invoiceitems", pending=True)
    asked: Object = {"customer": account.customer, "collection_method": "send_invoice"}
    asked |= {"days_until_due": 5}
    bill = account.post("/v1/invoices", **asked, pending_invoice_items_behavior="include")["id"]
    account.post(f"/v1/invoices/{bill}/send")
    note = account.post("/v1/credit_notes", invoice=bill, amount=100)["id"]
    account.call("GET", "/v1/credit_notes", invoice=bill)
    account.call("GET", f"/v1/credit_notes/{note}")
    account.call("GET", f"/v1/credit_notes/{note}/lines")
    account.post(f"/v1/credit_notes/{note}", memo="Sorry")
    account.post(f"/v1/credit_notes/{note}/void")
    account.post(f"/v1/invoices/{bill}/mark_uncollectible")
    account.post(f"/v1/invoices/{bill}/pay")
    for end in ("finalize", "void"):
        draft = account.post("/v1/invoices", **asked)["id"]
        given = {"customer": account.customer, "currency": "usd", "invoice": draft}
        account.post("/v1/invoiceitems", **given, amount=5)
        account.post(f"/v1/invoices/{draft}/finalize")
        account.post(f"/v1/invoices/{draft}/{end}") if end == "void" else None
    draft = account.post("/v1/invoices", **asked)["id"]
    account.call("DELETE", f"/v1/invoices/{draft}")
    item = account.post("/v1/invoiceitems", customer=account.customer, amount=7, currency="usd")
    account.call("DELETE", f"/v1/invoiceitems/{item['id']}")


def confirming(account: Account) -> None:
    sub = account.subscribe(payment_behavior="default_incomplete")
    intent = account.intent(sub["latest_invoice"])
    account.post(f"/v1/payment_intents/{intent}/confirm", payment_method="pm_card_visa")


def discounts(account: Account) -> None:
    coupon = account.post("/v1/coupons", amount_off=5, currency="usd", name="Five")["id"]
    account.post(f"/v1/coupons/{coupon}", name="5")
    account.call("GET", f"/v1/coupons/{coupon}", expand=["applies_to"])
    account.call("GET", "/v1/coupons")
    promotion = {"type": "coupon", "coupon": coupon}
    code = account.post("/v1/promotion_codes", promotion=promotion)["id"]
    account.post(f"/v1/promotion_codes/{code}", active=False)
    account.call("GET", f"/v1/promotion_codes/{code}", expand=["promotion.coupon"])
    account.call("GET", "/v1/promotion_codes", coupon=coupon)
    account.call("DELETE", f"/v1/coupons/{coupon}")


def pages_for_customers(account: Account) -> None:
    asked: Any = {"mode": "subscription", "success_url": "https://example.com"}
    lines = [{"price": account.basic, "quantity": 1}]
    made = account.post("/v1/checkout/sessions", **asked, line_items=lines)["id"]
    path = f"/v1/checkout/sessions/{made}"
    account.call("GET", path, expand=["line_items"])
    account.call("GET", "/v1/checkout/sessions", status="open")
    account.call("GET", f"{path}/line_items")
    account.post(f"{path}/expire")
    features = {"subscription_cancel": {"enabled": True}}
    made = account.post("/v1/billing_portal/configurations", features=features)["id"]
    path = f"/v1/billing_portal/configurations/{made}"
    account.call("GET", path)
    account.post(path, active=False)
    account.call("GET", "/v1/billing_portal/configurations")
    sub = account.subscribe()["id"]
    flow = {"type": "subscription_cancel", "subscription_cancel": {"subscription": sub}}
    account.post("/v1/billing_portal/sessions", customer=account.customer, flow_data=flow)


def events_and_hooks(account: Account) -> None:
    made = account.post("/v1/webhook_endpoints", url=HOOK, enabled_events=["*"])["id"]
    path = f"/v1/webhook_endpoints/{made}"
    account.call("GET", path)
    account.call("GET", "/v1/webhook_endpoints")
    account.post(path, disabled=True)
    account.call("DELETE", path)
    event = account.call("GET", "/v1/events", types=["product.created"])["data"][0]["id"]
    account.call("GET", f"/v1/events/{event}")


def searches(account: Account) -> None:
    charged = account.subscribe()
    assert charged["status"] == "active"
    for kind in ("charge", "customer", "invoice", "payment_intent"):
        account.call("GET", f"/v1/{kind}s/search", query="created>0 OR metadata['a']:'b'")
    for kind in ("price", "product"):
        account.call("GET", f"/v1/{kind}s/search", query="active:'true'")
    account.call("GET", "/v1/subscriptions/search", query="status:'active'")


def clocks(account: Account) -> None:
    made = account.post("/v1/test_helpers/test_clocks", frozen_time=START)["id"]
    path = f"/v1/test_helpers/test_clocks/{made}"
    account.call("GET", "/v1/test_helpers/test_clocks")
    account.post(f"{path}/advance", frozen_time=START + DAY)
    account.call("GET", path)
    account.call("DELETE", path)


STORIES = (
    *(catalogue, customers, subscriptions, schedules, invoices, one_off_invoices, confirming),
    *(discounts, pages_for_customers, events_and_hooks, searches, clocks),
)


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_what_is_answered_is_what_stripes_objects_are(story: Any) -> None:
    with watched():
        story(Account())


def test_no_call_was_left_out() -> None:
    with watched() as answered:
        for story in STORIES:
            story(Account())
    known = {f"{route.method} {_path(route.path.pattern)}" for route in ROUTES}
    assert known - answered == set()


def _path(pattern: str) -> str:
    return pattern.replace("([^/]+)", "{}").replace("\\", "")


def test_every_call_of_the_stand_in_is_one_of_stripes() -> None:
    for route in ROUTES:
        path = _path(route.path.pattern)
        found = installed().route(route.method, path.replace("{}", "x_1"))
        assert found is not None, path
        known = set(installed().members(found.params)) if found.params else set()
        assert route.params - known <= {"expand", "created"}, path
