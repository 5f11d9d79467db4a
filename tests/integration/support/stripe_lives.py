"""Random lives of Stripe customers, and workers that hear of them in any order.

Stripe is the stand-in's engine, with its own clock; `standing` says what a workspace may do by
reading Stripe's objects and nothing of ours, so that a test compares two independent answers.
"""

import json
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from stripe import WebhookSignature

from kyora import postgres
from local.stripe.core.params import parse
from local.stripe.core.state import Rules
from local.stripe.engine import Engine
from tests.integration.support.workers import _settle_in, _write_to, forkserver
from tests.scripted import Answer, Request, scripted
from tests.unit.functions import CONTEXT, function

SECRET = "whsec_of-the-webhook-of-these-tests"
KEY = "sk_test_lives"
ENVIRONMENT = {"BILLING_STRIPE_API_KEY": KEY, "BILLING_STRIPE_WEBHOOK_SECRET": SECRET}
LIMITS = {
    "starter": {"maxBusinesses": 1, "maxStorageBytes": 1000},
    "professional": {"maxBusinesses": 3, "maxStorageBytes": 50_000},
    "enterprise": {"maxBusinesses": -1, "maxStorageBytes": -1},
}
AMOUNTS = {"starter": 0, "professional": 5499, "enterprise": 15599}
GRACE = timedelta(days=7)
_OVER = ("canceled", "incomplete_expired")
_GAVE_ACCESS = ("trialing", "active", "past_due", "unpaid")
MAILS = (
    *("SubscriptionActivated", "SubscriptionCancelled"),
    *("PaymentFailed", "PaymentSucceeded", "TrialEnding"),
)

type Event = dict[str, Any]
type Timed = tuple[int, float]  # an answer's status, and the seconds that it took


@dataclass
class Stripe:
    """An engine, its catalogue, and the server that shows it to the SDK."""

    engine: Engine
    prices: dict[str, str] = field(default_factory=dict)
    more: dict[str, str] = field(default_factory=dict)  # prices that no plan has
    url: str = ""
    reads: int = 0
    catalogue: int = 0  # how many events are about the catalogue
    lock: threading.Lock = field(default_factory=threading.Lock)
    down: bool = False

    def ask(self, method: str, path: str, **params: Any) -> dict[str, Any]:
        """Do something at Stripe; what it refuses is nothing that this life could do."""
        with self.lock:
            _, body = self.engine.request(method, f"/v1/{path}", params)
        return body

    def answer(self, request: Request) -> Answer:
        if self.down:
            return Answer(503, b'{"error": {"type": "api_error", "message": "away"}}')
        parts = urlsplit(request.path)
        with self.lock:
            self.reads += 1
            status, body = self.engine.request(
                request.method, parts.path, parse(parse_qsl(parts.query))
            )
            stamp = formatdate(self.engine.now, usegmt=True)
        return Answer(status, json.dumps(body).encode(), {"Date": stamp})

    def subscriptions(self) -> list[dict[str, Any]]:
        return [s for s in self.engine.objects.values() if s["object"] == "subscription"]


@contextmanager
def stripe(now: int, seed: int) -> Iterator[Stripe]:
    """Run one with three plans, which our database knows as well.

    The seed also decides what the account chose to do about payments that fail.
    """
    dice = random.Random(seed)
    rules = Rules(
        final=dice.choice(["cancel", "cancel", "unpaid", "past_due", "pause"]),
        pause_first=dice.random() < 0.25,
    )
    found = Stripe(Engine(now=now, seed=seed, rules=rules))
    for plan, amount in AMOUNTS.items():
        product = found.ask("POST", "products", name=plan.title(), metadata={"kyora_plan": plan})
        price = found.ask(
            *("POST", "prices"),
            product=product["id"],
            unit_amount=str(amount),
            currency="usd",
            recurring={"interval": "month"},
        )
        found.prices[plan] = price["id"]
        offer(plan, product["id"], price["id"])
    gold = found.ask("GET", f"prices/{found.prices['professional']}")["product"]
    for name in ("addon", "negotiated", "foreign"):
        of = gold if name == "negotiated" else found.ask("POST", "products", name=name)["id"]
        made = found.ask(
            *("POST", "prices"),
            product=of,
            unit_amount="700",
            currency="usd",
            recurring={"interval": "month"},
        )
        found.more[name] = made["id"]
    found.catalogue = len(found.engine.events)
    with scripted(found.answer) as server:
        found.url = server.url
        yield found


