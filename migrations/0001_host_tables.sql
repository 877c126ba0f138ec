-- Lantern's own tables. A plugin's tables are not here: they come from what the plugin declares.
-- Times are microseconds since 1970 unless the name ends in _ns.

-- Facts about this database: its identity ("instance"), the key that seals the compile cache ("cache_key").
CREATE TABLE _lantern_host (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- Every version of every plugin that was ever loaded.
CREATE TABLE _lantern_plugin (
    id        INTEGER PRIMARY KEY,
    name      TEXT NOT NULL,
    version   TEXT NOT NULL,
    digest    TEXT NOT NULL,
    contract  TEXT NOT NULL,
    loaded_at INTEGER NOT NULL,
    UNIQUE (name, digest)
) STRICT;

-- The tables that plugins own, and what they said of them (JSON, as the API shows it).
CREATE TABLE _lantern_table (
    name         TEXT PRIMARY KEY,
    plugin       TEXT NOT NULL,
    description  TEXT NOT NULL,
    -- 1 where a write of any version changes rows that are there already: then the table cannot be counted
    -- against the ledger.
    updates      INTEGER NOT NULL,
    -- Rows that were removed because they were older than the table keeps them.
    rows_expired INTEGER NOT NULL DEFAULT 0
) STRICT;

-- One history of one source. A source enters a new epoch when the broker's history is not the one that its
-- checkpoint was taken from; the rows of the old epoch stay. A row's `_origin` is an id from here.
CREATE TABLE _lantern_origin (
    id                INTEGER PRIMARY KEY,
    plugin            TEXT NOT NULL,
    source            TEXT NOT NULL,
    epoch             INTEGER NOT NULL,
    -- NULL for core NATS sources, which have no stream.
    stream            TEXT,
    stream_created_ns INTEGER,
    -- The last sequence that does not belong to this epoch.
    begins_after      INTEGER NOT NULL,
    -- Why this epoch began, in words.
    reason            TEXT NOT NULL,
    began_at          INTEGER NOT NULL,
    UNIQUE (plugin, source, epoch)
) STRICT;

-- The last sequence that has taken effect, with what is needed to recognise its message again: a sequence
-- number alone is not an identity. For a core source: how many messages were received.
CREATE TABLE _lantern_checkpoint (
    origin         INTEGER PRIMARY KEY REFERENCES _lantern_origin (id),
    sequence       INTEGER NOT NULL,
    published_ns   INTEGER NOT NULL,
    -- NULL where no message stands behind the sequence: at the start, and at the end of a gap.
    payload_sha256 BLOB,
    committed_at   INTEGER NOT NULL
) STRICT;

-- Which version handled which sequences, and what became of them:
-- messages = projected + skipped + dead. Ranges of an origin follow each other without a hole, and the last
-- one ends at the checkpoint. `missing` counts sequences of the range that were gone before they were read.
CREATE TABLE _lantern_ledger (
    id             INTEGER PRIMARY KEY,
    origin         INTEGER NOT NULL REFERENCES _lantern_origin (id),
    plugin_version INTEGER NOT NULL REFERENCES _lantern_plugin (id),
    first_sequence INTEGER NOT NULL,
    last_sequence  INTEGER NOT NULL,
    messages       INTEGER NOT NULL,
    projected      INTEGER NOT NULL,
    skipped        INTEGER NOT NULL,
    dead           INTEGER NOT NULL,
    missing        INTEGER NOT NULL,
    -- Rows that the plugin answered with; a table may hold fewer, where its writes merge or ignore.
    rows           INTEGER NOT NULL,
    -- Rows that were inserted or updated.
    changed        INTEGER NOT NULL,
    first_at       INTEGER NOT NULL,
    last_at        INTEGER NOT NULL,
    UNIQUE (origin, first_sequence)
) STRICT;

-- Sequences that were gone from the stream before they were read. `exact` is 0 where other subjects share the
-- stream, so that some of the range may never have been this source's.
CREATE TABLE _lantern_gap (
    id             INTEGER PRIMARY KEY,
    origin         INTEGER NOT NULL REFERENCES _lantern_origin (id),
    first_sequence INTEGER NOT NULL,
    last_sequence  INTEGER NOT NULL,
    exact          INTEGER NOT NULL,
    reason         TEXT NOT NULL,
    recorded_at    INTEGER NOT NULL
) STRICT;
CREATE INDEX _lantern_gap_origin ON _lantern_gap (origin, last_sequence);

-- Messages that could not be projected, whole, with the reason.
CREATE TABLE _lantern_dead_letter (
    id             INTEGER PRIMARY KEY,
    origin         INTEGER NOT NULL REFERENCES _lantern_origin (id),
    sequence       INTEGER NOT NULL,
    plugin_version INTEGER NOT NULL REFERENCES _lantern_plugin (id),
    class          TEXT NOT NULL,
    reason         TEXT NOT NULL,
    subject        TEXT NOT NULL,
    published_ns   INTEGER NOT NULL,
    -- A JSON array of [name, value] pairs.
    headers        TEXT NOT NULL,
    payload        BLOB NOT NULL,
    attempts       INTEGER NOT NULL,
    -- open, resolved or discarded
    state          TEXT NOT NULL,
    first_at       INTEGER NOT NULL,
    last_at        INTEGER NOT NULL,
    UNIQUE (origin, sequence)
) STRICT;
