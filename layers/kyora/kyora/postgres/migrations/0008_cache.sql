-- The cache of whoever has no Memcached. Unlogged: cheap to write, empty after a crash, on no
-- replica and in no backup; all of which a cache may be.
CREATE UNLOGGED TABLE cache_entry (
    key text PRIMARY KEY,
    value bytea NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX cache_entry_expires ON cache_entry (expires_at);
