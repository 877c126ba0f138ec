-- The newest segment of a table (the one of its greatest row number) has no stored summary any more, so that a small batch
-- changes no page of summaries (see docs/adr/0018-segments.md). Its summary is stored when a later segment gets a row. Until
-- now each segment with rows had a summary, so the newest segment is that of the last summary.
DELETE FROM _lantern_segment_origin
    WHERE (segments, segment) IN (SELECT segments, max(segment) FROM _lantern_segment GROUP BY segments);
DELETE FROM _lantern_segment
    WHERE (segments, segment) IN (SELECT segments, max(segment) FROM _lantern_segment GROUP BY segments);
-- It contained the counts of the newest segments.
DROP TABLE _lantern_segment_open;
