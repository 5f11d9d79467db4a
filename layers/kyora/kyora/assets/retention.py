"""Retention of ended assets: their rows would grow forever."""

from kyora.postgres import transaction

# Longer than the bucket keeps their objects, and than an Idempotency-Key lives.
AGE = "interval '30 days'"


def forget() -> int:
    """Delete up to a thousand rejected, expired or deleted assets past their retention.

    Returns how many. A row stays until its objects are deleted: nothing else knows their keys.
    """
    with transaction() as tx:
        return tx.run(
            "DELETE FROM asset WHERE ctid = ANY(ARRAY(SELECT ctid FROM asset"
            " WHERE cleaned_at IS NOT NULL AND status IN ('rejected', 'expired', 'deleted')"
            f" AND ended_at < now() - {AGE} AND NOT EXISTS (SELECT 1 FROM variant_set s"
            "   WHERE s.asset_id = asset.id AND s.workspace_id = asset.workspace_id"
            "   AND s.clean_after IS NOT NULL)"
            " ORDER BY ended_at LIMIT 1000 FOR UPDATE SKIP LOCKED))"
        )
