"""The engine: Stripe's API as a pure state machine with a clock that only `advance` moves."""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from local.stripe.core import search
from local.stripe.core.errors import Refusal, missing
from local.stripe.core.params import Params, only
from local.stripe.core.routes import delete, get, one, pages, post
from local.stripe.core.state import Rules, State
from local.stripe.core.views import Object, copy, expanded, page
from local.stripe.objects import (
    billing_cycle,
    catalogue,
    checkout,
    collection,
    coupons,
    credit_notes,
    customers,
    invoice_items,
    invoices,
    one_off_invoices,
    portal_features,
    refunds,
    setup_intents,
    subscription_changes,
    subscription_items,
    subscription_pauses,
    subscription_schedules,
    subscriptions,
    test_clocks,
)
from local.stripe.objects import webhooks as hooks
from local.stripe.sdk.contract import check_params, typed

_REPLAYED = 86400  # how long an idempotency key is remembered
_LONGEST_KEY = 255  # characters of an idempotency key


@dataclass(frozen=True)
class Answer:
    """An HTTP status and a JSON body; `replayed` says that the body is an earlier one's."""

    status: int
    body: Object
    replayed: bool = False


def _account(state: State, params: Params) -> Object:
    return {
        "id": "acct_1StandIn0000000",
        "object": "account",
        "business_type": None,
        "charges_enabled": True,
        "country": "US",
        "default_currency": "usd",
        "details_submitted": True,
        "email": "stand-in@example.com",
        "payouts_enabled": True,
        "settings": {
            "branding": {
                "icon": None,
                "logo": None,
                "primary_color": None,
                "secondary_color": None,
            },
            "card_payments": {
                "decline_on": {"avs_failure": False, "cvc_failure": False},
                "statement_descriptor_prefix": None,
            },
            "dashboard": {"display_name": "Kyora (stand-in)", "timezone": "Etc/UTC"},
            "payments": {"statement_descriptor": None},
        },
        "type": "standard",
    }


def _delete_customer(state: State, params: Params, name: str) -> Object:
    found = state.find("customer", name)
    if found.get("_deleted"):
        raise missing("customer", name)
    for sub in state.all("subscription"):
        if sub["customer"] == name and sub["ended_at"] is None:
            collection.end(state, sub, "cancellation_requested")
    found["_deleted"] = True
    state.emit("customer.deleted", found)
    return {"id": name, "object": "customer", "deleted": True}


