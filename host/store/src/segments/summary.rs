//! The summary of a segment in memory, summed from rows.

use std::collections::BTreeMap;

use rusqlite::types::ValueRef;

use super::{BLOCK_BITS, FACET_BYTES_MAX, SegmentSet};

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

/// How many rows have each value of a facet. Texts are a separate map, so that counting a known text allocates nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FacetCounts {
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

    /// The values as the database stores them, with their numbers of rows.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ValueRef<'_>, i64)> {
        let texts = self.texts.iter();
        let texts = texts.map(|(text, rows)| (ValueRef::Text(text), *rows));
        let others = self.others.iter().map(|(value, rows)| (value.stored(), *rows));
        texts.chain(others)
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
pub(crate) struct Summary {
    pub(crate) rows: i64,
    /// Rows without a time.
    pub(crate) untimed: i64,
    /// The least and the greatest time.
    pub(crate) times: Option<(i64, i64)>,
    /// By origin and block.
    pub(super) origins: BTreeMap<(i64, i64), SequenceRun>,
    /// For each facet column of the set.
    pub(crate) facets: Vec<FacetCounts>,
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
