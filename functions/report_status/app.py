"""Every minute: report how much mail comes back, and whether the other schedules still run.

By hand, for `make status`: `{"status": true}` returns what waits anywhere, what failed, and when
each scheduled function last ran. Emits nothing.
"""

from typing import Any

from kyora import config, status
from kyora.email import reputation
from kyora.observability import gauge, invoked, logger


@invoked
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    config.require(config.database_url, config.schedule_minutes)
    if "status" in event:
        return status.read()
    reputation.measure()
    late = status.overdue()
    gauge("ScheduleOverdueSeconds", late)  # SchedulesAlarm in template.yaml
    status.beat("report_status")
    logger().info("status reported", overdue_seconds=round(late, 1))
    return {"overdueSeconds": late}