_PAY = ("payment_method", "paid_out_of_band", "off_session")
_CONFIGURE = ("features", "business_profile", "default_return_url", "metadata", "name")
_PREVIEW = (
    *("customer", "subscription", "subscription_details", "currency", "preview_mode"),
    "discounts",
)
_CONFIRM = ("payment_method", "return_url", "off_session", "setup_future_usage")
ROUTES = (
    get("/v1/account", _account),
    post("/v1/products", catalogue.create_product, *catalogue.PRODUCT_CREATE),
    pages("/v1/products", catalogue.list_products, "active", "ids", "type", "url"),
    get("/v1/products/{}", one("product")),
    post("/v1/products/{}", catalogue.update_product, *catalogue.PRODUCT_UPDATE),
    delete("/v1/products/{}", catalogue.delete_product),
    post("/v1/prices", catalogue.create_price, *catalogue.PRICE_CREATE),
    pages(
        "/v1/prices",
        catalogue.list_prices,
        *("active", "lookup_keys", "product", "currency", "type", "recurring"),
    ),
    get("/v1/prices/{}", one("price")),
    post("/v1/prices/{}", catalogue.update_price, *catalogue.PRICE_UPDATE),
    post("/v1/customers", customers.create_customer, *customers.CUSTOMER_CREATE),
    pages("/v1/customers", customers.list_customers, "email"),
    get("/v1/customers/{}", customers.show_customer),
    post("/v1/customers/{}", customers.update_customer, *customers.CUSTOMER_UPDATE),
    delete("/v1/customers/{}", _delete_customer),
    pages("/v1/customers/{}/payment_methods", customers.list_customer_methods, "type"),
    get("/v1/customers/{}/payment_methods/{}", customers.show_customer_method),
    post("/v1/payment_methods", customers.create_method, *customers.METHOD_CREATE),
    pages("/v1/payment_methods", customers.list_methods, "customer", "type"),
    get("/v1/payment_methods/{}", one("payment_method")),
    post("/v1/payment_methods/{}", customers.update_method, *customers.METHOD_UPDATE),
    post("/v1/payment_methods/{}/attach", customers.attach_method, "customer"),
    post("/v1/payment_methods/{}/detach", customers.detach_method),
    post("/v1/subscriptions", subscriptions.create, *subscriptions.CREATE),
    pages(
        "/v1/subscriptions",
        subscriptions.list_subscriptions,
        *("customer", "status", "price", "collection_method", "current_period_end"),
    ),
    get("/v1/subscriptions/{}", one("subscription")),
    post("/v1/subscriptions/{}", subscription_changes.update, *subscription_changes.UPDATE),
    delete(
        "/v1/subscriptions/{}",
        subscription_changes.cancel,
        "cancellation_details",
        "invoice_now",
        "prorate",
    ),
    post(
        "/v1/subscriptions/{}/resume",
        subscription_pauses.resume,
        *subscription_pauses.RESUME,
    ),
    post("/v1/subscriptions/{}/migrate", subscription_pauses.migrate, "billing_mode"),
    post("/v1/subscriptions/{}/pause", subscription_pauses.pause, *subscription_pauses.PAUSE),
    post(
        "/v1/subscription_schedules", subscription_schedules.create, *subscription_schedules.CREATE
    ),
    pages(
        "/v1/subscription_schedules", subscription_schedules.list_schedules, "customer", "scheduled"
    ),
    get("/v1/subscription_schedules/{}", one("subscription_schedule")),
    post(
        "/v1/subscription_schedules/{}",
        subscription_schedules.update,
        *subscription_schedules.UPDATE,
    ),
    post(
        "/v1/subscription_schedules/{}/release",
        subscription_schedules.release,
        "preserve_cancel_date",
    ),
    post(
        "/v1/subscription_schedules/{}/cancel",
        subscription_schedules.cancel,
        "invoice_now",
        "prorate",
    ),
    *subscription_items.ROUTES,
    *coupons.ROUTES,
    *invoice_items.ROUTES,
    *one_off_invoices.ROUTES,
    *refunds.ROUTES,
    *credit_notes.ROUTES,
    *setup_intents.ROUTES,
    *search.ROUTES,
    *test_clocks.ROUTES,
    post("/v1/invoices/create_preview", subscription_changes.preview, *_PREVIEW),
    pages(
        "/v1/invoices",
        invoices.list_invoices,
        *("customer", "status", "subscription", "collection_method"),
    ),
    get("/v1/invoices/{}", one("invoice")),
    post(
        "/v1/invoices/{}",
        collection.update_invoice,
        *("metadata", "description", "auto_advance", "footer"),
    ),
    pages("/v1/invoices/{}/lines", invoices.list_lines),
    post("/v1/invoices/{}/finalize", collection.finalize_invoice, "auto_advance"),
    post("/v1/invoices/{}/pay", collection.pay_invoice, *_PAY),
    post("/v1/invoices/{}/void", collection.void_invoice),
    post("/v1/invoices/{}/mark_uncollectible", collection.mark_uncollectible),
    pages("/v1/invoice_payments", invoices.list_payments, "invoice", "status", "payment"),
    get("/v1/invoice_payments/{}", one("invoice_payment")),
    pages("/v1/payment_intents", collection.list_intents, "customer"),
    get("/v1/payment_intents/{}", one("payment_intent")),
    post("/v1/payment_intents/{}/confirm", collection.confirm_intent, *_CONFIRM),
    post("/v1/checkout/sessions", checkout.create_session, *checkout.SESSION_CREATE),
    pages("/v1/checkout/sessions", checkout.list_sessions, "customer", "subscription", "status"),
    get("/v1/checkout/sessions/{}", one("checkout.session")),
    pages("/v1/checkout/sessions/{}/line_items", checkout.list_session_lines),
    post("/v1/checkout/sessions/{}/expire", checkout.expire_session),
    post(
        "/v1/billing_portal/sessions",
        checkout.create_portal,
        *("customer", "return_url", "configuration", "flow_data", "locale"),
    ),
    post("/v1/billing_portal/configurations", checkout.create_configuration, *_CONFIGURE),
    pages(
        "/v1/billing_portal/configurations", checkout.list_configurations, "active", "is_default"
    ),
    get("/v1/billing_portal/configurations/{}", one("billing_portal.configuration")),
    post(
        "/v1/billing_portal/configurations/{}", checkout.update_configuration, "active", *_CONFIGURE
    ),
    pages("/v1/events", hooks.list_events, "type", "types", "delivery_success"),
    get("/v1/events/{}", hooks.show_event),
    post("/v1/webhook_endpoints", hooks.create_endpoint, *hooks.CREATE),
    pages("/v1/webhook_endpoints", hooks.list_endpoints),
    get("/v1/webhook_endpoints/{}", hooks.show_endpoint),
    post("/v1/webhook_endpoints/{}", hooks.update_endpoint, *hooks.UPDATE),
    delete("/v1/webhook_endpoints/{}", hooks.delete_endpoint),
)
# `/v1/customers/search` is not a customer whose id is "search".
_BY_LENGTH = sorted(ROUTES, key=lambda route: route.path.groups)