def offer(plan: str, product: str, price: str) -> None:
    with postgres.transaction() as tx:
        tx.run(
            "INSERT INTO plan (id, product_id, price_id, name, amount, currency, interval, limits,"
            " active) VALUES (:id, :product, :price, :name, :amount, 'usd', 'month',"
            " CAST(:limits AS jsonb), true)",
            id=plan,
            product=product,
            price=price,
            name=plan.title(),
            amount=AMOUNTS[plan],
            limits=json.dumps(LIMITS[plan]),
        )
        tx.run("INSERT INTO plan_price VALUES (:price, :plan, true)", price=price, plan=plan)


# ---- lives

_PRORATIONS = ("create_prorations", "always_invoice")
_CARDS = ("pm_card_visa", "pm_card_mastercard", "pm_card_chargeCustomerFail")
_PAUSES = (0, 0, 0, 1, 1, 2, 3, 60, 3600, 86_400, 4 * 86_400, 31 * 86_400)


class Life:
    """A customer of a workspace, who does one thing after another."""

    def __init__(self, stripe: Stripe, workspace: str, dice: random.Random) -> None:
        self.stripe, self.workspace, self.dice = stripe, workspace, dice
        self.customer, self.over = "", False

    def step(self) -> None:
        if self.over:
            return
        if not self.customer:
            self._arrive()
            return
        alive = [
            s
            for s in self.stripe.subscriptions()
            if s["customer"] == self.customer and s["status"] not in _OVER
        ]
        if not alive:
            self._subscribe()
            return
        sub = self.dice.choice(alive)
        self.dice.choices(  # what Stripe refuses, as it does with a schedule, changes nothing
            [
                *(self._change, self._cancel, self._stay, self._card, self._pay, self._more),
                *(self._end, self._plan, self._release, self._pause, self._resume),
                *(self._add_on, self._amount, self._collect, self._trial, self._give_back),
            ],
            [4, 2, 1, 3, 3, 1, 1, 3, 1, 2, 3, 1, 1, 1, 1, 1],
        )[0](sub)

    def _arrive(self) -> None:
        made = self.stripe.ask("POST", "customers", metadata={"workspaceId": self.workspace})
        self.customer = made["id"]
        if self.dice.random() < 0.8:
            self._card({})

    def _subscribe(self) -> None:
        how: dict[str, Any] = {}
        if self.dice.random() < 0.35:
            missing = self.dice.choice(["cancel", "create_invoice", "pause"])
            how["trial_period_days"] = "7"
            how["trial_settings"] = {"end_behavior": {"missing_payment_method": missing}}
        if self.dice.random() < 0.1:
            how["billing_mode"] = {"type": "classic"}
        if self.dice.random() < 0.1:
            how |= {"collection_method": "send_invoice", "days_until_due": "5"}
        else:
            how["payment_behavior"] = self.dice.choice(["allow_incomplete", "default_incomplete"])
        self.stripe.ask(
            *("POST", "subscriptions"),
            customer=self.customer,
            items=[{"price": price} for price in self._prices()],
            metadata={"workspaceId": self.workspace},
            **how,
        )

    def _prices(self) -> list[str]:
        """A plan, now and then at a price of its own, with an add-on before or behind it."""
        plan = self.stripe.prices[self.dice.choice(list(AMOUNTS))]
        if self.dice.random() < 0.1:
            plan = self.stripe.more["negotiated"]
        if self.dice.random() < 0.7:
            return [plan]
        both = [plan, self.stripe.more["addon"]]
        self.dice.shuffle(both)
        return both

    def _change(self, sub: Event) -> None:
        price = self.stripe.prices[self.dice.choice(list(AMOUNTS))]
        if self.dice.random() < 0.15:
            price = self.stripe.more[self.dice.choice(["negotiated", "foreign"])]
        shown = self.stripe.ask("GET", f"subscriptions/{sub['id']}")
        item = plan_item(self.stripe, shown)["id"]
        how = {"proration_behavior": self.dice.choice([*_PRORATIONS, "none"])}
        if self.dice.random() < 0.3:
            how = {"proration_behavior": "always_invoice"}
            how["payment_behavior"] = "pending_if_incomplete"
        self.stripe.ask(
            *("POST", f"subscriptions/{sub['id']}"), items=[{"id": item, "price": price}], **how
        )

    def _cancel(self, sub: Event) -> None:
        if self.dice.random() < 0.3:
            self.stripe.ask("DELETE", f"subscriptions/{sub['id']}")
        elif self.dice.random() < 0.3:
            when = self.stripe.engine.now + self.dice.choice(_PAUSES[8:])
            self.stripe.ask("POST", f"subscriptions/{sub['id']}", cancel_at=when)
        else:
            self.stripe.ask("POST", f"subscriptions/{sub['id']}", cancel_at_period_end="true")

    def _stay(self, sub: Event) -> None:
        how = {"cancel_at": ""} if self.dice.random() < 0.5 else {"cancel_at_period_end": "false"}
        self.stripe.ask("POST", f"subscriptions/{sub['id']}", **how)

    def _card(self, sub: Event) -> None:
        method = self.stripe.ask(
            *("POST", f"payment_methods/{self.dice.choice(_CARDS)}/attach"), customer=self.customer
        )
        if "id" in method:
            self.stripe.ask(
                *("POST", f"customers/{self.customer}"),
                invoice_settings={"default_payment_method": method["id"]},
            )

    def _pay(self, sub: Event) -> None:
        open_ones = [
            i
            for i in self.stripe.engine.objects.values()
            if i["object"] == "invoice"
            and i["customer"] == self.customer
            and i["status"] in ("open", "uncollectible")
        ]
        for invoice in open_ones[:1]:
            what = self.dice.choices(["pay", "void", "mark_uncollectible"], [5, 1, 1])[0]
            self.stripe.ask("POST", f"invoices/{invoice['id']}/{what}")

    def _more(self, sub: Event) -> None:
        self._subscribe()

    def _end(self, sub: Event) -> None:
        if self.dice.random() < 0.2:
            self.stripe.ask("DELETE", f"customers/{self.customer}")
            self.over = True

    def _plan(self, sub: Event) -> None:
        """Plan another price from the next period on; a schedule may be left without a plan."""
        made = self.stripe.ask("POST", "subscription_schedules", from_subscription=sub["id"])
        if "phases" not in made or self.dice.random() < 0.2:
            return
        [now] = made["phases"]
        price = self.stripe.prices[self.dice.choice(list(AMOUNTS))]
        items = [{"price": i["price"], "quantity": i["quantity"]} for i in now["items"]]
        same = {name: now[name] for name in ("start_date", "end_date")}
        if now["trial_end"]:
            same["trial_end"] = now["trial_end"]
        following: dict[str, Any] = {"items": [{"price": price}], "proration_behavior": "none"}
        following["duration"] = {"interval": "month", "interval_count": 1}
        self.stripe.ask(
            *("POST", f"subscription_schedules/{made['id']}"),
            phases=[{"items": items, **same}, following],
        )

    def _release(self, sub: Event) -> None:
        if sub["schedule"]:
            what = self.dice.choice(["release", "release", "cancel"])
            self.stripe.ask("POST", f"subscription_schedules/{sub['schedule']}/{what}")

    def _add_on(self, sub: Event) -> None:
        """Put the add-on beside the plan, or take it away."""
        addon = self.stripe.more["addon"]
        [had] = [i["id"] for i in sub["items"]["data"] if i["price"] == addon] or [""]
        item = {"id": had, "deleted": "true"} if had else {"price": addon}
        how = self.dice.choice(_PRORATIONS)
        self.stripe.ask("POST", f"subscriptions/{sub['id']}", items=[item], proration_behavior=how)

    def _amount(self, sub: Event) -> None:
        """Have more or less of the plan; none of it gives nothing."""
        item = plan_item(self.stripe, self.stripe.ask("GET", f"subscriptions/{sub['id']}"))["id"]
        many = self.dice.choice([0, 1, 2, 3])
        how = self.dice.choice(_PRORATIONS)
        self.stripe.ask(
            *("POST", f"subscriptions/{sub['id']}"),
            items=[{"id": item, "quantity": many}],
            proration_behavior=how,
        )

    def _collect(self, sub: Event) -> None:
        """Waive payments, or ask for them again."""
        waived = {"behavior": self.dice.choice(["void", "mark_uncollectible", "keep_as_draft"])}
        self.stripe.ask(
            *("POST", f"subscriptions/{sub['id']}"),
            pause_collection="" if sub["pause_collection"] else waived,
        )

    def _trial(self, sub: Event) -> None:
        """End a trial now, or give a longer one."""
        if sub["status"] != "trialing":
            return
        later = self.stripe.engine.now + 10 * 86_400
        end = self.dice.choice(["now", later])
        self.stripe.ask("POST", f"subscriptions/{sub['id']}", trial_end=end)

    def _give_back(self, sub: Event) -> None:
        """Refund what was charged last, or write a credit note of a part of an invoice."""
        mine = [
            found
            for found in self.stripe.engine.objects.values()
            if found.get("customer") == self.customer
        ]
        charges = [one for one in mine if one["object"] == "charge" and one["paid"]]
        if charges and self.dice.random() < 0.5:
            self.stripe.ask("POST", "refunds", charge=charges[-1]["id"])
            return
        for invoice in [one for one in mine if one["object"] == "invoice"][-1:]:
            gone = {"credit_amount": 300} if invoice["status"] == "paid" else {}
            self.stripe.ask("POST", "credit_notes", invoice=invoice["id"], amount=300, **gone)

    def _pause(self, sub: Event) -> None:
        if self.dice.random() < 0.5:
            self.stripe.ask("POST", f"subscriptions/{sub['id']}/pause")
            return
        until = self.stripe.engine.now + self.dice.choice(_PAUSES[7:])
        back = {"resume_at": {"type": "timestamp", "timestamp": until}}
        plan = {"pause": {"pause_at": {"type": "now"}}, "resume": back}
        self.stripe.ask(
            *("POST", "subscription_schedules"),
            from_subscription=sub["id"],
            pause_schedules=[plan],
        )

    def _resume(self, sub: Event) -> None:
        how = self.dice.choice(["resume_on_payment_attempt", "resume_on_payment_success"])
        self.stripe.ask("POST", f"subscriptions/{sub['id']}/resume", payment_behavior=how)

    def pause(self) -> int:
        return self.dice.choice(_PAUSES)


