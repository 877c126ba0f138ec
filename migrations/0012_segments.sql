-- Segments: runs of 1,024 consecutive row numbers of a table that only grows by inserts (see docs/adr/0018-segments.md). The
-- number of a segment is `rowid >> 10`. For each segment the host stores a summary, which changes in the transaction of its
-- rows. A table with segments needs neither an index on (_origin, _sequence, _row) nor one for each facet.

-- The sets of segments, one for each table that has segments. The other tables have indexes instead. The name is that of the
-- table in the database: also of a table that a rebuild fills (TABLE#ID) or has replaced (TABLE#ID#old).
CREATE TABLE _lantern_segments (
    id            INTEGER PRIMARY KEY,
    table_name    TEXT NOT NULL UNIQUE,
    -- The column whose least and greatest values are stored; NULL if the table has no time column.
    time_column   TEXT,
    -- The columns whose values are counted: a JSON array of names.
    facet_columns TEXT NOT NULL
) STRICT;

-- One row for each segment that has rows.
CREATE TABLE _lantern_segment (
    segments INTEGER NOT NULL,
    segment  INTEGER NOT NULL,
    -- Stored rows.
    rows     INTEGER NOT NULL,
    -- Of these, rows whose time column is null.
    untimed  INTEGER NOT NULL,
    -- The least and the greatest time of the other rows; NULL if there are none.
    time_min INTEGER,
    time_max INTEGER,
    PRIMARY KEY (segments, segment)
) WITHOUT ROWID, STRICT;

-- Which sequences of an origin a segment contains, divided into blocks of 131,072 sequences (`sequence >> 17`), so that the
-- segments of a sequence are found although rows need not be stored in the order of their sequences.
CREATE TABLE _lantern_segment_origin (
    segments       INTEGER NOT NULL,
    origin         INTEGER NOT NULL,
    block          INTEGER NOT NULL,
    segment        INTEGER NOT NULL,
    -- The least and the greatest sequence of the rows of this origin and block in this segment.
    first_sequence INTEGER NOT NULL,
    last_sequence  INTEGER NOT NULL,
    -- The number of these rows.
    rows           INTEGER NOT NULL,
    PRIMARY KEY (segments, origin, block, segment)
) WITHOUT ROWID, STRICT;
CREATE INDEX _lantern_segment_origin_segment ON _lantern_segment_origin (segments, segment);

-- How many rows of a segment have each value of each facet column. The counts of the newest segment (the one of the greatest
-- row number of the table) are in the first table, all on a few pages because they change with every batch. Those of the other
-- segments are in the second one, ordered by value, so that a rare value names its segments. No facet is a blob, so two blobs
-- stand for other values: x'00' for null, and x'01' for all texts of more than 1,024 bytes.
CREATE TABLE _lantern_segment_open (
    segments INTEGER NOT NULL,
    segment  INTEGER NOT NULL,
    "column" TEXT NOT NULL,
    value    ANY NOT NULL,
    rows     INTEGER NOT NULL,
    PRIMARY KEY (segments, segment, "column", value)
) WITHOUT ROWID, STRICT;
CREATE TABLE _lantern_segment_facet (
    segments INTEGER NOT NULL,
    "column" TEXT NOT NULL,
    value    ANY NOT NULL,
    segment  INTEGER NOT NULL,
    rows     INTEGER NOT NULL,
    PRIMARY KEY (segments, "column", value, segment)
) WITHOUT ROWID, STRICT;
CREATE INDEX _lantern_segment_facet_segment ON _lantern_segment_facet (segments, segment);
