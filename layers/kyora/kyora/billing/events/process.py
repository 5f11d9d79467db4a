"""Process a kept event: mirror its object, settle access and announce, in one transaction (T2).

`ordering` says what a payload is worth, `types` which handler takes it. Every writer locks the
customer's row first, so there is one lock and one order. Announcements are keyed (`announce.once`)
and follow from the union of all payloads, so they do not depend on the order either.
"""

import time
from typing import Any

from kyora import clock
from kyora.billing import event_store
from kyora.billing.events import types
from kyora.billing.mirror import customers, subscriptions
from kyora.billing.mirror.subscriptions import FROM_OURS, OURS
from kyora.billing.ordering import Ask, Attempt, Read
from kyora.billing.stripe_objects import Event
from kyora.errors import ConfigError, Unavailable
from kyora.observability import count, fault, follow, gauge, logger
from kyora.postgres import Transaction, transaction

_TRIES = 5  # times that another worker may write while Stripe is asked
_OUTAGE = 3  # attempts after which a payload is better than nothing
_CATCHING_UP = 5.0  # seconds on top of the event at hand, whose sender waits
# Where an object is read; of a schedule the subscription is.
_PATHS = {
    "subscription": "subscriptions",
    "customer": "customers",
    "payment_method": "payment_methods",
}

type Row = dict[str, Any]


class UnknownObject(Exception):
    """Stripe does not know the object of an event: a person has to look."""


def attempt(event: Event) -> bool:
    """Process a kept event; False when it was marked failed, or left to another worker.

    What it causes continues the request of ours that caused the event. Raises as `ingest.take`.
    """
    with follow(event.correlation_id, event.traceparent):
        return _attempt(event)


def _attempt(event: Event) -> bool:
    try:
        if not apply(event):
            return False
    except (ConfigError, Unavailable) as error:  # nothing is wrong with the event
        event_store.failed(event.id, error.code, counts=False)
        raise
    except Exception as error:
        logger().error("Stripe event failed", event_id=event.id, **fault(error))
        if not event_store.failed(event.id, f"{type(error).__name__}: {error}", counts=True):
            raise
        logger().error("Stripe event failed for good", event_id=event.id)
        count("StripeEventsParked")
        return False
    gauge("StripeLagSeconds", max(0.0, clock.timestamp() - event.created))
    return True


def resume(event_id: str) -> bool:
    """Process a kept event; return whether it is done. Raises Unavailable without a database."""
    kept = event_store.begin(event_id)
    if kept is None:
        return False
    event, status = kept
    if status != "received":
        return status != "failed"  # another worker was first
    try:
        return attempt(event)
    except Unavailable as error:
        if error.code.startswith("database"):
            raise
        return False
    except Exception:  # logged and counted where it happened
        return False


def apply(event: Event) -> bool:
    """Do what an event asks for; an event that is done already changes nothing.

    False when another worker is about to do it: one read of the catalogue serves many events.

    Raises Unavailable while the database or Stripe is unreachable or other workers keep writing
    about the same customer, Unreadable and UnknownObject when a person has to look.
    """
    if event.type in types.CATALOGUE:
        from kyora.billing.plans import sync

        return sync.apply(event)
    read: Read | None = None
    for _ in range(_TRIES):
        try:
            with transaction() as tx:
                _apply(tx, event, read)
        except Ask as ask:
            read = _read(event, ask)
        else:
            return True
    raise Unavailable("Another request is writing this customer.", code="billing.busy")


def catch_up(customer_ids: list[str]) -> None:
    """Process the reopened events of customers whose workspace has just become known.

    Whatever does not fit into five seconds, or fails, is left to the sweep.
    """
    until = time.monotonic() + _CATCHING_UP
    for event_id in event_store.reopened(customer_ids):
        if time.monotonic() > until:
            return
        kept = event_store.begin(event_id)
        if kept is None or kept[1] != "received":
            continue
        try:
            attempt(kept[0])
        except Unavailable:
            return
        except Exception:  # noqa: S112  # logged and counted where it happened
            continue


def _apply(tx: Transaction, event: Event, read: Read | None) -> None:
    """Do everything about an event in one transaction, or raise Ask with nothing done."""
    claim: Row = {"id": event.id, "object": event.object_id}
    if not event.customer_id:  # a card that was never attached, say
        tx.later(_CLAIM, **claim)
        return
    lock: Row = {"id": event.customer_id}
    if event.type.startswith("customer.subscription."):
        locked, claimed = tx.together((_LOCK, lock), (_CLAIM_WITH_OURS, claim))
    else:
        locked, claimed = tx.together((_LOCK, lock), (_CLAIM, claim))
    if not claimed:
        return
    customer: Row = locked[0]
    row: Row = claimed[0]
    if read is not None and read.version != customer["version"] - 1:
        raise Ask(customer["version"] - 1, row["attempts"])  # another worker wrote meanwhile
    was_orphan = customer["workspace_id"] is None
    types.HANDLERS[event.type](tx, Attempt(event, customer, row, read))
    if was_orphan and customer["workspace_id"]:
        tx.after_commit(catch_up, str(event.customer_id))
    if not customer["workspace_id"] and event.kind != "payment_method":
        count("StripeOrphans")
        event_store.orphaned(tx, event.id)


_LOCK = customers.LOCK
# Marks an event as processed by what follows in its transaction, unless it is done; returns its
# attempts, and of a subscription's event our row of that. The customer is locked before this: a
# second delivery waits there and then sees `processed`.
_CLAIM = f"""
UPDATE stripe_event SET status = 'processed', {event_store.DONE}
WHERE id = :id AND status = 'received' RETURNING attempts
"""
_CLAIM_WITH_OURS = f"""
UPDATE stripe_event e SET status = 'processed', {event_store.DONE} FROM {FROM_OURS}
WHERE e.id = :id AND e.status = 'received' RETURNING e.attempts, {OURS}
"""


def _read(event: Event, ask: Ask) -> Read:
    """Read the object of an event from Stripe. Raises Unavailable, UnknownObject."""
    from kyora.billing import stripe_client

    if event.kind == "subscription_schedule":
        path, identity = "subscriptions", str(event.object.get("subscription"))
    else:
        path, identity = _PATHS[event.kind], str(event.object_id)
    more: dict[str, Any] = {"expand": subscriptions.WHOLE} if path == "subscriptions" else {}
    try:
        return Read(stripe_client.call("get", f"{path}/{identity}", **more), ask.version)
    except stripe_client.Missing:
        raise UnknownObject(f"{path} of an event is not at Stripe") from None
    except Unavailable:
        if ask.attempts <= _OUTAGE:  # this attempt is one of them
            raise
        logger().warning("Stripe unreachable: using the payload", event_id=event.id)
        return Read(None, ask.version)
