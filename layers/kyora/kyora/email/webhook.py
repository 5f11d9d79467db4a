"""Resend's webhook: what became of a message after Resend accepted it.

Also changes of Resend's suppression list, and the state of our sending domain.

Signatures follow Standard Webhooks: HMAC-SHA256 of `id.timestamp.body` with any of our keys, one
or more of them in `svix-signature`. Deliveries may come late, twice and in any order.
"""

import base64
import hmac
import json
from collections.abc import Mapping, Sequence
from typing import Any

from kyora import clock, config, trace
from kyora.email import suppressions
from kyora.email.address import key
from kyora.errors import BadPayload, BadSignature, NotFound
from kyora.observability import logger
from kyora.postgres import Transaction, transaction

_TOLERANCE = 300  # seconds between Resend's clock and ours
_MAX_ID = 255

# Event → the status of its message. A message only moves down this list, so that a late `delivered`
# does not hide a complaint.
_STATUS = {
    "email.sent": "sent",
    "email.delivery_delayed": "delayed",
    "email.delivered": "delivered",
    "email.failed": "failed",
    "email.suppressed": "suppressed",
    "email.bounced": "bounced",
    "email.complained": "complained",
}
_ORDER = list(_STATUS.values())
_MIRRORED = {"suppression.added": True, "suppression.removed": False}
_DOMAIN = ("domain.created", "domain.updated", "domain.deleted")
_FOR_GOOD = {"email.suppressed": "suppressed", "email.complained": "complained"}


def receive(headers: Mapping[str, str], body: bytes) -> None:
    """Record one delivery of the webhook and act on it; a repeated one changes nothing.

    The names of `headers` are in lower case. Raises NotFound while no secret is configured,
    BadSignature and BadPayload.
    """
    keys = config.resend_webhook_keys()
    if not keys:
        raise NotFound("There is nothing at this address.")
    verify(keys, headers, body, clock.timestamp())
    text, event = _read(body)
    with transaction() as tx:
        fresh = _record(tx, headers["svix-id"], event, text)
        if fresh and event["type"] in _DOMAIN:
            _note_domain(tx, event, config.email_domain())
    logger().info("webhook received", type=event["type"][:60], repeated=not fresh)


def verify(keys: Sequence[bytes], headers: Mapping[str, str], body: bytes, now: float) -> None:
    """Raise BadSignature unless one of the signatures is by one of the keys, and recent."""
    svix_id, stamp = headers.get("svix-id", ""), headers.get("svix-timestamp", "")
    if not (0 < len(svix_id) <= _MAX_ID and svix_id.isascii()):
        raise BadSignature("The header svix-id is missing.")
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) < 16):
        raise BadSignature("The header svix-timestamp is missing.")
    if abs(now - int(stamp)) > _TOLERANCE:
        raise BadSignature("The timestamp is too far from now.")
    signed = f"{svix_id}.{stamp}.".encode() + body
    expected = [base64.b64encode(hmac.digest(k, signed, "sha256")).decode() for k in keys]
    for entry in headers.get("svix-signature", "").split()[:20]:
        version, _, given = entry.partition(",")
        good = [given.isascii() and hmac.compare_digest(given, found) for found in expected]
        if version == "v1" and any(good):
            return
    raise BadSignature("No signature is by a key of ours.")


def _read(body: bytes) -> tuple[str, dict[str, Any]]:
    try:
        text = body.decode()
        event = json.loads(text)
    except (ValueError, RecursionError):
        raise BadPayload("The body is not JSON.") from None
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise BadPayload("The body is not an event.")
    if not isinstance(event.get("data", {}), dict):
        raise BadPayload("The event's data is not an object.")
    return text, event


def _record(tx: Transaction, svix_id: str, event: dict[str, Any], text: str) -> bool:
    """Record the delivery and apply it; False when it was recorded before."""
    data = event.get("data", {})
    bounce = _object(data, "bounce")
    bounced = event["type"] == "email.bounced"
    temporary = bounced and bounce.get("type") != "Permanent"
    recipient, provider_id = _recipient(data), _text(data.get("email_id"))
    tagged = _tag(data, "message_id")
    fresh = tx.run(
        "INSERT INTO email_event (id, message_id, provider_id, type, recipient_norm, temporary,"
        " payload) VALUES (:id, :message, :provider, :type, :recipient, :temporary,"
        " :payload) ON CONFLICT DO NOTHING",
        id=svix_id,
        message=tagged,
        provider=provider_id,
        type=_text(event["type"]) or "",
        recipient=recipient,
        temporary=temporary,
        payload=text,
    )
    if not fresh:
        return False
    if event["type"] in _MIRRORED:
        _mirror(tx, event, svix_id)
        return True
    if event["type"] in _STATUS:
        _move(tx, event["type"], _reason(data, bounce), provider_id, tagged)
    if recipient is None:
        return True
    if bounced and not temporary:
        suppressions.suppress(tx, recipient, "bounced", svix_id)
    elif event["type"] in _FOR_GOOD:
        suppressions.suppress(tx, recipient, _FOR_GOOD[event["type"]], svix_id)
    elif temporary:
        suppressions.count_bounces(tx, recipient, svix_id)
    return True


