//! How the rows of a batch are written at a server: which of them are copied, in which order, and which stand for several.
//! Pure. The result is always that of writing each row in stream order:
//!
//! - Rows of a table with one key are ordered into rounds. A row is in the round after the previous row with its key, so no
//!   round has two rows with the same key, and the rows of a round do not depend on each other.
//! - Consecutive rows of one write with the same key become one row where the merge rules are associative: not for guards,
//!   which compare every row with the stored one, not for sums of reals, whose result depends on the order, and not for
//!   sums of different signs, of which only one can be out of range.
//! - Rows of a table with several keys depend on rows with other keys. They keep the stream order, unless all of them
//!   are of one write that ignores conflicts, which one statement writes in this order.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;

use rusqlite::types::ValueRef;

use crate::commit::{Entry, OriginId};
use crate::values::stored;
use crate::values::to_sql;
use lantern_model::batch::{Outcome, Row};
use lantern_model::schema::{
    ColumnName, ColumnType, Guard, Manifest, Merge, OnConflict, Table, UpdateRule, Write,
};

/// Rows that are worth a copy: it has two round trips more than single statements.
const COPIED_MIN: usize = 16;

/// How the rows of a table are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// Copied into the table, because none of its writes accepts a row whose key is present.
    Copied,
    /// Copied into a table of the session and inserted from there, in rounds by these columns; in one round without any.
    Staged(Vec<usize>),
    /// One statement for each row, in stream order.
    InOrder,
}

impl Method {
    pub(super) fn of(manifest: &Manifest, number: usize) -> Self {
        let table = &manifest.tables[number];
        let writes: Vec<&Write> = manifest
            .writes
            .iter()
            .filter(|write| write.table == number)
            .collect();
        let keys = keys(table);
        if keys.is_empty()
            || writes
                .iter()
                .all(|write| matches!(write.on_conflict, OnConflict::Fail))
        {
            return Self::Copied;
        }
        match (keys.as_slice(), writes.as_slice()) {
            ([key], _) => Self::Staged(key.clone()),
            (_, [write]) if matches!(write.on_conflict, OnConflict::Ignore) => Self::Staged(Vec::new()),
            _ => Self::InOrder,
        }
    }
}

/// The different keys of a table, each as the sorted numbers of its columns.
fn keys(table: &Table) -> Vec<Vec<usize>> {
    let unique = table.indexes.iter().filter(|index| index.unique);
    let declared = std::iter::once(&table.primary_key).chain(unique.map(|index| &index.columns));
    let mut keys: Vec<Vec<usize>> = declared
        .filter(|key| !key.is_empty())
        .map(|key| {
            let number = |name: &ColumnName| table.columns.iter().position(|column| column.name == *name);
            let mut key: Vec<usize> = key.iter().filter_map(number).collect();
            key.sort_unstable();
            key
        })
        .collect();
    keys.sort();
    keys.dedup();
    keys
}

/// A row to write.
#[derive(Clone, Debug)]
pub(super) struct Item<'b> {
    /// The number of the write.
    pub(super) write: usize,
    /// Origin, sequence and number of the row.
    pub(super) stamp: [i64; 3],
    /// The values of the write's columns.
    pub(super) values: Vec<ValueRef<'b>>,
    /// How many later rows it stands for as well.
    pub(super) further: u64,
    round: usize,
}

impl<'b> Item<'b> {
    fn of(origin: OriginId, entry: &Entry, number: usize, row: &'b Row) -> Self {
        Self {
            write: row.write as usize,
            stamp: [origin.0, to_sql(entry.delivery.sequence), to_sql(number as u64)],
            values: row.values.iter().map(stored).collect(),
            further: 0,
            round: 0,
        }
    }
}

/// The rows of one table.
pub(super) struct TableRows<'b> {
    pub(super) method: Method,
    /// In the order of writing.
    items: Vec<Item<'b>>,
    /// How many of them, from the first, are copied.
    copied: usize,
    /// Where the last row with a key is.
    last: HashMap<Vec<KeyPart<'b>>, usize>,
}

impl<'b> TableRows<'b> {
    /// The rows that are copied.
    pub(super) fn copied(&self) -> &[Item<'b>] {
        &self.items[..self.copied]
    }

