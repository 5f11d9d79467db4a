"""Every five minutes: delete rows that are past their retention, in small batches.

Published events, records of handled ones, mail, ended uploads, Stripe's events, cache entries and
idempotency keys. Emits nothing.
"""

from typing import Any

from kyora import cache, config, idempotency, status
from kyora.assets import retention as uploads
from kyora.billing import calls
from kyora.billing import retention as stripe
from kyora.bus import retention as events
from kyora.email import retention as mail
from kyora.observability import invoked, logger
from kyora.purge import purge

_FORGETS = (
    events.forget_published,
    events.forget_seen,
    mail.forget,
    uploads.forget,
    stripe.forget_bodies,
    stripe.forget_events,
    stripe.forget_facts,
    calls.forget,
    cache.forget,
    idempotency.forget,
)


@invoked
def handler(event: dict[str, Any], context: Any) -> dict[str, int]:
    config.require(config.database_url)
    purged = purge(_FORGETS, lambda: context.get_remaining_time_in_millis() / 1000)
    status.beat("purge_data")
    logger().info("data purged", purged=purged)
    return {"purged": purged}
