//! Pages of rows that a full-text index proposes. If it proposes few rows, all of them are read; otherwise they are read in
//! the order of their numbers until no other one can belong to the page. In the order of time, the summaries of segments show
//! when that is the case, because row numbers ascend with arrival.

use super::finder::Finder;
use super::pager::{Pager, first_row, in_order, last_row, position, signed};
use super::{Key, Part, RowPage, RowQuery, parts_of};
use crate::read_error::ReadError;
use crate::reader::Reader;
use crate::reader::bound::Bound;
use crate::reader::few_proposals::FewProposals;
use crate::reader::search::{Proposals, rows_as_t};
use crate::reader::segments::{Segment, Summaries};
use crate::reader::shape::Shape;
use crate::reader::snapshot::Snapshot;
use crate::segments::SEGMENT_BITS;
use lantern_model::batch::Value;

/// Proposed rows that are all read, if an order with early end is known: a few milliseconds. Tests use small tables.
const FEW: usize = if cfg!(test) { 20 } else { 2_000 };

/// The same if all other rows would have to be found by reading the table.
const FEW_WITHOUT_ORDER: usize = if cfg!(test) { 60 } else { 20_000 };

/// Proposed rows that a page reads at a time: at first a few more than a page, then more.
const CHUNK_FIRST: usize = if cfg!(test) { 8 } else { 128 };
const CHUNK_LAST: usize = 4_096;

/// Proposed rows after which a page in the order of time is read along the index of the time instead: rows that match are then
/// so frequent that it finds them soon.
const READ_MAX: usize = 20_000;

impl Reader {
    /// A page of rows that the full-text index proposes; none if the table has no index, or if another access is better.
    pub(super) async fn rows_by_search(
        &self,
        shape: &Shape,
        query: &RowQuery,
    ) -> Result<Option<RowPage>, ReadError> {
        if query.selection.search.is_none() {
            return Ok(None);
        }
        let query = self.with_stored_key(shape, query).await?;
        let shape = shape.clone();
        self.timed_snapshot(move |snapshot| page(snapshot, &shape, &query))
            .await
    }
}

fn page(snapshot: &Snapshot<'_>, shape: &Shape, query: &RowQuery) -> Result<Option<RowPage>, ReadError> {
    let Some(proposals) = Proposals::of(snapshot, shape, &query.selection)? else {
        return Ok(None);
    };
    let walk = Walk::new(snapshot, shape, query, &proposals)?;
    let limit = if walk.is_some() { FEW } else { FEW_WITHOUT_ORDER };
    if let Some(few) = proposals.few(limit)? {
        return page_of_few(snapshot, shape, query, &few).map(Some);
    }
    match walk {
        Some(walk) => walk.page(),
        None => Ok(None),
    }
}

/// Reads all proposed rows and sorts those that match.
fn page_of_few(
    snapshot: &Snapshot<'_>,
    shape: &Shape,
    query: &RowQuery,
    few: &FewProposals,
) -> Result<RowPage, ReadError> {
    let mut pager = Pager::new(snapshot, shape, query);
    let mut after = query.after.as_ref();
    for part in parts_of(shape, query) {
        let mut bound = Bound::default();
        let from = few.as_t(&mut bound);
        let finder = Finder::new(shape, query, part, after).in_segments();
        let found = finder.find_among(&from, &mut bound, pager.missing());
        pager.read(&found, bound)?;
        if pager.is_full() {
            break;
        }
        after = None;
    }
    Ok(pager.finish(None))
}

/// A segment of a walk. The keys are those of [`signed`].
#[derive(Clone, Copy, Debug)]
struct Stage {
    segment: i64,
    /// No row of the segment has a smaller key.
    least: i64,
    /// No row of the segment, and of those after it, has a greater key.
    greatest: i64,
}

/// Reads proposed rows in the order of their numbers.
struct Walk<'a> {
    snapshot: &'a Snapshot<'a>,
    shape: &'a Shape,
    query: &'a RowQuery,
    proposals: &'a Proposals<'a>,
    part: Part,
    /// The segments in the order of the walk; none in the order of row numbers.
    stages: Option<Vec<Stage>>,
    /// No row of the page has a greater key.
    begin: i64,
    /// No row of the page has a smaller key.
    end: i64,
}

