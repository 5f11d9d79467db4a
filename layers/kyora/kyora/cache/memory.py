"""The provider `memory`: this process's own. A drop is news to no other process."""

_MOST, _BYTES = 1000, 16 << 20  # entries, and bytes of all of them

_entries: dict[str, bytes] = {}  # the one used last stands last


def get(name: str) -> bytes | None:
    """Return an entry and make it the one that leaves last."""
    kept = _entries.pop(name, None)
    if kept is not None:
        _entries[name] = kept
    return kept


def put(name: str, kept: bytes, seconds: int) -> None:
    """Keep an entry, in the place of those not used for longest. Its envelope knows its time."""
    _entries.pop(name, None)
    _entries[name] = kept
    while len(_entries) > _MOST or sum(map(len, _entries.values())) > _BYTES:
        del _entries[next(iter(_entries))]


def drop(name: str) -> None:
    """Keep it no more."""
    _entries.pop(name, None)
