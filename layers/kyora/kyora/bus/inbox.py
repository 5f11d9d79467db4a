"""What a consumer has done, recorded in the transaction that does it: effects happen once."""

from kyora.postgres import Transaction, transaction


def first_time(tx: Transaction, consumer: str, event_id: str) -> bool:
    """Record that `consumer` handles `event_id`; False when it already has.

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


def forget() -> int:
    """Delete up to a thousand records of ninety days ago; return how many.

    A queue and its dead-letter queue deliver for eighteen days at most. Only a replay of an older
    archive comes later: what it brings about must be the same the second time.
    """
    with transaction() as tx:
        return tx.run(
            "DELETE FROM inbox WHERE ctid = ANY(ARRAY(SELECT ctid FROM inbox"
            " WHERE received_at < now() - interval '90 days' ORDER BY received_at LIMIT 1000"
            " FOR UPDATE SKIP LOCKED))"
        )
