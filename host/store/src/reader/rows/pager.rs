//! Pages of rows with a facet value from the segments that contain it. In the order of time or of arrival, the segments
//! are read one after the other until no other can contain a row of the page; in another order, all of them.

use std::ops::ControlFlow;

use super::finder::{Finder, SelectRows, select_rows};
use super::{Key, Part, RowPage, RowPosition, RowQuery, RowRecord, parts_of, record};
use crate::read_error::ReadError;
use crate::reader::Reader;
use crate::reader::bound::Bound;
use crate::reader::segments::{Costs, LOOKUP_COST, ROWS_FEW, Segment, Span, Summaries, Zone, costs};
use crate::reader::selection::Lead;
use crate::reader::shape::Shape;
use crate::reader::snapshot::Snapshot;
use crate::segments::SEGMENT_BITS;
use lantern_model::batch::Value;

/// Most segments that one statement reads: after each, the time is checked.
const BATCH_LAST: usize = 256;

/// Rows that a page in the order of an index reads from segments: about half of the time of a read.
const ROWS_MAX: u64 = 2_000_000;

/// With more conditions, fewer of the rows that have the value belong to the page: so many times as many are estimated to
/// be needed.
const NARROWER: u64 = 8;

impl Reader {
    /// A page of rows from the segments that contain a value; none if an index finds the rows better.
    pub(super) async fn rows_by_segments(
        &self,
        shape: &Shape,
        query: &RowQuery,
    ) -> Result<Option<RowPage>, ReadError> {
        if !shape.is_segmented() || query.selection.conditions.is_empty() {
            return Ok(None);
        }
        let query = self.with_stored_key(shape, query).await?;
        let shape = shape.clone();
        self.timed_snapshot(move |snapshot| page(snapshot, &shape, &query))
            .await
    }
}

/// The page on one state of the database.
pub(in crate::reader) fn page(
    snapshot: &Snapshot<'_>,
    shape: &Shape,
    query: &RowQuery,
) -> Result<Option<RowPage>, ReadError> {
    let Some(summaries) = Summaries::of(snapshot, shape)? else {
        return Ok(None);
    };
    if !summaries.has_choice(&query.selection) {
        return Ok(None);
    }
    let zones = summaries.zones(&query.selection)?;
    if !is_cheaper(&summaries, shape, query, &zones)? {
        return Ok(None);
    }
    let mut pager = Pager::new(snapshot, shape, query);
    let mut next = None;
    let mut after = query.after.clone();
    for part in parts_of(shape, query) {
        match pager.read_part(part, &zones, after.as_ref())? {
            ControlFlow::Continue(()) if pager.is_full() => break,
            ControlFlow::Continue(()) => after = None,
            ControlFlow::Break(Stop::At(position)) => {
                next = Some(position);
                break;
            }
            ControlFlow::Break(Stop::Stuck) => return Ok(None),
        }
    }
    Ok(Some(pager.finish(next)))
}

/// Whether the segments cost less than the index that serves the order or another condition.
fn is_cheaper(
    summaries: &Summaries<'_>,
    shape: &Shape,
    query: &RowQuery,
    zones: &[Zone],
) -> Result<bool, ReadError> {
    let rows: u64 = zones.iter().map(|zone| zone.segment.rows).sum();
    if rows <= ROWS_FEW {
        return Ok(true);
    }
    match Lead::of(shape, &query.selection, query.sort.column) {
        Lead::Key | Lead::Choice(_) => return Ok(false),
        Lead::Order => {}
    }
    match query.sort.column {
        None => Ok(true),
        column if column == shape.time() => {
            let costs = estimate(&summaries.all_segments()?, query, zones);
            Ok(costs.segments <= LOOKUP_COST * costs.walk)
        }
        Some(column) if shape.is_indexed(column) => {
            let all: u64 = summaries.all_segments()?.iter().map(|segment| segment.rows).sum();
            let matching: u64 = zones.iter().map(Zone::rows_max).sum();
            let walk = needed(query) as f64 * all as f64 / matching.max(1) as f64;
            Ok(rows <= ROWS_MAX && rows as f64 <= LOOKUP_COST * walk.min(all as f64))
        }
        // Without an index, each page sorts all rows.
        Some(_) => Ok(true),
    }
}

/// Matching rows that a page probably reads.
fn needed(query: &RowQuery) -> u64 {
    let is_narrower = query.selection.conditions.len() > 1 || query.selection.search.is_some();
    u64::from(query.limit + 1) * if is_narrower { NARROWER } else { 1 }
}

