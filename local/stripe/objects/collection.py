"""Collect invoices: charge a card, and apply the outcome to the subscription."""

from local.stripe.core.dates import DAY, following
from local.stripe.core.errors import Refusal
from local.stripe.core.params import Params, boolean, merged, text, values
from local.stripe.core.routes import get, one, pages, post
from local.stripe.core.state import State
from local.stripe.core.views import Object
from local.stripe.objects import cards, customers, invoices

_UNATTACHED = (
    "This customer has no attached payment source or default payment method. Please consider "
    "adding a default payment method. For more information, visit https://stripe.com/docs/billing/"
    "subscriptions/payment-methods-setting#payment-method-priority."
)
AUTHENTICATE = cards.declined(
    "authentication_required",
    "authentication_required",
    cards.MESSAGES["authentication_required"],
)


def no_method() -> Refusal:
    """Return the refusal to charge a customer who has given no card."""
    return Refusal(400, _UNATTACHED, code="resource_missing")


def verdict(method: Object, *, present: bool) -> Refusal | str | None:
    """Return the outcome of a charge: None is paid, "challenge" waits for 3D Secure.

    `present` says that the cardholder has just authenticated.
    """
    card = cards.named(method["_card"])
    needed = card.challenge == "always" or (card.challenge and not method["_authenticated"])
    if needed and not present:
        return "challenge"
    return cards.refuse(card) if card.decline else None


def collect(
    state: State,
    invoice: Object,
    *,
    method: Object | None = None,
    automatic: bool = False,
    asked: bool = False,
) -> Refusal | None:
    """Try to pay an open invoice; return why it is not paid, or None.

    `automatic` is an attempt by the schedule: only those count after the first. An invoice that is
    sent is charged only when `asked`.
    """
    if not invoice["amount_due"]:
        invoices.settle(state, invoice)
        paid(state, invoice)
        return None
    if invoice["collection_method"] == "send_invoice" and not asked:
        return None  # the customer pays it by hand
    customer = state.get(invoice["customer"])
    name = invoices.subscription_of(invoice)
    chosen = state.objects.get(name) if name else invoice
    method = method or customers.default_method(state, customer, chosen)
    if method is None:
        refusal = no_method()
        _failed(state, invoice, automatic=automatic)
        return refusal
    return charge(state, invoice, method, automatic=automatic)


def charge(
    state: State,
    invoice: Object,
    method: Object,
    *,
    present: bool = False,
    automatic: bool = False,
) -> Refusal | None:
    """Charge a payment method for an invoice; return why it is not paid, or None."""
    intent = state.get(invoice["_intent"])
    found = verdict(method, present=present)
    if found == "challenge":
        _challenge(state, invoice, intent, method, automatic=automatic)
        return AUTHENTICATE
    if isinstance(found, Refusal):
        _decline(state, invoice, intent, method, found)
        _failed(state, invoice, automatic=automatic)
        return found
    if present:
        method["_authenticated"] = True
    receipt = state.add(_receipt(state, intent, method, None))
    intent |= {
        "status": "succeeded",
        "amount_received": intent["amount"],
        "latest_charge": receipt["id"],
        "last_payment_error": None,
        "next_action": None,
        "payment_method": method["id"],
    }
    state.emit("charge.succeeded", receipt)
    state.emit("payment_intent.succeeded", intent)
    counted = automatic or not invoice["attempt_count"]
    invoices.settle(state, invoice, attempts=invoice["attempt_count"] + counted)
    paid(state, invoice)
    return None


def _receipt(state: State, intent: Object, method: Object, refusal: Refusal | None) -> Object:
    error = refusal.body["error"] if refusal else {}
    return {
        "id": state.identify("ch_3"),
        "object": "charge",
        "amount": intent["amount"],
        "amount_captured": 0 if refusal else intent["amount"],
        "amount_refunded": 0,
        "billing_details": customers.summary(method)["billing_details"],
        "captured": refusal is None,
        "created": state.now,
        "currency": intent["currency"],
        "customer": intent["customer"],
        "description": intent["description"],
        "disputed": False,
        "failure_code": error.get("code"),
        "failure_message": error.get("message"),
        "livemode": False,
        "metadata": {},
        "outcome": {
            "network_status": "declined_by_network" if refusal else "approved_by_network",
            "reason": error.get("decline_code"),
            "seller_message": "The bank declined it." if refusal else "Payment complete.",
            "type": "issuer_declined" if refusal else "authorized",
        },
        "paid": refusal is None,
        "payment_intent": intent["id"],
        "payment_method": method["id"],
        "payment_method_details": {
            "card": _charged_card(method),
            "type": "card",
        },
        "receipt_url": None,
        "refunded": False,
        "status": "failed" if refusal else "succeeded",
    }


