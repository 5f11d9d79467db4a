"""Invoice items: amounts that wait for a customer's next invoice, including prorations.

A proration is stored on its subscription as a line, and listed and deleted here as an item.
"""

from typing import Any

from local.stripe.core.errors import Refusal, invalid, missing, required
from local.stripe.core.params import (
    Params,
    boolean,
    integer,
    mapping,
    merged,
    need,
    only,
    text,
    values,
)
from local.stripe.core.routes import delete, get, pages, post
from local.stripe.core.state import State
from local.stripe.core.views import Object, within
from local.stripe.objects import catalogue, coupons, customers, invoices

_CREATE = (
    *("customer", "amount", "currency", "description", "discountable", "invoice", "metadata"),
    *("period", "price_data", "pricing", "quantity", "subscription"),
)
_UPDATE = ("amount", "description", "discountable", "metadata", "quantity", "period")


def create(state: State, params: Params) -> Object:
    """POST /v1/invoiceitems."""
    customer = state.find("customer", need(params, "customer"), "customer")
    made = _new(state, customer, params)
    customers.one_currency(state, customer, made["currency"])
    name = text(params.get("invoice"), "invoice")
    draft = state.find("invoice", name, "invoice") if name else None
    if draft and draft["status"] != "draft":
        raise invalid("The invoice is no longer a draft.", "invoice", "invoice_not_editable")
    if draft and draft["customer"] != customer["id"]:
        raise invalid("The invoice is another customer's.", "invoice")
    state.add(made)
    state.emit("invoiceitem.created", made)
    if customer["currency"] is None:
        state.change(customer, currency=made["currency"])
    if draft:
        made["invoice"] = draft["id"]
        add(state, draft, [_line(state, made)])
    return made


def _new(state: State, customer: Object, params: Params) -> Object:
    price = _price(state, params)
    count = integer(params.get("quantity", 1), "quantity")
    count = 1 if count is None else count
    off = integer(params.get("amount"), "amount")
    if price and off is not None:
        raise invalid("You may only specify one of these parameters: amount, pricing.", "amount")
    if price is None and off is None:
        raise required("amount")
    currency = price["currency"] if price else str(need(params, "currency")).lower()
    period = mapping(params.get("period"), "period") or {"end": state.now, "start": state.now}
    subscription = text(params.get("subscription"), "subscription")
    if subscription:
        found = state.find("subscription", subscription, "subscription")
        if found["customer"] != customer["id"]:
            raise missing("subscription", subscription, "subscription")
    total = catalogue.cost(price, count) if price else int(off or 0)
    said = text(params.get("description"), "description")
    return {
        "id": state.identify("ii_1"),
        "object": "invoiceitem",
        "amount": total,
        "currency": currency,
        "customer": customer["id"],
        "customer_account": None,
        "date": state.now,
        "description": said or (state.get(price["product"])["name"] if price else None),
        "discountable": boolean(params.get("discountable", total > 0), "discountable"),
        "discounts": [],
        "invoice": None,
        "livemode": False,
        "metadata": merged({}, params),
        "net_amount": total,
        "parent": _of(subscription),
        "period": dict(period),
        "pricing": _pricing(price) if price else None,
        "proration": False,
        "proration_details": None,
        "quantity": count,
        "quantity_decimal": str(count),
        "tax_rates": [],
        "test_clock": customer.get("test_clock"),
    }


def _of(subscription: str | None, item: str | None = None) -> Object | None:
    if subscription is None:
        return None
    details: Object = {"subscription": subscription}
    return {
        "subscription_details": details | ({"subscription_item": item} if item else {}),
        "type": "subscription_details",
    }


def _pricing(price: Object) -> Object:
    return {
        "price_details": {"price": price["id"], "product": price["product"]},
        "type": "price_details",
        "unit_amount_decimal": price["unit_amount_decimal"],
    }


def _price(state: State, params: Params) -> Object | None:
    if data := mapping(params.get("price_data"), "price_data"):
        return catalogue.inline_price(state, data)
    inside = mapping(params.get("pricing"), "pricing") or {}
    only(inside, {"price"}, "pricing")
    name = text(inside.get("price"), "pricing[price]")
    price = state.find("price", name, "pricing[price]") if name else None
    if price and price["recurring"]:
        raise invalid(
            "The price specified is set to `type=recurring` but this field only accepts prices "
            "with `type=one_time`.",
            "pricing[price]",
        )
    return price


def update(state: State, params: Params, name: str) -> Object:
    """POST /v1/invoiceitems/{id}: only one that is not billed."""
    found = _pending(state, name)
    readers: dict[str, Any] = {"description": text, "amount": integer, "discountable": boolean}
    fields = values(params, readers) | {"metadata": merged(found["metadata"], params)}
    if "quantity" in params:
        count = integer(params["quantity"], "quantity") or 0
        fields |= {"quantity": count, "quantity_decimal": str(count)}
        if found["pricing"]:
            price = state.get(found["pricing"]["price_details"]["price"])
            fields["amount"] = catalogue.cost(price, count)
    if "period" in params:
        fields["period"] = dict(mapping(params["period"], "period") or {})
    fields["net_amount"] = fields.get("amount", found["amount"])
    found |= fields
    return found


