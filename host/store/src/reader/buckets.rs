//! Rows over time: a range divided into buckets of a familiar width, and the rows in each.

mod grid;
mod outliers;

use super::bound::Bound;
use super::segments::OverTime;
use super::selection::{Conditions, Lead, Selection, all};
use super::shape::Shape;
use super::{ReadError, Reader};
use crate::statement::quote;
pub use grid::Buckets;
use lantern_model::batch::{Timestamp, Value};
use outliers::{END_ROWS, central_range};

/// Values of a column that each bucket counts separately: as many as a user can distinguish by colour.
const VALUES_MAX: u32 = 10;

/// The rows of one bucket.
#[derive(Clone, Debug, Default)]
pub struct Bucket {
    /// All rows.
    pub rows: u64,
    /// The rows with each of the most frequent values, if requested.
    pub by: Vec<(Value, u64)>,
}

/// Rows over time.
#[derive(Clone, Debug)]
pub struct Histogram {
    /// The range; none if no row has a time.
    pub buckets: Option<Buckets>,
    /// The rows of each bucket, including empty ones.
    pub counts: Vec<Bucket>,
    /// Rows of the selection before the range, if the selection has no start.
    pub earlier: u64,
    /// Rows of the selection after the range, if the selection has no end.
    pub later: u64,
}

