"""Every minute: process waiting Stripe events, end grace periods, remind.

By hand: `make replay` processes events again, `make bind` links a customer to a workspace,
`make why` explains a workspace's access. Emits what the events emit, SubscriptionChanged when a
grace period ends, and GraceEnding, PaymentMethodExpiring and RenewalUpcoming ahead of time. Reports
the age of the oldest waiting event, how many failed for good, and what is paid for without access.
"""

from typing import Any

from kyora import config, status
from kyora.billing import access
from kyora.billing.jobs import bind, replay, sweep
from kyora.observability import count, gauge, invoked, logger


@invoked
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    config.require(config.database_url, config.bus_name, config.billing, config.cache)

    def remaining() -> float:
        return float(context.get_remaining_time_in_millis()) / 1000

    if "replay" in event:
        return replay.replay(event["replay"], remaining)
    if "bind" in event:
        return bind.bind(event["bind"])
    if "why" in event:
        return access.explain(str(event["why"]))
    swept = sweep.sweep(remaining)
    status.beat("sweep_billing")
    found = sweep.backlog()
    gauge("StripeOldestSeconds", found.oldest)  # the alarms are in template.yaml
    count("StripeParked", found.parked)
    count("StripeUnserved", found.unserved)
    logger().info("billing swept", extra=swept)
    return {
        **swept,
        "oldestSeconds": found.oldest,
        "parked": found.parked,
        "unserved": found.unserved,
    }