impl<'a> Walk<'a> {
    /// None if the order of the page is not that of the row numbers, and no summaries relate them.
    fn new(
        snapshot: &'a Snapshot<'a>,
        shape: &'a Shape,
        query: &'a RowQuery,
        proposals: &'a Proposals<'a>,
    ) -> Result<Option<Self>, ReadError> {
        let descending = query.sort.descending;
        let walk = |part, stages, begin: Option<i64>, end: Option<i64>| Self {
            snapshot,
            shape,
            query,
            proposals,
            part,
            stages,
            begin: begin.unwrap_or(i64::MAX),
            end: end.unwrap_or(i64::MIN),
        };
        let after = query.after.as_ref();
        let Some(column) = query.sort.column else {
            let begin = after.map(|after| signed(after.row, descending).saturating_sub(1));
            return Ok(Some(walk(Part::Numbered, None, begin, None)));
        };
        if Some(column) != shape.time() {
            return Ok(None);
        }
        let Some(summaries) = Summaries::of(snapshot, shape)? else {
            return Ok(None);
        };
        let segments = summaries.all_segments()?;
        let after = after.map(|after| &after.key);
        // Rows without a time are not in the order of their numbers.
        if segments.iter().any(|segment| segment.untimed > 0) || after == Some(&Key::Null) {
            return Ok(None);
        }
        let selection = &query.selection;
        let from = selection.from.map(|from| signed(from.0, descending));
        let to = selection.to.map(|to| signed(to.0.saturating_sub(1), descending));
        let (latest, end) = if descending { (to, from) } else { (from, to) };
        let after = match after {
            Some(Key::Integer(time)) => Some(signed(*time, descending)),
            _ => None,
        };
        let begin = [latest, after].into_iter().flatten().min();
        Ok(Some(walk(
            Part::Filled,
            Some(stages(&segments, descending)),
            begin,
            end,
        )))
    }

    /// The page; none if its rows are found faster by their time.
    fn page(&self) -> Result<Option<RowPage>, ReadError> {
        let mut pager = Pager::new(self.snapshot, self.shape, self.query);
        let descending = self.query.sort.descending;
        let by_time = self.part == Part::Filled;
        let key = |&(row, time): &(i64, i64)| {
            let key = if by_time { time } else { row };
            (signed(key, descending), signed(row, descending))
        };
        let (mut rows, mut read, mut size) = (Vec::new(), 0, CHUNK_FIRST);
        let mut next = self.first();
        let mut stop = None;
        while let Some(at) = next {
            let rest = self.reach(at);
            let last = rows.get(pager.missing() - 1).map(&key);
            if rest < self.end || last.is_some_and(|(last, _)| last > rest) {
                break;
            }
            if by_time && read > READ_MAX {
                return Ok(None);
            }
            if read > 0 && self.snapshot.is_half_over() {
                if rest >= self.begin {
                    return Ok(None);
                }
                rows.retain(|row| key(row).0 > rest);
                stop = Some(position(rest, by_time, descending));
                break;
            }
            let (numbers, after) = match descending {
                true => self.proposals.before(at, size)?,
                false => self.proposals.after(at, size)?,
            };
            read += numbers.len();
            rows.extend(self.matching(&numbers, pager.missing())?);
            rows.sort_by_key(|row| std::cmp::Reverse(key(row)));
            rows.truncate(pager.missing());
            (next, size) = (after, (size * 2).min(CHUNK_LAST));
        }
        let listed = serde_json::json!(rows).to_string();
        let mut bound = Bound::default();
        let found = self
            .shape
            .engine()
            .listed_rows(&bound.add(Value::Text(listed)), by_time);
        pager.read(&found, bound)?;
        Ok(Some(pager.finish(stop)))
    }

    /// The row number at which the walk begins: all rows before it belong to the previous pages.
    fn first(&self) -> Option<i64> {
        let descending = self.query.sort.descending;
        let Some(stages) = &self.stages else {
            return Some(signed(self.begin, descending));
        };
        let first = stages.iter().find(|stage| stage.least <= self.begin)?;
        Some(if descending {
            last_row(first.segment)
        } else {
            first_row(first.segment)
        })
    }

    /// A key that no row at `row` or after it in the order of the walk exceeds.
    fn reach(&self, row: i64) -> i64 {
        let descending = self.query.sort.descending;
        let Some(stages) = &self.stages else {
            return signed(row, descending);
        };
        let segment = signed(row >> SEGMENT_BITS, descending);
        let passed = stages.partition_point(|stage| signed(stage.segment, descending) > segment);
        stages.get(passed).map_or(i64::MIN, |stage| stage.greatest)
    }

    /// The rows that belong to the selection and follow the previous page, with their times.
    fn matching(&self, numbers: &[i64], limit: usize) -> Result<Vec<(i64, i64)>, ReadError> {
        let mut bound = Bound::default();
        let from = rows_as_t(self.shape, numbers, &mut bound);
        let finder = Finder::new(self.shape, self.query, self.part, self.query.after.as_ref()).in_segments();
        let sql = finder.find_among(&from, &mut bound, limit);
        let mut rows = Vec::new();
        self.snapshot.for_each(&sql, bound.arguments(), |row| {
            rows.push((row.get(0)?, row.get::<_, Option<i64>>(1)?.unwrap_or_default()));
            Ok(())
        })?;
        Ok(rows)
    }
}

/// The segments in the order of a walk.
fn stages(segments: &[Segment], descending: bool) -> Vec<Stage> {
    let mut stages: Vec<Stage> = segments
        .iter()
        .filter_map(|segment| {
            let (least, greatest) = in_order(segment.times?, descending);
            Some(Stage {
                segment: segment.number,
                least,
                greatest,
            })
        })
        .collect();
    if !descending {
        stages.reverse();
    }
    let mut rest = i64::MIN;
    for stage in &mut stages {
        rest = rest.max(stage.greatest);
        stage.greatest = rest;
    }
    stages.reverse();
    stages
}
