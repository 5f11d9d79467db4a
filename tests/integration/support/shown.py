"""What GET /v1/billing/subscription should answer, read from Stripe's objects and nothing of ours.

The stand-in is asked as anyone would ask Stripe: for subscriptions, schedules, open invoices, and
for a preview of the next invoice, which is Stripe's own word on what is charged next. Two things
of that are not mirrored, and not compared: what waits for the next invoice because of something
done in the dashboard, and what a discount takes off; with one we show no next charge, nor with a
price in tiers.
"""

from datetime import UTC, datetime
from typing import Any

from tests.integration.support.shops import CATALOGUE, Shop
from tests.integration.support.workspaces import Workspace

_ACCESS = {"active": "full", "trialing": "full", "past_due": "grace"}
_OVER = ("canceled", "incomplete_expired")
FIELDS = (
    *("status", "access", "plan", "price", "currentPeriodEnd", "nextCharge", "cancelAt"),
    *("trialEnd", "pendingChange", "pausedUntil", "payUrl", "paymentMethod"),
)

type Json = dict[str, Any]


def ours(answer: Json) -> Json:
    """Reduce an answer of ours to what is compared."""
    found = {name: answer.get(name) for name in FIELDS}
    found["plan"] = answer["plan"]["id"]
    found["price"] = {"amount": None, **answer["price"]}  # left out of a price in tiers
    if change := found["pendingChange"]:
        found["pendingChange"] = {"plan": change["plan"]["id"], "date": change["date"]}
    if method := found["paymentMethod"]:
        found["paymentMethod"] = {name: method.get(name) for name in ("last4", "expMonth")}
    return found


def of_stripe(workspace: Workspace) -> Json:
    """Return what Stripe's objects say of a workspace, by the same names."""
    shop = workspace.shop
    subs = [sub for sub in _subscriptions(workspace) if sub["status"] not in _OVER]
    free = dict.fromkeys(FIELDS) | {"status": "free", "access": "free", "plan": "starter"}
    free["price"] = _price_of("starter")
    if not subs:
        return free | {"paymentMethod": _method(workspace, None)}
    sub = max(subs, key=lambda one: (_access(shop, one) != "free", _amount(shop, one)))
    item, access = _item(shop, sub), _access(shop, sub)
    price = item["price"]
    invoice = _owed(shop, sub)
    return {
        "status": sub["status"],
        "access": access,
        "plan": _plan(shop, price) if access != "free" else "starter",
        "price": {
            "amount": price["unit_amount"],
            "currency": price["currency"].upper(),
            "interval": price["recurring"]["interval"],
            "intervalCount": price["recurring"]["interval_count"],
            "quantity": item["quantity"],
        },
        "currentPeriodEnd": _date(item["current_period_end"]),
        "nextCharge": _next(shop, sub, item, invoice),
        "cancelAt": _date(_ends(sub, item)),
        "trialEnd": _date(sub["trial_end"]) if sub["status"] == "trialing" else None,
        "pendingChange": _change(shop, sub, item),
        "pausedUntil": _returns(shop, sub) if sub["status"] == "paused" else None,
        "payUrl": invoice["hosted_invoice_url"] if invoice else None,
        "paymentMethod": _method(workspace, sub),
    }


def _subscriptions(workspace: Workspace) -> list[Json]:
    names = {one["id"] for one in workspace.customers()}
    return [sub for sub in workspace.shop.all("subscription") if sub["customer"] in names]


def _plan(shop: Shop, price: Json) -> str | None:
    """Return the plan that a price is of: its product's name, in this catalogue."""
    name = str(shop.request("GET", f"products/{price['product']}")["name"]).lower()
    return name if name in CATALOGUE else None


def _item(shop: Shop, sub: Json) -> Json:
    """Return the item that is the plan, or the first one."""
    items: list[Json] = sub["items"]["data"]
    known = [one for one in items if _plan(shop, one["price"])]
    return max(
        known or items[:1],
        key=lambda one: (bool(one["quantity"]), one["price"]["unit_amount"] or 0),
    )


def _access(shop: Shop, sub: Json) -> str:
    item = _item(shop, sub)
    if _plan(shop, item["price"]) is None or not item["quantity"]:
        return "free"
    cause = ((sub["status_details"] or {}).get("paused") or {}).get("subscription") or {}
    if sub["status"] == "paused" and str(cause.get("type")).endswith("_payment_failure"):
        return "grace"
    return _ACCESS.get(sub["status"], "free")


