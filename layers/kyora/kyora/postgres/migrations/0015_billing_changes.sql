-- What a mirrored subscription costs, and what its schedule at Stripe plans for it. Written with the
-- subscription's row; `items` holds every price that is paid, `pending` the prices of the next phase.
CREATE TABLE subscription_terms (
    subscription_id text PRIMARY KEY,
    items jsonb NOT NULL DEFAULT '[]',
    schedule_id text,
    pending jsonb,
    pending_at timestamptz,
    resume_at timestamptz
);
-- Rows of before have no terms yet: they are read from Stripe by the next sweep.
UPDATE subscription SET doubtful = true WHERE status NOT IN ('canceled', 'incomplete_expired');

-- What Stripe holds for the customer: negative is a credit that the next invoices use.
ALTER TABLE billing_customer ADD COLUMN balance bigint NOT NULL DEFAULT 0;
