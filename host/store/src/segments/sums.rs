//! The summaries of the segments that a batch completes.

use crate::sql::Connection;
use rusqlite::types::ValueRef;

use super::rows::SegmentRows;
use super::summary::{Appended, Summary};
use super::{SEGMENT_BITS, SegmentSet, stored};

/// The rows that a batch has added to one table, summed by segment.
#[derive(Debug)]
pub(crate) struct TableSums {
    set: SegmentSet,
    /// The first added row.
    first_row: Option<i64>,
    /// In ascending order, because row numbers ascend.
    segments: Vec<(i64, Summary)>,
}

impl TableSums {
    pub(crate) fn new(set: SegmentSet) -> Self {
        Self {
            set,
            first_row: None,
            segments: Vec::new(),
        }
    }

    pub(crate) fn set(&self) -> &SegmentSet {
        &self.set
    }

    /// Counts an added row with the values of the set's facet columns.
    pub(crate) fn add<'v>(&mut self, row: &Appended, facets: impl Iterator<Item = ValueRef<'v>>) {
        self.first_row.get_or_insert(row.rowid);
        let number = row.rowid >> SEGMENT_BITS;
        if self.segments.last().is_none_or(|(last, _)| *last != number) {
            self.segments.push((number, Summary::new(&self.set)));
        }
        if let Some((_, summary)) = self.segments.last_mut() {
            summary.add(row, facets);
        }
    }

    /// Stores the summaries of the segments that the added rows complete: of all but the newest. The one that was the newest
    /// before also contains earlier rows, which are read.
    pub(crate) fn flush(&mut self, connection: &Connection) -> Result<(), crate::sql::Error> {
        let mut segments = std::mem::take(&mut self.segments);
        let (Some(first_row), Some((newest, _))) = (self.first_row.take(), segments.pop()) else {
            return Ok(());
        };
        // SQLite numbers a row by adding one to the greatest row number, so the row before the first added one is the last
        // earlier row, or there is none.
        let last_row = first_row - 1;
        let open_before = last_row >> SEGMENT_BITS;
        if open_before == newest {
            return Ok(());
        }
        if segments.first().is_none_or(|(first, _)| *first != open_before) {
            segments.insert(0, (open_before, Summary::new(&self.set)));
        }
        if let Some((_, summary)) = segments.first_mut() {
            let mut rows = SegmentRows::prepare(connection, &self.set)?;
            rows.add_to(summary, open_before << SEGMENT_BITS, last_row)?;
        }
        for (number, summary) in &segments {
            stored::replace(connection, &self.set, *number, summary)?;
        }
        Ok(())
    }
}
