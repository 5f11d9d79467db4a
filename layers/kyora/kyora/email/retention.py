"""Retention of sent mail: rows hold personal data and would grow forever."""

from kyora.postgres import transaction

# A copy of an older event has expired, so it is not sent even without its row.
AGE = "interval '90 days'"


def forget() -> int:
    """Delete up to a thousand old messages and as many webhook events; return how many rows.

    Also clears the data of up to a thousand messages that have expired unsent. Suppressions stay:
    they keep mail from people who do not want it.
    """
    with transaction() as tx:
        messages = tx.run(
            "DELETE FROM email_message WHERE ctid = ANY(ARRAY(SELECT ctid FROM email_message"
            f" WHERE ended_at < now() - {AGE} ORDER BY ended_at LIMIT 1000 FOR UPDATE SKIP LOCKED))"
        )
    with transaction() as tx:
        words = tx.run(
            "UPDATE email_message SET data = NULL WHERE ctid = ANY(ARRAY(SELECT ctid"
            " FROM email_message WHERE ended_at IS NOT NULL AND data IS NOT NULL"
            " AND expires_at < now() ORDER BY expires_at LIMIT 1000 FOR UPDATE SKIP LOCKED))"
        )
    with transaction() as tx:
        events = tx.run(
            "DELETE FROM email_event WHERE ctid = ANY(ARRAY(SELECT ctid FROM email_event WHERE"
            f" received_at < now() - {AGE} ORDER BY received_at LIMIT 1000 FOR UPDATE SKIP LOCKED))"
        )
    return messages + words + events
