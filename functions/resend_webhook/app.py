"""Function URL /webhooks/resend: what became of a message after Resend took it.

Signature first; 404 while no secret is configured. Moves the message's status and suppresses
addresses that bounced for good or complained. Emits nothing.
"""

from kyora import http
from kyora.email import webhook

handler = http.webhook(webhook.receive, "database", "email_webhook")
