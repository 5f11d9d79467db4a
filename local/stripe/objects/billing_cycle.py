"""The passing of time: trials end, periods begin, drafts are finalized, charges are retried."""

from local.stripe.core.state import State
from local.stripe.core.views import Object
from local.stripe.objects import collection, customers, invoices, subscriptions
from local.stripe.objects.collection import reschedule


def wake(state: State, sub: Object) -> None:
    """Run a subscription's due actions."""
    if sub["status"] == "incomplete":
        collection.expire(state, sub)
        return
    if sub["cancel_at"] is not None and sub["cancel_at"] <= state.now:
        _bill_what_waits(state, sub)
        collection.end(state, sub, sub["cancellation_details"]["reason"])
        return
    until = sub.get("_pending_until")
    if until is not None and until <= state.now:
        _forget_pending(state, sub)
    paused = sub["pause_collection"]
    if paused and paused["resumes_at"] is not None and paused["resumes_at"] <= state.now:
        state.change(sub, pause_collection=None)
    _turn(state, sub)
    if sub["ended_at"] is None:
        reschedule(state, sub)


def _bill_what_waits(state: State, sub: Object) -> None:
    """Collect pending prorations when a subscription ends as planned; a credit is kept."""
    lines, sub["_lines"] = sub["_lines"], []
    if not lines:
        return
    invoice = subscriptions.draft(state, sub, lines, "subscription_cycle")
    sub["latest_invoice"] = invoice["id"]
    invoices.finalize(state, invoice)
    collection.collect(state, invoice, automatic=True)


def _turn(state: State, sub: Object) -> None:
    """Announce or end a trial, or begin the next period."""
    if sub["status"] == "trialing":
        if not sub["_announced"]:
            sub["_announced"] = True
            state.emit("customer.subscription.trial_will_end", sub)
        if sub["trial_end"] <= state.now:
            _end_trial(state, sub)
    elif sub["status"] != "paused":
        ends = min(item["current_period_end"] for item in sub["items"]["data"])
        if ends <= state.now:
            _renew(state, sub, ends)


def _forget_pending(state: State, sub: Object) -> None:
    sub["_pending_until"] = None
    if sub["pending_update"] is None:
        return
    invoice = state.get(sub["_pending"]["invoice"])
    state.change(sub, "customer.subscription.pending_update_expired", pending_update=None)
    sub["_pending"] = None
    if invoice["status"] == "open":
        invoices.close(state, invoice, "void")


def _end_trial(state: State, sub: Object) -> None:
    owner = state.get(sub["customer"])
    lacking = customers.default_method(state, owner, sub) is None
    behavior = sub["trial_settings"]["end_behavior"]["missing_payment_method"]
    if lacking and behavior == "cancel":
        collection.end(state, sub, "cancellation_requested")
        return
    if lacking and behavior == "pause":
        cause: Object = {"subscription": {"type": "trial_end_without_payment_method"}}
        cause |= {"transitioned_at": state.now, "type": "subscription"}
        sub |= {"status_details": {"paused": cause}}
        state.change(sub, status="paused")
        state.emit("customer.subscription.paused", sub)
        return
    _renew(state, sub, sub["trial_end"])


def next_period(state: State, sub: Object, ends: int) -> None:
    """Move the items whose period has ended into the next one."""
    for item in sub["items"]["data"]:
        if item["current_period_end"] <= ends:
            item["current_period_start"] = item["current_period_end"]
            item["current_period_end"] = subscriptions.period_end(
                state, item, sub["billing_cycle_anchor"], item["current_period_end"]
            )


def _renew(state: State, sub: Object, ends: int) -> None:
    """Begin the next period: its invoice is a draft for an hour, then it is charged."""
    before = state.show(sub)
    sub["items"] = sub["items"] | {"data": [dict(item) for item in sub["items"]["data"]]}
    next_period(state, sub, ends)
    lines, sub["_lines"] = sub["_lines"] + subscriptions.cycle_lines(state, sub), []
    paused = sub["pause_collection"]
    kept = sub["status"] == "unpaid" or (paused and paused["behavior"] == "keep_as_draft")
    at = None if kept else state.now + state.rules.draft_seconds
    invoice = subscriptions.draft(
        state,
        sub,
        lines,
        "subscription_cycle",
        auto_advance=not kept,
        automatically_finalizes_at=at,
    )
    state.wake(invoice, at)
    sub["latest_invoice"] = invoice["id"]
    if sub["status"] == "trialing":
        sub["status"] = "active"
    subscriptions.announce(state, sub, before)


def wake_invoice(state: State, invoice: Object) -> None:
    """Finalize a draft whose hour is over, or try an open invoice again."""
    state.wake(invoice, None)
    name = invoices.subscription_of(invoice)
    sub = state.get(name) if name else None
    if invoice["status"] == "draft":
        invoices.finalize(state, invoice)
        if sub and sub["pause_collection"]:
            paused = sub["pause_collection"]["behavior"]
            invoices.close(state, invoice, "void" if paused == "void" else "uncollectible")
            return
    if invoice["status"] != "open":
        return
    if invoice["collection_method"] == "send_invoice":
        _overdue(state, invoice, sub)
    else:
        collection.collect(state, invoice, automatic=True)


def _overdue(state: State, invoice: Object, sub: Object | None) -> None:
    """Mark a sent invoice overdue on its due date, and its subscription past_due."""
    if invoice["due_date"] is None or invoice["due_date"] > state.now:
        return
    state.emit("invoice.overdue", invoice)
    if sub is not None and sub["status"] in ("active", "trialing"):
        state.change(sub, status="past_due")
