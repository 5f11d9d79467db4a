"""Subscriptions: creation, the first invoice, and the rules that all of them share."""

from typing import Any

from local.stripe.core.dates import DAY, following
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
from local.stripe.core.routes import delete, get, one, pages, post
from local.stripe.core.state import State
from local.stripe.core.views import Object, difference, whole, within
from local.stripe.objects import catalogue, collection, coupons, customers, invoice_items, invoices
from local.stripe.objects.collection import reschedule

CREATE = {
    "days_until_due",
    *("customer", "items", "metadata", "payment_behavior", "trial_period_days", "trial_end"),
    *("default_payment_method", "off_session", "billing_mode", "cancel_at", "currency"),
    *("cancel_at_period_end", "collection_method", "description", "payment_settings"),
    *("proration_behavior", "trial_settings", "automatic_tax", "discounts"),
}
BEHAVIOR = one_of(
    "allow_incomplete", "default_incomplete", "error_if_incomplete", "pending_if_incomplete"
)
OVER = ("canceled", "incomplete_expired")
ITEM = {"id", "price", "price_data", "quantity", "metadata", "deleted", "clear_usage"}
_MISSING = one_of("cancel", "create_invoice", "pause")


def create(state: State, params: Params) -> Object:
    """POST /v1/subscriptions."""
    customer = state.find("customer", need(params, "customer"), "customer")
    behavior = BEHAVIOR(params.get("payment_behavior"), "payment_behavior") or "allow_incomplete"
    sub = new(state, customer, params)
    customers.one_currency(state, customer, sub["currency"])
    sub["_asked"] = coupons.read(
        state, params, customer, subscription=sub["id"], currency=sub["currency"]
    )
    if wanted := text(params.get("default_payment_method"), "default_payment_method"):
        method = customers.usable(state, wanted, customer, "default_payment_method")
        sub["default_payment_method"] = method["id"]
    return begin(state, sub, behavior)


def new(state: State, customer: Object, params: Params) -> Object:
    """Return a subscription of these parameters; it is not stored yet."""
    name = state.identify("sub_1")
    given = listing(params.get("items"), "items")
    if not given:
        raise required("items")
    items = [new_item(state, name, item, f"items[{n}]") for n, item in enumerate(given)]
    prices = [state.get(item["price"]) for item in items]
    agree(prices, text(params.get("currency"), "currency"))
    no_tax(params)
    collection_method, days = collected(params)
    until = trial_end(state, params)
    anchor = until or state.now
    for item in items:
        item["current_period_start"] = state.now
        item["current_period_end"] = until or period_end(state, item, anchor, state.now)
    mode = mapping(params.get("billing_mode"), "billing_mode") or {"type": "flexible"}
    flexible = one_of("flexible", "classic")(mode.get("type"), "billing_mode[type]") == "flexible"
    sub: Object = {
        "id": name,
        "object": "subscription",
        "application": None,
        "application_fee_percent": None,
        "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None},
        "billing_cycle_anchor": anchor,
        "billing_cycle_anchor_config": None,
        "billing_mode": {
            "flexible": {"proration_discounts": "included"} if flexible else None,
            "type": "flexible" if flexible else "classic",
        }
        | ({"updated_at": state.now} if flexible else {}),
        "billing_schedules": [],
        "billing_thresholds": None,
        "cancel_at": None,
        "cancel_at_period_end": False,
        "canceled_at": None,
        "cancellation_details": {"comment": None, "feedback": None, "reason": None},
        "collection_method": collection_method,
        "created": state.now,
        "currency": prices[0]["currency"],
        "customer": customer["id"],
        "customer_account": None,
        "days_until_due": days,
        "default_payment_method": None,
        "default_source": None,
        "default_tax_rates": [],
        "description": text(params.get("description"), "description"),
        "discounts": [],
        "ended_at": None,
        "invoice_settings": {"account_tax_ids": None, "issuer": {"type": "self"}},
        "items": whole(items, f"/v1/subscription_items?subscription={name}"),
        "latest_invoice": None,
        "livemode": False,
        "metadata": merged({}, params),
        "next_pending_invoice_item_invoice": None,
        "on_behalf_of": None,
        "pause_collection": None,
        "payment_settings": payment_settings({}, params),
        "pending_invoice_item_interval": None,
        "pending_setup_intent": None,
        "pending_update": None,
        "schedule": None,
        "start_date": state.now,
        "status": "trialing" if until else "incomplete",
        "status_details": None,
        "test_clock": customer.get("test_clock"),
        "transfer_data": None,
        "trial_end": until,
        "trial_settings": {"end_behavior": {"missing_payment_method": on_missing(params)}},
        "trial_start": state.now if until else None,
        "_announced": bool(until and until - collection.NOTICE <= state.now),
        "_pending": None,
        "_lines": [],  # prorations that wait for the next invoice
        "_paid_with": [],  # the discounts of the current period
    }
    read_end(state, sub, params)
    return sub


