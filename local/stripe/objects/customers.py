"""Customers and their payment methods."""

from datetime import UTC, datetime
from typing import Any

from local.stripe.core.errors import Refusal, invalid, missing, required
from local.stripe.core.params import (
    Params,
    Reader,
    integer,
    listing,
    mapping,
    merged,
    need,
    only,
    text,
    values,
)
from local.stripe.core.routes import get, one, pages, post
from local.stripe.core.state import State
from local.stripe.core.views import Object, copy, within
from local.stripe.objects import cards, test_clocks

_CUSTOMER: dict[str, Reader] = {
    "address": mapping,
    "balance": integer,
    "description": text,
    "email": text,
    "name": text,
    "phone": text,
    "preferred_locales": lambda value, param: listing(value, param) or [],
    "shipping": mapping,
    "tax_exempt": text,
}
CUSTOMER_UPDATE = {*_CUSTOMER, "metadata", "invoice_settings"}
CUSTOMER_CREATE = {*CUSTOMER_UPDATE, "payment_method", "test_clock"}
_PRINTED = ("custom_fields", "footer")  # what every invoice of a customer says
METHOD_CREATE = {"type", "card", "billing_details", "metadata"}
METHOD_UPDATE = {"card", "billing_details", "metadata"}


def create_customer(state: State, params: Params) -> Object:
    """POST /v1/customers."""
    made: Object = {
        "id": state.identify("cus_", 14),
        "object": "customer",
        "address": None,
        "balance": 0,
        "created": state.now,
        "currency": None,
        "customer_account": None,
        "default_source": None,
        "delinquent": False,
        "description": None,
        "discount": None,
        "email": None,
        "invoice_prefix": state.random(8).upper(),
        "invoice_settings": {
            "custom_fields": None,
            "default_payment_method": None,
            "footer": None,
            "rendering_options": None,
        },
        "livemode": False,
        "metadata": merged({}, params),
        "name": None,
        "next_invoice_sequence": 1,
        "phone": None,
        "preferred_locales": [],
        "shipping": None,
        "tax_exempt": "none",
        "test_clock": test_clocks.chosen(state, params),
    }
    made |= values(params, _CUSTOMER)
    method = text(params.get("payment_method"), "payment_method")
    card = _method(state, method, "payment_method") if method else None
    if card and not cards.named(card["_card"]).attaches:
        raise cards.refuse(cards.named(card["_card"]))
    settings = _invoice_settings(params)
    made["invoice_settings"] |= {n: v for n, v in settings.items() if n in _PRINTED}
    state.add(made)
    state.emit("customer.created", made)
    if card:
        attach(state, card, made)
    if wanted := text(settings.get("default_payment_method"), "invoice_settings"):
        if card and wanted in (method, card["id"]):
            wanted = card["id"]
        _settle(state, made, wanted)
    return made


def update_customer(state: State, params: Params, name: str) -> Object:
    """POST /v1/customers/{id}."""
    found = state.find("customer", name)
    if found.get("_deleted"):
        raise missing("customer", name)
    fields = values(params, _CUSTOMER) | {"metadata": merged(found["metadata"], params)}
    settings = _invoice_settings(params)
    printed = {name: value or None for name, value in settings.items() if name in _PRINTED}
    if printed:
        fields["invoice_settings"] = found["invoice_settings"] | printed
    if "default_payment_method" in settings:
        wanted = text(settings["default_payment_method"], "invoice_settings")
        fields["invoice_settings"] = _settings(state, found, wanted) | printed
    state.change(found, **fields)
    return found


def _settle(state: State, customer: Object, method: str | None) -> None:
    state.change(customer, invoice_settings=_settings(state, customer, method))


def _settings(state: State, customer: Object, method: str | None) -> Object:
    if method is not None:
        card = state.find("payment_method", method, "invoice_settings[default_payment_method]")
        if card["customer"] != customer["id"]:
            raise Refusal(
                400,
                f"The customer does not have a payment method with the ID {method}. "
                "The payment method must be attached to the customer.",
                code="resource_missing",
                param="invoice_settings[default_payment_method]",
            )
    return {**customer["invoice_settings"], "default_payment_method": method}


def _invoice_settings(params: Params) -> Object:
    given = mapping(params.get("invoice_settings"), "invoice_settings") or {}
    only(given, {"default_payment_method", *_PRINTED}, "invoice_settings")
    return given


