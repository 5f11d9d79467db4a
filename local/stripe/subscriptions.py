"""Subscriptions: create, change, cancel, resume, and what time does to them."""

from dataclasses import dataclass
from typing import Any

from local.stripe import collection, customers, invoices
from local.stripe.collection import reschedule
from local.stripe.dates import DAY, following
from local.stripe.errors import Refusal, invalid, missing, required
from local.stripe.params import (
    Params,
    boolean,
    integer,
    listing,
    mapping,
    merged,
    need,
    one_of,
    text,
)
from local.stripe.state import State
from local.stripe.views import Object, difference, whole, within

CREATE = {
    *("customer", "items", "metadata", "payment_behavior", "trial_period_days", "trial_end"),
    *("default_payment_method", "off_session", "billing_mode", "cancel_at", "currency"),
    *("cancel_at_period_end", "collection_method", "description", "payment_settings"),
    *("proration_behavior", "trial_settings", "automatic_tax", "trial_from_plan"),
}
UPDATE = {
    *("items", "metadata", "payment_behavior", "trial_end", "default_payment_method"),
    *("off_session", "cancel_at", "cancel_at_period_end", "cancellation_details", "description"),
    *("pause_collection", "payment_settings", "proration_behavior", "proration_date"),
    *("trial_settings", "automatic_tax", "billing_cycle_anchor"),
}
_BEHAVIOR = one_of(
    "allow_incomplete", "default_incomplete", "error_if_incomplete", "pending_if_incomplete"
)
_PRORATION = one_of("create_prorations", "always_invoice", "none")
_MISSING = one_of("cancel", "create_invoice", "pause")


def create(state: State, params: Params) -> Object:
    """POST /v1/subscriptions."""
    customer = state.find("customer", need(params, "customer"), "customer")
    behavior = _BEHAVIOR(params.get("payment_behavior"), "payment_behavior") or "allow_incomplete"
    sub = new(state, customer, params)
    if wanted := text(params.get("default_payment_method"), "default_payment_method"):
        method = customers.usable(state, wanted, customer, "default_payment_method")
        sub["default_payment_method"] = method["id"]
    return begin(state, sub, behavior)


def new(state: State, customer: Object, params: Params) -> Object:
    """Return a subscription of these parameters; it is kept nowhere yet."""
    name = state.identify("sub_1")
    given = listing(params.get("items"), "items")
    if not given:
        raise required("items")
    items = [_new_item(state, name, item, f"items[{n}]") for n, item in enumerate(given)]
    prices = [state.get(item["price"]) for item in items]
    _agree(prices)
    trial_end = _trial_end(state, params)
    anchor = trial_end or state.now
    for item in items:
        item["current_period_start"] = state.now
        item["current_period_end"] = trial_end or _period_end(state, item, anchor, state.now)
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
        "collection_method": "charge_automatically",
        "created": state.now,
        "currency": prices[0]["currency"],
        "customer": customer["id"],
        "customer_account": None,
        "days_until_due": None,
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
        "payment_settings": _settings({}, params),
        "pending_invoice_item_interval": None,
        "pending_setup_intent": None,
        "pending_update": None,
        "schedule": None,
        "start_date": state.now,
        "status": "trialing" if trial_end else "incomplete",
        "status_details": None,
        "test_clock": None,
        "transfer_data": None,
        "trial_end": trial_end,
        "trial_settings": {"end_behavior": {"missing_payment_method": _on_missing(params)}},
        "trial_start": state.now if trial_end else None,
        "_announced": bool(trial_end and trial_end - collection.NOTICE <= state.now),
        "_pending": None,
        "_lines": [],  # prorations that wait for the next invoice
    }
    _schedule_end(state, sub, params)
    return sub


