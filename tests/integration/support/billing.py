"""A workspace that pays, what Stripe says of it, and what we made of that."""

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from kyora import postgres
from kyora.billing import stripe_objects
from kyora.billing.events import ingest, types
from kyora.billing.jobs import reconcile
from tests.stripe_account import Account

PLANS = ("basic", "pro", "yearly", "free")
TABLES = (
    *("stripe_event", "billing_customer", "payment_method", "subscription", "invoice", "plan"),
    *("plan_price", "workspace_billing", "billing_fact", "outbox", "subscription_terms"),
)

type Row = dict[str, Any]


class Clock:
    """A clock that only waiting moves; an invocation has `length` seconds of it."""

    def __init__(self, length: float = 55.0) -> None:
        self.time, self.length = 0.0, length

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.time += seconds

    def remaining(self) -> float:
        return self.length - self.time


def invoke(clock: Clock | None = None, *, start: bool = False) -> Row:
    """Call reconcile as one invocation of its function does."""
    found = clock or Clock()
    return reconcile.run(found.remaining, start=start, now=found.now, sleep=found.sleep)


def query(sql: str, **params: object) -> list[Row]:
    with postgres.transaction() as tx:
        return tx.rows(sql, **params)


def run(sql: str, **params: object) -> int:
    with postgres.transaction() as tx:
        return tx.run(sql, **params)


def as_owner(sql: str) -> None:
    """Do what the functions may not."""
    with postgres.transaction(owner=True) as tx:
        tx.run(sql)


def empty() -> None:
    """Forget everything about billing."""
    as_owner(f"TRUNCATE {', '.join(TABLES)}")
    run("UPDATE billing_run SET state = '{}', result = '{}', started_at = NULL, finished_at = NULL")


def account(card: str = "pm_card_visa", **rules: Any) -> Account:
    """Return an account of today whose customer is the demo workspace's, in our books as well."""
    found = Account(card, **rules)
    found.engine.advance_to(int(time.time()))
    found.engine.events.clear()
    know(found)
    return found


def know(found: Account) -> None:
    """Write an account's customer and plans into our books."""
    run(
        "INSERT INTO billing_customer (id, workspace_id) VALUES (:id, 'ws_demo')", id=found.customer
    )
    for name in PLANS:
        add_plan(name, getattr(found, name))


def add_plan(name: str, price: str) -> None:
    run(
        "INSERT INTO plan (id, product_id, price_id, name, amount, currency, interval, limits,"
        " active) VALUES (:name, 'prod_' || :name, :price, initcap(:name), 100, 'usd', 'month',"
        " jsonb_build_object('maxBusinesses', 5), true)",
        name=name,
        price=price,
    )
    run(
        "INSERT INTO plan_price (price_id, plan_id, active) VALUES (:price, :name, true)",
        name=name,
        price=price,
    )


def deliver(events: Iterable[Mapping[str, Any]]) -> None:
    """Take events as the webhook does."""
    for payload in events:
        event = stripe_objects.event(payload)
        assert event is not None
        ingest.take(event, json.dumps(payload), "webhook")


def handled(found: Account) -> list[Row]:
    """The events of an account that are for us, without the catalogue's."""
    return [event for event in found.engine.events if event["type"] in types.HANDLERS]


def reconciled(*, start: bool = True) -> Row:
    """Reconcile to the end, over as many invocations as it takes, and return the report."""
    report = invoke(start=start)
    for _ in range(100):
        if report["finished"]:
            return report
        report = invoke()
    raise AssertionError(f"no end: {report}")


def lease_over() -> None:
    """Let a minute pass for the lease of an invocation that died."""
    run("UPDATE billing_run SET state = state || '{\"lease\": 0}' WHERE state <> '{}'")


# ---- what must be the same


