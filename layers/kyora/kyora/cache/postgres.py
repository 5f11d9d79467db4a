"""The provider `postgres`: an unlogged table, in transactions of its own.

For whoever has no Memcached. It saves a computation, not a round trip to the database.
"""

from collections.abc import Callable

from kyora.cache import circuit
from kyora.postgres import Transaction, in_transaction, transaction

_PEER = "postgres"


def get(name: str) -> bytes | None:
    """Return an entry that is not past its time by the database's clock."""
    row = _run(
        lambda tx: tx.row(
            "SELECT value FROM cache_entry WHERE key = :name AND expires_at > now()", name=name
        )
    )
    return bytes(row["value"]) if row and isinstance(row["value"], bytes) else None


def put(name: str, kept: bytes, seconds: int) -> None:
    """Keep an entry."""
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
    """Keep it no more."""
    _run(lambda tx: tx.run("DELETE FROM cache_entry WHERE key = :name", name=name))


def forget() -> int:
    """Delete up to a thousand rows past their time; return how many. Raises Unavailable."""
    with transaction() as tx:
        return tx.run(
            "DELETE FROM cache_entry WHERE ctid = ANY(ARRAY(SELECT ctid FROM cache_entry"
            " WHERE expires_at < now() ORDER BY expires_at LIMIT 1000 FOR UPDATE SKIP LOCKED))"
        )


def _run[T](work: Callable[[Transaction], T]) -> T | None:
    """Run `work` unless the database failed a moment ago, or a transaction is running.

    A database that does not answer costs its four seconds here as well as in what follows, so it
    does once, not every time.
    """
    if circuit.is_open(_PEER) or in_transaction():
        return None
    try:
        with transaction() as tx:
            return work(tx)
    except Exception as error:
        circuit.open_for(_PEER, error)
        return None
