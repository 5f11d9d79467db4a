"""How long it is kept what was sent to whom: rows name people, and only grow."""

from kyora.postgres import transaction

_DAYS = 90  # a copy of an older event is expired, and so is sent no more without its row


def forget() -> int:
    """Delete up to a thousand messages and webhook events past their time; return how many.

    Suppressions stay: they are what keeps mail from people who do not want it.
    """
    with transaction() as tx:
        return sum(
            tx.run(
                f"DELETE FROM {table} WHERE id IN (SELECT id FROM {table}"
                f" WHERE {column} < now() - interval '{_DAYS} days' ORDER BY {column}"
                " LIMIT 1000 FOR UPDATE SKIP LOCKED)"
            )
            for table, column in (("email_message", "ended_at"), ("email_event", "received_at"))
        )
