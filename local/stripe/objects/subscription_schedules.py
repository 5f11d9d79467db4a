"""Subscription schedules: what a subscription becomes in its next phases, and when it pauses.

A schedule is created from an existing subscription and owns it until it is released. While it is
attached, the subscription's end cannot be changed directly, and changes to its items last until the
next phase begins.
"""

from typing import Any

from local.stripe.core.dates import following
from local.stripe.core.errors import Refusal, invalid, required
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
from local.stripe.core.routes import get, one, pages, post
from local.stripe.core.state import State
from local.stripe.core.views import Object, within
from local.stripe.objects import (
    billing_cycle,
    collection,
    subscription_changes,
    subscription_pauses,
    subscriptions,
)

CREATE = (
    *("from_subscription", "metadata", "pause_schedules", "customer", "end_behavior", "phases"),
    *("start_date", "default_settings", "billing_mode"),
)
UPDATE = (
    *("phases", "end_behavior", "metadata", "pause_schedules", "proration_behavior"),
    "default_settings",
)
_END = one_of("cancel", "none", "release", "renew")
_PRORATION = one_of("always_invoice", "create_prorations", "none")
_PHASE = {
    *("items", "start_date", "end_date", "duration", "proration_behavior", "metadata", "trial"),
    *("trial_end", "default_payment_method", "collection_method", "description", "discounts"),
    *("currency", "billing_cycle_anchor", "automatic_tax", "invoice_settings"),
    *("default_tax_rates", "add_invoice_items"),
}
_ITEM = {"price", "plan", "quantity", "metadata", "tax_rates", "discounts", "billing_thresholds"}
_LIVE = ("not_started", "active")


def create(state: State, params: Params) -> Object:
    """POST /v1/subscription_schedules, of a subscription that exists."""
    name = text(params.get("from_subscription"), "from_subscription")
    if name is None:
        raise invalid("The stand-in schedules existing subscriptions only.", "from_subscription")
    for other in ("customer", "phases", "start_date", "end_behavior", "default_settings"):
        if params.get(other):
            raise invalid(
                f"You cannot set `{other}` if `from_subscription` is set.",
                other,
                "parameter_unknown",
            )
    sub = state.find("subscription", name, "from_subscription")
    if sub["schedule"]:
        raise invalid(
            "You cannot migrate a subscription that is already attached to a schedule: "
            f"{sub['schedule']}",
            "from_subscription",
        )
    if sub["status"] in ("canceled", "incomplete_expired", "incomplete"):
        raise invalid(
            f"You cannot migrate a subscription that is {sub['status']}.", "from_subscription"
        )
    start = min(item["current_period_start"] for item in sub["items"]["data"])
    end = max(item["current_period_end"] for item in sub["items"]["data"])
    made: Object = {
        "id": state.identify("sub_sched_1"),
        "object": "subscription_schedule",
        "application": None,
        "billing_mode": sub["billing_mode"],
        "canceled_at": None,
        "completed_at": None,
        "created": state.now,
        "current_phase": {"end_date": end, "start_date": start},
        "customer": sub["customer"],
        "customer_account": None,
        "default_settings": {
            "application_fee_percent": None,
            "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None},
            "billing_cycle_anchor": "automatic",
            "billing_thresholds": None,
            "collection_method": sub["collection_method"],
            "default_payment_method": sub["default_payment_method"],
            "description": None,
            "invoice_settings": {
                "account_tax_ids": None,
                "custom_fields": None,
                "days_until_due": None,
                "description": None,
                "footer": None,
                "issuer": {"type": "self"},
            },
            "on_behalf_of": None,
            "transfer_data": None,
        },
        "end_behavior": "cancel" if sub["cancel_at"] else "release",
        "livemode": False,
        "metadata": merged({}, params),
        "pause_schedules": [],
        "phases": [_phase(sub, _items_of(sub), start, end, trial_end=sub["trial_end"])],
        "released_at": None,
        "released_subscription": None,
        "status": "active",
        "subscription": sub["id"],
        "test_clock": sub["test_clock"],
    }
    planned = subscription_pauses.planned(state, sub, params)
    state.add(made)
    sub["_planned"] = planned
    made["pause_schedules"] = subscription_pauses.shown(planned)
    state.emit("subscription_schedule.created", made)
    state.change(sub, schedule=made["id"])
    subscription_pauses.turn(state, sub)
    collection.reschedule(state, sub)
    return made