    /// The copied rows, divided where the round or the write changes.
    pub(super) fn segments(&self) -> impl Iterator<Item = &[Item<'b>]> {
        self.copied()
            .chunk_by(|one, next| (one.round, one.write) == (next.round, next.write))
    }

    /// The rows that have one statement each, after the copied ones.
    pub(super) fn single(&self) -> &[Item<'b>] {
        &self.items[self.copied..]
    }

    fn add(&mut self, writes: &[WritePlan], mut item: Item<'b>) {
        let plan = &writes[item.write];
        if let Some(key) = plan.key_of(&item) {
            match self.last.entry(key) {
                Place::Vacant(place) => drop(place.insert(self.items.len())),
                Place::Occupied(mut place) => {
                    let previous = &mut self.items[*place.get()];
                    if previous.write == item.write && plan.fold(previous, &item) {
                        return;
                    }
                    item.round = previous.round + 1;
                    place.insert(self.items.len());
                }
            }
        }
        self.items.push(item);
    }

    /// Orders the rows, and determines which of them are copied: those of the first rounds, as long as each has enough.
    fn arrange(&mut self) {
        self.last.clear();
        self.copied = match self.method {
            Method::InOrder => 0,
            Method::Copied => self.items.len(),
            Method::Staged(_) => {
                self.items.sort_by_key(|item| (item.round, item.write));
                let rounds = self.items.chunk_by(|one, next| one.round == next.round);
                let is_worth = |round: &&[Item<'_>]| round.len() >= COPIED_MIN;
                rounds.take_while(is_worth).map(<[_]>::len).sum()
            }
        };
        if self.copied < COPIED_MIN {
            self.copied = 0;
        }
    }
}

/// The rows of a batch, for each table of the manifest.
pub(super) fn plan<'b>(manifest: &Manifest, origin: OriginId, entries: &'b [Entry]) -> Vec<TableRows<'b>> {
    let mut tables: Vec<TableRows<'b>> = (0..manifest.tables.len())
        .map(|number| TableRows {
            method: Method::of(manifest, number),
            items: Vec::new(),
            copied: 0,
            last: HashMap::new(),
        })
        .collect();
    let writes: Vec<WritePlan> = manifest
        .writes
        .iter()
        .map(|write| WritePlan::of(manifest.table_of(write), write, &tables[write.table].method))
        .collect();
    for entry in entries {
        let Outcome::Rows(rows) = &entry.outcome else {
            continue;
        };
        for (number, row) in rows.iter().enumerate() {
            let item = Item::of(origin, entry, number, row);
            tables[manifest.writes[item.write].table].add(&writes, item);
        }
    }
    for table in &mut tables {
        table.arrange();
    }
    tables
}

/// A value of a key. Equal values are equal in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum KeyPart<'b> {
    Integer(i64),
    Real(u64),
    Bytes(&'b [u8]),
}

/// How the rows of a write are grouped and folded.
struct WritePlan {
    /// Where a row has the values of the key; none if the rows of the table have no rounds.
    key: Option<Vec<Option<usize>>>,
    folding: Option<Folding>,
}

impl WritePlan {
    fn of(table: &Table, write: &Write, method: &Method) -> Self {
        let key = match method {
            Method::Staged(key) if !key.is_empty() => key,
            _ => {
                return Self {
                    key: None,
                    folding: None,
                };
            }
        };
        let position = |column: &usize| write.columns.iter().position(|written| written == column);
        Self {
            key: Some(key.iter().map(position).collect()),
            folding: Folding::of(table, write),
        }
    }