def begin(state: State, sub: Object, behavior: str, method: Object | None = None) -> Object:
    """Keep a new subscription and bill it for the first time.

    Without a way to pay it is refused, unless `behavior` is default_incomplete.
    """
    customer = state.get(sub["customer"])
    lines = _cycle_lines(state, sub, trial=sub["status"] == "trialing")
    method = method or customers.default_method(state, customer, sub)
    due = sum(line["amount"] for line in lines) + customer["balance"] > 0
    if due and behavior != "default_incomplete":
        if method is None:
            raise collection.no_method()
        outcome = collection.verdict(method, present=False)
        if behavior == "error_if_incomplete" and outcome is not None:
            raise _incomplete() if outcome == "challenge" else outcome  # type: ignore[misc]
    state.add(sub)
    invoice = _draft(state, sub, lines, "subscription_create")
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


def _incomplete() -> Refusal:
    return Refusal(
        402,
        "Payment for this subscription requires additional user action before it can be completed "
        "successfully. Payment can be completed using the PaymentIntent associated with "
        "`subscription.latest_invoice`.",
        kind="card_error",
        code="subscription_payment_intent_requires_action",
    )


def _new_item(state: State, sub: str, given: Any, param: str) -> Object:
    item = mapping(given, param) or {}
    for name in item:
        if name not in ("id", "price", "quantity", "metadata", "deleted", "clear_usage"):
            raise invalid(f"Received unknown parameter: {param}[{name}]", name, "parameter_unknown")
    price = _offered(state, item.get("price"), f"{param}[price]")
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
        "quantity": _quantity(item, param),
        "subscription": sub,
        "tax_rates": [],
    }


def _quantity(item: Params, param: str) -> int:
    found = integer(item.get("quantity", 1), f"{param}[quantity]")
    if found is None or found < 0:
        raise invalid("Invalid non-negative integer", f"{param}[quantity]")
    return found


def _offered(state: State, name: Any, param: str) -> Object:
    if not name:
        raise required(param)
    price = state.find("price", name, param)
    if price["recurring"] is None:
        raise invalid(
            "The price specified is set to `type=one_time` but this field only accepts prices with "
            "`type=recurring`.",
            param,
        )
    if not price["active"]:
        raise invalid(
            "The price specified is inactive. This field only accepts active prices.", param
        )
    return price


def _agree(prices: list[Object]) -> None:
    if len({price["currency"] for price in prices}) > 1:
        raise invalid("All prices of a subscription must have the same currency.", "items")
    if len({price["id"] for price in prices}) < len(prices):
        raise invalid("Cannot add multiple subscription items with the same price.", "items")


def _trial_end(state: State, params: Params) -> int | None:
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


def _on_missing(params: Params) -> str:
    settings = mapping(params.get("trial_settings"), "trial_settings") or {}
    inside = mapping(settings.get("end_behavior"), "trial_settings[end_behavior]") or {}
    return _MISSING(inside.get("missing_payment_method"), "trial_settings") or "create_invoice"


def _settings(before: Object, params: Params) -> Object:
    base: Object = {
        "payment_method_options": None,
        "payment_method_types": None,
        "save_default_payment_method": "off",
    }
    given = mapping(params.get("payment_settings"), "payment_settings") or {}
    return base | before | {name: value for name, value in given.items() if name in base}


def _period_end(state: State, item: Object, anchor: int, after: int) -> int:
    recurring = state.get(item["price"])["recurring"]
    return following(anchor, after, recurring["interval"], recurring["interval_count"])


def _cycle_lines(state: State, sub: Object, *, trial: bool = False) -> list[Object]:
    return [
        invoices.price_line(
            state,
            item,
            (item["current_period_start"], item["current_period_end"]),
            trial=trial,
        )
        for item in sub["items"]["data"]
    ]


def _draft(state: State, sub: Object, lines: list[Object], reason: str, **fields: object) -> Object:
    items = sub["items"]["data"]
    period = (state.now, state.now)
    if reason == "subscription_cycle":
        period = (items[0]["current_period_start"], items[0]["current_period_end"])
    made = invoices.build(
        state,
        state.get(sub["customer"]),
        lines,
        reason=reason,
        currency=sub["currency"],
        subscription=sub,
        period=period,
    )
    return invoices.draft(state, made | fields)


