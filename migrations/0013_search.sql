-- Full-text search (see docs/adr/0019-full-text-search.md). An index is an FTS5 table named `_lantern_search_ID` that contains
-- the words of rows, but not the rows.

-- The tables for which an operator turned search on, by the name that their plugins declare.
CREATE TABLE _lantern_searched (
    table_name TEXT PRIMARY KEY
) WITHOUT ROWID, STRICT;

-- The indexes. The name is that of the table in the database: also of a table that a rebuild fills (TABLE#ID) or has replaced
-- (TABLE#ID#old). AUTOINCREMENT, because triggers of the table contain the number.
CREATE TABLE _lantern_search (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    table_name TEXT NOT NULL UNIQUE,
    -- The searched columns: a JSON array of objects with `name` and `json`.
    columns    TEXT NOT NULL,
    -- Rows up to this row number are indexed, except those in _lantern_search_change.
    through    INTEGER NOT NULL,
    -- Whether words of erased rows have to be removed from the file.
    purging    INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Indexed rows that were changed or deleted since they were indexed. Triggers add them in the transaction of the change.
CREATE TABLE _lantern_search_change (
    search INTEGER NOT NULL,
    row    INTEGER NOT NULL,
    PRIMARY KEY (search, row)
) WITHOUT ROWID, STRICT;