def _charged_card(method: Object) -> Object:
    """Return a card as a charge shows it: not all of what its payment method has."""
    card: Object = customers.summary(method)["card"]
    hidden = ("display_brand", "generated_from", "networks", "three_d_secure_usage")
    return {name: value for name, value in card.items() if name not in hidden} | {
        "installments": None,
        "mandate": None,
        "network": card["brand"],
        "three_d_secure": None,
    }


def _decline(
    state: State, invoice: Object, intent: Object, method: Object, refusal: Refusal
) -> None:
    receipt = state.add(_receipt(state, intent, method, refusal))
    error = refusal.body["error"] | {"charge": receipt["id"]}
    intent |= {
        "status": "requires_payment_method",
        "latest_charge": receipt["id"],
        "last_payment_error": error | {"payment_method": customers.summary(method)},
        "next_action": None,
        "payment_method": None,
    }
    state.emit("charge.failed", receipt)
    state.emit("payment_intent.payment_failed", intent)


def _challenge(
    state: State, invoice: Object, intent: Object, method: Object, *, automatic: bool
) -> None:
    intent |= {
        "status": "requires_action",
        "payment_method": method["id"],
        "next_action": {
            "redirect_to_url": {
                "return_url": intent.get("_return_url"),
                "url": f"{state.url}/3ds/{intent['client_secret']}",
            },
            "type": "redirect_to_url",
        },
    }
    state.emit("payment_intent.requires_action", intent)
    _failed(state, invoice, automatic=automatic, action=True)


def _failed(state: State, invoice: Object, *, automatic: bool, action: bool = False) -> None:
    """Schedule the next attempt, emit the failure, and update the subscription."""
    first = not invoice["attempt_count"]
    tries = invoice["attempt_count"] + (automatic or first)
    fields: Object = {"attempted": True, "attempt_count": tries}
    retries = invoice["billing_reason"] != "subscription_create" and invoice["auto_advance"]
    last = False
    if automatic or first:
        planned = state.rules.retry_days[tries - 1 : tries] if retries else ()
        when = state.now + planned[0] * DAY if planned else None
        fields["next_payment_attempt"] = when
        state.wake(invoice, when)
        last = retries and not planned
    state.change(invoice, **fields)
    state.emit("invoice.payment_failed", invoice)
    if action:
        state.emit("invoice.payment_action_required", invoice)
    _delinquent(state, invoice, delinquent=True)
    sub = _subscription(state, invoice)
    if sub is not None and retries:
        if sub["status"] in ("active", "trialing"):
            state.change(sub, status="past_due")
            renewal = invoice["billing_reason"] == "subscription_cycle"
            if first and renewal and state.rules.pause_first:
                _pause(state, sub, invoice, "first_payment_failure")
        if last and sub["status"] == "past_due":
            _give_up(state, sub, invoice)


def _give_up(state: State, sub: Object, invoice: Object) -> None:
    final = state.rules.final
    if final == "pause" and not _pause(state, sub, invoice, "final_payment_failure"):
        final = "cancel"
    if final == "cancel":
        end(state, sub, "payment_failed")
    elif final == "unpaid":
        state.change(sub, status="unpaid")


def _pause(state: State, sub: Object, invoice: Object, why: str) -> bool:
    """Pause a subscription whose payment failed; return whether it can be paused.

    Its invoice can still be paid, and the subscription goes on when it is.
    https://docs.stripe.com/billing/revenue-recovery/smart-retries/pause-on-payment-failure
    """
    if sub["billing_mode"]["type"] != "flexible" or sub["pending_update"]:
        return False
    if sub["collection_method"] != "charge_automatically":
        return False
    sub["_paused_by"] = invoice["id"]
    cause: Object = {"subscription": {"type": why}, "type": "subscription"}
    details = {"paused": cause | {"transitioned_at": state.now}}
    state.change(sub, status="paused", status_details=details)
    state.emit("customer.subscription.paused", sub)
    reschedule(state, sub)
    return True


