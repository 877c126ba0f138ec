//! Compares the stored summaries of a table with its rows.

use rusqlite::Connection;

use super::refresh::SegmentRows;
use super::sums::{SequenceRun, Summary};
use super::{SEGMENT_BITS, SegmentSet, newest};
use crate::statement::quote_text;

/// A segment whose summary does not match its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) segment: i64,
    /// The part of the summary that differs.
    pub(crate) part: &'static str,
}

/// The segments whose summaries do not match their rows.
pub(crate) fn differences(
    connection: &Connection,
    set: &SegmentSet,
) -> Result<Vec<Difference>, rusqlite::Error> {
    let newest = newest(connection, &set.table)?;
    let mut rows = SegmentRows::prepare(connection, set)?;
    let mut found = Vec::new();
    for segment in numbers(connection, set)? {
        let (actual, stored) = (rows.summary(segment)?, stored(connection, set, segment)?);
        let is_misplaced = || {
            let place = if Some(segment) == newest { "facet" } else { "open" };
            has_counts(connection, set.id, segment, place)
        };
        let part = match differing(&actual, &stored) {
            None if is_misplaced()? => Some("the place of the facet counts"),
            part => part,
        };
        found.extend(part.map(|part| Difference { segment, part }));
    }
    Ok(found)
}

/// The numbers of all segments that have rows or an entry.
fn numbers(connection: &Connection, set: &SegmentSet) -> Result<Vec<i64>, rusqlite::Error> {
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
         UNION SELECT segment FROM _lantern_segment_open WHERE segments = {id}
         UNION SELECT segment FROM _lantern_segment_facet WHERE segments = {id} ORDER BY 1",
        table = quote_text(&set.table)
    );
    connection
        .prepare(&sql)?
        .query_map([], |row| row.get(0))?
        .collect()
}

fn has_counts(connection: &Connection, set: i64, segment: i64, place: &str) -> Result<bool, rusqlite::Error> {
    connection
        .prepare_cached(&format!(
            "SELECT EXISTS (SELECT 1 FROM _lantern_segment_{place} WHERE segments = ?1 AND segment = ?2)"
        ))?
        .query_row([set, segment], |row| row.get(0))
}

fn differing(actual: &Summary, stored: &Summary) -> Option<&'static str> {
    if (actual.rows, actual.untimed) != (stored.rows, stored.untimed) {
        return Some("the number of rows");
    }
    if actual.times != stored.times {
        return Some("the times");
    }
    if actual.origins != stored.origins {
        return Some("the sequences");
    }
    (actual.facets != stored.facets).then_some("the facet counts")
}

/// The stored summary of a segment.
fn stored(connection: &Connection, set: &SegmentSet, segment: i64) -> Result<Summary, rusqlite::Error> {
    let mut summary = Summary::new(set);
    let mut totals = connection.prepare_cached(
        "SELECT rows, untimed, time_min, time_max FROM _lantern_segment WHERE segments = ?1 AND segment = ?2",
    )?;
    let mut found = totals.query([set.id, segment])?;
    if let Some(row) = found.next()? {
        (summary.rows, summary.untimed) = (row.get(0)?, row.get(1)?);
        summary.times = row.get::<_, Option<i64>>(2)?.zip(row.get(3)?);
    }
    let mut runs = connection.prepare_cached(
        "SELECT origin, block, first_sequence, last_sequence, rows FROM _lantern_segment_origin
         WHERE segments = ?1 AND segment = ?2",
    )?;
    let mut found = runs.query([set.id, segment])?;
    while let Some(row) = found.next()? {
        let run = SequenceRun {
            first: row.get(2)?,
            last: row.get(3)?,
            rows: row.get(4)?,
        };
        summary.origins.insert((row.get(0)?, row.get(1)?), run);
    }
    let mut counts = connection.prepare_cached(
        "SELECT \"column\", value, rows FROM _lantern_segment_open WHERE segments = ?1 AND segment = ?2
         UNION ALL
         SELECT \"column\", value, rows FROM _lantern_segment_facet WHERE segments = ?1 AND segment = ?2",
    )?;
    let mut found = counts.query([set.id, segment])?;
    while let Some(row) = found.next()? {
        let column: String = row.get(0)?;
        let mut facets = set.facets.iter().zip(&mut summary.facets);
        match facets.find(|(name, _)| **name == column) {
            Some((_, facet)) => facet.add_stored(row.get_ref(1)?, row.get(2)?),
            // A column that is not counted: the summary cannot match.
            None => summary.facets.push(super::sums::FacetCounts::default()),
        }
    }
    Ok(summary)
}