def moment(seconds: int | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


def of_stripe(found: Account) -> dict[str, Row]:
    """Subscriptions and final invoices as Stripe has them, read here in a way of its own."""
    books: dict[str, Row] = {}
    for sub in found.engine.all("subscription"):
        shown = found.sub(sub["id"])
        item = shown["items"]["data"][0]
        end = max(one["current_period_end"] for one in shown["items"]["data"])
        cancels = shown["cancel_at"] or (end if shown["cancel_at_period_end"] else None)
        over = shown["status"] in ("canceled", "incomplete_expired")
        books[shown["id"]] = {
            "status": shown["status"],
            "price_id": item["price"]["id"],
            "period_end": moment(end),
            "trial_end": moment(shown["trial_end"]),
            "cancel_at": None if over else moment(cancels),
            "ended_at": moment(shown["ended_at"]),
            "latest_invoice_id": shown["latest_invoice"],
            "default_payment_method_id": shown["default_payment_method"],
            "collection_paused": shown["pause_collection"] is not None,
        }
    for invoice in found.call("GET", "/v1/invoices", limit=100)["data"]:
        if invoice["status"] != "draft":
            books[invoice["id"]] = {
                "status": invoice["status"],
                "number": invoice["number"],
                "total": invoice["total"],
                "amount_due": invoice["amount_due"],
                "amount_paid": invoice["amount_paid"],
                "attempt_count": invoice["attempt_count"],
                "next_attempt_at": moment(invoice["next_payment_attempt"]),
                "subscription_id": invoice["parent"]["subscription_details"]["subscription"],
            }
    return books


def ours() -> dict[str, Row]:
    """The same of our mirror."""
    subscriptions = query(
        "SELECT id, status, price_id, period_end, trial_end, cancel_at, ended_at,"
        " latest_invoice_id, default_payment_method_id, collection_paused FROM subscription"
    )
    invoices = query(
        "SELECT id, status, number, total, amount_due, amount_paid, attempt_count,"
        " next_attempt_at, subscription_id FROM invoice"
    )
    return {str(row.pop("id")): row for row in (*subscriptions, *invoices)}


def standing() -> Row:
    """The demo workspace's row, as if nothing of the free plan had been written yet."""
    rows = query(
        "SELECT access, status, plan_id, subscription_id, access_until FROM workspace_billing"
        " WHERE workspace_id = 'ws_demo'"
    )
    return rows[0] if rows else {"access": "free", "status": "free"}


def reported() -> Counter[tuple[str, ...]]:
    """Every fact in the outbox, with what it is about."""
    keys = {
        "SubscriptionActivated": ("subscriptionId",),
        "SubscriptionCancelled": ("subscriptionId",),
        "PaymentSucceeded": ("invoiceId",),
        "PaymentFailed": ("invoiceId", "attempt"),
        "TrialEnding": ("subscriptionId", "trialEnd"),
    }
    return Counter(
        (row["detail_type"], *(str(row["data"][key]) for key in keys[row["detail_type"]]))
        for row in query("SELECT detail_type, detail -> 'data' AS data FROM outbox")
        if row["detail_type"] in keys
    )


def due(found: Account, known: Sequence[Mapping[str, Any]]) -> set[tuple[str, ...]]:
    """The facts to be announced, once each, when only the events `known` have arrived."""
    facts: set[tuple[str, ...]] = set()
    shown = [found.sub(sub["id"]) for sub in found.engine.all("subscription")]
    payloads = [event["data"]["object"] for event in known]
    for item in (*shown, *payloads):
        if item["object"] == "subscription" and (
            item["status"] in ("trialing", "active", "past_due", "unpaid")
            or (item["trial_end"] and item["status"] in ("canceled", "paused"))
        ):
            facts.add(("SubscriptionActivated", item["id"]))
            if found.sub(item["id"])["status"] == "canceled":
                facts.add(("SubscriptionCancelled", item["id"]))
    for invoice in found.engine.all("invoice"):
        if invoice["status"] == "paid" and invoice["amount_paid"]:
            facts.add(("PaymentSucceeded", invoice["id"]))
    for event in known:
        item = event["data"]["object"]
        if event["type"] == "invoice.payment_failed":
            facts.add(("PaymentFailed", item["id"], str(item["attempt_count"])))
        elif event["type"] == "customer.subscription.trial_will_end":
            end = moment(item["trial_end"])
            assert end
            facts.add(("TrialEnding", item["id"], end.isoformat()))
    return facts
