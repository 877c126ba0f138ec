//! Counts: of a selection, of each value of a facet, and of each bucket of a histogram.

use std::cmp::Reverse;
use std::collections::HashMap;

use rusqlite::types::ValueRef;

use super::groups::Groups;
use super::zones::{Share, Zone};
use super::{CLOSED, ENTRY_COST, LOOKUP_COST, ROWS_TRIED, Summaries, listed_values, rows_in_segments};
use crate::reader::bound::Bound;
use crate::reader::buckets::Buckets;
use crate::reader::facets::short_or_null;
use crate::reader::selection::{Condition, Selection};
use crate::reader::shape::Shape;
use crate::reader::tables::COUNT_MAX;
use crate::reader::{ReadError, Reader, RowEstimate};
use crate::segments::{LONG_MARKER, NULL_MARKER};
use crate::statement::quote;
use crate::values::stored;
use lantern_model::batch::Value;

/// Rows that a count reads to be exact beyond 10,000: some hundredths of a second.
const ROWS_COUNTED: u64 = 200_000;

/// A column with at most this many distinct values is read value by value in a range of segments.
const VALUES_FOLLOWED: i64 = 500;

/// The rows of a selection in each bucket, as the number of the bucket, the number of the value, and the rows.
pub(in crate::reader) type BucketCounts = Vec<(i64, usize, u64)>;

/// A query for [`BucketCounts`].
#[derive(Clone, Debug)]
pub(in crate::reader) struct OverTime {
    /// The rows, within the range of the buckets.
    selection: Selection,
    buckets: Buckets,
    /// A column and its values that are counted; without it, all rows are counted under the number 0.
    by: Option<(usize, Vec<Value>)>,
}

impl OverTime {
    /// The rows of a selection in the range of the buckets.
    pub(in crate::reader) fn new(
        selection: &Selection,
        buckets: Buckets,
        by: Option<(usize, Vec<Value>)>,
    ) -> Self {
        let selection = Selection {
            from: Some(buckets.from),
            to: Some(buckets.to),
            ..selection.clone()
        };
        Self {
            selection,
            buckets,
            by,
        }
    }
}

impl Reader {
    /// The number of rows of a selection; none if an index counts them as fast.
    pub(in crate::reader) async fn count_by_segments(
        &self,
        shape: &Shape,
        selection: &Selection,
    ) -> Result<Option<RowEstimate>, ReadError> {
        if !shape.is_segmented() {
            return Ok(None);
        }
        let (shape, selection) = (shape.clone(), selection.clone());
        self.timed_snapshot(move |snapshot| match Summaries::of(snapshot, &shape)? {
            Some(summaries) => summaries.count(&selection),
            None => Ok(None),
        })
        .await
    }

    /// The values of a column among the rows of a selection with their numbers of rows, the most frequent first, after
    /// the number of null; none if an index or a scan counts them as fast.
    pub(in crate::reader) async fn values_by_segments(
        &self,
        shape: &Shape,
        selection: &Selection,
        column: usize,
    ) -> Result<Option<Vec<(Value, u64)>>, ReadError> {
        if !shape.is_segmented() {
            return Ok(None);
        }
        let (shape, selection) = (shape.clone(), selection.clone());
        self.timed_snapshot(move |snapshot| match Summaries::of(snapshot, &shape)? {
            Some(summaries) => summaries.values(&selection, column),
            None => Ok(None),
        })
        .await
    }

    /// The rows of each bucket; none if an index counts them as fast.
    pub(in crate::reader) async fn buckets_by_segments(
        &self,
        shape: &Shape,
        query: OverTime,
    ) -> Result<Option<BucketCounts>, ReadError> {
        if !shape.is_segmented() {
            return Ok(None);
        }
        let shape = shape.clone();
        self.timed_snapshot(move |snapshot| match Summaries::of(snapshot, &shape)? {
            Some(summaries) => summaries.over_time(&query),
            None => Ok(None),
        })
        .await
    }
}

