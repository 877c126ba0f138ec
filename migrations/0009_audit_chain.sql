-- The audit as a chain of rows that are only added.

-- A change has two rows: one before it begins (outcome `started`) and one when it ends, which names the first.
ALTER TABLE _lantern_audit ADD COLUMN ends INTEGER REFERENCES _lantern_audit (id);
-- SHA-256 of the previous row's hash and this row's content. The host adds the rows of earlier versions to the chain at
-- its next start.
ALTER TABLE _lantern_audit ADD COLUMN hash BLOB;
CREATE UNIQUE INDEX _lantern_audit_ends ON _lantern_audit (ends) WHERE ends IS NOT NULL;
