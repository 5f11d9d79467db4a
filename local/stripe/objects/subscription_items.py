"""Subscription items, read and written one at a time through their subscription."""

from local.stripe.core.errors import missing
from local.stripe.core.params import Params, need
from local.stripe.core.routes import delete, get, pages, post
from local.stripe.core.state import State
from local.stripe.core.views import Object
from local.stripe.objects import subscription_changes, subscriptions

_ITEM = ("price", "price_data", "quantity", "metadata")
_BILLING = ("payment_behavior", "proration_behavior", "proration_date")


def create(state: State, params: Params) -> Object:
    """POST /v1/subscription_items."""
    sub = state.find("subscription", need(params, "subscription"), "subscription")
    before = {item["id"] for item in sub["items"]["data"]}
    _change(state, sub, {name: params[name] for name in _ITEM if name in params}, params)
    after = sub["items"]["data"]
    if sub["pending_update"]:  # a pending update: the item comes with its payment
        after = sub["_pending"]["fields"]["items"]["data"]
    return next(item for item in after if item["id"] not in before)


def show(state: State, params: Params, name: str) -> Object:
    """GET /v1/subscription_items/{id}."""
    return _find(state, name)[1]


def update(state: State, params: Params, name: str) -> Object:
    """POST /v1/subscription_items/{id}."""
    sub, _ = _find(state, name)
    given = {field: params[field] for field in _ITEM if field in params}
    _change(state, sub, {"id": name, **given}, params)
    return _find(state, name)[1]


def remove(state: State, params: Params, name: str) -> Object:
    """DELETE /v1/subscription_items/{id}: not the last one of a subscription."""
    sub, _ = _find(state, name)
    _change(state, sub, {"id": name, "deleted": True}, params)
    return {"id": name, "object": "subscription_item", "deleted": True}


def list_items(state: State, params: Params) -> list[Object]:
    """GET /v1/subscription_items?subscription=…."""
    name = need(params, "subscription")
    return list(state.find("subscription", name, "subscription")["items"]["data"])


def _change(state: State, sub: Object, item: Object, params: Params) -> None:
    how = {name: params[name] for name in (*_BILLING, "off_session") if name in params}
    subscription_changes.update(state, {"items": [item], **how}, sub["id"])


def _find(state: State, name: str) -> tuple[Object, Object]:
    """Return an item and its subscription, which must not have ended."""
    for sub in state.all("subscription"):
        for item in sub["items"]["data"]:
            if item["id"] == name and sub["status"] not in subscriptions.OVER:
                return sub, item
    raise missing("subscription_item", name)


ROUTES = (
    post("/v1/subscription_items", create, "subscription", *_ITEM, *_BILLING),
    pages("/v1/subscription_items", list_items, "subscription"),
    get("/v1/subscription_items/{}", show),
    post("/v1/subscription_items/{}", update, *_ITEM, *_BILLING, "off_session"),
    delete("/v1/subscription_items/{}", remove, *_BILLING, "clear_usage"),
)
