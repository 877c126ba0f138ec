//! The summary of a segment in memory: summed from rows, and added to the stored summaries.

use std::collections::BTreeMap;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, params};

use super::{BLOCK_BITS, FACET_BYTES_MAX, SEGMENT_BITS, SegmentSet};

/// Stands for a null value of a facet in the database, where no facet is a blob.
pub(crate) const NULL_MARKER: &[u8] = &[0];
/// Stands for all texts of a facet that are longer than [`FACET_BYTES_MAX`].
pub(crate) const LONG_MARKER: &[u8] = &[1];

/// A row that was added to a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Appended {
    pub(crate) rowid: i64,
    pub(crate) origin: i64,
    pub(crate) sequence: i64,
    /// The value of the time column.
    pub(crate) time: Option<i64>,
}

/// How many rows have each value of a facet. Texts are a map of their own, so that counting a known text allocates nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FacetCounts {
    texts: BTreeMap<Box<[u8]>, i64>,
    others: BTreeMap<OtherValue, i64>,
}

/// A value of a facet that is not a text of ordinary length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum OtherValue {
    Null,
    Long,
    Integer(i64),
    /// The bits of a real number.
    Real(u64),
}

impl FacetCounts {
    /// Counts a value of a row.
    fn add(&mut self, value: ValueRef<'_>) {
        match value {
            ValueRef::Text(text) if text.len() <= FACET_BYTES_MAX => self.add_text(text, 1),
            ValueRef::Text(_) => self.add_other(OtherValue::Long, 1),
            ValueRef::Integer(number) => self.add_other(OtherValue::Integer(number), 1),
            ValueRef::Real(number) => self.add_other(OtherValue::real(number), 1),
            ValueRef::Null | ValueRef::Blob(_) => self.add_other(OtherValue::Null, 1),
        }
    }

    /// Adds a stored count.
    pub(super) fn add_stored(&mut self, value: ValueRef<'_>, rows: i64) {
        match value {
            ValueRef::Text(text) => self.add_text(text, rows),
            ValueRef::Integer(number) => self.add_other(OtherValue::Integer(number), rows),
            ValueRef::Real(number) => self.add_other(OtherValue::real(number), rows),
            ValueRef::Blob(LONG_MARKER) => self.add_other(OtherValue::Long, rows),
            ValueRef::Null | ValueRef::Blob(_) => self.add_other(OtherValue::Null, rows),
        }
    }

    fn add_text(&mut self, text: &[u8], rows: i64) {
        match self.texts.get_mut(text) {
            Some(count) => *count += rows,
            None => drop(self.texts.insert(text.into(), rows)),
        }
    }

    fn add_other(&mut self, value: OtherValue, rows: i64) {
        *self.others.entry(value).or_default() += rows;
    }

    fn iter(&self) -> impl Iterator<Item = (ToSqlOutput<'_>, i64)> {
        let texts = self
            .texts
            .iter()
            .map(|(text, rows)| (ValueRef::Text(text), *rows));
        let others = self.others.iter().map(|(value, rows)| (value.stored(), *rows));
        let all = texts.chain(others);
        all.map(|(value, rows)| (ToSqlOutput::Borrowed(value), rows))
    }
}

impl OtherValue {
    /// SQLite treats both zeros as equal.
    fn real(number: f64) -> Self {
        Self::Real((number + 0.0).to_bits())
    }

    fn stored(self) -> ValueRef<'static> {
        match self {
            Self::Null => ValueRef::Blob(NULL_MARKER),
            Self::Long => ValueRef::Blob(LONG_MARKER),
            Self::Integer(number) => ValueRef::Integer(number),
            Self::Real(bits) => ValueRef::Real(f64::from_bits(bits)),
        }
    }
}

/// The sequences of one origin and block in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SequenceRun {
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) rows: i64,
}

/// The summary of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) rows: i64,
    pub(super) untimed: i64,
    /// The least and the greatest time.
    pub(super) times: Option<(i64, i64)>,
    /// By origin and block.
    pub(super) origins: BTreeMap<(i64, i64), SequenceRun>,
    /// For each facet column of the set.
    pub(super) facets: Vec<FacetCounts>,
}

impl Summary {
    pub(super) fn new(set: &SegmentSet) -> Self {
        Self {
            facets: vec![FacetCounts::default(); set.facets.len()],
            ..Self::default()
        }
    }

    pub(super) fn add<'v>(&mut self, row: &Appended, facets: impl Iterator<Item = ValueRef<'v>>) {
        let Appended {
            origin,
            sequence,
            time,
            ..
        } = *row;
        self.rows += 1;
        match (time, self.times) {
            (None, _) => self.untimed += 1,
            (Some(time), None) => self.times = Some((time, time)),
            (Some(time), Some((min, max))) => self.times = Some((min.min(time), max.max(time))),
        }
        let run = self.origins.entry((origin, sequence >> BLOCK_BITS));
        let run = run.or_insert(SequenceRun {
            first: sequence,
            last: sequence,
            rows: 0,
        });
        run.first = run.first.min(sequence);
        run.last = run.last.max(sequence);
        run.rows += 1;
        for (counts, value) in self.facets.iter_mut().zip(facets) {
            counts.add(value);
        }
    }
}

