"""A workspace and its people: what they ask of us and do at Stripe, and what must always hold."""

import itertools
from contextlib import suppress
from typing import Any

from kyora import postgres
from kyora.billing import stripe_objects
from kyora.billing.jobs import sweep
from local.stripe.objects import checkout as pages
from tests.integration.support import api
from tests.integration.support.shops import CATALOGUE, Shop

SUBSCRIPTION = "/v1/billing/subscription"
HOME = "http://127.0.0.1:8000/billing"
CARD = {"number": "4242424242424242", "exp_month": "12", "exp_year": "34", "cvc": "123"}
_numbers = itertools.count(1)


class Workspace:
    """What the people of a workspace do, and what has to hold whenever they look."""

    def __init__(self, shop: Shop) -> None:
        self.shop, self.id = shop, f"ws_{next(_numbers)}"
        self.lost: tuple[int, ...] = ()
        self.who = api.ADMIN | {"workspaceId": self.id, "userId": f"usr_{self.id}"}
        with postgres.transaction(owner=True) as tx:
            tx.run("INSERT INTO workspace (id, name) VALUES (:id, 'Shop')", id=self.id)

    def call(self, route: str, **options: Any) -> api.Answer:
        return api.call(route, who=self.who, **options)

    def customers(self) -> list[Any]:
        return [c for c in self.shop.all("customer") if c["metadata"]["workspaceId"] == self.id]

    def sessions(self) -> list[Any]:
        names = {customer["id"] for customer in self.customers()}
        return [s for s in self.shop.all("checkout.session") if s["customer"] in names]

    def live(self) -> list[Any]:
        names = {customer["id"] for customer in self.customers()}
        return [
            sub
            for sub in self.shop.all("subscription")
            if sub["customer"] in names and sub["status"] not in stripe_objects.TERMINAL
        ]

    # ---- steps

    def do(self, name: str, what: str, *, lost: bool = False) -> None:
        """Take a step; with `lost` Stripe's answer to any change is lost."""
        step = getattr(self, name)
        if lost and name in ("choose", "choose_now", "page", "cancel", "resume"):
            paths = [("POST", "/v1/subscriptions"), ("DELETE", "/v1/subscriptions")]
            for method, path in (*paths, ("POST", "/v1/subscription_schedules")):
                self.shop.fail("lose", times=3, path=path, method=method)
            self.lost = (503,)
        step(what)
        self.lost = ()
        self.shop.calls(self.shop.on.troubles.clear)
        assert len(self.customers()) <= 1
        assert len(self.live()) <= 1
        for sub in self.live():
            self.owns_its_schedule(sub)

    def owns_its_schedule(self, sub: Any) -> None:
        """Assert that no schedule is left that nothing shows, and that none is shared."""
        found = [
            one
            for one in self.shop.all("subscription_schedule")
            if one["status"] == "active" and one["subscription"] == sub["id"]
        ]
        assert [one["id"] for one in found] == ([sub["schedule"]] if sub["schedule"] else [])

    def choose(self, plan: str) -> None:
        found = self.call(f"POST {SUBSCRIPTION}", body={"planId": plan})
        assert found.status in (200, 402, *self.lost), found
        if found.status == 200:
            coming = found.body.get("pendingChange", {}).get("plan", found.body["plan"])
            assert coming["id"] == plan
            assert "cancelAt" not in found.body

    def choose_now(self, plan: str) -> None:
        found = self.call(f"POST {SUBSCRIPTION}", body={"planId": plan, "when": "now"})
        assert found.status in (200, 402, *self.lost), found
        if found.status == 200:
            assert found.body["plan"]["id"] == plan
            assert not {"cancelAt", "pendingChange"} & found.body.keys()
            prices = [sub["items"]["data"][0]["price"]["unit_amount"] for sub in self.live()]
            assert prices in ([CATALOGUE[plan][0]], []), found
            assert prices or not CATALOGUE[plan][0]

    def page(self, plan: str) -> None:
        body = {"planId": plan, "successUrl": HOME, "cancelUrl": HOME}
        found = self.call("POST /v1/billing/checkout-session", body=body)
        assert found.status in (200, 402, 409, 422, *self.lost), found
        if found.status == 200:
            pages = {session["url"]: session["status"] for session in self.sessions()}
            assert pages[found.body["url"]] == "open"

    def pay_page(self, _: str) -> None:
        for session in self.sessions():
            if session["status"] == "open":
                person = {"email": "a@example.com", "name": "A"}
                engine, name = self.shop.on.engine, session["id"]
                self.shop.calls(lambda: pages.pay_session(engine, name, CARD, person))  # noqa: B023

    def cancel(self, when: str) -> None:
        found = self.call(f"DELETE {SUBSCRIPTION}", query={"when": when})
        assert found.status in (200, *self.lost), found
        if found.status == 200 and when == "now":
            assert found.body["status"] == "free"
        elif found.status == 200 and found.body["status"] != "free":
            assert all(stripe_objects.subscription(sub).cancel_at for sub in self.live())

    def resume(self, _: str) -> None:
        found = self.call(f"POST {SUBSCRIPTION}/resume")
        assert found.status in (200, 402, 409, *self.lost), found
        if found.status == 402:
            assert found.body["payUrl"]
        if found.status == 200:
            assert not any(stripe_objects.subscription(s).cancel_at for s in self.live())

    def pause(self, _: str) -> None:
        found = self.call(f"POST {SUBSCRIPTION}/pause", body={})
        assert found.status in (200, 409), found
        if found.status == 200:
            assert [sub["status"] for sub in self.live()] == ["paused"]

    def take_back(self, _: str) -> None:
        found = self.call(f"DELETE {SUBSCRIPTION}/pending-change")
        assert (found.status, "pendingChange" in found.body) == (200, False), found

    def later(self, _: str) -> None:
        """Take all webhooks, and go on in another second: later payloads are newer than these."""
        self.shop.deliver()
        self.shop.advance(1 / 1440)

    def next_period(self, _: str) -> None:
        self.shop.advance(32)
        self.shop.deliver()

    def pay(self, _: str) -> None:
        for sub in self.live():
            invoice = self.shop.request("GET", f"invoices/{sub['latest_invoice']}")
            if invoice["status"] == "open":
                self.shop.pay(sub["id"])

    def card(self, name: str) -> None:
        for customer in self.customers():
            method = self.shop.request(
                "POST", f"payment_methods/{name}/attach", customer=customer["id"]
            )
            chosen = {"default_payment_method": method["id"]}
            self.shop.request("POST", f"customers/{customer['id']}", invoice_settings=chosen)

    # What is done on Stripe's pages is reported within a second. Until then a choice of the plan
    # that we know of is answered from what we know: it is no call.

    def portal_end(self, _: str) -> None:
        for sub in self.live():
            # What has a schedule cannot be ended there: Stripe refuses it.
            if sub["status"] == "active" and not sub["schedule"]:
                ends = sub["items"]["data"][0]["current_period_end"]
                self.shop.request("POST", f"subscriptions/{sub['id']}", cancel_at=ends)
        self.shop.deliver()

    def portal_keep(self, _: str) -> None:
        for sub in self.live():
            if sub["status"] == "active" and sub["cancel_at"]:
                self.shop.request("POST", f"subscriptions/{sub['id']}", cancel_at="")
        self.shop.deliver()

    def portal_switch(self, plan: str) -> None:
        with postgres.transaction() as tx:
            row = tx.row("SELECT price_id FROM plan WHERE id = :id", id=plan) or {}
        for sub in self.live():
            if sub["status"] == "active":
                item = {"id": sub["items"]["data"][0]["id"], "price": row["price_id"]}
                with suppress(AssertionError):  # a card that does not pay
                    self.shop.request("POST", f"subscriptions/{sub['id']}", items=[item])
        self.shop.deliver()

    def deliver(self, _: str) -> None:
        self.shop.deliver()

    # ---- what has to hold

    def agrees_with_stripe(self) -> None:
        """Compare what is answered with what Stripe has, once all was delivered and swept."""
        self.shop.deliver()
        sweep.sweep(lambda: 60.0)  # releases a schedule that another change has overtaken
        self.shop.deliver()
        shown = self.call(f"GET {SUBSCRIPTION}").body
        if not self.live():
            assert (shown["status"], shown["access"]) == ("free", "free")
            assert shown["plan"]["id"] == "starter"
            return
        [sub] = self.live()
        found = stripe_objects.subscription(sub)
        assert shown["status"] == found.status
        assert ("cancelAt" in shown) == (found.cancel_at is not None)
        amount = sub["items"]["data"][0]["price"]["unit_amount"]
        planned = found.cancel_at is not None
        items = sub["items"]["data"]
        now = {(item["price"]["id"], item["quantity"]) for item in items}
        for one in self.shop.all("subscription_schedule"):
            if one["id"] == sub["schedule"]:
                over = one["current_phase"]["end_date"]
                coming = [phase for phase in one["phases"] if phase["start_date"] >= over]
                # What the next phase has may be paid already: then nothing is about to change.
                for phase in coming[:1]:
                    planned |= {(i["price"], i["quantity"]) for i in phase["items"]} != now
        assert ("pendingChange" in shown) == planned
        if found.status == "active":
            assert shown["price"]["amount"] == amount
            assert shown["access"] == "full"
            assert shown["plan"]["amount"] == amount
