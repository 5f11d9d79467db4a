"""Account and billing events, through SQS: one e-mail each, sent once, by the event's own row.

Done with an event once its message is sent, skipped or dead; it comes again while the provider
is busy, down or refuses our key. By hand, for `make mails` and `make redrive`: `{"mails": {…}}`.
Emits nothing.
"""

from typing import Any

from kyora import bus, config
from kyora.email import delivery, mails


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    config.settings("database", "email")
    if "mails" in event:  # not from its queue
        return mails.by_hand(event["mails"])

    def enough() -> bool:
        left: int = context.get_remaining_time_in_millis()
        return left / 1000 > delivery.LONGEST_ATTEMPT

    return bus.consume(event, delivery.deliver, enough)
