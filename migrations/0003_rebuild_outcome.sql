-- What a rebuild has come to, as JSON: messages, rows, and the rows of each table before and after. NULL until it is done.
ALTER TABLE _lantern_rebuild ADD COLUMN outcome TEXT;