/// The costs of a page in the order of time.
fn estimate(all: &[Segment], query: &RowQuery, zones: &[Zone]) -> Costs {
    let descending = query.sort.descending;
    let mut zones = zones.iter().peekable();
    let mut spans = Vec::with_capacity(all.len());
    for segment in all {
        let zone = zones.next_if(|zone| zone.segment.number == segment.number);
        if let Some(times) = segment.times {
            spans.push(Span {
                times: in_order(times, descending),
                rows: segment.rows,
                matching: zone.map_or(0, Zone::rows_max),
            });
        }
    }
    let limit = match descending {
        true => query.selection.to.map(|to| to.0.saturating_sub(1)),
        false => query.selection.from.map(|from| from.0),
    };
    let after = query.after.as_ref().and_then(|after| match after.key {
        Key::Integer(time) => Some(time),
        _ => None,
    });
    let latest = [limit, after]
        .into_iter()
        .flatten()
        .map(|time| signed(time, descending))
        .min();
    costs(&spans, needed(query), latest.unwrap_or(i64::MAX))
}

/// A key such that the rows of a page have descending keys.
pub(super) fn signed(key: i64, descending: bool) -> i64 {
    if descending { key } else { key.saturating_neg() }
}

pub(super) fn in_order((first, last): (i64, i64), descending: bool) -> (i64, i64) {
    match descending {
        true => (first, last),
        false => (last.saturating_neg(), first.saturating_neg()),
    }
}

/// Row numbers with their times, in the order of the page.
type Found = Vec<(i64, i64)>;

/// Why a part ends before its last row.
enum Stop {
    /// Half of the time is over; the next page begins here.
    At(RowPosition),
    /// Half of the time is over, and no row is known to be the next one.
    Stuck,
}

/// A segment of a part.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    number: i64,
    /// No row has a greater key. The key is the time or the row number, with the sign of [`signed`].
    bound: i64,
}

/// Collects a page.
pub(super) struct Pager<'a> {
    snapshot: &'a Snapshot<'a>,
    shape: &'a Shape,
    query: &'a RowQuery,
    wanted: usize,
    found: Vec<(Key, RowRecord)>,
    bytes: usize,
}

impl<'a> Pager<'a> {
    pub(super) fn new(snapshot: &'a Snapshot<'a>, shape: &'a Shape, query: &'a RowQuery) -> Self {
        Self {
            snapshot,
            shape,
            query,
            wanted: query.limit as usize + 1,
            found: Vec::new(),
            bytes: 0,
        }
    }

    /// The number of rows that the page still needs.
    pub(super) fn missing(&self) -> usize {
        self.wanted.saturating_sub(self.found.len())
    }

    /// The page. If it is not full, the next page begins at `next`.
    pub(super) fn finish(self, next: Option<RowPosition>) -> RowPage {
        let is_full = self.is_full();
        RowPage::new(self.shape, self.query, self.found, is_full, next)
    }

    pub(super) fn is_full(&self) -> bool {
        self.found.len() >= self.wanted || self.bytes >= self.snapshot.page_bytes
    }

    fn read_part(
        &mut self,
        part: Part,
        zones: &[Zone],
        after: Option<&RowPosition>,
    ) -> Result<ControlFlow<Stop>, ReadError> {
        let is_by_time = self.query.sort.column == self.shape.time();
        if part == Part::Filled && !is_by_time {
            self.read_all(part, zones, after)?;
            return Ok(ControlFlow::Continue(()));
        }
        let by_time = part == Part::Filled;
        let begin = after.map(|after| match after.key {
            Key::Integer(time) if by_time => signed(time, self.query.sort.descending),
            // A time may be that of several rows, and a number is that of one.
            _ => signed(after.row, self.query.sort.descending).saturating_sub(1),
        });
        let candidates = self.candidates(part, zones, begin);
        let (keys, stop) = self.find(part, &candidates, begin, after)?;
        let listed = serde_json::json!(keys).to_string();
        let mut bound = Bound::default();
        let found = self
            .shape
            .engine()
            .listed_rows(&bound.add(Value::Text(listed)), by_time);
        self.read(&found, bound)?;
        Ok(match stop {
            Some(stop) if !self.is_full() => ControlFlow::Break(stop),
            _ => ControlFlow::Continue(()),
        })
    }

    /// Reads the rows of a part in one statement that sorts all rows of the segments.
    fn read_all(&mut self, part: Part, zones: &[Zone], after: Option<&RowPosition>) -> Result<(), ReadError> {
        let mut bound = Bound::default();
        let finder = Finder::new(self.shape, self.query, part, after).in_segments();
        let numbers = zones.iter().map(|zone| zone.segment.number);
        let found = finder.find_in_segments(&mut bound, numbers, self.missing());
        self.read(&found, bound)
    }

