"""Credit notes: an open invoice owes less, a paid one gives back.

An amount that is given back is credited to the customer's balance, refunded, or paid outside of
Stripe; the three add up to the note's amount.
"""

from typing import Any

from local.stripe.core.errors import Refusal, invalid, required
from local.stripe.core.params import (
    Params,
    amount,
    integer,
    listing,
    mapping,
    merged,
    need,
    only,
    text,
)
from local.stripe.core.routes import get, one, pages, post
from local.stripe.core.state import State
from local.stripe.core.views import Object, whole, within
from local.stripe.objects import collection, invoices, refunds

_CREATE = (
    *("invoice", "amount", "lines", "credit_amount", "refund_amount", "out_of_band_amount"),
    *("reason", "memo", "metadata"),
)
_LINE = {"type", "invoice_line_item", "amount", "quantity", "description", "unit_amount"}


def create(state: State, params: Params) -> Object:
    """POST /v1/credit_notes."""
    invoice = state.find("invoice", need(params, "invoice"), "invoice")
    if invoice["status"] not in ("open", "paid", "uncollectible"):
        raise invalid(
            f"You cannot create a credit note for an invoice that is {invoice['status']}.",
            "invoice",
        )
    lines = _lines(state, invoice, params)
    total = sum(line["amount"] for line in lines)
    if not lines:
        total = amount(params.get("amount"), "amount") or 0
    if total <= 0:
        raise required("amount")
    paid = invoice["status"] == "paid"
    before, after = invoice["amount_remaining"], invoice["amount_paid"]
    after -= invoice["post_payment_credit_notes_amount"]
    if total > (after if paid else before):
        raise invalid("The credit note is higher than what is left of the invoice.", "amount")
    split: dict[str, int] = {
        field: amount(params.get(field), field) or 0
        for field in ("credit_amount", "refund_amount", "out_of_band_amount")
    }
    given = sum(split.values())
    if paid and given != total:
        raise invalid(
            "The sum of credit amount, refund amount and out of band amount "
            f"({given}) must equal the post payment amount ({total}).",
            "amount",
        )
    if not paid and given:
        raise invalid("An open invoice has nothing to give back.", "refund_amount")
    earlier = [n for n in state.all("credit_note") if n["invoice"] == invoice["id"]]
    made = _new(state, invoice, lines, total, params, number=len(earlier) + 1, paid=paid)
    made["out_of_band_amount"] = split["out_of_band_amount"] if paid else None
    if split["refund_amount"]:
        refunded = _refund(state, invoice, split["refund_amount"])
        made["refunds"] = [
            {
                "amount_refunded": refunded["amount"],
                "payment_record_refund": None,
                "refund": refunded["id"],
                "type": "refund",
            }
        ]
    state.add(made)
    state.emit("credit_note.created", made)
    _apply(state, invoice, total, split["credit_amount"], paid=paid)
    return made


def _lines(state: State, invoice: Object, params: Params) -> list[Object]:
    known = {line["id"]: line for line in invoice["lines"]["data"]}
    made = []
    for number, given in enumerate(listing(params.get("lines"), "lines") or []):
        param = f"lines[{number}]"
        inside = mapping(given, param) or {}
        only(inside, _LINE, param)
        name = text(inside.get("invoice_line_item"), f"{param}[invoice_line_item]")
        if name is not None and name not in known:
            raise invalid(f"No such invoice line item: '{name}'", f"{param}[invoice_line_item]")
        count = integer(inside.get("quantity"), f"{param}[quantity]")
        each = integer(inside.get("unit_amount"), f"{param}[unit_amount]")
        total = amount(inside.get("amount"), f"{param}[amount]")
        if total is None and each is not None:
            total = each * (count or 1)
        if total is None and name is not None:
            line = known[name]
            total = line["amount"] * (count or line["quantity"]) // max(line["quantity"], 1)
        if total is None:
            raise required(f"{param}[amount]")
        of_line = known.get(name or "", {})
        made.append(_line(state, total, inside, of_line.get("description"), name))
    return made


def _line(state: State, total: int, given: Params, said: Any, name: str | None) -> Object:
    each = integer(given.get("unit_amount"), "unit_amount")
    return {
        "id": state.identify("cnli_1"),
        "object": "credit_note_line_item",
        "amount": total,
        "description": text(given.get("description"), "description") or said,
        "discount_amount": 0,
        "discount_amounts": [],
        "invoice_line_item": name,
        "livemode": False,
        "metadata": {},
        "pretax_credit_amounts": [],
        "quantity": integer(given.get("quantity"), "quantity"),
        "tax_rates": [],
        "taxes": [],
        "type": "invoice_line_item" if name else "custom_line_item",
        "unit_amount": each,
        "unit_amount_decimal": None if each is None else str(each),
    }


