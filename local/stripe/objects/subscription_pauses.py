"""Pausing a subscription and resuming it: at once, or as its schedule plans it.

A paused subscription makes no invoices and begins no periods. The unused part of its period is
credited on the invoice that resumes it, which is made at once and stays open until it is paid.
"""

from typing import Any

from local.stripe.core.dates import following
from local.stripe.core.errors import Refusal, invalid, required
from local.stripe.core.params import Params, integer, listing, mapping, need, one_of, only, text
from local.stripe.core.routes import post
from local.stripe.core.state import State
from local.stripe.core.views import Object
from local.stripe.objects import (
    collection,
    customers,
    invoices,
    subscription_changes,
    subscriptions,
)

PAUSE = ("bill_for", "invoicing_behavior", "type")
RESUME = ("billing_cycle_anchor", "payment_behavior", "proration_behavior", "proration_date")
_INVOICING = one_of("invoice", "pending_invoice_item")
_UNUSED = one_of("item_current_period_start", "none", "now", "pause_at")
_USAGE = one_of("none", "now", "pause_at")
_PAYMENT = one_of("resume_on_payment_attempt", "resume_on_payment_success")
_PRORATION = one_of("always_invoice", "create_prorations", "none")


def pause(state: State, params: Params, name: str) -> Object:
    """POST /v1/subscriptions/{id}/pause."""
    sub = state.find("subscription", name)
    one_of("subscription")(params.get("type"), "type")
    if sub["schedule"]:
        raise Refusal(400, "You cannot pause a subscription with an attached schedule.")
    _pausable(sub)
    _pause(state, sub, _settings(params, ""))
    collection.reschedule(state, sub)
    return sub


def migrate(state: State, params: Params, name: str) -> Object:
    """POST /v1/subscriptions/{id}/migrate: to flexible billing mode, and never back."""
    sub = state.find("subscription", name)
    mode = mapping(need(params, "billing_mode"), "billing_mode") or {}
    one_of("flexible")(need(mode, "type"), "billing_mode[type]")
    if sub["billing_mode"]["type"] == "flexible":
        raise Refusal(400, "This subscription's billing mode is flexible already.")
    flexible = {"proration_discounts": "included"}
    made = {"flexible": flexible, "type": "flexible", "updated_at": state.now}
    state.change(sub, billing_mode=made)
    return sub


def _pausable(sub: Object) -> None:
    if sub["billing_mode"]["type"] != "flexible":
        raise Refusal(400, "Only subscriptions with `billing_mode[type]=flexible` can be paused.")
    if sub["collection_method"] != "charge_automatically":
        raise Refusal(400, "Only subscriptions that are charged automatically can be paused.")
    if sub["status"] != "active":
        raise Refusal(400, f"You cannot pause a subscription that is {sub['status']}.")
    if sub["pending_update"]:
        raise Refusal(400, "You cannot pause a subscription with a pending update.")


def _settings(params: Params, place: str) -> Object:
    bill = mapping(params.get("bill_for"), f"{place}bill_for") or {}
    only(bill, {"outstanding_usage_through", "unused_time_from"})
    usage = mapping(bill.get("outstanding_usage_through"), "outstanding_usage_through") or {}
    _USAGE(usage.get("type"), f"{place}bill_for[outstanding_usage_through][type]")
    unused = mapping(bill.get("unused_time_from"), "unused_time_from") or {}
    return {
        "unused": _UNUSED(unused.get("type"), f"{place}bill_for[unused_time_from][type]") or "now",
        "invoicing": _INVOICING(params.get("invoicing_behavior"), f"{place}invoicing_behavior")
        or "pending_invoice_item",
    }


def _pause(state: State, sub: Object, settings: Object) -> None:
    if settings["unused"] != "none":
        items = sub["items"]["data"]
        since = items[0]["current_period_start"] if "start" in settings["unused"] else state.now
        sub["_lines"] = sub["_lines"] + subscription_changes.prorations(
            state, items, [], since, charge=True
        )
    if settings["invoicing"] == "invoice" and sub["_lines"]:
        lines, sub["_lines"] = sub["_lines"], []
        invoice = subscriptions.draft(state, sub, lines, "subscription_update")
        invoices.finalize(state, invoice)
        collection.collect(state, invoice)
    cause: Object = {"subscription": {"type": "pause_requested"}, "type": "subscription"}
    details = {"paused": cause | {"transitioned_at": state.now}}
    state.change(sub, status="paused", status_details=details)
    state.emit("customer.subscription.paused", sub)


