"""`make emit` puts a sample of an event on the bus, `make events` prints those that come."""

import json
import secrets
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pg8000.exceptions

from local.commands.place import Place
from local.progress import Trouble, mask, say, shown
from local.stack import postgres
from local.tools.event_samples import sample

_ADD = """
insert into outbox (id, source, detail_type, detail)
values (:id, :source, :name, cast(:detail as jsonb))
"""
_PUBLISHED = "select published_at, last_error from outbox where id = :id"
_WAITING = """
select id, detail_type, attempts, coalesce(last_error, '') from outbox
where published_at is null and created_at < now() - interval '2 seconds'
order by created_at limit 50
"""


def emit(where: Place, name: str, file: Path | None) -> str:
    """Put a sample of an event on the bus, as the outbox would; return its id.

    The file's fields replace the sample's. It holds data, or `workspaceId` and `data`.
    """
    from kyora.bus.events import EVENTS, check

    if name not in EVENTS:
        raise Trouble(f"there is no event {name!r}; there are {', '.join(EVENTS)}")
    if where.stage == "prod" and file is None:
        raise Trouble("prod gets no sample data: give the event's fields with FILE=")
    data, workspace = sample(name, file)
    try:
        check(name, data)
    except ValueError as error:
        raise Trouble(str(error)) from error
    event_id = put(where, name, data, workspace)
    say(f"{name} {event_id} is on {where.bus}")
    return event_id


def put(where: Place, name: str, data: dict[str, Any], workspace: str | None) -> str:
    """Put an event on the bus, as the outbox would; return its id."""
    from kyora.bus.events import EVENTS
    from kyora.ids import new_id
    from kyora.observability import begin

    begin(new_id("emit"))
    event = _through_outbox if where.local else _straight
    return event(where, EVENTS[name].source, name, data, workspace)


def _through_outbox(
    where: Place, source: str, name: str, data: dict[str, Any], workspace: str | None
) -> str:
    """Add a row to the outbox, and have relay_outbox publish it."""
    from kyora.bus import outbox
    from kyora.ids import new_id

    event_id, address = new_id("evt"), where.environ["DATABASE_URL"]
    detail = json.dumps(outbox.envelope(event_id, data, workspace), ensure_ascii=False)
    values: dict[str, Any] = {"id": event_id, "source": source, "name": name, "detail": detail}
    try:
        postgres.query(address, _ADD, **values)
    except (pg8000.exceptions.DatabaseError, UnicodeEncodeError):
        raise Trouble("Postgres cannot store a text of the event, such as one with NUL") from None
    where.client("lambda").invoke(FunctionName=f"{where.bus}-relay-outbox", Payload=b"{}")
    [(published, error)] = postgres.query(address, _PUBLISHED, id=event_id)
    if published is None:
        raise Trouble(f"{event_id} waits in the outbox: {error}")
    return event_id


def _straight(
    where: Place, source: str, name: str, data: dict[str, Any], workspace: str | None
) -> str:
    from kyora.bus import outbox
    from kyora.ids import new_id

    event_id = new_id("evt")
    entry = {
        "EventBusName": where.bus,
        "Source": source,
        "DetailType": name,
        "Detail": json.dumps(outbox.envelope(event_id, data, workspace)),
    }
    answer = where.client("events").put_events(Entries=[entry])["Entries"][0]
    if "EventId" not in answer:
        raise Trouble(f"EventBridge refused it: {answer.get('ErrorCode')}")
    return event_id


def tail(where: Place) -> None:
    """Print events on the bus until Ctrl-C; locally also those that wait in the outbox."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # clean up then as well
    sqs = where.client("sqs")
    said: set[tuple[Any, ...]] = set()
    with _catch_all(where) as url:
        say(f"events on {where.bus} (Ctrl-C ends)")
        while True:
            found = sqs.receive_message(
                QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1 if where.local else 20
            ).get("Messages", [])
            for message in found:
                say(line(json.loads(message["Body"])))
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            if where.local:
                for row in postgres.query(where.environ["DATABASE_URL"], _WAITING):
                    if tuple(row) not in said:
                        said.add(tuple(row))
                        say(f"          {row[1]:<27} {row[0]} waits: {row[2]} attempts {row[3]}")


def line(message: Mapping[str, Any]) -> str:
    """Return an event as one line without tokens, addresses and links."""
    detail = message["detail"]
    at = datetime.fromisoformat(detail["occurredAt"]).astimezone()
    replayed = f" replay={message['replay-name']}" if message.get("replay-name") else ""
    return shown(
        f"{at:%H:%M:%S}  {message['detail-type']:<27} {detail['id']}"
        f" {detail.get('workspaceId', '-')} {detail['correlationId']}{replayed}"
        f" {json.dumps(mask(detail['data']), ensure_ascii=False)}"
    )


@contextmanager
def _catch_all(where: Place) -> Iterator[str]:
    """Give the bus one more rule and queue while the command runs."""
    from kyora.bus.names import SENSITIVE

    events, sqs = where.client("events"), where.client("sqs")
    name = f"{where.bus}-tail-{secrets.token_hex(4)}"
    pattern: dict[str, Any] = {"source": [{"prefix": "kyora."}]}
    if not where.local:  # tokens go to their consumer only
        pattern["detail-type"] = [{"anything-but": sorted(SENSITIVE)}]
    attributes = {"MessageRetentionPeriod": "60", "SqsManagedSseEnabled": "true"}
    url = sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
    try:
        found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        arn = found["Attributes"]["QueueArn"]
        rule = events.put_rule(
            Name=name, EventBusName=where.bus, EventPattern=json.dumps(pattern), State="ENABLED"
        )["RuleArn"]
        policy = {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"Service": "events.amazonaws.com"},
                    "Action": "sqs:SendMessage",
                    "Resource": arn,
                    "Condition": {"ArnEquals": {"aws:SourceArn": rule}},
                }
            ],
        }
        sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(policy)})
        events.put_targets(Rule=name, EventBusName=where.bus, Targets=[{"Id": "tail", "Arn": arn}])
        yield url
    finally:
        for call, wanted in (
            (events.remove_targets, {"Rule": name, "EventBusName": where.bus, "Ids": ["tail"]}),
            (events.delete_rule, {"Name": name, "EventBusName": where.bus}),
            (sqs.delete_queue, {"QueueUrl": url}),
        ):
            try:
                call(**wanted)
            except Exception as error:
                say(f"  ! {name} is left behind: {type(error).__name__}")
