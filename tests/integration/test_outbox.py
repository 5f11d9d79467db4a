"""Events as rows: written with their cause, published after it, each at least and about once."""

import io
import json
import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from types import SimpleNamespace
from typing import Any

import boto3
import pytest

from kyora import aws, config, postgres, status, trace
from kyora.bus import outbox, seen
from kyora.observability import begin
from local.commands import outbox as commands
from local.progress import Trouble
from tests.integration.support import bus as workers
from tests.integration.support.stores import Bucket
from tests.integration.support.workers import Crew
from tests.scripted import Answer, Request, Server, scripted
from tests.unit.functions import CONTEXT, captured_log, function

WRITES_ACCOUNTS = True

type Rows = list[dict[str, Any]]


class Bus:
    """EventBridge's side of PutEvents: `refuse` names the entries it does not take."""

    def __init__(self) -> None:
        self.refuse: Callable[[dict[str, Any]], bool] = lambda entry: False
        self.answer: Answer | None = None
        self.seen: Rows = []
        self.taken: Rows = []
        self._lock = threading.Lock()
        self.server: Server

    def __call__(self, request: Request) -> Answer:
        if self.answer is not None:
            return self.answer
        assert request.headers["x-amz-target"] == "AWSEvents.PutEvents"
        entries = json.loads(request.body)["Entries"]
        assert 1 <= len(entries) <= 10
        results: list[dict[str, str]] = []
        with self._lock:
            for entry in entries:
                self.seen.append(entry)
                if self.refuse(entry):
                    results.append({"ErrorCode": "InternalFailure", "ErrorMessage": "try again"})
                else:
                    self.taken.append(entry)
                    results.append({"EventId": f"eb-{len(self.taken)}"})
        failed = sum("ErrorCode" in result for result in results)
        return Answer(body=json.dumps({"FailedEntryCount": failed, "Entries": results}).encode())

    @property
    def ids(self) -> list[str]:
        return [json.loads(entry["Detail"])["id"] for entry in self.taken]


@pytest.fixture
def bus(database: str, environment: pytest.MonkeyPatch) -> Iterator[Bus]:
    found = Bus()
    with scripted(found) as found.server:
        environment.setenv("AWS_ENDPOINT_URL", found.server.url)
        config.forget()
        yield found
    for connection in aws._connections.values():
        connection.close()
    aws._connections.clear()


def entry_error(code: str) -> Answer:
    entry = {"ErrorCode": code, "ErrorMessage": "why"}
    return Answer(200, json.dumps({"FailedEntryCount": 1, "Entries": [entry]}).encode())


@pytest.fixture
def log(environment: pytest.MonkeyPatch) -> io.StringIO:
    return captured_log(environment)


def emit(count: int = 1) -> list[str]:
    with postgres.transaction() as tx:
        return [
            outbox.add(tx, "assets", "AssetDeleted", {"assetId": f"ast_{number}"}, "ws_demo")
            for number in range(count)
        ]


def waiting(count: int = 1) -> list[str]:
    """Rows that were left behind: written and never published, and their lease has lapsed."""
    ids = leased(count)
    make_due()
    return ids