def begin(state: State, sub: Object, behavior: str, method: Object | None = None) -> Object:
    """Store a new subscription and bill it for the first time.

    Without a way to pay it is refused, unless `behavior` is default_incomplete.
    """
    customer = state.get(sub["customer"])
    lines = cycle_lines(state, sub, trial=sub["status"] == "trialing")
    method = method or customers.default_method(state, customer, sub)
    discounts = sub.pop("_asked", [])
    waiting = invoice_items.waiting(state, customer, sub["currency"], sub["id"])
    due = invoices.worth(state, lines + waiting, discounts) + customer["balance"] > 0
    sent = sub["collection_method"] == "send_invoice"
    due = due and not sent  # a sent invoice needs no card, and the subscription is active at once
    if due and behavior != "default_incomplete":
        if method is None:
            raise collection.no_method()
        outcome = collection.verdict(method, present=False)
        if behavior == "error_if_incomplete" and outcome is not None:
            raise incomplete() if outcome == "challenge" else outcome  # type: ignore[misc]
    state.add(sub)
    sub["discounts"] = coupons.redeem(state, discounts)
    invoice = draft(state, sub, lines, "subscription_create")
    sub["latest_invoice"] = invoice["id"]
    invoices.finalize(state, invoice)
    if due:
        state.emit("customer.subscription.created", sub)
        if behavior != "default_incomplete":
            collection.collect(state, invoice, method=method)
    else:
        sub["status"] = "active" if sub["status"] == "incomplete" else sub["status"]
        state.emit("customer.subscription.created", sub)
        collection.collect(state, invoice)
    reschedule(state, sub)
    if sub["_announced"]:
        state.emit("customer.subscription.trial_will_end", sub)
    return sub


def incomplete() -> Refusal:
    """Return the refusal of a subscription whose payment asks for 3D Secure."""
    return Refusal(
        402,
        "Payment for this subscription requires additional user action before it can be completed "
        "successfully. Payment can be completed using the PaymentIntent associated with "
        "`subscription.latest_invoice`.",
        kind="card_error",
        code="subscription_payment_intent_requires_action",
    )


def new_item(state: State, sub: str, given: Any, param: str) -> Object:
    """Return an item of these parameters; its period is not set yet."""
    item = mapping(given, param) or {}
    only(item, ITEM, param)
    price = chosen(state, item, param)
    return {
        "id": state.identify("si_", 14),
        "object": "subscription_item",
        "billed_until": None,
        "billing_thresholds": None,
        "created": state.now,
        "current_period_end": 0,
        "current_period_start": 0,
        "current_trial": None,
        "discounts": [],
        "metadata": merged({}, item),
        "plan": None,
        "price": price["id"],
        "quantity": quantity(item, param),
        "subscription": sub,
        "tax_rates": [],
    }


def quantity(item: Params, param: str) -> int:
    """Read an item's quantity, 1 unless given."""
    found = integer(item.get("quantity", 1), f"{param}[quantity]")
    if found is None or found < 0:
        raise invalid("Invalid non-negative integer", f"{param}[quantity]")
    return found


def chosen(state: State, item: Params, param: str) -> Object:
    """Return the price of an item: an offered one, or one made inline."""
    data = mapping(item.get("price_data"), f"{param}[price_data]")
    if data is None:
        return offered(state, item.get("price"), f"{param}[price]")
    if item.get("price"):
        raise invalid("You may only specify one of these parameters: price, price_data.", param)
    return catalogue.inline_price(state, data)