def remove(state: State, params: Params, name: str) -> Object:
    """DELETE /v1/invoiceitems/{id}: only one that is not billed; a proration too."""
    for sub in state.all("subscription"):
        kept = [line for line in sub["_lines"] if _id_of(line) != name]
        if len(kept) < len(sub["_lines"]):
            sub["_lines"] = kept
            return {"id": name, "object": "invoiceitem", "deleted": True}
    found = _pending(state, name)
    found["_deleted"] = True
    state.emit("invoiceitem.deleted", found)
    return {"id": name, "object": "invoiceitem", "deleted": True}


def _pending(state: State, name: str) -> Object:
    found = state.find("invoiceitem", name)
    if found.get("_deleted"):
        raise missing("invoiceitem", name)
    invoice = state.get(found["invoice"]) if found["invoice"] else None
    if invoice is not None:
        raise Refusal(
            400,
            "This invoice item can no longer be edited because it is attached to an invoice.",
            code="invoice_not_editable",
        )
    return found


def show(state: State, params: Params, name: str) -> Object:
    """GET /v1/invoiceitems/{id}."""
    for found in (*_prorations(state), *state.all("invoiceitem")):
        if found["id"] == name:
            return found
    raise missing("invoiceitem", name)


def list_items(state: State, params: Params) -> list[Object]:
    """GET /v1/invoiceitems: with `pending` those that no invoice has."""
    waits = boolean(params.get("pending"), "pending")
    found = [*_prorations(state), *state.all("invoiceitem")]
    return [
        item
        for item in found
        if params.get("customer") in (None, "", item["customer"])
        and params.get("invoice") in (None, "", item["invoice"])
        and (waits is None or (item["invoice"] is None) == waits)
        and within(item["date"], params.get("created"), "created")
    ]


def _id_of(line: Object) -> Any:
    return line["parent"]["subscription_item_details"]["invoice_item"]


def _prorations(state: State) -> list[Object]:
    """Return pending prorations as invoice items, newest first."""
    found = []
    for sub in state.all("subscription"):
        for line in reversed(sub["_lines"]):
            details = line["parent"]["subscription_item_details"]
            price = state.get(line["pricing"]["price_details"]["price"])
            found.append(
                {
                    "id": details["invoice_item"],
                    "object": "invoiceitem",
                    "amount": line["amount"],
                    "currency": line["currency"],
                    "customer": sub["customer"],
                    "customer_account": None,
                    "date": line["period"]["start"],
                    "description": line["description"],
                    "discountable": False,
                    "discounts": [],
                    "invoice": None,
                    "livemode": False,
                    "metadata": {},
                    "net_amount": line["amount"],
                    "parent": _of(sub["id"], details["subscription_item"]),
                    "period": line["period"],
                    "pricing": _pricing(price),
                    "proration": True,
                    "proration_details": {"credited_items": None, "discount_amounts": []},
                    "quantity": line["quantity"],
                    "quantity_decimal": line["quantity_decimal"],
                    "tax_rates": [],
                    "test_clock": sub["test_clock"],
                }
            )
    return found


def waiting(
    state: State, customer: Object, currency: str, subscription: str | None
) -> list[Object]:
    """Return the lines that wait for a customer's next invoice, without prorations."""
    lines = []
    for item in reversed(state.all("invoiceitem")):
        parent = item["parent"]
        own = parent["subscription_details"]["subscription"] if parent else None
        fits = own is None or own == subscription
        ours = item["customer"] == customer["id"] and item["currency"] == currency
        if item["invoice"] is None and fits and ours:
            lines.append(_line(state, item))
    return lines


def attach(state: State, invoice: Object) -> None:
    """Mark the items of an invoice's lines as billed."""
    for line in invoice["lines"]["data"]:
        details = line["parent"]["invoice_item_details"]
        if details and (item := state.objects.get(details["invoice_item"])):
            item["invoice"] = invoice["id"]


def add(state: State, draft: Object, lines: list[Object]) -> None:
    """Add lines to a draft and emit the update."""
    before = draft["lines"]["data"]
    fresh = {**draft}
    discounts = coupons.active(state, draft["discounts"])
    invoices.bill(state, fresh, [*before, *lines], discounts)
    state.change(draft, **fresh)


def _line(state: State, item: Object) -> Object:
    return {
        "id": state.identify("il_1"),
        "object": "line_item",
        "amount": item["amount"],
        "currency": item["currency"],
        "description": item["description"],
        "discount_amounts": [],
        "discountable": item["discountable"],
        "discounts": [],
        "invoice": None,
        "livemode": False,
        "metadata": dict(item["metadata"]),
        "parent": {
            "invoice_item_details": {
                "invoice_item": item["id"],
                "proration": False,
                "proration_details": {"credited_items": None},
                "subscription": (item["parent"] or {"subscription_details": {}})[
                    "subscription_details"
                ].get("subscription"),
            },
            "subscription_item_details": None,
            "type": "invoice_item_details",
        },
        "period": dict(item["period"]),
        "pretax_credit_amounts": [],
        "pricing": item["pricing"],
        "quantity": item["quantity"],
        "quantity_decimal": item["quantity_decimal"],
        "subtotal": item["amount"],
        "taxes": [],
    }


ROUTES = (
    post("/v1/invoiceitems", create, *_CREATE),
    pages("/v1/invoiceitems", list_items, "customer", "invoice", "pending"),
    get("/v1/invoiceitems/{}", show),
    post("/v1/invoiceitems/{}", update, *_UPDATE),
    delete("/v1/invoiceitems/{}", remove),
)
