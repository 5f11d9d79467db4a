"""The event bus: written with the change that causes an event, published after the commit."""

import json
from collections.abc import Callable
from typing import Any

from kyora.observability import begin, logger


def consume(event: dict[str, Any], handle: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Handle each EventBridge event of an SQS batch; return those to be delivered again.

    `handle` takes the event's detail and returns False for "later". A message that raises is
    delivered again as well, and reaches the dead-letter queue after the queue's count; it never
    takes the rest of its batch with it.
    """
    failed = []
    for record in event["Records"]:
        begin(record["messageId"])
        try:
            done = handle(json.loads(record["body"])["detail"])
        except Exception:
            logger().exception("message failed")
            done = False
        if not done:
            failed.append({"itemIdentifier": record["messageId"]})
    return {"batchItemFailures": failed}