def live(stripe: Stripe, workspaces: Sequence[str], steps: int, dice: random.Random) -> None:
    """Let every workspace's customer take so many steps, with time passing between them."""
    lives = [Life(stripe, workspace, dice) for workspace in workspaces]
    for _ in range(steps):
        for one in lives:
            one.step()
        pause = lives[0].pause()
        with stripe.lock:
            stripe.engine.advance(pause)


def strangers(stripe: Stripe, dice: random.Random, since: int = 0) -> list[str]:
    """Events that must change nothing: of other accounts, and of pages that a payer addressed.

    They are made of what happened since so many events.
    """
    made: list[Event] = []
    owners = [c for c in stripe.engine.objects.values() if c["object"] == "customer"]
    for event in stripe.engine.events[max(since, stripe.catalogue) :]:
        about = event["data"]["object"]
        if about["object"] == "subscription" and dice.random() < 0.1:
            whose = dice.choice(owners)["metadata"]["workspaceId"]
            best = json.loads(json.dumps(about)) | {"status": "active"}
            best["items"]["data"] = [
                {"id": "si_x", "quantity": 1, "price": {"id": stripe.prices["enterprise"]}}
            ]
            best["metadata"] = {"workspaceId": whose}
            of = {dice.choice(["account", "context"]): "acct_another"}
            made.append(event | {"data": {"object": best}} | of)
        if about["object"] == "customer" and dice.random() < 0.2:
            page = {"object": "checkout.session", "id": "cs_x", "customer": "cus_stranger"}
            page["client_reference_id"] = about["metadata"].get("workspaceId", "")
            made.append(event | {"type": "checkout.session.completed", "data": {"object": page}})
    return [json.dumps(e | {"id": f"{e['id']}_{n}"}) for n, e in enumerate(made)]


