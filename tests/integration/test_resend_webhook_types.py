"""What we read of Resend's webhooks is what the SDK's types say they hold; so are our samples."""

import json
from pathlib import Path
from typing import Any, override

import pytest
import resend as sdk
import typing_extensions

from kyora import postgres
from kyora.email import webhook
from tests.integration.support import mail_queue
from tests.integration.support.resend_webhook import AT, KEY, bounce, reported, request, secret
from tests.resend_types import faults, fields

TYPES: dict[str, Any] = {
    "email.sent": sdk.EmailSentEvent,
    "email.delivered": sdk.EmailDeliveredEvent,
    "email.delivery_delayed": sdk.EmailDeliveryDelayedEvent,
    "email.bounced": sdk.EmailBouncedEvent,
    "email.complained": sdk.EmailComplainedEvent,
    "email.failed": sdk.EmailFailedEvent,
    "email.suppressed": sdk.EmailSuppressedEvent,
    "suppression.added": sdk.SuppressionAddedEvent,
    "suppression.removed": sdk.SuppressionRemovedEvent,
    "domain.created": sdk.DomainCreatedEvent,
    "domain.updated": sdk.DomainUpdatedEvent,
    "domain.deleted": sdk.DomainDeletedEvent,
}


def sample(kind: str) -> dict[str, Any]:
    """Return an event as Resend sends it."""
    if kind.startswith("email."):
        more = {
            "email.bounced": {"bounce": json.loads(bounce())["data"]["bounce"]},
            "email.failed": {"failed": {"reason": "reached_daily_quota"}},
            "email.suppressed": {
                "suppressed": {"type": "OnAccountSuppressionList", "message": "x"}
            },
        }.get(kind, {})
        found: dict[str, Any] = json.loads(reported(kind, tags={"message_id": "eml_1"}, **more))
        return found
    about: dict[str, Any] = {"id": "x", "created_at": AT}
    if kind.startswith("suppression."):
        about |= {"email": "dana@example.com", "origin": "bounce", "source_id": None}
    else:
        about |= {"name": "kyora.example", "status": "verified", "region": "eu-west-1"}
        about |= {"records": []}
    return {"type": kind, "created_at": AT, "data": about}


class Watched(dict[str, Any]):
    """An object that keeps the path of everything that is asked of it."""

    def __init__(self, found: dict[str, Any], path: tuple[str, ...], read: set[tuple[str, ...]]):
        super().__init__(
            {
                name: Watched(value, (*path, name), read) if isinstance(value, dict) else value
                for name, value in found.items()
            }
        )
        self.path, self.read = path, read

    @override
    def __getitem__(self, name: str) -> Any:
        self.read.add((*self.path, name))
        return super().__getitem__(name)

    @override
    def get(self, name: str, default: Any = None) -> Any:
        self.read.add((*self.path, name))
        return super().get(name, default)


def read_of(kind: str) -> set[tuple[str, ...]]:
    read: set[tuple[str, ...]] = set()
    event = Watched(sample(kind), (), read)
    with postgres.transaction() as tx:
        webhook._record(tx, f"msg_{kind}", event, "{}")
        webhook._note_domain(tx, event, "hello@kyora.example")
    return read


def known(expected: Any, path: tuple[str, ...]) -> bool:
    """Return whether a type has what is at a path; below a dict of texts there is anything."""
    for name in path:
        if not typing_extensions.is_typeddict(expected):
            return True
        names = fields(expected)
        if name not in names:
            return False
        expected = names[name]
    return True


def test_each_sample_is_one_of_resends() -> None:
    for kind, expected in TYPES.items():
        assert faults(sample(kind), expected) == [], kind


@pytest.mark.parametrize("kind", TYPES)
def test_each_field_that_is_read_is_one_that_resend_sends(kind: str, database: str) -> None:
    read = read_of(kind)
    assert ("data",) in read
    # What says why is looked for in every event: one of them has it.
    strange = [path for path in read if not any(known(t, path) for t in TYPES.values())]
    assert strange == []
    reasons = {("data", name) for name in ("bounce", "failed", "suppressed", "tags", "to")}
    reasons |= {("data", name) for name in ("email_id", "name", "status")}
    own = [path for path in read if path[:2] not in reasons and not known(TYPES[kind], path)]
    assert own == []


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("email.bounced", "General"),
        ("email.failed", "reached_daily_quota"),
        ("email.suppressed", "OnAccountSuppressionList"),
    ],
)
def test_the_reason_is_where_the_types_have_it(kind: str, reason: str) -> None:
    data = sample(kind)["data"]
    assert webhook._reason(data, data.get("bounce", {})) == reason


def test_every_kind_that_we_act_on_is_one_of_resends() -> None:
    ours = {*webhook._STATUS, *webhook._MIRRORED, *webhook._DOMAIN, *webhook._FOR_GOOD}
    assert ours == set(TYPES)
    theirs = {
        typing_extensions.get_args(fields(event)["type"])[0]
        for event in typing_extensions.get_args(sdk.WebhookEventPayload)
    }
    assert ours <= theirs


@pytest.mark.parametrize(
    "file", sorted(Path(mail_queue.ROOT, "events").glob("resend_webhook*.json"))
)
def test_the_events_that_a_person_sends_are_resends(file: Path) -> None:
    event = json.loads(json.loads(file.read_text())["body"])
    assert faults(event, TYPES[event["type"]]) == []


def test_the_signature_is_one_that_the_sdk_takes() -> None:
    """The function verifies it without the SDK: that takes one secret, and 0.2 s to import."""
    event = request(reported("email.sent"))
    headers = {name: event["headers"][f"svix-{name}"] for name in ("id", "timestamp", "signature")}
    options: Any = {
        "payload": event["body"],
        "headers": headers,
        "webhook_secret": secret(KEY),
    }
    assert sdk.Webhooks.verify(options)["type"] == "email.sent"
    with pytest.raises(ValueError, match="signature"):
        sdk.Webhooks.verify({**options, "payload": event["body"] + " "})
