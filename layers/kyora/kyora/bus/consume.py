"""An SQS batch, one message at a time. A consumer has a queue of its own behind a rule of the bus.

What its handler does with a message:

    returns          done with it
    raises Again     delivered again after that many seconds
    raises Permanent moved to the dead-letter queue at once
    raises           delivered again, later each time; after the queue's maxReceiveCount SQS
                     moves it to the dead-letter queue

None of these affects the other messages of the batch.
"""

import json
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kyora import aws, trace
from kyora.aws import AwsError
from kyora.bus.outcomes import Again, Permanent
from kyora.errors import Unavailable
from kyora.observability import begin, count, fault, logger
from kyora.postgres import Unstorable

if TYPE_CHECKING:
    from kyora.bus.events import Event

_LONGEST_VISIBILITY, _LONGEST_DELAY = 43_200, 900  # seconds, both SQS's own limits
_FIRST_BACKOFF, _LONGEST_BACKOFF = 20.0, 900.0  # seconds

type Record = dict[str, Any]


def consume(event: dict[str, Any], handle: "Callable[[Event[Any]], None]") -> dict[str, Any]:
    """Handle each of our events in an SQS batch; return those to be delivered again.

    An unknown version or invalid content is Permanent. Log lines, and events that handling it
    causes, carry the event's correlation id.
    """
    from kyora.bus.events import parse  # the models: only for consumers of our own events

    def read(message: dict[str, Any]) -> None:
        detail = message.get("detail")
        if isinstance(detail, dict) and isinstance(known := detail.get("correlationId"), str):
            begin(known[:255], caused_by=str(detail.get("traceparent")))
        parsed = parse(str(message.get("detail-type", "")), detail)
        trace.describe(f"process {parsed.name}", trace.CONSUMER, kyora__event_id=parsed.id)
        with logger().append_context_keys(event_id=parsed.id, event=parsed.name):
            handle(parsed)

    return _each(event, read)


def consume_aws(event: dict[str, Any], handle: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Handle the detail of each event of an AWS service in an SQS batch.

    `handle` returns False for a message that has to come again: it waits as a failed one does.
    """

    def read(message: dict[str, Any]) -> None:
        if not isinstance(detail := message.get("detail"), dict):
            raise Permanent("event.invalid")
        if not handle(detail):
            raise _Later

    return _each(event, read)


class _Later(Exception):
    """Deliver this message again after `_backoff`."""


def _each(event: dict[str, Any], read: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    failed = []
    for record in event["Records"]:
        begin(record["messageId"])
        if not _done(record, read):
            failed.append({"itemIdentifier": record["messageId"]})
        _note_wait(record)
        trace.end()
    return {"batchItemFailures": failed}


def _note_wait(record: Record) -> None:
    """Record how long a message was in its queue: a span before those of its handling."""
    sent = str((record.get("attributes") or {}).get("SentTimestamp", ""))
    if trace.is_recording() and sent.isdigit():
        trace.waited("wait in the queue", int(sent) * 1_000_000)


def _done(record: Record, read: Callable[[dict[str, Any]], None]) -> bool:
    """Handle one message; False leaves it in its queue."""
    try:
        read(_message(record))
    except _Later:
        return _put_off(record, Again(_backoff(record)))
    except Again as again:
        return _put_off(record, again)
    except Permanent as permanent:
        return _bury(record, permanent)
    except Unstorable:  # the same the next time
        return _bury(record, Permanent("event.unstorable"))
    except Exception as error:
        # Not the exception's text: it may quote the message.
        logger().error("message failed", **fault(error))
        count("ConsumerErrors")  # its alarm is in template.yaml
        return _put_off(record, Again(_backoff(record)))
    return True


def _backoff(record: Record) -> float:
    """Return after how many seconds a message that failed is delivered again.

    The queue's visibility time-out, six times the function's, is meant for a worker that died:
    too long for a database that was down for a moment, and always the same.
    """
    count = int(record.get("attributes", {}).get("ApproximateReceiveCount", 1))
    longest = min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2 ** min(count - 1, 10))
    return secrets.SystemRandom().uniform(longest / 2, longest)


def _message(record: Record) -> dict[str, Any]:
    try:
        found = json.loads(record["body"])
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Permanent("event.not_json")
    return found


def _put_off(record: Record, again: Again) -> bool:
    """Have SQS deliver the message after the time asked for."""
    if again.counted:
        seconds = min(again.seconds, _LONGEST_VISIBILITY)
        handle = {"ReceiptHandle": record["receiptHandle"], "VisibilityTimeout": seconds}
        _send("ChangeMessageVisibility", _url(record["eventSourceARN"]), handle)
        return False
    # A delivery cannot be uncounted, but a copy starts at none.
    seconds = min(again.seconds, _LONGEST_DELAY)
    copy = {"MessageBody": record["body"], "DelaySeconds": seconds}
    return _send("SendMessage", _url(record["eventSourceARN"]), copy)


def _bury(record: Record, permanent: Permanent) -> bool:
    """Move a message to its queue's dead-letter queue.

    SQS itself does so only after maxReceiveCount deliveries, which takes hours. When the call
    fails, the message takes that way.
    """
    logger().error("message dead-lettered", reason=str(permanent))
    try:
        found = aws.call(
            "sqs",
            "GetQueueAttributes",
            {"QueueUrl": _url(record["eventSourceARN"]), "AttributeNames": ["RedrivePolicy"]},
        )
        attributes: Any = found.get("Attributes") or {}
        target = json.loads(attributes["RedrivePolicy"])["deadLetterTargetArn"]
    except (AwsError, Unavailable, KeyError, ValueError) as error:
        logger().error("no dead-letter queue", error=type(error).__name__)
        return False
    reason = {"Reason": {"DataType": "String", "StringValue": permanent.code}}
    body = {"MessageBody": record["body"], "MessageAttributes": reason}
    return _send("SendMessage", _url(target), body)


def _send(operation: str, url: str, payload: dict[str, object]) -> bool:
    try:
        aws.call("sqs", operation, {"QueueUrl": url, **payload})
    except (AwsError, Unavailable) as error:
        logger().error("SQS refused", operation=operation, error=str(getattr(error, "code", "")))
        return False
    return True


def _url(arn: str) -> str:
    _, _, _, region, account, name = arn.split(":")
    return f"{aws.endpoint('sqs', region)}/{account}/{name}"