def resume(state: State, params: Params, name: str) -> Object:
    """POST /v1/subscriptions/{id}/resume: only a paused one.

    It stays paused while its resumption invoice is open. With `resume_on_payment_attempt` a refused
    card makes it past_due.
    """
    sub = state.find("subscription", name)
    if sub["status"] != "paused":
        raise Refusal(
            400, f"Only paused subscriptions can be resumed. This subscription is {sub['status']}."
        )
    if sub.get("_resuming"):
        raise Refusal(400, "This subscription has a resumption invoice that is not paid.")
    anchor = mapping(params.get("billing_cycle_anchor"), "billing_cycle_anchor") or {"type": "now"}
    only(anchor, {"type"})
    kept = one_of("now", "unchanged")(anchor.get("type"), "billing_cycle_anchor[type]")
    behavior = _PAYMENT(params.get("payment_behavior"), "payment_behavior")
    prorated = _PRORATION(params.get("proration_behavior"), "proration_behavior")
    _resume(
        state,
        sub,
        unchanged=kept == "unchanged",
        must_pay=behavior == "resume_on_payment_success",
        prorate=prorated or "create_prorations",
    )
    collection.reschedule(state, sub)
    return sub


def _resume(state: State, sub: Object, *, unchanged: bool, must_pay: bool, prorate: str) -> None:
    fields, lines, pending = _next(state, sub, unchanged=unchanged, prorate=prorate)
    fields |= {"status": "active", "status_details": None, "_lines": pending}
    if not lines:
        _go_on(state, sub, fields)
        return
    sub["_lines"] = []
    invoice = subscriptions.draft(
        state, sub, lines, "subscription_cycle", auto_advance=not must_pay
    )
    state.change(sub, latest_invoice=invoice["id"])
    sub["_resuming"] = {"invoice": invoice["id"], "fields": fields}
    sub["_resuming_until"] = state.now + collection.FIRST_PAYMENT_SECONDS
    invoices.finalize(state, invoice)
    method = customers.default_method(state, state.get(sub["customer"]), sub)
    if method or not invoice["amount_due"]:
        refused = collection.collect(state, invoice, method=method)
        if refused and not must_pay:
            sub["_resuming"] = None
            _go_on(state, sub, fields | {"status": "past_due"})


def _next(
    state: State, sub: Object, *, unchanged: bool, prorate: str
) -> tuple[Object, list[Object], list[Object]]:
    """Return a resumed subscription's fields, the lines billed now, and those that wait."""
    items = [dict(item) for item in sub["items"]["data"]]
    anchor = sub["billing_cycle_anchor"] if unchanged else state.now
    for item in items:
        start = item["current_period_start"] if unchanged else state.now
        while (ends := subscriptions.period_end(state, item, anchor, start)) <= state.now:
            start = ends
        item |= {"current_period_start": start, "current_period_end": ends}
    fields: Object = {
        "items": sub["items"] | {"data": items},
        "billing_cycle_anchor": anchor,
    }
    if not unchanged:
        return fields, sub["_lines"] + subscriptions.cycle_lines(state, sub | fields), []
    lines = []
    if prorate != "none":
        lines = subscription_changes.prorations(state, [], items, state.now, charge=True)
    if prorate == "always_invoice":
        return fields, sub["_lines"] + lines, []
    return fields, [], sub["_lines"] + lines


def _go_on(state: State, sub: Object, fields: Object) -> None:
    state.change(sub, **fields)
    state.emit("customer.subscription.resumed", sub)


# ---- what a schedule plans


def planned(state: State, sub: Object, params: Params) -> Object | None:
    """Read `pause_schedules`: at most one entry, with its pause, its resume, or both."""
    given = listing(params.get("pause_schedules"), "pause_schedules")
    if not given:
        return None
    if len(given) > 1:
        raise invalid("Only one pause schedule is supported.", "pause_schedules")
    entry = mapping(given[0], "pause_schedules[0]") or {}
    only(entry, {"key", "pause", "resume"})
    plan: Object = {"key": text(entry.get("key"), "key") or state.identify("pause_", 12)}
    begin = mapping(entry.get("pause"), "pause_schedules[0][pause]")
    if begin is None and sub["status"] != "paused":
        raise required("pause_schedules[0][pause]")
    plan["pause_at"] = _at(state, begin, "pause_at") if begin else _since(state, sub)
    settings = mapping((begin or {}).get("settings"), "settings") or {}
    plan["settings"] = _settings(settings, "pause_schedules[0][pause][settings]")
    if begin:
        _pausable(sub)
    back = mapping(entry.get("resume"), "pause_schedules[0][resume]")
    plan["resume_at"] = _at(state, back, "resume_at") if back else None
    how = mapping((back or {}).get("settings"), "settings") or {}
    only(how, {"billing_cycle_anchor", "payment_behavior", "proration_behavior"})
    plan["resume"] = {
        "billing_cycle_anchor": one_of("resume_at", "unchanged")(
            how.get("billing_cycle_anchor"), "billing_cycle_anchor"
        )
        or "resume_at",
        "payment_behavior": _PAYMENT(how.get("payment_behavior"), "payment_behavior")
        or "resume_on_payment_success",
        "proration_behavior": _PRORATION(how.get("proration_behavior"), "proration_behavior")
        or "create_prorations",
    }
    plan |= {"paused": begin is None, "resumed": False}
    return plan