# ---- changes


@dataclass
class Switch:
    """Items as they would be, the lines that would be billed, and whether the cycle restarts."""

    items: list[Object]
    lines: list[Object]
    anchor: int
    now: bool  # bill at once


def update(state: State, params: Params, name: str) -> Object:
    """POST /v1/subscriptions/{id}."""
    sub = state.find("subscription", name)
    if sub["ended_at"] is not None:
        if set(params) - {"metadata", "cancellation_details", "expand"}:
            raise Refusal(
                400,
                "A canceled subscription can only update its cancellation_details and metadata.",
            )
        state.change(sub, metadata=merged(sub["metadata"], params))
        return sub
    # Everything that can be refused is, before anything is changed.
    work = dict(sub)
    _read_fields(state, work, params)
    switch = _switch(state, work, params)
    plan = _billing(state, work, switch, params) if switch else None
    before = state.show(sub)
    sub |= work
    if switch is None or plan is None:
        if switch is not None:
            sub |= _fields(sub, switch)
            sub["_lines"] = sub["_lines"] + switch.lines
        _tell(state, sub, before)
    else:
        _bill(state, sub, before, _fields(sub, switch), plan)
    reschedule(state, sub)
    return sub


def _fields(sub: Object, switch: Switch) -> Object:
    items = sub["items"] | {"data": switch.items, "total_count": len(switch.items)}
    return {"items": items, "billing_cycle_anchor": switch.anchor}


def _tell(state: State, sub: Object, before: Object) -> None:
    if previous := difference(before, state.show(sub)):
        state.emit("customer.subscription.updated", sub, previous)


def _read_fields(state: State, sub: Object, params: Params) -> None:
    """Set what a request says of anything but items and money."""
    fields: Object = {"metadata": merged(sub["metadata"], params)}
    if "description" in params:
        fields["description"] = text(params["description"], "description")
    if "default_payment_method" in params:
        wanted = text(params["default_payment_method"], "default_payment_method")
        owner = state.get(sub["customer"])
        fields["default_payment_method"] = (
            customers.usable(state, wanted, owner, "default_payment_method")["id"]
            if wanted
            else None
        )
    if "payment_settings" in params:
        fields["payment_settings"] = _settings(sub["payment_settings"], params)
    if "trial_settings" in params:
        behavior = {"missing_payment_method": _on_missing(params)}
        fields["trial_settings"] = {"end_behavior": behavior}
    if "pause_collection" in params:
        fields["pause_collection"] = _pause(params)
    if details := mapping(params.get("cancellation_details"), "cancellation_details"):
        said = {key: value or None for key, value in details.items()}
        fields["cancellation_details"] = sub["cancellation_details"] | said
    sub |= fields
    _schedule_end(state, sub, params)
    if "trial_end" in params and sub["status"] == "trialing":
        _move_trial(state, sub, params)


def _pause(params: Params) -> Object | None:
    given = mapping(params["pause_collection"], "pause_collection")
    if given is None:
        return None
    read = one_of("keep_as_draft", "mark_uncollectible", "void")
    behavior = read(given.get("behavior"), "pause_collection[behavior]")
    if behavior is None:
        raise required("pause_collection[behavior]")
    resumes = integer(given.get("resumes_at"), "pause_collection[resumes_at]")
    return {"behavior": behavior, "resumes_at": resumes}


def _schedule_end(state: State, sub: Object, params: Params) -> None:
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
    """Say when a subscription is to end; None takes that back."""
    reason = "cancellation_requested" if when else None
    sub |= {
        "cancel_at": when,
        "cancel_at_period_end": at_period_end,
        "canceled_at": None if when is None else sub["canceled_at"] or state.now,
        "cancellation_details": sub["cancellation_details"] | {"reason": reason},
    }


