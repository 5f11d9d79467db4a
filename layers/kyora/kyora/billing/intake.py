"""How an event of Stripe's comes in, by whichever way: kept first, then done."""

import json
import time
from typing import Any

from kyora import cache, config
from kyora.billing import inbox, normalise
from kyora.billing.normalise import Event
from kyora.errors import ConfigError, KyoraError, Unavailable
from kyora.observability import count, fault, gauge, logger

_CATCHING_UP = 5.0  # seconds beside the event at hand, whose sender waits
_REMEMBERED = 3 * 86_400  # seconds: as long as Stripe repeats itself


def from_bus(message: dict[str, Any]) -> bool:
    """Take an event that came over Stripe's EventBridge partner bus; False when it should return.

    Nobody but Stripe can put one there, so it has no signature.
    """
    live = config.settings("database", "bus", "billing").stage == "prod"
    event = normalise.event(message)
    if event is None or event.livemode != live:
        logger().warning("not an event for us", live=live)
        return True
    try:
        take(event, json.dumps(message), "eventbridge")
    except KyoraError:
        return False
    return True


def take(event: Event, text: str, source: inbox.Source) -> None:
    """Keep an event and, unless it is done or parked, do what it asks for.

    After five attempts that failed for a reason of its own the event is parked: no error then, an
    endpoint that only fails is closed by Stripe. An event of another account (Connect, or one of
    the same organisation) is ignored: it names objects that are not ours, and its metadata is
    somebody else's to write. Raises Unavailable and whatever went wrong.
    """
    # Imported here: a forged request never gets this far.
    from kyora.billing import apply

    if cache.seen(_done(event)):
        return
    if event.account:
        count(config.settings("database").stage, "StripeForeignEvents")
    wanted = apply.wanted(event.type) and not event.account
    status = inbox.keep(event, text, source, wanted=wanted, begin=True)
    logger().info("Stripe event", event_id=event.id, type=event.type[:60], status=status)
    done = attempt(event) if status == "received" else status != "failed"
    if done:  # a parked one is looked up each time: somebody may replay it
        cache.mark(_done(event), _REMEMBERED)


def _done(event: Event) -> str:
    return f"stripe event {event.id}"


def attempt(event: Event) -> bool:
    """Do what a kept event asks for; False when it was parked, or left to another worker.

    Raises as `take` does.
    """
    from kyora.billing import apply

    stage = config.settings("database").stage
    try:
        if not apply.apply(event):
            return False
    except (ConfigError, Unavailable) as error:  # nothing is wrong with the event
        inbox.failed(event.id, error.code, counts=False)
        raise
    except Exception as error:
        logger().error("Stripe event failed", event_id=event.id, **fault(error))
        if not inbox.failed(event.id, f"{type(error).__name__}: {error}", counts=True):
            raise
        logger().error("Stripe event parked", event_id=event.id)
        count(stage, "StripeEventsParked")
        return False
    gauge(stage, "StripeLagSeconds", max(0.0, time.time() - event.created))
    return True


def catch_up(customers: list[str]) -> None:
    """Do the events of customers again whose workspace has only now become known.

    What there is no time for, or fails, is left to the sweep.
    """
    until = time.monotonic() + _CATCHING_UP
    for event_id in inbox.reopened(customers):
        if time.monotonic() > until:
            return
        kept = inbox.begin(event_id)
        if kept is None or kept[1] != "received":
            continue
        try:
            attempt(kept[0])
        except Unavailable:
            return
        except Exception:  # noqa: S112  # logged and counted where it happened
            continue
