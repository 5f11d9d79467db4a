-- What joins a request, what it caused, and what came back by a vendor's webhook: the correlation id
-- and the `traceparent` (W3C Trace Context) of the unit of work that caused a row. An event carries
-- both in its `detail`.
CREATE INDEX outbox_correlation ON outbox ((detail ->> 'correlationId'));

ALTER TABLE asset -- of the request for its upload URL
    ADD COLUMN correlation_id text,
    ADD COLUMN traceparent text;
CREATE INDEX asset_correlation ON asset (correlation_id) WHERE correlation_id IS NOT NULL;

ALTER TABLE email_message ADD COLUMN traceparent text; -- of the last attempt
CREATE INDEX email_message_correlation ON email_message (correlation_id);

-- Of the request of ours that Stripe reports on, or else of the delivery.
ALTER TABLE stripe_event
    ADD COLUMN correlation_id text,
    ADD COLUMN traceparent text,
    ADD COLUMN request_id text; -- Stripe's own, of the API request that caused the event
CREATE INDEX stripe_event_correlation ON stripe_event (correlation_id)
    WHERE correlation_id IS NOT NULL;

-- What we asked Stripe to change, by Stripe's id of the request: its events name it.
CREATE TABLE stripe_call (
    request_id text PRIMARY KEY,
    method text NOT NULL,
    path text NOT NULL,
    object_id text,
    correlation_id text NOT NULL,
    traceparent text,
    called_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX stripe_call_correlation ON stripe_call (correlation_id);
CREATE INDEX stripe_call_called ON stripe_call (called_at);
