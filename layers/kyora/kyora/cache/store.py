"""The cache's operations, on whichever provider is configured."""

from collections.abc import Callable
from typing import Protocol

from kyora import clock, config
from kyora.cache import circuit, entry
from kyora.postgres import Transaction, in_transaction

LONGEST = 30 * 86_400  # seconds; Memcached takes more for a date, and one long gone
LARGEST = 1_000_000  # bytes; Memcached refuses what is over 1 MiB


class Provider(Protocol):
    """What a provider's module does. An error of any kind is a miss to the caller."""

    def get(self, name: str) -> bytes | None:
        """Return the entry of `name`, which the caller checks, or None."""

    def put(self, name: str, kept: bytes, seconds: int) -> None:
        """Store an entry for at most `seconds`."""

    def drop(self, name: str) -> None:
        """Delete the entry."""


def get(key: str) -> bytes | None:
    """Return the value of `key`, or None: absent, expired, damaged, or the cache is down."""

    def read(provider: Provider, name: str) -> bytes | None:
        kept = provider.get(name)
        return None if kept is None else entry.unseal(name, kept, clock.timestamp())

    return _ask(key, read)


def put(key: str, value: bytes, seconds: int) -> None:
    """Store a value for at most `seconds`, and never for more than 30 days.

    A value over a million bytes, or with no time left, is not stored; the key's old one is deleted.
    """
    if seconds <= 0 or len(value) > LARGEST:
        drop(key)
        return
    seconds = min(seconds, LONGEST)

    def write(provider: Provider, name: str) -> None:
        kept = entry.seal(name, value, int(clock.timestamp()) + seconds)
        provider.put(name, kept, seconds)

    _ask(key, write)


def drop(key: str) -> None:
    """Delete a value. While the cache does not answer, it stays until it expires."""
    _ask(key, lambda provider, name: provider.drop(name))


def drop_after_commit(tx: Transaction, key: str) -> None:
    """Delete the value of `key` once `tx` has committed what changes it."""
    tx.after_commit(_drop_all, key)


def remember(key: str, seconds: int, produce: Callable[[], bytes]) -> bytes:
    """Return the value of `key`, or produce it and store it for `seconds`.

    A value produced while its source changes may be stored after the drop, and is then stale for
    up to `seconds`: use it for what is shown, never for a decision.
    """
    found = get(key)
    if found is None:
        found = produce()
        put(key, found, seconds)
    return found


def seen(key: str) -> bool:
    """Return whether `key` was marked. False is no answer: ask Postgres."""
    return get(_mark_of(key)) is not None


def mark(key: str, seconds: int) -> None:
    """Mark `key` as handled. Call it only after the commit that says so in Postgres."""
    put(_mark_of(key), b"", seconds)


def forget() -> int:
    """Delete up to a thousand expired rows of the provider `postgres`; return how many.

    Also while another provider is configured: it may have been `postgres` yesterday.
    """
    from kyora.cache import postgres as table

    return table.forget()


def _mark_of(key: str) -> str:
    return f"seen\n{key}"


def _drop_all(keys: list[str]) -> None:
    for key in keys:
        drop(key)


def _ask[T](key: str, question: Callable[[Provider, str], T]) -> T | None:
    """Ask the configured provider about the entry of `key`; None when it fails or there is none."""
    if config.is_development() and in_transaction():
        raise RuntimeError("the cache is used inside a transaction; see drop_after_commit")
    configured = config.cache().provider
    provider = _provider(configured)
    if provider is None:
        return None
    try:
        return question(provider, entry.name(config.stage(), key))
    except Exception as error:
        circuit.report(configured, error)
        return None


def _provider(name: str) -> Provider | None:
    if name == "memcached":
        from kyora.cache import memcached

        return memcached
    if name == "postgres":
        from kyora.cache import postgres as table

        return table
    if name == "memory":
        from kyora.cache import memory

        return memory
    return None
