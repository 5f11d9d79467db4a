"""Invoices: lines, totals, and the way from draft to open, paid, void or uncollectible.

What an invoice means for its subscription is decided in `collection`.
"""

from collections.abc import Sequence
from decimal import Decimal

from kyora.money import decimals_at_stripe
from local.stripe.core.dates import DAY, words
from local.stripe.core.errors import Refusal
from local.stripe.core.params import Params
from local.stripe.core.routes import get, one, pages
from local.stripe.core.state import State
from local.stripe.core.views import Object, whole, within
from local.stripe.objects import catalogue, coupons


def price_line(
    state: State,
    item: Object,
    period: tuple[int, int],
    *,
    trial: bool = False,
    part: tuple[int, str] | None = None,
) -> Object:
    """Return the line of a subscription's item for a period.

    `part` is the amount and the words of a line that is not for the whole period (a proration).
    """
    price, quantity = state.get(item["price"]), item["quantity"]
    name = state.get(price["product"])["name"]
    amount = 0 if trial else catalogue.cost(price, quantity)
    said = f"{quantity} \u00d7 {name} (at {_each(price)})"
    if trial:
        said = f"Trial period for {name}"
    if part is not None:
        amount, said = part
    return {
        "id": state.identify("il_1"),
        "object": "line_item",
        "amount": amount,
        "currency": price["currency"],
        "description": said,
        "discount_amounts": [],
        "discountable": part is None,
        "discounts": [],
        "invoice": None,
        "livemode": False,
        "metadata": {},
        "parent": {
            "invoice_item_details": None,
            "subscription_item_details": {
                "invoice_item": state.identify("ii_1") if part is not None else None,
                "proration": part is not None,
                "proration_details": {"credited_items": None},
                "subscription": item["subscription"],
                "subscription_item": item["id"],
            },
            "type": "subscription_item_details",
        },
        "period": {"end": period[1], "start": period[0]},
        "pretax_credit_amounts": [],
        "pricing": {
            "price_details": {"price": price["id"], "product": price["product"]},
            "type": "price_details",
            "unit_amount_decimal": price["unit_amount_decimal"],
        },
        "quantity": quantity,
        "quantity_decimal": str(quantity),
        "subtotal": amount,
        "taxes": [],
    }


def _each(price: Object) -> str:
    recurring = price["recurring"]
    count, interval = recurring["interval_count"], recurring["interval"]
    every = interval if count == 1 else f"{count} {interval}s"
    return f"{money(price['unit_amount'] or 0, price['currency'])} / {every}"


_SIGNS = {"usd": "$", "eur": "€", "gbp": "£"}


def money(amount: int, currency: str) -> str:
    """Return an amount in minor units as a person reads it."""
    places = decimals_at_stripe(currency.upper())
    number = f"{abs(amount) / 10**places:,.{places}f}"
    sign = "-" if amount < 0 else ""
    if known := _SIGNS.get(currency):
        return f"{sign}{known}{number}"
    return f"{sign}{number} {currency.upper()}"


def prorated(state: State, item: Object, period: tuple[int, int], at: int, sign: int) -> Object:
    """Return a line for what is left of a period: sign -1 credits it, 1 charges it."""
    start, end = period
    price, quantity = state.get(item["price"]), item["quantity"]
    share = Decimal(end - at) / Decimal(max(end - start, 1))
    full = coupons.net(state, item, catalogue.cost(price, quantity), credit=sign < 0)
    amount = catalogue.whole(full * share) * sign
    name = state.get(price["product"])["name"]
    said = f"{'Unused' if sign < 0 else 'Remaining'} time on {name} after {words(at)}"
    return price_line(state, item, (at, end), part=(amount, said))