def one_currency(state: State, customer: Object, currency: str) -> None:
    """Refuse a second currency while the customer has anything in another one."""
    live = [
        sub["currency"]
        for sub in state.all("subscription")
        if sub["customer"] == customer["id"] and sub["ended_at"] is None
    ]
    waiting = [
        item["currency"]
        for item in state.all("invoiceitem")
        if item["customer"] == customer["id"] and item["invoice"] is None
    ]
    held = [customer["currency"]] if customer["balance"] else []
    for other in (*live, *waiting, *held):
        if other is not None and other != currency:
            raise invalid(
                "You cannot combine currencies on a single customer. This customer has an active "
                "subscription, subscription schedule, discount, quote, or invoice item with "
                f"currency {other}.",
                "currency",
            )


def show_customer(state: State, params: Params, name: str) -> Object:
    """GET /v1/customers/{id}: a deleted one is answered as deleted."""
    found = state.find("customer", name)
    gone = {"id": name, "object": "customer", "deleted": True}
    return gone if found.get("_deleted") else found


def list_customers(state: State, params: Params) -> list[Object]:
    """GET /v1/customers."""
    return [
        item
        for item in state.all("customer")
        if params.get("email") in (None, "", item["email"])
        and within(item["created"], params.get("created"), "created")
    ]


# ---- payment methods


def create_method(state: State, params: Params) -> Object:
    """POST /v1/payment_methods, from a test number or a token."""
    if need(params, "type") != "card":
        raise invalid("The stand-in knows cards only.", "type")
    given = mapping(params.get("card"), "card")
    if given is None:
        raise required("card")
    if token := text(given.get("token"), "card[token]"):
        card = cards.by_token(token)
        if card is None:
            raise missing("token", token, "card[token]")
        month, year = 12, 2034
    else:
        card = cards.by_number(str(need(given, "number")))
        month, year = expiry(state, given)
    made = new_method(state, card, month, year)
    made["metadata"] = merged({}, params)
    if details := mapping(params.get("billing_details"), "billing_details"):
        made["billing_details"] |= details
    return state.add(made)


def expiry(state: State, given: Params) -> tuple[int, int]:
    """Read a card's last month and year, refusing one that has passed."""
    month = integer(need(given, "exp_month"), "exp_month") or 0
    year = integer(need(given, "exp_year"), "exp_year") or 0
    year += 2000 if year < 100 else 0
    if not 1 <= month <= 12:
        raise cards.declined(
            "invalid_expiry_month", None, "Your card's expiration month is invalid."
        )
    if (year, month) < _month(state.now) or year > 2099:
        raise cards.declined("invalid_expiry_year", None, "Your card's expiration year is invalid.")
    return month, year


def _month(now: int) -> tuple[int, int]:
    at = datetime.fromtimestamp(now, UTC)
    return at.year, at.month


def new_method(state: State, card: cards.Card, month: int, year: int) -> Object:
    """Return a payment method of a card; it is not stored yet."""
    return {
        "id": state.identify("pm_1"),
        "object": "payment_method",
        "allow_redisplay": "unspecified",
        "billing_details": {
            "address": dict.fromkeys(("city", "country", "line1", "line2", "postal_code", "state")),
            "email": None,
            "name": None,
            "phone": None,
            "tax_id": None,
        },
        "card": {
            "brand": card.brand,
            "checks": {
                "address_line1_check": None,
                "address_postal_code_check": None,
                "cvc_check": "pass",
            },
            "country": "US",
            "display_brand": card.brand,
            "exp_month": month,
            "exp_year": year,
            "fingerprint": f"{card.name:x<16}"[:16],
            "funding": "debit" if card.name == "visa_debit" else "credit",
            "generated_from": None,
            "last4": card.number[-4:],
            "networks": {"available": [card.brand], "preferred": None},
            "regulated_status": "unregulated",
            "three_d_secure_usage": {"supported": True},
            "wallet": None,
        },
        "created": state.now,
        "customer": None,
        "customer_account": None,
        "livemode": False,
        "metadata": {},
        "type": "card",
        "_card": card.name,
        "_authenticated": False,
    }


def _method(state: State, name: Any, param: str | None) -> Object:
    """Return a payment method; a test id makes a new one each time it is used."""
    if isinstance(name, str) and name.startswith("pm_card_") and (card := cards.by_token(name)):
        return state.add(new_method(state, card, 12, 2034))
    return state.find("payment_method", name, param)


def named(state: State, name: str, param: str) -> Object:
    """Return a payment method of any customer or none; a test id makes a new one."""
    return _method(state, name, param)


def usable(state: State, name: str, customer: Object, param: str, *, adopt: bool = False) -> Object:
    """Return a payment method of this customer; a test id, or with `adopt` any, is attached."""
    found = _method(state, name, param)
    if found["customer"] is None and (adopt or name.startswith("pm_card_")):
        attach(state, found, customer)
    if found["customer"] != customer["id"]:
        raise Refusal(
            400,
            f"The customer does not have a payment method with the ID {name}. "
            "The payment method must be attached to the customer.",
            code="resource_missing",
            param=param,
        )
    return found