def _move_trial(state: State, sub: Object, params: Params) -> None:
    end = _trial_end(state, params) or state.now
    sub |= {"trial_end": end, "_announced": end - collection.NOTICE <= state.now}
    sub["billing_cycle_anchor"] = end
    moved = [item | {"current_period_end": end} for item in sub["items"]["data"]]
    sub["items"] = sub["items"] | {"data": moved}


def _switch(state: State, sub: Object, params: Params, at: int | None = None) -> Switch | None:
    """Return what a change of items comes to, or None when nothing about money changes."""
    reset = params.get("billing_cycle_anchor") == "now"
    if "items" not in params and not reset:
        return None
    behavior = _PRORATION(params.get("proration_behavior"), "proration_behavior")
    behavior = behavior or "create_prorations"
    at = at or integer(params.get("proration_date"), "proration_date") or state.now
    old = sub["items"]["data"]
    items = _changed_items(state, sub, params)
    _agree([state.get(item["price"]) for item in items])
    if sub["status"] == "trialing":
        for item in items:
            item |= {
                "current_period_start": old[0]["current_period_start"],
                "current_period_end": sub["trial_end"],
            }
        return Switch(items, [], sub["billing_cycle_anchor"], now=False)
    reset = reset or _restarts(state, old, items)
    anchor = state.now if reset else sub["billing_cycle_anchor"]
    for item in items:
        if reset or not item["current_period_end"]:
            start = state.now if reset else old[0]["current_period_start"]
            item["current_period_start"] = start
            item["current_period_end"] = (
                _period_end(state, item, anchor, state.now)
                if reset
                else old[0]["current_period_end"]
            )
    lines = [] if behavior == "none" else _prorations(state, old, items, at, charge=not reset)
    if reset:
        lines += _cycle_lines(state, sub | {"items": {"data": items}})
    return Switch(items, lines, anchor, now=bool(reset or behavior == "always_invoice"))


def _changed_items(state: State, sub: Object, params: Params) -> list[Object]:
    items = {item["id"]: dict(item) for item in sub["items"]["data"]}
    for number, change in enumerate(listing(params.get("items"), "items") or []):
        param = f"items[{number}]"
        given = mapping(change, param) or {}
        name = text(given.get("id"), f"{param}[id]")
        if name is None:
            made = _new_item(state, sub["id"], given, param)
            items[made["id"]] = made
        elif name not in items:
            raise missing("subscription_item", name, f"{param}[id]")
        elif boolean(given.get("deleted"), f"{param}[deleted]"):
            del items[name]
        else:
            _change_item(state, items[name], given, param)
    if not items:
        raise Refusal(400, "A subscription must have at least one active plan.", param="items")
    return list(items.values())


def _change_item(state: State, item: Object, given: Params, param: str) -> None:
    if given.get("price"):
        item["price"] = _offered(state, given["price"], f"{param}[price]")["id"]
    if "quantity" in given:
        item["quantity"] = _quantity(given, param)
    item["metadata"] = merged(item["metadata"], given)


def _restarts(state: State, old: list[Object], items: list[Object]) -> bool:
    """Tell whether a change starts a new cycle: another interval, or free becoming paid."""

    def every(found: list[Object]) -> set[tuple[str, int]]:
        recurring = [state.get(item["price"])["recurring"] for item in found]
        return {(each["interval"], each["interval_count"]) for each in recurring}

    def total(found: list[Object]) -> int:
        lines = [invoices.price_line(state, item, (0, 0)) for item in found]
        return sum(line["amount"] for line in lines)

    return every(old) != every(items) or (total(old) == 0 and total(items) > 0)


