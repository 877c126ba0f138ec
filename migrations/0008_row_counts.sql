-- What the database did with the rows of a range: inserted, updated, or neither because an equal row was there already
-- (rows - changed). For new batches, changed = inserted + updated. Of ranges written before this migration only the sum
-- is known where writes of the plugin update rows; where none does, every changed row was inserted.
ALTER TABLE _lantern_ledger ADD COLUMN inserted INTEGER NOT NULL DEFAULT 0;
ALTER TABLE _lantern_ledger ADD COLUMN updated INTEGER NOT NULL DEFAULT 0;
UPDATE _lantern_ledger SET inserted = changed WHERE origin IN (
    SELECT o.id FROM _lantern_origin o
    WHERE EXISTS (SELECT 1 FROM _lantern_table t WHERE t.plugin = o.plugin)
        AND NOT EXISTS (SELECT 1 FROM _lantern_table t WHERE t.plugin = o.plugin AND t.updates <> 0)
);
