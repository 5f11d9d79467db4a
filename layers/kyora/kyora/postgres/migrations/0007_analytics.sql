-- The first event of each order and of each customer: what the counts below are made of, and can
-- be made of again. `label` is an order's currency, or where a customer came from; the amount is in
-- the currency's minor unit. No key leads to business: a busy one would be locked by every event.
CREATE TABLE analytics_event (
    workspace_id text NOT NULL,
    business_id text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('order', 'customer')),
    subject_id text NOT NULL,
    event_id text NOT NULL,
    occurred_at timestamptz NOT NULL,
    day date NOT NULL, -- of occurred_at, in UTC
    label text NOT NULL,
    amount numeric(24, 0) NOT NULL DEFAULT 0,
    PRIMARY KEY (business_id, kind, subject_id)
);

-- Counts by business and day. Each is spread over several rows, so that events which arrive
-- together seldom wait for each other; their sum is what counts.
CREATE TABLE analytics_count (
    workspace_id text NOT NULL,
    business_id text NOT NULL,
    day date NOT NULL,
    kind text NOT NULL,
    label text NOT NULL,
    shard smallint NOT NULL,
    count bigint NOT NULL,
    amount numeric NOT NULL,
    PRIMARY KEY (business_id, day, kind, label, shard)
);

-- For reading.
CREATE VIEW analytics_day AS
    SELECT workspace_id, business_id, day, kind, label,
        sum(count)::bigint AS count, sum(amount) AS amount
    FROM analytics_count
    GROUP BY workspace_id, business_id, day, kind, label
    HAVING sum(count) <> 0 OR sum(amount) <> 0;

CREATE VIEW analytics_daily_orders AS
    SELECT workspace_id, business_id, day, sum(count)::bigint AS orders
    FROM analytics_day WHERE kind = 'order'
    GROUP BY workspace_id, business_id, day;

CREATE VIEW analytics_daily_revenue AS
    SELECT workspace_id, business_id, day, label AS currency, amount AS minor_units
    FROM analytics_day WHERE kind = 'order';

CREATE VIEW analytics_daily_customers AS
    SELECT workspace_id, business_id, day, label AS source, count AS customers
    FROM analytics_day WHERE kind = 'customer';