def update(state: State, params: Params, name: str) -> Object:
    """POST /v1/subscription_schedules/{id}: `phases` replaces all coming phases."""
    found = _live(state, name, "update")
    sub = state.get(found["subscription"])
    fields: Object = {"metadata": merged(found["metadata"], params)}
    if "end_behavior" in params:
        fields["end_behavior"] = _END(params["end_behavior"], "end_behavior")
    if "phases" in params:
        fields["phases"] = _phases(state, found, sub, listing(params["phases"], "phases") or [])
    if "pause_schedules" in params:
        sub["_planned"] = subscription_pauses.planned(state, sub, params)
        fields["pause_schedules"] = subscription_pauses.shown(sub["_planned"])
    state.change(found, **fields)
    if "phases" in params:
        _enter(state, sub, fields["phases"][0], params)
    subscription_pauses.turn(state, sub)
    collection.reschedule(state, sub)
    return found


def _phases(state: State, found: Object, sub: Object, given: list[Any]) -> list[Object]:
    if not given:
        raise required("phases")
    now = found["current_phase"]
    phases: list[Object] = []
    for number, phase in enumerate(given):
        param = f"phases[{number}]"
        inside = mapping(phase, param) or {}
        for field in set(inside) - _PHASE:
            raise invalid(
                f"Received unknown parameter: {param}[{field}]", field, "parameter_unknown"
            )
        start = integer(inside.get("start_date"), f"{param}[start_date]")
        if number == 0 and start is None:
            raise invalid(
                "The first phase of an update must have its `start_date`.", f"{param}[start_date]"
            )
        if number == 0 and start != now["start_date"]:
            raise invalid(
                "You can not modify the start date of the current phase.", f"{param}[start_date]"
            )
        begins = phases[-1]["end_date"] if phases else now["start_date"]
        if start not in (None, begins):
            raise invalid(
                "The start date of a phase must be the end of the one before.",
                f"{param}[start_date]",
            )
        items = _items(state, inside, param)
        end = _phase_end(state, inside, items, begins, param)
        if number == 0 and end <= state.now:
            raise invalid("The current phase cannot end in the past.", f"{param}[end_date]")
        trial = integer(inside.get("trial_end"), f"{param}[trial_end]")
        made = _phase(sub, items, begins, end, trial_end=trial)
        made["proration_behavior"] = (
            _PRORATION(inside.get("proration_behavior"), f"{param}[proration_behavior]")
            or "create_prorations"
        )
        made["metadata"] = merged({}, inside)
        phases.append(made)
    return phases


def _items(state: State, phase: Params, param: str) -> list[Object]:
    items = []
    for number, item in enumerate(listing(need(phase, "items"), f"{param}[items]") or []):
        place = f"{param}[items][{number}]"
        inside = mapping(item, place) or {}
        only(inside, _ITEM)
        price = subscriptions.offered(state, inside.get("price"), f"{place}[price]")
        items.append(_item(price["id"], subscriptions.quantity(inside, place)))
    if not items:
        raise required(f"{param}[items]")
    subscriptions.agree([state.get(item["price"]) for item in items])
    return items