# ---- what follows from Stripe's objects alone


def _moment(seconds: Any) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


def owner(stripe: Stripe, customer: str) -> str:
    return str(stripe.engine.objects[customer]["metadata"]["workspaceId"])


def plan_of(stripe: Stripe, price: str) -> str | None:
    """The plan of a price: its own, or its product's."""
    if price == stripe.more["negotiated"]:
        return "professional"
    return {name: plan for plan, name in stripe.prices.items()}.get(price)


def plan_item(stripe: Stripe, sub: Event) -> Event:
    """The item that is the plan's; one of quantity 0 only where there is no other."""

    def worth(item: Event) -> tuple[bool, bool, bool, int]:
        plan = plan_of(stripe, item["price"]["id"])
        exact = item["price"]["id"] in stripe.prices.values()
        return item["quantity"] != 0, plan is not None, exact, AMOUNTS[plan] if plan else 0

    found: Event = max(sub["items"]["data"], key=worth)
    return found


def mirror(stripe: Stripe) -> dict[str, tuple[Any, ...]]:
    """What our table `subscription` should say."""
    found = {}
    for name in [s["id"] for s in stripe.subscriptions()]:
        sub = stripe.ask("GET", f"subscriptions/{name}")
        item = plan_item(stripe, sub)
        ends = sub["cancel_at"] or (
            item["current_period_end"] if sub["cancel_at_period_end"] else None
        )
        found[name] = (
            sub["status"],
            item["price"]["id"],
            _moment(item["current_period_start"]),
            _moment(item["current_period_end"]),
            None if sub["status"] in _OVER else _moment(ends),
            _moment(sub["ended_at"]),
            _moment(sub["trial_end"]),
        )
    return found


