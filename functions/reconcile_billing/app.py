"""Every quarter of an hour, and `make reconcile`: compare our mirror with Stripe and repair it.

A run starts once a day, or with `{"start": true}`, and continues where the last
invocation stopped. Emits what events that never arrived would have emitted.
"""

from typing import Any

from kyora import config
from kyora.billing.jobs import reconcile
from kyora.observability import invoked


@invoked
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    config.require(config.database_url, config.bus_name, config.billing, config.cache)
    return reconcile.run(
        lambda: context.get_remaining_time_in_millis() / 1000, start=event.get("start") is True
    )
