-- Variants: smaller copies of an image, made once it is ready.

-- What the client asked for. `public`: its variants have addresses without a signature.
ALTER TABLE asset
    ADD COLUMN variants boolean NOT NULL DEFAULT false,
    ADD COLUMN public boolean NOT NULL DEFAULT false,
    ADD CONSTRAINT asset_public_check CHECK (variants OR NOT public);

-- The making of one asset's variants. A worker that makes them holds a lease; its token names the
-- only keys that it may write. Every object that may exist belongs to `final_attempt`,
-- `lease_token` or one of `stale`.
CREATE TABLE variant_set (
    asset_id text PRIMARY KEY REFERENCES asset (id) ON DELETE CASCADE,
    workspace_id text NOT NULL,
    status text NOT NULL DEFAULT 'waiting'
        CHECK (status IN ('waiting', 'making', 'ready', 'failed', 'deleted')),
    reason text,
    lease_token text,
    lease_until timestamptz,
    -- Claims since the last end; a worker that dies at every one has met a file that kills it.
    claims integer NOT NULL DEFAULT 0,
    -- Part of storage_usage.reserved_bytes.
    reserved_bytes bigint NOT NULL DEFAULT 0 CHECK (reserved_bytes >= 0),
    -- What is shown; its sizes are part of storage_usage.used_bytes.
    final_attempt text,
    stale text[] NOT NULL DEFAULT '{}',
    clean_after timestamptz,
    CHECK ((status = 'making') = (lease_token IS NOT NULL)),
    CHECK ((lease_token IS NULL) = (lease_until IS NULL)),
    CHECK (reserved_bytes = 0 OR status = 'making'),
    CHECK (status <> 'ready' OR final_attempt IS NOT NULL),
    CHECK (status <> 'deleted' OR final_attempt IS NULL),
    CHECK ((status = 'failed') = (reason IS NOT NULL)),
    CHECK ((stale = '{}') = (clean_after IS NULL))
);
CREATE INDEX variant_set_making ON variant_set (lease_until) WHERE status = 'making';
CREATE INDEX variant_set_workspace ON variant_set (workspace_id) WHERE status = 'making';
CREATE INDEX variant_set_unclean ON variant_set (clean_after) WHERE clean_after IS NOT NULL;

-- The files of `final_attempt`.
CREATE TABLE asset_variant (
    asset_id text NOT NULL REFERENCES variant_set (asset_id) ON DELETE CASCADE,
    workspace_id text NOT NULL,
    name text NOT NULL CHECK (name IN ('small', 'medium', 'large')),
    format text NOT NULL CHECK (format IN ('webp', 'jpeg')),
    width integer NOT NULL CHECK (width > 0),
    height integer NOT NULL CHECK (height > 0),
    size bigint NOT NULL CHECK (size > 0),
    PRIMARY KEY (asset_id, name, format)
);
CREATE INDEX asset_variant_workspace ON asset_variant (workspace_id);
