"""The figures behind `make status` and the share of mail that came back, from real rows."""

import json
from typing import Any

import pytest

from kyora import postgres, status
from kyora.email import reputation
from tests.unit.functions import CONTEXT, function


def run(sql: str) -> None:
    with postgres.transaction() as tx:
        tx.run(sql)


def mail(status: str, count: int = 1, *, ended: str = "now()", attempts: int = 1) -> None:
    data = "'{}'" if status == "queued" else "NULL"
    run(
        "INSERT INTO email_message (id, event_id, event, template, recipient, recipient_norm,"
        " correlation_id, locale, data, status, attempts, expires_at, ended_at, reason)"
        f" SELECT '{status}' || n, '{status}' || n, 'UserWelcomed', 'welcome', 'a', 'a', 'c', 'en',"
        f" {data}, '{status}', {attempts}, now() + interval '1 day', {ended}, '503 internal'"
        f" FROM generate_series(1, {count}) AS n"
    )


def test_nothing_waits_in_a_new_database(database: str) -> None:
    found = status.read()
    assert {name: found[name]["waiting"] for name in ("outbox", "stripe", "mail")} == {
        "outbox": 0,
        "stripe": 0,
        "mail": 0,
    }
    assert found["beats"] == {}
    assert found["runs"]["plans"]["age"] is None
    json.dumps(found)


def test_what_waits_is_reported_with_its_age_and_its_reason(database: str) -> None:
    run(
        "INSERT INTO outbox (id, source, detail_type, detail, created_at, last_error)"
        " VALUES ('evt_1', 's', 't', '{}', now() - interval '90 seconds', 'Timeout')"
    )
    run(
        "INSERT INTO stripe_event (id, type, created, source, body, status, received_at)"
        " VALUES ('evt_a', 't', 1, 'webhook', '{}', 'received', now() - interval '50 seconds'),"
        " ('evt_b', 't', 1, 'webhook', '{}', 'failed', now())"
    )
    mail("queued", 2, ended="NULL")
    mail("accepted_unknown", 1, ended="now() - interval '20 minutes'")
    found = status.read()
    assert found["outbox"] | {"oldest": 0} == {
        "waiting": 1,
        "oldest": 0,
        "error": "Timeout",
        "refused": 0,
    }
    assert found["outbox"]["oldest"] == pytest.approx(90, abs=20)
    assert (found["stripe"]["waiting"], found["stripe"]["parked"]) == (1, 1)
    assert found["stripe"]["oldest"] == pytest.approx(50, abs=20)
    assert (found["mail"]["waiting"], found["mail"]["lost"]) == (2, 1)
    assert found["mail"]["reason"] == "503 internal"


def test_a_mail_that_no_one_tried_yet_does_not_wait(database: str) -> None:
    mail("queued", ended="NULL", attempts=0)
    assert status.read()["mail"]["waiting"] == 0


@pytest.mark.parametrize("name", [*status.SCHEDULES, "sync_plans", "migrate_database"])
def test_a_scheduled_function_leaves_a_heartbeat_and_keeps_it_fresh(
    name: str, database: str, environment: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        function(name).handler({}, CONTEXT)
        run("UPDATE heartbeat SET at = at - interval '1 hour'")
    assert status.read()["beats"][name] == pytest.approx(3600, abs=60)


def test_a_run_that_has_begun_and_not_ended_is_reported(database: str) -> None:
    run("UPDATE billing_run SET started_at = now() - interval '3 hours' WHERE name = 'reconcile'")
    found = status.read()["runs"]["reconcile"]
    assert found["age"] is None
    assert found["begun"] == pytest.approx(3 * 3600, abs=60)


def test_the_question_is_answered_and_changes_nothing(database: str) -> None:
    assert function("report_status").handler({"status": True}, CONTEXT)["beats"] == {}


# ---- schedules that no longer run


def overdue(capsys: pytest.CaptureFixture[str]) -> float:
    answer = function("report_status").handler({}, CONTEXT)
    [line] = [x for x in capsys.readouterr().out.splitlines() if '"ScheduleOverdueSeconds":' in x]
    assert json.loads(line)["ScheduleOverdueSeconds"] == [answer["overdueSeconds"]]
    return float(answer["overdueSeconds"])


def test_a_schedule_that_stops_is_reported(
    database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert overdue(capsys) == 0, "none has run yet"
    for name in status.SCHEDULES:
        status.beat(name)
    assert overdue(capsys) == 0
    run("UPDATE heartbeat SET at = now() - interval '16 minutes' WHERE name = 'purge_data'")
    assert overdue(capsys) == pytest.approx(960 - 300, abs=30)


def test_a_stage_that_runs_its_schedules_seldom_waits_for_them_longer(
    database: str, capsys: pytest.CaptureFixture[str], environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("SCHEDULE_MINUTES", "60")
    for name in status.SCHEDULES:
        status.beat(name)
    run("UPDATE heartbeat SET at = now() - interval '59 minutes'")
    assert overdue(capsys) == 0
    run("UPDATE heartbeat SET at = now() - interval '75 minutes' WHERE name = 'relay_outbox'")
    assert overdue(capsys) == pytest.approx(900, abs=30)
    assert min(status.read()["schedules"].values()) == 60


def test_what_runs_once_an_hour_or_a_deploy_is_no_schedule_that_stopped(
    database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("sync_plans", "migrate_database"):
        status.beat(name)
    run("UPDATE heartbeat SET at = now() - interval '1 day'")
    assert overdue(capsys) == 0


# ---- reputation


def percents(capsys: pytest.CaptureFixture[str]) -> dict[str, float]:
    reputation.measure()
    lines: list[dict[str, Any]] = [
        json.loads(line) for line in capsys.readouterr().out.split("\n") if line
    ]
    return {k: v[0] for line in lines for k, v in line.items() if k.endswith("Percent")}


def test_the_share_of_a_days_mail_that_came_back_is_reported(
    database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mail("delivered", 92)
    mail("bounced", 5)
    mail("complained", 3)
    mail("skipped", 100)
    mail("sent", 50, ended="now() - interval '2 days'")
    assert percents(capsys) == {"EmailBouncePercent": 5.0, "EmailComplaintPercent": 3.0}


def test_few_mails_and_a_single_complaint_say_nothing(
    database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mail("bounced", 10)
    mail("complained", 1)
    assert percents(capsys) == {"EmailBouncePercent": 0.0, "EmailComplaintPercent": 0.0}
    mail("delivered", 60)
    assert percents(capsys)["EmailComplaintPercent"] == 0.0
