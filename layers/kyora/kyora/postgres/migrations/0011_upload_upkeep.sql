-- Uploads: reservations that end with their URL, limits on what a client may ask for, and a
-- clean-up that one bad row cannot hold up.

-- Whether the size of an open upload counts in storage_usage.reserved_bytes.
ALTER TABLE asset ADD COLUMN reserved boolean NOT NULL DEFAULT false;
UPDATE asset SET reserved = true WHERE status IN ('pending', 'verifying');
ALTER TABLE asset ALTER COLUMN reserved SET DEFAULT true;
CREATE INDEX asset_reserved ON asset (url_expires_at) WHERE reserved AND status = 'pending';

-- How often a worker has taken this upload; `attempts` names the copies that were begun.
ALTER TABLE asset ADD COLUMN claims integer NOT NULL DEFAULT 0;

-- When the clean-up looks at a row again whose objects could not be deleted.
ALTER TABLE asset ADD COLUMN clean_after timestamptz;
DROP INDEX asset_uncleaned;
CREATE INDEX asset_uncleaned ON asset (coalesce(clean_after, ended_at))
    WHERE cleaned_at IS NULL AND ended_at IS NOT NULL;

-- What is past its retention.
CREATE INDEX asset_ended ON asset (ended_at)
    WHERE cleaned_at IS NOT NULL AND status IN ('rejected', 'expired', 'deleted');

-- What was asked for on a day (UTC): files, and their announced bytes.
ALTER TABLE storage_usage
    ADD COLUMN asked_on date NOT NULL DEFAULT '2000-01-01',
    ADD COLUMN asked_files integer NOT NULL DEFAULT 0,
    ADD COLUMN asked_bytes bigint NOT NULL DEFAULT 0;
