//! The number of rows, and the number for each value. Both are bounded: a count ends at 10,000 unless summaries of segments
//! contain it, and if all rows would take too long, the newest ones stand for them.

use std::time::Duration;

use super::bound::Bound;
use super::selection::{Conditions, Selection};
use super::shape::Shape;
use super::tables::COUNT_MAX;
use super::{ReadError, Reader, RowEstimate};
use crate::sql::Engine;
use crate::statement::quote;
use lantern_model::batch::Value;
use lantern_model::schema::ColumnType;

/// How long a query of all rows may take before the newest ones stand for them.
const ALL_TIME: Duration = Duration::from_millis(if cfg!(test) { 10_000 } else { 400 });

/// A column with at most this many distinct values, and with an index, is counted value by value: the rows of each
/// value are adjacent in the index, so that no row outside the range is read.
const STRETCHES_MAX: i64 = 500;

/// Rows that stand for all: reading 50,000 takes a few hundredths of a second, and their proportions are accurate to
/// half a percent.
const NEWEST_ROWS: u32 = 50_000;

/// Longest text that is counted as a value, in bytes. Longer ones are omitted: they are not useful as choices, and
/// grouping by them takes as much memory as the table.
pub(super) const VALUE_BYTES_MAX: usize = 1 << 10;

/// The values of one column.
#[derive(Clone, Debug)]
pub struct Facet {
    /// The column's position.
    pub column: usize,
    /// Values with the number of their rows, the most frequent first.
    pub values: Vec<(Value, u64)>,
    /// Rows without a value.
    pub nulls: u64,
    /// Whether there are more values.
    pub more: bool,
    /// Whether all rows were counted, or only the newest.
    pub exact: bool,
}

