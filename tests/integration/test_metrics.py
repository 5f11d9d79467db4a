"""Each fact that alarms and the dashboard look at is counted once, where it happens."""

import json
from contextlib import closing
from typing import Any

import pytest

from kyora import postgres
from kyora.bus.consume import consume
from kyora.bus.events import Event
from kyora.bus.outcomes import Again
from kyora.errors import Unavailable
from kyora.postgres.connection import connect
from tests.cloud import batch, cloud, detail
from tests.fake_resend import FakeResend, Fault
from tests.integration.support import api, mail_queue
from tests.integration.support.samples import PNG, Sample
from tests.integration.support.stores import Store

# Before `capsys`: the logger would keep the stream of the test that it began in.
pytestmark = pytest.mark.usefixtures("logs")


def counted(capsys: pytest.CaptureFixture[str], name: str) -> list[dict[str, object]]:
    """Return the lines of a figure, each with its one value and its dimensions."""
    lines = [json.loads(x) for x in capsys.readouterr().out.splitlines() if x.startswith("{")]
    found = [line for line in lines if name in line]
    for line in found:
        [directive] = line["_aws"]["CloudWatchMetrics"]
        assert directive["Namespace"] == "Kyora/test"
    return [
        {name: line[name]} | {k: line[k] for k in ("Reason", "Status") if k in line}
        for line in found
    ]


@pytest.mark.parametrize("store", ["local"], indirect=True)
def test_an_upload_that_is_verified_counts_once_however_often_it_is_confirmed(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    asset_id = api.upload(PNG)
    for _ in range(3):
        assert api.confirm(asset_id).status == 200
    assert counted(capsys, "UploadsReady") == [{"UploadsReady": [1.0]}]


@pytest.mark.parametrize("store", ["local"], indirect=True)
def test_an_upload_that_is_refused_counts_under_its_reason(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    asset_id = api.upload(Sample("a.png", "image/png", b"<html>" * 9))
    assert api.confirm(asset_id).status == 422
    [line] = counted(capsys, "UploadsRejected")
    assert line == {"UploadsRejected": [1.0], "Reason": "type_mismatch"}


@pytest.mark.parametrize(
    ("fault", "status"), [(None, "sent"), (Fault(503, "internal"), "queued"), (Fault(), "queued")]
)
def test_a_mail_counts_under_what_became_of_it(
    fault: Fault | None, status: str, resend: FakeResend, capsys: pytest.CaptureFixture[str]
) -> None:
    resend.faults = lambda key, nth: fault
    mail_queue.deliver(mail_queue.record(*mail_queue.verification()))
    assert counted(capsys, "Mails") == [{"Mails": [1.0], "Status": status}]


def test_a_mail_that_is_not_sent_counts_as_that(
    resend: FakeResend, capsys: pytest.CaptureFixture[str]
) -> None:
    mail_queue.deliver(mail_queue.record(*mail_queue.verification(age=90 * 24 * 3600)))
    assert counted(capsys, "Mails") == [{"Mails": [1.0], "Status": "skipped"}]
    assert resend.deliveries == []


def test_a_repeated_event_counts_no_second_mail(
    resend: FakeResend, capsys: pytest.CaptureFixture[str]
) -> None:
    name, envelope = mail_queue.verification()
    for _ in range(3):
        mail_queue.deliver(mail_queue.record(name, envelope))
    assert counted(capsys, "Mails") == [{"Mails": [1.0], "Status": "sent"}]


def test_each_message_that_a_consumer_fails_at_counts(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def handle(event: Event[Any]) -> None:
        if event.id != "evt_good":
            raise RuntimeError

    bodies = [
        json.dumps({"detail-type": "UserWelcomed", "detail": detail("UserWelcomed", id=id_)})
        for id_ in ("evt_a", "evt_good", "evt_b")
    ]
    with cloud() as aws:
        environment.setenv("AWS_ENDPOINT_URL", aws.url)
        consume(batch(*bodies), handle)
    assert counted(capsys, "ConsumerErrors") == [{"ConsumerErrors": [1.0]}] * 2


def test_a_wait_and_what_no_one_can_read_are_no_failures_of_a_consumer(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def handle(event: Event[Any]) -> None:
        raise Again(5)

    body = json.dumps({"detail-type": "UserWelcomed", "detail": detail("UserWelcomed")})
    with cloud() as aws:
        environment.setenv("AWS_ENDPOINT_URL", aws.url)
        consume(batch(body, "not json"), handle)
    assert counted(capsys, "ConsumerErrors") == []


def test_a_database_that_is_not_reached_counts(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setenv("DATABASE_URL", "postgresql://postgres@127.0.0.1:1/postgres")
    with pytest.raises(Unavailable), postgres.transaction():
        pass
    assert counted(capsys, "DatabaseUnavailable") == [{"DatabaseUnavailable": [1.0]}]


def test_a_lock_that_someone_else_holds_is_no_database_that_is_not_reached(
    database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(connect(database, development=True)) as other:
        other.run("BEGIN")
        other.run("SELECT FROM billing_run FOR UPDATE")
        with pytest.raises(Unavailable), postgres.transaction() as tx:
            tx.run("SELECT FROM billing_run FOR UPDATE NOWAIT")
    assert counted(capsys, "DatabaseUnavailable") == []
