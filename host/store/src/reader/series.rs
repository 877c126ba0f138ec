//! Quantities over time: one number for each bucket and measure and, if requested, each frequent value of a column. If
//! all rows would take too long, the newest ones stand for them.

use std::time::Duration;

use super::bound::Bound;
use super::buckets::Buckets;
use super::connections::Row;
use super::segments::{OverTime, Summaries, rows_in_segments};
use super::selection::{Conditions, Lead, Selection};
use super::shape::Shape;
use super::text::NUMBER_BYTES;
use super::{ReadError, Reader};
use crate::statement::quote;
use lantern_model::batch::Value;

/// How long a query of all rows may take before the newest ones stand for them.
const ALL_TIME: Duration = Duration::from_millis(if cfg!(test) { 10_000 } else { 1_000 });

/// Rows that stand for all.
const NEWEST_ROWS: u32 = 100_000;

/// Values of a column that get their own line.
pub const KEYS_MAX: u32 = 20;

/// How the values of a bucket are aggregated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aggregate {
    /// Their mean.
    Average,
    /// The smallest.
    Minimum,
    /// The greatest.
    Maximum,
    /// Their sum.
    Sum,
    /// Their number.
    Count,
    /// The smallest value that this percentage of the values does not exceed.
    Percentile(u8),
}

/// A query for lines over time.
#[derive(Clone, Debug)]
pub struct SeriesQuery {
    /// The rows.
    pub selection: Selection,
    /// The columns, by position; if empty, rows are counted.
    pub measures: Vec<usize>,
    /// How their values are aggregated.
    pub aggregate: Aggregate,
    /// One line for each value of this column.
    pub by: Option<usize>,
    /// The maximum number of buckets.
    pub buckets: u32,
}

/// One line.
#[derive(Clone, Debug)]
pub struct Line {
    /// The measure; none if rows are counted.
    pub measure: Option<usize>,
    /// The value of the column that distinguishes the lines.
    pub key: Option<Value>,
    /// A number for each bucket; none if it has no value.
    pub points: Vec<Option<f64>>,
}

/// Lines over time.
#[derive(Clone, Debug)]
pub struct Series {
    /// The range; none if no row has a time.
    pub buckets: Option<Buckets>,
    /// The lines.
    pub lines: Vec<Line>,
    /// Whether the column has more values than lines.
    pub more: bool,
    /// Whether all rows were read, or only the newest.
    pub exact: bool,
}

impl Reader {
    /// Quantities over time.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn series(&self, shape: &Shape, query: &SeriesQuery) -> Result<Series, ReadError> {
        let mut series = Series {
            buckets: None,
            lines: Vec::new(),
            more: false,
            exact: true,
        };
        let shape = &*self.with_proposed(shape, &query.selection).await?;
        let range = self.range(shape, &query.selection).await?;
        let (Some(time), Some((from, to))) = (shape.time(), range) else {
            return Ok(series);
        };
        let buckets = Buckets::new(from, to, query.buckets);
        series.buckets = Some(buckets);
        let keys = match query.by {
            Some(column) => {
                let facet = self.facet(shape, &query.selection, column, KEYS_MAX).await?;
                series.more = facet.more;
                series.exact = facet.exact;
                facet.values.into_iter().map(|(value, _)| Some(value)).collect()
            }
            None => vec![None],
        };
        let measures: Vec<Option<usize>> = match query.measures.as_slice() {
            [] => vec![None],
            some => some.iter().copied().map(Some).collect(),
        };
        for measure in measures {
            let asked = Asked {
                shape,
                query,
                time,
                buckets,
                measure,
                keys: &keys,
            };
            let (points, exact) = self.points(&asked).await?;
            series.exact &= exact;
            series.lines.extend(asked.lines(points));
        }
        Ok(series)
    }

    async fn points(&self, asked: &Asked<'_>) -> Result<(Vec<Point>, bool), ReadError> {
        let fetch = async |reader: &Self, rows: Rows| {
            let mut bound = Bound::default();
            let sql = asked.sql(&mut bound, rows);
            reader
                .fetch_sized(&sql, bound.arguments(), usize::MAX, Asked::point)
                .await
        };
        let patient = self.within(ALL_TIME);
        let all = async {
            match patient.points_by_segments(asked).await? {
                Some(points) => Ok(points),
                None => fetch(&patient, Rows::All).await,
            }
        };
        match all.await {
            Ok(points) => Ok((points, true)),
            Err(ReadError::TimeLimit { .. }) => Ok((fetch(self, Rows::Newest).await?, false)),
            Err(error) => Err(error),
        }
    }

    /// The points of a table with segments; none if an index serves the selection better.
    async fn points_by_segments(&self, asked: &Asked<'_>) -> Result<Option<Vec<Point>>, ReadError> {
        if !asked.shape.is_segmented() {
            return Ok(None);
        }
        if asked.measure.is_none()
            && let Some(counts) = self.buckets_by_segments(asked.shape, asked.over_time()).await?
        {
            let point = |(bucket, key, rows): (i64, usize, u64)| (bucket, key as i64, Some(rows as f64));
            return Ok(Some(counts.into_iter().map(point).collect()));
        }
        let (shape, query, keys) = (asked.shape.clone(), asked.query.clone(), asked.keys.to_vec());
        let Asked {
            time,
            buckets,
            measure,
            ..
        } = *asked;
        self.timed_snapshot(move |snapshot| {
            let asked = Asked {
                shape: &shape,
                query: &query,
                time,
                buckets,
                measure,
                keys: &keys,
            };
            let selection = asked.selection();
            let segments = match Summaries::of(snapshot, &shape)? {
                Some(summaries) => summaries.to_scan(&selection)?,
                None => None,
            };
            let Some(segments) = segments else {
                return Ok(None);
            };
            let mut bound = Bound::default();
            let sql = asked.sql(&mut bound, Rows::OfSegments(segments));
            let points = snapshot.fetch_sized(&sql, bound.arguments(), usize::MAX, Asked::point)?;
            Ok(Some(points))
        })
        .await
    }
}