def mirrored() -> dict[str, tuple[Any, ...]]:
    with postgres.transaction() as tx:
        rows = tx.rows(
            "SELECT id, status, price_id, period_start, period_end, cancel_at, ended_at, trial_end"
            " FROM subscription"
        )
    return {str(row.pop("id")): tuple(row.values()) for row in rows}


def planned(stripe: Stripe) -> dict[str, tuple[Any, ...]]:
    """What our table `subscription_terms` should say of what is not over."""
    found = {}
    for name in [s["id"] for s in stripe.subscriptions() if s["status"] not in _OVER]:
        sub = stripe.ask("GET", f"subscriptions/{name}")
        items = [(i["price"]["unit_amount"], i["quantity"]) for i in sub["items"]["data"]]
        now = {(i["price"]["id"], i["quantity"]) for i in sub["items"]["data"]}
        coming, at, resume = None, None, None
        if sub["schedule"]:
            schedule = stripe.ask("GET", f"subscription_schedules/{sub['schedule']}")
            over = schedule["current_phase"]["end_date"]
            for phase in schedule["phases"][::-1]:
                then = {(i["price"], i["quantity"]) for i in phase["items"]}
                if phase["start_date"] >= over and then != now:
                    coming, at = [i["price"] for i in phase["items"]], phase["start_date"]
            for plan in schedule["pause_schedules"]:
                if plan["resume"] and plan["resume"]["status"]["type"] == "scheduled":
                    resume = plan["resume"]["resume_at"]
        found[name] = (items, sub["schedule"], coming, _moment(at), _moment(resume))
    return found