impl Summaries<'_> {
    fn count(&self, selection: &Selection) -> Result<Option<RowEstimate>, ReadError> {
        if selection.is_narrow() && !self.has_choice(selection) {
            return Ok(None);
        }
        let zones = self.zones(selection)?;
        let known: u64 = zones.iter().filter_map(Zone::known).sum();
        let unknown: Vec<&Zone> = zones.iter().filter(|zone| zone.known().is_none()).collect();
        let rows: u64 = unknown.iter().map(|zone| zone.segment.rows).sum();
        let exact = |rows| RowEstimate { rows, exact: true };
        if unknown.is_empty() {
            return Ok(Some(exact(known)));
        }
        if !self.is_cheaper(selection, rows, cost_of_counting(selection))? {
            return Ok(None);
        }
        let left = COUNT_MAX.saturating_sub_unsigned(known);
        if rows > ROWS_COUNTED && left < 0 {
            return Ok(Some(RowEstimate {
                rows: known,
                exact: false,
            }));
        }
        let mut bound = Bound::default();
        let found = rows_in_segments(self.shape, selection, numbers(unknown), &mut bound);
        let limit = if rows > ROWS_COUNTED { left + 1 } else { i64::MAX };
        let sql = format!("SELECT count(*) FROM (SELECT 1 {found} LIMIT {limit})");
        let counted = self.snapshot.number(&sql, bound.arguments())?;
        Ok(Some(match counted < limit {
            true => exact(known.saturating_add_signed(counted)),
            false => RowEstimate {
                rows: COUNT_MAX.unsigned_abs(),
                exact: false,
            },
        }))
    }

    fn values(&self, selection: &Selection, column: usize) -> Result<Option<Vec<(Value, u64)>>, ReadError> {
        let rest = selection.without_choice_of(column);
        let is_counted = self.has(column);
        if is_counted && !rest.has_range() && !rest.is_narrow() {
            return self.all_values(selection, column).map(Some);
        }
        if !is_counted && !self.has_choice(selection) {
            return Ok(None);
        }
        let zones = match is_counted {
            true => self.zones(&rest)?,
            false => self.zones(selection)?,
        };
        let (whole, partial): (Vec<&Zone>, Vec<&Zone>) = zones
            .iter()
            .partition(|zone| is_counted && zone.share == Share::All);
        let rows: u64 = partial.iter().map(|zone| zone.segment.rows).sum();
        if !self.is_cheaper(selection, rows, LOOKUP_COST)? {
            return Ok(None);
        }
        if rows > ROWS_TRIED {
            return Err(self.snapshot.too_long());
        }
        let mut groups = Groups::default();
        self.sum(selection, column, None, &whole, |_, value, rows| {
            groups.add(value, 0, rows)
        })?;
        if !partial.is_empty() {
            let mut bound = Bound::default();
            let name = quote(&self.shape.columns[column].name);
            let found = rows_in_segments(self.shape, selection, numbers(partial), &mut bound);
            let short = short_or_null(self.shape, column);
            let sql = format!("SELECT t.{name}, count(*) {found}{short} GROUP BY t.{name}");
            self.snapshot.for_each(&sql, bound.arguments(), |row| {
                groups.add(row.get_ref(0)?, 0, row.get(1)?);
                Ok(())
            })?;
        }
        self.most_frequent(groups, column).map(Some)
    }

    /// As [`Self::values`], for a selection that excludes only values of this column.
    fn all_values(&self, selection: &Selection, column: usize) -> Result<Vec<(Value, u64)>, ReadError> {
        let mut groups = Groups::default();
        let mut bound = Bound::default();
        let (set, name) = self.key(&mut bound, column);
        let long = bound.add(Value::Blob(LONG_MARKER.to_vec()));
        let admitted = self.admitted(&mut bound, selection, column);
        let sql = format!(
            "SELECT value, sum(rows) FROM {CLOSED}
             WHERE segments = {set} AND \"column\" = {name} AND value <> {long}{admitted} GROUP BY value"
        );
        self.snapshot.for_each(&sql, bound.arguments(), |row| {
            groups.add(or_null(row.get_ref(0)?), 0, row.get(1)?);
            Ok(())
        })?;
        for (_, value, rows) in self.open_values(column)? {
            if self.admits(selection, column, value) {
                groups.add(or_null(value), 0, rows);
            }
        }
        self.most_frequent(groups, column)
    }

    /// The sums by value, the most frequent value first, after null.
    fn most_frequent(&self, groups: Groups, column: usize) -> Result<Vec<(Value, u64)>, ReadError> {
        let mut values = groups.into_values(self.shape, column)?;
        // The sort is stable, so values with the same number of rows stay in their own order.
        values.sort_by_key(|(value, rows)| (!value.is_null(), Reverse(*rows)));
        Ok(values)
    }

    /// Passes the number of rows of each value in each of these segments, without the values that the selection excludes
    /// and those that are too long. `only` names the values that the caller needs.
    fn sum(
        &self,
        selection: &Selection,
        column: usize,
        only: Option<&[Value]>,
        whole: &[&Zone],
        mut add: impl FnMut(&Zone, ValueRef<'_>, i64),
    ) -> Result<(), ReadError> {
        let (Some(first), Some(last)) = (whole.first(), whole.last()) else {
            return Ok(());
        };
        let by_number: HashMap<i64, &Zone> = whole.iter().map(|zone| (zone.segment.number, *zone)).collect();
        let mut bound = Bound::default();
        let (set, name) = self.key(&mut bound, column);
        let long = bound.add(Value::Blob(LONG_MARKER.to_vec()));
        let mut admitted = self.admitted(&mut bound, selection, column);
        if let Some(only) = only {
            admitted.push_str(&format!(
                " AND value IN ({})",
                listed_values(&mut bound, only, false)
            ));
        }
        let (first, last) = (
            bound.integer(first.segment.number),
            bound.integer(last.segment.number),
        );
        let key = format!("segments = {set} AND \"column\" = {name}");
        let rest = format!("value <> {long} AND segment BETWEEN {first} AND {last}{admitted}");
        let closed = match admitted.is_empty() {
            false => format!("SELECT segment, value, rows FROM {CLOSED} WHERE {key} AND {rest}"),
            // Reads only the range of each value.
            true if selection.has_range() && self.has_few_values(column)? => format!(
                "{} SELECT segment, value, rows FROM v CROSS JOIN {CLOSED} USING (value) WHERE {key} AND {rest}",
                distinct_values(&key)
            ),
            // The `+` prevents the use of the index on segments, which finds the rows of all columns one by one.
            true => format!(
                "SELECT segment, value, rows FROM {CLOSED} WHERE {key} AND value <> {long} \
                 AND +segment BETWEEN {first} AND {last}"
            ),
        };
        self.snapshot.for_each(&closed, bound.arguments(), |row| {
            if let Some(zone) = by_number.get(&row.get(0)?) {
                add(zone, or_null(row.get_ref(1)?), row.get(2)?);
            }
            Ok(())
        })?;
        for (segment, value, rows) in self.open_values(column)? {
            let is_needed = only.is_none_or(|only| only.iter().any(|listed| stored(listed) == value));
            if let Some(zone) = by_number.get(&segment)
                && is_needed
                && self.admits(selection, column, value)
            {
                add(zone, or_null(value), rows);
            }
        }
        Ok(())
    }

    /// The condition that the selection admits a value of a column; empty if it admits all.
    fn admitted(&self, bound: &mut Bound, selection: &Selection, column: usize) -> String {
        let choice = |condition: &Condition| {
            self.choice(condition)
                .filter(|choice| choice.column == column)
                .map(|choice| {
                    format!(
                        " AND value IN ({})",
                        listed_values(bound, choice.values, choice.null)
                    )
                })
        };
        selection.conditions.iter().filter_map(choice).collect()
    }

    /// Whether the selection admits a value of a summary. Long texts are left out, as in [`Self::sum`].
    fn admits(&self, selection: &Selection, column: usize, value: ValueRef<'_>) -> bool {
        let mut choices = selection
            .conditions
            .iter()
            .filter_map(|condition| self.choice(condition));
        value != ValueRef::Blob(LONG_MARKER)
            && choices.all(|choice| choice.column != column || choice.admits(value))
    }

    fn has_few_values(&self, column: usize) -> Result<bool, ReadError> {
        let mut bound = Bound::default();
        let (set, name) = self.key(&mut bound, column);
        let sql = format!(
            "{} SELECT count(*) FROM (SELECT 1 FROM v LIMIT {})",
            distinct_values(&format!("segments = {set} AND \"column\" = {name}")),
            VALUES_FOLLOWED + 1
        );
        Ok(self.snapshot.number(&sql, bound.arguments())? <= VALUES_FOLLOWED)
    }

    fn over_time(&self, query: &OverTime) -> Result<Option<BucketCounts>, ReadError> {
        let OverTime {
            selection,
            buckets,
            by,
        } = query;
        let column = by.as_ref().map(|(column, _)| *column);
        if column.is_some_and(|column| !self.has(column))
            || (selection.is_narrow() && !self.has_choice(selection))
        {
            return Ok(None);
        }
        let rest = column.map_or_else(|| selection.clone(), |column| selection.without_choice_of(column));
        let zones = self.zones(&rest)?;
        let (whole, partial): (Vec<&Zone>, Vec<&Zone>) = zones.iter().partition(|zone| {
            let is_counted = match column {
                Some(_) => zone.share == Share::All,
                None => zone.known().is_some(),
            };
            is_counted && bucket_of(buckets, zone).is_some()
        });
        let rows: u64 = partial.iter().map(|zone| zone.segment.rows).sum();
        let index = if column.is_some() {
            LOOKUP_COST
        } else {
            cost_of_counting(selection)
        };
        if !self.is_cheaper(selection, rows, index)? {
            return Ok(None);
        }
        let mut groups = Groups::default();
        match by {
            Some((column, values)) => {
                self.sum(selection, *column, Some(values), &whole, |zone, value, rows| {
                    groups.add(value, bucket_of(buckets, zone).unwrap_or_default(), rows);
                })?
            }
            None => {
                for zone in whole {
                    let rows = i64::try_from(zone.known().unwrap_or_default()).unwrap_or(i64::MAX);
                    groups.add(ValueRef::Null, bucket_of(buckets, zone).unwrap_or_default(), rows);
                }
            }
        }
        if !partial.is_empty() {
            let (sql, bound) = self.scan_over_time(query, numbers(partial));
            self.snapshot.for_each(&sql, bound.arguments(), |row| {
                if let Some(bucket) = buckets.number_of(row.get(0)?) {
                    groups.add(row.get_ref(1)?, bucket, 1);
                }
                Ok(())
            })?;
        }
        Ok(Some(match by {
            Some((_, values)) => groups.of_values(values),
            None => groups.of_values(&[Value::Null]),
        }))
    }

    /// The statement that reads the time and the value of the rows of some segments. SQLite would sort the rows to group
    /// them.
    fn scan_over_time(&self, query: &OverTime, segments: impl Iterator<Item = i64>) -> (String, Bound) {
        let OverTime { selection, by, .. } = query;
        let mut bound = Bound::default();
        let found = rows_in_segments(self.shape, selection, segments, &mut bound);
        let time = self.shape.time().map_or("NULL".to_owned(), |time| {
            format!("t.{}", quote(&self.shape.columns[time].name))
        });
        let (value, listed) = match by {
            Some((column, values)) => {
                let value = format!("t.{}", quote(&self.shape.columns[*column].name));
                let listed = format!(" AND +{value} IN ({})", listed_values(&mut bound, values, false));
                (value, listed)
            }
            None => ("NULL".to_owned(), String::new()),
        };
        (format!("SELECT {time}, {value} {found}{listed}"), bound)
    }
}

