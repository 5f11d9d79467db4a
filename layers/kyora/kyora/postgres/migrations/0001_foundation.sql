-- Accounts. Other parts of Kyora own these rows; this bundle reads them.
CREATE TABLE workspace (
    id text PRIMARY KEY,
    name text NOT NULL,
    owner_id text,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE app_user (
    id text PRIMARY KEY,
    workspace_id text NOT NULL REFERENCES workspace (id),
    email text NOT NULL,
    name text NOT NULL DEFAULT '',
    role text NOT NULL CHECK (role IN ('admin', 'user')),
    locale text NOT NULL DEFAULT 'en',
    auth_version integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz
);
CREATE INDEX app_user_workspace ON app_user (workspace_id);

CREATE TABLE business (
    id text PRIMARY KEY,
    workspace_id text NOT NULL REFERENCES workspace (id),
    name text NOT NULL,
    currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX business_workspace ON business (workspace_id);

-- The ledger of stored bytes: reserved when an upload is asked for, used once it is ready.
CREATE TABLE storage_usage (
    workspace_id text PRIMARY KEY REFERENCES workspace (id),
    limit_bytes bigint NOT NULL DEFAULT 1073741824, -- -1: unlimited
    used_bytes bigint NOT NULL DEFAULT 0 CHECK (used_bytes >= 0),
    reserved_bytes bigint NOT NULL DEFAULT 0 CHECK (reserved_bytes >= 0)
);

CREATE TABLE asset (
    id text PRIMARY KEY,
    workspace_id text NOT NULL REFERENCES workspace (id),
    created_by text NOT NULL,
    purpose text,
    status text NOT NULL DEFAULT 'pending'
        CHECK (status IN ('pending', 'verifying', 'ready', 'rejected', 'expired', 'deleted')),
    filename text NOT NULL,
    content_type text NOT NULL,
    size bigint NOT NULL CHECK (size > 0),
    declared_sha256 text,
    sha256 text,
    width integer,
    height integer,
    reject_reason text,
    created_at timestamptz NOT NULL DEFAULT now(),
    url_expires_at timestamptz NOT NULL,
    confirm_deadline timestamptz NOT NULL,
    -- A worker that verifies holds the lease; its token names the only key it may write.
    lease_token text,
    lease_until timestamptz,
    attempts text[] NOT NULL DEFAULT '{}',
    final_attempt text,
    ready_at timestamptz,
    ended_at timestamptz,
    -- Set once no object of this asset is left beside the final one.
    cleaned_at timestamptz,
    CHECK ((status = 'verifying') = (lease_token IS NOT NULL)),
    CHECK ((lease_token IS NULL) = (lease_until IS NULL)),
    CHECK (status <> 'ready' OR (final_attempt IS NOT NULL AND sha256 IS NOT NULL)),
    CHECK ((status = 'rejected') <= (reject_reason IS NOT NULL))
);
CREATE INDEX asset_workspace_open ON asset (workspace_id) WHERE status IN ('pending', 'verifying');
CREATE INDEX asset_deadline ON asset (confirm_deadline) WHERE status IN ('pending', 'verifying');
CREATE INDEX asset_uncleaned ON asset (ended_at) WHERE cleaned_at IS NULL AND ended_at IS NOT NULL;

-- The answer to a POST that carried an Idempotency-Key, kept for 24 hours.
CREATE TABLE idempotency_key (
    workspace_id text NOT NULL,
    operation text NOT NULL,
    key text NOT NULL,
    request_hash text NOT NULL,
    response jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (workspace_id, operation, key)
);
CREATE INDEX idempotency_key_created ON idempotency_key (created_at);

-- Events, written by the transaction that causes them and published after it.
CREATE TABLE outbox (
    id text PRIMARY KEY,
    source text NOT NULL,
    detail_type text NOT NULL,
    detail jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    attempts integer NOT NULL DEFAULT 0,
    last_error text,
    published_at timestamptz
);
CREATE INDEX outbox_due ON outbox (next_attempt_at, id) WHERE published_at IS NULL;
CREATE INDEX outbox_published ON outbox (published_at) WHERE published_at IS NOT NULL;

-- What a consumer has already done, recorded in the transaction that does it.
CREATE TABLE inbox (
    consumer text NOT NULL,
    event_id text NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, event_id)
);
CREATE INDEX inbox_received ON inbox (received_at);
