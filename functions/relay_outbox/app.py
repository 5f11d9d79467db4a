"""Every minute: publish the events that were not published right after their commit.

Emits whatever waits in the outbox, forgets events of a week ago, mail and what consumers have
done of three months ago and what the cache keeps no more, and reports the age of the oldest event
still waiting and how much of a day's mail bounced. By hand: `{"status": true}` only reports what
waits anywhere, for `make status`; `{"waiting": true}` lists events that failed and `{"drop": id}`
deletes one of them, for `make outbox`.
"""

from typing import Any

from kyora import cache, config, idempotency, purge, status
from kyora.bus import outbox
from kyora.bus import retention as bus_retention
from kyora.email import reputation
from kyora.email import retention as email_retention
from kyora.observability import begin, gauge, logger

_FORGETS = (
    bus_retention.forget_published,
    bus_retention.forget_seen,
    email_retention.forget,
    cache.forget,
    idempotency.forget,
)


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    begin(context.aws_request_id)
    settings = config.settings("database", "bus")
    if "status" in event:
        return status.read()
    if "drop" in event:
        return {"dropped": outbox.drop(str(event["drop"]))}
    if "waiting" in event:
        return {"events": outbox.waiting()}
    tried = 0
    while context.get_remaining_time_in_millis() > 10_000:
        count = outbox.publish()
        tried += count
        if not count:
            break
    status.beat("relay_outbox")
    age = outbox.oldest_age()
    gauge(settings.stage, "OutboxOldestSeconds", age)  # OutboxAgeAlarm in template.yaml
    reputation.measure(settings.stage)
    # Last: a backlog may take all the time there is.
    forgotten = purge.purge(_FORGETS, lambda: context.get_remaining_time_in_millis() / 1000)
    logger().info("outbox relayed", tried=tried, forgotten=forgotten, oldest_seconds=round(age, 1))
    return {"tried": tried, "oldestSeconds": age}
