-- What Stripe told, kept before anything is done about it. `received` is still to be done,
-- `orphan` is done as far as can be while nobody knows whose customer it is about, `failed` is
-- parked for a person.
CREATE TABLE stripe_event (
    id text PRIMARY KEY,
    type text NOT NULL,
    api_version text,
    created bigint NOT NULL, -- Stripe's clock, in whole seconds
    object_id text,
    customer_id text,
    source text NOT NULL CHECK (source IN ('webhook', 'eventbridge', 'reconcile')),
    body text, -- as it came: jsonb refuses some of what JSON allows; dropped after 35 days
    status text NOT NULL DEFAULT 'received'
        CHECK (status IN ('received', 'processed', 'orphan', 'ignored', 'failed')),
    attempts integer NOT NULL DEFAULT 0,
    last_error text, -- a code or a class, never a value
    received_at timestamptz NOT NULL DEFAULT now(),
    processed_at timestamptz,
    CHECK (status NOT IN ('received', 'orphan', 'failed') OR body IS NOT NULL)
);
CREATE INDEX stripe_event_open ON stripe_event (received_at) WHERE status = 'received';
CREATE INDEX stripe_event_parked ON stripe_event (received_at) WHERE status = 'failed';
CREATE INDEX stripe_event_orphan ON stripe_event (customer_id) WHERE status = 'orphan';
CREATE INDEX stripe_event_received ON stripe_event (received_at) WHERE body IS NOT NULL;