def planned_here() -> dict[str, tuple[Any, ...]]:
    with postgres.transaction() as tx:
        rows: list[dict[str, Any]] = tx.rows(
            "SELECT t.* FROM subscription_terms t JOIN subscription s ON s.id = t.subscription_id"
            " WHERE s.status NOT IN ('canceled', 'incomplete_expired')"
        )
    return {
        row["subscription_id"]: (
            [(item["amount"], item["quantity"]) for item in row["items"]],
            row["schedule_id"],
            [item["price"] for item in row["pending"]] if row["pending"] else None,
            row["pending_at"],
            row["resume_at"],
        )
        for row in rows
    }


def invoices(stripe: Stripe) -> dict[str, tuple[Any, ...]]:
    """What our table `invoice` should say of those that are no drafts."""
    return {
        i["id"]: (i["status"], i["total"], i["amount_paid"], i["attempt_count"])
        for i in stripe.engine.objects.values()
        if i["object"] == "invoice" and i["status"] != "draft"
    }


def invoiced() -> dict[str, tuple[Any, ...]]:
    with postgres.transaction() as tx:
        rows = tx.rows(
            "SELECT id, status, total, amount_paid, attempt_count FROM invoice"
            " WHERE status <> 'draft'"
        )
    return {str(row.pop("id")): tuple(row.values()) for row in rows}


def access(stripe: Stripe, now: datetime, *, lost: bool = False) -> dict[str, set[tuple[str, str]]]:
    """What each workspace with a customer should be allowed: its access and plan.

    More than one answer is right where a subscription left its plan for a price of none: that
    plan is kept for the grace period, which begins when it was heard of. With `lost` events that
    is so of a payment as well: when it failed first is not known, only what is due now.
    """
    best: dict[str, list[tuple[int, int, str, str]]] = {}
    perhaps: dict[str, list[tuple[int, int, str, str]]] = {}
    for sub in [stripe.ask("GET", f"subscriptions/{s['id']}") for s in stripe.subscriptions()]:
        whose = owner(stripe, sub["customer"])
        found = best.setdefault(whose, [])
        item = plan_item(stripe, sub)
        plan = plan_of(stripe, item["price"]["id"])
        if not item["quantity"]:
            continue
        if plan is None and (sub["status"] in ("active", "trialing") or due(sub)):
            perhaps.setdefault(whose, []).extend(
                (AMOUNTS[had], 1, "grace", had) for had in had_plans(stripe, sub["id"])
            )
            continue
        if plan and sub["status"] in ("active", "trialing"):
            found.append((AMOUNTS[plan], 2, "full", plan))
        if plan and due(sub) and lost:
            perhaps.setdefault(whose, []).append((AMOUNTS[plan], 1, "grace", plan))
        since = due_since(stripe, sub["id"])
        if plan and due(sub) and since + GRACE > now:
            found.append((AMOUNTS[plan], 1, "grace", plan))
    sure = {
        whose: max(found) if found else (-1, 0, "free", "starter") for whose, found in best.items()
    }
    return {
        whose: {one[-2:] for one in (known, *perhaps.get(whose, [])) if one >= known}
        for whose, known in sure.items()
    }