def _amount(shop: Shop, sub: Json) -> int:
    return int(_item(shop, sub)["price"]["unit_amount"] or 0)


def _ends(sub: Json, item: Json) -> int | None:
    if sub["cancel_at"] is None and sub["cancel_at_period_end"]:
        return int(item["current_period_end"])
    return int(sub["cancel_at"]) if sub["cancel_at"] else None


def _change(shop: Shop, sub: Json, item: Json) -> Json | None:
    if ends := _ends(sub, item):
        return {"plan": "starter", "date": _date(ends)}
    if not sub["schedule"]:
        return None
    schedule = shop.request("GET", f"subscription_schedules/{sub['schedule']}")
    now = {(one["price"]["id"], one["quantity"]) for one in sub["items"]["data"]}
    for phase in schedule["phases"]:
        then = {(one["price"], one["quantity"]) for one in phase["items"]}
        if phase["start_date"] >= schedule["current_phase"]["end_date"] and then != now:
            prices = [shop.request("GET", f"prices/{name}") for name, _ in then]
            plans = [plan for price in prices if (plan := _plan(shop, price))]
            return {"plan": plans[0], "date": _date(phase["start_date"])}
    return None


def _returns(shop: Shop, sub: Json) -> str | None:
    if not sub["schedule"]:
        return None
    plans = shop.request("GET", f"subscription_schedules/{sub['schedule']}")["pause_schedules"]
    for back in [one["resume"] for one in plans if one["resume"]]:
        if back["status"]["type"] == "scheduled":
            return _date(back["resume_at"])
    return None


def _owed(shop: Shop, sub: Json) -> Json | None:
    """Return the open invoice that a person has to pay: not one that is about to be charged."""
    found = [
        one
        for one in shop.request("GET", "invoices", subscription=sub["id"], status="open")["data"]
        if one["amount_due"]
        and (one["attempt_count"] or sub["status"] not in ("active", "trialing"))
    ]
    latest = [one for one in found if one["id"] == sub["latest_invoice"]]
    return (latest or found or [None])[0]


def _next(shop: Shop, sub: Json, item: Json, owed: Json | None) -> Json | None:
    """Return what is charged next, as Stripe previews it, or when what is owed is tried again."""
    if sub["status"] == "past_due" and owed and owed["next_payment_attempt"]:
        when = _date(owed["next_payment_attempt"])
        return {"amount": owed["amount_due"], "currency": "AED", "at": when}
    if sub["status"] not in ("active", "trialing") or sub["pause_collection"]:
        return None
    try:
        preview = shop.request("POST", "invoices/create_preview", subscription=sub["id"])
    except AssertionError:  # Stripe has no next invoice
        return None
    ends = _ends(sub, item)
    if not preview["total"] or (ends and ends <= item["current_period_end"]):
        return None
    tiered = any(one["price"]["unit_amount"] is None for one in sub["items"]["data"])
    if sub["discounts"] or tiered:
        return None  # we show none then
    lines = preview["lines"]["data"]
    waiting = sum(line["amount"] for line in lines if line["period"]["start"] < _runs_until(sub))
    when = _date(item["current_period_end"])
    return {"amount": max(0, preview["amount_due"] - waiting), "currency": "AED", "at": when}


def _runs_until(sub: Json) -> int:
    """Return the end of the period that runs: what is billed for it still waits."""
    return int(max(one["current_period_end"] for one in sub["items"]["data"]))


def _method(workspace: Workspace, sub: Json | None) -> Json | None:
    customers = workspace.customers()
    if not customers:
        return None
    chosen = customers[0]["invoice_settings"]["default_payment_method"]
    name = (sub or {}).get("default_payment_method") or chosen
    if not name:
        return None
    card = workspace.shop.request("GET", f"payment_methods/{name}")
    if card["customer"] is None:
        return None
    return {"last4": card["card"]["last4"], "expMonth": card["card"]["exp_month"]}


def _price_of(plan: str) -> Json:
    amount, interval, _ = CATALOGUE[plan]
    listed = {"amount": amount, "currency": "AED", "interval": interval}
    return listed | {"intervalCount": 1, "quantity": 1}


def _date(seconds: int | None) -> str | None:
    """Write a moment as our answers do."""
    if not seconds:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
