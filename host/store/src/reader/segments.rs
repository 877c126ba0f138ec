//! Queries of tables with segments. Such a table has no index on a facet; instead it has, for each segment of 1,024 rows,
//! a summary with its rows, its times, and its rows for each value of each facet (see `crate::segments`).
//!
//! A query reads the summaries first; the newest segment has no stored one, so its rows are summed. They answer for segments
//! that belong to the selection as a whole; of the others the query reads the rows. All of this happens on one state of the
//! database. A query that an index serves better is left
//! to the functions for tables without segments.

mod counts;
mod groups;
#[cfg(test)]
mod tests;
mod zones;

use std::cell::OnceCell;
use std::collections::HashMap;

use rusqlite::types::{Value as Stored, ValueRef};

use super::ReadError;
use super::bound::Bound;
use super::facets::VALUE_BYTES_MAX;
use super::selection::{Condition, Conditions, Lead, Selection, Test, all};
use super::shape::Shape;
use super::snapshot::Snapshot;
use crate::segments::{self, FACET_BYTES_MAX, LONG_MARKER, NULL_MARKER, SEGMENT_BITS, SegmentSet, Summary};
use crate::statement::quote;
use crate::values::stored;
pub(super) use counts::OverTime;
use lantern_model::batch::{Timestamp, Value};
pub(super) use zones::{Costs, Segment, Span, Zone, costs};
use zones::{Matches, SegmentMatches, SummaryFilter, zones};

/// Facets list the same values, whether they are counted from summaries or from rows.
const _: () = assert!(VALUE_BYTES_MAX == FACET_BYTES_MAX);

/// An entry of an index costs about as much as this part of a row of a segment, if the row itself is not needed.
const ENTRY_COST: f64 = 0.2;

/// Rows of segments that a query reads although an index serves it: some milliseconds.
pub(super) const ROWS_FEW: u64 = 32_000;

/// Segments whose summaries are read one by one; for more, all summaries are read.
const SEGMENTS_FEW: usize = 2_000;

/// Rows beyond which a query of all rows is not tried, because it would exceed its time.
const ROWS_TRIED: u64 = 4_000_000;

/// A row that an index finds costs about as much as this many rows of a segment, which are read one after the other.
pub(super) const LOOKUP_COST: f64 = 4.0;

/// The counts of facet values of all segments but the newest.
const CLOSED: &str = "_lantern_segment_facet";

/// The summaries of one table in a snapshot.
pub(super) struct Summaries<'a> {
    snapshot: &'a Snapshot<'a>,
    shape: &'a Shape,
    set: SegmentSet,
    /// The newest segment, once it has been read; none if the table is empty.
    open: OnceCell<Option<(i64, Summary)>>,
}

/// A condition that the summaries of a facet answer.
struct Choice<'a> {
    column: usize,
    values: &'a [Value],
    null: bool,
}

impl Choice<'_> {
    /// Whether the condition admits a value of a summary; for the marker of long texts: whether it admits any of them.
    fn admits(&self, value: ValueRef<'_>) -> bool {
        match value {
            ValueRef::Blob(NULL_MARKER) => self.null,
            ValueRef::Blob(LONG_MARKER) => self.values.iter().any(is_long),
            value => self.values.iter().any(|listed| stored(listed) == value),
        }
    }
}

impl<'a> Summaries<'a> {
    /// The summaries of a table; none if it has none. A rebuild may have replaced the table since its shape was read.
    pub(super) fn of(snapshot: &'a Snapshot<'a>, shape: &'a Shape) -> Result<Option<Self>, ReadError> {
        let set = snapshot.with(|connection| segments::set_of(connection, shape.entry.name.as_str()))?;
        let time = shape.time().map(|time| shape.columns[time].name.as_str());
        Ok(set.filter(|set| set.time.as_deref() == time).map(|set| Self {
            snapshot,
            shape,
            set,
            open: OnceCell::new(),
        }))
    }

    /// The number and the summary of the newest segment; none if the table is empty.
    fn open(&self) -> Result<Option<(i64, &Summary)>, ReadError> {
        let open = match self.open.get() {
            Some(open) => open,
            None => {
                let open = self
                    .snapshot
                    .with(|connection| segments::open_segment(connection, &self.set))?;
                self.open.get_or_init(|| open)
            }
        };
        Ok(open.as_ref().map(|(number, summary)| (*number, summary)))
    }

    /// The values of a column in the newest segment with their numbers of rows, and the number of the segment.
    fn open_values(&self, column: usize) -> Result<Vec<(i64, ValueRef<'_>, i64)>, ReadError> {
        let (Some(position), Some((number, summary))) = (self.position(column), self.open()?) else {
            return Ok(Vec::new());
        };
        let values = summary.facets[position].iter();
        Ok(values.map(|(value, rows)| (number, value, rows)).collect())
    }

