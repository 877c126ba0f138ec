-- What a rebuild has come to, as JSON: messages, rows, and the rows of each table before and after. NULL until it is done.
ALTER TABLE _lantern_rebuild ADD COLUMN outcome TEXT;
-- Until when the tables that it has replaced are kept (tables named `TABLE#ID#old`), and the version that wrote them. NULL when
-- they are not kept any more.
ALTER TABLE _lantern_rebuild ADD COLUMN previous_until INTEGER;
ALTER TABLE _lantern_rebuild ADD COLUMN previous_version INTEGER REFERENCES _lantern_plugin (id);
