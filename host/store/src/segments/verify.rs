//! Compares the stored summaries of a table with its rows.

use crate::sql::Connection;

use super::rows::SegmentRows;
use super::summary::Summary;
use super::{SEGMENT_BITS, SegmentSet, newest, stored};
use crate::statement::quote_text;

/// A segment whose summary does not match its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) segment: i64,
    /// The part of the summary that differs.
    pub(crate) part: &'static str,
}

/// The segments whose summaries do not match their rows. The newest segment has no stored summary.
pub(crate) fn differences(
    connection: &Connection,
    set: &SegmentSet,
) -> Result<Vec<Difference>, crate::sql::Error> {
    let newest = newest(connection, &set.table)?;
    let mut rows = SegmentRows::prepare(connection, set)?;
    let mut found = Vec::new();
    for segment in numbers(connection, set)? {
        let expected = match Some(segment) == newest {
            true => Summary::new(set),
            false => rows.summary(segment)?,
        };
        let part = differing(&expected, &stored::read(connection, set, segment)?);
        found.extend(part.map(|part| Difference { segment, part }));
    }
    Ok(found)
}

/// The numbers of all segments that have rows or an entry.
fn numbers(connection: &Connection, set: &SegmentSet) -> Result<Vec<i64>, crate::sql::Error> {
    let id = set.id;
    // Each step finds the next row by its number.
    let sql = format!(
        "WITH RECURSIVE filled (segment) AS (
             SELECT min(_rowid_) >> {SEGMENT_BITS} FROM {table}
             UNION ALL
             SELECT (SELECT min(t._rowid_) >> {SEGMENT_BITS} FROM {table} AS t
                 WHERE t._rowid_ >= (f.segment + 1) << {SEGMENT_BITS}) FROM filled AS f WHERE f.segment IS NOT NULL)
         SELECT segment FROM filled WHERE segment IS NOT NULL
         UNION SELECT segment FROM _lantern_segment WHERE segments = {id}
         UNION SELECT segment FROM _lantern_segment_origin WHERE segments = {id}
         UNION SELECT segment FROM _lantern_segment_facet WHERE segments = {id} ORDER BY 1",
        table = quote_text(&set.table)
    );
    connection
        .prepare(&sql)?
        .query_map([], |row| row.get(0))?
        .collect()
}

fn differing(expected: &Summary, stored: &Summary) -> Option<&'static str> {
    if (expected.rows, expected.untimed) != (stored.rows, stored.untimed) {
        return Some("the number of rows");
    }
    if expected.times != stored.times {
        return Some("the times");
    }
    if expected.origins != stored.origins {
        return Some("the sequences");
    }
    (expected.facets != stored.facets).then_some("the facet counts")
}