def attach(state: State, method: Object, customer: Object) -> None:
    """Attach a payment method to a customer; some test cards are refused here."""
    card = cards.named(method["_card"])
    if not card.attaches:
        raise cards.refuse(card)
    if method["customer"] == customer["id"]:
        return
    if method["customer"] is not None:
        raise Refusal(
            400,
            "The payment method you provided has already been attached to a customer.",
            code="payment_method_unexpected_state",
        )
    if method.get("_detached"):
        raise Refusal(
            400,
            "This PaymentMethod was previously used without being attached to a Customer or was "
            "detached from a Customer, and may not be used again.",
            code="payment_method_unexpected_state",
        )
    method["customer"] = customer["id"]
    state.emit("payment_method.attached", method)


def attach_method(state: State, params: Params, name: str) -> Object:
    """POST /v1/payment_methods/{id}/attach."""
    customer = state.find("customer", need(params, "customer"), "customer")
    found = _method(state, name, None)
    attach(state, found, customer)
    return found


def detach_method(state: State, params: Params, name: str) -> Object:
    """POST /v1/payment_methods/{id}/detach."""
    found = state.find("payment_method", name)
    if found["customer"] is None:
        raise Refusal(
            400,
            "The payment method you provided is not attached to a customer so detachment is "
            "impossible.",
            code="payment_method_unexpected_state",
        )
    detach(state, found)
    return found


def detach(state: State, method: Object) -> None:
    """Detach a payment method, also where it was the default."""
    owner = state.get(method["customer"])
    method["_detached"] = True
    state.change(method, "payment_method.detached", customer=None)
    if owner["invoice_settings"]["default_payment_method"] == method["id"]:
        _settle(state, owner, None)
    for sub in state.all("subscription"):
        if sub["default_payment_method"] == method["id"] and sub["ended_at"] is None:
            state.change(sub, default_payment_method=None)


def update_method(state: State, params: Params, name: str) -> Object:
    """POST /v1/payment_methods/{id}: expiry, billing details, metadata."""
    found = state.find("payment_method", name)
    fields: Object = {"metadata": merged(found["metadata"], params)}
    if given := mapping(params.get("card"), "card"):
        month, year = expiry(state, {**found["card"], **given})
        fields["card"] = found["card"] | {"exp_month": month, "exp_year": year}
    if details := mapping(params.get("billing_details"), "billing_details"):
        fields["billing_details"] = found["billing_details"] | details
    state.change(found, **fields)
    return found


def list_methods(state: State, params: Params) -> list[Object]:
    """GET /v1/payment_methods?customer=…."""
    if customer := text(params.get("customer"), "customer"):
        state.find("customer", customer, "customer")
    return [
        item
        for item in state.all("payment_method")
        if (customer is not None and item["customer"] == customer)
        and params.get("type") in (None, "", item["type"])
    ]


def list_customer_methods(state: State, params: Params, name: str) -> list[Object]:
    """GET /v1/customers/{id}/payment_methods."""
    state.find("customer", name)
    return list_methods(state, {**params, "customer": name})


def show_customer_method(state: State, params: Params, name: str, method: str) -> Object:
    """GET /v1/customers/{id}/payment_methods/{id}."""
    found = state.find("payment_method", method)
    if found["customer"] != name:
        raise missing("payment_method", method)
    return found


def default_method(state: State, customer: Object, subscription: Object | None) -> Object | None:
    """Return the payment method to charge: the subscription's own, or the customer's default."""
    own = (subscription or {}).get("default_payment_method")
    name = own or customer["invoice_settings"]["default_payment_method"]
    found = state.objects.get(name) if name else None
    return found if found and found["customer"] == customer["id"] else None


def summary(method: Object) -> Object:
    """Return a copy of a payment method as errors carry it."""
    shown: Object = copy(method)
    return shown


ROUTES = (
    post("/v1/customers", create_customer, *CUSTOMER_CREATE),
    pages("/v1/customers", list_customers, "email"),
    get("/v1/customers/{}", show_customer),
    post("/v1/customers/{}", update_customer, *CUSTOMER_UPDATE),
    pages("/v1/customers/{}/payment_methods", list_customer_methods, "type"),
    get("/v1/customers/{}/payment_methods/{}", show_customer_method),
    post("/v1/payment_methods", create_method, *METHOD_CREATE),
    pages("/v1/payment_methods", list_methods, "customer", "type"),
    get("/v1/payment_methods/{}", one("payment_method")),
    post("/v1/payment_methods/{}", update_method, *METHOD_UPDATE),
    post("/v1/payment_methods/{}/attach", attach_method, "customer"),
    post("/v1/payment_methods/{}/detach", detach_method),
)
