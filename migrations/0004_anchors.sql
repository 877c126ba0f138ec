-- What recognises a stream again when its creation time does not: see ADR 3.

-- Messages of the epoch that were read, 48 bytes each, the newest first: sequence, broker's time in nanoseconds (both
-- big-endian) and SHA-256 of the payload. NULL in rows of an earlier version: there the checkpoint is the only anchor.
ALTER TABLE _lantern_checkpoint ADD COLUMN anchors BLOB;

-- The creation time of the stream about which an operator has to decide whether it is this epoch's stream; NULL where
-- nothing has to be decided.
ALTER TABLE _lantern_origin ADD COLUMN asked_created_ns INTEGER;
-- What the operator decided: same or new; NULL until then.
ALTER TABLE _lantern_origin ADD COLUMN accepted TEXT;