-- A customer of Stripe, and the workspace it pays for. Whoever writes what hangs on a customer
-- locks its row first and counts `version` up, so that an answer of Stripe's that was asked for
-- before somebody else's write is known to be old.
CREATE TABLE billing_customer (
    id text PRIMARY KEY,
    workspace_id text REFERENCES workspace (id),
    default_payment_method_id text,
    version bigint NOT NULL DEFAULT 0,
    as_of bigint NOT NULL DEFAULT 0,
    deleted_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX billing_customer_workspace ON billing_customer (workspace_id)
    WHERE deleted_at IS NULL;

CREATE TABLE payment_method (
    id text PRIMARY KEY,
    customer_id text NOT NULL,
    type text NOT NULL,
    brand text,
    last4 text CHECK (length(last4) <= 4), -- never more of a number than its end
    exp_month integer,
    exp_year integer,
    as_of bigint NOT NULL,
    detached boolean NOT NULL DEFAULT false
);

-- Mirrors of Stripe's objects. They arrive in any order, so none refers to another one.
-- `as_of` is the second of Stripe's clock at which a row was true.
CREATE TABLE subscription (
    id text PRIMARY KEY,
    customer_id text NOT NULL,
    status text NOT NULL, -- Stripe's, an open list
    price_id text,
    plan_id text, -- the price's plan, or the last one that was known
    item_id text,
    quantity integer,
    period_start timestamptz,
    period_end timestamptz,
    trial_end timestamptz,
    cancel_at timestamptz, -- when it is going to end
    ended_at timestamptz,
    default_payment_method_id text,
    latest_invoice_id text,
    collection_paused boolean NOT NULL DEFAULT false,
    began_at timestamptz NOT NULL, -- when it was created
    -- Monotone facts: whether it ever gave access, and whether it is over.
    entitled boolean NOT NULL DEFAULT false,
    as_of bigint NOT NULL,
    -- Applied from a payload whose place in the order is not certain: to be read from Stripe.
    doubtful boolean NOT NULL DEFAULT false
);
CREATE INDEX subscription_customer ON subscription (customer_id);
CREATE INDEX subscription_price ON subscription (price_id);
CREATE INDEX subscription_doubtful ON subscription (id) WHERE doubtful;

CREATE TABLE invoice (
    id text PRIMARY KEY,
    customer_id text NOT NULL,
    subscription_id text,
    number text,
    status text NOT NULL, -- Stripe's, an open list
    currency text NOT NULL,
    total bigint NOT NULL, -- minor units, like every amount here
    amount_due bigint NOT NULL,
    amount_paid bigint NOT NULL,
    attempt_count integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz,
    hosted_url text,
    pdf_url text,
    created_at timestamptz NOT NULL
);
CREATE INDEX invoice_customer ON invoice (customer_id, created_at DESC, id DESC);
CREATE INDEX invoice_open ON invoice (subscription_id) WHERE status = 'open';

-- A plan is a Stripe product with a recurring price.
CREATE TABLE plan (
    id text PRIMARY KEY,
    product_id text NOT NULL,
    price_id text NOT NULL,
    name text NOT NULL,
    description text NOT NULL DEFAULT '',
    amount bigint NOT NULL CHECK (amount >= 0),
    currency text NOT NULL CHECK (currency ~ '^[a-z]{3}$'),
    interval text NOT NULL,
    interval_count integer NOT NULL DEFAULT 1,
    features jsonb NOT NULL DEFAULT '{}',
    limits jsonb NOT NULL,
    active boolean NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- An archived plan may have had the price that another one offers now: a product's plan was renamed.
CREATE UNIQUE INDEX plan_offered ON plan (price_id) WHERE active;

-- Every price that is or was a plan's: an archived one keeps its subscribers. `active`: offered.
CREATE TABLE plan_price (
    price_id text PRIMARY KEY,
    plan_id text NOT NULL,
    active boolean NOT NULL
);

-- What applies to whoever pays nothing; built in until a catalogue with a plan of 0 is synced.
CREATE VIEW free_plan AS
SELECT id, name, limits FROM (
    SELECT id, name, limits, 0 AS rank FROM plan WHERE amount = 0 AND active
    UNION ALL
    SELECT 'free', 'Free', jsonb_build_object('maxBusinesses', 1, 'maxTeamMembers', 1,
        'maxOrdersPerMonth', 25, 'maxStorageBytes', 1073741824), 1
) AS candidates
ORDER BY rank, id LIMIT 1;

-- What a workspace may do now: the one table of billing that the rest of the product reads.
CREATE TABLE workspace_billing (
    workspace_id text PRIMARY KEY REFERENCES workspace (id),
    plan_id text NOT NULL,
    access text NOT NULL CHECK (access IN ('full', 'grace', 'free')),
    access_until timestamptz, -- end of the grace, or of what is paid for when it was cancelled
    limits jsonb NOT NULL, -- -1: unlimited
    subscription_id text, -- the one that counts, or the newest that is not over
    status text NOT NULL, -- of that subscription; `free` without one
    updated_at timestamptz NOT NULL DEFAULT now(),
    CHECK (access <> 'grace' OR access_until IS NOT NULL)
);
CREATE INDEX workspace_billing_plan ON workspace_billing (plan_id);
CREATE INDEX workspace_billing_grace ON workspace_billing (access_until) WHERE access = 'grace';

-- What has been announced on the bus, once per fact of Stripe's, however often it is told.
CREATE TABLE billing_fact (
    key text PRIMARY KEY,
    created_at timestamptz NOT NULL DEFAULT now()
);

-- Runs that go on where they stopped, and how the last one went.
CREATE TABLE billing_run (
    name text PRIMARY KEY CHECK (name IN ('plans', 'reconcile')),
    version bigint NOT NULL DEFAULT 0,
    state jsonb NOT NULL DEFAULT '{}', -- where to go on
    result jsonb NOT NULL DEFAULT '{}',
    started_at timestamptz,
    finished_at timestamptz
);
INSERT INTO billing_run (name) VALUES ('plans'), ('reconcile');

-- The plan decides how much may be stored; the ledger only counts. The column goes in a later
-- release: until this one is deployed everywhere, functions of the last one read it.
COMMENT ON COLUMN storage_usage.limit_bytes IS 'not read any more; see workspace_billing.limits';
