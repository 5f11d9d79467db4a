"""OrderCreated and CustomerCreated, through SQS: count them by business and day, each once.

`make rebuild-analytics` invokes it to recompute the counts from the stored events. Emits nothing.
"""

from typing import Any

from kyora import config
from kyora.analytics import count, rebuild
from kyora.bus.consume import consume
from kyora.observability import invoked


@invoked
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    config.require(config.database_url)
    if "rebuild" in event:
        return rebuild.by_hand(event["rebuild"], context.get_remaining_time_in_millis)
    return consume(event, count.update)
