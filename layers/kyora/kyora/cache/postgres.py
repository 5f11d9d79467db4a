"""The provider `postgres`: an unlogged table, in transactions of its own.

For a deployment without Memcached. It saves a computation, not a round trip to the database.
"""

from collections.abc import Callable

from kyora.cache import circuit
from kyora.postgres import Transaction, in_transaction, transaction

_PEER = "postgres"


def get(name: str) -> bytes | None:
    """Return an entry that has not expired by the database's clock."""
    row = _run(
        lambda tx: tx.row(
            "SELECT value FROM cache_entry WHERE key = :name AND expires_at > now()", name=name
        )
    )
    return bytes(row["value"]) if row and isinstance(row["value"], bytes) else None


def put(name: str, kept: bytes, seconds: int) -> None:
    """Store an entry."""
    _run(
        lambda tx: tx.run(
            "INSERT INTO cache_entry (key, value, expires_at)"
            " VALUES (:name, :kept, now() + CAST(:seconds AS int) * interval '1 second')"
            " ON CONFLICT (key) DO UPDATE"
            " SET value = excluded.value, expires_at = excluded.expires_at",
            name=name,
            kept=kept,
            seconds=seconds,
        )
    )


def drop(name: str) -> None:
    """Delete the entry."""
    _run(lambda tx: tx.run("DELETE FROM cache_entry WHERE key = :name", name=name))


def forget() -> int:
    """Delete up to a thousand expired rows; return how many. Raises Unavailable."""
    with transaction() as tx:
        return tx.run(
            "DELETE FROM cache_entry WHERE ctid = ANY(ARRAY(SELECT ctid FROM cache_entry"
            " WHERE expires_at < now() ORDER BY expires_at LIMIT 1000 FOR UPDATE SKIP LOCKED))"
        )


def _run[T](work: Callable[[Transaction], T]) -> T | None:
    """Run `work` unless the database failed a moment ago, or a transaction is running.

    A database that does not answer would cost four seconds here and again in the request itself;
    with the breaker it costs them once.
    """
    if circuit.is_open(_PEER) or in_transaction():
        return None
    try:
        with transaction() as tx:
            return work(tx)
    except Exception as error:
        circuit.open_for(_PEER, error)
        return None
