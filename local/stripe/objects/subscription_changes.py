"""Changes to a subscription: items and prorations, collection pauses, ends, previews."""

from dataclasses import dataclass

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
from local.stripe.core.routes import delete, post
from local.stripe.core.state import State
from local.stripe.core.views import Object
from local.stripe.objects import (
    billing_cycle,
    collection,
    coupons,
    customers,
    invoice_items,
    invoices,
    subscriptions,
)
from local.stripe.objects.collection import reschedule

UPDATE = {
    *("items", "metadata", "payment_behavior", "trial_end", "default_payment_method"),
    *("off_session", "cancel_at", "cancel_at_period_end", "cancellation_details", "description"),
    *("pause_collection", "payment_settings", "proration_behavior", "proration_date"),
    *("trial_settings", "automatic_tax", "billing_cycle_anchor", "collection_method"),
    *("days_until_due", "discounts"),
}
# What Stripe can keep until its invoice is paid (docs: pending updates reference).
_CAN_WAIT = {
    *("expand", "payment_behavior", "proration_behavior", "proration_date", "off_session"),
    *("billing_cycle_anchor", "items", "trial_end", "trial_from_plan", "add_invoice_items"),
}
_PREVIEWED = {
    *("items", "proration_behavior", "proration_date", "billing_cycle_anchor", "cancel_at"),
    "cancel_at_period_end",
}
_PREVIEWED_NEW = {"trial_end", "billing_mode"}
_ITEMS_CAN_WAIT = {"id", "price", "price_data", "quantity", "deleted"}
_PRORATION = one_of("create_prorations", "always_invoice", "none")


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
    _can_wait(params)
    # All refusals come before any change.
    if sub["schedule"] and {"cancel_at", "cancel_at_period_end"} & set(params):
        raise Refusal(
            400,
            f"The subscription is managed by the subscription schedule `{sub['schedule']}`, and "
            "updating any cancelation behavior directly is not allowed. Please update the "
            "schedule instead.",
        )
    work = dict(sub)
    discounts = _discounts(state, sub, params)
    _read_fields(state, work, params)
    switch = _switch(state, work, params)
    plan = _billing(state, work, switch, params) if switch else None
    before = state.show(sub)
    gone = sub["discounts"]
    sub |= work
    if discounts is not None:
        sub["discounts"] = coupons.redeem(state, discounts)
        coupons.drop(state, [name for name in gone if name not in sub["discounts"]])
    if switch is None or plan is None:
        if switch is not None:
            sub |= _fields(sub, switch)
            sub["_lines"] = sub["_lines"] + switch.lines
        subscriptions.announce(state, sub, before)
    else:
        _bill(state, sub, before, _fields(sub, switch), plan)
    reschedule(state, sub)
    if sub["_due"] is not None and sub["_due"] <= state.now:
        billing_cycle.wake(state, sub)  # trial_end=now
    return sub


def _discounts(state: State, sub: Object, params: Params) -> list[Object] | None:
    """Read the wanted discounts; None keeps the present ones, an empty list removes them."""
    if not params.get("discounts") and params.get("discounts") != "":
        return None
    owner = state.get(sub["customer"])
    return coupons.read(state, params, owner, subscription=sub["id"], currency=sub["currency"])


def _can_wait(params: Params) -> None:
    """Refuse what Stripe does not allow in a pending update."""
    if params.get("payment_behavior") != "pending_if_incomplete":
        return
    other = set(params) - _CAN_WAIT
    for number, item in enumerate(listing(params.get("items"), "items") or []):
        other |= {f"items[{number}][{name}]" for name in set(item) - _ITEMS_CAN_WAIT}
    for name in sorted(other):
        raise invalid(
            f"`{name}` cannot be updated with `payment_behavior` set to `pending_if_incomplete`. "
            "See https://stripe.com/docs/billing/subscriptions/pending-updates-reference.",
            name,
        )


def _fields(sub: Object, switch: Switch) -> Object:
    items = sub["items"] | {"data": switch.items, "total_count": len(switch.items)}
    return {"items": items, "billing_cycle_anchor": switch.anchor}


def _read_fields(state: State, sub: Object, params: Params) -> None:
    """Set the fields of a request that do not concern items or money."""
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
        fields["payment_settings"] = subscriptions.payment_settings(sub["payment_settings"], params)
    subscriptions.no_tax(params)
    if {"collection_method", "days_until_due"} & set(params):
        method, days = subscriptions.collected(params, sub)
        fields |= {"collection_method": method, "days_until_due": days}
    if "trial_settings" in params:
        behavior = {"missing_payment_method": subscriptions.on_missing(params)}
        fields["trial_settings"] = {"end_behavior": behavior}
    if "pause_collection" in params:
        fields["pause_collection"] = _pause(params)
    if details := mapping(params.get("cancellation_details"), "cancellation_details"):
        said = {key: value or None for key, value in details.items()}
        fields["cancellation_details"] = sub["cancellation_details"] | said
    sub |= fields
    subscriptions.read_end(state, sub, params)
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