impl Reader {
    /// The number of rows of a selection. Rows that no summary counts are counted up to 10,000.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn count(&self, shape: &Shape, selection: &Selection) -> Result<RowEstimate, ReadError> {
        let shape = &*self.with_proposed(shape, selection).await?;
        let conditions = Conditions::to_count(shape, selection);
        let mut bound = Bound::default();
        let rows = conditions.all_rows(&mut bound);
        let sql = format!(
            "SELECT count(*) FROM (SELECT 1 {rows} LIMIT {}) AS counted",
            COUNT_MAX + 1
        );
        let patient = self.within(ALL_TIME);
        let all = match patient.count_by_segments(shape, selection).await {
            Ok(Some(count)) => return Ok(count),
            Ok(None) => patient.number(&sql, bound).await,
            Err(error) => Err(error),
        };
        let (counted, whole) = match all {
            Ok(counted) => (counted, true),
            Err(ReadError::TimeLimit { .. }) => {
                let mut bound = Bound::default();
                let rows = conditions.newest_rows(&mut bound, newest_rows(shape, selection));
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
            .fetch(sql, bound.arguments(), 1, |row| row.get::<i64>(0))
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
        let shape = &*self.with_proposed(shape, selection).await?;
        let conditions = Conditions::to_count(shape, selection);
        let patient = self.within(ALL_TIME);
        let all = async {
            if let Some(values) = patient.values_by_segments(shape, selection, column).await? {
                return Ok(values);
            }
            if patient.has_stretches(shape, selection, column).await? {
                return patient.stretches(&conditions, column, limit).await;
            }
            let mut bound = Bound::default();
            let rows = conditions.all_rows(&mut bound);
            patient.values(shape, column, limit, &rows, bound).await
        };
        let (mut values, exact) = match all.await {
            Ok(values) => (values, true),
            Err(ReadError::TimeLimit { .. }) => {
                let mut bound = Bound::default();
                let rows = conditions.newest_rows(&mut bound, newest_rows(shape, selection));
                (self.values(shape, column, limit, &rows, bound).await?, false)
            }
            Err(error) => return Err(error),
        };
        // Several stored values can be read as null: see `Stored::into_value`.
        let is_null = |(value, _): &(Value, u64)| value.is_null();
        let nulls = values
            .iter()
            .filter(|one| is_null(one))
            .map(|(_, rows)| rows)
            .sum();
        values.retain(|one| !is_null(one));
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

    /// Whether the rows of a range of time can be counted value by value.
    async fn has_stretches(
        &self,
        shape: &Shape,
        selection: &Selection,
        column: usize,
    ) -> Result<bool, ReadError> {
        let served = shape.time().is_some_and(|time| shape.leads(column, Some(time)));
        if !served || !selection.has_range() || selection.is_narrow() {
            return Ok(false);
        }
        let sql = format!(
            "{} SELECT count(*) FROM (SELECT 1 FROM v LIMIT {}) AS counted",
            different_values(shape, column),
            STRETCHES_MAX + 1
        );
        Ok(self.number(&sql, Bound::default()).await? <= STRETCHES_MAX)
    }

    /// As [`Self::values`], but along an index of the column and the time.
    async fn stretches(
        &self,
        conditions: &Conditions<'_>,
        column: usize,
        limit: u32,
    ) -> Result<Vec<(Value, u64)>, ReadError> {
        let mut bound = Bound::default();
        let sql = stretches(conditions, column, limit, &mut bound);
        self.counted(conditions.shape, column, &sql, bound).await
    }

    /// Values with their numbers of rows: one more than `limit`, and null.
    async fn values(
        &self,
        shape: &Shape,
        column: usize,
        limit: u32,
        rows: &str,
        bound: Bound,
    ) -> Result<Vec<(Value, u64)>, ReadError> {
        let name = quote(&shape.columns[column].name);
        let is_short = short_or_null(shape, column);
        // Null comes first, so that the limit does not omit it.
        let sql = format!(
            "SELECT t.{name}, count(*) {rows}{is_short} GROUP BY t.{name} ORDER BY t.{name} IS NULL DESC, 2 DESC, 1 LIMIT {}",
            limit + 2
        );
        self.counted(shape, column, &sql, bound).await
    }

    async fn counted(
        &self,
        shape: &Shape,
        column: usize,
        sql: &str,
        bound: Bound,
    ) -> Result<Vec<(Value, u64)>, ReadError> {
        self.fetch_sized(sql, bound.arguments(), usize::MAX, |row| {
            let (value, size) = shape.value(column, row, 0)?;
            let rows: i64 = row.get(1).map_err(ReadError::Sql)?;
            Ok(((value, rows.unsigned_abs()), size))
        })
        .await
    }
}

/// Rows that stand for all. PostgreSQL needs a tenth of a millisecond for a JSON document that a search has to divide.
fn newest_rows(shape: &Shape, selection: &Selection) -> u32 {
    match (shape.engine(), &selection.search) {
        (Engine::Postgres, Some(_)) => NEWEST_ROWS / 10,
        _ => NEWEST_ROWS,
    }
}

/// The condition that a text is short enough to be counted, to be appended to others; empty for other types.
fn is_short(shape: &Shape, column: usize) -> String {
    let column = &shape.columns[column];
    match column.column_type {
        ColumnType::Text => {
            let name = quote(&column.name);
            format!(" AND octet_length(t.{name}) <= {VALUE_BYTES_MAX}")
        }
        _ => String::new(),
    }
}

/// The condition that a value is null or short enough to be counted, to be appended to others.
pub(super) fn short_or_null(shape: &Shape, column: usize) -> String {
    match is_short(shape, column) {
        short if short.is_empty() => short,
        short => format!(
            " AND (t.{} IS NULL OR (TRUE{short}))",
            quote(&shape.columns[column].name)
        ),
    }
}

/// A table `v (value)` of the distinct values of a column, each found by a step along an index. The last row is null.
fn different_values(shape: &Shape, column: usize) -> String {
    let (table, name) = (quote(&shape.entry.name), quote(&shape.columns[column].name));
    let is_short = is_short(shape, column);
    let next = |test: &str| {
        format!(
            "(SELECT t.{name} FROM {table} AS t WHERE t.{name} {test}{is_short} ORDER BY t.{name} LIMIT 1)"
        )
    };
    format!(
        "WITH RECURSIVE v (value) AS (SELECT {} UNION ALL SELECT {} FROM v WHERE v.value IS NOT NULL)",
        next("IS NOT NULL"),
        next("> v.value")
    )
}

/// The rows of each value of a column in a range of time, value by value.
fn stretches(conditions: &Conditions<'_>, column: usize, limit: u32, bound: &mut Bound) -> String {
    let shape = conditions.shape;
    let (table, name) = (quote(&shape.entry.name), quote(&shape.columns[column].name));
    let range = conditions.range(bound, true).join(" AND ");
    let count = |test: &str| format!("(SELECT count(*) FROM {table} AS t WHERE t.{name} {test} AND {range})");
    format!(
        "{}, c (value, rows) AS MATERIALIZED (
             SELECT v.value, {} FROM v WHERE v.value IS NOT NULL UNION ALL SELECT NULL, {}
         ) SELECT value, rows FROM c WHERE rows > 0 ORDER BY value IS NULL DESC, rows DESC, value LIMIT {}",
        different_values(shape, column),
        count("= v.value"),
        count("IS NULL"),
        limit + 2
    )
}

/// The statement of a facet of a range of time, for tests of its plan.
#[cfg(test)]
pub(super) fn plan_of(
    shape: &Shape,
    selection: &Selection,
    column: usize,
) -> (String, Vec<lantern_model::batch::Value>) {
    let mut bound = Bound::default();
    let conditions = Conditions::to_count(shape, selection);
    let sql = stretches(&conditions, column, 10, &mut bound);
    (sql, bound.into_values())
}