def build(
    state: State,
    customer: Object,
    lines: list[Object],
    *,
    reason: str,
    currency: str,
    subscription: Object | None = None,
    period: tuple[int, int] | None = None,
    identity: str | None = None,
    discounts: Sequence[Object] | None = None,
) -> Object:
    """Return a draft with these lines; it is not stored yet.

    `discounts` are those of the invoice alone; without them the subscription's own count.
    """
    name = identity or state.identify("in_1")
    if discounts is None:
        discounts = coupons.active(state, subscription["discounts"]) if subscription else []
    start, end = period or (state.now, state.now)
    made: Object = {
        "id": name,
        "object": "invoice",
        "account_country": "US",
        "account_name": "Kyora (stand-in)",
        "account_tax_ids": None,
        "amount_due": 0,
        "amount_overpaid": 0,
        "amount_paid": 0,
        "amount_paid_off_stripe": 0,
        "amount_remaining": 0,
        "amount_shipping": 0,
        "application": None,
        "attempt_count": 0,
        "attempted": False,
        "auto_advance": True,
        "automatic_tax": {
            "disabled_reason": None,
            "enabled": False,
            "liability": None,
            "provider": None,
            "status": None,
        },
        "automatically_finalizes_at": None,
        "billing_reason": reason,
        "collection_method": "charge_automatically",
        "confirmation_secret": None,
        "created": state.now,
        "currency": currency,
        "custom_fields": None,
        "customer": customer["id"],
        "customer_account": None,
        "customer_address": customer["address"],
        "customer_email": customer["email"],
        "customer_name": customer["name"],
        "customer_phone": customer["phone"],
        "customer_shipping": None,
        "customer_tax_exempt": customer["tax_exempt"],
        "customer_tax_ids": [],
        "default_payment_method": None,
        "default_source": None,
        "default_tax_rates": [],
        "description": None,
        "discounts": [discount["id"] for discount in discounts],
        "due_date": None,
        "effective_at": None,
        "ending_balance": None,
        "footer": None,
        "from_invoice": None,
        "hosted_invoice_url": None,
        "invoice_pdf": None,
        "issuer": {"type": "self"},
        "last_finalization_error": None,
        "latest_revision": None,
        "lines": whole([], f"/v1/invoices/{name}/lines"),
        "livemode": False,
        "metadata": {},
        "next_payment_attempt": None,
        "number": None,
        "on_behalf_of": None,
        "parent": None,
        "payment_settings": {
            "default_mandate": None,
            "payment_method_options": None,
            "payment_method_types": None,
        },
        "payments": whole([], f"/v1/invoice_payments?invoice={name}"),
        "period_end": end,
        "period_start": start,
        "post_payment_credit_notes_amount": 0,
        "pre_payment_credit_notes_amount": 0,
        "receipt_number": None,
        "rendering": None,
        "shipping_cost": None,
        "shipping_details": None,
        "starting_balance": customer["balance"],
        "statement_descriptor": None,
        "status": "draft",
        "status_details": None,
        "status_transitions": {
            "finalized_at": None,
            "marked_uncollectible_at": None,
            "paid_at": None,
            "voided_at": None,
        },
        "subtotal": 0,
        "subtotal_excluding_tax": 0,
        "test_clock": customer.get("test_clock"),
        "total": 0,
        "total_discount_amounts": [],
        "total_excluding_tax": 0,
        "total_pretax_credit_amounts": [],
        "total_taxes": [],
        "webhooks_delivered_at": state.now,
        "_intent": None,
    }
    if subscription is not None:
        made["parent"] = {
            "quote_details": None,
            "subscription_details": {
                "metadata": dict(subscription["metadata"]),
                "subscription": subscription["id"],
            },
            "type": "subscription_details",
        }
    bill(state, made, lines, discounts)
    return made


def bill(state: State, invoice: Object, lines: list[Object], discounts: Sequence[Object]) -> None:
    """Set a draft's lines and recompute its totals."""
    for line in lines:
        line |= {"invoice": invoice["id"], "discount_amounts": [], "discounts": []}
    totals = coupons.spread(state, lines, list(discounts))
    subtotal = sum(line["amount"] for line in lines)
    total = subtotal - sum(each["amount"] for each in totals)
    invoice |= {
        "lines": invoice["lines"] | {"data": lines, "total_count": len(lines)},
        "subtotal": subtotal,
        "subtotal_excluding_tax": subtotal,
        "total": total,
        "total_discount_amounts": totals,
        "total_excluding_tax": total,
    }
    invoice |= _due(invoice)


def worth(state: State, lines: list[Object], discounts: Sequence[Object]) -> int:
    """Return the total of lines after discounts, changing neither."""
    tried = [{**line, "discount_amounts": [], "discounts": []} for line in lines]
    taken = coupons.spread(state, tried, list(discounts))
    return sum(int(line["amount"]) for line in lines) - sum(int(t["amount"]) for t in taken)


def _due(invoice: Object) -> Object:
    """Return the amounts after the customer's balance: a credit is negative, a debt positive."""
    due = max(0, invoice["total"] + invoice["starting_balance"])
    return {"amount_due": due, "amount_remaining": due}


