"""A cache that only saves work: answers stay right when it is empty, stale, slow, wrong or down.

    store ── entry ──┬── memcached
                     ├── postgres     the one that is configured, or none
                     └── memory
          circuit: a server that failed is skipped for five seconds

Every call is bounded in time, and none raises when the cache fails: that is a miss. Decisions (a
plan's limit, whether an event is new) are made in Postgres, under its lock; the cache only serves
what is shown, and says that an id was handled already.

Never call it inside a transaction: the transaction's locks would wait for the cache, and after a
drop another request could store the old value again before the commit. Development raises for it.
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
