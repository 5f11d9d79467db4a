"""Every five minutes: expire unconfirmed uploads, delete objects that no asset needs.

Emits nothing.
"""

from typing import Any

from kyora import config, status
from kyora.assets.sweep import sweep
from kyora.observability import invoked, logger


@invoked
def handler(event: dict[str, Any], context: Any) -> dict[str, int]:
    def remaining() -> float:
        return float(context.get_remaining_time_in_millis()) / 1000

    config.require(config.database_url, config.storage)
    total = {"expired": 0, "cleaned": 0}
    while remaining() > 10:
        swept = sweep(remaining)
        total = {name: total[name] + count for name, count in swept.items()}
        if not any(swept.values()):
            break
    status.beat("sweep_uploads")
    logger().info("uploads swept", extra=total)
    return total