def _phase_end(state: State, phase: Params, items: list[Object], begins: int, param: str) -> int:
    end = integer(phase.get("end_date"), f"{param}[end_date]")
    lasts = mapping(phase.get("duration"), f"{param}[duration]")
    if end is not None and lasts is not None:
        raise invalid("You may only specify one of end_date, duration.", f"{param}[duration]")
    if end is not None:
        if end <= begins:
            raise invalid("A phase must end after it begins.", f"{param}[end_date]")
        return end
    recurring = state.get(items[0]["price"])["recurring"]
    every = {"interval": recurring["interval"], "interval_count": recurring["interval_count"]}
    every |= lasts or {}
    count = integer(every["interval_count"], f"{param}[duration][interval_count]") or 1
    return following(begins, begins, str(every["interval"]), count)


def _item(price: str, quantity: int) -> Object:
    return {
        "billing_thresholds": None,
        "discounts": [],
        "metadata": {},
        "plan": price,
        "price": price,
        "quantity": quantity,
        "tax_rates": [],
    }


def _items_of(sub: Object) -> list[Object]:
    return [_item(item["price"], item["quantity"]) for item in sub["items"]["data"]]


def _phase(
    sub: Object, items: list[Object], start: int, end: int, *, trial_end: int | None
) -> Object:
    return {
        "add_invoice_items": [],
        "application_fee_percent": None,
        "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None},
        "billing_cycle_anchor": None,
        "billing_thresholds": None,
        "collection_method": None,
        "currency": sub["currency"],
        "default_payment_method": None,
        "default_tax_rates": [],
        "description": None,
        "discounts": [],
        "end_date": end,
        "invoice_settings": None,
        "items": items,
        "metadata": {},
        "on_behalf_of": None,
        "proration_behavior": "create_prorations",
        "start_date": start,
        "transfer_data": None,
        "trial": None,
        "trial_end": trial_end,
    }


def _enter(state: State, sub: Object, phase: Object, params: Params) -> None:
    """Apply a replaced current phase to the subscription."""
    if sub["status"] == "trialing" and phase["trial_end"] != sub["trial_end"]:
        subscription_changes.update(state, {"trial_end": phase["trial_end"] or "now"}, sub["id"])
    if change := _change(sub, phase):
        behavior = params.get("proration_behavior") or "create_prorations"
        subscription_changes.update(
            state, {"items": change, "proration_behavior": behavior}, sub["id"]
        )


def _change(sub: Object, phase: Object) -> list[Object]:
    """Return the item changes that bring a subscription to a phase."""
    wanted = {item["price"]: item["quantity"] for item in phase["items"]}
    change: list[Object] = []
    for item in sub["items"]["data"]:
        if item["price"] not in wanted:
            change.append({"id": item["id"], "deleted": True})
        elif item["quantity"] != (quantity := wanted.pop(item["price"])):
            change.append({"id": item["id"], "quantity": quantity})
    return change + [{"price": price, "quantity": count} for price, count in wanted.items()]


def turn(state: State, sub: Object) -> None:
    """Begin the next phase when the current one has ended; called before a period is billed."""
    found = state.objects.get(sub["schedule"] or "")
    while found and sub["schedule"] and found["current_phase"]["end_date"] <= state.now:
        over = found["current_phase"]["end_date"]
        following_ = next((p for p in found["phases"] if p["start_date"] >= over), None)
        if following_ is None:
            _complete(state, found, sub)
            return
        _begin_phase(state, sub, following_)
        current = {name: following_[name] for name in ("end_date", "start_date")}
        state.change(found, current_phase=current)


def _begin_phase(state: State, sub: Object, phase: Object) -> None:
    """Set a subscription's items to those of its next phase.

    At the end of a period nothing is prorated: the period that begins is billed at the new price.
    The items of other prices are new ones, with new ids.
    """
    change = _change(sub, phase)
    if not change:
        return
    ends = max(item["current_period_end"] for item in sub["items"]["data"])
    if ends > phase["start_date"]:
        asked = {"items": change, "proration_behavior": phase["proration_behavior"]}
        subscription_changes.update(state, asked, sub["id"])
        return
    before = state.show(sub)
    items = subscription_changes.changed_items(state, sub, {"items": change})
    for item in items:
        item |= {"current_period_start": sub["items"]["data"][0]["current_period_start"]}
        item["current_period_end"] = ends
    if subscription_changes.restarts(state, sub["items"]["data"], items):
        sub["billing_cycle_anchor"] = ends
    sub["items"] = sub["items"] | {"data": items, "total_count": len(items)}
    subscriptions.announce(state, sub, before)


