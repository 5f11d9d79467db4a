"""Function URL /webhooks/stripe: what happened at Stripe to customers, subscriptions and plans.

Signature first; 404 while no secret is configured. Kept before anything is done about it, done
once. What comes over Stripe's EventBridge bus, through SQS, takes the same way. Emits
SubscriptionActivated, -Changed, -Cancelled, -Paused, -Resumed, PaymentSucceeded, PaymentFailed,
PaymentRecovered, TrialEnding and PlansSynced.
"""

from typing import Any

from kyora import config, http
from kyora.billing.events import ingest, webhook
from kyora.bus.consume import consume_aws

NEEDS = (config.database_url, config.bus_name, config.billing, config.cache)
receive = http.webhook(webhook.receive, *NEEDS, config.stripe_webhook_secrets)


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    # What comes through the URL has AWS's own members only; the sender decides on none of them.
    if "Records" in event:
        config.require(*NEEDS)
        return consume_aws(event, ingest.from_bus)
    return receive(event, context)