/// The rows that a batch has added to one table, summed by segment.
#[derive(Debug)]
pub(crate) struct TableSums {
    set: SegmentSet,
    /// In ascending order, because row numbers ascend.
    segments: Vec<(i64, Summary)>,
}

impl TableSums {
    pub(crate) fn new(set: SegmentSet) -> Self {
        Self {
            set,
            segments: Vec::new(),
        }
    }

    pub(crate) fn set(&self) -> &SegmentSet {
        &self.set
    }

    /// Counts an added row with the values of the set's facet columns.
    pub(crate) fn add<'v>(&mut self, row: &Appended, facets: impl Iterator<Item = ValueRef<'v>>) {
        let number = row.rowid >> SEGMENT_BITS;
        if self.segments.last().is_none_or(|(last, _)| *last != number) {
            self.segments.push((number, Summary::new(&self.set)));
        }
        if let Some((_, summary)) = self.segments.last_mut() {
            summary.add(row, facets);
        }
    }

    /// Adds the sums to the stored summaries, and closes the segments before the newest one.
    pub(crate) fn flush(&mut self, connection: &Connection) -> Result<(), rusqlite::Error> {
        let (Some(&(first, _)), Some(&(newest, _))) = (self.segments.first(), self.segments.last()) else {
            return Ok(());
        };
        for (number, summary) in &self.segments {
            // The first segment may have stored counts, which are still open.
            let is_open = *number == first || *number == newest;
            write(connection, &self.set, *number, summary, is_open)?;
        }
        close_before(connection, self.set.id, newest)?;
        self.segments.clear();
        Ok(())
    }
}

/// Adds a summary to the stored one of its segment.
pub(super) fn write(
    connection: &Connection,
    set: &SegmentSet,
    segment: i64,
    summary: &Summary,
    is_open: bool,
) -> Result<(), rusqlite::Error> {
    let (time_min, time_max) = summary.times.unzip();
    connection
        .prepare_cached(
            "INSERT INTO _lantern_segment (segments, segment, rows, untimed, time_min, time_max)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT DO UPDATE SET rows = rows + excluded.rows, untimed = untimed + excluded.untimed,
                 time_min = min(coalesce(time_min, excluded.time_min), coalesce(excluded.time_min, time_min)),
                 time_max = max(coalesce(time_max, excluded.time_max), coalesce(excluded.time_max, time_max))",
        )?
        .execute(params![
            set.id,
            segment,
            summary.rows,
            summary.untimed,
            time_min,
            time_max
        ])?;
    let mut origins = connection.prepare_cached(
        "INSERT INTO _lantern_segment_origin (segments, origin, block, segment, first_sequence, last_sequence, rows)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT DO UPDATE SET first_sequence = min(first_sequence, excluded.first_sequence),
             last_sequence = max(last_sequence, excluded.last_sequence), rows = rows + excluded.rows",
    )?;
    for ((origin, block), run) in &summary.origins {
        origins.execute([set.id, *origin, *block, segment, run.first, run.last, run.rows])?;
    }
    let mut counts = connection.prepare_cached(if is_open {
        "INSERT INTO _lantern_segment_open (segments, segment, \"column\", value, rows) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO UPDATE SET rows = rows + excluded.rows"
    } else {
        "INSERT INTO _lantern_segment_facet (segments, segment, \"column\", value, rows) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO UPDATE SET rows = rows + excluded.rows"
    })?;
    for (column, facet) in set.facets.iter().zip(&summary.facets) {
        for (value, rows) in facet.iter() {
            counts.execute(params![set.id, segment, column, value, rows])?;
        }
    }
    Ok(())
}

/// Moves the counts of segments before the newest one to the table of closed segments.
pub(super) fn close_before(connection: &Connection, set: i64, newest: i64) -> Result<(), rusqlite::Error> {
    let is_needed: bool = connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM _lantern_segment_open WHERE segments = ?1 AND segment < ?2)",
        )?
        .query_row([set, newest], |row| row.get(0))?;
    if !is_needed {
        return Ok(());
    }
    connection
        .prepare_cached(
            "INSERT INTO _lantern_segment_facet (segments, \"column\", value, segment, rows)
             SELECT segments, \"column\", value, segment, rows FROM _lantern_segment_open
             WHERE segments = ?1 AND segment < ?2
             ON CONFLICT DO UPDATE SET rows = rows + excluded.rows",
        )?
        .execute([set, newest])?;
    connection
        .prepare_cached("DELETE FROM _lantern_segment_open WHERE segments = ?1 AND segment < ?2")?
        .execute([set, newest])
        .map(|_| ())
}