def leased(count: int = 1) -> list[str]:
    """Rows of an invocation that has committed them, and has not published them yet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postgres.Transaction, "after_commit", lambda *_: None)
        return emit(count)


def rows() -> Rows:
    with postgres.transaction() as tx:
        return tx.rows(
            "SELECT *, extract(epoch FROM next_attempt_at - now())::float8 AS due_in FROM outbox"
            " ORDER BY id"
        )


def make_due() -> None:
    with postgres.transaction() as tx:
        tx.run("UPDATE outbox SET next_attempt_at = now() WHERE published_at IS NULL")


# ---- right after the commit


def test_an_event_is_published_right_after_its_commit(bus: Bus) -> None:
    begin("request-12345")
    (event_id,) = emit()
    (entry,) = bus.taken
    assert entry["EventBusName"] == "kyora-test"
    assert entry["Source"] == "kyora.assets"
    assert entry["DetailType"] == "AssetDeleted"
    detail = json.loads(entry["Detail"])
    assert detail.pop("occurredAt")
    assert detail.pop("traceparent") == trace.current()
    assert detail == {
        "id": event_id,
        "version": 1,
        "workspaceId": "ws_demo",
        "correlationId": "request-12345",
        "data": {"assetId": "ast_0"},
    }
    (row,) = rows()
    assert row["published_at"] is not None
    assert (row["attempts"], row["last_error"]) == (1, None)


def test_a_rollback_publishes_nothing_and_leaves_nothing(bus: Bus) -> None:
    with pytest.raises(ZeroDivisionError), postgres.transaction() as tx:
        outbox.add(tx, "assets", "AssetDeleted", {"assetId": "x"}, "ws_demo")
        raise ZeroDivisionError
    assert (bus.seen, rows()) == ([], [])


def test_nothing_is_published_before_the_commit(bus: Bus) -> None:
    with postgres.transaction() as tx:
        outbox.add(tx, "assets", "AssetDeleted", {"assetId": "x"}, "ws_demo")
        assert bus.seen == []
    assert len(bus.taken) == 1


def test_more_events_than_one_call_takes_are_published_in_several(bus: Bus) -> None:
    ids = emit(23)
    assert sorted(bus.ids) == sorted(ids)
    assert len(bus.server.requests) == 3


def test_an_invocation_publishes_only_what_it_caused(bus: Bus) -> None:
    old = waiting(2)
    new = emit()
    assert bus.ids == new
    assert {row["id"] for row in rows() if row["published_at"] is None} == set(old)


def test_an_event_the_catalogue_does_not_know_is_a_bug(bus: Bus) -> None:
    for domain, name in (("billing", "AssetReady"), ("assets", "AssetExploded")):
        with pytest.raises(ValueError, match="catalogue"), postgres.transaction() as tx:
            outbox.add(tx, domain, name, {"assetId": "x"}, "ws_demo")
    assert rows() == []


def test_data_its_consumers_could_not_read_is_a_bug_found_before_production(
    bus: Bus, environment: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="AssetReady"), postgres.transaction() as tx:
        outbox.add(tx, "assets", "AssetReady", {"size": "large"}, "ws_demo")
    assert rows() == []
    environment.setenv("STAGE", "prod")  # where the check would cost every cold start
    config.forget()
    with postgres.transaction() as tx:
        outbox.add(tx, "assets", "AssetReady", {"size": "large"}, "ws_demo")
    assert len(bus.taken) == 1


def test_a_database_lost_right_after_the_commit_fails_no_one(
    bus: Bus, database: str, environment: pytest.MonkeyPatch, log: io.StringIO
) -> None:
    def lose(_: list[str]) -> None:
        postgres.close()
        environment.setenv("DATABASE_URL", "postgresql://127.0.0.1:9/nowhere")
        config.forget()

    with postgres.transaction() as tx:
        tx.after_commit(lose, "x")
        event_id = outbox.add(tx, "assets", "AssetDeleted", {"assetId": "x"}, "ws_demo")
    assert "events left to the relay" in log.getvalue()
    environment.setenv("DATABASE_URL", database)
    config.forget()
    assert outbox.publish() == 0
    make_due()
    assert outbox.publish() == 1
    assert Counter(bus.ids).most_common() == [(event_id, 2)]


FAULTS = {
    "an error": Answer(500, b'{"__type": "InternalException"}'),
    "a refusal": Answer(400, b'{"__type": "AccessDeniedException"}'),
    "throttling": Answer(400, b'{"__type": "ThrottlingException"}'),
    "a hang-up": Answer(drop=True),
    "no JSON": Answer(200, b"<html>"),
    "no entries": Answer(200, b"{}"),
    "too few entries": Answer(200, b'{"FailedEntryCount": 0, "Entries": [{"EventId": "a"}]}'),
    "entries that are null": Answer(200, b'{"Entries": [null, null]}'),
    "entries that are no list": Answer(200, b'{"Entries": {"a": 1, "b": 2}}'),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bus_that_fails_does_not_fail_the_request_and_the_event_stays(
    fault: str, bus: Bus
) -> None:
    bus.answer = FAULTS[fault]
    emit(2)
    if fault != "a refusal":  # which is asked about each entry
        assert len(bus.server.requests) == 1  # the outbox tries again, the request does not wait
    for row in rows():
        assert row["published_at"] is None
        assert row["last_error"]
        assert row["attempts"] == 1
    bus.answer = None
    make_due()
    assert outbox.publish() == 2
    assert all(row["published_at"] and row["last_error"] is None for row in rows())


def test_a_bus_that_no_one_answers_for_does_not_fail_the_request(
    database: str, log: io.StringIO
) -> None:
    emit()
    (row,) = rows()
    assert (row["published_at"], row["last_error"]) == (None, "service.unavailable")
    assert "event not published" in log.getvalue()


# ---- what was left


def test_each_entry_is_judged_on_its_own(bus: Bus) -> None:
    ids = waiting(10)
    bus.refuse = lambda entry: json.loads(entry["Detail"])["id"] in ids[::3]
    assert outbox.publish() == 10
    for row in rows():
        if row["id"] in ids[::3]:
            assert row["published_at"] is None
            assert row["last_error"] == "InternalFailure: try again"
        else:
            assert row["published_at"] is not None
            assert row["last_error"] is None


def test_one_entry_that_makes_the_whole_call_fail_holds_up_no_one_else(bus: Bus) -> None:
    ids = waiting(5)
    poison = ids[2]
    real = bus.__call__

    def refuse_the_call(request: Request) -> Answer:
        if poison.encode() in request.body:
            return Answer(400, b'{"__type": "ValidationException"}')
        return real(request)

    bus.server.answer = refuse_the_call
    outbox.publish()
    assert {row["id"] for row in rows() if row["published_at"] is None} == {poison}


# ---- what will never be published

LIMIT = 1 << 20  # bytes; the bus of these tests refuses as EventBridge does: 413 and no body


def oversize(bus: Bus) -> Callable[[Request], Answer]:
    def answer(request: Request) -> Answer:
        return Answer(413, b"") if len(request.body) > LIMIT else bus(request)

    return answer


def add_large(count: int = 1) -> list[str]:
    with pytest.MonkeyPatch.context() as patch, postgres.transaction() as tx:
        patch.setattr(postgres.Transaction, "after_commit", lambda *_: None)
        data: dict[str, object] = {"created": ["x" * 255] * 5000, "updated": [], "archived": []}
        ids = [outbox.add(tx, "billing", "PlansSynced", data, None) for _ in range(count)]
    make_due()
    return ids


def test_an_oversize_event_says_so_and_is_marked_as_refused_for_good(
    bus: Bus, log: io.StringIO
) -> None:
    bus.server.answer = oversize(bus)
    (large,), small = add_large(), waiting(3)
    assert outbox.publish() == 4
    found = {row["id"]: row for row in rows()}
    assert re.fullmatch(
        r"too large for EventBridge: 12\d{5} bytes \(413\)", found[large]["last_error"]
    )
    assert found[large]["refused"] is True
    assert all(found[event_id]["published_at"] for event_id in small)
    assert "too large" in log.getvalue()
    assert status.read()["outbox"]["refused"] == 1
    assert "too large" in status.read()["outbox"]["error"]


@pytest.mark.parametrize(
    ("answer", "error", "for_good"),
    [
        (Answer(413, b""), "too large", True),
        (Answer(400, b'{"__type": "ValidationException"}'), "ValidationException (", True),
        (Answer(400, b'{"__type": "AccessDeniedException"}'), "AccessDeniedException", False),
        (Answer(403, b""), "refused with 403", False),
        (Answer(404, b"<html>"), "refused with 404", False),
        (Answer(500, b"{}"), "service.unavailable", False),
        (entry_error("MalformedDetail"), "MalformedDetail", True),
        (entry_error("InvalidArgument"), "InvalidArgument", True),
        (entry_error("InternalFailure"), "InternalFailure", False),
        (entry_error("ThrottlingException"), "ThrottlingException", False),
        (entry_error("NotAuthorizedForSourceException"), "NotAuthorized", False),
    ],
)
def test_only_what_stays_wrong_is_refused_for_good(
    answer: Answer, error: str, for_good: bool, bus: Bus
) -> None:
    bus.answer = answer
    emit()
    (row,) = rows()
    assert row["last_error"].startswith(error)
    assert row["refused"] is for_good


def test_an_event_that_is_taken_after_all_is_refused_no_more(bus: Bus) -> None:
    bus.answer = Answer(413, b"")
    emit()
    bus.answer = None
    make_due()
    outbox.publish()
    (row,) = rows()
    assert (row["refused"], row["last_error"]) == (False, None)
    assert row["published_at"]


def ask(event: dict[str, Any]) -> Any:
    return function("relay_outbox").handler(event, CONTEXT)


def test_a_refused_event_is_listed_and_dropped_by_hand(
    bus: Bus, log: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    bus.server.answer = oversize(bus)
    (large,) = add_large()
    outbox.publish()
    commands.show(ask)
    out = capsys.readouterr().out
    assert f"✗ {large}  PlansSynced, 12" in out
    assert "too large for EventBridge" in out
    assert "xxx" not in out  # its data stays where it is
    commands.drop(ask, large)
    assert rows() == []
    assert "event dropped" in log.getvalue()
    commands.show(ask)
    assert "No event waits" in capsys.readouterr().out


def test_only_what_has_failed_is_dropped(bus: Bus) -> None:
    (published,) = emit()
    (untried,) = waiting()
    for event_id in (published, untried, "evt_nobody", "", "a\0b"):
        with pytest.raises(Trouble, match="has not failed"):
            commands.drop(ask, event_id)
    assert len(rows()) == 2


def test_a_failure_backs_off_longer_each_time_and_never_beyond_five_minutes(bus: Bus) -> None:
    waiting(40)
    bus.refuse = lambda entry: True
    spread: list[list[float]] = []
    for _ in range(9):
        make_due()
        for _ in range(4):
            outbox.publish()
        assert {row["attempts"] for row in rows()} == {len(spread) + 1}
        spread.append(sorted(row["due_in"] for row in rows()))
    for number, found in enumerate(spread, 1):
        assert found[-1] <= min(2**number, 300)
    assert spread[8][20] > 4 * spread[2][-1]  # it grows (a median of 40 against the most of 8 s)
    assert spread[8][-1] - spread[8][0] > 60  # and those that failed together are spread


def test_a_row_that_is_not_due_is_left_alone_by_the_relay(bus: Bus) -> None:
    waiting(2)
    with postgres.transaction() as tx:
        tx.run("UPDATE outbox SET next_attempt_at = now() + interval '1 minute'")
    assert outbox.publish() == 0
    assert bus.seen == []


def test_the_relay_leaves_an_event_to_the_invocation_that_added_it(bus: Bus) -> None:
    (event_id,) = leased()
    assert outbox.publish() == 0
    [row] = rows()
    assert 10 < row["due_in"] <= 15  # seconds: EventBridge is given three to answer
    make_due()
    assert outbox.publish() == 1
    assert bus.ids == [event_id]


@pytest.mark.parametrize("who", ["its invocation", "the relay"])
def test_no_transaction_is_open_and_no_row_is_locked_while_the_bus_is_asked(
    who: str, bus: Bus, database: str
) -> None:
    seen: list[object] = []

    def look(request: Request) -> Answer:
        other = postgres.connection.connect(database, development=True)
        seen.extend(
            other.run(
                "SELECT state FROM pg_stat_activity WHERE datname = current_database()"
                " AND pid <> pg_backend_pid() AND state IS NOT NULL"
            )
            or []
        )
        other.run("SELECT 1 FROM outbox FOR UPDATE NOWAIT")
        other.close()
        return bus(request)

    ids = waiting() if who == "the relay" else []
    bus.server.answer = look
    ids = ids if outbox.publish() else emit()
    assert bus.ids == ids
    assert seen == [["idle"]]


def test_an_event_that_another_published_after_its_lease_stays_published(
    bus: Bus, database: str
) -> None:
    waiting()

    def outlived(request: Request) -> Answer:
        other = postgres.connection.connect(database, development=True)
        other.run("UPDATE outbox SET published_at = now(), attempts = 1")
        other.close()
        return Answer(500, b"{}")

    bus.server.answer = outlived
    outbox.publish()
    [row] = rows()
    assert (row["published_at"] is not None, row["last_error"], row["attempts"]) == (True, None, 1)


def test_what_is_recorded_is_found_by_its_id_however_much_waits(bus: Bus) -> None:
    waiting(300)  # of which the planner has no statistics, as after a deploy
    with postgres.transaction() as tx:
        plan = tx.rows("EXPLAIN " + outbox._RECORD, ids=["evt_1"], reasons=[None], refused=[False])
    text = str(plan)
    assert "outbox_pkey" in text
    assert "outbox_due" not in text


def test_the_oldest_due_goes_first(bus: Bus) -> None:
    ids = waiting(12)
    with postgres.transaction() as tx:
        tx.run(
            "UPDATE outbox SET next_attempt_at = now() - interval '1 hour'"
            " WHERE id = ANY(CAST(:ids AS text[]))",
            ids=ids[-2:],
        )
    outbox.publish()
    assert sorted(bus.ids[:2]) == sorted(ids[-2:])


def test_what_is_published_is_not_published_again(bus: Bus) -> None:
    waiting(3)
    assert [outbox.publish() for _ in range(3)] == [3, 0, 0]
    assert len(bus.taken) == 3


def test_a_crash_between_the_bus_and_the_record_publishes_the_same_id_again(bus: Bus) -> None:
    (event_id,) = waiting()
    with pytest.MonkeyPatch.context() as patch:
        real = outbox._put

        def crash(found: Any) -> Any:
            real(found)
            raise KeyboardInterrupt

        patch.setattr(outbox, "_put", crash)
        with pytest.raises(KeyboardInterrupt):
            outbox.publish()
    assert rows()[0]["published_at"] is None
    make_due()
    outbox.publish()
    assert bus.ids == [event_id, event_id]
    assert bus.taken[0] == bus.taken[1]


def test_a_connection_lost_between_the_bus_and_the_record_is_replaced(
    bus: Bus, database: str
) -> None:
    (event_id,) = waiting()

    def kill(request: Request) -> Answer:
        other = postgres.connection.connect(database, development=True, timeout=60)
        other.run(
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        other.close()
        return Bus.__call__(bus, request)

    bus.server.answer = kill
    assert outbox.publish() == 1
    assert bus.ids == [event_id]
    assert rows()[0]["published_at"] is not None


def test_a_token_is_forgotten_once_it_is_on_its_way(bus: Bus) -> None:
    data = {"email": "a@example.com", "name": "A", "token": "canary-token"}
    bus.refuse = lambda entry: True
    with postgres.transaction() as tx:
        outbox.add(tx, "accounts", "PasswordResetRequested", data, "ws_demo")
    assert "canary-token" in json.dumps(rows()[0]["detail"])
    bus.refuse = lambda entry: False
    make_due()
    outbox.publish()
    assert "canary-token" in bus.taken[0]["Detail"]
    assert "canary-token" not in json.dumps(rows()[0]["detail"])


def test_no_content_of_an_event_is_logged(bus: Bus, log: io.StringIO) -> None:
    data = {"email": "canary@example.com", "name": "canary", "token": "canary"}
    bus.refuse = lambda entry: True
    with postgres.transaction() as tx:
        outbox.add(tx, "accounts", "PasswordResetRequested", data, "ws_demo")
    assert "event not published" in log.getvalue()
    assert "canary" not in log.getvalue()


# ---- many at once


def test_parallel_relays_publish_each_event_once(bus: Bus, crew: Crew, worker_log: object) -> None:
    ids = waiting(120)
    totals = crew.each(workers.relay, [(dict(os.environ),)] * crew.size)
    assert sum(totals) == 120
    assert sum(total > 0 for total in totals) > 1  # they really worked side by side
    assert Counter(bus.ids) == Counter(ids)
    assert all(row["attempts"] == 1 for row in rows())


def test_rows_that_another_relay_holds_are_skipped_and_not_waited_for(
    bus: Bus, database: str
) -> None:
    ids = waiting(3)
    other = postgres.connection.connect(database, development=True)
    other.run("BEGIN")
    other.run("SELECT 1 FROM outbox WHERE id = :id FOR UPDATE", id=ids[0])
    assert outbox.publish() == 2
    assert sorted(bus.ids) == sorted(ids[1:])
    other.run("ROLLBACK")
    other.close()
    assert outbox.publish() == 1


def test_of_sixteen_workers_with_one_event_one_has_the_effect(bus: Bus, crew: Crew) -> None:
    for number in range(5):
        found = crew.each(workers.handle, [(dict(os.environ), f"e{number}")] * crew.size)
        assert found.count(True) == 1
    with postgres.transaction() as tx:
        row = tx.row("SELECT name FROM workspace WHERE id = 'ws_demo'")
    assert row == {"name": "Demo!!!!!"}


def test_an_effect_that_was_rolled_back_may_happen_later(database: str) -> None:
    with pytest.raises(ZeroDivisionError), postgres.transaction() as tx:
        assert seen.first_time(tx, "mailer", "evt_1")
        raise ZeroDivisionError
    with postgres.transaction() as tx:
        assert seen.first_time(tx, "mailer", "evt_1")
        assert seen.first_time(tx, "books", "evt_1")  # each consumer has its own
    with postgres.transaction() as tx:
        assert not seen.first_time(tx, "mailer", "evt_1")


def test_what_was_done_ninety_days_ago_is_deleted_by_the_purge(bus: Bus) -> None:
    with postgres.transaction() as tx:
        tx.run(
            "INSERT INTO inbox (consumer, event_id, received_at) VALUES"
            " ('mailer', 'evt_old', now() - interval '91 days'),"
            " ('mailer', 'evt_new', now() - interval '89 days')"
        )
    function("purge_data").handler({}, CONTEXT)
    with postgres.transaction() as tx:
        assert tx.rows("SELECT event_id FROM inbox") == [{"event_id": "evt_new"}]


# ---- the relay


def relay(remaining: Callable[[], int] = lambda: 60_000) -> dict[str, float]:
    context = SimpleNamespace(aws_request_id="run-1", get_remaining_time_in_millis=remaining)
    answer: dict[str, float] = function("relay_outbox").handler({}, context)
    return answer


def reported_age(text: str) -> float:
    """The figure in the log line that the template's metric filter reads."""
    (line,) = [line for line in text.splitlines() if '"outbox relayed"' in line]
    return float(json.loads(line)["oldest_seconds"])


