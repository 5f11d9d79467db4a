"""The customer portal: its configurations, its sessions, and what a person does on its page."""

from local.stripe.core.errors import invalid, missing, required
from local.stripe.core.params import Params, address, boolean, mapping, merged, need, text
from local.stripe.core.routes import get, one, pages, post
from local.stripe.core.state import State
from local.stripe.core.views import Object
from local.stripe.objects import cards, customers, portal_features, subscription_changes

_DAY = 86400
_CONFIGURE = ("features", "business_profile", "default_return_url", "metadata", "name")


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


def create_session(state: State, params: Params) -> Object:
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
        "return_url": address(params["return_url"], "return_url")
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


def find(state: State, secret: str) -> Object:
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


def cancel(state: State, session: Object, name: str) -> None:
    """End a subscription with its period, as the portal does.

    In flexible billing mode that sets `cancel_at` and leaves `cancel_at_period_end` false.
    """
    sub = _own(state, session, name)
    if sub["billing_mode"]["type"] == "classic":
        subscription_changes.update(state, {"cancel_at_period_end": True}, name)
        return
    ends = max(item["current_period_end"] for item in sub["items"]["data"])
    subscription_changes.update(state, {"cancel_at": ends}, name)


def keep(state: State, session: Object, name: str) -> None:
    """Take a cancellation back."""
    _own(state, session, name)
    subscription_changes.update(state, {"cancel_at": "", "cancel_at_period_end": False}, name)


def _price(state: State, sub: Object) -> Object:
    return state.get(sub["items"]["data"][0]["price"])


def switch(state: State, session: Object, name: str, price: str) -> None:
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


def use_card(state: State, session: Object, card: Params) -> None:
    """Make a card the default of the customer and of its subscriptions."""
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


ROUTES = (
    post(
        "/v1/billing_portal/sessions",
        create_session,
        *("customer", "return_url", "configuration", "flow_data", "locale"),
    ),
    post("/v1/billing_portal/configurations", create_configuration, *_CONFIGURE),
    pages("/v1/billing_portal/configurations", list_configurations, "active", "is_default"),
    get("/v1/billing_portal/configurations/{}", one("billing_portal.configuration")),
    post("/v1/billing_portal/configurations/{}", update_configuration, "active", *_CONFIGURE),
)