def had_plans(stripe: Stripe, name: str) -> set[str]:
    """The plans that a subscription had at some time."""
    reported = [
        e["data"]["object"] for e in stripe.engine.events if e["data"]["object"]["id"] == name
    ]
    plans = {plan_of(stripe, plan_item(stripe, sub)["price"]["id"]) for sub in reported}
    return {plan for plan in plans if plan}


def due_since(stripe: Stripe, name: str) -> datetime:
    """When the payment of a subscription failed for the last time after nothing had been due.

    Nothing is due of one that is paid for, nor of one that was paused for another reason: a charge
    that fails when it resumes is the first that is due.
    """
    since = 0
    for event in stripe.engine.events:
        sub = event["data"]["object"]
        if sub["id"] != name:
            continue
        if due(sub):
            since = since or event["created"]
        elif sub["status"] in ("active", "trialing", "paused"):
            since = 0
    return datetime.fromtimestamp(since, UTC)


def due(sub: Event) -> bool:
    """Return whether a payment failed and is still due, so that the grace period counts."""
    paused = ((sub["status_details"] or {}).get("paused") or {}).get("subscription") or {}
    failed = paused.get("type") in ("first_payment_failure", "final_payment_failure")
    return sub["status"] == "past_due" or (sub["status"] == "paused" and failed)


def facts(stripe: Stripe) -> Counter[tuple[str, str]]:
    """What should have been announced of each workspace: each fact once."""
    reported: set[tuple[str, str, str]] = set()
    for event in stripe.engine.events:
        about = event["data"]["object"]
        if about["object"] not in ("subscription", "invoice"):
            continue
        whose = owner(stripe, about["customer"])
        if about["object"] == "subscription":
            if about["status"] in _GAVE_ACCESS:
                reported.add((whose, "SubscriptionActivated", about["id"]))
            if event["type"] == "customer.subscription.trial_will_end":
                reported.add((whose, "TrialEnding", f"{about['id']}{about['trial_end']}"))
        elif event["type"] == "invoice.payment_failed":
            reported.add((whose, "PaymentFailed", f"{about['id']}{about['attempt_count']}"))
        elif event["type"] == "invoice.paid" and about["amount_paid"]:
            reported.add((whose, "PaymentSucceeded", about["id"]))
    over = {s["id"] for s in stripe.subscriptions() if s["status"] == "canceled"}
    reported |= {
        (w, "SubscriptionCancelled", s)
        for w, name, s in reported
        if name == "SubscriptionActivated" and s in over
    }
    return Counter((whose, name) for whose, name, _ in reported)


def charged(stripe: Stripe) -> Counter[str]:
    """What each workspace's cards were charged, in minor units."""
    found: Counter[str] = Counter()
    for one in stripe.engine.objects.values():
        if one["object"] == "charge" and one["paid"]:
            found[owner(stripe, one["customer"])] += one["amount"]
    return found


def booked() -> Counter[str]:
    """What we announced as paid for each workspace, and what its invoices add up to."""
    with postgres.transaction() as tx:
        rows = tx.rows(
            "SELECT detail->>'workspaceId' AS workspace, detail->'data'->>'amount' AS amount"
            " FROM outbox WHERE detail_type = 'PaymentSucceeded'"
        )
        paid = tx.rows(
            "SELECT c.workspace_id AS workspace, sum(i.amount_paid) AS amount FROM invoice i"
            " JOIN billing_customer c ON c.id = i.customer_id GROUP BY 1"
        )
    found: Counter[str] = Counter()
    for row in rows:
        found[str(row["workspace"])] += int(str(row["amount"]))
    assert +found == +Counter({str(row["workspace"]): int(str(row["amount"])) for row in paid})
    return found


def reported() -> Counter[tuple[str, str]]:
    with postgres.transaction() as tx:
        rows = tx.rows("SELECT detail_type, detail->>'workspaceId' AS workspace FROM outbox")
    return Counter(
        (str(row["workspace"]), str(row["detail_type"]))
        for row in rows
        if row["detail_type"] in MAILS
    )


