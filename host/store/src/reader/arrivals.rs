//! Rows in the order in which their messages were handled, for tails: the rows after a position in each epoch of the
//! table's sources. A row that a later message changes appears again, with that message.
//!
//! Positions use the host's own columns and not row numbers: in a table with a numeric key those are its keys, and a
//! rebuild assigns all of them again. The rows are found through the table's segments, or through its index.

use std::collections::BTreeMap;

use super::bound::Bound;
use super::rows::{RowRecord, record};
use super::shape::Shape;
use super::{ReadError, Reader};
use crate::segments::OriginTable;
use crate::statement::quote;

/// Epochs that a tail follows: the newest. A plugin has one for each source, and one more for each time that a stream
/// was recreated.
pub const HISTORIES_MAX: u32 = 64;

/// The position of a tail: for each epoch its last row, as the sequence and the number within the message.
pub type ArrivalPositions = BTreeMap<i64, (i64, i64)>;

/// Before all rows of an epoch.
pub const BEGINNING: (i64, i64) = (-1, -1);

impl Reader {
    /// The current position of a table.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn places(&self, shape: &Shape) -> Result<ArrivalPositions, ReadError> {
        let last = self.origin_table(shape).await?.last_row("o.id");
        let sql = format!(
            "SELECT o.id, t._sequence, t._row FROM
                 (SELECT id FROM _lantern_origin WHERE plugin = ?1 ORDER BY id DESC LIMIT {HISTORIES_MAX}) AS o
             LEFT JOIN {} AS t ON t._rowid_ = {last}",
            quote(&shape.entry.name)
        );
        let arguments = vec![shape.entry.plugin.clone().into()];
        let places = self
            .fetch(&sql, arguments, usize::MAX, |row| {
                let last = (row.get::<Option<i64>>(1)?, row.get::<Option<i64>>(2)?);
                let last = match last {
                    (Some(sequence), Some(number)) => (sequence, number),
                    _ => BEGINNING,
                };
                Ok((row.get(0)?, last))
            })
            .await?;
        Ok(places.into_iter().collect())
    }

    /// Rows of one epoch after one position and up to another, the oldest first. All columns.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn arrivals(
        &self,
        shape: &Shape,
        history: i64,
        after: (i64, i64),
        until: (i64, i64),
        limit: u32,
    ) -> Result<Vec<RowRecord>, ReadError> {
        let columns: Vec<usize> = (0..shape.columns.len()).collect();
        let mut bound = Bound::default();
        let rows = stretch(
            &self.origin_table(shape).await?,
            &mut bound,
            history,
            after,
            until,
        );
        let names: Vec<String> = shape
            .columns
            .iter()
            .map(|column| format!(", t.{}", quote(&column.name)))
            .collect();
        let sql = format!(
            "SELECT t._rowid_, NULL, t._origin, t._sequence, t._row{} {rows} \
             ORDER BY t._sequence, t._row LIMIT {limit}",
            names.concat()
        );
        self.fetch_sized(&sql, bound.arguments(), limit as usize, |row| {
            let (_, record, size) = record(shape, &columns, row)?;
            Ok((record, size))
        })
        .await
    }

    /// The number of rows of one epoch after one position and up to another, counted up to `most`.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn arrivals_between(
        &self,
        shape: &Shape,
        history: i64,
        after: (i64, i64),
        until: (i64, i64),
        most: u32,
    ) -> Result<u64, ReadError> {
        let mut bound = Bound::default();
        let table = self.origin_table(shape).await?;
        let rows = stretch(&table, &mut bound, history, after, until);
        let sql = format!("SELECT count(*) FROM (SELECT 1 {rows} LIMIT {most}) AS counted");
        let counted = self
            .fetch(&sql, bound.arguments(), 1, |row| row.get::<i64>(0))
            .await?;
        Ok(counted.first().copied().unwrap_or_default().unsigned_abs())
    }

    /// The position this many rows before another one of the same epoch, or its start.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn place_before(
        &self,
        shape: &Shape,
        history: i64,
        place: (i64, i64),
        rows: u32,
    ) -> Result<(i64, i64), ReadError> {
        let table = self.origin_table(shape).await?;
        let after = match table.sequence_before("?1", "?2", rows) {
            Some(sql) => {
                let arguments = vec![history.into(), place.0.into()];
                let found = self.fetch(&sql, arguments, 1, |row| row.get::<i64>(0)).await?;
                found.first().map_or(BEGINNING, |first| (*first, -1))
            }
            None => BEGINNING,
        };
        let mut bound = Bound::default();
        let between = stretch(&table, &mut bound, history, after, place);
        let sql = format!(
            "SELECT t._sequence, t._row {between} ORDER BY t._sequence DESC, t._row DESC LIMIT 1 OFFSET {rows}"
        );
        let found = self
            .fetch(&sql, bound.arguments(), 1, |row| Ok((row.get(0)?, row.get(1)?)))
            .await?;
        Ok(found.first().copied().unwrap_or(BEGINNING))
    }
}

impl Reader {
    /// How the rows of a table are found by origin: read for each query, because a rebuild may replace the table.
    async fn origin_table(&self, shape: &Shape) -> Result<OriginTable, ReadError> {
        let name = shape.entry.name.to_string();
        self.snapshot(move |connection| Ok(OriginTable::find(connection, &name)?))
            .await
    }
}

/// The clauses for the rows of one epoch after one position and up to another.
fn stretch(
    table: &OriginTable,
    bound: &mut Bound,
    history: i64,
    after: (i64, i64),
    until: (i64, i64),
) -> String {
    let [history, first, row, last, last_row] =
        [history, after.0, after.1, until.0, until.1].map(|number| bound.integer(number));
    format!(
        "{} AND (t._sequence, t._row) > ({first}, {row}) AND (t._sequence, t._row) <= ({last}, {last_row})",
        table.rows(&history, &first, &last)
    )
}