def _recover(state: State, sub: Object, invoice: Object) -> bool:
    """Resume a subscription that this invoice paused, once it is paid or written off.

    It continues in the current period. The rest of that period is billed with the next invoice,
    unless it is the one that was paid.
    """
    if sub["status"] != "paused":
        return False
    cause = sub["status_details"]["paused"]
    if not str(cause["subscription"]["type"]).endswith("_payment_failure"):
        return False
    if sub["_paused_by"] != invoice["id"] or invoice["status"] not in ("paid", "uncollectible"):
        return False
    items = [dict(item) for item in sub["items"]["data"]]
    lines = []
    for item in items:
        every = state.get(item["price"])["recurring"]
        begun, ends = item["current_period_start"], item["current_period_end"]
        while ends <= state.now:
            begun = ends
            ends = following(
                sub["billing_cycle_anchor"], begun, every["interval"], every["interval_count"]
            )
        if begun != item["current_period_start"]:
            item |= {"current_period_start": begun, "current_period_end": ends}
            lines.append(invoices.prorated(state, item, (begun, ends), state.now, 1))
    sub["_lines"] = sub["_lines"] + [line for line in lines if line["amount"]]
    items_now = sub["items"] | {"data": items}
    state.change(sub, status="active", status_details=None, items=items_now)
    state.emit("customer.subscription.resumed", sub)
    reschedule(state, sub)
    return True


def _delinquent(state: State, invoice: Object, *, delinquent: bool) -> None:
    if invoice["billing_reason"] != "subscription_create":
        state.change(state.get(invoice["customer"]), delinquent=delinquent)


def _subscription(state: State, invoice: Object) -> Object | None:
    name = invoices.subscription_of(invoice)
    return state.get(name) if name else None


def paid(state: State, invoice: Object) -> None:
    """Reactivate a subscription when its latest invoice is paid or void."""
    _delinquent(state, invoice, delinquent=False)
    sub = _subscription(state, invoice)
    if sub is None or sub["ended_at"] is not None or _recover(state, sub, invoice):
        return
    if sub["latest_invoice"] != invoice["id"]:
        return
    fields: Object = {}
    if sub["status"] in ("incomplete", "past_due", "unpaid"):
        fields["status"] = "active"
    if sub["pending_update"] and invoice["id"] == sub["_pending"]["invoice"]:
        # Voiding its invoice takes a pending update back.
        fields |= sub["_pending"]["fields"] if invoice["status"] == "paid" else {}
        fields["pending_update"] = None
    resuming = sub.get("_resuming")
    resumes = bool(resuming and resuming["invoice"] == invoice["id"])
    if resuming and resumes:
        sub["_resuming"] = sub["_resuming_until"] = None
        if invoice["status"] == "paid":
            fields |= resuming["fields"]
        else:  # void: it stays paused, and its credits wait for the next invoice
            resumes = False
            credits_ = [line for line in invoice["lines"]["data"] if line["amount"] < 0]
            fields["_lines"] = credits_
    intent = state.objects.get(invoice["_intent"] or "")
    saving = (sub["payment_settings"] or {}).get("save_default_payment_method")
    if intent and saving == "on_subscription" and sub["default_payment_method"] is None:
        fields["default_payment_method"] = intent["payment_method"]
    state.change(sub, **fields)
    if resumes:
        state.emit("customer.subscription.resumed", sub)
    reschedule(state, sub)


def end(state: State, sub: Object, reason: str, **details: str | None) -> None:
    """Cancel a subscription now, for good, and stop collecting its invoices."""
    sub |= {
        "status": "canceled",
        "canceled_at": sub["canceled_at"] or state.now,
        "ended_at": state.now,
        "cancellation_details": sub["cancellation_details"]
        | {name: value for name, value in details.items() if value is not None}
        | {"reason": reason},
        "pending_update": None,
    }
    state.wake(sub, None)
    schedule = state.objects.get(sub["schedule"] or "")
    if schedule is not None and schedule["status"] == "active":
        sub["_planned"] = None
        schedule |= {"canceled_at": state.now, "current_phase": None, "status": "canceled"}
        state.emit("subscription_schedule.canceled", schedule)
    state.emit("customer.subscription.deleted", sub)
    for invoice in state.all("invoice"):
        if invoices.subscription_of(invoice) == sub["id"] and invoice["status"] in (
            "draft",
            "open",
        ):
            state.wake(invoice, None)
            state.change(invoice, auto_advance=False, next_payment_attempt=None)