def _new(
    state: State,
    invoice: Object,
    lines: list[Object],
    total: int,
    params: Params,
    *,
    number: int,
    paid: bool,
) -> Object:
    name = state.identify("cn_1")
    return {
        "id": name,
        "object": "credit_note",
        "amount": total,
        "amount_shipping": 0,
        "created": state.now,
        "currency": invoice["currency"],
        "customer": invoice["customer"],
        "customer_account": None,
        "customer_balance_transaction": None,
        "discount_amount": 0,
        "discount_amounts": [],
        "effective_at": state.now,
        "invoice": invoice["id"],
        "lines": whole(lines, f"/v1/credit_notes/{name}/lines"),
        "livemode": False,
        "memo": text(params.get("memo"), "memo"),
        "metadata": merged({}, params),
        "number": f"{invoice['number']}-CN-{number:02}",
        "out_of_band_amount": None,
        "pdf": f"{invoice['hosted_invoice_url']}/pdf",
        "post_payment_amount": total if paid else 0,
        "pre_payment_amount": 0 if paid else total,
        "pretax_credit_amounts": [],
        "reason": text(params.get("reason"), "reason"),
        "refunds": [],
        "shipping_cost": None,
        "status": "issued",
        "subtotal": total,
        "subtotal_excluding_tax": total,
        "total": total,
        "total_excluding_tax": total,
        "total_taxes": [],
        "type": "post_payment" if paid else "pre_payment",
        "voided_at": None,
    }


def _refund(state: State, invoice: Object, wanted: int) -> Object:
    intent = state.objects.get(invoice["_intent"] or "")
    if intent is None or intent["status"] != "succeeded":
        raise invalid("The invoice has no charge to refund.", "refund_amount")
    return refunds.refund(state, state.get(intent["latest_charge"]), wanted, None)


def _apply(state: State, invoice: Object, total: int, credit: int, *, paid: bool) -> None:
    """Reduce what the invoice owes, or credit the customer's balance."""
    if paid:
        field = "post_payment_credit_notes_amount"
        state.change(invoice, **{field: invoice[field] + total})
        customer = state.get(invoice["customer"])
        state.change(customer, balance=customer["balance"] - credit)
        return
    field = "pre_payment_credit_notes_amount"
    due = invoice["amount_due"] - total
    fields = {field: invoice[field] + total, "amount_due": due, "amount_remaining": due}
    state.change(invoice, **fields)
    _owe(state, invoice, due)
    if not due:
        invoices.cancel_intent(state, invoice)
        invoices.settle(state, invoice)
        collection.paid(state, invoice)


def _owe(state: State, invoice: Object, due: int) -> None:
    if intent := state.objects.get(invoice["_intent"] or ""):
        intent["amount"] = due
    for payment in map(state.get, invoice["payments"]["data"]):
        if payment["status"] == "open":
            payment["amount_requested"] = due


def update(state: State, params: Params, name: str) -> Object:
    """POST /v1/credit_notes/{id}: memo and metadata."""
    found = state.find("credit_note", name)
    memo = text(params["memo"], "memo") if "memo" in params else found["memo"]
    state.change(found, memo=memo, metadata=merged(found["metadata"], params))
    return found


def void(state: State, params: Params, name: str) -> Object:
    """POST /v1/credit_notes/{id}/void: only while its invoice is open."""
    found = state.find("credit_note", name)
    invoice = state.get(found["invoice"])
    if found["status"] == "void":
        raise Refusal(400, "This credit note is already void.")
    if invoice["status"] != "open":
        raise Refusal(400, "You can only void a credit note of an open invoice.")
    fields = {"status": "void", "voided_at": state.now}
    state.change(found, "credit_note.voided", **fields)
    field, due = "pre_payment_credit_notes_amount", invoice["amount_due"] + found["amount"]
    change = {field: invoice[field] - found["amount"], "amount_due": due}
    state.change(invoice, **change, amount_remaining=due)
    _owe(state, invoice, due)
    return found


def list_notes(state: State, params: Params) -> list[Object]:
    """GET /v1/credit_notes."""
    return [
        item
        for item in state.all("credit_note")
        if params.get("customer") in (None, "", item["customer"])
        and params.get("invoice") in (None, "", item["invoice"])
        and within(item["created"], params.get("created"), "created")
    ]


def list_lines(state: State, params: Params, name: str) -> list[Object]:
    """GET /v1/credit_notes/{id}/lines."""
    return list(state.find("credit_note", name)["lines"]["data"])


ROUTES = (
    post("/v1/credit_notes", create, *_CREATE),
    pages("/v1/credit_notes", list_notes, "customer", "invoice"),
    get("/v1/credit_notes/{}", one("credit_note")),
    post("/v1/credit_notes/{}", update, "memo", "metadata"),
    pages("/v1/credit_notes/{}/lines", list_lines),
    post("/v1/credit_notes/{}/void", void),
)
