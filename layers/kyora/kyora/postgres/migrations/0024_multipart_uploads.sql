-- Files that are uploaded in parts. An asset without `part_size` is uploaded by one PUT.
ALTER TABLE asset
    ADD COLUMN part_size bigint CHECK (part_size > 0),
    -- The store's id of the multipart upload; it begins when the first parts are signed.
    ADD COLUMN store_upload text,
    -- SHA-256 by part number, as signed last. Null: no part has been signed. Empty: they have none.
    ADD COLUMN part_digests jsonb,
    -- When the parts became an object.
    ADD COLUMN joined_at timestamptz,
    ADD CHECK (part_size IS NOT NULL OR (store_upload IS NULL AND joined_at IS NULL));
