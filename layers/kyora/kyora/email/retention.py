"""How long it is kept what was sent to whom: rows name people, and only grow."""

from kyora.postgres import transaction

# A copy of an older event is expired, and so is sent no more without its row.
AGE = "interval '90 days'"


def forget() -> int:
    """Delete up to a thousand messages, and as many webhook events, past their time.

    Also what as many messages would have said, of which it is too late to send them. Returns how
    many.

    Suppressions stay: they are what keeps mail from people who do not want it.
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