def expire(state: State, sub: Object) -> None:
    """End a subscription whose first payment never came."""
    invoice = state.objects.get(sub["latest_invoice"] or "")
    if invoice is not None and invoice["status"] == "open":
        invoices.close(state, invoice, "void")
    state.wake(sub, None)
    state.change(sub, status="incomplete_expired", ended_at=state.now)


def reschedule(state: State, sub: Object) -> None:
    """Schedule a subscription's next automatic action."""
    state.wake(sub, due(state, sub))


NOTICE = 3 * DAY  # how long before its end a trial is announced
FIRST_PAYMENT_SECONDS = 23 * 3600  # how long an incomplete subscription waits for its first payment


def due(state: State, sub: Object) -> int | None:
    """Return when a subscription's next automatic action is due; None is never."""
    if sub["status"] in ("canceled", "incomplete_expired"):
        return None
    moments = [sub["cancel_at"], sub.get("_pending_until"), sub.get("_resuming_until")]
    moments += _planned(state, sub)
    if sub["status"] == "incomplete":
        moments = [sub["created"] + FIRST_PAYMENT_SECONDS]
    elif sub["status"] == "trialing":
        moments += [sub["trial_end"]]
        moments += [] if sub["_announced"] else [sub["trial_end"] - NOTICE]
    elif sub["status"] != "paused":
        moments += [min(item["current_period_end"] for item in sub["items"]["data"])]
    if sub["pause_collection"]:
        moments += [sub["pause_collection"]["resumes_at"]]
    known = [moment for moment in moments if moment is not None]
    return min(known) if known else None


def _planned(state: State, sub: Object) -> list[int | None]:
    """Return when a subscription's schedule acts: a phase ends, a pause or a resume is due."""
    schedule = state.objects.get(sub["schedule"] or "")
    moments: list[int | None] = []
    if schedule and schedule["current_phase"] and sub["status"] != "paused":
        moments.append(schedule["current_phase"]["end_date"])
    if plan := sub.get("_planned"):
        moments.append(None if plan["paused"] else plan["pause_at"])
        moments.append(plan["resume_at"] if plan["paused"] and not plan["resumed"] else None)
    return moments


# ---- the API


def pay_invoice(state: State, params: Params, name: str) -> Object:
    """POST /v1/invoices/{id}/pay: 402 when the card refuses."""
    invoice = state.find("invoice", name)
    if invoice["status"] == "draft":
        invoices.finalize(state, invoice)
    if invoice["status"] == "paid":
        raise Refusal(400, "Invoice is already paid")
    if invoice["status"] == "void":
        raise Refusal(400, "You can't pay an invoice that is void.", code="invoice_not_editable")
    if boolean(params.get("paid_out_of_band"), "paid_out_of_band"):
        invoices.cancel_intent(state, invoice)
        invoices.settle(state, invoice, outside=True)
        paid(state, invoice)
        return invoice
    method = None
    if wanted := text(params.get("payment_method"), "payment_method"):
        customer = state.get(invoice["customer"])
        method = customers.usable(state, wanted, customer, "payment_method")
    if refusal := collect(state, invoice, method=method, asked=True):
        raise _of_invoice(state, invoice, refusal)
    return invoice


def _of_invoice(state: State, invoice: Object, refusal: Refusal) -> Refusal:
    if refusal is not AUTHENTICATE:
        return refusal
    return Refusal(
        402,
        "This payment requires additional user action before it can be completed successfully. "
        "Payment can be completed using the PaymentIntent associated with the invoice.",
        kind="card_error",
        code="invoice_payment_intent_requires_action",
    )


def finalize_invoice(state: State, params: Params, name: str) -> Object:
    """POST /v1/invoices/{id}/finalize."""
    invoice = state.find("invoice", name)
    invoices.finalize(state, invoice)
    if not invoice["amount_due"]:
        collect(state, invoice)
    return invoice