    /// Reads the rows whose numbers a statement returns.
    pub(super) fn read(&mut self, found: &str, bound: Bound) -> Result<(), ReadError> {
        let SelectRows { sql, order } = select_rows(self.shape, &self.query.columns, found);
        let sql = sql + order;
        let mut bytes = 0;
        let rows = self
            .snapshot
            .fetch_sized(&sql, bound.arguments(), usize::MAX, |row| {
                let (key, record, size) = record(self.shape, &self.query.columns, row)?;
                bytes += size;
                Ok(((key, record), size))
            })?;
        self.found.extend(rows);
        self.bytes += bytes;
        Ok(())
    }

    /// The segments of a part, those with the greatest keys first. Rows with a greater key than `begin` belong to the
    /// previous pages.
    fn candidates(&self, part: Part, zones: &[Zone], begin: Option<i64>) -> Vec<Candidate> {
        let descending = self.query.sort.descending;
        let is_by_time = self.query.sort.column.is_some() && self.query.sort.column == self.shape.time();
        let candidate = |zone: &Zone| {
            let Segment {
                number,
                times,
                untimed,
                ..
            } = zone.segment;
            let keys = match part {
                Part::Filled => times?,
                Part::Empty if is_by_time && untimed == 0 => return None,
                Part::Empty | Part::Numbered => (first_row(number), last_row(number)),
            };
            let (least, greatest) = in_order(keys, descending);
            let begin = begin.unwrap_or(i64::MAX);
            (least <= begin).then_some(Candidate {
                number,
                bound: greatest.min(begin),
            })
        };
        let mut candidates: Vec<Candidate> = zones.iter().filter_map(candidate).collect();
        candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.bound));
        candidates
    }

    /// The numbers and keys of the next rows of a part, and why it ends early.
    fn find(
        &self,
        part: Part,
        candidates: &[Candidate],
        begin: Option<i64>,
        after: Option<&RowPosition>,
    ) -> Result<(Found, Option<Stop>), ReadError> {
        let (descending, by_time) = (self.query.sort.descending, part == Part::Filled);
        let wanted = self.missing();
        let key = |&(row, time): &(i64, i64)| {
            let key = if by_time { time } else { row };
            (signed(key, descending), signed(row, descending))
        };
        let mut rest = candidates;
        let mut rows = Found::new();
        let mut size = 1;
        while let Some(next) = rest.first() {
            let last = rows.last().filter(|_| rows.len() >= wanted).map(&key);
            if last.is_some_and(|(last, _)| last > next.bound) {
                break;
            }
            if self.snapshot.is_half_over() && size > 1 {
                let is_ahead = begin.is_none_or(|begin| next.bound < begin);
                if !is_ahead {
                    return Ok((Found::new(), Some(Stop::Stuck)));
                }
                rows.retain(|row| key(row).0 > next.bound);
                return Ok((rows, Some(Stop::At(position(next.bound, by_time, descending)))));
            }
            let (batch, more) = rest.split_at(size.min(rest.len()));
            rows.extend(self.find_in(part, batch, wanted, after)?);
            rows.sort_by_key(|row| std::cmp::Reverse(key(row)));
            rows.truncate(wanted);
            rest = more;
            size = (size * 2).min(BATCH_LAST);
        }
        Ok((rows, None))
    }

    fn find_in(
        &self,
        part: Part,
        batch: &[Candidate],
        limit: usize,
        after: Option<&RowPosition>,
    ) -> Result<Found, ReadError> {
        let mut bound = Bound::default();
        let finder = Finder::new(self.shape, self.query, part, after).in_segments();
        let mut numbers: Vec<i64> = batch.iter().map(|candidate| candidate.number).collect();
        numbers.sort_unstable();
        let sql = finder.find_in_segments(&mut bound, numbers.into_iter(), limit);
        let mut rows = Vec::new();
        self.snapshot.for_each(&sql, bound.arguments(), |row| {
            rows.push((row.get(0)?, row.get::<_, Option<i64>>(1)?.unwrap_or_default()));
            Ok(())
        })?;
        Ok(rows)
    }
}

/// Before all rows with this key, and after all rows with a greater one.
pub(super) fn position(bound: i64, by_time: bool, descending: bool) -> RowPosition {
    let key = signed(bound, descending);
    let outermost = if descending { i64::MAX } else { i64::MIN };
    match by_time {
        true => RowPosition {
            key: Key::Integer(key),
            row: outermost,
        },
        false => RowPosition {
            key: Key::Null,
            row: key.saturating_add(if descending { 1 } else { -1 }),
        },
    }
}

pub(super) fn first_row(segment: i64) -> i64 {
    segment << SEGMENT_BITS
}

pub(super) fn last_row(segment: i64) -> i64 {
    first_row(segment) + (1 << SEGMENT_BITS) - 1
}