def _move_trial(state: State, sub: Object, params: Params) -> None:
    end = subscriptions.trial_end(state, params) or state.now
    sub |= {"trial_end": end, "_announced": end - collection.NOTICE <= state.now}
    sub["billing_cycle_anchor"] = end
    moved = [item | {"current_period_end": end} for item in sub["items"]["data"]]
    sub["items"] = sub["items"] | {"data": moved}


def _switch(state: State, sub: Object, params: Params, at: int | None = None) -> Switch | None:
    """Return the effect of a change of items, or None when nothing is billed differently."""
    reset = _resets(params)
    if "items" not in params and not reset:
        return None
    behavior = _PRORATION(params.get("proration_behavior"), "proration_behavior")
    behavior = behavior or "create_prorations"
    at = at or integer(params.get("proration_date"), "proration_date") or state.now
    old = sub["items"]["data"]
    items = changed_items(state, sub, params)
    subscriptions.agree([state.get(item["price"]) for item in items], sub["currency"])
    if sub["status"] == "trialing":
        for item in items:
            item |= {
                "current_period_start": old[0]["current_period_start"],
                "current_period_end": sub["trial_end"],
            }
        return Switch(items, [], sub["billing_cycle_anchor"], now=False)
    reset = reset or restarts(state, old, items)
    anchor = state.now if reset else sub["billing_cycle_anchor"]
    for item in items:
        if reset or not item["current_period_end"]:
            start = state.now if reset else old[0]["current_period_start"]
            item["current_period_start"] = start
            item["current_period_end"] = (
                subscriptions.period_end(state, item, anchor, state.now)
                if reset
                else old[0]["current_period_end"]
            )
    lines = [] if behavior == "none" else prorations(state, old, items, at, charge=not reset)
    if reset:
        lines += subscriptions.cycle_lines(state, sub | {"items": {"data": items}})
    return Switch(items, lines, anchor, now=bool(reset or behavior == "always_invoice"))


def _resets(params: Params) -> bool:
    anchor = mapping(params.get("billing_cycle_anchor"), "billing_cycle_anchor") or {}
    if anchor.get("timestamp"):
        raise invalid(
            "The billing cycle of an existing subscription can be set to now or unchanged only.",
            "billing_cycle_anchor[type]",
        )
    return anchor.get("type") == "now"


def changed_items(state: State, sub: Object, params: Params) -> list[Object]:
    """Return a subscription's items after the changes that `items` asks for."""
    items = {item["id"]: dict(item) for item in sub["items"]["data"]}
    for number, change in enumerate(listing(params.get("items"), "items") or []):
        param = f"items[{number}]"
        given = mapping(change, param) or {}
        name = text(given.get("id"), f"{param}[id]")
        if name is None:
            made = subscriptions.new_item(state, sub["id"], given, param)
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
    only(given, subscriptions.ITEM, param)
    if given.get("price") or given.get("price_data"):
        item["price"] = subscriptions.chosen(state, given, param)["id"]
    if "quantity" in given:
        item["quantity"] = subscriptions.quantity(given, param)
    item["metadata"] = merged(item["metadata"], given)


def restarts(state: State, old: list[Object], items: list[Object]) -> bool:
    """Return whether a change starts a new cycle: another interval, or free becoming paid."""

    def every(found: list[Object]) -> set[tuple[str, int]]:
        recurring = [state.get(item["price"])["recurring"] for item in found]
        return {(each["interval"], each["interval_count"]) for each in recurring}

    def total(found: list[Object]) -> int:
        lines = [invoices.price_line(state, item, (0, 0)) for item in found]
        return sum(line["amount"] for line in lines)

    return every(old) != every(items) or (total(old) == 0 and total(items) > 0)


def prorations(
    state: State, old: list[Object], items: list[Object], at: int, *, charge: bool
) -> list[Object]:
    """Return credits for removed items and, without a new cycle, charges for added ones."""
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
    behavior = (
        subscriptions.BEHAVIOR(params.get("payment_behavior"), "payment_behavior")
        or "allow_incomplete"
    )
    if not switch.now or not switch.lines:
        return None
    lines = sub["_lines"] + switch.lines
    owner = state.get(sub["customer"])
    method = customers.default_method(state, owner, sub)
    outcome = collection.verdict(method, present=False) if method else collection.no_method()
    sent = sub["collection_method"] == "send_invoice"
    owed = invoices.worth(state, lines, coupons.active(state, sub["discounts"]))
    if sent or owed + owner["balance"] <= 0:
        outcome = None
    if behavior == "error_if_incomplete" and outcome is not None:
        raise outcome if isinstance(outcome, Refusal) else subscriptions.incomplete()
    return Billing(lines, behavior, method, outcome)


