"""Every minute: publish the events that were not published right after their commit.

Emits whatever waits in the outbox, and reports the age of the oldest event that still waits. By
hand, for `make outbox`: `{"waiting": true}` lists the events that failed, `{"drop": id}` deletes
one of them.
"""

from typing import Any

from kyora import config, status
from kyora.bus import outbox
from kyora.observability import gauge, invoked, logger


@invoked
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    config.require(config.database_url, config.bus_name)
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
    gauge("OutboxOldestSeconds", age)  # OutboxAgeAlarm in template.yaml
    logger().info("outbox relayed", tried=tried, oldest_seconds=round(age, 1))
    return {"tried": tried, "oldestSeconds": age}
