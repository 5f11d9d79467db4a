"""A message as it is given to a provider, and the provider's answers."""

import json
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from kyora.text import has_control

if TYPE_CHECKING:
    import resend as sdk

_KEY = re.compile(r"[\x21-\x7e]{1,256}")
_TAG = re.compile(r"[A-Za-z0-9_-]{1,256}")


class Message(NamedTuple):
    """A message to one recipient. Equal messages have equal bytes on the wire."""

    recipient: str
    sender: str
    subject: str
    html: str
    text: str
    reply_to: str = ""
    tags: Mapping[str, str] = MappingProxyType({})


class Sent(NamedTuple):
    """The provider accepted the message, under its own id."""

    id: str


class Held(NamedTuple):
    """Addresses on the provider's suppression list, each with its origin and date (ISO 8601)."""

    addresses: Mapping[str, tuple[str, str]]
    whole: bool  # read to its end
    refused: str = ""  # why it could not be read, or not to its end


class Refusal(Exception):
    """The provider did not say that it accepted the message.

    `status` and `name` are the provider's; status 0 means no answer, or none that we understand.
    `retry_after` is in seconds. `message` may name the recipient: never log it.
    """

    def __init__(
        self, status: int, name: str, message: str = "", *, retry_after: float | None = None
    ) -> None:
        super().__init__(f"{status} {name}")
        self.status, self.name, self.message = status, name, message
        self.retry_after = retry_after


def check(message: Message, idempotency_key: str) -> None:
    """Refuse what Resend would refuse, and what is a bug of ours. Raises Refusal."""
    if not _KEY.fullmatch(idempotency_key):
        raise Refusal(400, "invalid_idempotency_key", "The key must be 1 to 256 ASCII characters.")
    headers = (message.recipient, message.sender, message.subject, message.reply_to)
    if any(map(has_control, headers)):  # a line break would start another header
        raise Refusal(422, "validation_error", "A header holds a control character.")
    if not (message.recipient and message.sender and message.subject):
        raise Refusal(422, "missing_required_field", "A message needs to, from and subject.")
    if not (message.html and message.text):
        raise Refusal(422, "missing_required_field", "A message needs both HTML and text.")
    if not all(_TAG.fullmatch(part) for tag in message.tags.items() for part in tag):
        raise Refusal(422, "validation_error", "A tag is of letters, digits, underscores, dashes.")


def params(message: Message) -> "sdk.Emails.SendParams":
    """Return the arguments of Resend's `POST /emails`, as its SDK names them."""
    found: sdk.Emails.SendParams = {
        "from": message.sender,
        "to": [message.recipient],
        "subject": message.subject,
        "html": message.html,
        "text": message.text,
    }
    if message.reply_to:
        found["reply_to"] = message.reply_to
    if message.tags:
        found["tags"] = [{"name": name, "value": value} for name, value in message.tags.items()]
    return found


def payload(message: Message) -> bytes:
    """Return the body of `POST /emails`: an idempotency key is bound to these bytes."""
    return json.dumps(params(message)).encode()
