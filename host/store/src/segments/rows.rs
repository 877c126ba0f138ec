//! Sums the stored rows of segments.

use crate::sql::{Connection, Row};
use rusqlite::types::ValueRef;

use super::summary::{Appended, Summary};
use super::{SEGMENT_BITS, SegmentSet, newest};
use crate::statement::quote_text;

/// Reads the rows of segments.
pub(super) struct SegmentRows<'a> {
    statement: crate::sql::Statement<'a>,
    set: &'a SegmentSet,
}

/// Columns before the facets: row number, origin, sequence and time.
const LEADING: usize = 4;

impl<'a> SegmentRows<'a> {
    pub(super) fn prepare(
        connection: &'a Connection,
        set: &'a SegmentSet,
    ) -> Result<Self, crate::sql::Error> {
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
    pub(super) fn summary(&mut self, segment: i64) -> Result<Summary, crate::sql::Error> {
        let mut summary = Summary::new(self.set);
        let first = segment << SEGMENT_BITS;
        self.add_to(&mut summary, first, first + (1 << SEGMENT_BITS) - 1)?;
        Ok(summary)
    }

    /// Adds the rows with these numbers to a summary.
    pub(super) fn add_to(
        &mut self,
        summary: &mut Summary,
        first: i64,
        last: i64,
    ) -> Result<(), crate::sql::Error> {
        let mut rows = self.statement.query([first, last])?;
        while let Some(row) = rows.next()? {
            summary.add(&appended(&row)?, facets(&row, self.set.facets.len()));
        }
        Ok(())
    }
}

/// The newest segment of a table with the summary of its rows; none if the table is empty.
pub(crate) fn open_segment(
    connection: &Connection,
    set: &SegmentSet,
) -> Result<Option<(i64, Summary)>, crate::sql::Error> {
    let Some(newest) = newest(connection, &set.table)? else {
        return Ok(None);
    };
    let summary = SegmentRows::prepare(connection, set)?.summary(newest)?;
    Ok(Some((newest, summary)))
}

fn appended(row: &Row<'_>) -> Result<Appended, crate::sql::Error> {
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
