//! Summaries after any change other than an insert at the end: the affected segments are read again.

use std::collections::{BTreeMap, BTreeSet};

use crate::sql::{Connection, params};

use super::rows::SegmentRows;
use super::{SEGMENT_BITS, SegmentSet, newest, set_of, stored};
use crate::statement::quote_text;

/// Segments whose rows were changed in a transaction, by table. [`Touched::refresh`] has to follow before rows are added to
/// these tables, and before the end of the transaction.
#[must_use = "the summaries of the segments are outdated"]
#[derive(Debug, Default)]
pub(crate) struct Touched(BTreeMap<String, BTreeSet<i64>>);

impl Touched {
    /// Notes the segments of a table.
    pub(crate) fn add(&mut self, table: &str, segments: impl IntoIterator<Item = i64>) {
        match self.0.get_mut(table) {
            Some(known) => known.extend(segments),
            None => drop(self.0.insert(table.to_owned(), segments.into_iter().collect())),
        }
    }

    /// Writes the summaries of the noted segments. Ignores tables that have indexes instead of segments.
    pub(crate) fn refresh(self, connection: &Connection) -> Result<(), crate::sql::Error> {
        for (table, segments) in &self.0 {
            if let Some(set) = set_of(connection, table)? {
                refresh_segments(connection, &set, segments)?;
            }
        }
        Ok(())
    }
}

/// Stores the summaries of changed segments, and of the one that was the newest before, if it no longer is. The newest
/// segment has no stored summary, although it had one if the rows after it were removed.
fn refresh_segments(
    connection: &Connection,
    set: &SegmentSet,
    changed: &BTreeSet<i64>,
) -> Result<(), crate::sql::Error> {
    let newest = newest(connection, &set.table)?;
    let open_before = first_without_summary(connection, set)?;
    let mut rows = SegmentRows::prepare(connection, set)?;
    let renewed = changed.iter().copied().chain(open_before);
    for segment in renewed.filter(|segment| Some(*segment) != newest) {
        stored::replace(connection, set, segment, &rows.summary(segment)?)?;
    }
    match newest {
        Some(newest) => stored::remove(connection, set.id, newest),
        None => Ok(()),
    }
}

/// The first segment with rows after all stored summaries. If the segment that was the newest before a change still is
/// unchanged, this is it.
fn first_without_summary(
    connection: &Connection,
    set: &SegmentSet,
) -> Result<Option<i64>, crate::sql::Error> {
    connection
        .prepare_cached(&format!(
            "SELECT min(_rowid_) >> {SEGMENT_BITS} FROM {}
             WHERE _rowid_ >= (SELECT coalesce(max(segment) + 1, 0) << {SEGMENT_BITS} FROM _lantern_segment
                 WHERE segments = ?1)",
            quote_text(&set.table)
        ))?
        .query_row([set.id], |row| row.get(0))
}

/// Writes the summaries of all segments of a table.
pub(super) fn refresh_all(connection: &Connection, table: &str) -> Result<(), crate::sql::Error> {
    let Some(set) = set_of(connection, table)? else {
        return Ok(());
    };
    let segments = connection
        .prepare("SELECT segment FROM _lantern_segment WHERE segments = ?1")?
        .query_map([set.id], |row| row.get(0))?
        .collect::<Result<BTreeSet<i64>, _>>()?;
    refresh_segments(connection, &set, &segments)
}

/// Counts the null values of a column that was added to a table with rows.
pub(super) fn count_as_null(
    connection: &Connection,
    set: i64,
    column: &str,
) -> Result<(), crate::sql::Error> {
    connection
        .execute(
            "INSERT INTO _lantern_segment_facet (segments, segment, \"column\", value, rows)
             SELECT segments, segment, ?2, x'00', rows FROM _lantern_segment WHERE segments = ?1",
            params![set, column],
        )
        .map(|_| ())
}
