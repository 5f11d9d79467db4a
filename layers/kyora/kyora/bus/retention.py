"""How long published events, and records of handled ones, are kept."""

from kyora.postgres import transaction


def forget_published() -> int:
    """Delete up to a thousand events published more than a week ago; return how many.

    The archive keeps them; this table stays small.
    """
    with transaction() as tx:
        return tx.run(
            "DELETE FROM outbox WHERE ctid = ANY(ARRAY(SELECT ctid FROM outbox"
            " WHERE published_at < now() - interval '7 days' ORDER BY published_at LIMIT 1000"
            " FOR UPDATE SKIP LOCKED))"
        )


def forget_seen() -> int:
    """Delete up to a thousand records older than ninety days; return how many.

    A queue and its dead-letter queue deliver for eighteen days at most. Only a replay of the
    archive comes later: EventArchiveDays (template.yaml) is shorter than ninety days.
    """
    with transaction() as tx:
        return tx.run(
            "DELETE FROM inbox WHERE ctid = ANY(ARRAY(SELECT ctid FROM inbox"
            " WHERE received_at < now() - interval '90 days' ORDER BY received_at LIMIT 1000"
            " FOR UPDATE SKIP LOCKED))"
        )
