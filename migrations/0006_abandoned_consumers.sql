-- Durable consumers on the broker that the host needs no longer and has not deleted yet: the broker could not be reached,
-- or refused. Without a reader they would keep the messages of an interest stream for ever.
CREATE TABLE _lantern_abandoned_consumer (
    stream   TEXT NOT NULL,
    consumer TEXT NOT NULL,
    -- The plugin that read through it.
    plugin   TEXT NOT NULL,
    noted_at INTEGER NOT NULL,
    PRIMARY KEY (stream, consumer)
) STRICT;
