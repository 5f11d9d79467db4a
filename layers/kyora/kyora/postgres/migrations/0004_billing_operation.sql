-- A workspace's change of its subscription, while it runs and for as long as its outcome is not
-- known: one at a time, without a lock that anybody else could have to wait for. A row that is
-- over (`until`) belongs to a worker that died or got no answer; the next one finds out first.
CREATE TABLE billing_operation (
    workspace_id text PRIMARY KEY REFERENCES workspace (id),
    token text NOT NULL, -- whose turn it is
    -- What Stripe's idempotency keys are made of: the same for a repetition whose first outcome
    -- is unknown, another one for whatever comes after an answer.
    attempt text NOT NULL,
    began_at timestamptz NOT NULL DEFAULT now(),
    request text NOT NULL DEFAULT '', -- digest of the client's Idempotency-Key
    left_behind boolean NOT NULL DEFAULT false, -- nobody knows what came of the turn before
    until timestamptz NOT NULL
);
