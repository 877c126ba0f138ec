//! Summaries after any change other than an insert at the end: the affected segments are read again.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, params};

use super::sums::{Appended, Summary, close_before, write};
use super::{SEGMENT_BITS, SegmentSet, newest, set_of};
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
    pub(crate) fn refresh(self, connection: &Connection) -> Result<(), rusqlite::Error> {
        for (table, segments) in &self.0 {
            if let Some(set) = set_of(connection, table)? {
                refresh_segments(connection, &set, segments)?;
            }
        }
        Ok(())
    }
}

/// Writes the summaries of segments from their rows. Also reopens the newest segment, if it was closed before the rows after
/// it were removed.
fn refresh_segments(
    connection: &Connection,
    set: &SegmentSet,
    segments: &BTreeSet<i64>,
) -> Result<(), rusqlite::Error> {
    let newest = newest(connection, &set.table)?;
    let mut rows = SegmentRows::prepare(connection, set)?;
    let mut renew = |segment: i64| {
        remove(connection, set.id, segment)?;
        let summary = rows.summary(segment)?;
        if summary.rows == 0 {
            return Ok::<_, rusqlite::Error>(());
        }
        write(connection, set, segment, &summary, Some(segment) == newest)
    };
    for segment in segments {
        renew(*segment)?;
    }
    let Some(newest) = newest else { return Ok(()) };
    if !segments.contains(&newest) && is_closed(connection, set.id, newest)? {
        renew(newest)?;
    }
    close_before(connection, set.id, newest)
}

fn is_closed(connection: &Connection, set: i64, segment: i64) -> Result<bool, rusqlite::Error> {
    connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM _lantern_segment_facet WHERE segments = ?1 AND segment = ?2)",
        )?
        .query_row([set, segment], |row| row.get(0))
}

fn remove(connection: &Connection, set: i64, segment: i64) -> Result<(), rusqlite::Error> {
    for table in ["segment", "segment_origin", "segment_open", "segment_facet"] {
        connection
            .prepare_cached(&format!(
                "DELETE FROM _lantern_{table} WHERE segments = ?1 AND segment = ?2"
            ))?
            .execute([set, segment])?;
    }
    Ok(())
}

/// Writes the summaries of all segments of a table.
pub(super) fn refresh_all(connection: &Connection, table: &str) -> Result<(), rusqlite::Error> {
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
pub(super) fn count_as_null(connection: &Connection, set: i64, column: &str) -> Result<(), rusqlite::Error> {
    let newest: Option<i64> = connection.query_row(
        "SELECT max(segment) FROM _lantern_segment WHERE segments = ?1",
        [set],
        |row| row.get(0),
    )?;
    for (table, comparison) in [("open", "="), ("facet", "<")] {
        connection.execute(
            &format!(
                "INSERT INTO _lantern_segment_{table} (segments, segment, \"column\", value, rows)
                 SELECT segments, segment, ?2, x'00', rows FROM _lantern_segment
                 WHERE segments = ?1 AND segment {comparison} ?3"
            ),
            params![set, column, newest],
        )?;
    }
    Ok(())
}

/// Reads the rows of segments.
pub(super) struct SegmentRows<'a> {
    statement: rusqlite::CachedStatement<'a>,
    set: &'a SegmentSet,
}

/// Columns before the facets: row number, origin, sequence and time.
const LEADING: usize = 4;

impl<'a> SegmentRows<'a> {
    pub(super) fn prepare(connection: &'a Connection, set: &'a SegmentSet) -> Result<Self, rusqlite::Error> {
        let time = set.time.as_deref().map_or_else(|| "NULL".to_owned(), quote_text);
        let facets: String = set
            .facets
            .iter()
            .map(|column| format!(", {}", quote_text(column)))
            .collect();
        let statement = connection.prepare_cached(&format!(
            "SELECT _rowid_, _origin, _sequence, {time}{facets} FROM {} WHERE _rowid_ BETWEEN ?1 AND ?2",
            quote_text(&set.table)
        ))?;
        Ok(Self { statement, set })
    }

    /// Sums the rows of a segment.
    pub(super) fn summary(&mut self, segment: i64) -> Result<Summary, rusqlite::Error> {
        let mut summary = Summary::new(self.set);
        let first = segment << SEGMENT_BITS;
        let mut rows = self.statement.query([first, first + (1 << SEGMENT_BITS) - 1])?;
        while let Some(row) = rows.next()? {
            summary.add(&appended(row)?, facets(row, self.set.facets.len()));
        }
        Ok(summary)
    }
}

fn appended(row: &Row<'_>) -> Result<Appended, rusqlite::Error> {
    Ok(Appended {
        rowid: row.get(0)?,
        origin: row.get(1)?,
        sequence: row.get(2)?,
        time: row.get(3)?,
    })
}

fn facets<'r>(row: &'r Row<'_>, count: usize) -> impl Iterator<Item = ValueRef<'r>> {
    // The statement has these columns.
    (LEADING..LEADING + count).map(|column| row.get_ref(column).unwrap_or(ValueRef::Null))
}