class Engine(State):
    """Stripe's API (`request`), clock (`advance`) and events (`events`)."""

    def request(
        self,
        method: str,
        path: str,
        params: Params | None = None,
        idempotency_key: str | None = None,
    ) -> tuple[int, Object]:
        """Answer a request with a status and a body."""
        answer = self.answer(method, path, params, idempotency_key)
        return answer.status, answer.body

    def answer(
        self,
        method: str,
        path: str,
        params: Params | None = None,
        idempotency_key: str | None = None,
        request_id: str | None = None,
    ) -> Answer:
        """Answer a request; the same key and parameters get the same answer."""
        params = params or {}
        key = idempotency_key if method == "POST" else None
        if key and len(key) > _LONGEST_KEY:
            refusal = Refusal(
                400, f"Idempotency keys can be at most {_LONGEST_KEY} characters long."
            )
            return Answer(400, refusal.body)
        asked = _fingerprint(method, path, params)
        if key and (known := self.keys.get(key)) and known["at"] + _REPLAYED > self.now:
            return _replay(known, key, asked)
        name = request_id or self.identify("req_", 14)
        before = self.request_of
        self.request_of = {"id": name, "idempotency_key": idempotency_key}
        try:
            answer = Answer(200, self._run(method, path, params))
        except Refusal as refusal:
            answer = Answer(refusal.status, copy(refusal.body))
        finally:
            self.request_of = before
        # A request refused before it changed anything may be repeated with its key.
        if key and answer.status in (200, 402):
            self.keys[key] = {
                "at": self.now,
                "asked": asked,
                "status": answer.status,
                "body": copy(answer.body),
            }
        return answer

    def _run(self, method: str, path: str, params: Params) -> Object:
        for route in _BY_LENGTH:
            if route.method == method and (match := route.path.fullmatch(path)):
                refuse(method, path, params)
                params = typed(method, path, params)
                only(params, set(route.params))
                with test_clocks.at_its_time(self, params, match.groups()):
                    found = route.handler(self, params, *match.groups())
                listed = route.lists
                shown = page(self.objects, found, params, path) if listed else self.show(found)
                return expanded(self.objects, shown, params)
        raise invalid_url(method, path)

    # ---- time

    def advance(self, seconds: int) -> None:
        """Move the clock; what is due on the way happens at its own time."""
        self.advance_to(self.now + seconds)

    def advance_to(self, moment: int) -> None:
        """Move the clock to a moment; never back."""
        self.live(self.agenda, moment)

    def wake_up(self, found: Object) -> None:
        """Run an object's due action."""
        _WAKE[found["object"]](self, found)

    def skip(self, seconds: int) -> None:
        """Move the clock without real time passing, so that events on the way do not age."""
        self.jump = self.now
        try:
            self.advance(seconds)
        finally:
            self.skipped += self.now - self.jump
            self.jump = None

    def forget(self, kept: Collection[str] = ()) -> None:
        """Drop what Stripe drops: events after 30 days, idempotency keys after one.

        Events named by `kept` stay, and the newest one, where the pump continues.
        """
        self.events = [
            *(e for e in self.events[:-1] if hooks.is_listed(self, e) or e["id"] in kept),
            *self.events[-1:],
        ]
        self.keys = {k: v for k, v in self.keys.items() if v["at"] + _REPLAYED > self.now}

    # ---- to JSON and back

    def dump(self) -> Object:
        """Return everything as JSON data."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        named |= {"rules": asdict(self.rules)}
        dumped: Object = json.loads(json.dumps(named))
        return dumped

    @classmethod
    def load(cls, data: Mapping[str, Any]) -> Self:
        """Return the engine that was dumped."""
        rules = data["rules"] | {"retry_days": tuple(data["rules"]["retry_days"])}
        agenda = [(when, name) for when, name in data["agenda"]]
        found = cls(**{**data, "rules": Rules(**rules), "agenda": agenda})
        for settings in found.all("billing_portal.configuration"):
            # State of an earlier release lists only the features it was sent.
            settings["features"] = portal_features.default_features() | settings["features"]
        return found


_WAKE: dict[str, Callable[[State, Object], None]] = {
    "subscription": subscription_schedules.wake,
    "invoice": billing_cycle.wake_invoice,
    "checkout.session": checkout.expire,
}


def _fingerprint(method: str, path: str, params: Params) -> str:
    said = json.dumps([method, path, params], sort_keys=True, default=str)
    return hashlib.sha256(said.encode()).hexdigest()


def _replay(known: Object, key: str, asked: str) -> Answer:
    if known["asked"] == asked:
        return Answer(known["status"], copy(known["body"]), replayed=True)
    refusal = Refusal(
        400,
        "Keys for idempotent requests can only be used with the same parameters they were first "
        f"used with. Try using a key other than '{key}' if you meant to execute a different "
        "request.",
        kind="idempotency_error",
    )
    return Answer(400, refusal.body)


def refuse(method: str, path: str, params: Params) -> None:
    """Refuse what the SDK's types do not allow: unknown names, shapes and words, at any depth."""
    for fault in check_params(method, path, params):
        raise Refusal(400, fault.message, code=fault.code, param=fault.param)


def invalid_url(method: str, path: str) -> Refusal:
    """Return Stripe's answer to an address that it does not have."""
    return Refusal(
        404,
        f"Unrecognized request URL ({method}: {path}). Please see https://stripe.com/docs or we "
        "can help at https://support.stripe.com/.",
    )
