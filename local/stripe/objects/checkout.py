"""Checkout sessions, and paying on the hosted pages."""

from local.stripe.core.errors import Refusal, invalid, required
from local.stripe.core.params import (
    Params,
    address,
    integer,
    listing,
    mapping,
    merged,
    need,
    one_of,
    only,
    text,
)
from local.stripe.core.routes import get, one, pages, post
from local.stripe.core.state import State
from local.stripe.core.views import Object, whole
from local.stripe.objects import (
    cards,
    catalogue,
    collection,
    coupons,
    customers,
    invoices,
    subscriptions,
)

_KEPT = {
    *("allow_promotion_codes", "billing_address_collection", "locale", "submit_type"),
    *("payment_method_collection", "customer_creation", "consent_collection"),
}
SESSION_CREATE = {
    *("mode", "line_items", "customer", "client_reference_id", "subscription_data", "success_url"),
    *("cancel_url", "metadata", "expires_at", "customer_email", "automatic_tax", "customer_update"),
    *("tax_id_collection", "ui_mode", "discounts"),
    *_KEPT,
}
SUBSCRIPTION_DATA = {
    *("metadata", "trial_period_days", "trial_end", "description", "trial_settings"),
    *("billing_mode", "proration_behavior"),
}
_DAY = 86400


def create_session(state: State, params: Params) -> Object:
    """POST /v1/checkout/sessions, for subscriptions."""
    if one_of("subscription", "payment", "setup")(need(params, "mode"), "mode") != "subscription":
        raise invalid("The stand-in knows checkout in mode=subscription only.", "mode")
    data = mapping(params.get("subscription_data"), "subscription_data") or {}
    only(data, SUBSCRIPTION_DATA, "subscription_data")
    customer = text(params.get("customer"), "customer")
    payer = state.find("customer", customer, "customer") if customer else None
    subscriptions.no_tax(params)
    if payer is None and params.get("customer_update"):
        raise invalid("`customer_update` can only be used with `customer`.", "customer_update")
    name = state.identify("cs_test_a1", 56)
    lines = _lines(state, params)
    trial = state.find("price", lines[0]["price"], "line_items")
    if payer:
        customers.one_currency(state, payer, trial["currency"])
    total = 0 if data.get("trial_period_days") else sum(line["amount_total"] for line in lines)
    made: Object = {
        "id": name,
        "object": "checkout.session",
        "adaptive_pricing": None,
        "after_expiration": None,
        **dict.fromkeys(sorted(_KEPT)),
        "amount_subtotal": total,
        "amount_total": total,
        "automatic_tax": {"enabled": False, "liability": None, "provider": None, "status": None},
        "cancel_url": text(params.get("cancel_url"), "cancel_url"),
        "client_reference_id": text(params.get("client_reference_id"), "client_reference_id"),
        "client_secret": None,
        "collected_information": None,
        "consent": None,
        "created": state.now,
        "currency": trial["currency"],
        "currency_conversion": None,
        "custom_fields": [],
        "custom_text": {
            "after_submit": None,
            "shipping_address": None,
            "submit": None,
            "terms_of_service_acceptance": None,
        },
        "customer": customer,
        "customer_account": None,
        "customer_details": None,
        "customer_email": text(params.get("customer_email"), "customer_email"),
        "discounts": [],
        "expires_at": _expires(state, params),
        "invoice": None,
        "invoice_creation": None,
        "line_items": whole(lines, f"/v1/checkout/sessions/{name}/line_items"),
        "livemode": False,
        "metadata": merged({}, params),
        "mode": "subscription",
        "origin_context": None,
        "payment_intent": None,
        "payment_link": None,
        "payment_method_configuration_details": None,
        "payment_method_options": {"card": {"request_three_d_secure": "automatic"}},
        "payment_method_types": ["card"],
        "payment_status": "unpaid",
        "permissions": None,
        "phone_number_collection": {"enabled": False},
        "recovered_from": None,
        "saved_payment_method_options": None,
        "setup_intent": None,
        "shipping_address_collection": None,
        "shipping_cost": None,
        "shipping_options": [],
        "status": "open",
        "subscription": None,
        "success_url": address(need(params, "success_url"), "success_url"),
        "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
        "ui_mode": "hosted_page",
        "url": f"{state.url}/c/pay/{name}",
        "wallet_options": None,
        "_asked": [],
        "_data": dict(data),
        "_challenge": None,
    }
    made |= {field: params[field] for field in _KEPT if field in params}
    if made["allow_promotion_codes"] and params.get("discounts"):
        raise invalid(
            "You may only specify one of these parameters: allow_promotion_codes, discounts.",
            "discounts",
        )
    if taxes := mapping(params.get("tax_id_collection"), "tax_id_collection"):
        made["tax_id_collection"] = {"required": "never", **taxes}
    discount(state, made, listing(params.get("discounts"), "discounts") or [])
    made["payment_method_collection"] = made["payment_method_collection"] or "always"
    _check(state, made)
    state.add(made)
    state.wake(made, made["expires_at"])
    return made


