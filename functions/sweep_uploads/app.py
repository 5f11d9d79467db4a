"""Every five minutes: expire uploads nobody confirmed, delete the objects no asset needs.

Emits nothing.
"""

from typing import Any

from kyora import assets, config
from kyora.observability import begin, logger


def handler(event: dict[str, Any], context: Any) -> dict[str, int]:
    begin(context.aws_request_id)
    config.settings("database", "storage")
    total = {"expired": 0, "cleaned": 0}
    while context.get_remaining_time_in_millis() > 10_000:
        swept = assets.sweep()
        total = {name: total[name] + count for name, count in swept.items()}
        if not any(swept.values()):
            break
    logger().info("uploads swept", extra=total)
    return total
