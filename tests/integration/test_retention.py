"""What is past its time goes in batches found by an index; no table grows unnoticed."""

from collections.abc import Callable

import pytest

from kyora import cache, idempotency, postgres
from kyora.billing import sweep
from kyora.bus import inbox, outbox
from kyora.email import retention
from tests.unit.functions import function

# How to fill a table: n counts up to ROWS, and `age` is between now and a time long past.
ROWS = 30_000
AGE = f"now() - n * interval '500 days' / {ROWS}"
PURGES: dict[str, tuple[Callable[[], int], str, str]] = {
    "outbox": (
        outbox.forget,
        "(id, source, detail_type, detail, created_at, published_at)",
        f"'evt_' || n, 's', 't', '{{}}', {AGE}, {AGE}",
    ),
    "inbox": (inbox.forget, "(consumer, event_id, received_at)", f"'c', 'evt_' || n, {AGE}"),
    "email_message": (
        retention.forget,
        """(id, event_id, event, template, recipient, recipient_norm, correlation_id, locale,
        status, expires_at, ended_at)""",
        f"'e' || n, 'e' || n, 'e', 't', 'r', 'r', 'c', 'en', 'sent', {AGE}, {AGE}",
    ),
    "email_event": (
        retention.forget,
        "(id, type, payload, received_at)",
        f"'m' || n, 'email.sent', '{{}}', {AGE}",
    ),
    "idempotency_key": (
        idempotency.forget,
        "(workspace_id, operation, key, request_hash, response, created_at)",
        f"'ws_demo', 'o', n::text, 'h', '{{}}', {AGE}",
    ),
    "cache_entry": (
        cache.forget,
        "(key, value, expires_at)",
        f"decode(lpad(to_hex(n), 8, '0'), 'hex'), ''::bytea, {AGE} + interval '250 days'",
    ),
    "stripe_event": (
        sweep.forget_events,
        "(id, type, created, source, status, received_at)",
        f"'evt_' || n, 't', 1, 'webhook', 'processed', {AGE}",
    ),
    "stripe_event with its body": (
        sweep.forget_bodies,
        "(id, type, created, source, body, status, received_at)",
        f"'evt_' || n, 't', 1, 'webhook', '{{}}', 'processed', {AGE}",
    ),
    "billing_fact": (sweep.forget_facts, "(key, created_at)", f"'dunning:' || n, {AGE}"),
}
KEPT = {
    "workspace": "accounts",
    "app_user": "accounts",
    "business": "the product's own data",
    "storage_usage": "a row a workspace",
    "asset": "the product's own data; what never became ready is told by its row",
    "email_suppression": "what keeps mail from people who do not want it",
    "email_provider_state": "a row a provider",
    "mock_mailbox": "development only; the newest are kept",
    "mock_failure": "development only",
    "billing_customer": "the product's own data",
    "payment_method": "the product's own data",
    "subscription": "the product's own data",
    "invoice": "the product's own data",
    "plan": "a row a plan",
    "plan_price": "a row a price",
    "workspace_billing": "a row a workspace",
    "billing_run": "two rows",
    "billing_operation": "a row a workspace at most",
    "payment_method_fee": "the product's own data",
    "order_payment": "the product's own data",
    "transaction_fee": "the product's own data",
    "analytics_event": "what a rebuild counts from",
    "analytics_count": "what is counted",
    "heartbeat": "a row a scheduled function",
    "schema_migration": "a row a migration",
}


def test_every_table_is_purged_or_has_a_reason_to_stay(database: str) -> None:
    with postgres.transaction() as tx:
        rows = tx.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    purged = {name.split(maxsplit=1)[0] for name in PURGES}
    assert {str(row["tablename"]) for row in rows} == purged | set(KEPT)


def test_every_purge_is_somebodys_work() -> None:
    done = {*function("relay_outbox")._FORGETS, *sweep.FORGETS}
    assert {forget for forget, *_ in PURGES.values()} == done


@pytest.mark.parametrize("name", PURGES)
def test_a_batch_is_small_and_found_by_an_index(name: str, database: str) -> None:
    forget, columns, values = PURGES[name]
    table = name.split(maxsplit=1)[0]
    with postgres.transaction() as tx:
        tx.run(
            f"INSERT INTO {table} {columns} SELECT {values} FROM generate_series(1, {ROWS}) AS n"
        )
    with postgres.transaction() as tx:
        tx.run(f"ANALYZE {table}")
    before = scans(table)
    assert forget() == 1000
    assert scans(table) == before


def scans(table: str) -> int:
    """How often the whole table was read."""
    with postgres.transaction() as tx:
        tx.rows("SELECT pg_stat_force_next_flush()")
    with postgres.transaction() as tx:
        row = tx.row("SELECT seq_scan FROM pg_stat_user_tables WHERE relname = :name", name=table)
    assert row is not None
    return int(str(row["seq_scan"]))
