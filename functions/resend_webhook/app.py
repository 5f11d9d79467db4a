"""Function URL /webhooks/resend: what became of a message after Resend took it.

Signature first; 404 while no secret is configured. Moves the message's status, suppresses addresses
that bounced for good or complained, follows Resend's own list of them, and keeps how the sending
domain is. Emits nothing.
"""

from kyora import config, http
from kyora.email import webhook

handler = http.webhook(
    webhook.receive, config.database_url, config.resend_webhook_keys, config.email_domain
)
