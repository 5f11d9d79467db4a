"""Function URL /webhooks/stripe: what happened at Stripe to customers, subscriptions and plans.

Signature first; 404 while no secret is configured. Kept before anything is done about it, done
once. What comes over Stripe's EventBridge bus, through SQS, takes the same way. Emits
SubscriptionActivated, -Changed, -Cancelled, -Paused, -Resumed, PaymentSucceeded, PaymentFailed,
PaymentRecovered, TrialEnding and PlansSynced.
"""

from typing import Any

from kyora import http
from kyora.billing.events import ingest, webhook
from kyora.bus.consume import consume_aws

receive = http.webhook(webhook.receive, "database", "bus", "billing", "billing_webhook", "cache")


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    # What comes through the URL has AWS's own members only; the sender decides on none of them.
    if "Records" in event:
        return consume_aws(event, ingest.from_bus)
    return receive(event, context)
