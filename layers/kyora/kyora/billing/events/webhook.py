"""A delivery from Stripe: verify its signature, keep the event, process it.

A signature is HMAC-SHA256 of `timestamp.body` (https://docs.stripe.com/webhooks/signature); there
is one `v1` for each live secret while a secret is rolled. The SDK's own helper adds 130 ms to a
cold start and accepts timestamps from the future; tests compare this one with it.
"""

import hmac
import json
from collections.abc import Mapping, Sequence

from kyora import clock, config
from kyora.billing import stripe_objects
from kyora.billing.events import ingest
from kyora.billing.stripe_objects import Event
from kyora.errors import BadPayload, BadSignature, NotFound
from kyora.observability import count, logger

_TOLERANCE = 300  # seconds between Stripe's clock and ours, both ways
_MOST_SIGNATURES = 20


def receive(headers: Mapping[str, str], body: bytes) -> None:
    """Keep one delivery and process it; a repeated one changes nothing.

    `headers` have lower-case names. Raises NotFound while no secret is configured, BadSignature,
    BadPayload, and Unavailable or whatever went wrong when Stripe should deliver it again.
    """
    secrets = config.stripe_webhook_secrets()
    if not secrets:
        raise NotFound("There is nothing at this address.")
    try:
        verify(secrets, headers, body, clock.timestamp())
    except BadSignature:
        count("StripeSignatureFailures")
        raise
    text, event = _parse(body, live=config.stage() == "prod")
    if event is not None:
        ingest.take(event, text, "webhook")


def verify(secrets: Sequence[str], headers: Mapping[str, str], body: bytes, now: float) -> None:
    """Raise BadSignature unless one `v1` signature is by one of the secrets, and recent."""
    pairs = [part.partition("=") for part in headers.get("stripe-signature", "").split(",")]
    stamps = [value for name, _, value in pairs if name.strip() == "t"]
    given = [value for name, _, value in pairs if name.strip() == "v1"][:_MOST_SIGNATURES]
    if len(stamps) != 1 or not given:
        raise BadSignature("The header Stripe-Signature is missing or malformed.")
    stamp = stamps[0]
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) < 16):
        raise BadSignature("The signature has no timestamp.")
    if abs(now - int(stamp)) > _TOLERANCE:
        raise BadSignature("The timestamp is too far from now.")
    signed = stamp.encode() + b"." + body
    expected = [hmac.digest(secret.encode(), signed, "sha256").hex() for secret in secrets]
    # Every pair is compared, so that the time taken reveals nothing.
    matches = [
        text.isascii() and hmac.compare_digest(text, wanted)
        for text in given
        for wanted in expected
    ]
    if not any(matches):
        raise BadSignature("No signature is by a secret of ours.")


def _parse(body: bytes, *, live: bool) -> tuple[str, Event | None]:
    """Return the text and its event, None for a kind that we do not handle. Raises BadPayload."""
    try:
        text = body.decode()
        payload = json.loads(text)
    except (ValueError, RecursionError):
        raise BadPayload("The body is not JSON.") from None
    if isinstance(payload, dict) and payload.get("object") == "v2.core.event":
        logger().info("thin Stripe event ignored")  # it holds no object, and none is subscribed to
        return text, None
    event = stripe_objects.event(payload)
    if event is None:
        raise BadPayload("The body is not an event.")
    if event.livemode != live:
        raise BadPayload("The event is of the other mode, test or live.")
    return text, event
