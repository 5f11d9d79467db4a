"""People of a few workspaces, what they do in a year at random, and what must be right at its end.

They use the API, Stripe's pages and, as the owner of the account would, Stripe's own API. Nothing
here asks our code what is right: rows are compared with Stripe's objects and with what was done.
"""

import json
import random
import time
import urllib.error
import urllib.request
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any
from urllib.parse import urlencode

import jwt

from tests.e2e.commands import PNG, client, control, move_clock, query, run
from tests.e2e.conftest import Answer, Stack, request
from tests.e2e.payer import FAILS_LATER, GOOD, card, send

_OVER = ("canceled", "incomplete_expired")
_GRACE = timedelta(days=7)
# What a person may be answered: refused for a reason, or asked to try again. Never a fault.
_ANSWERS = {200, 201, 202, 204, 402, 403, 404, 409, 410, 422, 503}
MAILED = {
    *("SubscriptionActivated", "SubscriptionCancelled", "SubscriptionPaused"),
    *("SubscriptionResumed", "PaymentFailed", "PaymentRecovered", "TrialEnding", "GraceEnding"),
    *("PaymentMethodExpiring", "RenewalUpcoming"),
}


@dataclass
class Year:
    """A stack, its workspaces, and what was seen of rows that are purged during a year."""

    stack: Stack
    dice: random.Random
    people: "list[Person]" = field(default_factory=list)
    events: dict[str, tuple[str, str, dict[str, Any]]] = field(default_factory=dict)
    messages: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    delivered: Counter[str] = field(default_factory=Counter)
    done: list[str] = field(
        default_factory=list
    )  # what happened, for who has to understand a fault

    def pass_time(self, days: float) -> None:
        """Move the clock, at most as far as rows are kept, and read them."""
        while days > 0:
            part = min(days, 6)
            self.done.append(f"+{part:.1f} d")
            moved = move_clock(self.stack, to=f"+{round(part * 24)}h", stepDays=4)
            self.done += moved["faults"]
            self.read()
            days -= part

    def read(self) -> None:
        """Keep what a later purge deletes."""
        for name, kind, workspace, data in query(
            self.stack,
            "SELECT id, detail_type, detail->>'workspaceId', CAST(detail->'data' AS text)"
            " FROM outbox",
        ):
            self.events[name] = (kind, workspace, json.loads(data))
        for name, *message in query(
            self.stack, "SELECT id, event_id, event, status FROM email_message"
        ):
            self.messages[name] = (message[0], message[1], message[2])
        for name, count in query(
            self.stack, "SELECT idempotency_key, count(*) FROM mock_mailbox GROUP BY 1"
        ):
            self.delivered[name] = count

    def now(self) -> datetime:
        [[found]] = query(self.stack, "SELECT now()")
        assert isinstance(found, datetime)
        return found

    # ---- Stripe's own API, as the owner of the account uses it

    def stripe(self, method: str, path: str, **params: Any) -> dict[str, Any]:
        """Ask Stripe; what it refuses is nothing that could be done."""
        env = self.stack.env
        url = f"{env['STRIPE_URL']}/v1/{path}"
        data = urlencode(params).encode() if params else None
        if method == "GET" and params:
            url, data = f"{url}?{urlencode(params)}", None
        outgoing = urllib.request.Request(
            url,
            data,
            {"Authorization": f"Bearer {env['BILLING_STRIPE_API_KEY']}"},
            method=method,
        )
        for _ in range(6):  # a read meets the faults that are meant for the functions as well
            try:
                with urllib.request.urlopen(outgoing, timeout=30) as answer:
                    found: dict[str, Any] = json.load(answer)
                    return found
            except urllib.error.HTTPError as refused:
                with refused:
                    if method != "GET" or refused.code < 500:
                        return {}
            except OSError:
                if method != "GET":
                    return {}
        raise AssertionError(f"Stripe does not answer {path}")

    def all(self, path: str, **params: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        more = True
        while more:
            after = {"starting_after": found[-1]["id"]} if found else {}
            page = self.stripe("GET", path, limit="100", **params, **after)
            found += page["data"]
            more = page["has_more"]
        return found

    # ---- what goes wrong

    def fault(self) -> None:
        """Let webhooks be lost, repeated and mixed up, or Stripe's API fail for a while."""
        kind = self.dice.choice(("pump", "status", "lose", "calm", "calm"))
        self.done.append(f"fault {kind}")
        if kind == "pump":
            chances = {"drop": 0.3, "duplicate": 0.4, "shuffle": True}
            control(self.stack, "pump", **chances, seed=self.dice.randrange(1 << 30))
        elif kind == "calm":
            control(self.stack, "pump", drop=0, duplicate=0, shuffle=False)
        else:
            status = {"status": 500} if kind == "status" else {}
            control(self.stack, "faults", kind=kind, times=self.dice.randint(1, 4), **status)

    def calm(self) -> None:
        """End every fault, and let the daily reconciliation find what was lost."""
        control(self.stack, "pump", drop=0, duplicate=0, shuffle=False)
        self.pass_time(3)


@dataclass
class Person:
    """The owner of a workspace."""

    year: Year
    id: str
    token: str = ""
    uploads: dict[str, str] = field(default_factory=dict)  # asset → what was done about it
    orders: dict[str, Decimal] = field(default_factory=dict)
    customer: str = ""

    def arrive(self) -> None:
        """Sign up, as the application would do it."""
        stack = self.year.stack
        for sql in (
            "INSERT INTO workspace (id, name, owner_id) VALUES (:id, 'Shop', :user)",
            (
                "INSERT INTO app_user (id, workspace_id, email, name, role, locale) VALUES"
                " (:user, :id, :mail, 'Dana', 'admin', 'en')"
            ),
            (
                "INSERT INTO business (id, workspace_id, name, currency)"
                " VALUES (:business, :id, 'Shop', 'USD')"
            ),
            (
                "INSERT INTO payment_method_fee (workspace_id, business_id, method, percent, fixed)"
                " VALUES (:id, :business, 'credit_card', 0.029, 0.30)"
            ),
            "INSERT INTO storage_usage (workspace_id) VALUES (:id)",
        ):
            given = {"id": self.id, "user": f"usr_{self.id}", "business": f"biz_{self.id}"}
            given["mail"] = f"{self.id}@shop.example".replace("_", "-")
            query(stack, sql, **{k: v for k, v in given.items() if f":{k}" in sql})
        claims = {"userId": f"usr_{self.id}", "workspaceId": self.id, "authVersion": 1}
        claims["exp"] = int(time.time()) + 5 * 366 * 86400
        self.token = jwt.encode(claims, stack.env["AUTH_JWT_SECRET"], algorithm="HS256")

    def call(self, method: str, path: str, body: object = None) -> Answer:
        try:
            found = self.year.stack.call(method, path, body, token=self.token)
        except TimeoutError:  # on a machine that has too much to do: as when an answer is lost
            found = Answer(503, {}, b"{}")
        self.year.done.append(f"{self.id} {method} {path} {body or ''} → {found.status}")
        assert found.status in _ANSWERS, (found, self.year.done)
        return found

    def act(self) -> None:
        """Do something that a person may do now."""
        names = ["subscribe"] * 4 + ["card_good", "card_bad", "pause", "resume", "resume"]
        names += ["downgrade", "upgrade", "cancel", "cancel_now", "refund", "pay", "trial"]
        names += ["upload", "upload", "abandon", "forget", "delete", "order", "order"]
        getattr(self, self.year.dice.choice(names))()

    # ---- billing

    def live(self) -> list[dict[str, Any]]:
        found = self.year.all("subscriptions", customer=self.customer, status="all")
        return [sub for sub in found if sub["status"] not in _OVER] if self.customer else []

    def know(self) -> None:
        rows = query(
            self.year.stack,
            "SELECT id FROM billing_customer WHERE workspace_id = :id AND deleted_at IS NULL",
            id=self.id,
        )
        self.customer = rows[0][0] if rows else ""

    def subscribe(self) -> None:
        url = self.year.stack.env["KYORA_URL"]
        plan = self.year.dice.choice(("professional", "enterprise"))
        body = {"planId": plan, "successUrl": url, "cancelUrl": url}
        asked = self.call("POST", "/v1/billing/checkout-session", body)
        if asked.status == 200:
            with suppress(TimeoutError):
                send(asked.json["url"], email="a@shop.example", name="Dana", **card(GOOD))
        self.know()

    def trial(self) -> None:
        """The owner of the account gives a trial by Stripe's dashboard."""
        self.know()
        if not self.customer or self.live():
            return
        plans = self.call("GET", "/v1/billing/plans").json["items"]
        price = next(p["stripePriceId"] for p in plans if p["id"] == "professional")
        given = {"customer": self.customer, "items[0][price]": price, "trial_period_days": "10"}
        self.year.done.append(f"{self.id} trial")
        self.year.stripe("POST", "subscriptions", **given)

    def _card(self, number: str) -> None:
        found = self.call(
            "POST",
            "/v1/billing/portal-session",
            {"returnUrl": self.year.stack.env["KYORA_URL"]},
        )
        if found.status == 200:
            with suppress(TimeoutError):
                send(f"{found.json['url']}/card", **card(number))

    def card_good(self) -> None:
        self._card(GOOD)

    def card_bad(self) -> None:
        self._card(FAILS_LATER)

    def pause(self) -> None:
        self.call("POST", "/v1/billing/subscription/pause", {})

    def resume(self) -> None:
        self.call("POST", "/v1/billing/subscription/resume", {})

    def downgrade(self) -> None:
        plan = self.year.dice.choice(("starter", "professional"))
        self.call("POST", "/v1/billing/subscription", {"planId": plan})

    def upgrade(self) -> None:
        self.call("POST", "/v1/billing/subscription", {"planId": "enterprise"})

    def cancel(self) -> None:
        self.call("DELETE", "/v1/billing/subscription")

    def cancel_now(self) -> None:
        self.call("DELETE", "/v1/billing/subscription?when=now")

    def pay(self) -> None:
        """Pay what is open on Stripe's page."""
        for invoice in self._invoices("open"):
            self.year.stripe("POST", f"invoices/{invoice['id']}/pay")

    def refund(self) -> None:
        for invoice in self._invoices("paid")[:1]:
            intents = self.year.all("invoice_payments", invoice=invoice["id"])
            for payment in intents[:1]:
                self.year.done.append(f"{self.id} refund {invoice['id']}")
                self.year.stripe(
                    "POST", "refunds", payment_intent=payment["payment"]["payment_intent"]
                )

    def _invoices(self, status: str) -> list[dict[str, Any]]:
        self.know()
        if not self.customer:
            return []
        return self.year.all("invoices", customer=self.customer, status=status)

    # ---- uploads

    def _ticket(self) -> dict[str, Any] | None:
        body = {"filename": "a.png", "contentType": "image/png", "size": len(PNG)}
        asked = self.call("POST", "/v1/assets/upload", body)
        if asked.status != 200:
            return None
        ticket: dict[str, Any] = asked.json
        return ticket

    def _put(self, ticket: dict[str, Any]) -> None:
        assert request("PUT", ticket["uploadUrl"], PNG, ticket["headers"]).status == 200

    def upload(self) -> None:
        if ticket := self._ticket():
            self._put(ticket)
            done = self.call("POST", f"/v1/assets/{ticket['assetId']}/confirm")
            assert done.status in (200, 202, 503), done
            self.uploads[ticket["assetId"]] = "ready"

    def abandon(self) -> None:
        """Ask, and never send the file."""
        if ticket := self._ticket():
            self.uploads[ticket["assetId"]] = "expired"

    def forget(self) -> None:
        """Send the file, and never confirm: the bucket's event does."""
        if ticket := self._ticket():
            self._put(ticket)
            self.uploads[ticket["assetId"]] = "ready"

    def delete(self) -> None:
        ready = [name for name, state in self.uploads.items() if state == "ready"]
        if ready and self.call("DELETE", f"/v1/assets/{ready[0]}").status == 204:
            self.uploads[ready[0]] = "deleted"

    # ---- orders

    def order(self) -> None:
        """Sell something, as the application's own outbox reports it, some of it twice."""
        number = f"ord_{self.id}_{len(self.orders)}"
        total = Decimal(self.year.dice.randint(100, 99999)) / 100
        at = self.year.now().isoformat()
        self.orders[number] = total
        base = {"orderId": number, "businessId": f"biz_{self.id}", "total": str(total)}
        base["currency"] = "USD"
        for name, more in (
            ("OrderCreated", {}),
            ("OrderPaymentSucceeded", {"paymentMethod": "credit_card", "paidAt": at}),
        ):
            for copy in range(self.year.dice.choice((1, 1, 2))):
                detail = {
                    "id": f"evt_{number}_{name}_{copy}",
                    "occurredAt": at,
                    "version": 1,
                    "workspaceId": self.id,
                    "correlationId": "a-year-of-orders",
                    "data": base | more,
                }
                query(
                    self.year.stack,
                    "INSERT INTO outbox (id, source, detail_type, detail)"
                    " VALUES (:id, 'kyora.orders', :name, CAST(:detail AS jsonb))",
                    id=detail["id"],
                    name=name,
                    detail=json.dumps(detail),
                )

    # ---- what must be right

    def check(self) -> None:
        done = self.year.done
        self._check_subscriptions(done)
        self._check_invoices(done)
        self._check_uploads(done)
        self._check_orders(done)
        self._check_mails(done)

    def _check_subscriptions(self, done: list[str]) -> None:
        self.know()
        subs = (
            self.year.all("subscriptions", customer=self.customer, status="all")
            if self.customer
            else []
        )
        rows = {
            row[0]: tuple(row[1:])
            for row in query(
                self.year.stack,
                "SELECT id, status, extract(epoch FROM period_end)::int8,"
                " extract(epoch FROM cancel_at)::int8 FROM subscription"
                " WHERE customer_id = :id",
                id=self.customer,
            )
        }
        for sub in subs:
            end = sub["items"]["data"][0]["current_period_end"]
            status, period_end, cancel_at = rows[sub["id"]]
            assert (sub["id"], status) == (sub["id"], sub["status"]), done
            if sub["status"] not in _OVER:
                ends = sub["cancel_at"] or (end if sub["cancel_at_period_end"] else None)
                assert (period_end, cancel_at) == (end, ends), (sub["id"], done)
        live = [sub for sub in subs if sub["status"] not in _OVER]
        assert len(live) <= 1, done
        found = self.call("GET", "/v1/billing/subscription").json
        assert found["access"] == self._access(live), (found, live, done)

    def _access(self, live: list[dict[str, Any]]) -> str:
        """What a workspace may do by Stripe's objects alone."""
        if not live:
            return "free"
        [sub] = live
        if sub["status"] in ("active", "trialing"):
            return "full"
        if sub["status"] == "past_due":
            invoice = self.year.stripe("GET", f"invoices/{sub['latest_invoice']}")
            begun = datetime.fromtimestamp(invoice["status_transitions"]["finalized_at"], UTC)
            return "grace" if self.year.now() < begun + _GRACE else "free"
        return "free"

    def _check_invoices(self, done: list[str]) -> None:
        invoices = self.year.all("invoices", customer=self.customer) if self.customer else []
        rows = {
            row[0]: tuple(row[1:])
            for row in query(
                self.year.stack,
                "SELECT id, status, total, amount_paid FROM invoice WHERE customer_id = :id",
                id=self.customer,
            )
        }
        reported = Counter(
            data["invoiceId"]
            for kind, workspace, data in self.year.events.values()
            if kind == "PaymentSucceeded" and workspace == self.id
        )
        for invoice in invoices:
            if invoice["status"] == "draft":
                continue
            is_at_stripe = (invoice["status"], invoice["total"], invoice["amount_paid"])
            assert rows[invoice["id"]] == is_at_stripe, (invoice["id"], done)
            paid = invoice["status"] == "paid" and invoice["amount_paid"] > 0
            assert reported.pop(invoice["id"], 0) == int(paid), (invoice["id"], done)
        assert not reported, (reported, done)

    def _check_uploads(self, done: list[str]) -> None:
        rows = query(
            self.year.stack,
            "SELECT id, status, size FROM asset WHERE workspace_id = :id",
            id=self.id,
        )
        kept = {name: status for name, status, _ in rows}
        for name, status in self.uploads.items():
            assert kept.get(name, status) == status, (name, kept.get(name), status, done)
            assert status != "ready" or name in kept, (name, done)
        [[used, reserved]] = query(
            self.year.stack,
            "SELECT used_bytes, reserved_bytes FROM storage_usage WHERE workspace_id = :id",
            id=self.id,
        )
        ready = [size for _, status, size in rows if status == "ready"]
        assert (used, reserved) == (sum(ready), 0), done
        store = client(self.year.stack, "s3")
        [name] = [b["Name"] for b in store.list_buckets()["Buckets"] if "kyora" in b["Name"]]
        pages = store.get_paginator("list_objects_v2").paginate(
            Bucket=name, Prefix=f"assets/{self.id}/"
        )
        objects = Counter(
            found["Key"].split("/")[2] for page in pages for found in page.get("Contents", [])
        )
        assert set(objects) == {name for name, status in kept.items() if status == "ready"}, done

    def _check_orders(self, done: list[str]) -> None:
        cent = Decimal("0.01")
        fees = {
            order: (total * Decimal("0.029") + Decimal("0.30")).quantize(cent, ROUND_HALF_UP)
            for order, total in self.orders.items()
        }
        rows = query(
            self.year.stack,
            "SELECT order_id, amount FROM transaction_fee WHERE business_id = :id",
            id=f"biz_{self.id}",
        )
        assert {name: Decimal(amount) / 100 for name, amount in rows} == fees, done
        [[count, amount]] = query(
            self.year.stack,
            "SELECT coalesce(sum(count), 0), coalesce(sum(amount), 0) FROM analytics_day"
            " WHERE business_id = :id AND kind = 'order'",
            id=f"biz_{self.id}",
        )
        assert (count, Decimal(amount) / 100) == (len(self.orders), sum(self.orders.values())), done

    def _check_mails(self, done: list[str]) -> None:
        """Each announcement has one mail, which was sent once."""
        by_event = Counter(event for event, _, _ in self.year.messages.values())
        for name, (kind, workspace, _) in self.year.events.items():
            if workspace == self.id and kind in MAILED:
                assert by_event[name] == 1, (name, kind, by_event[name], done)
        for message, (event, _, status) in self.year.messages.items():
            if self.year.events.get(event, ("", ""))[1] != self.id:
                continue
            assert status in ("sent", "delivered", "skipped"), (message, status, done)
            assert self.year.delivered[message] == int(status != "skipped"), (message, done)


def check_the_stack(stack: Stack) -> None:
    """Nothing waits, failed or lies in a queue of dead letters, and the mirror is Stripe."""
    left = query(
        stack,
        "SELECT status, count(*) FROM stripe_event"
        " WHERE status NOT IN ('processed', 'ignored') GROUP BY 1",
    )
    assert left == []
    assert query(stack, "SELECT count(*) FROM outbox WHERE published_at IS NULL") == [[0]]
    queues = client(stack, "sqs")
    for url in queues.list_queues()["QueueUrls"]:
        found = queues.get_queue_attributes(
            QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"]
        )
        assert found["Attributes"]["ApproximateNumberOfMessages"] == "0", url
    reconciled = run(stack, "reconcile")
    assert "Nothing differed." in reconciled.stdout, reconciled.stdout + reconciled.stderr