    /// Whether the values of a column are counted.
    fn has(&self, column: usize) -> bool {
        self.position(column).is_some()
    }

    /// The position of a column among those whose values are counted.
    fn position(&self, column: usize) -> Option<usize> {
        let name = self.shape.columns[column].name.as_str();
        self.set.facets.iter().position(|facet| facet == name)
    }

    /// The condition as one that summaries answer.
    fn choice<'c>(&self, condition: &'c Condition) -> Option<Choice<'c>> {
        match &condition.test {
            Test::OneOf { values, null } if self.has(condition.column) => Some(Choice {
                column: condition.column,
                values,
                null: *null,
            }),
            _ => None,
        }
    }

    /// Whether summaries answer a condition of the selection.
    pub(super) fn has_choice(&self, selection: &Selection) -> bool {
        let mut conditions = selection.conditions.iter();
        conditions.any(|condition| self.choice(condition).is_some())
    }

    /// The segments that may contain rows of a selection, in ascending order.
    pub(super) fn zones(&self, selection: &Selection) -> Result<Vec<Zone>, ReadError> {
        let mut choices = Vec::new();
        for condition in &selection.conditions {
            if let Some(choice) = self.choice(condition) {
                let matches = self.matches(&choice)?;
                if matches.is_empty() {
                    return Ok(Vec::new());
                }
                choices.push(matches);
            }
        }
        let few = choices.iter().min_by_key(|matches| matches.len());
        let segments = match few.filter(|few| few.len() <= SEGMENTS_FEW) {
            Some(few) => self.some_segments(few.keys().copied())?,
            None => self.all_segments()?,
        };
        let scope = SummaryFilter {
            is_narrower: selection.search.is_some() || choices.len() < selection.conditions.len(),
            ..summary_filter(selection)
        };
        Ok(zones(segments, &choices, scope))
    }

    /// The rows of each segment that have one of the values of a condition.
    fn matches(&self, choice: &Choice<'_>) -> Result<SegmentMatches, ReadError> {
        let mut found: SegmentMatches = HashMap::new();
        let has_long = choice.values.iter().any(is_long);
        let mut bound = Bound::default();
        let (set, column) = self.key(&mut bound, choice.column);
        let values = listed_values(&mut bound, choice.values, choice.null);
        let long = bound.add(Value::Blob(LONG_MARKER.to_vec()));
        let sql = format!(
            "SELECT segment, rows, value = {long} FROM {CLOSED} \
             WHERE segments = {set} AND \"column\" = {column} AND value IN ({values})"
        );
        self.snapshot.for_each(&sql, bound.arguments(), |row| {
            let matches: &mut Matches = found.entry(row.get(0)?).or_default();
            matches.add(row.get(1)?, has_long && row.get(2)?);
            Ok(())
        })?;
        for (segment, value, rows) in self.open_values(choice.column)? {
            if choice.admits(value) {
                let is_long = value == ValueRef::Blob(LONG_MARKER);
                found.entry(segment).or_default().add(rows, is_long);
            }
        }
        Ok(found)
    }

    fn key(&self, bound: &mut Bound, column: usize) -> (String, String) {
        let name = self.shape.columns[column].name.to_string();
        (bound.integer(self.set.id), bound.add(Value::Text(name)))
    }

    /// All segments, in ascending order.
    pub(super) fn all_segments(&self) -> Result<Vec<Segment>, ReadError> {
        const SQL: &str = "SELECT segment, rows, untimed, time_min, time_max FROM _lantern_segment \
             WHERE segments = ?1 ORDER BY segment";
        let mut segments = self.segments(SQL, vec![self.set.id.into()])?;
        segments.extend(self.newest_segment()?);
        Ok(segments)
    }

    fn newest_segment(&self) -> Result<Option<Segment>, ReadError> {
        Ok(self.open()?.map(|(number, summary)| Segment {
            number,
            rows: summary.rows.unsigned_abs(),
            untimed: summary.untimed.unsigned_abs(),
            times: summary.times,
        }))
    }

    /// These segments, in ascending order.
    fn some_segments(&self, numbers: impl Iterator<Item = i64>) -> Result<Vec<Segment>, ReadError> {
        const SQL: &str = "SELECT s.segment, s.rows, s.untimed, s.time_min, s.time_max FROM json_each(?2) AS j \
             CROSS JOIN _lantern_segment AS s ON s.segments = ?1 AND s.segment = j.value";
        let mut numbers: Vec<i64> = numbers.collect();
        numbers.sort_unstable();
        let newest = self.newest_segment()?;
        let newest = newest.filter(|segment| numbers.binary_search(&segment.number).is_ok());
        let mut segments = self.segments(SQL, vec![self.set.id.into(), json_list(numbers).into()])?;
        segments.extend(newest);
        Ok(segments)
    }

    fn segments(&self, sql: &str, arguments: Vec<Stored>) -> Result<Vec<Segment>, ReadError> {
        let mut segments = Vec::new();
        self.snapshot.for_each(sql, arguments, |row| {
            let first: Option<i64> = row.get(3)?;
            segments.push(Segment {
                number: row.get(0)?,
                rows: row.get::<_, i64>(1)?.unsigned_abs(),
                untimed: row.get::<_, i64>(2)?.unsigned_abs(),
                times: first.zip(row.get(4)?),
            });
            Ok(())
        })?;
        Ok(segments)
    }

    /// The segments whose rows a query of all rows reads; none if another access costs less.
    pub(super) fn to_scan(&self, selection: &Selection) -> Result<Option<Vec<i64>>, ReadError> {
        if !self.has_choice(selection) {
            return Ok(None);
        }
        let zones = self.zones(selection)?;
        let rows = zones.iter().map(|zone| zone.segment.rows).sum();
        if !self.is_cheaper(selection, rows, LOOKUP_COST)? {
            return Ok(None);
        }
        if rows > ROWS_TRIED {
            return Err(self.snapshot.too_long());
        }
        Ok(Some(zones.iter().map(|zone| zone.segment.number).collect()))
    }

    /// Whether reading these rows of segments costs less than an index that serves the selection. `index` is the cost of
    /// a row that the index of the time finds.
    fn is_cheaper(&self, selection: &Selection, rows: u64, index: f64) -> Result<bool, ReadError> {
        if rows <= ROWS_FEW {
            return Ok(true);
        }
        Ok(match Lead::to_count(self.shape, selection) {
            Lead::Key | Lead::Choice(_) => false,
            Lead::Order if selection.has_range() => {
                let in_range = zones::rows_in_range(&self.all_segments()?, summary_filter(selection));
                rows as f64 <= index * in_range
            }
            Lead::Order => true,
        })
    }
}

