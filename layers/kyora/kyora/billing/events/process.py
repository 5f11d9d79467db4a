"""From a kept event of Stripe's to our mirror, in one transaction with what follows from it.

`ordering` says what a payload is worth, `types` who does what about it. Every writer locks the
customer's row first: one lock, one order. Mail is sent for facts (`announce`), which are the union
of what all payloads say and so know no order.
"""

import time
from typing import Any

from kyora.billing import event_store, stripe_objects
from kyora.billing.events import types
from kyora.billing.mirror import customers, subscriptions
from kyora.billing.mirror.subscriptions import OURS
from kyora.billing.ordering import Ask, Read, Turn
from kyora.billing.stripe_objects import Event
from kyora.errors import ConfigError, Unavailable
from kyora.observability import count, fault, gauge, logger
from kyora.postgres import Transaction, transaction

_TURNS = 5  # times that somebody else may write while Stripe is asked
_OUTAGE = 3  # attempts after which a payload is better than nothing
_CATCHING_UP = 5.0  # seconds beside the event at hand, whose sender waits

type Row = dict[str, Any]


class Missing(Exception):
    """An object of an event is unknown to Stripe: only a person can tell why."""


def attempt(event: Event) -> bool:
    """Do what a kept event asks for; False when it was parked, or left to another worker.

    Raises as `take` does.
    """
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
        logger().error("Stripe event parked", event_id=event.id)
        count("StripeEventsParked")
        return False
    gauge("StripeLagSeconds", max(0.0, time.time() - event.created))
    return True


def apply(event: Event) -> bool:
    """Do what an event asks for; one that was done before changes nothing.

    False when another worker is about to do it: one read of the catalogue does for many events.

    Raises Unavailable while the database or Stripe is away or others write about the same
    customer all the time, Unreadable and Missing when a person has to look.
    """
    if event.type.startswith(types.CATALOGUE):
        from kyora.billing.plans import sync

        return sync.apply(event)
    read: Read | None = None
    for _ in range(_TURNS):
        try:
            with transaction() as tx:
                _turn(tx, event, read)
        except Ask as ask:
            read = _read(event, ask)
        else:
            return True
    raise Unavailable("Others write about this customer.", code="billing.busy")


def _turn(tx: Transaction, event: Event, read: Read | None) -> None:
    """Do everything about an event in one transaction, or raise Ask and have done nothing."""
    customer_id = stripe_objects.customer_of(event)
    customer = customers.lock(tx, customer_id) if customer_id else None
    row = _open(tx, event)
    if row is None:
        return
    if customer is None:  # nobody's: a card that was never attached, say
        event_store.done(tx, event.id, "processed")
        return
    if read is not None and read.version != customer["version"] - 1:
        raise Ask(customer["version"] - 1, row["attempts"])  # somebody wrote meanwhile
    handler = next(function for kinds, function in types.HANDLERS if event.type in kinds)
    known = customer["workspace_id"]
    handler(tx, Turn(event, customer, row, read))
    if customer["workspace_id"] and not known:
        tx.after_commit(catch_up, str(customer_id))
    if customer["workspace_id"] or event.type in types.PAYMENT_METHOD:
        event_store.done(tx, event.id, "processed")
    else:
        count("StripeOrphans")
        event_store.done(tx, event.id, "orphan")


def _open(tx: Transaction, event: Event) -> Row | None:
    """Return an event's row with our row of its subscription, or None when it is done already.

    The customer's lock stands before this: a second delivery waits there and then sees `done`.
    """
    row = tx.row(
        f"SELECT e.status AS event_status, e.attempts, s.entitled, {OURS}"
        " FROM stripe_event e LEFT JOIN subscription s ON s.id = :object WHERE e.id = :id",
        id=event.id,
        object=stripe_objects.object_of(event),
    )
    return row if row and row["event_status"] == "received" else None


def _read(event: Event, ask: Ask) -> Read:
    """Ask Stripe for the object of an event. Raises Unavailable, Missing."""
    from kyora.billing import stripe_client

    if event.type in types.SCHEDULE:
        path, identity = "subscriptions", str(event.object.get("subscription"))
    else:
        path, identity = _PATHS[str(event.object.get("object"))], str(event.object.get("id"))
    more: dict[str, Any] = {"expand": subscriptions.WHOLE} if path == "subscriptions" else {}
    try:
        return Read(stripe_client.call("get", f"{path}/{identity}", **more), ask.version)
    except stripe_client.Missing:
        raise Missing(f"{path} of an event is not at Stripe") from None
    except Unavailable:
        if ask.attempts <= _OUTAGE:  # this one is among them
            raise
        logger().warning("Stripe is away: the payload has to do", event_id=event.id)
        return Read(None, ask.version)


_PATHS = {
    "subscription": "subscriptions",
    "customer": "customers",
    "payment_method": "payment_methods",
}


def catch_up(customers: list[str]) -> None:
    """Do the events of customers again whose workspace has only now become known.

    What there is no time for, or fails, is left to the sweep.
    """
    until = time.monotonic() + _CATCHING_UP
    for event_id in event_store.reopened(customers):
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