def _lines(state: State, params: Params) -> list[Object]:
    given = listing(params.get("line_items"), "line_items")
    if not given:
        raise required("line_items")
    lines = []
    for number, item in enumerate(given):
        param = f"line_items[{number}]"
        inside = mapping(item, param) or {}
        only(inside, {"price", "price_data", "quantity", "metadata"}, param)
        data = mapping(inside.get("price_data"), f"{param}[price_data]")
        if data is None:
            price = state.find("price", need(inside, "price"), f"{param}[price]")
        else:
            price = catalogue.inline_price(state, data)
        quantity = integer(inside.get("quantity"), f"{param}[quantity]")
        if quantity is None:
            raise required(
                f"{param}[quantity]", f"Quantity is required. Add `quantity` to `{param}`"
            )
        if quantity < 1:
            raise invalid("This value must be greater than or equal to 1.", f"{param}[quantity]")
        line = {"price": price["id"], "quantity": quantity, "subscription": None, "id": ""}
        if price["recurring"] is None:
            raise invalid("The stand-in sells recurring prices only.", f"{param}[price]")
        cost = invoices.price_line(state, line, (0, 0))["amount"]
        lines.append(
            {
                "id": state.identify("li_1"),
                "object": "item",
                "amount_discount": 0,
                "amount_subtotal": cost,
                "amount_tax": 0,
                "amount_total": cost,
                "currency": price["currency"],
                "description": state.get(price["product"])["name"],
                "metadata": merged({}, inside),
                "price": price["id"],
                "quantity": quantity,
            }
        )
    return lines


def discount(state: State, session: Object, asked: list[Object]) -> None:
    """Take discounts off what a session sells; each is of a coupon or of a promotion code."""
    found = _discounts(state, session, asked)
    lines = [
        invoices.price_line(state, line | {"subscription": None}, (0, 0))
        for line in session["line_items"]["data"]
    ]
    full = session["amount_subtotal"]
    off = min(full, sum(line["amount"] for line in lines) - invoices.worth(state, lines, found))
    session |= {
        "amount_total": full - off,
        "discounts": [
            {"coupon": each["source"]["coupon"], "promotion_code": each["promotion_code"]}
            for each in found
        ],
        "total_details": session["total_details"] | {"amount_discount": off},
        "_asked": asked,
    }


def _discounts(state: State, session: Object, asked: list[Object]) -> list[Object]:
    no_one: Object = {"id": session["customer"] or ""}
    customer = state.objects.get(no_one["id"], no_one)
    wanted = {"discounts": asked}
    return coupons.read(state, wanted, customer, subscription=None, currency=session["currency"])


def _expires(state: State, params: Params) -> int:
    given = integer(params.get("expires_at"), "expires_at")
    if given is None:
        return state.now + _DAY
    if not state.now + 1800 <= given <= state.now + _DAY:
        raise invalid(
            "The `expires_at` timestamp must be between 30 minutes and 24 hours from now.",
            "expires_at",
        )
    return given


def _check(state: State, session: Object) -> None:
    """Refuse a session whose subscription would be refused, by a trial run that is not stored."""
    no_one = {"id": "", "balance": 0}
    subscriptions.new(state, no_one, _wanted(session))


def _wanted(session: Object) -> Object:
    items = [
        {"price": line["price"], "quantity": line["quantity"]}
        for line in session["line_items"]["data"]
    ]
    return {**session["_data"], "items": items}


def open_session(state: State, name: str) -> Object:
    """Return a session that can still be paid, or refuse."""
    session = state.find("checkout.session", name)
    if session["status"] != "open":
        raise Refusal(400, f"This Checkout Session is {session['status']}.")
    return session


def pay_session(state: State, name: str, card: Params, person: Params) -> str:
    """Pay an open session as its page does; return where the browser goes next.

    That is the success URL, or the address of the 3D Secure challenge. A refused card raises.
    """
    session = open_session(state, name)
    if session["allow_promotion_codes"] and person.get("promotion_code"):
        code = coupons.by_code(state, str(person["promotion_code"]))
        discount(state, session, [{"promotion_code": code["id"]}])
    found = cards.by_number(str(card.get("number", "")))
    month, year = customers.expiry(state, card)
    method = customers.new_method(state, found, month, year)
    method["billing_details"] |= {
        "email": text(person.get("email"), "email") or session["customer_email"],
        "name": text(person.get("name"), "name"),
    }
    outcome = collection.verdict(method, present=False)
    if isinstance(outcome, Refusal):
        raise outcome
    state.add(method)
    if outcome == "challenge":
        session["_challenge"] = method["id"]
        return f"{state.url}/c/3ds/{name}"
    return _complete(state, session, method)


