-- Messages and values that were erased with `lantern forget`, so that they do not come back. Neither table holds content.

-- Messages that no plugin projects again. The broker's time tells a message from another one that has its sequence in
-- another history of the stream.
CREATE TABLE _lantern_forgotten_message (
    stream       TEXT NOT NULL,
    sequence     INTEGER NOT NULL,
    published_ns INTEGER NOT NULL,
    forgotten_at INTEGER NOT NULL,
    -- When the stream no longer held it; NULL while it still has to be deleted there.
    deleted_at   INTEGER,
    PRIMARY KEY (stream, sequence, published_ns)
) STRICT, WITHOUT ROWID;
CREATE INDEX _lantern_forgotten_message_outstanding ON _lantern_forgotten_message (stream, sequence)
    WHERE deleted_at IS NULL;

-- Values that a column of a table does not take from messages that the broker stored up to a time.
CREATE TABLE _lantern_forgotten_value (
    plugin      TEXT NOT NULL,
    table_name  TEXT NOT NULL,
    column_name TEXT NOT NULL,
    -- HMAC-SHA-256 of the value; the key is `forget_key` in `_lantern_host`.
    digest      BLOB NOT NULL,
    through_ns  INTEGER NOT NULL,
    PRIMARY KEY (plugin, table_name, column_name, digest)
) STRICT, WITHOUT ROWID;
