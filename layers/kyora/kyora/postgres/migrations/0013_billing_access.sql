-- Access follows from the item that is a plan's, wherever it stands among a subscription's items.
ALTER TABLE subscription
    -- Of every item: when a plan of one of them changes, the subscription is looked at again.
    ADD COLUMN prices text[] NOT NULL DEFAULT '{}',
    ADD COLUMN products text[] NOT NULL DEFAULT '{}',
    -- Stripe paused it because a payment failed.
    ADD COLUMN payment_failed boolean NOT NULL DEFAULT false,
    -- Since when its payment is due (past_due, or paused for that): the grace period begins there.
    -- Exact when Stripe's event of that very change said so; else when it was first seen.
    ADD COLUMN grace_since timestamptz,
    ADD COLUMN grace_exact boolean NOT NULL DEFAULT false,
    ADD COLUMN paid_at timestamptz, -- when Stripe last said that it is paid for
    -- Since when its price is no plan's; `plan_id` is then the last plan that was known.
    ADD COLUMN unplanned_since timestamptz;

UPDATE subscription SET prices = ARRAY[price_id] WHERE price_id IS NOT NULL;
-- What was granted so far stays: the date that the release before counted from.
UPDATE subscription s SET grace_since = coalesce(
    (SELECT min(i.created_at) FROM invoice i WHERE i.subscription_id = s.id
        AND i.status = 'open' AND i.attempt_count > 0),
    s.period_start, s.began_at), grace_exact = true
WHERE s.status = 'past_due';

CREATE INDEX subscription_prices ON subscription USING gin (prices);
CREATE INDEX subscription_products ON subscription USING gin (products);

-- A workspace has one customer that it pays with; others are bound to it by hand (`make bind`),
-- and what they pay for counts as well.
ALTER TABLE billing_customer ADD COLUMN beside boolean NOT NULL DEFAULT false;
DROP INDEX billing_customer_workspace;
CREATE UNIQUE INDEX billing_customer_workspace ON billing_customer (workspace_id)
    WHERE deleted_at IS NULL AND NOT beside;
CREATE INDEX billing_customer_all ON billing_customer (workspace_id);

-- Products of our catalogue, also while they have no price: only their events are of interest.
CREATE TABLE plan_product (product_id text PRIMARY KEY);
INSERT INTO plan_product SELECT DISTINCT product_id FROM plan;

-- The plan of who pays nothing, as the last sync of the plans decided; it stays while several
-- could be meant.
CREATE TABLE free_plan_choice (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    plan_id text NOT NULL
);
INSERT INTO free_plan_choice (plan_id)
SELECT f.id FROM free_plan f WHERE EXISTS (SELECT 1 FROM plan p WHERE p.id = f.id AND p.active);

-- The chosen plan while it is offered and costs nothing; else the plan of the only product that
-- has one; else the built-in one.
CREATE OR REPLACE VIEW free_plan AS
WITH free AS (
    SELECT DISTINCT ON (product_id) id, name, limits FROM plan WHERE amount = 0 AND active
    ORDER BY product_id, length(id), id
)
SELECT id, name, limits FROM (
    SELECT id, name, limits, 0 AS rank FROM plan
    WHERE amount = 0 AND active AND id = (SELECT plan_id FROM free_plan_choice)
    UNION ALL
    SELECT id, name, limits, 1 FROM free WHERE (SELECT count(*) FROM free) = 1
    UNION ALL
    SELECT 'free', 'Free', jsonb_build_object('maxBusinesses', 1, 'maxTeamMembers', 1,
        'maxOrdersPerMonth', 25, 'maxStorageBytes', 1073741824), 2
) AS candidates
ORDER BY rank, id LIMIT 1;