def allowed() -> dict[str, tuple[str, str]]:
    with postgres.transaction() as tx:
        rows = tx.rows("SELECT workspace_id, access, plan_id, limits FROM workspace_billing")
    for row in rows:
        assert row["limits"] == LIMITS[str(row["plan_id"])]
    return {str(r["workspace_id"]): (str(r["access"]), str(r["plan_id"])) for r in rows}


# ---- deliveries


def request(body: str, *, secret: str = SECRET) -> dict[str, Any]:
    """Return what the function URL gets when Stripe posts `body` at this moment."""
    signature = WebhookSignature.generate_signature_header(body, secret)
    return {
        "version": "2.0",
        "routeKey": "$default",
        "headers": {"stripe-signature": signature, "content-type": "application/json"},
        "requestContext": {"http": {"method": "POST", "path": "/"}, "requestId": "delivery-1234"},
        "body": body,
        "isBase64Encoded": False,
    }


def deliver(body: str) -> int:
    """Post an event to stripe_webhook in this process; return the status."""
    answer = function("stripe_webhook").handler(request(body), CONTEXT)
    return int(answer["statusCode"])


class Workers:
    """Processes that take deliveries side by side, as Lambda would."""

    def __init__(self, size: int, log: Path) -> None:
        self._size = size
        self._pool = forkserver().Pool(size, _begin, (str(log), list(sys.path)))

    def deliver(self, bodies: Sequence[str]) -> list[int]:
        environment = dict(os.environ)
        jobs = [(body, environment) for body in bodies]
        return self._pool.map_async(_take, jobs, chunksize=1 + len(jobs) // 400).get(240)

    def timed(self, bodies: Sequence[str], rate: float = 0) -> tuple[list[Timed], float]:
        """Deliver, each worker its share; return each answer, and how many seconds all took.

        Each worker delivers one after another. With a `rate`, of deliveries a second of all
        together, each is due at its own moment and its seconds count from that moment: those that
        it waits for a busy worker are among them. This process has nothing to do meanwhile.
        """
        environment, begins = dict(os.environ), time.monotonic() + 2
        step = 1 / rate if rate else 0
        jobs = [
            (bodies[i :: self._size], environment, begins + i * step, self._size * step)
            for i in range(self._size)
        ]
        shares = self._pool.map(_clock, jobs, chunksize=1)
        ended = max(ended for _, ended in shares)
        return [answer for answers, _ in shares for answer in answers], ended - begins

    def until_taken(self, bodies: Sequence[str], rounds: int = 30) -> int:
        """Deliver; what is answered 5xx comes again, as from Stripe. Return how often it was."""
        again = 0
        for _ in range(rounds):
            statuses = self.deliver(bodies)
            assert set(statuses) <= {200, 500}, Counter(statuses)
            bodies = [b for b, status in zip(bodies, statuses, strict=True) if status == 500]
            again += len(bodies)
            if not bodies:
                return again
        raise AssertionError(f"{len(bodies)} deliveries are refused for ever")

    def stop(self) -> None:
        self._pool.terminate()
        self._pool.join()


def _begin(log: str, path: list[str]) -> None:
    _write_to(log)


def _clock(
    job: tuple[Sequence[str], Mapping[str, str], float, float],
) -> tuple[list[Timed], float]:
    bodies, environment, begins, step = job
    _settle_in(environment)
    function("stripe_webhook")
    answers = []
    for number, body in enumerate(bodies):
        due = begins + number * step if step or not number else time.monotonic()
        time.sleep(max(0.0, due - time.monotonic()))
        answers.append((deliver(body), time.monotonic() - due))
    return answers, time.monotonic()


def _take(job: tuple[str, Mapping[str, str]]) -> int:
    body, environment = job
    _settle_in(environment)
    return deliver(body)
