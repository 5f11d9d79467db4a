"""The Stripe stand-in's real server on a free port, with a catalogue, for the real SDK."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from kyora import config, postgres
from kyora.auth import Principal
from kyora.billing import stripe_client, stripe_objects
from kyora.billing.api import subscriptions
from kyora.billing.events import ingest, types
from kyora.billing.models import PlanChoice
from kyora.errors import PaymentRequired
from local.stripe.faults import Fault
from local.stripe.server import serve
from local.stripe.standin import Options, StandIn

ADMIN = Principal("usr_demo_admin", "ws_demo", "admin", "en")
KEY = "sk_test_standin"
GIB = 1 << 30
# id → amount in minor units, interval, limits
CATALOGUE: dict[str, tuple[int, str, dict[str, int]]] = {
    "starter": (0, "month", {"maxBusinesses": 1, "maxTeamMembers": 3, "maxStorageBytes": GIB}),
    "professional": (9900, "month", {"maxBusinesses": 3, "maxTeamMembers": 9}),
    "professional-year": (99000, "year", {"maxBusinesses": 3, "maxTeamMembers": 9}),
    "enterprise": (29900, "month", {"maxBusinesses": -1, "maxTeamMembers": -1}),
}


class Shop:
    """A running stand-in. What is asked of `on.engine` here is asked between two requests."""

    def __init__(self, on: StandIn, loop: asyncio.AbstractEventLoop) -> None:
        self.on, self.url, self.delivered, self._loop = on, on.url, 0, loop

    def request(self, method: str, path: str, **params: Any) -> Any:
        """Ask the API as another client would: a person in the dashboard, say."""

        async def ask() -> Any:
            self.on.tick()
            return self.on.engine.request(method, f"/v1/{path}", params)

        status, body = self._run(ask())
        assert status == 200, body
        return body

    def calls(self, *changes: Any) -> Any:
        """Run plain functions of the stand-in in its own thread."""

        async def ask() -> Any:
            return [change() for change in changes]

        return self._run(ask())[-1]

    def fail(self, kind: str, **how: Any) -> None:
        """Have the next requests fail; see local/stripe/faults.py."""
        self.calls(lambda: self.on.troubles.append(Fault(kind, **how)))

    def all(self, kind: str) -> list[Any]:
        """Return the objects of a kind as they are now, the newest first."""
        found: list[Any] = self.calls(
            lambda: [self.on.engine.show(item) for item in self.on.engine.all(kind)]
        )
        return found

    def advance(self, days: float) -> None:
        """Let time pass."""

        def move() -> None:
            self.on.offset += int(days * 86400)
            self.on.tick()

        self.calls(move)

    def used_keys(self) -> list[str]:
        """Return every idempotency key that was answered."""
        return list(self.calls(lambda: list(self.on.engine.keys)))

    def save_card(self, customer: str, card: str = "pm_card_visa", *, default: bool = True) -> str:
        """Give a customer a card, as the portal would, and let the webhook report it."""
        method = self.request("POST", f"payment_methods/{card}/attach", customer=customer)
        if default:
            settings = {"default_payment_method": method["id"]}
            self.request("POST", f"customers/{customer}", invoice_settings=settings)
        self.deliver()
        return str(method["id"])

    def pay(self, subscription: str, card: str = "pm_card_visa") -> None:
        """Pay what a subscription waits for, as Stripe's form in the browser would."""
        found = self.request("GET", f"subscriptions/{subscription}")
        method = self.request("POST", f"payment_methods/{card}/attach", customer=found["customer"])[
            "id"
        ]
        self.request("POST", f"invoices/{found['latest_invoice']}/pay", payment_method=method)

    def subscribe(self, plan: str = "professional") -> str:
        """Put ws_demo on a plan, with a card that works; return the subscription."""
        with suppress(PaymentRequired):
            subscriptions.choose(ADMIN, PlanChoice.model_validate({"planId": plan}))
        name = str(self.all("subscription")[0]["id"])
        self.pay(name)
        self.deliver()
        return name

    def deliver(self) -> None:
        """Deliver the webhooks that were not delivered yet, in order."""
        news = self.calls(lambda: json.loads(json.dumps(self.on.engine.events[self.delivered :])))
        for event in news:
            found = stripe_objects.event(event)
            assert found is not None
            if types.handled(found.type) and found.type not in types.CATALOGUE:
                ingest.take(found, json.dumps(event), "webhook")
        self.delivered += len(news)

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(120)


@contextmanager
def running(environment: Any) -> Iterator[Shop]:
    """Run the stand-in, point the configuration at it, and fill both catalogues."""
    loop, ready, over = asyncio.new_event_loop(), threading.Event(), asyncio.Event()
    found: list[StandIn] = []

    async def live() -> None:
        async with serve(Options(key=KEY, seed=7)) as on:
            found.append(on)
            ready.set()
            await over.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(live()), daemon=True)
    thread.start()
    assert ready.wait(120)
    shop = Shop(found[0], loop)
    environment.setenv("BILLING_STRIPE_API_KEY", KEY)
    environment.setenv("BILLING_STRIPE_BASE_URL", shop.url)
    config.forget()
    _fill(shop)
    try:
        yield shop
    finally:
        for client in stripe_client._clients.values():
            client._requestor._client.close()
        stripe_client._clients.clear()
        loop.call_soon_threadsafe(over.set)
        thread.join(120)
        loop.close()


def _fill(shop: Shop) -> None:
    for plan, (amount, interval, limits) in CATALOGUE.items():
        product = shop.request("POST", "products", name=plan.title())
        price = shop.request(
            "POST",
            "prices",
            product=product["id"],
            unit_amount=amount,
            currency="aed",
            recurring={"interval": interval},
        )
        with postgres.transaction() as tx:
            tx.run(
                "INSERT INTO plan (id, product_id, price_id, name, amount, currency, interval,"
                " limits, active) VALUES (:id, :product, :price, :name, :amount, 'aed', :interval,"
                " CAST(:limits AS jsonb), true)",
                id=plan,
                product=product["id"],
                price=price["id"],
                name=plan.title(),
                amount=amount,
                interval=interval,
                limits=json.dumps({"maxOrdersPerMonth": -1, "maxStorageBytes": -1} | limits),
            )
            tx.run(
                "INSERT INTO plan_price (price_id, plan_id, active) VALUES (:price, :id, true)",
                price=price["id"],
                id=plan,
            )
    shop.delivered = len(shop.on.engine.events)