def _move(
    tx: Transaction, kind: str, reason: str | None, provider_id: str | None, tagged: str | None
) -> None:
    """Move the message on, found by the provider's id or, if that answer was lost, by our own.

    That also ends its lease and its retries: a message that Resend reports on was accepted.
    """
    moved = tx.row(
        "UPDATE email_message SET status = :status, reason = :reason,"
        " provider_id = coalesce(provider_id, :provider), sent_at = coalesce(sent_at, now()),"
        " ended_at = coalesce(ended_at, now()), data = NULL, lease_token = NULL,"
        " lease_until = NULL"
        " WHERE (id = :tagged OR provider_id = :provider)"
        " AND coalesce(array_position(CAST(:order AS text[]), status), 0)"
        "   < array_position(CAST(:order AS text[]), :status)"
        " RETURNING correlation_id, traceparent",
        status=_STATUS[kind],
        reason=reason,
        provider=provider_id,
        tagged=tagged,
        order=_ORDER,
    )
    if moved:
        trace.link(str(moved["traceparent"]))
        trace.belongs_to(str(moved["correlation_id"]))


def _mirror(tx: Transaction, event: Mapping[str, Any], svix_id: str) -> None:
    """Mirror a change of Resend's suppression list."""
    data = event.get("data", {})
    if recipient := _text(key(str(data.get("email") or ""))):
        at, origin = suppressions.moment(event.get("created_at")), str(data.get("origin"))
        held = _MIRRORED[event["type"]]
        suppressions.mirror(tx, recipient, origin, at, svix_id, held=held)


def _note_domain(tx: Transaction, event: Mapping[str, Any], ours: str) -> None:
    """Record the state of our sending domain, for `make status`; an account may have others."""
    data = event.get("data", {})
    name = _text(str(data.get("name") or "").lower())
    if name is None or (ours and name != ours):
        return
    deleted = event["type"] == "domain.deleted"
    tx.run(
        "INSERT INTO email_domain AS d (name, status, told_at) VALUES (:name, :status, :at)"
        " ON CONFLICT (name) DO UPDATE SET status = excluded.status, told_at = excluded.told_at"
        " WHERE d.told_at < excluded.told_at",
        name=name,
        status="deleted" if deleted else _text(data.get("status")) or "unknown",
        at=suppressions.moment(event.get("created_at")),
    )


def _reason(data: Mapping[str, Any], bounce: Mapping[str, Any]) -> str | None:
    """Return the provider's code for why, never its message: that may name people."""
    failed, suppressed = _object(data, "failed"), _object(data, "suppressed")
    return _text(
        bounce.get("subType")
        or bounce.get("type")
        or failed.get("reason")
        or suppressed.get("type")
    )


def _object(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = data.get(name)
    return found if isinstance(found, dict) else {}


def _recipient(data: Mapping[str, Any]) -> str | None:
    """Return the recipient; we send to one at a time."""
    listed = data.get("to")
    if isinstance(listed, list) and len(listed) == 1 and isinstance(listed[0], str):
        return _text(key(listed[0]))
    return None


def _tag(data: Mapping[str, Any], name: str) -> str | None:
    """Return a tag; Resend sends them as an object, and has sent them as a list."""
    tags = data.get("tags")
    if isinstance(tags, list):
        pairs = [tag for tag in tags if isinstance(tag, dict)]
        tags = {str(tag.get("name")): tag.get("value") for tag in pairs}
    return _text(tags.get(name)) if isinstance(tags, dict) else None


def _text(value: object) -> str | None:
    """Return a text that Postgres can store: no NUL, no lone surrogate."""
    if not isinstance(value, str):
        return None
    return value[:_MAX_ID].replace("\0", "").encode(errors="replace").decode() or None
