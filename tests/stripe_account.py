"""An account at the stand-in for Stripe: what tests do with it."""

from typing import Any

from hypothesis import strategies as st

from local.stripe.core.state import Rules
from local.stripe.engine import Engine

START = 1_764_000_000  # 24 Nov 2025, 16:00 UTC


DAY, HOUR = 86400, 3600


Object = dict[str, Any]


class Account:
    """An engine with two products' prices and one customer, and a request that must succeed."""

    def __init__(self, card: str = "pm_card_visa", **rules: Any) -> None:
        self.engine = Engine(now=START, seed=7, rules=Rules(**rules))
        self.basic = self.price(2000)
        self.pro = self.price(5000)
        self.yearly = self.price(20000, "year")
        self.free = self.price(0)
        self.customer = self.post("/v1/customers", email="owner@example.com")["id"]
        if card:
            self.use(card)

    def call(self, method: str, path: str, **params: Any) -> Object:
        status, body = self.engine.request(method, path, params)
        assert status == 200, body
        return body

    def post(self, path: str, **params: Any) -> Object:
        return self.call("POST", path, **params)

    def refused(self, method: str, path: str, **params: Any) -> tuple[int, Object]:
        status, body = self.engine.request(method, path, params)
        assert status >= 400, body
        return status, body["error"]

    def price(self, amount: int, interval: str = "month") -> str:
        product = self.post("/v1/products", name=f"Plan {amount}")["id"]
        recurring = {"interval": interval}
        made = self.post(
            "/v1/prices", product=product, currency="usd", unit_amount=amount, recurring=recurring
        )
        return str(made["id"])

    def use(self, card: str) -> str:
        method = self.post(f"/v1/payment_methods/{card}/attach", customer=self.customer)["id"]
        chosen = {"default_payment_method": method}
        self.post(f"/v1/customers/{self.customer}", invoice_settings=chosen)
        return str(method)

    def subscribe(self, price: str = "", **params: Any) -> Object:
        items = [{"price": price or self.basic}]
        return self.post("/v1/subscriptions", customer=self.customer, items=items, **params)

    def sub(self, name: str) -> Object:
        return self.call("GET", f"/v1/subscriptions/{name}")

    def switch(self, name: str, price: str, **params: Any) -> Object:
        item = self.sub(name)["items"]["data"][0]["id"]
        return self.post(
            f"/v1/subscriptions/{name}", items=[{"id": item, "price": price}], **params
        )

    def invoices(self, name: str) -> list[Object]:
        found = self.call("GET", "/v1/invoices", subscription=name, limit=100)
        return list(reversed(found["data"]))

    def intent(self, invoice: str) -> str:
        found = self.call("GET", f"/v1/invoices/{invoice}", expand=["payments"])
        return str(found["payments"]["data"][0]["payment"]["payment_intent"])

    def reported(self, since: int = 0) -> list[str]:
        return [event["type"] for event in self.engine.events[since:]]


def mark(account: Account) -> int:
    return len(account.engine.events)


def session(account: Account, **params: Any) -> str:
    made = account.post(
        "/v1/checkout/sessions",
        mode="subscription",
        line_items=[{"price": account.basic, "quantity": 1}],
        success_url="https://kyora.test/done?session={CHECKOUT_SESSION_ID}",
        cancel_url="https://kyora.test/back",
        **params,
    )
    return str(made["id"])


ACTIONS = st.one_of(
    st.tuples(st.just("advance"), st.integers(1, 40 * 24)),
    st.tuples(st.just("card"), st.sampled_from(["visa", "chargeCustomerFail", "mastercard"])),
    st.tuples(st.just("switch"), st.sampled_from(["basic", "pro", "yearly", "free"])),
    st.tuples(st.just("bill"), st.sampled_from(["basic", "pro", "yearly"])),
    st.tuples(st.just("end"), st.booleans()),
    st.tuples(st.just("pause"), st.sampled_from(["", "void", "keep_as_draft"])),
    st.tuples(st.just("pay"), st.just(0)),
    st.tuples(st.just("cancel"), st.just(0)),
    st.tuples(st.just("subscribe"), st.sampled_from([0, 5])),
)


def live(account: Account, actions: list[tuple[str, Any]]) -> None:
    sub = account.subscribe()["id"]
    path = f"/v1/subscriptions/{sub}"
    engine = account.engine
    for name, value in actions:
        item = account.sub(sub)["items"]["data"][0]["id"]
        if name == "advance":
            engine.advance(value * HOUR)
        elif name == "card":
            account.use(f"pm_card_{value}")
        elif name in ("switch", "bill"):
            change: Object = {"items": [{"id": item, "price": getattr(account, value)}]}
            if name == "bill":
                change["proration_behavior"] = "always_invoice"
            engine.request("POST", path, change)
        elif name == "end":
            engine.request("POST", path, {"cancel_at_period_end": value})
        elif name == "pause":
            engine.request("POST", path, {"pause_collection": {"behavior": value} if value else ""})
        elif name == "pay":
            for invoice in account.invoices(sub):
                engine.request("POST", f"/v1/invoices/{invoice['id']}/pay", {})
        elif name == "cancel":
            engine.request("DELETE", path)
        else:
            sub = account.subscribe(trial_period_days=value)["id"]
            path = f"/v1/subscriptions/{sub}"


LIVES = st.lists(ACTIONS, max_size=12)


Object = dict[str, Any]


SCHEDULES = "/v1/subscription_schedules"


def downgrade(account: Account, sub: Object, price: str = "", **duration: Any) -> Object:
    """Plan another price for the next period, as Stripe's guide does it: two calls."""
    made = account.post(SCHEDULES, from_subscription=sub["id"])
    (now,) = made["phases"]
    lasts = duration or {"interval": "month", "interval_count": 1}
    return account.post(
        f"{SCHEDULES}/{made['id']}",
        end_behavior="release",
        phases=[
            {
                "items": [{"price": i["price"], "quantity": i["quantity"]} for i in now["items"]],
                "start_date": now["start_date"],
                "end_date": now["end_date"],
                "proration_behavior": "none",
            },
            {
                "items": [{"price": price or account.basic, "quantity": 1}],
                "duration": lasts,
                "proration_behavior": "none",
            },
        ],
    )


def resume_on(when: int) -> list[Object]:
    return [
        {
            "pause": {"pause_at": {"type": "now"}},
            "resume": {"resume_at": {"type": "timestamp", "timestamp": when}},
        }
    ]
