"""What is past its time goes in batches found by an index; no table grows unnoticed."""

import pytest

from kyora import postgres
from tests.integration.support.old_rows import PURGES, fill
from tests.unit.functions import function

KEPT = {
    "workspace": "accounts",
    "app_user": "accounts",
    "business": "the product's own data",
    "storage_usage": "a row a workspace",
    "variant_set": "a row an image, with it",
    "asset_variant": "six rows an image, with it",
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
    "plan_product": "a row a product",
    "free_plan_choice": "one row",
    "subscription_terms": "a row a subscription, with it",
    "workspace_billing": "a row a workspace",
    "billing_run": "two rows",
    "billing_operation": "a row a workspace at most",
    "payment_method_fee": "the product's own data",
    "order_payment": "the product's own data",
    "transaction_fee": "the product's own data",
    "analytics_event": "what a rebuild counts from",
    "analytics_count": "what is counted",
    "heartbeat": "a row a scheduled function",
    "check_position": "two rows",
    "difference": "rows for what differs; report_status deletes them after 18 days",
    "email_domain": "a row a domain",
    "email_check": "a row",
    "schema_migration": "a row a migration",
}


def test_every_table_is_purged_or_has_a_reason_to_stay(database: str) -> None:
    with postgres.transaction() as tx:
        rows = tx.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    purged = {name.split(maxsplit=1)[0] for name in PURGES}
    assert {str(row["tablename"]) for row in rows} == purged | set(KEPT)


def test_every_purge_is_work_of_purge_data() -> None:
    assert {forget for forget, *_ in PURGES.values()} == {*function("purge_data")._FORGETS}


@pytest.mark.parametrize("name", PURGES)
def test_a_batch_is_small_and_found_by_an_index(name: str, database: str) -> None:
    table = fill(name, 30_000)
    before = scans(table)
    assert PURGES[name][0]() == 1000
    assert scans(table) == before


def scans(table: str) -> int:
    """How often the whole table was read."""
    with postgres.transaction() as tx:
        tx.rows("SELECT pg_stat_force_next_flush()")
    with postgres.transaction() as tx:
        row = tx.row("SELECT seq_scan FROM pg_stat_user_tables WHERE relname = :name", name=table)
    assert row is not None
    return int(str(row["seq_scan"]))