def _prorations(
    state: State, old: list[Object], items: list[Object], at: int, *, charge: bool
) -> list[Object]:
    """Return credits for what goes and, unless a new cycle bills it whole, charges for the rest."""
    lines = []
    after = {item["id"]: item for item in items}
    before = {item["id"]: item for item in old}
    for item in old:
        now = after.get(item["id"])
        if charge and now and (now["price"], now["quantity"]) == (item["price"], item["quantity"]):
            continue
        period = (item["current_period_start"], item["current_period_end"])
        lines.append(invoices.prorated(state, item, period, min(at, period[1]), -1))
    for item in items if charge else []:
        was = before.get(item["id"])
        if was and (was["price"], was["quantity"]) == (item["price"], item["quantity"]):
            continue
        period = (item["current_period_start"], item["current_period_end"])
        lines.append(invoices.prorated(state, item, period, min(at, period[1]), 1))
    return [line for line in lines if line["amount"]]


@dataclass
class Billing:
    """What a change bills at once, and how: `outcome` is None when a charge will succeed."""

    lines: list[Object]
    behavior: str
    method: Object | None
    outcome: Refusal | str | None


def _billing(state: State, sub: Object, switch: Switch, params: Params) -> Billing | None:
    """Return what a change bills at once, or None; refuse what error_if_incomplete forbids."""
    behavior = _BEHAVIOR(params.get("payment_behavior"), "payment_behavior") or "allow_incomplete"
    if not switch.now or not switch.lines:
        return None
    lines = sub["_lines"] + switch.lines
    owner = state.get(sub["customer"])
    method = customers.default_method(state, owner, sub)
    outcome = collection.verdict(method, present=False) if method else collection.no_method()
    if sum(line["amount"] for line in lines) + owner["balance"] <= 0:
        outcome = None
    if behavior == "error_if_incomplete" and outcome is not None:
        raise outcome if isinstance(outcome, Refusal) else _incomplete()
    return Billing(lines, behavior, method, outcome)


def _bill(state: State, sub: Object, before: Object, fields: Object, plan: Billing) -> None:
    waits = plan.outcome is not None and plan.behavior == "pending_if_incomplete"
    if not waits:
        sub |= fields
    sub["_lines"] = []
    invoice = _draft(state, sub, plan.lines, "subscription_update", auto_advance=not waits)
    sub["latest_invoice"] = invoice["id"]
    if waits:
        _hold(state, sub, fields, invoice)
    _tell(state, sub, before)
    invoices.finalize(state, invoice)
    if plan.behavior == "default_incomplete" and plan.outcome is not None:
        state.change(sub, status="past_due")
        return
    collection.collect(state, invoice, method=plan.method)


def _hold(state: State, sub: Object, fields: Object, invoice: Object) -> None:
    """Keep a change until its invoice is paid, for at most 23 hours."""
    until = state.now + collection.PATIENCE
    sub["_pending"] = {"invoice": invoice["id"], "fields": fields}
    sub["_pending_until"] = until
    shown = [state.show(item) for item in fields["items"]["data"]]
    sub["pending_update"] = {
        "billing_cycle_anchor": None,
        "expires_at": until,
        "subscription_items": shown,
        "trial_end": None,
        "trial_from_plan": None,
    }


def preview(state: State, params: Params) -> Object:
    """POST /v1/invoices/create_preview: what would be billed, kept nowhere."""
    details = mapping(params.get("subscription_details"), "subscription_details") or {}
    name = text(params.get("subscription"), "subscription")
    identity = state.identify("upcoming_in_1")
    if name is None:
        customer = state.find("customer", need(params, "customer"), "customer")
        sub = new(state, customer, details)
        lines = _cycle_lines(state, sub, trial=sub["status"] == "trialing")
        reason = "upcoming"
    else:
        sub = copy_of(state.find("subscription", name, "subscription"))
        if sub["ended_at"] is not None:
            raise Refusal(
                400, "No upcoming invoices for this subscription.", code="invoice_upcoming_none"
            )
        customer = state.get(sub["customer"])
        switch = _switch(state, sub, details)
        _schedule_end(state, sub, details)
        lines, reason = _upcoming(state, sub, switch)
    return invoices.build(
        state,
        customer,
        lines,
        reason=reason,
        currency=sub["currency"],
        subscription=sub if name else None,
        identity=identity,
    )