def _complete(state: State, found: Object, sub: Object) -> None:
    found |= {"status": "completed", "completed_at": state.now, "current_phase": None}
    found |= {"released_subscription": sub["id"], "subscription": None}
    sub["_planned"] = None
    state.emit("subscription_schedule.completed", found)
    state.change(sub, schedule=None)
    if found["end_behavior"] == "cancel":
        collection.end(state, sub, "cancellation_requested")


def wake(state: State, sub: Object) -> None:
    """Run a subscription's due actions, its schedule's first."""
    if sub["status"] != "incomplete" and not (sub["cancel_at"] and sub["cancel_at"] <= state.now):
        if sub["status"] != "paused":
            turn(state, sub)
        subscription_pauses.turn(state, sub)
    if sub["ended_at"] is None:
        billing_cycle.wake(state, sub)


def release(state: State, params: Params, name: str) -> Object:
    """POST /v1/subscription_schedules/{id}/release: the subscription continues without it."""
    found = _live(state, name, "release")
    kept = boolean(params.get("preserve_cancel_date"), "preserve_cancel_date")
    let_go(state, found, keep_end=bool(kept))
    return found


def let_go(state: State, found: Object, *, keep_end: bool = False) -> None:
    """Detach a schedule from its subscription."""
    sub = state.get(found["subscription"])
    found |= {
        "current_phase": None,
        "released_at": state.now,
        "released_subscription": sub["id"],
        "status": "released",
        "subscription": None,
    }
    state.emit("subscription_schedule.released", found)
    sub["_planned"] = None
    before = state.show(sub)
    sub["schedule"] = None
    if found["end_behavior"] == "cancel" and not keep_end:
        subscriptions.schedule_end(state, sub, None, at_period_end=False)
    subscriptions.announce(state, sub, before)
    collection.reschedule(state, sub)


def cancel(state: State, params: Params, name: str) -> Object:
    """POST /v1/subscription_schedules/{id}/cancel: end it and its subscription."""
    found = _live(state, name, "cancel")
    sub = found["subscription"]
    asked = {field: boolean(params.get(field, True), field) for field in ("invoice_now", "prorate")}
    subscription_changes.cancel(state, asked, sub)
    return found


def list_schedules(state: State, params: Params) -> list[Object]:
    """GET /v1/subscription_schedules."""
    return [
        item
        for item in state.all("subscription_schedule")
        if params.get("customer") in (None, "", item["customer"])
        and within(item["created"], params.get("created"), "created")
    ]


def _live(state: State, name: str, what: str) -> Object:
    found = state.find("subscription_schedule", name)
    if found["status"] not in _LIVE:
        raise Refusal(
            400,
            f"You cannot {what} a subscription schedule that is currently in the "
            f"`{found['status']}` status. It must be in `not_started` or `active`.",
        )
    return found


ROUTES = (
    post("/v1/subscription_schedules", create, *CREATE),
    pages("/v1/subscription_schedules", list_schedules, "customer", "scheduled"),
    get("/v1/subscription_schedules/{}", one("subscription_schedule")),
    post(
        "/v1/subscription_schedules/{}",
        update,
        *UPDATE,
    ),
    post(
        "/v1/subscription_schedules/{}/release",
        release,
        "preserve_cancel_date",
    ),
    post(
        "/v1/subscription_schedules/{}/cancel",
        cancel,
        "invoice_now",
        "prorate",
    ),
)
