"""Invoices without a subscription: drafts are created, deleted and sent."""

from local.stripe.core.errors import Refusal, invalid, missing
from local.stripe.core.params import Params, boolean, integer, merged, need, one_of, text
from local.stripe.core.routes import delete, post
from local.stripe.core.state import State
from local.stripe.core.views import Object
from local.stripe.objects import collection, coupons, customers, invoice_items, invoices
from local.stripe.objects.subscriptions import collected, no_tax

_CREATE = (
    *("customer", "auto_advance", "collection_method", "days_until_due", "due_date", "currency"),
    *("description", "discounts", "footer", "metadata", "pending_invoice_items_behavior"),
    *("subscription", "default_payment_method", "automatic_tax", "automatically_finalizes_at"),
)


def create(state: State, params: Params) -> Object:
    """POST /v1/invoices: a draft of a customer's pending items, or an empty one."""
    customer = state.find("customer", need(params, "customer"), "customer")
    no_tax(params)
    method, days = _collected(state, params)
    name = text(params.get("subscription"), "subscription")
    sub = state.find("subscription", name, "subscription") if name else None
    if sub and sub["customer"] != customer["id"]:
        raise missing("subscription", sub["id"], "subscription")
    currency = (sub or {}).get("currency") or text(params.get("currency"), "currency")
    currency = (currency or customer["currency"] or "usd").lower()
    customers.one_currency(state, customer, currency)
    chosen = one_of("exclude", "include")(
        params.get("pending_invoice_items_behavior"), "pending_invoice_items_behavior"
    )
    lines: list[Object] = []
    if chosen == "include" or sub:
        lines = invoice_items.waiting(state, customer, currency, name)
    if sub:
        lines, sub["_lines"] = sub["_lines"] + lines, []
        if not lines:
            raise Refusal(
                400,
                "Nothing to invoice for subscription",
                code="invoice_no_subscription_line_items",
            )
    asked = coupons.read(state, params, customer, subscription=None, currency=currency)
    discounts = asked if "discounts" in params else None
    made = invoices.build(
        state,
        customer,
        lines,
        reason="subscription_update" if sub else "manual",
        currency=currency,
        subscription=sub,
        discounts=discounts,
    )
    coupons.redeem(state, asked)
    advance = bool(boolean(params.get("auto_advance"), "auto_advance"))
    at = integer(params.get("automatically_finalizes_at"), "automatically_finalizes_at")
    at = at or (state.now + state.rules.draft_seconds if advance else None)
    made |= {
        "auto_advance": advance,
        "automatically_finalizes_at": at,
        "collection_method": method,
        "default_payment_method": _method(state, customer, params),
        "description": text(params.get("description"), "description"),
        "due_date": integer(params.get("due_date"), "due_date"),
        "footer": text(params.get("footer"), "footer"),
        "metadata": merged({}, params),
        "_days_until_due": days,
    }
    invoices.draft(state, made)
    invoice_items.attach(state, made)
    state.wake(made, at)
    return made


def _collected(state: State, params: Params) -> tuple[str, int | None]:
    due = integer(params.get("due_date"), "due_date")
    if due is None:
        return collected(params)
    if params.get("collection_method") != "send_invoice" or params.get("days_until_due"):
        raise invalid(
            "You can only set `due_date` without `days_until_due`, if `collection_method` is "
            "`send_invoice`.",
            "due_date",
        )
    if due <= state.now:
        raise invalid("Invalid timestamp: due_date must be in the future.", "due_date")
    return "send_invoice", None


def _method(state: State, customer: Object, params: Params) -> str | None:
    wanted = text(params.get("default_payment_method"), "default_payment_method")
    if wanted is None:
        return None
    return str(customers.usable(state, wanted, customer, "default_payment_method")["id"])


def remove(state: State, params: Params, name: str) -> Object:
    """DELETE /v1/invoices/{id}: only a draft of no subscription; its items wait again."""
    invoice = state.find("invoice", name)
    if invoice.get("_deleted"):
        raise missing("invoice", name)
    if invoice["status"] != "draft" or invoices.subscription_of(invoice):
        raise Refusal(400, "You can only delete draft invoices that are not of a subscription.")
    for item in state.all("invoiceitem"):
        if item["invoice"] == name:
            item["invoice"] = None
    invoice["_deleted"] = True
    state.wake(invoice, None)
    state.emit("invoice.deleted", invoice)
    return {"id": name, "object": "invoice", "deleted": True}


def send(state: State, params: Params, name: str) -> Object:
    """POST /v1/invoices/{id}/send: finalize it and e-mail it to the customer."""
    invoice = state.find("invoice", name)
    if invoice["status"] == "draft":
        invoices.finalize(state, invoice)
        if not invoice["amount_due"]:
            collection.collect(state, invoice)
    if invoice["status"] not in ("open", "uncollectible", "paid"):
        raise Refusal(400, f"You can't send an invoice that is {invoice['status']}.")
    state.emit("invoice.sent", invoice)
    return invoice


ROUTES = (
    post("/v1/invoices", create, *_CREATE),
    delete("/v1/invoices/{}", remove),
    post("/v1/invoices/{}/send", send),
)
