"""Retention of uploads that came to nothing: their rows would grow forever."""

from kyora.postgres import transaction

# Longer than any object of theirs is left in the bucket, and than an Idempotency-Key is kept.
AGE = "interval '30 days'"


def forget() -> int:
    """Delete up to a thousand rejected, expired or deleted assets past their time.

    Returns how many. A row whose objects are not deleted yet stays: it alone knows their keys.
    """
    with transaction() as tx:
        return tx.run(
            "DELETE FROM asset WHERE ctid = ANY(ARRAY(SELECT ctid FROM asset"
            " WHERE cleaned_at IS NOT NULL AND status IN ('rejected', 'expired', 'deleted')"
            f" AND ended_at < now() - {AGE} ORDER BY ended_at LIMIT 1000 FOR UPDATE SKIP LOCKED))"
        )
