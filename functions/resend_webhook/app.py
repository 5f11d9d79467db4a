"""Function URL /webhooks/resend: what became of a message after Resend took it.

Signature first; 404 while no secret is configured. Moves the message's status and suppresses
addresses that bounced for good or complained; `make suppressions` invokes it by hand to list and
lift them. Emits nothing.
"""

from typing import Any

from kyora import http
from kyora.email import suppressions, webhook

receive = http.webhook(webhook.receive, "database", "email_webhook")


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    # What comes through the URL has AWS's own members only; the sender decides on none of them.
    if "suppressions" in event:
        return suppressions.by_hand(event["suppressions"])
    return receive(event, context)