def pass_challenge(state: State, name: str, *, passed: bool) -> str:
    """Answer the 3D Secure challenge of a session; return where the browser goes next."""
    session = open_session(state, name)
    method = state.objects.get(session["_challenge"] or "")
    session["_challenge"] = None
    if method is None:
        raise Refusal(400, "No 3D Secure challenge is open.")
    outcome = collection.verdict(method, present=True)
    if not passed:
        raise cards.declined(
            "payment_intent_authentication_failure",
            None,
            "We are unable to authenticate your payment method. Please choose a different payment "
            "method and try again.",
        )
    if isinstance(outcome, Refusal):
        raise outcome
    method["_authenticated"] = True
    return _complete(state, session, method)


def _complete(state: State, session: Object, method: Object) -> str:
    details = method["billing_details"]
    if session["customer"] is None:
        made = {"email": details["email"], "name": details["name"]}
        session["customer"] = customers.create_customer(state, made)["id"]
    customer = state.get(session["customer"])
    customers.attach(state, method, customer)
    sub = subscriptions.new(state, customer, _wanted(session))
    sub["default_payment_method"] = method["id"]
    sub["_asked"] = [
        each | {"checkout_session": session["id"], "subscription": sub["id"]}
        for each in _discounts(state, session, session["_asked"])
    ]
    # The cardholder is present and has passed any 3D Secure challenge.
    subscriptions.begin(state, sub, "default_incomplete")
    invoice = state.get(sub["latest_invoice"])
    if invoice["status"] == "open":
        collection.charge(state, invoice, method, present=True)
    session |= {
        "customer_details": {
            "address": details["address"],
            "email": details["email"] or customer["email"],
            "name": details["name"] or customer["name"],
            "phone": None,
            "tax_exempt": "none",
            "tax_ids": [],
        },
        "invoice": invoice["id"],
        "payment_status": "paid" if invoice["total"] else "no_payment_required",
        "status": "complete",
        "subscription": sub["id"],
        "url": None,
    }
    state.wake(session, None)
    state.emit("checkout.session.completed", session)
    return success(session)


def success(session: Object) -> str:
    """Return the success URL of a paid session."""
    return str(session["success_url"]).replace("{CHECKOUT_SESSION_ID}", session["id"])


def expire_session(state: State, params: Params, name: str) -> Object:
    """POST /v1/checkout/sessions/{id}/expire."""
    session = state.find("checkout.session", name)
    if session["status"] != "open":
        raise Refusal(
            400,
            'Only Checkout Sessions with a status in ["open"] can be expired. This Checkout '
            f"Session has a status of `{session['status']}`.",
        )
    expire(state, session)
    return session


def expire(state: State, session: Object) -> None:
    """Expire an unpaid session."""
    session |= {"status": "expired", "url": None}
    state.wake(session, None)
    state.emit("checkout.session.expired", session)


def list_sessions(state: State, params: Params) -> list[Object]:
    """GET /v1/checkout/sessions."""
    return [
        item
        for item in state.all("checkout.session")
        if params.get("customer") in (None, "", item["customer"])
        and params.get("subscription") in (None, "", item["subscription"])
        and params.get("status") in (None, "", item["status"])
    ]


def list_session_lines(state: State, params: Params, name: str) -> list[Object]:
    """GET /v1/checkout/sessions/{id}/line_items."""
    session = state.find("checkout.session", name)
    return [
        line | {"price": state.show(state.get(line["price"]))}
        for line in session["line_items"]["data"]
    ]


def pay_hosted(state: State, name: str, card: Params) -> str | None:
    """Pay an open invoice on its page; return the challenge's address, or None when it is paid."""
    invoice = state.find("invoice", name)
    if invoice["status"] not in ("open", "uncollectible"):
        raise Refusal(400, f"This invoice is {invoice['status']}.")
    customer = state.get(invoice["customer"])
    found = cards.by_number(str(card.get("number", "")))
    method = customers.new_method(state, found, *customers.expiry(state, card))
    state.add(method)
    customers.attach(state, method, customer)
    refusal = collection.charge(state, invoice, method)
    if refusal is collection.AUTHENTICATE:
        intent = state.get(invoice["_intent"])
        return str(intent["next_action"]["redirect_to_url"]["url"])
    if refusal is not None:
        raise refusal
    return None


ROUTES = (
    post("/v1/checkout/sessions", create_session, *SESSION_CREATE),
    pages("/v1/checkout/sessions", list_sessions, "customer", "subscription", "status"),
    get("/v1/checkout/sessions/{}", one("checkout.session")),
    pages("/v1/checkout/sessions/{}/line_items", list_session_lines),
    post("/v1/checkout/sessions/{}/expire", expire_session),
)
