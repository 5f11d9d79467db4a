"""Webhook endpoints, events as the API lists them, and the signature of a delivery."""

import hashlib
import hmac

from local.stripe.core.errors import invalid, missing, required
from local.stripe.core.params import Params, boolean, listing, merged, need, text, values
from local.stripe.core.routes import delete, get, pages, post
from local.stripe.core.state import API_VERSION, State
from local.stripe.core.views import Object, within
from local.stripe.sdk.types import installed

CREATE = {"url", "enabled_events", "api_version", "description", "metadata", "connect"}
UPDATE = {"url", "enabled_events", "description", "metadata", "disabled"}
_KEPT = 30 * 86400  # how long events can be listed


def create_endpoint(state: State, params: Params) -> Object:
    """POST /v1/webhook_endpoints: the only answer that holds the secret."""
    enabled = listing(params.get("enabled_events"), "enabled_events")
    if not enabled:
        raise required("enabled_events")
    secret = f"whsec_{state.random(32)}"
    made: Object = {
        "id": state.identify("we_1"),
        "object": "webhook_endpoint",
        "api_version": _version(params),
        "application": None,
        "created": state.now,
        "description": text(params.get("description"), "description"),
        "enabled_events": enabled,
        "livemode": False,
        "metadata": merged({}, params),
        "status": "enabled",
        "url": need(params, "url"),
        "_secrets": [secret],
    }
    state.add(made)
    return made | {"secret": secret}


def same_shapes() -> set[str]:
    """Return the API versions of our release train, whose objects have the same shapes."""
    route = installed().route("POST", "/v1/webhook_endpoints")
    known: set[str] = {API_VERSION}
    if route and route.params:
        known |= installed().members(route.params)["api_version"].shape.words
    train = API_VERSION.rpartition(".")[2]
    return {version for version in known if version.endswith(f".{train}")}


def _version(params: Params) -> str | None:
    """Read an endpoint's API version; the default is the account's."""
    version = text(params.get("api_version"), "api_version")
    if version is not None and version not in same_shapes():
        raise invalid(
            f"Invalid API version {version}: the stand-in writes events in {API_VERSION}.",
            "api_version",
        )
    return version


def update_endpoint(state: State, params: Params, name: str) -> Object:
    """POST /v1/webhook_endpoints/{id}."""
    found = _live(state, name)
    found |= values(params, {"url": text, "enabled_events": listing, "description": text})
    found["metadata"] = merged(found["metadata"], params)
    if "disabled" in params:
        off = boolean(params["disabled"], "disabled")
        found["status"] = "disabled" if off else "enabled"
    return found


def delete_endpoint(state: State, params: Params, name: str) -> Object:
    """DELETE /v1/webhook_endpoints/{id}."""
    _live(state, name)["_deleted"] = True
    return {"id": name, "object": "webhook_endpoint", "deleted": True}


def list_endpoints(state: State, params: Params) -> list[Object]:
    """GET /v1/webhook_endpoints."""
    return state.all("webhook_endpoint")


def show_endpoint(state: State, params: Params, name: str) -> Object:
    """GET /v1/webhook_endpoints/{id}."""
    return _live(state, name)


def _live(state: State, name: str) -> Object:
    found = state.find("webhook_endpoint", name)
    if found.get("_deleted"):
        raise missing("webhook_endpoint", name)
    return found


def list_events(state: State, params: Params) -> list[Object]:
    """GET /v1/events: newest first, of the last thirty days."""
    kinds = listing(params.get("types"), "types")
    kind = text(params.get("type"), "type")

    def wanted(event: Object) -> bool:
        name = event["type"]
        return (
            is_listed(state, event)
            and (
                kind is None or name == kind or (kind.endswith("*") and name.startswith(kind[:-1]))
            )
            and (kinds is None or name in kinds)
            and within(event["created"], params.get("created"), "created")
        )

    return [event for event in reversed(state.events) if wanted(event)]


def is_listed(state: State, event: Object) -> bool:
    """Return whether an event is recent enough to be listed; moving the clock does not age it."""
    told_at = event["_real"] if "_real" in event else event["created"]
    return bool(told_at > state.real - _KEPT)


def show_event(state: State, params: Params, name: str) -> Object:
    """GET /v1/events/{id}."""
    for event in reversed(state.events):
        if event["id"] == name:
            return event
    raise missing("event", name)


def signature(body: bytes, secrets: list[str], now: int) -> str:
    """Return the `Stripe-Signature` of a body: one v1 for each current secret."""
    signed = b"%d.%b" % (now, body)
    parts = [hmac.new(key.encode(), signed, hashlib.sha256).hexdigest() for key in secrets]
    return ",".join([f"t={now}", *(f"v1={part}" for part in parts)])


ROUTES = (
    pages("/v1/events", list_events, "type", "types", "delivery_success"),
    get("/v1/events/{}", show_event),
    post("/v1/webhook_endpoints", create_endpoint, *CREATE),
    pages("/v1/webhook_endpoints", list_endpoints),
    get("/v1/webhook_endpoints/{}", show_endpoint),
    post("/v1/webhook_endpoints/{}", update_endpoint, *UPDATE),
    delete("/v1/webhook_endpoints/{}", delete_endpoint),
)