def _bill(state: State, sub: Object, before: Object, fields: Object, plan: Billing) -> None:
    waits = plan.outcome is not None and plan.behavior == "pending_if_incomplete"
    if not waits:
        sub |= fields
    sub["_lines"] = []
    invoice = subscriptions.draft(
        state, sub, plan.lines, "subscription_update", auto_advance=not waits
    )
    sub["latest_invoice"] = invoice["id"]
    if waits:
        _hold(state, sub, fields, invoice)
    subscriptions.announce(state, sub, before)
    invoices.finalize(state, invoice)
    if plan.behavior == "default_incomplete" and plan.outcome is not None:
        state.change(sub, status="past_due")
        return
    collection.collect(state, invoice, method=plan.method)


def _hold(state: State, sub: Object, fields: Object, invoice: Object) -> None:
    """Keep a change until its invoice is paid, for at most 23 hours."""
    ends = min(item["current_period_end"] for item in sub["items"]["data"])
    until = min(state.now + collection.FIRST_PAYMENT_SECONDS, sub["trial_end"] or ends, ends)
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
    """POST /v1/invoices/create_preview: what would be billed; nothing is stored."""
    details = mapping(params.get("subscription_details"), "subscription_details") or {}
    name = text(params.get("subscription"), "subscription")
    only(details, _PREVIEWED if name else _PREVIEWED | _PREVIEWED_NEW, "subscription_details")
    if params.get("preview_mode") == "recurring":
        raise invalid("The stand-in previews the next invoice only.", "preview_mode")
    identity = state.identify("upcoming_in_1")
    if name is None:
        customer = state.find("customer", need(params, "customer"), "customer")
        sub = subscriptions.new(state, customer, details)
        lines = subscriptions.cycle_lines(state, sub, trial=sub["status"] == "trialing")
        reason = "upcoming"
    else:
        sub = copy_of(state.find("subscription", name, "subscription"))
        if sub["ended_at"] is not None:
            raise Refusal(
                400, "No upcoming invoices for this subscription.", code="invoice_upcoming_none"
            )
        customer = state.get(sub["customer"])
        switch = _switch(state, sub, details)
        subscriptions.read_end(state, sub, details)
        lines, reason = _upcoming(state, sub, switch)
    if reason == "upcoming":
        lines = lines + invoice_items.waiting(state, customer, sub["currency"], name)
    asked = coupons.read(state, params, customer, subscription=name, currency=sub["currency"])
    return invoices.build(
        state,
        customer,
        lines,
        reason=reason,
        currency=sub["currency"],
        subscription=sub if name else None,
        identity=identity,
        discounts=asked if "discounts" in params else None,
    )


def copy_of(sub: Object) -> Object:
    """Return a copy of a subscription whose items can be changed."""
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
    if switch is None:
        sub["items"]["data"] = _planned_items(state, sub, ends)
    billing_cycle.next_period(state, sub, ends)
    return lines + subscriptions.cycle_lines(state, sub), "upcoming"


def _planned_items(state: State, sub: Object, at: int) -> list[Object]:
    """Return a subscription's items from its next period on, as its schedule plans them."""
    items: list[Object] = sub["items"]["data"]
    schedule = state.objects.get(sub["schedule"] or "")
    for phase in schedule["phases"] if schedule else []:
        if phase["start_date"] == at:
            return [
                items[0] | {"price": item["price"], "quantity": item["quantity"]}
                for item in phase["items"]
            ]
    return items


def cancel(state: State, params: Params, name: str) -> Object:
    """DELETE /v1/subscriptions/{id}: end it now."""
    sub = state.find("subscription", name)
    if sub["ended_at"] is not None:
        raise missing("subscription", name)
    details = mapping(params.get("cancellation_details"), "cancellation_details") or {}
    bill = boolean(params.get("invoice_now"), "invoice_now")
    if boolean(params.get("prorate"), "prorate") and sub["status"] != "trialing":
        sub["_lines"] = sub["_lines"] + prorations(
            state, sub["items"]["data"], [], state.now, charge=True
        )
    if bill and sub["_lines"]:
        lines, sub["_lines"] = sub["_lines"], []
        invoice = subscriptions.draft(state, sub, lines, "subscription_update")
        invoices.finalize(state, invoice)
        collection.collect(state, invoice)
    if sub["status"] == "incomplete":
        collection.expire(state, sub)
        return sub
    said = {key: text(details.get(key), key) for key in ("comment", "feedback")}
    collection.end(state, sub, "cancellation_requested", **said)
    return sub


_PREVIEW = (
    *("customer", "subscription", "subscription_details", "currency", "preview_mode"),
    "discounts",
)
ROUTES = (
    post("/v1/subscriptions/{}", update, *UPDATE),
    delete(
        "/v1/subscriptions/{}",
        cancel,
        "cancellation_details",
        "invoice_now",
        "prorate",
    ),
    post("/v1/invoices/create_preview", preview, *_PREVIEW),
)
