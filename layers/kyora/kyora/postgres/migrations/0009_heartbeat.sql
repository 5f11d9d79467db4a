-- When a scheduled function last did its work to the end: `make status` looks whether it runs.
CREATE TABLE heartbeat (
    name text PRIMARY KEY,
    at timestamptz NOT NULL
);

-- Mail that is not sent yet, found without looking at three months of it.
CREATE INDEX email_message_open ON email_message (created_at) WHERE ended_at IS NULL;
