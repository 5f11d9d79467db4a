"""Which events a consumer has handled, recorded in the same transaction: effects happen once."""

from kyora.postgres import Transaction


def first_time(tx: Transaction, consumer: str, event_id: str) -> bool:
    """Record that `consumer` handles `event_id`; False when it already did.

    A second worker with the same event waits here until the first commits or rolls back.
    """
    return bool(
        tx.run(
            "INSERT INTO inbox (consumer, event_id) VALUES (:consumer, :event_id)"
            " ON CONFLICT DO NOTHING",
            consumer=consumer,
            event_id=event_id,
        )
    )
