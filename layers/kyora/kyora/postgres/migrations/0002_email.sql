-- One row per message: the truth about it. Its id is the provider's Idempotency-Key and follows
-- from what makes the message unique, so that even a row restored or lost keeps its key.
CREATE TABLE email_message (
    id text PRIMARY KEY,
    event_id text NOT NULL,
    event text NOT NULL,
    template text NOT NULL,
    recipient text NOT NULL,
    recipient_norm text NOT NULL,
    workspace_id text,
    correlation_id text NOT NULL,
    locale text NOT NULL,
    -- What the template shows, resolved once so that every attempt renders the same bytes. It may
    -- hold a link with its token, so it is dropped as soon as nothing is left to send. Not jsonb:
    -- that refuses some of what people manage to put into a name.
    data json,
    -- accepted_unknown: an attempt was accepted, but not the one whose answer we read.
    status text NOT NULL CHECK (status IN ('queued', 'sending', 'sent', 'accepted_unknown',
        'delayed', 'delivered', 'failed', 'suppressed', 'bounced', 'complained', 'skipped',
        'dead')),
    reason text, -- a code; the provider's own sentence is in `error`, and may name people
    error text,
    attempts integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    -- The first attempt that may have been accepted: the provider forgets its key 24 hours later.
    first_attempt_at timestamptz,
    next_attempt_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    lease_token text,
    lease_until timestamptz,
    payload_sha256 text,
    provider_id text,
    created_at timestamptz NOT NULL DEFAULT now(),
    sent_at timestamptz,
    ended_at timestamptz,
    UNIQUE (event_id, template, recipient),
    CHECK ((status = 'sending') = (lease_token IS NOT NULL)),
    CHECK ((lease_token IS NULL) = (lease_until IS NULL)),
    CHECK ((status IN ('queued', 'sending')) = (data IS NOT NULL)),
    CHECK ((status IN ('queued', 'sending')) = (ended_at IS NULL)),
    CHECK (status NOT IN ('skipped', 'dead') OR reason IS NOT NULL)
);
CREATE INDEX email_message_provider ON email_message (provider_id) WHERE provider_id IS NOT NULL;
CREATE INDEX email_message_recipient ON email_message (recipient_norm, created_at);
CREATE INDEX email_message_ended ON email_message (ended_at) WHERE ended_at IS NOT NULL;

-- What the provider's webhook told, once per message of the webhook.
CREATE TABLE email_event (
    id text PRIMARY KEY,
    message_id text,
    provider_id text,
    type text NOT NULL,
    recipient_norm text,
    temporary boolean NOT NULL DEFAULT false,
    payload text NOT NULL, -- as it came: jsonb refuses some of what JSON allows
    received_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX email_event_message ON email_event (message_id, received_at);
CREATE INDEX email_event_temporary ON email_event (recipient_norm, received_at) WHERE temporary;
CREATE INDEX email_event_received ON email_event (received_at);

-- Addresses that get no mail. Active while not lifted and `until` (none: for good) is ahead.
CREATE TABLE email_suppression (
    recipient_norm text PRIMARY KEY,
    reason text NOT NULL CHECK (reason IN ('bounced', 'complained', 'suppressed', 'bouncing')),
    source_event text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    until timestamptz,
    lifted_at timestamptz
);
CREATE INDEX email_suppression_active ON email_suppression (created_at) WHERE lifted_at IS NULL;

-- The breaker: while `open_until` is ahead nothing is sent and no attempt is counted.
CREATE TABLE email_provider_state (
    provider text PRIMARY KEY,
    open_until timestamptz NOT NULL,
    reason text NOT NULL,
    opened_at timestamptz NOT NULL DEFAULT now()
);

-- The mock provider's mailbox, and what it was told to answer next. Empty in production.
CREATE TABLE mock_mailbox (
    id text PRIMARY KEY,
    idempotency_key text NOT NULL,
    payload_sha256 text NOT NULL,
    recipient text NOT NULL,
    sender text NOT NULL,
    reply_to text NOT NULL,
    subject text NOT NULL,
    html text NOT NULL,
    text text NOT NULL,
    headers jsonb NOT NULL,
    tags jsonb NOT NULL,
    template text NOT NULL,
    locale text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX mock_mailbox_newest ON mock_mailbox (created_at, id);
CREATE INDEX mock_mailbox_key ON mock_mailbox (idempotency_key, created_at);

CREATE TABLE mock_failure (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    status integer NOT NULL, -- 0: no answer at all
    name text NOT NULL,
    retry_after real,
    accepted boolean NOT NULL DEFAULT false -- the message is kept, only the answer is this
);
