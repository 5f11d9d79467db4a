-- An attempt is counted when it begins: one that was killed (a timeout, no memory) tells nothing.
ALTER TABLE stripe_event
    ADD COLUMN tried_at timestamptz, -- when an attempt began whose outcome is not known yet
    ADD COLUMN next_at timestamptz; -- when the next one is due, after one that failed