def offered(state: State, name: Any, param: str) -> Object:
    """Return a price that can be subscribed to, or refuse."""
    if not name:
        raise required(param)
    price = state.find("price", name, param)
    if price["recurring"] is None:
        raise invalid(
            "The price specified is set to `type=one_time` but this field only accepts prices with "
            "`type=recurring`.",
            param,
        )
    if price["recurring"]["usage_type"] == "metered":
        raise invalid("The stand-in does not bill what is metered.", param)
    if not price["active"] and not price.get("_inline"):
        raise invalid(
            "The price specified is inactive. This field only accepts active prices.", param
        )
    return price


def agree(prices: list[Object], currency: str | None = None) -> None:
    """Refuse prices that cannot share a subscription in `currency`."""
    expected = (currency or prices[0]["currency"]).lower() if prices else ""
    for price in prices:
        if price["currency"] != expected:
            raise invalid(
                f"The price specified only supports `{price['currency']}`. This doesn't match the "
                f"expected currency: `{expected}`.",
                "items",
            )
    if len({price["id"] for price in prices}) < len(prices):
        raise invalid("Cannot add multiple subscription items with the same price.", "items")


def no_tax(params: Params) -> None:
    """Refuse automatic tax, as an account without a tax origin does."""
    asked = mapping(params.get("automatic_tax"), "automatic_tax") or {}
    if boolean(asked.get("enabled"), "automatic_tax[enabled]"):
        raise invalid(
            "You must have a valid head office address to enable automatic tax calculation in test "
            "mode. Visit https://dashboard.stripe.com/test/settings/tax to update it.",
            "automatic_tax[enabled]",
        )


def collected(params: Params, before: Object | None = None) -> tuple[str, int | None]:
    """Read how invoices are collected, and after how many days one that is sent is due."""
    before = before or {"collection_method": "charge_automatically", "days_until_due": None}
    method = text(params.get("collection_method"), "collection_method")
    method = method or before["collection_method"]
    days = integer(params.get("days_until_due"), "days_until_due")
    if method != "send_invoice":
        if days is not None:
            raise invalid(
                "You can only set `days_until_due` if `collection_method` is `send_invoice`.",
                "days_until_due",
            )
        return str(method), None
    days = before["days_until_due"] if days is None else days
    if days is None:
        raise invalid(
            "If invoice `collection_method` is 'send_invoice', you must specify `days_until_due`.",
            "days_until_due",
        )
    return str(method), days


def trial_end(state: State, params: Params) -> int | None:
    """Read when a trial is to end; None is no trial."""
    days = integer(params.get("trial_period_days"), "trial_period_days")
    given = params.get("trial_end")
    if days is not None and given not in (None, ""):
        raise invalid("You may only specify one of trial_end, trial_period_days.", "trial_end")
    if days is not None:
        if not 0 <= days <= 730:
            raise invalid("Invalid trial_period_days: it must be at most 730.", "trial_period_days")
        return state.now + days * DAY if days else None
    if given in (None, "", "now"):
        return None
    end = integer(given, "trial_end")
    if end is None or end <= state.now:
        raise invalid("Invalid timestamp: must be an integer Unix timestamp in the future.")
    return end


def on_missing(params: Params) -> str:
    """Read what happens at the end of a trial without a way to pay."""
    settings = mapping(params.get("trial_settings"), "trial_settings") or {}
    inside = mapping(settings.get("end_behavior"), "trial_settings[end_behavior]") or {}
    only(inside, {"missing_payment_method"}, "trial_settings[end_behavior]")
    return _MISSING(inside.get("missing_payment_method"), "trial_settings") or "create_invoice"


def payment_settings(before: Object, params: Params) -> Object:
    """Return payment settings after a request."""
    base: Object = {
        "payment_method_options": None,
        "payment_method_types": None,
        "save_default_payment_method": "off",
    }
    given = mapping(params.get("payment_settings"), "payment_settings") or {}
    only(given, {"save_default_payment_method", "payment_method_types"}, "payment_settings")
    return base | before | dict(given)


def period_end(state: State, item: Object, anchor: int, after: int) -> int:
    """Return the end of an item's period that begins at `after`."""
    recurring = state.get(item["price"])["recurring"]
    return following(anchor, after, recurring["interval"], recurring["interval_count"])


def cycle_lines(state: State, sub: Object, *, trial: bool = False) -> list[Object]:
    """Return the lines that bill each item's current period."""
    return [
        invoices.price_line(
            state,
            item,
            (item["current_period_start"], item["current_period_end"]),
            trial=trial,
        )
        for item in sub["items"]["data"]
    ]