def draft(state: State, invoice: Object) -> Object:
    """Store a draft and emit its creation."""
    customer = state.get(invoice["customer"])
    state.add(invoice)
    state.emit("invoice.created", invoice)
    if customer["currency"] is None:
        state.change(customer, currency=invoice["currency"])
    return invoice


def subscription_of(invoice: Object) -> str | None:
    """Return the id of the subscription an invoice bills."""
    parent = invoice["parent"]
    found = parent["subscription_details"]["subscription"] if parent else None
    return None if found is None else str(found)


def finalize(state: State, invoice: Object) -> None:
    """Open a draft: number it, apply the customer's balance, and make its payment."""
    if invoice["status"] != "draft":
        raise Refusal(
            400, "This invoice is already finalized, you can't re-finalize a non-draft invoice."
        )
    customer = state.get(invoice["customer"])
    number = customer["next_invoice_sequence"]
    customer["next_invoice_sequence"] = number + 1
    page = f"{state.url}/i/{invoice['id']}_{state.random(16)}"
    balance = customer["balance"]
    invoice["starting_balance"] = balance
    left = balance + invoice["total"]
    # Unused credit stays on the balance; a negative total is added to it.
    invoice |= _due(invoice) | {
        "automatically_finalizes_at": None,
        "effective_at": state.now,
        "ending_balance": min(0, left),
        "hosted_invoice_url": page,
        "invoice_pdf": f"{page}/pdf",
        "number": f"{customer['invoice_prefix']}-{number:04}",
        "status": "open",
        "status_transitions": invoice["status_transitions"] | {"finalized_at": state.now},
    }
    state.wake(invoice, None)
    if invoice["collection_method"] == "send_invoice":
        days = invoice.get("_days_until_due")
        invoice["due_date"] = invoice["due_date"] if days is None else state.now + days * DAY
        state.wake(invoice, invoice["due_date"] if invoice["amount_due"] else None)
    if invoice["amount_due"]:
        _pay_by(state, invoice, customer)
    state.emit("invoice.finalized", invoice)
    if invoice["ending_balance"] != balance:
        state.change(customer, balance=invoice["ending_balance"])


def _pay_by(state: State, invoice: Object, customer: Object) -> None:
    intent = state.add(_intent(state, invoice, customer))
    invoice["_intent"] = intent["id"]
    invoice["confirmation_secret"] = {
        "client_secret": intent["client_secret"],
        "type": "payment_intent",
    }
    payment = {
        "id": state.identify("inpay_1"),
        "object": "invoice_payment",
        "amount_paid": None,
        "amount_requested": invoice["amount_due"],
        "created": state.now,
        "currency": invoice["currency"],
        "invoice": invoice["id"],
        "is_default": True,
        "livemode": False,
        "payment": {"payment_intent": intent["id"], "type": "payment_intent"},
        "status": "open",
        "status_transitions": {"canceled_at": None, "paid_at": None},
    }
    state.add(payment)
    invoice["payments"]["data"].append(payment["id"])
    invoice["payments"]["total_count"] = 1
    state.emit("payment_intent.created", intent)


def _intent(state: State, invoice: Object, customer: Object) -> Object:
    name = state.identify("pi_3")
    return {
        "id": name,
        "object": "payment_intent",
        "amount": invoice["amount_due"],
        "amount_capturable": 0,
        "amount_details": {"tip": {}},
        "amount_received": 0,
        "application": None,
        "automatic_payment_methods": None,
        "canceled_at": None,
        "cancellation_reason": None,
        "capture_method": "automatic",
        "client_secret": f"{name}_secret_{state.random(25)}",
        "confirmation_method": "automatic",
        "created": state.now,
        "currency": invoice["currency"],
        "customer": customer["id"],
        "customer_account": None,
        "description": f"Invoice {invoice['number']}",
        "last_payment_error": None,
        "latest_charge": None,
        "livemode": False,
        "metadata": {},
        "next_action": None,
        "on_behalf_of": None,
        "payment_method": None,
        "payment_method_options": {"card": {"request_three_d_secure": "automatic"}},
        "payment_method_types": ["card"],
        "processing": None,
        "receipt_email": None,
        "review": None,
        "setup_future_usage": "off_session",
        "shipping": None,
        "source": None,
        "statement_descriptor": None,
        "status": "requires_payment_method",
        "transfer_data": None,
        "transfer_group": None,
        "_invoice": invoice["id"],
    }


