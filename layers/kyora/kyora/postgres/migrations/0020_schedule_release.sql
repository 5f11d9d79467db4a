-- A planned change has begun, or another change has overtaken it: its schedule at Stripe is to be
-- released. The transaction of the webhook marks it, sweep_billing releases it.
ALTER TABLE subscription_terms ADD COLUMN release_due boolean NOT NULL DEFAULT false;
CREATE INDEX subscription_terms_release ON subscription_terms (subscription_id) WHERE release_due;

-- The last events of a customer, for `make why`.
CREATE INDEX stripe_event_customer ON stripe_event (customer_id, created DESC);
