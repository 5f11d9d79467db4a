"""What sends mail: Resend, or the mock that keeps it. Configuration decides which one runs."""

from typing import Protocol

from kyora import config
from kyora.email.message import Held, Message, Sent


class Provider(Protocol):
    """A provider. The same message under the same key within 24 hours is sent once."""

    name: str

    def send(self, message: Message, idempotency_key: str) -> Sent:
        """Send the message. Raises Refusal."""

    def lift(self, address: str) -> str:
        """Remove an address from the provider's suppression list; return what that did."""

    def suppressed(self, deadline: float) -> Held:
        """Read that list until `deadline`, a reading of `time.monotonic`."""


def configured() -> Provider:
    """Return the configured provider."""
    found = config.email()
    if found.provider == "mock":
        from kyora.email import mock

        return mock.Mock()
    from kyora.email import resend

    return resend.Resend(found)
