-- What verification learns about a file beside its size in pixels.
ALTER TABLE asset ADD COLUMN duration_ms bigint CHECK (duration_ms >= 0);
-- The type that a rejected file really has, where it is known.
ALTER TABLE asset ADD COLUMN detected_type text;

-- An empty text is a file as well.
ALTER TABLE asset DROP CONSTRAINT asset_size_check;
ALTER TABLE asset ADD CONSTRAINT asset_size_check CHECK (size >= 0);
