"""The provider `memory`: a table in this process. Invalidation is local to it."""

_MOST, _BYTES = 1000, 16 << 20  # entries, and bytes of all of them

_entries: dict[str, bytes] = {}  # the most recently used last


def get(name: str) -> bytes | None:
    """Return an entry and make it the most recently used."""
    kept = _entries.pop(name, None)
    if kept is not None:
        _entries[name] = kept
    return kept


def put(name: str, kept: bytes, seconds: int) -> None:
    """Store an entry, evicting the least recently used. The envelope holds its expiry."""
    _entries.pop(name, None)
    _entries[name] = kept
    while len(_entries) > _MOST or sum(map(len, _entries.values())) > _BYTES:
        del _entries[next(iter(_entries))]


def drop(name: str) -> None:
    """Delete the entry."""
    _entries.pop(name, None)