impl Reader {
    /// The range of a selection. An open end of the selection becomes the end of the table's rows, without the few
    /// outliers that would make the range many times as long. `None` if no row has an admissible time.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn range(
        &self,
        shape: &Shape,
        selection: &Selection,
    ) -> Result<Option<(Timestamp, Timestamp)>, ReadError> {
        let Some(time) = shape.time() else {
            return Ok(None);
        };
        if let (Some(from), Some(to)) = (selection.from, selection.to) {
            return Ok(Some((from, to)));
        }
        let lowest = self.end_times(shape, time, selection, "ASC", END_ROWS).await?;
        let highest = self.end_times(shape, time, selection, "DESC", END_ROWS).await?;
        Ok(central_range(&lowest, &highest).map(|(first, last)| {
            let from = selection.from.unwrap_or(Timestamp(first));
            let to = selection.to.unwrap_or(Timestamp(last.saturating_add(1)));
            (from, to)
        }))
    }

    /// The admissible times at one end of a selection's range, from the outside inwards.
    async fn end_times(
        &self,
        shape: &Shape,
        time: usize,
        selection: &Selection,
        direction: &str,
        rows: usize,
    ) -> Result<Vec<i64>, ReadError> {
        let (column, table) = (quote(&shape.columns[time].name), quote(&shape.entry.name));
        let from = selection.from.unwrap_or(Timestamp::MIN).0;
        let last = selection.to.map_or(Timestamp::MAX.0, |to| to.0.saturating_sub(1));
        let sql = format!(
            "SELECT {column} FROM {table} WHERE {column} BETWEEN {from} AND {last} \
             ORDER BY {column} {direction} LIMIT {rows}"
        );
        self.fetch(&sql, Vec::new(), rows, |row| row.get(0)).await
    }

    /// The time of the newest row of a table.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn newest(&self, shape: &Shape) -> Result<Option<Timestamp>, ReadError> {
        let Some(time) = shape.time() else {
            return Ok(None);
        };
        let newest = self
            .end_times(shape, time, &Selection::default(), "DESC", 1)
            .await?;
        Ok(newest.first().copied().map(Timestamp))
    }

    /// The rows of a selection over time, in at most `count` buckets; with `by` also the rows of each frequent value of
    /// that column.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn histogram(
        &self,
        shape: &Shape,
        selection: &Selection,
        count: u32,
        by: Option<usize>,
    ) -> Result<Histogram, ReadError> {
        let shape = &*self.with_proposed(shape, selection).await?;
        let (Some(time), Some((from, to))) = (shape.time(), self.range(shape, selection).await?) else {
            return Ok(Histogram {
                buckets: None,
                counts: Vec::new(),
                earlier: 0,
                later: 0,
            });
        };
        let buckets = Buckets::new(from, to, count);
        let mut counts = vec![Bucket::default(); usize::try_from(buckets.count).unwrap_or_default()];
        let mut at = |number: i64, rows: i64, value: Option<Value>| {
            if let Some(bucket) = usize::try_from(number)
                .ok()
                .and_then(|number| counts.get_mut(number))
            {
                match value {
                    Some(value) if rows > 0 => bucket.by.push((value, rows.unsigned_abs())),
                    Some(_) => {}
                    None => bucket.rows = rows.unsigned_abs(),
                }
            }
        };
        let asked = Asked {
            shape,
            selection,
            time,
            buckets,
        };
        for (number, rows) in self.in_buckets(&asked).await? {
            at(number, rows, None);
        }
        if let Some(column) = by {
            let facet = self.facet(shape, selection, column, VALUES_MAX).await?;
            let values: Vec<Value> = facet.values.into_iter().map(|(value, _)| value).collect();
            for (number, rows, value) in self.in_buckets_by(&asked, column, &values).await? {
                at(number, rows, Some(value));
            }
        }
        let (earlier, later) = self.outside(&asked).await?;
        Ok(Histogram {
            buckets: Some(buckets),
            counts,
            earlier,
            later,
        })
    }

    /// Rows of the selection before and after the range, at the ends that the selection leaves open.
    async fn outside(&self, asked: &Asked<'_>) -> Result<(u64, u64), ReadError> {
        let Selection { from, to, .. } = asked.selection;
        if from.is_some() && to.is_some() {
            return Ok((0, 0));
        }
        let mut bound = Bound::default();
        let mut count = |open: bool, limit: String| match open {
            true => format!("({})", asked.counting(&mut bound, &limit, &[])),
            false => "0".to_owned(),
        };
        let time = quote(&asked.shape.columns[asked.time].name);
        let earlier = count(from.is_none(), format!("t.{time} < {}", asked.buckets.from.0));
        let later = count(to.is_none(), format!("t.{time} >= {}", asked.buckets.to.0));
        let counted = self
            .fetch(
                &format!("SELECT {earlier}, {later}"),
                bound.arguments(),
                1,
                |row| Ok((row.get::<i64>(0)?, row.get::<i64>(1)?)),
            )
            .await?;
        let (earlier, later) = counted.first().copied().unwrap_or_default();
        Ok((earlier.unsigned_abs(), later.unsigned_abs()))
    }

    async fn in_buckets(&self, asked: &Asked<'_>) -> Result<Vec<(i64, i64)>, ReadError> {
        if let Some(counts) = self
            .buckets_by_segments(asked.shape, asked.over_time(None))
            .await?
        {
            let counts = counts.into_iter();
            return Ok(counts
                .map(|(bucket, _, rows)| (bucket, rows.cast_signed()))
                .collect());
        }
        let mut bound = Bound::default();
        let sql = asked.statement(&mut bound);
        self.fetch(&sql, bound.arguments(), usize::MAX, |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .await
    }

    async fn in_buckets_by(
        &self,
        asked: &Asked<'_>,
        column: usize,
        values: &[Value],
    ) -> Result<Vec<(i64, i64, Value)>, ReadError> {
        let described = &asked.shape.columns[column];
        if values.is_empty() {
            return Ok(Vec::new());
        }
        let over_time = asked.over_time(Some((column, values.to_vec())));
        if let Some(counts) = self.buckets_by_segments(asked.shape, over_time).await? {
            let count = |(bucket, value, rows): (i64, usize, u64)| {
                Some((bucket, rows.cast_signed(), values.get(value)?.clone()))
            };
            return Ok(counts.into_iter().filter_map(count).collect());
        }
        let name = quote(&described.name);
        let mut bound = Bound::default();
        let listed: Vec<String> = values.iter().map(|value| bound.add(value.clone())).collect();
        let buckets = asked.buckets;
        let sql = if asked.shape.leads(column, Some(asked.time)) && !asked.selection.is_narrow() {
            // The rows of each value and bucket are adjacent in an index.
            let (engine, column_type) = (asked.shape.engine(), described.column_type);
            let row = |value: &String| format!("({})", engine.typed(value, column_type));
            let rows: Vec<String> = listed.iter().map(row).collect();
            let counting = asked.counting(&mut bound, &asked.in_bucket(), &[format!("t.{name} = v.value")]);
            format!(
                "WITH {}, v (value) AS (VALUES {}) SELECT b.i, v.value, ({counting}) FROM v CROSS JOIN b",
                buckets.table(),
                rows.join(", ")
            )
        } else {
            let conditions = asked.conditions();
            let rows = conditions.all_rows(&mut bound);
            let (time, width) = (quote(&asked.shape.columns[asked.time].name), buckets.width());
            let first = buckets.aligned(0).0;
            format!(
                "SELECT (t.{time} - ({first})) / {width}, t.{name}, count(*) {rows} AND +t.{time} >= {} \
                 AND +t.{time} < {} AND +t.{name} IN ({}) GROUP BY 1, 2",
                buckets.from.0,
                buckets.to.0,
                listed.join(", ")
            )
        };
        self.fetch_sized(&sql, bound.arguments(), usize::MAX, |row| {
            let (value, size) = asked.shape.value(column, row, 1)?;
            let number = |index: usize| row.get::<i64>(index).map_err(ReadError::Sql);
            Ok(((number(0)?, number(2)?, value), size))
        })
        .await
    }
}

/// A histogram query with its range.
struct Asked<'a> {
    shape: &'a Shape,
    selection: &'a Selection,
    time: usize,
    buckets: Buckets,
}

