"""What must hold at any time: rows are broken on purpose, and the checks find each of them."""

import json
from typing import Any

import pytest

from kyora import invariants, postgres
from kyora.invariants import CONSUMERS
from local.template import read as read_template
from tests.integration.support import invariants as truth
from tests.integration.support.invariants import rows, run
from tests.unit.functions import CONTEXT, ROOT, function

NONE = dict.fromkeys((*CONSUMERS, "storage"), 0)


def publish(event: str, *ids: str, ago: str = "11 minutes", **data: Any) -> None:
    for name in ids:
        run(
            "INSERT INTO outbox (id, source, detail_type, detail, published_at)"
            " VALUES (:id, 's', :event, CAST(:detail AS jsonb), now() - CAST(:ago AS interval))",
            id=name,
            event=event,
            ago=ago,
            detail=json.dumps({"data": data}),
        )


def handle(consumer: str, *ids: str) -> None:
    for name in ids:
        run("INSERT INTO inbox VALUES (:consumer, :id, now())", consumer=consumer, id=name)


def mail(event: str) -> None:
    run(
        "INSERT INTO email_message (id, event_id, event, template, recipient, recipient_norm,"
        " correlation_id, locale, status, expires_at, ended_at)"
        " VALUES (:id, :id, 'UserWelcomed', 'welcome', 'a', 'a', 'c', 'en', 'sent', now(), now())",
        id=event,
    )


def differing() -> dict[str, int]:
    """What differs, leaving out what does not."""
    return {name: count for name, count in invariants.check().items() if count}


# ---- events


def test_the_consumers_are_those_of_the_rules() -> None:
    """Each rule of the bus with a queue of a consumer that notes what it handles."""

    found = read_template()["Resources"]
    for consumer, rule in {
        "send_email": "EmailRule",
        "record_transaction_fee": "FeeRule",
        "update_analytics": "AnalyticsRule",
        "make_variants": "VariantRule",
    }.items():
        pattern = found[rule]["Properties"]["EventPattern"]
        assert sorted(CONSUMERS[consumer]) == sorted(pattern["detail-type"])
        only = {"data": {"variants": [True]}} if consumer == "make_variants" else None
        assert pattern.get("detail") == only, "the check knows what else the rule asks for"


def test_an_event_that_was_handled_is_accounted_for(database: str) -> None:
    publish("OrderPaymentSucceeded", "evt_1")
    publish("OrderCreated", "evt_2")
    publish("UserWelcomed", "evt_3")
    publish("AssetReady", "evt_4")  # no one's
    handle("record_transaction_fee", "evt_1")
    handle("update_analytics", "evt_2")
    mail("evt_3")
    assert invariants.check() == NONE


def test_an_event_that_was_not_is_counted_until_it_is(database: str) -> None:
    publish("OrderPaymentSucceeded", "evt_1", "evt_2")
    publish("UserWelcomed", "evt_3")
    # Another consumer's record is not this one's.
    handle("update_analytics", "evt_1", "evt_3")
    for _ in range(2):
        assert differing() == {"record_transaction_fee": 2, "send_email": 1}
    handle("record_transaction_fee", "evt_1")
    mail("evt_3")
    assert differing() == {"record_transaction_fee": 1}


def test_an_image_that_wants_variants_is_counted_until_they_are_made(database: str) -> None:
    publish("AssetReady", "evt_1", "evt_2", variants=True)
    publish("AssetReady", "evt_3", assetId="ast_1")  # its upload did not ask
    publish("OrderCreated", "evt_4", variants=True)
    handle("update_analytics", "evt_1", "evt_4")
    assert differing() == {"make_variants": 2}
    handle("make_variants", "evt_2")
    assert differing() == {"make_variants": 1}


def test_an_event_has_ten_minutes_to_arrive(database: str) -> None:
    publish("OrderCreated", "evt_1", ago="9 minutes")
    assert differing() == {}
    run("UPDATE outbox SET published_at = published_at - interval '2 minutes'")
    assert differing() == {"update_analytics": 1}


def test_an_event_that_is_not_published_is_the_outboxs(database: str) -> None:
    publish("OrderCreated", "evt_1")
    run("UPDATE outbox SET published_at = NULL")
    assert differing() == {}


def test_what_is_published_after_a_check_is_checked_by_the_next(database: str) -> None:
    publish("OrderCreated", "evt_1", ago="30 minutes")
    assert differing() == {"update_analytics": 1}
    publish("CustomerCreated", "evt_2", ago="20 minutes")
    assert differing() == {"update_analytics": 2}
    run("DELETE FROM outbox")  # after a week; what is lost stays lost
    assert differing() == {"update_analytics": 2}
    run("UPDATE difference SET since = now() - interval '19 days'")  # no queue keeps it longer
    assert differing() == {}


