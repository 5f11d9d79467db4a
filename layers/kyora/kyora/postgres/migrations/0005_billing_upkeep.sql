-- What sweep_billing forgets, found without looking at the rest.
CREATE INDEX stripe_event_bare ON stripe_event (received_at) WHERE body IS NULL;
CREATE INDEX billing_fact_passing ON billing_fact (created_at)
    WHERE key LIKE 'dunning:%' OR key LIKE 'trial%';

-- What reconcile_billing misses on a page of Stripe's list.
CREATE INDEX subscription_running ON subscription (began_at)
    WHERE status NOT IN ('canceled', 'incomplete_expired');