/// The rows that a statement reads.
enum Rows {
    All,
    /// The newest ones, which stand for all.
    Newest,
    /// Those of these segments.
    OfSegments(Vec<i64>),
}

/// The bucket, the index of the key, and the number.
type Point = (i64, i64, Option<f64>);

/// One measure of a query.
struct Asked<'a> {
    shape: &'a Shape,
    query: &'a SeriesQuery,
    time: usize,
    buckets: Buckets,
    measure: Option<usize>,
    keys: &'a [Option<Value>],
}

impl Asked<'_> {
    /// The selection within the range.
    fn selection(&self) -> Selection {
        Selection {
            from: Some(self.buckets.from),
            to: Some(self.buckets.to),
            ..self.query.selection.clone()
        }
    }

    /// The query for segments that counts rows.
    fn over_time(&self) -> OverTime {
        let keys = self.keys.iter().flatten().cloned().collect();
        let by = self.query.by.map(|column| (column, keys));
        OverTime::new(&self.query.selection, self.buckets, by)
    }

    fn sql(&self, bound: &mut Bound, rows: Rows) -> String {
        let conditions = Conditions {
            shape: self.shape,
            selection: &self.query.selection,
            lead: Lead::of(self.shape, &self.query.selection, Some(self.time)),
        };
        let name = |position: usize| format!("t.{}", quote(&self.shape.columns[position].name));
        let time = name(self.time);
        let (first, width) = (self.buckets.aligned(0).0, self.buckets.width());
        let value = self.measure.map_or("1".to_owned(), name);
        let rows = match rows {
            Rows::All => conditions.all_rows(bound),
            Rows::Newest => conditions.newest_rows(bound, NEWEST_ROWS),
            Rows::OfSegments(segments) => {
                rows_in_segments(self.shape, &self.query.selection, segments.into_iter(), bound)
            }
        };
        let mut rows = format!(
            "{rows} AND +{time} >= {} AND +{time} < {} AND {value} IS NOT NULL",
            self.buckets.from.0, self.buckets.to.0
        );
        if self.query.by.is_some() && self.keys.is_empty() {
            // No row has a value.
            rows.push_str(" AND FALSE");
        }
        let key = self.key_index(bound);
        let bucket = format!("({time} - ({first})) / {width}");
        let aggregate = match self.query.aggregate {
            // Without a measure, rows are counted.
            _ if self.measure.is_none() => "count(*)",
            Aggregate::Average => self.shape.engine().average(),
            Aggregate::Minimum => "min(v)",
            Aggregate::Maximum => "max(v)",
            Aggregate::Sum => self.shape.engine().total(),
            Aggregate::Count => "count(*)",
            Aggregate::Percentile(percent) => {
                return format!(
                    "SELECT b, k, CAST(v AS REAL) FROM (SELECT b, k, v, \
                         row_number() OVER (PARTITION BY b, k ORDER BY v) AS n, \
                         count(*) OVER (PARTITION BY b, k) AS c \
                         FROM (SELECT {bucket} AS b, {key} AS k, {value} AS v {rows}) AS x WHERE k >= 0) AS y \
                     WHERE n = max(1, (c * {percent} + 99) / 100)"
                );
            }
        };
        format!(
            "SELECT b, k, CAST({aggregate} AS REAL) FROM (SELECT {bucket} AS b, {key} AS k, {value} AS v {rows}) AS x \
             WHERE k >= 0 GROUP BY b, k"
        )
    }

    /// The index of the key of a row, so that the key need not be read back; -1 for a row with another key.
    fn key_index(&self, bound: &mut Bound) -> String {
        let Some(column) = self.query.by.filter(|_| !self.keys.is_empty()) else {
            return "0".to_owned();
        };
        let column = format!("+t.{}", quote(&self.shape.columns[column].name));
        let mut cases = String::new();
        for (number, key) in self.keys.iter().enumerate() {
            let value = bound.add(key.clone().unwrap_or(Value::Null));
            cases.push_str(&format!(" WHEN {column} = {value} THEN {number}"));
        }
        format!("CASE{cases} ELSE -1 END")
    }

    fn point(row: &mut Row) -> Result<(Point, usize), ReadError> {
        let number = |index: usize| row.get::<i64>(index).map_err(ReadError::Sql);
        let value: Option<f64> = row.get(2).map_err(ReadError::Sql)?;
        let value = value.filter(|value| value.is_finite());
        Ok(((number(0)?, number(1)?, value), NUMBER_BYTES))
    }

    fn lines(&self, points: Vec<Point>) -> impl Iterator<Item = Line> {
        let count = usize::try_from(self.buckets.count).unwrap_or_default();
        // An empty bucket has no mean, but zero rows.
        let empty = match self.query.aggregate {
            Aggregate::Count | Aggregate::Sum => Some(0.0),
            _ => None,
        };
        let line = |key: &Option<Value>| Line {
            measure: self.measure,
            key: key.clone(),
            points: vec![empty; count],
        };
        let mut lines: Vec<Line> = self.keys.iter().map(line).collect();
        for (bucket, key, value) in points {
            let line = usize::try_from(key).ok().and_then(|key| lines.get_mut(key));
            let point = line.zip(usize::try_from(bucket).ok());
            if let Some(point) = point.and_then(|(line, bucket)| line.points.get_mut(bucket)) {
                *point = value;
            }
        }
        lines.into_iter()
    }
}