def _since(state: State, sub: Object) -> int:
    """Return when a paused subscription was paused."""
    details: Object = (sub["status_details"] or {}).get("paused") or {}
    return int(details.get("transitioned_at", state.now))


def _at(state: State, given: Params, field: str) -> int:
    inside = mapping(given.get(field), field) or {}
    kind = one_of("now", "timestamp", "duration")(need(inside, "type"), f"{field}[type]")
    if kind == "timestamp":
        when = integer(need(inside, "timestamp"), f"{field}[timestamp]") or 0
        if when <= state.now:
            raise invalid(f"`{field}` must be in the future.", f"{field}[timestamp]")
        return when
    if kind == "duration":
        lasts = mapping(need(inside, "duration"), f"{field}[duration]") or {}
        count = integer(lasts.get("interval_count", 1), "interval_count") or 1
        return following(state.now, state.now, str(need(lasts, "interval")), count)
    return state.now


def shown(plan: Object | None) -> list[Any]:
    """Return a plan as a schedule shows it."""
    if plan is None:
        return []
    settings, back = plan["settings"], plan["resume"]
    done = {"error": None, "type": "succeeded"}
    waits = {"error": None, "type": "scheduled"}
    entry: Object = {
        "key": plan["key"],
        "pause": {
            "pause_at": plan["pause_at"],
            "settings": {
                "bill_for": {
                    "outstanding_usage_through": {"type": "pause_at"},
                    "unused_time_from": {
                        "type": "pause_at" if settings["unused"] == "now" else settings["unused"]
                    },
                },
                "invoicing_behavior": settings["invoicing"],
                "type": "subscription",
            },
            "status": done if plan["paused"] else waits,
        },
        "resume": None,
    }
    if plan["resume_at"]:
        status = done if plan["resumed"] else waits
        entry["resume"] = {"resume_at": plan["resume_at"], "settings": back, "status": status}
    return [entry]


def turn(state: State, sub: Object) -> None:
    """Pause or resume a subscription when its schedule says so; give up an unpaid resumption."""
    until = sub.get("_resuming_until")
    if until is not None and until <= state.now:
        _give_up(state, sub)
    plan = sub.get("_planned")
    if plan is None or sub["ended_at"] is not None:
        return
    if not plan["paused"] and plan["pause_at"] <= state.now and sub["status"] == "active":
        plan["paused"] = True
        _pause(state, sub, plan["settings"])
    due = plan["resume_at"] is not None and plan["resume_at"] <= state.now
    if plan["paused"] and due and not plan["resumed"]:
        plan["resumed"] = True
        if sub["status"] == "paused" and not sub.get("_resuming"):
            how = plan["resume"]
            _resume(
                state,
                sub,
                unchanged=how["billing_cycle_anchor"] == "unchanged",
                must_pay=how["payment_behavior"] == "resume_on_payment_success",
                prorate=how["proration_behavior"],
            )
    schedule = state.objects.get(sub["schedule"] or "")
    if schedule is not None:
        state.change(schedule, pause_schedules=shown(plan))


def _give_up(state: State, sub: Object) -> None:
    """Void a resumption invoice that was not paid in time; the pause continues."""
    sub["_resuming_until"] = None
    resuming, sub["_resuming"] = sub.get("_resuming"), None
    invoice = state.get(resuming["invoice"]) if resuming else None
    if invoice is None or invoice["status"] != "open":
        return
    sub["_lines"] = [line for line in invoice["lines"]["data"] if line["amount"] < 0]
    invoices.close(state, invoice, "void")


ROUTES = (
    post(
        "/v1/subscriptions/{}/resume",
        resume,
        *RESUME,
    ),
    post("/v1/subscriptions/{}/migrate", migrate, "billing_mode"),
    post("/v1/subscriptions/{}/pause", pause, *PAUSE),
)
