"""What billing announces to the rest of the product: each fact once, however often it is seen."""

from collections.abc import Mapping
from datetime import datetime

from kyora.bus import outbox
from kyora.postgres import Transaction


def once(
    tx: Transaction,
    key: str,
    name: str,
    data: Mapping[str, object],
    workspace_id: str,
    occurred_at: datetime,
) -> bool:
    """Put event `name` on the bus, once for each `key`; return whether it was the first time.

    `occurred_at` is Stripe's time: no mail is sent for an old fact that is learned late.
    """
    fresh = note(tx, key)
    if fresh:
        emit(tx, name, data, workspace_id, occurred_at)
    return fresh


def first(
    tx: Transaction,
    key: str,
    name: str,
    data: Mapping[str, object],
    workspace_id: str,
    occurred_at: datetime,
) -> None:
    """Put event `name` on the bus; the caller knows that `key` is new.

    Unlike `once` it takes no round trip: with a key that is there the transaction fails.
    """
    tx.later("INSERT INTO billing_fact (key) VALUES (:key)", key=key)
    emit(tx, name, data, workspace_id, occurred_at)


def note(tx: Transaction, key: str) -> bool:
    """Record `key` without announcing anything; return whether it is new."""
    fresh = tx.run(
        "INSERT INTO billing_fact (key) VALUES (:key) ON CONFLICT DO NOTHING",
        key=key,
    )
    return bool(fresh)


def emit(
    tx: Transaction,
    name: str,
    data: Mapping[str, object],
    workspace_id: str | None,
    occurred_at: datetime | None = None,
) -> None:
    """Put event `name` on the bus; members that are None are left out.

    `workspace_id` is None for an event that is about no workspace.
    """
    said = {field: _plain(value) for field, value in data.items() if value is not None}
    outbox.add(tx, "billing", name, said, workspace_id, occurred_at=occurred_at)


def _plain(value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else value
