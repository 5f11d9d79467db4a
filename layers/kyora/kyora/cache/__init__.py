"""A cache that may only ever save work: empty, stale, slow, wrong or gone, answers stay right.

    store ── entry ──┬── memcached
                     ├── postgres     the one that is configured, or none
                     └── memory
          circuit: a server that failed is skipped for five seconds

Every call is bounded in time and none raises for a cache that fails: what cannot be asked is a
miss. What is decided (a plan's limit, whether an event is new) is decided in Postgres, under its
lock; the cache only serves what is shown, and says that an id was dealt with already.

Never inside a transaction: its locks would wait for the cache, and what a drop makes room for
could be filled again with what the transaction is about to change. Development raises for it.
"""

from kyora.cache.store import (
    LARGEST,
    LONGEST,
    Provider,
    drop,
    drop_after_commit,
    forget,
    get,
    mark,
    put,
    remember,
    seen,
)

__all__ = [
    "LARGEST",
    "LONGEST",
    "Provider",
    "drop",
    "drop_after_commit",
    "forget",
    "get",
    "mark",
    "put",
    "remember",
    "seen",
]