def copy_of(sub: Object) -> Object:
    """Return a subscription that can be changed without changing the one that is kept."""
    items = [dict(item) for item in sub["items"]["data"]]
    return sub | {"items": sub["items"] | {"data": items}}


def _upcoming(state: State, sub: Object, switch: Switch | None) -> tuple[list[Object], str]:
    if switch and switch.now:
        return sub["_lines"] + switch.lines, "subscription_update"
    lines = sub["_lines"] + (switch.lines if switch else [])
    if switch:
        sub["items"]["data"] = switch.items
    ends = max(item["current_period_end"] for item in sub["items"]["data"])
    if sub["cancel_at"] is not None and sub["cancel_at"] <= ends:
        if not lines:
            raise Refusal(
                400, "No upcoming invoices for this subscription.", code="invoice_upcoming_none"
            )
        return lines, "upcoming"
    _next_period(state, sub, ends)
    return lines + _cycle_lines(state, sub), "upcoming"


def cancel(state: State, params: Params, name: str) -> Object:
    """DELETE /v1/subscriptions/{id}: end it now."""
    sub = state.find("subscription", name)
    if sub["ended_at"] is not None:
        raise missing("subscription", name)
    details = mapping(params.get("cancellation_details"), "cancellation_details") or {}
    bill = boolean(params.get("invoice_now"), "invoice_now")
    if boolean(params.get("prorate"), "prorate"):
        sub["_lines"] = sub["_lines"] + _prorations(
            state, sub["items"]["data"], [], state.now, charge=True
        )
    if bill and sub["_lines"]:
        lines, sub["_lines"] = sub["_lines"], []
        invoice = _draft(state, sub, lines, "subscription_update")
        invoices.finalize(state, invoice)
        collection.collect(state, invoice)
    if sub["status"] == "incomplete":
        collection.expire(state, sub)
        return sub
    said = {key: text(details.get(key), key) for key in ("comment", "feedback")}
    collection.end(state, sub, "cancellation_requested", **said)
    return sub


def resume(state: State, params: Params, name: str) -> Object:
    """POST /v1/subscriptions/{id}/resume: only a paused one."""
    sub = state.find("subscription", name)
    if sub["status"] != "paused":
        raise Refusal(
            400, f"Only paused subscriptions can be resumed. This subscription is {sub['status']}."
        )
    customer = state.get(sub["customer"])
    if customers.default_method(state, customer, sub) is None:
        raise collection.no_method()
    before = state.show(sub)
    fresh = [
        item
        | {
            "current_period_start": state.now,
            "current_period_end": _period_end(state, item, state.now, state.now),
        }
        for item in sub["items"]["data"]
    ]
    sub["items"] = sub["items"] | {"data": fresh}
    sub |= {"status": "active", "billing_cycle_anchor": state.now, "status_details": None}
    invoice = _draft(state, sub, _cycle_lines(state, sub), "subscription_cycle")
    sub["latest_invoice"] = invoice["id"]
    _tell(state, sub, before)
    state.emit("customer.subscription.resumed", sub)
    invoices.finalize(state, invoice)
    collection.collect(state, invoice)
    reschedule(state, sub)
    return sub


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


def list_items(state: State, params: Params) -> list[Object]:
    """GET /v1/subscription_items?subscription=…."""
    name = need(params, "subscription")
    return list(state.find("subscription", name, "subscription")["items"]["data"])


# ---- time