impl<'a> Asked<'a> {
    fn conditions(&self) -> Conditions<'a> {
        Conditions {
            shape: self.shape,
            selection: self.selection,
            lead: Lead::of(self.shape, self.selection, Some(self.time)),
        }
    }

    /// The same query for segments.
    fn over_time(&self, by: Option<(usize, Vec<Value>)>) -> OverTime {
        OverTime::new(self.selection, self.buckets, by)
    }

    /// The rows of each bucket.
    fn statement(&self, bound: &mut Bound) -> String {
        if self.shape.proposed().is_some() {
            return self.grouping(bound);
        }
        let counting = self.counting(bound, &self.in_bucket(), &[]);
        format!("WITH {} SELECT b.i, ({counting}) FROM b", self.buckets.table())
    }

    /// The rows of each bucket that has any, for rows that are not found by their time.
    fn grouping(&self, bound: &mut Bound) -> String {
        let rows = self.conditions().all_rows(bound);
        let time = quote(&self.shape.columns[self.time].name);
        let buckets = self.buckets;
        format!(
            "SELECT (t.{time} - ({})) / {}, count(*) {rows} AND +t.{time} >= {} AND +t.{time} < {} GROUP BY 1",
            buckets.aligned(0).0,
            buckets.width(),
            buckets.from.0,
            buckets.to.0
        )
    }

    /// The condition that a row is in bucket `b`.
    fn in_bucket(&self) -> String {
        let time = quote(&self.shape.columns[self.time].name);
        format!("t.{time} >= b.first AND t.{time} < b.past")
    }

    /// Counts the rows of the selection in a range of time: adjacent entries of an index, which need no sorting.
    fn counting(&self, bound: &mut Bound, range: &str, more: &[String]) -> String {
        let conditions = self.conditions();
        let mut every = conditions.leading(bound);
        every.push(range.to_owned());
        every.extend(conditions.following(bound));
        every.extend_from_slice(more);
        format!(
            "SELECT count(*) {} WHERE {}",
            conditions.source(bound),
            all(&every)
        )
    }
}

/// The statement of a histogram of ten buckets, for tests of its plan.
#[cfg(test)]
pub(super) fn plan_of(
    shape: &Shape,
    selection: &Selection,
    time: usize,
) -> (String, Vec<lantern_model::batch::Value>) {
    let asked = Asked {
        shape,
        selection,
        time,
        buckets: Buckets::new(Timestamp(0), Timestamp(10_000), 10),
    };
    let mut bound = Bound::default();
    (asked.statement(&mut bound), bound.into_values())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_begin_at_multiples_of_a_familiar_width() {
        let hour = 3_600_000_000;
        for (from, to, count, width_ms, number, first) in [
            (0, 24 * hour, 60, 1_800_000, 48, 0),
            (1, 24 * hour + 1, 60, 1_800_000, 49, 0),
            (5 * hour + 7, 5 * hour + 8, 60, 1, 1, 5 * hour),
            (-1, 1, 60, 1, 2, -1_000),
        ] {
            let buckets = Buckets::new(Timestamp(from), Timestamp(to), count);
            assert_eq!(
                (buckets.width_ms, buckets.count),
                (width_ms, number),
                "{from} {to}"
            );
            assert_eq!(buckets.start(0), Timestamp(first));
        }
        let outermost = Buckets::new(Timestamp::MIN, Timestamp::MAX, 60);
        assert_eq!(outermost.start(0), Timestamp::MIN);
        assert!(outermost.aligned(0) < Timestamp::MIN);
        assert!(outermost.start(outermost.count) <= Timestamp::MAX);
        let whole = Buckets::new(Timestamp(i64::MIN), Timestamp(i64::MAX), 60);
        assert!(whole.count <= 60, "{whole:?}");
        let none = Buckets::new(Timestamp(7), Timestamp(7), 60);
        assert_eq!(none.count, 1);
    }

    /// The central range of times, as [`Reader::range`] asks for it.
    fn central(mut times: Vec<i64>) -> Option<(i64, i64)> {
        times.sort_unstable();
        let lowest: Vec<i64> = times.iter().take(END_ROWS).copied().collect();
        let highest: Vec<i64> = times.iter().rev().take(END_ROWS).copied().collect();
        central_range(&lowest, &highest)
    }

    #[test]
    fn an_outlier_does_not_stretch_the_range() {
        let second = 1_000_000;
        let day = 86_400 * second;
        let today = 20_000 * day;
        for rows in [8, 15, 16, 17, 20, 31, 32, 50, 1_000] {
            let ordinary: Vec<i64> = (0..rows).map(|number| today + number * second).collect();
            let whole = Some((today, today + (rows - 1) * second));
            assert_eq!(central(ordinary.clone()), whole, "{rows}");
            let with = |outliers: &[i64]| central([ordinary.as_slice(), outliers].concat());
            assert_eq!(with(&[Timestamp::MIN.0]), whole, "{rows}");
            assert_eq!(with(&[Timestamp::MAX.0]), whole, "{rows}");
            assert_eq!(with(&[today - 2_000 * day, today + 92 * day]), whole, "{rows}");
            // Rows some weeks away belong to the range.
            let week = Some((today - 7 * day, today + (rows - 1) * second));
            assert_eq!(with(&[today - 7 * day]), week, "{rows}");
        }
        // Evenly spread rows are all shown, however far apart they are.
        for rows in [1, 2, 3, 5, 17, 33, 100] {
            let spread: Vec<i64> = (0..rows).map(|number| number * 400 * day).collect();
            assert_eq!(central(spread), Some((0, (rows - 1) * 400 * day)), "{rows}");
        }
        assert_eq!(central(Vec::new()), None);
    }
}