/// What an index needs for each row that it counts: only its entry, if the selection is a range of time.
fn cost_of_counting(selection: &Selection) -> f64 {
    if selection.is_narrow() {
        LOOKUP_COST
    } else {
        ENTRY_COST
    }
}

/// The bucket that contains all times of a segment.
fn bucket_of(buckets: &Buckets, zone: &Zone) -> Option<i64> {
    let (first, last) = zone.segment.times?;
    let first = buckets.number_of(first)?;
    (Some(first) == buckets.number_of(last)).then_some(first)
}

fn numbers<'a>(zones: impl IntoIterator<Item = &'a Zone>) -> impl Iterator<Item = i64> {
    zones.into_iter().map(|zone| zone.segment.number)
}

/// A table `v (value)` of the distinct values of the closed segments, each found by a step along the key.
fn distinct_values(key: &str) -> String {
    let next = |test: &str| format!("(SELECT value FROM {CLOSED} WHERE {key}{test} ORDER BY value LIMIT 1)");
    format!(
        "WITH RECURSIVE s (value) AS (SELECT {} UNION ALL SELECT {} FROM s WHERE s.value IS NOT NULL), \
         v (value) AS (SELECT value FROM s WHERE value IS NOT NULL)",
        next(""),
        next(" AND value > s.value")
    )
}

/// A value that a summary stores as a marker.
fn or_null(value: ValueRef<'_>) -> ValueRef<'_> {
    match value {
        ValueRef::Blob(marker) if marker == NULL_MARKER => ValueRef::Null,
        value => value,
    }
}