    /// The key of a row; none if a value of it is null, so that it differs from all others.
    fn key_of<'b>(&self, item: &Item<'b>) -> Option<Vec<KeyPart<'b>>> {
        let part = |position: &Option<usize>| match item.values[(*position)?] {
            ValueRef::Null => None,
            ValueRef::Integer(number) => Some(KeyPart::Integer(number)),
            // 0.0 is equal to -0.0.
            ValueRef::Real(number) => Some(KeyPart::Real((number + 0.0).to_bits())),
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(KeyPart::Bytes(bytes)),
        };
        self.key.as_ref()?.iter().map(part).collect()
    }

    /// Adds a later row with the same key to a row. Returns whether it is now part of it.
    fn fold<'b>(&self, row: &mut Item<'b>, later: &Item<'b>) -> bool {
        let Some(Folding { rules, updates }) = &self.folding else {
            return false;
        };
        let pairs = row.values.iter().zip(&later.values);
        let values = rules
            .iter()
            .zip(pairs)
            .map(|(rule, (one, next))| rule.apply(*one, *next));
        let Some(values) = values.collect::<Option<Vec<_>>>() else {
            return false;
        };
        row.values = values;
        row.further += 1;
        if *updates {
            row.stamp = later.stamp;
        }
        true
    }
}

/// How consecutive rows of a write with the same key become one.
struct Folding {
    /// For each column of the write.
    rules: Vec<Rule>,
    /// Whether a row whose key is present changes the stored row.
    updates: bool,
}