def test_the_relay_empties_the_outbox_and_reports_its_age(bus: Bus, log: io.StringIO) -> None:
    waiting(25)
    assert relay() == {"tried": 25, "oldestSeconds": 0.0}
    assert len(bus.taken) == 25
    assert reported_age(log.getvalue()) == 0


def test_the_relay_reports_the_age_of_what_it_could_not_publish(bus: Bus, log: io.StringIO) -> None:
    waiting(3)
    bus.refuse = lambda entry: True
    with postgres.transaction() as tx:
        tx.run("UPDATE outbox SET created_at = now() - interval '10 minutes'")
        tx.run("UPDATE outbox SET attempts = 8")
    answer = relay()
    assert 600 <= answer["oldestSeconds"] < 630
    assert 600 <= reported_age(log.getvalue()) < 630


def test_the_relay_stops_before_its_time_is_up(bus: Bus) -> None:
    waiting(60)
    left = chain([60_000, 30_000, 10_001, 9_999], repeat(4_000))
    assert relay(lambda: next(left))["tried"] == 30


def test_the_purge_deletes_what_was_published_a_week_ago(bus: Bus) -> None:
    old, young, unpublished = emit(3)
    with postgres.transaction() as tx:
        tx.run("UPDATE outbox SET published_at = now() - interval '8 days' WHERE id = :id", id=old)
        tx.run(
            "UPDATE outbox SET published_at = now() - interval '6 days' WHERE id = :id", id=young
        )
        tx.run(
            "UPDATE outbox SET published_at = NULL, created_at = now() - interval '9 days',"
            " next_attempt_at = now() + interval '1 hour' WHERE id = :id",
            id=unpublished,
        )
    assert function("purge_data").handler({}, CONTEXT) == {"purged": 1}
    assert [row["id"] for row in rows()] == sorted([young, unpublished])


