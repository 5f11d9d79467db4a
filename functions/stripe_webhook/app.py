"""Function URL /webhooks/stripe: what happened at Stripe to customers, subscriptions and plans.

Signature first; 404 while no secret is configured. An event is kept before it is processed, and
processed once. Events from Stripe's EventBridge bus, through SQS, are handled the same way. Emits
SubscriptionActivated, -Changed, -Cancelled, -Paused, -Resumed, PaymentSucceeded, PaymentFailed,
PaymentRecovered, TrialEnding and PlansSynced.
"""

from typing import Any

from kyora import config, http
from kyora.billing.events import ingest, webhook
from kyora.bus.consume import consume_aws
from kyora.observability import invoked

NEEDS = (config.database_url, config.bus_name, config.billing, config.cache)
receive = http.webhook(webhook.receive, *NEEDS, config.stripe_webhook_secrets)


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    # An event of the URL has AWS's own members only: a sender cannot add `Records`.
    return take_batch(event, context) if "Records" in event else receive(event, context)


@invoked
def take_batch(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Take events of Stripe's bus. A request of the URL is a unit of work by `http.webhook`."""
    config.require(*NEEDS)
    return consume_aws(event, ingest.from_bus)
