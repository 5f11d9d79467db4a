-- What must hold is checked a little every minute: how far the checks are, and what differs.
CREATE TABLE check_position (
    name text PRIMARY KEY,
    position text NOT NULL
);
CREATE TABLE difference (
    name text NOT NULL, -- `storage`, or a consumer of events
    subject text NOT NULL, -- a workspace, or an event
    since timestamptz NOT NULL,
    PRIMARY KEY (name, subject)
);

-- The sum of a workspace's files, without reading them.
CREATE INDEX asset_ready ON asset (workspace_id) INCLUDE (size) WHERE status = 'ready';