def test_the_relay_has_nothing_to_do(bus: Bus) -> None:
    assert relay() == {"tried": 0, "oldestSeconds": 0.0}
    assert bus.seen == []
    assert CONTEXT.get_remaining_time_in_millis() == 60_000


# ---- the emulator's EventBridge, with signatures checked


def test_an_event_reaches_a_queue_behind_the_real_bus(
    database: str,
    running_stores: Callable[[str], Bucket],
    environment: pytest.MonkeyPatch,
) -> None:
    endpoint = running_stores("ministack").variables["STORAGE_S3_ENDPOINT"]
    for name, value in {"AWS_ENDPOINT_URL": endpoint, "AWS_REGION": "us-east-1"}.items():
        environment.setenv(name, value)
    config.forget()
    options: Any = {
        "endpoint_url": endpoint,
        "region_name": "us-east-1",
        "aws_access_key_id": "test",
        "aws_secret_access_key": "test",
    }
    events, sqs = boto3.client("events", **options), boto3.client("sqs", **options)
    events.create_event_bus(Name="kyora-test")
    url = sqs.create_queue(QueueName="outbox-test")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
    pattern = json.dumps({"source": ["kyora.assets"], "detail-type": ["AssetDeleted"]})
    events.put_rule(Name="test", EventBusName="kyora-test", EventPattern=pattern)
    events.put_targets(
        Rule="test",
        EventBusName="kyora-test",
        Targets=[{"Id": "queue", "Arn": arn["QueueArn"]}],
    )

    (event_id,) = emit()
    assert rows()[0]["published_at"] is not None
    found = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=20).get("Messages", [])
    bodies = [json.loads(message["Body"]) for message in found]
    assert [body["detail"]["id"] for body in bodies] == [event_id]
    assert bodies[0]["detail-type"] == "AssetDeleted"

    for client in (events, sqs):
        client.close()
    aws._connections.pop(endpoint).close()