def settle(
    state: State, invoice: Object, *, outside: bool = False, attempts: int | None = None
) -> None:
    """Mark an open invoice paid and emit the events that Stripe emits."""
    due = invoice["amount_due"]
    fields: Object = {
        "amount_paid": due,
        "amount_paid_off_stripe": due if outside else 0,
        "amount_remaining": 0,
        "attempt_count": invoice["attempt_count"] if attempts is None else attempts,
        "attempted": True,
        "auto_advance": False,
        "next_payment_attempt": None,
        "status": "paid",
        "status_transitions": invoice["status_transitions"] | {"paid_at": state.now},
    }
    if invoice["status"] == "uncollectible":
        fields["status_details"] = None
    state.wake(invoice, None)
    for payment in map(state.get, invoice["payments"]["data"]):
        if payment["status"] == "open":
            when = payment["status_transitions"] | {"paid_at": state.now}
            payment |= {"status": "paid", "amount_paid": due, "status_transitions": when}
            state.emit("invoice_payment.paid", payment)
    state.change(invoice, **fields)
    state.emit("invoice.paid", invoice)
    state.emit("invoice.payment_succeeded", invoice)


def close(state: State, invoice: Object, status: str) -> None:
    """Void an open invoice, or mark it uncollectible."""
    moment = {"void": "voided_at", "uncollectible": "marked_uncollectible_at"}[status]
    fields: Object = {
        "auto_advance": False,
        "next_payment_attempt": None,
        "status": status,
        "status_transitions": invoice["status_transitions"] | {moment: state.now},
    }
    if status == "void":
        fields["amount_remaining"] = 0
        cancel_intent(state, invoice)
    state.wake(invoice, None)
    state.change(invoice, **fields)
    used = (invoice["ending_balance"] or 0) - invoice["starting_balance"]
    if status == "void" and used:  # the credit it used returns to the customer's balance
        customer = state.get(invoice["customer"])
        state.change(customer, balance=customer["balance"] - used)
    state.emit("invoice.voided" if status == "void" else "invoice.marked_uncollectible", invoice)


def cancel_intent(state: State, invoice: Object) -> None:
    """Cancel the payment intent of an invoice that is no longer payable."""
    intent = state.objects.get(invoice["_intent"] or "")
    if intent is None or intent["status"] in ("succeeded", "canceled"):
        return
    fields = {"status": "canceled", "canceled_at": state.now, "next_action": None}
    intent |= fields | {"cancellation_reason": "void_invoice"}
    state.emit("payment_intent.canceled", intent)
    for payment in map(state.get, invoice["payments"]["data"]):
        when = payment["status_transitions"] | {"canceled_at": state.now}
        payment |= {"status": "canceled", "status_transitions": when}


# ---- what the API lists


def list_invoices(state: State, params: Params) -> list[Object]:
    """GET /v1/invoices."""
    return [
        item
        for item in state.all("invoice")
        if params.get("customer") in (None, "", item["customer"])
        and params.get("status") in (None, "", item["status"])
        and params.get("subscription") in (None, "", subscription_of(item))
        and params.get("collection_method") in (None, "", item["collection_method"])
        and within(item["created"], params.get("created"), "created")
    ]


def list_lines(state: State, params: Params, name: str) -> list[Object]:
    """GET /v1/invoices/{id}/lines."""
    return list(state.find("invoice", name)["lines"]["data"])


def list_payments(state: State, params: Params) -> list[Object]:
    """GET /v1/invoice_payments."""
    wanted = params.get("payment") or {}
    return [
        item
        for item in state.all("invoice_payment")
        if params.get("invoice") in (None, "", item["invoice"])
        and params.get("status") in (None, "", item["status"])
        and wanted.get("payment_intent") in (None, "", item["payment"]["payment_intent"])
        and within(item["created"], params.get("created"), "created")
    ]


ROUTES = (
    pages(
        "/v1/invoices",
        list_invoices,
        *("customer", "status", "subscription", "collection_method"),
    ),
    get("/v1/invoices/{}", one("invoice")),
    pages("/v1/invoices/{}/lines", list_lines),
    pages("/v1/invoice_payments", list_payments, "invoice", "status", "payment"),
    get("/v1/invoice_payments/{}", one("invoice_payment")),
)
