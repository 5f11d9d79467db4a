-- EventBridge will never take this event as it is: too large, or not an event to it. A person drops it.
ALTER TABLE outbox ADD COLUMN refused boolean NOT NULL DEFAULT false;
