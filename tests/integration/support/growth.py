"""Large tables, and what runs per request, event or minute on them."""

import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import jwt

from kyora import config, invariants, postgres, status, tokens
from kyora.accounting.record import record
from kyora.analytics.count import update
from kyora.billing import stripe_objects
from kyora.billing.events import ingest
from kyora.bus import outbox
from kyora.bus.events import parse
from kyora.email import delivery
from tests.integration.support import api, ledger, mail_queue
from tests.integration.support.samples import PNG

WORKSPACES = 1000
_AT = "now() - n * interval '1 minute'"
# Of other workspaces and of ours, ended and long ago; n counts up.
TABLES = {
    "workspace": "(id, name) SELECT 'ws_' || n, 'W' FROM generate_series(1, 1000) n",
    "app_user": "(id, workspace_id, email, role) SELECT 'usr_' || n, 'ws_' || 1 + n % 1000,"
    " 'a@example.com', 'user' FROM n",
    "business": "(id, workspace_id, name, currency) SELECT 'biz_' || n, 'ws_' || 1 + n % 1000, 'B',"
    " 'USD' FROM n UNION SELECT 'biz_demo', 'ws_demo', 'Demo', 'USD'",
    "storage_usage": "(workspace_id, used_bytes) SELECT 'ws_' || n, 100"
    " FROM generate_series(1, 1000) n",
    "workspace_billing": "(workspace_id, plan_id, access, limits, status)"
    " SELECT 'ws_' || n, id, 'free', limits, 'free' FROM free_plan, generate_series(1, 1000) n",
    "asset": "(id, workspace_id, created_by, filename, content_type, size, status, final_attempt,"
    " sha256, url_expires_at, confirm_deadline, ready_at)"
    f" SELECT 'ast_' || n, 'ws_' || 1 + n % 1000, 'u', 'a', 't', 1, 'ready', 'a', 's', {_AT},"
    f" {_AT}, {_AT} FROM n",
    "outbox": "(id, source, detail_type, detail, created_at, published_at)"
    f" SELECT 'evt_' || n, 's', 'OrderCreated', '{{}}', {_AT}, {_AT} FROM n",
    "inbox": "(consumer, event_id, received_at)"
    f" SELECT 'update_analytics', 'evt_' || n, {_AT} FROM n",
    "idempotency_key": "(workspace_id, operation, key, request_hash, response)"
    " SELECT 'ws_demo', 'o', n::text, 'h', '{}' FROM n",
    "email_message": "(id, event_id, event, template, recipient, recipient_norm, correlation_id,"
    " locale, status, expires_at, ended_at)"
    f" SELECT 'e' || n, 'evt_' || n, 'e', 't', 'r', 'r', 'c', 'en', 'sent', {_AT}, {_AT} FROM n",
    "stripe_event": "(id, type, created, source, status, received_at)"
    f" SELECT 'evt_' || n, 't', 1, 'webhook', 'processed', {_AT} FROM n",
    "billing_customer": "(id, workspace_id) SELECT 'cus_' || n, 'ws_' || n"
    " FROM generate_series(1, 1000) n",
    "order_payment": "(workspace_id, business_id, order_id, event_id, occurred_at)"
    f" SELECT 'ws_demo', 'biz_demo', 'ord_' || n || 'x', 'evt_' || n, {_AT} FROM n",
    "transaction_fee": "(workspace_id, business_id, order_id, method, amount, currency, paid_at,"
    " event_id) SELECT 'ws_demo', 'biz_demo', 'ord_' || n || 'x', 'm', 1, 'USD', now(), 'evt_' || n"
    " FROM n",
}


def filled(rows: int) -> Iterator[str]:
    """Yield the statements that fill every table; their session checks no foreign key."""
    yield "SET session_replication_role = replica"
    yield f"CREATE TEMP TABLE n AS SELECT generate_series(1, {rows}) AS n"
    for name, values in TABLES.items():
        yield f"INSERT INTO {name} {values}"
        yield f"ANALYZE {name}"


# ---- the steps

_number = iter(range(10**6))


def request() -> str:
    body = {"filename": "a.png", "contentType": "image/png", "size": len(PNG.data)}
    answer = api.call(
        "POST /v1/assets/upload", body=body, headers={"idempotency-key": f"k{next(_number)}"}
    )
    assert answer.status == 200, answer
    return str(answer.body["assetId"])


def upload() -> str:
    asset = request()
    path = Path(config.storage().local_path) / f"incoming/ws_demo/{asset}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(PNG.data)
    answer = api.call("POST /v1/assets/{assetId}/confirm", asset_id=asset)
    assert answer.status == 200, answer
    assert api.call("GET /v1/assets/{assetId}", asset_id=asset).status == 200
    return asset


def delete() -> None:
    assert api.call("DELETE /v1/assets/{assetId}", asset_id=upload()).status == 204


def authorise() -> None:
    expiry = int(datetime.now(UTC).timestamp()) + 600
    claims = {"userId": "usr_demo_admin", "workspaceId": "ws_demo", "authVersion": 1, "exp": expiry}
    found = jwt.encode(claims, os.environ["AUTH_JWT_SECRET"])
    assert tokens.authorize(found)["role"] == "admin"


def relay() -> None:
    with postgres.transaction() as tx:
        tx.run(
            "INSERT INTO outbox (id, source, detail_type, detail) VALUES (:id, 's', 't', '{}')",
            id=f"evt_due_{next(_number)}",
        )
    assert outbox.publish() >= 1
    outbox.waiting()
    outbox.oldest_age()


def pay() -> None:
    record(ledger.payment(orderId=f"ord_{next(_number)}", businessId="biz_demo"))


def order() -> None:
    update(ledger.order(f"ord_{next(_number)}"))


def mail() -> None:
    name, detail = mail_queue.verification(f"a{next(_number)}@example.com")
    delivery.deliver(parse(name, detail))


def webhook() -> None:
    number = next(_number)
    moment = int(datetime.now(UTC).timestamp())
    item = {
        "id": "si_1",
        "price": {"id": "price_1"},
        "quantity": 1,
        "current_period_end": moment + 99,
    }
    found = {
        "object": "subscription",
        "id": f"sub_{number}",
        "customer": f"cus_{1 + number % 1000}",
        "status": "canceled",
        "created": moment,
        "ended_at": moment,
        "items": {"data": [item], "has_more": False},
    }
    payload = {
        "object": "event",
        "id": f"evt_sub_{number}",
        "type": "customer.subscription.deleted",
        "created": moment,
        "api_version": stripe_objects.API_VERSION,
        "livemode": False,
        "data": {"object": found},
    }
    event = stripe_objects.event(payload)
    assert event is not None
    ingest.take(event, json.dumps(payload), "webhook")


def billing() -> None:
    assert api.call("GET /v1/billing/subscription").status == 200
    assert api.call("GET /v1/billing/plans").status == 200
    assert api.call("GET /v1/billing/invoices").status == 200


def minute() -> None:
    status.read()
    status.overdue()
    invariants.check()


STEPS: dict[str, Callable[[], object]] = {
    "a token is verified": authorise,
    "an upload is asked for": request,
    "an upload is confirmed and shown": upload,
    "a file is deleted": delete,
    "the relay publishes": relay,
    "a payment has its fee": pay,
    "an order is counted": order,
    "a mail is sent": mail,
    "a webhook is processed": webhook,
    "a workspace looks at its plan": billing,
    "a minute's report": minute,
}
