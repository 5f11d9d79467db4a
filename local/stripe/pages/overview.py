"""The dashboard's content: customers, then one table for each kind of object.

A cell is a text, or a hash: `tag` is a status, `code` an id, `link` where a click leads.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from local.stripe.core.state import CLOCK, State
from local.stripe.core.views import Object
from local.stripe.objects.invoices import money

type Row = list[Any]
_SHOWN = 50  # rows of a table


def of(state: State) -> Object:
    """Return the customers with their subscriptions, and the tables that have rows."""
    subs: dict[str, list[Object]] = {}
    for sub in state.all("subscription"):
        subs.setdefault(sub["customer"], []).append(sub)
    owners = state.all("customer")[:200]
    tables = [
        {
            "title": title,
            "columns": ["Id", *columns],
            "rows": [[_id(one), *row(state, one)] for one in state.all(kind)[:_SHOWN]],
        }
        for kind, title, columns, row in _TABLES
    ]
    return {
        "customers": [_customer(state, one, subs.get(one["id"], [])) for one in owners],
        "tables": [table for table in tables if table["rows"]],
    }


def _customer(state: State, customer: Object, own: list[Object]) -> Object:
    chosen = customer["invoice_settings"]["default_payment_method"]
    chosen = chosen or next((sub["default_payment_method"] for sub in own), None)
    card = state.get(chosen)["card"] if chosen else None
    return {
        "id": customer["id"],
        "name": customer["name"] or customer["email"] or customer["id"],
        "card": f"{card['brand']} {card['last4']}" if card else "",
        "subscriptions": [
            {
                "id": sub["id"],
                "status": sub["status"],
                "plan": _plan(state, sub),
                "until": sub["cancel_at"]
                or max(item["current_period_end"] for item in sub["items"]["data"]),
            }
            for sub in own
        ],
    }


def _plan(state: State, sub: Object) -> str:
    return str(state.get(state.get(sub["items"]["data"][0]["price"])["product"])["name"])


def _id(found: Object) -> Object:
    return {"code": found["id"]}


def _who(state: State, found: Object) -> str:
    owner = state.objects.get(found["customer"] or "", {})
    return str(owner.get("name") or owner.get("email") or found["customer"] or "")


def _invoice(state: State, one: Object) -> Row:
    kind = str(one["billing_reason"]).removeprefix("subscription_").replace("_", " ")
    total, left = (money(one[name], one["currency"]) for name in ("total", "amount_remaining"))
    page = {"text": one["number"] or "", "link": one["hosted_invoice_url"]}
    return [page, _who(state, one), kind, total, left, {"tag": one["status"]}]


def _schedule(state: State, one: Object) -> Row:
    now = one["current_phase"] or {}
    phases = " → ".join(_plans(state, phase["items"]) for phase in one["phases"])
    pauses = ", ".join(_pause(each) for each in one["pause_schedules"])
    return [_who(state, one), phases, pauses, _day(now.get("end_date")), {"tag": one["status"]}]


def _plans(state: State, items: list[Object]) -> str:
    products = (state.get(state.get(item["price"])["product"]) for item in items)
    # Each name in an isolate: one in Arabic must not turn the arrow around.
    return " + ".join(f"\u2068{product['name']}\u2069" for product in products)


def _pause(each: Object) -> str:
    begins = _day((each["pause"] or {}).get("pause_at"))
    return f"{begins or 'now'} to {_day((each['resume'] or {}).get('resume_at')) or 'open'}"


def _coupon(state: State, one: Object) -> Row:
    off = f"{one['percent_off']:g} %" if one["percent_off"] is not None else ""
    off = off or money(one["amount_off"], one["currency"])
    lasts = one["duration"]
    lasts += f", {one['duration_in_months']} months" if one["duration_in_months"] else ""
    return [one["name"] or "", off, lasts, str(one["times_redeemed"]), {"tag": _valid(one)}]


def _valid(one: Object) -> str:
    return "valid" if one.get("valid", one.get("active")) else "over"


def _code(state: State, one: Object) -> Row:
    coupon = {"code": one["promotion"]["coupon"]}
    return [one["code"], coupon, str(one["times_redeemed"]), {"tag": _valid(one)}]


def _refund(state: State, one: Object) -> Row:
    amount = money(one["amount"], one["currency"])
    return [_who(state, one), {"code": one["charge"]}, amount, {"tag": one["status"]}]


def _note(state: State, one: Object) -> Row:
    amount = money(one["amount"], one["currency"])
    return [one["number"], _who(state, one), amount, one["type"], {"tag": one["status"]}]


def _item(state: State, one: Object) -> Row:
    amount = money(one["amount"], one["currency"])
    waits = {"tag": "billed" if one["invoice"] else "waiting"}
    return [_who(state, one), one["description"] or "", amount, waits]


def _setup(state: State, one: Object) -> Row:
    action = one["next_action"] or {}
    link = (action.get("redirect_to_url") or {}).get("url")
    asks = {"text": "3D Secure" if link else "", "link": link}
    return [_who(state, one), asks, {"tag": one["status"]}]


def _clock(state: State, one: Object) -> Row:
    inside = sum(owner["test_clock"] == one["id"] for owner in state.all("customer"))
    return [one["name"] or "", _day(one["frozen_time"]), str(inside), {"tag": one["status"]}]


def _day(at: int | None) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}" if at else ""


_TABLES: tuple[tuple[str, str, tuple[str, ...], Callable[[State, Object], Row]], ...] = (
    (
        "subscription_schedule",
        "Schedules",
        ("Customer", "Phases", "Pause", "Next", "Status"),
        _schedule,
    ),
    (
        "invoice",
        "Invoices",
        ("Number", "Customer", "Reason", "Total", "Unpaid", "Status"),
        _invoice,
    ),
    ("invoiceitem", "Invoice items", ("Customer", "What", "Amount", "Status"), _item),
    ("credit_note", "Credit notes", ("Number", "Customer", "Amount", "Kind", "Status"), _note),
    ("refund", "Refunds", ("Customer", "Charge", "Amount", "Status"), _refund),
    ("coupon", "Coupons", ("Name", "Off", "Lasts", "Used", "Status"), _coupon),
    ("promotion_code", "Promotion codes", ("Code", "Coupon", "Used", "Status"), _code),
    ("setup_intent", "Setup intents", ("Customer", "Asks for", "Status"), _setup),
    (CLOCK, "Test clocks", ("Name", "Time", "Customers", "Status"), _clock),
)
