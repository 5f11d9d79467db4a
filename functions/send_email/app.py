"""The events that have a mail, through SQS: one e-mail each, sent once, by the event's own row.

Done with an event once its message is sent, skipped or dead; it comes again while the provider
is busy, down or refuses our key. Once a day it compares the suppressed addresses with
Resend's. By hand, for `make mails`, `make redrive` and `make suppressions`: `{"mails": {…}}`,
`{"suppressions": {…}}`. Emits nothing.
"""

from typing import Any

from kyora import config
from kyora.bus.consume import consume
from kyora.email import by_hand, delivery, suppressions
from kyora.observability import invoked


@invoked
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    config.require(config.database_url, config.email)

    def left() -> float:
        return float(context.get_remaining_time_in_millis()) / 1000

    if "Records" in event:
        return consume(event, lambda message: delivery.deliver(message, left()))
    if "mails" in event:
        return by_hand.run(event["mails"])
    if "suppressions" in event:
        return suppressions.by_hand(event["suppressions"])
    return suppressions.compare(left() - 5)
