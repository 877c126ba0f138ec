//! Rows in the order in which their messages were handled, for tails: the rows after a position in each epoch of the
//! table's sources. A row that a later message changes appears again, with that message.
//!
//! Positions use the host's own columns, which every table has an index on, and not row numbers: in a table with a
//! numeric key those are its keys, and a rebuild assigns all of them again.

use std::collections::BTreeMap;

use super::rows::{RowRecord, record};
use super::selection::Bound;
use super::shape::Shape;
use super::{ReadError, Reader};
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
        let table = quote(&shape.entry.name);
        let sql = format!(
            "SELECT o.id, t._sequence, t._row FROM
                 (SELECT id FROM _lantern_origin WHERE plugin = ?1 ORDER BY id DESC LIMIT {HISTORIES_MAX}) AS o
             LEFT JOIN {table} AS t ON t._rowid_ = (SELECT n._rowid_ FROM {table} AS n WHERE n._origin = o.id
                 ORDER BY n._sequence DESC, n._row DESC LIMIT 1)"
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
        let stretch = stretch(&mut bound, history, after, until);
        let names: Vec<String> = shape
            .columns
            .iter()
            .map(|column| format!(", t.{}", quote(&column.name)))
            .collect();
        let sql = format!(
            "SELECT t._rowid_, NULL, t._origin, t._sequence, t._row{} FROM {} AS t WHERE {stretch} \
             ORDER BY t._sequence, t._row LIMIT {limit}",
            names.concat(),
            quote(&shape.entry.name)
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
        let stretch = stretch(&mut bound, history, after, until);
        let sql = format!(
            "SELECT count(*) FROM (SELECT 1 FROM {} AS t WHERE {stretch} LIMIT {most})",
            quote(&shape.entry.name)
        );
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
        let mut bound = Bound::default();
        let stretch = stretch(&mut bound, history, BEGINNING, place);
        let sql = format!(
            "SELECT t._sequence, t._row FROM {} AS t WHERE {stretch} \
             ORDER BY t._sequence DESC, t._row DESC LIMIT 1 OFFSET {rows}",
            quote(&shape.entry.name)
        );
        let found = self
            .fetch(&sql, bound.arguments(), 1, |row| Ok((row.get(0)?, row.get(1)?)))
            .await?;
        Ok(found.first().copied().unwrap_or(BEGINNING))
    }
}

fn stretch(bound: &mut Bound, history: i64, after: (i64, i64), until: (i64, i64)) -> String {
    let mut number = |number: i64| bound.integer(number);
    format!(
        "t._origin = {} AND (t._sequence, t._row) > ({}, {}) AND (t._sequence, t._row) <= ({}, {})",
        number(history),
        number(after.0),
        number(after.1),
        number(until.0),
        number(until.1)
    )
}
