"""How an event of Stripe's comes in, by webhook or bus: kept first (T1), then processed (T2)."""

import json
from typing import Any

from kyora import cache, config
from kyora.billing import event_store, stripe_objects
from kyora.billing.stripe_objects import Event
from kyora.errors import KyoraError
from kyora.observability import count, logger

_REMEMBERED = 3 * 86_400  # seconds: for as long Stripe delivers an event again


def from_bus(message: dict[str, Any]) -> bool:
    """Take an event that came over Stripe's EventBridge partner bus; False to get it again.

    Only Stripe can put one there, so it has no signature.
    """
    live = config.stage() == "prod"
    event = stripe_objects.event(message)
    if event is None or event.livemode != live:
        logger().warning("not an event for us", live=live)
        return True
    try:
        take(event, json.dumps(message), "eventbridge")
    except KyoraError:
        return False
    return True


def take(event: Event, text: str, source: event_store.Source) -> None:
    """Keep an event and, unless it is processed or marked failed, process it.

    An event whose own fault made five attempts fail is marked failed, and no error is raised:
    Stripe disables an endpoint that only fails. An event of another account (Connect, or one of
    the same organisation) is ignored: it names objects that are not ours, and others write its
    metadata. Raises Unavailable, and the error of a failed attempt.
    """
    # Imported here: a forged request never gets this far.
    from kyora.billing.events import process, types

    if cache.seen(_done(event)):
        return
    if event.account:
        count("StripeForeignEvents")
    wanted = types.handled(event.type) and not event.account
    event, status = event_store.keep(event, text, source, wanted=wanted, begin=True)
    logger().info("Stripe event", event_id=event.id, type=event.type[:60], status=status)
    done = process.attempt(event) if status == "received" else status != "failed"
    if done:  # a failed one is looked up each time: it may have been replayed
        cache.mark(_done(event), _REMEMBERED)


def _done(event: Event) -> str:
    return f"stripe event {event.id}"
