-- A mail that died is no dead end: what it says is kept until it would be too late to send it, a
-- person can send it again, and `make status` is red until one has looked.
ALTER TABLE email_message
    -- How often it was begun from the start, each time under a key of its own: its id, `id.1`, …
    ADD COLUMN begun integer NOT NULL DEFAULT 0 CHECK (begun >= 0),
    ADD COLUMN seen_at timestamptz; -- when somebody looked at how it ended

-- "queued and sending have data, the others have none" becomes its first half.
DO $$
DECLARE
    found text;
BEGIN
    SELECT conname INTO STRICT found FROM pg_constraint
    WHERE conrelid = 'email_message'::regclass AND contype = 'c'
        AND pg_get_constraintdef(oid) LIKE '%data IS NOT NULL%';
    EXECUTE format('ALTER TABLE email_message DROP CONSTRAINT %I', found);
END $$;
ALTER TABLE email_message
    ADD CONSTRAINT email_message_data CHECK (status NOT IN ('queued', 'sending') OR data IS NOT NULL);

CREATE INDEX email_message_kept ON email_message (expires_at)
    WHERE ended_at IS NOT NULL AND data IS NOT NULL;
CREATE INDEX email_message_unseen ON email_message (ended_at)
    WHERE seen_at IS NULL AND status IN ('accepted_unknown', 'dead', 'failed');
CREATE INDEX email_message_left ON email_message (lease_until) WHERE status = 'sending';
