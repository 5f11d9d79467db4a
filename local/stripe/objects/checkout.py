"""Checkout sessions, the customer portal and its configurations: what the hosted pages call."""

from local.stripe.core.errors import Refusal, invalid, missing, required
from local.stripe.core.params import (
    Params,
    boolean,
    integer,
    listing,
    mapping,
    merged,
    need,
    one_of,
    only,
    text,
)
from local.stripe.core.state import State
from local.stripe.core.views import Object, whole
from local.stripe.objects import (
    cards,
    catalogue,
    collection,
    coupons,
    customers,
    invoices,
    portal_features,
    subscription_changes,
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
        "success_url": _address(need(params, "success_url"), "success_url"),
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
    nobody: Object = {"id": session["customer"] or ""}
    customer = state.objects.get(nobody["id"], nobody)
    wanted = {"discounts": asked}
    return coupons.read(state, wanted, customer, subscription=None, currency=session["currency"])


def _address(value: object, param: str) -> str:
    if not str(value).startswith(("http://", "https://")):
        raise invalid("Not a valid URL", param, "url_invalid")
    return str(value)


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
    nobody = {"id": "", "balance": 0}
    subscriptions.new(state, nobody, _wanted(session))


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


# ---- the portal


def create_configuration(state: State, params: Params) -> Object:
    """POST /v1/billing_portal/configurations."""
    made: Object = {
        "id": state.identify("bpc_1"),
        "object": "billing_portal.configuration",
        "active": True,
        "application": None,
        "business_profile": mapping(params.get("business_profile"), "business_profile")
        or {"headline": None, "privacy_policy_url": None, "terms_of_service_url": None},
        "created": state.now,
        "default_return_url": text(params.get("default_return_url"), "default_return_url"),
        "features": portal_features.features(mapping(params.get("features"), "features") or {})
        if "features" in params
        else portal_features.default_features(),
        "is_default": not state.all("billing_portal.configuration"),
        "livemode": False,
        "login_page": {"enabled": False, "url": None},
        "metadata": merged({}, params),
        "name": text(params.get("name"), "name"),
        "updated": state.now,
    }
    state.add(made)
    state.emit("billing_portal.configuration.created", made)
    return made


def update_configuration(state: State, params: Params, name: str) -> Object:
    """POST /v1/billing_portal/configurations/{id}."""
    found = state.find("billing_portal.configuration", name)
    fields: Object = {"metadata": merged(found["metadata"], params)}
    if "business_profile" in params:
        said = mapping(params["business_profile"], "business_profile") or {}
        fields["business_profile"] = found["business_profile"] | said
    if "features" in params:
        change = mapping(params["features"], "features") or {}
        fields["features"] = portal_features.features(change, found["features"])
    if "active" in params:
        fields["active"] = boolean(params["active"], "active")
    state.change(found, **fields)
    return found


def list_configurations(state: State, params: Params) -> list[Object]:
    """GET /v1/billing_portal/configurations."""
    active = boolean(params.get("active"), "active")
    return [
        item
        for item in state.all("billing_portal.configuration")
        if active is None or item["active"] == active
    ]


def create_portal(state: State, params: Params) -> Object:
    """POST /v1/billing_portal/sessions."""
    customer = state.find("customer", need(params, "customer"), "customer")
    chosen = text(params.get("configuration"), "configuration")
    known = state.all("billing_portal.configuration")
    if chosen is None:
        chosen = (known[-1] if known else create_configuration(state, {}))["id"]
    else:
        state.find("billing_portal.configuration", chosen, "configuration")
    secret = state.random(40)
    made: Object = {
        "id": state.identify("bps_1"),
        "object": "billing_portal.session",
        "configuration": chosen,
        "created": state.now,
        "customer": customer["id"],
        "customer_account": None,
        "flow": _flow(state, customer, chosen, params),
        "livemode": False,
        "locale": text(params.get("locale"), "locale"),
        "on_behalf_of": None,
        "return_url": _address(params["return_url"], "return_url")
        if params.get("return_url")
        else None,
        "url": f"{state.url}/p/session/{secret}",
        "_secret": secret,
    }
    return state.add(made)


def _flow(state: State, customer: Object, configuration: str, params: Params) -> Object | None:
    """Read a deep link: its feature must be on, its subscription the customer's own."""
    given = mapping(params.get("flow_data"), "flow_data")
    kind = str((given or {}).get("type")).removesuffix("_confirm")
    if given is not None:
        feature = state.get(configuration)["features"].get(kind)
        if feature is not None and not feature["enabled"]:
            raise invalid(
                f"This flow cannot be used because the {kind} feature in the portal configuration "
                "is disabled.",
                "flow_data[type]",
            )
        if kind.startswith("subscription_"):
            inside = mapping(given.get(str(given["type"])), f"flow_data[{given['type']}]")
            if inside is None:
                raise required(f"flow_data[{given['type']}]")
            param = f"flow_data[{given['type']}][subscription]"
            sub = state.find("subscription", inside["subscription"], param)
            if sub["customer"] != customer["id"]:
                raise missing("subscription", sub["id"], param)
    return portal_features.flow(given)


def portal(state: State, secret: str) -> Object:
    """Return the session of a portal page; its link lives for a day."""
    for session in state.all("billing_portal.session"):
        if session["_secret"] == secret and session["created"] + _DAY > state.now:
            return session
    raise missing("billing_portal.session", "…")


def allows(state: State, session: Object, feature: str) -> bool:
    """Return whether the portal's configuration allows a feature."""
    return bool(state.get(session["configuration"])["features"][feature]["enabled"])


def choices(state: State, session: Object, price: Object) -> list[Object]:
    """Return the prices a customer may change to: all that are offered, or those configured."""
    if not allows(state, session, "subscription_update"):
        return []
    features = state.get(session["configuration"])["features"]
    products = features["subscription_update"]["products"]
    listed = {name for product in products or [] for name in product["prices"]}
    return [
        other
        for other in reversed(state.all("price"))
        if other["active"]
        and other["recurring"]
        and other["id"] != price["id"]
        and other["currency"] == price["currency"]
        and state.get(other["product"])["active"]
        and (not products or other["id"] in listed)
    ]


def _own(state: State, session: Object, name: str) -> Object:
    sub = state.find("subscription", name)
    if sub["customer"] != session["customer"]:
        raise missing("subscription", name)
    return sub


def portal_cancel(state: State, session: Object, name: str) -> None:
    """End a subscription with its period, as the portal does.

    In flexible billing mode that sets `cancel_at` and leaves `cancel_at_period_end` false.
    """
    sub = _own(state, session, name)
    if sub["billing_mode"]["type"] == "classic":
        subscription_changes.update(state, {"cancel_at_period_end": True}, name)
        return
    ends = max(item["current_period_end"] for item in sub["items"]["data"])
    subscription_changes.update(state, {"cancel_at": ends}, name)


def portal_keep(state: State, session: Object, name: str) -> None:
    """Take a cancellation back."""
    _own(state, session, name)
    subscription_changes.update(state, {"cancel_at": "", "cancel_at_period_end": False}, name)


def _price(state: State, sub: Object) -> Object:
    return state.get(sub["items"]["data"][0]["price"])


def portal_switch(state: State, session: Object, name: str, price: str) -> None:
    """Change a subscription's plan at once, refused when the card is."""
    sub = _own(state, session, name)
    if price not in [other["id"] for other in choices(state, session, _price(state, sub))]:
        raise missing("price", price)
    item = sub["items"]["data"][0]["id"]
    change = {
        "items": [{"id": item, "price": price}],
        "proration_behavior": "always_invoice",
        "payment_behavior": "error_if_incomplete",
    }
    subscription_changes.update(state, change, name)


def portal_card(state: State, session: Object, card: Params) -> None:
    """Make a card the customer's default everywhere, and retry open invoices with it."""
    customer = state.get(session["customer"])
    found = cards.by_number(str(card.get("number", "")))
    method = customers.new_method(state, found, *customers.expiry(state, card))
    state.add(method)
    customers.attach(state, method, customer)
    settings = customer["invoice_settings"] | {"default_payment_method": method["id"]}
    state.change(customer, invoice_settings=settings)
    for sub in state.all("subscription"):
        if sub["customer"] == customer["id"] and sub["ended_at"] is None:
            state.change(sub, default_payment_method=method["id"])


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
