"""Every minute: report mail that comes back, late schedules, lost events and wrong ledgers.

By hand, for `make status`: `{"status": true}` returns what waits anywhere, what failed, and when
each scheduled function last ran. For `make trace`: `{"trace": id}` returns what became of an id.
Emits nothing.
"""

from typing import Any

from kyora import config, history, invariants, status
from kyora.email import reputation
from kyora.observability import count, gauge, invoked, logger


@invoked
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    config.require(config.database_url, config.schedule_minutes)
    if "status" in event:
        return status.read()
    if "trace" in event:
        return history.read(str(event["trace"]))
    reputation.measure()
    late = status.overdue()
    gauge("ScheduleOverdueSeconds", late)  # SchedulesAlarm in template.yaml
    differing = invariants.check()
    for name, number in differing.items():
        if name == invariants.STORAGE:
            count("StorageLedgersWrong", number)  # StorageLedgerAlarm
        else:
            count("EventsUnhandled", number, Consumer=name)  # EmailEventsLostAlarm and the others
    status.beat("report_status")
    logger().info("status reported", overdue_seconds=round(late, 1), differing=differing)
    return {"overdueSeconds": late, "differing": differing}