impl Folding {
    fn of(table: &Table, write: &Write) -> Option<Self> {
        let first = || Self {
            rules: vec![Rule::First; write.columns.len()],
            updates: false,
        };
        match &write.on_conflict {
            OnConflict::Fail => None,
            OnConflict::Ignore => Some(first()),
            OnConflict::Update(rule) if !rule.changes() => Some(first()),
            OnConflict::Update(rule) if rule.guard == Guard::Always => {
                let columns = write.columns.iter().map(|&column| &table.columns[column]);
                let rules = columns.map(|column| Rule::of(rule, &column.name, column.column_type));
                Some(Self {
                    rules: rules.collect::<Option<_>>()?,
                    updates: true,
                })
            }
            OnConflict::Update(_) => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    First,
    Last,
    Fill,
    Sum,
    Least,
    Greatest,
}

impl Rule {
    fn of(rule: &UpdateRule, column: &ColumnName, column_type: ColumnType) -> Option<Self> {
        let merge = rule.merges.iter().find(|(name, _)| name == column);
        Some(match merge.map_or(Merge::Keep, |(_, merge)| *merge) {
            Merge::Keep => Self::First,
            Merge::Replace => Self::Last,
            Merge::Fill => Self::Fill,
            Merge::Add if column_type == ColumnType::Real => return None,
            Merge::Add => Self::Sum,
            Merge::Min => Self::Least,
            Merge::Max => Self::Greatest,
        })
    }

    /// The value that has the effect of both; none if there is none for every stored value.
    fn apply<'b>(self, one: ValueRef<'b>, next: ValueRef<'b>) -> Option<ValueRef<'b>> {
        Some(match (self, one, next) {
            (Self::First, one, _) => one,
            (Self::Last, _, next) => next,
            (_, one, ValueRef::Null) => one,
            (_, ValueRef::Null, next) => next,
            (Self::Fill, one, _) => one,
            // The sums up to both rows are between the stored value and the last sum, so none of them is out of range
            // alone.
            (Self::Sum, ValueRef::Integer(one), ValueRef::Integer(next)) if (one < 0) == (next < 0) => {
                ValueRef::Integer(one.checked_add(next)?)
            }
            (Self::Sum, ..) => return None,
            (Self::Least, one, next) if compare(one, next)? == Ordering::Greater => next,
            (Self::Greatest, one, next) if compare(one, next)? == Ordering::Less => next,
            (Self::Least | Self::Greatest, one, _) => one,
        })
    }
}

fn compare(one: ValueRef<'_>, other: ValueRef<'_>) -> Option<Ordering> {
    match (one, other) {
        (ValueRef::Integer(one), ValueRef::Integer(other)) => Some(one.cmp(&other)),
        (ValueRef::Real(one), ValueRef::Real(other)) => one.partial_cmp(&other),
        (ValueRef::Text(one), ValueRef::Text(other)) | (ValueRef::Blob(one), ValueRef::Blob(other)) => {
            Some(one.cmp(other))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{entry, note, order, orders};
    use lantern_model::batch::{Timestamp, Value};

    fn count(id: &str, total: i64) -> Outcome {
        let values = vec![
            Value::Text(id.into()),
            Value::Integer(total),
            Value::Timestamp(Timestamp(1)),
        ];
        Outcome::Rows(vec![Row { write: 1, values }])
    }

    /// The declaration whose second write adds without a condition.
    fn counters() -> Manifest {
        let mut manifest = orders();
        if let OnConflict::Update(rule) = &mut manifest.writes[1].on_conflict {
            rule.guard = Guard::Always;
        }
        manifest
    }

    fn entries(outcomes: Vec<Outcome>) -> Vec<Entry> {
        (1..)
            .zip(outcomes)
            .map(|(at, outcome)| entry(at, outcome))
            .collect()
    }

    /// The sums of the rows of the table of orders in the order of writing, with the number of rows in each.
    fn sums(manifest: &Manifest, outcomes: Vec<Outcome>) -> Vec<(i64, u64)> {
        let entries = entries(outcomes);
        let tables = plan(manifest, OriginId(1), &entries);
        let rows = tables[0].copied().iter().chain(tables[0].single());
        rows.map(|item| match item.values[1] {
            ValueRef::Integer(sum) => (sum, item.further + 1),
            _ => panic!("no sum"),
        })
        .collect()
    }

    #[test]
    fn rows_with_the_same_key_become_one_where_their_sum_has_one_sign() {
        let manifest = counters();
        assert_eq!(
            sums(&manifest, vec![count("a", 1), count("b", 5), count("a", 2)]),
            [(3, 2), (5, 1)]
        );
        assert_eq!(
            sums(&manifest, vec![count("a", 1), count("a", -1)]),
            [(1, 1), (-1, 1)]
        );
        assert_eq!(
            sums(&manifest, vec![count("a", i64::MAX), count("a", 1)]),
            [(i64::MAX, 1), (1, 1)]
        );
        // A condition compares each row with the stored one.
        assert_eq!(
            sums(&orders(), vec![count("a", 1), count("a", 2)]),
            [(1, 1), (2, 1)]
        );
    }

    #[test]
    fn rows_of_different_writes_keep_the_order_of_their_key() {
        let manifest = counters();
        let outcomes = vec![
            count("a", 1),
            count("a", 1),
            order("a", 7),
            count("a", 4),
            order("b", 9),
        ];
        // Round 0 has the sum of the first two and the other key, then each row has a separate round.
        assert_eq!(sums(&manifest, outcomes), [(9, 1), (2, 2), (7, 1), (4, 1)]);
    }

    #[test]
    fn rounds_with_enough_rows_are_copied_and_the_others_follow() {
        let manifest = orders();
        let ids: Vec<String> = (0..40).map(|number| format!("{number}")).collect();
        let mut outcomes: Vec<Outcome> = ids.iter().map(|id| count(id, 1)).collect();
        outcomes.extend(ids.iter().take(20).map(|id| count(id, 2)));
        outcomes.extend(ids.iter().take(3).map(|id| count(id, 3)));
        outcomes.push(note(1));
        let entries = entries(outcomes);
        let tables = plan(&manifest, OriginId(1), &entries);
        let lengths: Vec<usize> = tables[0].segments().map(<[_]>::len).collect();
        assert_eq!((lengths, tables[0].single().len()), (vec![40, 20], 3));
        assert_eq!(tables[1].method, Method::Copied);
        assert_eq!(tables[1].single().len(), 1, "a single row is not worth a copy");
    }

    #[test]
    fn rows_of_a_table_with_several_keys_keep_their_order_unless_all_are_ignored() {
        let mut manifest = counters();
        let total = manifest.tables[0].columns[1].name.clone();
        let unique = |columns| lantern_model::schema::Index {
            columns,
            unique: true,
        };
        manifest.tables[0].indexes.push(unique(vec![total]));
        assert_eq!(Method::of(&manifest, 0), Method::InOrder);
        manifest.writes.remove(1);
        assert_eq!(Method::of(&manifest, 0), Method::Copied);
        manifest.writes[0].on_conflict = OnConflict::Ignore;
        assert_eq!(Method::of(&manifest, 0), Method::Staged(Vec::new()));
        // The same columns again are the same key.
        let id = manifest.tables[0].columns[0].name.clone();
        manifest.tables[0].indexes = vec![unique(vec![id])];
        assert_eq!(Method::of(&manifest, 0), Method::Staged(vec![0]));
    }
}
