"""Setup intents: a card is saved for later, with 3D Secure when it asks for that."""

from local.stripe.core.errors import Refusal
from local.stripe.core.params import Params, boolean, merged, text
from local.stripe.core.routes import get, one, pages, post
from local.stripe.core.state import State
from local.stripe.core.views import Object, within
from local.stripe.objects import cards, customers

_CREATE = (
    *("customer", "payment_method", "confirm", "usage", "metadata", "description", "return_url"),
    "automatic_payment_methods",
)
_CONFIRM = ("payment_method", "return_url")
_OVER = ("succeeded", "canceled")


def create(state: State, params: Params) -> Object:
    """POST /v1/setup_intents."""
    name = state.identify("seti_1")
    owner = text(params.get("customer"), "customer")
    customer = state.find("customer", owner, "customer") if owner else None
    wanted = text(params.get("payment_method"), "payment_method")
    method = customers.named(state, wanted, "payment_method") if wanted else None
    made: Object = {
        "id": name,
        "object": "setup_intent",
        "application": None,
        "automatic_payment_methods": params.get("automatic_payment_methods"),
        "cancellation_reason": None,
        "client_secret": f"{name}_secret_{state.random(25)}",
        "created": state.now,
        "customer": customer["id"] if customer else None,
        "customer_account": None,
        "description": text(params.get("description"), "description"),
        "excluded_payment_method_types": None,
        "flow_directions": None,
        "last_setup_error": None,
        "latest_attempt": None,
        "livemode": False,
        "mandate": None,
        "metadata": merged({}, params),
        "next_action": None,
        "on_behalf_of": None,
        "payment_method": method["id"] if method else None,
        "payment_method_configuration_details": None,
        "payment_method_options": {
            "card": {
                "mandate_options": None,
                "network": None,
                "request_three_d_secure": "automatic",
            },
        },
        "payment_method_types": ["card"],
        "single_use_mandate": None,
        "status": "requires_confirmation" if method else "requires_payment_method",
        "usage": text(params.get("usage"), "usage") or "off_session",
    }
    state.add(made)
    state.emit("setup_intent.created", made)
    if boolean(params.get("confirm"), "confirm"):
        _confirm(state, made, params)
    return made


def update(state: State, params: Params, name: str) -> Object:
    """POST /v1/setup_intents/{id}."""
    found = _open(state, name, "update")
    if wanted := text(params.get("payment_method"), "payment_method"):
        method = customers.named(state, wanted, "payment_method")
        found |= {"payment_method": method["id"], "status": "requires_confirmation"}
    if owner := text(params.get("customer"), "customer"):
        found["customer"] = state.find("customer", owner, "customer")["id"]
    if "description" in params:
        found["description"] = text(params["description"], "description")
    found["metadata"] = merged(found["metadata"], params)
    return found


def confirm(state: State, params: Params, name: str) -> Object:
    """POST /v1/setup_intents/{id}/confirm."""
    found = _open(state, name, "confirm")
    _confirm(state, found, params)
    return found


def _open(state: State, name: str, what: str) -> Object:
    found = state.find("setup_intent", name)
    if found["status"] in _OVER:
        raise Refusal(
            400,
            f"You cannot {what} this SetupIntent because it has already {found['status']}.",
            code="setup_intent_unexpected_state",
        )
    return found


def _confirm(state: State, intent: Object, params: Params) -> None:
    if wanted := text(params.get("payment_method"), "payment_method"):
        intent["payment_method"] = customers.named(state, wanted, "payment_method")["id"]
    if intent["payment_method"] is None:
        raise Refusal(
            400,
            "You cannot confirm this SetupIntent because it's missing a payment method.",
            code="setup_intent_unexpected_state",
        )
    intent["_return_url"] = text(params.get("return_url"), "return_url")
    method = state.get(intent["payment_method"])
    card = cards.named(method["_card"])
    if not card.attaches:
        raise _fail(state, intent, cards.refuse(card))
    if card.challenge and not method["_authenticated"]:
        page = f"{state.url}/3ds/{intent['client_secret']}"
        to = {"return_url": intent["_return_url"], "url": page}
        action = {"redirect_to_url": to, "type": "redirect_to_url"}
        intent |= {"status": "requires_action", "next_action": action}
        state.emit("setup_intent.requires_action", intent)
        return
    _succeed(state, intent, method)


def _succeed(state: State, intent: Object, method: Object) -> None:
    if intent["customer"]:
        customers.attach(state, method, state.get(intent["customer"]))
    intent |= {"status": "succeeded", "next_action": None, "last_setup_error": None}
    state.emit("setup_intent.succeeded", intent)


def _fail(state: State, intent: Object, refusal: Refusal) -> Refusal:
    method = customers.summary(state.get(intent["payment_method"]))
    intent |= {
        "status": "requires_payment_method",
        "next_action": None,
        "last_setup_error": refusal.body["error"] | {"payment_method": method},
        "payment_method": None,
    }
    state.emit("setup_intent.setup_failed", intent)
    return refusal


def authenticate(state: State, intent: Object, *, passed: bool) -> None:
    """Let the cardholder pass or fail the 3D Secure challenge that a setup waits for."""
    if intent["status"] != "requires_action":
        raise Refusal(400, "No 3D Secure challenge is open.")
    method = state.get(intent["payment_method"])
    if passed:
        method["_authenticated"] = True
        _succeed(state, intent, method)
        return
    refusal = cards.declined(
        "setup_intent_authentication_failure",
        None,
        "The latest attempt to set up the payment method has failed because authentication failed.",
    )
    _fail(state, intent, refusal)


def cancel(state: State, params: Params, name: str) -> Object:
    """POST /v1/setup_intents/{id}/cancel."""
    found = _open(state, name, "cancel")
    reason = text(params.get("cancellation_reason"), "cancellation_reason")
    found |= {"status": "canceled", "next_action": None, "cancellation_reason": reason}
    state.emit("setup_intent.canceled", found)
    return found


def list_intents(state: State, params: Params) -> list[Object]:
    """GET /v1/setup_intents."""
    return [
        item
        for item in state.all("setup_intent")
        if params.get("customer") in (None, "", item["customer"])
        and params.get("payment_method") in (None, "", item["payment_method"])
        and within(item["created"], params.get("created"), "created")
    ]


ROUTES = (
    post("/v1/setup_intents", create, *_CREATE),
    pages("/v1/setup_intents", list_intents, "customer", "payment_method"),
    get("/v1/setup_intents/{}", one("setup_intent")),
    post(
        "/v1/setup_intents/{}",
        update,
        *("payment_method", "customer", "description", "metadata"),
    ),
    post("/v1/setup_intents/{}/confirm", confirm, *_CONFIRM),
    post("/v1/setup_intents/{}/cancel", cancel, "cancellation_reason"),
)