/// `FROM … WHERE …` for the selection's rows in some segments.
pub(super) fn rows_in_segments(
    shape: &Shape,
    selection: &Selection,
    segments: impl Iterator<Item = i64>,
    bound: &mut Bound,
) -> String {
    let conditions = Conditions {
        shape,
        selection,
        lead: Lead::Order,
    };
    let from = segments_as_t(shape, segments, bound);
    let mut every = conditions.range(bound, false);
    every.extend(conditions.following(bound));
    format!("{from} WHERE {}", all(&every))
}

/// `FROM …` for all rows of some segments, with the alias `t`.
pub(super) fn segments_as_t(shape: &Shape, segments: impl Iterator<Item = i64>, bound: &mut Bound) -> String {
    let last = (1_i64 << SEGMENT_BITS) - 1;
    format!(
        "FROM json_each({}) AS j CROSS JOIN {} AS t \
         ON t._rowid_ BETWEEN j.value << {SEGMENT_BITS} AND (j.value << {SEGMENT_BITS}) + {last}",
        bound.add(Value::Text(json_list(segments))),
        quote(&shape.entry.name)
    )
}

/// A JSON array of integers: one parameter for any number of them.
fn json_list(numbers: impl IntoIterator<Item = i64>) -> String {
    let each: Vec<String> = numbers.into_iter().map(|number| number.to_string()).collect();
    format!("[{}]", each.join(","))
}

/// The range of time of a selection.
fn summary_filter(selection: &Selection) -> SummaryFilter {
    let time = |time: Timestamp| time.0;
    SummaryFilter {
        from: selection.from.map(time),
        to: selection.to.map(time),
        is_narrower: false,
    }
}

/// Whether a value is too long for a summary to list it.
fn is_long(value: &Value) -> bool {
    matches!(value, Value::Text(text) if text.len() > FACET_BYTES_MAX)
}

/// Values as summaries store them, as parameters.
fn listed_values(bound: &mut Bound, values: &[Value], null: bool) -> String {
    let stored = |value: &Value| match is_long(value) {
        true => Value::Blob(LONG_MARKER.to_vec()),
        false => value.clone(),
    };
    let null = null.then(|| Value::Blob(NULL_MARKER.to_vec()));
    let all = values.iter().map(stored).chain(null);
    let each: Vec<String> = all.map(|value| bound.add(value)).collect();
    each.join(", ")
}
