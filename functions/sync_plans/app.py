"""Hourly and at deploy: bring the plans up to date with Stripe's products and prices.

By hand: `{"sync": true}` always syncs, `{"check": true}` only reports what differs, `{"push": {…}}`
writes a catalogue to Stripe. A deploy continues when Stripe is unreachable or refuses our key: the
schedule then syncs, or fails and raises an alarm. Emits PlansSynced.
"""

from typing import Any

from kyora import cloudformation, config, status
from kyora.billing.plans import sync
from kyora.errors import Conflict, Invalid, KyoraError
from kyora.observability import invoked, logger

NEEDS = (config.database_url, config.bus_name, config.billing, config.cache)


@invoked
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    if "check" in event or "sync" in event:
        config.require(*NEEDS)
        return sync.sync(check=event.get("check") is True)._asdict()
    if "push" in event:
        return pushed(event["push"])
    return cloudformation.resource(event, lambda: automatic(deploy="ResponseURL" in event))


def automatic(*, deploy: bool) -> dict[str, Any]:
    config.require(*NEEDS)
    found = config.billing()
    if not (found.auto_sync_plans and found.stripe_api_key):
        logger().info("plans are not synced", auto=found.auto_sync_plans)
        status.beat("sync_plans")
        return {}
    try:
        report = sync.sync()
    except KyoraError as error:
        if not deploy:
            raise
        logger().warning("plans left to the schedule", reason=error.code)
        return {}
    status.beat("sync_plans")
    logger().info("plans synced", extra={"drift": len(report.drift), "faults": len(report.faults)})
    return {"created": report.created, "updated": report.updated, "archived": report.archived}


def pushed(catalogue: dict[str, Any]) -> dict[str, Any]:
    from kyora.billing.plans import push

    config.require(*NEEDS)
    try:
        return push.push(catalogue)._asdict()
    except (Invalid, Conflict) as error:  # the author's mistake: no case for the dead-letter queue
        return {"refused": error.document()}
