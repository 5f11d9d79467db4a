"""Every five minutes: expire unconfirmed uploads, delete objects that no asset needs.

Ends uploads that a malware scanner has not judged in time, as `uploads.unscanned` says: emits
AssetReady or AssetRejected.
"""

from typing import Any

from kyora import config, status
from kyora.assets import scan
from kyora.assets.sweep import sweep
from kyora.observability import invoked, logger


@invoked
def handler(event: dict[str, Any], context: Any) -> dict[str, int]:
    def remaining() -> float:
        return float(context.get_remaining_time_in_millis()) / 1000

    config.require(config.database_url, config.storage, config.uploads, config.bus_name)
    total = {"expired": scan.end_overdue(remaining), "cleaned": 0}
    while remaining() > 10:
        swept = sweep(remaining)
        total = {name: total[name] + count for name, count in swept.items()}
        if not any(swept.values()):
            break
    status.beat("sweep_uploads")
    logger().info("uploads swept", extra=total)
    return total