def draft(state: State, sub: Object, lines: list[Object], reason: str, **fields: object) -> Object:
    """Store a draft of a subscription's invoice, with these fields set."""
    items = sub["items"]["data"]
    period = (state.now, state.now)
    if reason == "subscription_cycle":
        period = (items[0]["current_period_start"], items[0]["current_period_end"])
    customer = state.get(sub["customer"])
    if reason != "subscription_update":
        lines = lines + invoice_items.waiting(state, customer, sub["currency"], sub["id"])
    made = invoices.build(
        state,
        customer,
        lines,
        reason=reason,
        currency=sub["currency"],
        subscription=sub,
        period=period,
    )
    if sub["collection_method"] == "send_invoice":
        made |= {"collection_method": "send_invoice", "_days_until_due": sub["days_until_due"]}
    kept = invoices.draft(state, made | fields)
    invoice_items.attach(state, kept)
    if kept["total_discount_amounts"]:
        coupons.used(state, sub)
    return kept


def read_end(state: State, sub: Object, params: Params) -> None:
    """Read cancel_at and cancel_at_period_end; both unset keeps the subscription."""
    ends = max(item["current_period_end"] for item in sub["items"]["data"])
    when: int | None
    if "cancel_at_period_end" in params:
        flag = bool(boolean(params["cancel_at_period_end"], "cancel_at_period_end"))
        if flag and params.get("cancel_at"):
            raise invalid("You may only specify one of cancel_at, cancel_at_period_end.")
        when = ends if flag else None
        if not flag and not sub["cancel_at_period_end"] and "cancel_at" not in params:
            when = sub["cancel_at"]
        schedule_end(state, sub, when, at_period_end=flag)
    if "cancel_at" in params:
        given = params["cancel_at"]
        when = ends if given == "min_period_end" else integer(given, "cancel_at")
        if when is not None and when < state.now:
            raise invalid("Invalid timestamp: cancel_at must be in the future.", "cancel_at")
        schedule_end(state, sub, when, at_period_end=False)


def schedule_end(state: State, sub: Object, when: int | None, *, at_period_end: bool) -> None:
    """Set when a subscription ends; None removes the end."""
    reason = "cancellation_requested" if when else None
    sub |= {
        "cancel_at": when,
        "cancel_at_period_end": at_period_end,
        "canceled_at": None if when is None else sub["canceled_at"] or state.now,
        "cancellation_details": sub["cancellation_details"] | {"reason": reason},
    }


def announce(state: State, sub: Object, before: Object) -> None:
    """Emit what has changed since `before`, if anything has."""
    if previous := difference(before, state.show(sub)):
        state.emit("customer.subscription.updated", sub, previous)


def list_subscriptions(state: State, params: Params) -> list[Object]:
    """GET /v1/subscriptions: without `status` the canceled ones are left out."""
    status = params.get("status")
    price = text(params.get("price"), "price")

    def wanted(sub: Object) -> bool:
        if status in (None, ""):
            return bool(sub["status"] not in ("canceled", "incomplete_expired"))
        if status == "ended":
            return sub["ended_at"] is not None
        return bool(status in ("all", sub["status"]))

    return [
        sub
        for sub in state.all("subscription")
        if wanted(sub)
        and params.get("customer") in (None, "", sub["customer"])
        and (price is None or any(item["price"] == price for item in sub["items"]["data"]))
        and within(sub["created"], params.get("created"), "created")
    ]


def delete_customer(state: State, params: Params, name: str) -> Object:
    """DELETE /v1/customers/{id}: its subscriptions end with it."""
    found = state.find("customer", name)
    if found.get("_deleted"):
        raise missing("customer", name)
    for sub in state.all("subscription"):
        if sub["customer"] == name and sub["ended_at"] is None:
            collection.end(state, sub, "cancellation_requested")
    found["_deleted"] = True
    state.emit("customer.deleted", found)
    return {"id": name, "object": "customer", "deleted": True}


ROUTES = (
    delete("/v1/customers/{}", delete_customer),
    post("/v1/subscriptions", create, *CREATE),
    pages(
        "/v1/subscriptions",
        list_subscriptions,
        *("customer", "status", "price", "collection_method", "current_period_end"),
    ),
    get("/v1/subscriptions/{}", one("subscription")),
)