def test_many_at_once_are_all_checked(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of one transaction have one time, whatever a step's size is."""
    monkeypatch.setattr(invariants, "_EVENTS", 2)
    sql = invariants._NEW.replace("LIMIT 1000", "LIMIT 2")
    assert sql != invariants._NEW
    monkeypatch.setattr(invariants, "_NEW", sql)
    for minutes in (30, 25, 20):
        run(
            "INSERT INTO outbox (id, source, detail_type, detail, published_at)"
            " SELECT 'evt_' || :minutes || n, 's', 'OrderCreated', '{}',"
            f" now() - interval '{minutes} minutes' FROM generate_series(1, 3) AS n",
            minutes=str(minutes),
        )
    assert differing() == {"update_analytics": 9}


# ---- ledgers


def ledger(workspace: str, used: int, reserved: int = 0) -> None:
    run("INSERT INTO workspace (id, name) VALUES (:id, 'W') ON CONFLICT DO NOTHING", id=workspace)
    run(
        "INSERT INTO storage_usage (workspace_id, used_bytes, reserved_bytes)"
        " VALUES (:id, :used, :reserved)",
        id=workspace,
        used=used,
        reserved=reserved,
    )


def asset(workspace: str, status: str, size: int, *, reserved: bool = False) -> None:
    done = status == "ready"
    run(
        "INSERT INTO asset (id, workspace_id, created_by, status, filename, content_type, size,"
        " url_expires_at, confirm_deadline, final_attempt, sha256, reserved)"
        f" VALUES ('{workspace}{status}{size}', :workspace, 'usr', :status, 'f', 't', :size, now(),"
        f" now(), {"'a', 's'" if done else 'NULL, NULL'}, :reserved)",
        workspace=workspace,
        status=status,
        size=size,
        reserved=reserved,
    )


@pytest.fixture
def two(database: str, environment: pytest.MonkeyPatch) -> None:
    """Two workspaces whose ledgers are right."""
    with postgres.transaction(owner=True) as tx:
        tx.run("GRANT ALL ON workspace TO kyora_functions")
    for workspace in ("ws_demo", "ws_other"):
        ledger(workspace, 30, 5)
        asset(workspace, "ready", 10)
        asset(workspace, "ready", 20)
        asset(workspace, "pending", 5, reserved=True)
        asset(workspace, "pending", 7)  # its reservation has lapsed
    truth.recount()


def test_ledgers_that_are_right_are_right(two: None) -> None:
    assert invariants.check() == NONE


@pytest.mark.parametrize("column", ["used_bytes", "reserved_bytes"])
@pytest.mark.parametrize("by", [1, -1])
def test_a_ledger_that_is_wrong_is_counted_until_it_is_right(
    column: str, by: int, two: None
) -> None:
    run(f"UPDATE storage_usage SET {column} = {column} + :by WHERE workspace_id = 'ws_demo'", by=by)
    for _ in range(2):
        assert differing() == {"storage": 1}
    assert rows("SELECT subject FROM difference") == [{"subject": "ws_demo"}]
    run(f"UPDATE storage_usage SET {column} = {column} - :by WHERE workspace_id = 'ws_demo'", by=by)
    assert differing() == {}


def test_files_that_no_one_booked_are_counted(two: None) -> None:
    asset("ws_other", "ready", 1)
    assert differing() == {"storage": 1}
    asset("ws_demo", "pending", 1, reserved=True)
    assert differing() == {"storage": 2}


def test_twenty_workspaces_are_checked_at_a_time_and_then_the_next(two: None) -> None:
    for number in range(10, 55):
        ledger(f"ws_{number}", 1)  # without a file
    assert [invariants.check()["storage"] for _ in range(4)] == [20, 40, 45, 45]


def test_the_documented_statements_mend_a_ledger(two: None) -> None:
    run(
        "INSERT INTO asset (id, workspace_id, created_by, status, filename, content_type, size,"
        " url_expires_at, confirm_deadline, scan_deadline, final_attempt, sha256, reserved) VALUES"
        " ('scan', 'ws_demo', 'usr', 'scanning', 'f', 't', 11, now(), now(), now(), 'a', 's', true)"
    )
    run(
        "INSERT INTO variant_set (asset_id, workspace_id, status, reserved_bytes, lease_token,"
        " lease_until) VALUES ('ws_demoready10', 'ws_demo', 'making', 40, 't', now())"
    )
    run("INSERT INTO asset_variant VALUES ('ws_demoready10', 'ws_demo', 'small', 'webp', 1, 1, 3)")
    run("UPDATE storage_usage SET used_bytes = 0, reserved_bytes = 99")
    assert differing() == {"storage": 2}
    text = (ROOT / "docs" / "operate.md").read_text()
    found = text.partition("### A storage ledger that is wrong")[2].split("```")[1]
    statements = [one for one in found.strip().split(";") if one.strip()]
    assert [statements[0].strip(), statements[-1].strip()] == ["BEGIN", "COMMIT"]
    with postgres.transaction() as tx:
        for statement in statements[1:-1]:
            tx.rows(statement) if "SELECT 1" in statement else tx.run(statement)
    assert differing() == {"storage": 1}  # that of the other workspace
    assert rows("SELECT subject FROM difference") == [{"subject": "ws_other"}]


# ---- what is reported


def test_report_status_counts_what_differs_for_its_alarms(
    two: None, capsys: pytest.CaptureFixture[str]
) -> None:
    publish("OrderPaymentSucceeded", "evt_1")
    run("UPDATE storage_usage SET used_bytes = 0")
    answer = function("report_status").handler({}, CONTEXT)
    assert answer["differing"] == NONE | {"record_transaction_fee": 1, "storage": 2}
    lines: list[dict[str, Any]] = [
        json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")
    ]
    counted = {
        (name, line.get("Consumer", "")): line[name][0]
        for line in lines
        for name in ("EventsUnhandled", "StorageLedgersWrong")
        if name in line
    }
    assert counted == {
        ("EventsUnhandled", "send_email"): 0,
        ("EventsUnhandled", "record_transaction_fee"): 1,
        ("EventsUnhandled", "update_analytics"): 0,
        ("EventsUnhandled", "make_variants"): 0,
        ("StorageLedgersWrong", ""): 2,
    }
    shown = function("report_status").handler({"status": True}, CONTEXT)["differences"]
    assert shown["storage"]["count"] == 2
    assert (shown["record_transaction_fee"]["count"], shown["storage"]["example"]) == (1, "ws_demo")
    assert shown["record_transaction_fee"]["age"] == pytest.approx(660, abs=60)