def void_invoice(state: State, params: Params, name: str) -> Object:
    """POST /v1/invoices/{id}/void."""
    invoice = state.find("invoice", name)
    if invoice["status"] not in ("open", "uncollectible"):
        raise Refusal(400, f"You can't void an invoice that is {invoice['status']}.")
    invoices.close(state, invoice, "void")
    sub = _subscription(state, invoice)
    if sub is not None and sub["status"] == "incomplete":
        expire(state, sub)
    else:
        paid(state, invoice)  # nothing is owed any longer
    return invoice


def mark_uncollectible(state: State, params: Params, name: str) -> Object:
    """POST /v1/invoices/{id}/mark_uncollectible."""
    invoice = state.find("invoice", name)
    if invoice["status"] != "open":
        raise Refusal(400, "You can only mark open invoices uncollectible.")
    invoices.close(state, invoice, "uncollectible")
    sub = _subscription(state, invoice)
    if sub is not None:
        _recover(state, sub, invoice)
    return invoice


def update_invoice(state: State, params: Params, name: str) -> Object:
    """POST /v1/invoices/{id}: metadata, description, auto_advance."""
    invoice = state.find("invoice", name)
    fields = values(params, {"description": text, "auto_advance": boolean, "footer": text})
    state.change(invoice, **fields, metadata=merged(invoice["metadata"], params))
    return invoice


def confirm_intent(state: State, params: Params, name: str) -> Object:
    """POST /v1/payment_intents/{id}/confirm: the cardholder is there."""
    intent = state.find("payment_intent", name)
    if intent["status"] in ("succeeded", "canceled"):
        raise Refusal(
            400,
            f"You cannot confirm this PaymentIntent because it has already {intent['status']}.",
            code="payment_intent_unexpected_state",
        )
    invoice, customer = state.get(intent["_invoice"]), state.get(intent["customer"])
    wanted = text(params.get("payment_method"), "payment_method") or intent["payment_method"]
    if wanted:
        method: Object | None = customers.usable(
            state, wanted, customer, "payment_method", adopt=True
        )
    else:
        method = customers.default_method(state, customer, _subscription(state, invoice))
    if method is None:
        raise Refusal(
            400,
            "You cannot confirm this PaymentIntent because it's missing a payment method.",
            code="payment_intent_unexpected_state",
        )
    intent["_return_url"] = text(params.get("return_url"), "return_url")
    refusal = charge(state, invoice, method)
    if refusal and refusal is not AUTHENTICATE:
        raise refusal
    return intent


def authenticate(state: State, intent: Object, *, passed: bool) -> Refusal | None:
    """Let the cardholder pass or fail the 3D Secure challenge that a payment waits for."""
    if intent["status"] != "requires_action":
        raise Refusal(400, "No 3D Secure challenge is open.")
    method, invoice = state.get(intent["payment_method"]), state.get(intent["_invoice"])
    if passed:
        return charge(state, invoice, method, present=True)
    refusal = cards.declined(
        "payment_intent_authentication_failure",
        None,
        "We are unable to authenticate your payment method. Please choose a different payment "
        "method and try again.",
    )
    _decline(state, invoice, intent, method, refusal)
    _failed(state, invoice, automatic=False)
    return refusal


def list_intents(state: State, params: Params) -> list[Object]:
    """GET /v1/payment_intents."""
    return [
        item
        for item in state.all("payment_intent")
        if params.get("customer") in (None, "", item["customer"])
    ]


_PAY = ("payment_method", "paid_out_of_band", "off_session")
_CONFIRM = ("payment_method", "return_url", "off_session", "setup_future_usage")
ROUTES = (
    post(
        "/v1/invoices/{}",
        update_invoice,
        *("metadata", "description", "auto_advance", "footer"),
    ),
    post("/v1/invoices/{}/finalize", finalize_invoice, "auto_advance"),
    post("/v1/invoices/{}/pay", pay_invoice, *_PAY),
    post("/v1/invoices/{}/void", void_invoice),
    post("/v1/invoices/{}/mark_uncollectible", mark_uncollectible),
    pages("/v1/payment_intents", list_intents, "customer"),
    get("/v1/payment_intents/{}", one("payment_intent")),
    post("/v1/payment_intents/{}/confirm", confirm_intent, *_CONFIRM),
)