def wake(state: State, sub: Object) -> None:
    """Do what a subscription's time has come for."""
    if sub["status"] == "incomplete":
        collection.expire(state, sub)
        return
    if sub["cancel_at"] is not None and sub["cancel_at"] <= state.now:
        collection.end(state, sub, sub["cancellation_details"]["reason"])
        return
    until = sub.get("_pending_until")
    if until is not None and until <= state.now:
        _forget_pending(state, sub)
    paused = sub["pause_collection"]
    if paused and paused["resumes_at"] is not None and paused["resumes_at"] <= state.now:
        state.change(sub, pause_collection=None)
    _turn(state, sub)
    if sub["ended_at"] is None:
        reschedule(state, sub)


def _turn(state: State, sub: Object) -> None:
    """Announce or end a trial, or begin the next period."""
    if sub["status"] == "trialing":
        if not sub["_announced"]:
            sub["_announced"] = True
            state.emit("customer.subscription.trial_will_end", sub)
        if sub["trial_end"] <= state.now:
            _end_trial(state, sub)
    elif sub["status"] != "paused":
        ends = min(item["current_period_end"] for item in sub["items"]["data"])
        if ends <= state.now:
            _renew(state, sub, ends)


def _forget_pending(state: State, sub: Object) -> None:
    sub["_pending_until"] = None
    if sub["pending_update"] is None:
        return
    invoice = state.get(sub["_pending"]["invoice"])
    state.change(sub, "customer.subscription.pending_update_expired", pending_update=None)
    sub["_pending"] = None
    if invoice["status"] == "open":
        invoices.close(state, invoice, "void")


def _end_trial(state: State, sub: Object) -> None:
    owner = state.get(sub["customer"])
    lacking = customers.default_method(state, owner, sub) is None
    behavior = sub["trial_settings"]["end_behavior"]["missing_payment_method"]
    if lacking and behavior == "cancel":
        collection.end(state, sub, "cancellation_requested")
        return
    if lacking and behavior == "pause":
        cause = {"subscription": {"type": "trial_end_without_payment_method"}}
        sub |= {"status_details": {"paused": cause | {"type": "subscription"}}}
        state.change(sub, status="paused")
        state.emit("customer.subscription.paused", sub)
        return
    _renew(state, sub, sub["trial_end"])


def _next_period(state: State, sub: Object, ends: int) -> None:
    for item in sub["items"]["data"]:
        if item["current_period_end"] <= ends:
            item["current_period_start"] = item["current_period_end"]
            item["current_period_end"] = _period_end(
                state, item, sub["billing_cycle_anchor"], item["current_period_end"]
            )


def _renew(state: State, sub: Object, ends: int) -> None:
    """Begin the next period: its invoice is a draft for an hour, then it is charged."""
    before = state.show(sub)
    sub["items"] = sub["items"] | {"data": [dict(item) for item in sub["items"]["data"]]}
    _next_period(state, sub, ends)
    lines, sub["_lines"] = sub["_lines"] + _cycle_lines(state, sub), []
    paused = sub["pause_collection"]
    kept = sub["status"] == "unpaid" or (paused and paused["behavior"] == "keep_as_draft")
    at = None if kept else state.now + state.rules.draft_seconds
    invoice = _draft(
        state,
        sub,
        lines,
        "subscription_cycle",
        auto_advance=not kept,
        automatically_finalizes_at=at,
    )
    state.wake(invoice, at)
    sub["latest_invoice"] = invoice["id"]
    if sub["status"] == "trialing":
        sub["status"] = "active"
    _tell(state, sub, before)


def wake_invoice(state: State, invoice: Object) -> None:
    """Finalize a draft whose hour is over, or try an open invoice again."""
    state.wake(invoice, None)
    name = invoices.subscription_of(invoice)
    sub = state.get(name) if name else None
    if invoice["status"] == "draft":
        invoices.finalize(state, invoice)
        if sub and sub["pause_collection"]:
            paused = sub["pause_collection"]["behavior"]
            invoices.close(state, invoice, "void" if paused == "void" else "uncollectible")
            return
    if invoice["status"] == "open":
        collection.collect(state, invoice, automatic=True)
