-- Resend keeps a list of suppressed addresses of its own, and knows how our sending domain is.
ALTER TABLE email_suppression
    -- When Resend last spoke of the address, by its clock: what it said before that is old.
    ADD COLUMN told_at timestamptz;

-- Our sending domain, as the webhook last told; a row a domain.
CREATE TABLE email_domain (
    name text PRIMARY KEY,
    status text NOT NULL, -- Resend's word: an open list
    told_at timestamptz NOT NULL
);

-- What the daily look at Resend's list found; one row.
CREATE TABLE email_check (
    name text PRIMARY KEY,
    at timestamptz NOT NULL,
    result jsonb NOT NULL
);
