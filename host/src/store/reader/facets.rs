//! How many rows there are, and how many of each value. Both are bounded: a count ends at a number that people do not
//! tell from more, and where all rows would take too long the newest ones stand for them.

use std::time::Duration;

use sqlx::Row as _;

use super::cells::{Cell, cell};
use super::selection::{Bound, Conditions, Selection};
use super::shape::Shape;
use super::tables::COUNT_MAX;
use super::{ReadError, Reader, RowEstimate};
use crate::store::statement::quote;

/// How long all rows are tried, before the newest ones have to do.
const ALL_TIME: Duration = Duration::from_millis(400);

/// Rows that stand for all: 50,000 are looked up in a few hundredths of a second, and their shares are right to half a
/// percent.
const NEWEST_ROWS: u32 = 50_000;

/// The values of one column.
#[derive(Clone, Debug)]
pub struct Facet {
    /// The column's position.
    pub column: usize,
    /// Values with the number of their rows, the most frequent first.
    pub values: Vec<(Cell, u64)>,
    /// Rows without a value.
    pub nulls: u64,
    /// Whether there are more values.
    pub more: bool,
    /// Whether all rows were counted, or only the newest.
    pub exact: bool,
}

impl Reader {
    /// How many rows a selection has: counted up to 10,000.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn count(&self, shape: &Shape, selection: &Selection) -> Result<RowEstimate, ReadError> {
        let conditions = Conditions::to_count(shape, selection);
        let mut bound = Bound::default();
        let rows = conditions.all_rows(&mut bound);
        let sql = format!("SELECT count(*) FROM (SELECT 1 {rows} LIMIT {})", COUNT_MAX + 1);
        let all = self.within(ALL_TIME).number(&sql, bound).await;
        let (counted, whole) = match all {
            Ok(counted) => (counted, true),
            Err(ReadError::TimeLimit { .. }) => {
                let mut bound = Bound::default();
                let rows = conditions.newest_rows(&mut bound, NEWEST_ROWS);
                (
                    self.number(&format!("SELECT count(*) {rows}"), bound).await?,
                    false,
                )
            }
            Err(error) => return Err(error),
        };
        Ok(RowEstimate {
            rows: counted.min(COUNT_MAX).unsigned_abs(),
            exact: whole && counted <= COUNT_MAX,
        })
    }

    async fn number(&self, sql: &str, bound: Bound) -> Result<i64, ReadError> {
        let found = self
            .fetch(sql, bound.arguments()?, 1, |row| row.try_get::<i64, _>(0))
            .await?;
        Ok(found.first().copied().unwrap_or_default())
    }

    /// The most frequent values of a column among the rows of a selection.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn facet(
        &self,
        shape: &Shape,
        selection: &Selection,
        column: usize,
        limit: u32,
    ) -> Result<Facet, ReadError> {
        let conditions = Conditions::to_count(shape, selection);
        let mut bound = Bound::default();
        let rows = conditions.all_rows(&mut bound);
        let patient = self.within(ALL_TIME);
        let all = patient.values(shape, column, limit, &rows, bound).await;
        let (mut values, exact) = match all {
            Ok(values) => (values, true),
            Err(ReadError::TimeLimit { .. }) => {
                let mut bound = Bound::default();
                let rows = conditions.newest_rows(&mut bound, NEWEST_ROWS);
                (self.values(shape, column, limit, &rows, bound).await?, false)
            }
            Err(error) => return Err(error),
        };
        let is_null = |(value, _): &(Cell, u64)| matches!(value, Cell::Null);
        let nulls = values
            .iter()
            .position(is_null)
            .map_or(0, |position| values.remove(position).1);
        let more = values.len() > limit as usize;
        values.truncate(limit as usize);
        Ok(Facet {
            column,
            values,
            nulls,
            more,
            exact,
        })
    }

    /// Values with their numbers: one more than `limit`, and null.
    async fn values(
        &self,
        shape: &Shape,
        column: usize,
        limit: u32,
        rows: &str,
        bound: Bound,
    ) -> Result<Vec<(Cell, u64)>, ReadError> {
        let described = &shape.columns[column];
        let name = quote(&described.name);
        // Null comes first, so that it is not among those that are left out.
        let sql = format!(
            "SELECT t.{name}, count(*) {rows} GROUP BY t.{name} ORDER BY t.{name} IS NULL DESC, 2 DESC, 1 LIMIT {}",
            limit + 2
        );
        self.fetch_sized(&sql, bound.arguments()?, usize::MAX, |row| {
            let what = || format!("column {} of table {}", described.name, shape.entry.name);
            let (value, size) = cell(row, 0, described.column_type, what)?;
            let rows: i64 = row.try_get(1).map_err(ReadError::Sql)?;
            Ok(((value, rows.unsigned_abs()), size))
        })
        .await
    }
}
