//! The size of keys and indexes in a row. A database rejects a row whose entry in an index is too large, with a different
//! limit in each database, so the host checks one limit for all.
//!
//! The check sees the row that a plugin returned. An update can combine its values with those of the stored row, which an
//! earlier message wrote; then each value may take its share of the limit, so that every combination fits.

use super::{ColumnName, DeclaredRole, Merge, OnConflict, Table, Write};
use crate::batch::{Row, Value};
use crate::limits::{KEY_BYTES_MAX, KEY_COLUMN_BYTES, KEY_FIXED_VALUE_BYTES};

/// The keys and indexes that contain values of variable size, for each write of a manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MeasuredKeys(Vec<Vec<MeasuredKey>>);

/// A key or index, as one write fills it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MeasuredKey {
    /// Positions, in the values of the write, of the columns of variable size; at least one.
    positions: Vec<usize>,
    /// Bytes of all these values together, or of each.
    limit: Limit,
}

/// The limit of the values of variable size of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    /// The values come from one row.
    Together(usize),
    /// An update combines values of several rows.
    Each(usize),
}

impl MeasuredKeys {
    /// The keys of each write.
    pub(super) fn new(tables: &[Table], writes: &[Write]) -> Self {
        let of_write = |write: &Write| {
            let table = &tables[write.table];
            let into_table = |other: &&Write| other.table == write.table;
            let rules: Vec<&OnConflict> = writes
                .iter()
                .filter(into_table)
                .map(|other| &other.on_conflict)
                .collect();
            let mut keys: Vec<MeasuredKey> = Vec::new();
            for columns in indexed(table) {
                let key = measure(&columns, table, write, &rules);
                keys.extend(key.filter(|key| !keys.contains(key)));
            }
            keys
        };
        Self(writes.iter().map(of_write).collect())
    }

    /// Checks the values of a row, which match its write.
    ///
    /// # Errors
    /// The key or index whose values are too large.
    pub(super) fn check(&self, row: &Row) -> Result<(), &MeasuredKey> {
        let keys = self.0.get(row.write as usize).map_or(&[][..], Vec::as_slice);
        match keys.iter().find(|key| !key.fits(&row.values)) {
            None => Ok(()),
            Some(key) => Err(key),
        }
    }
}

impl MeasuredKey {
    fn sizes(&self, values: &[Value]) -> impl Iterator<Item = usize> {
        self.positions
            .iter()
            .map(|position| values.get(*position).map_or(0, Value::heap_bytes))
    }

    fn fits(&self, values: &[Value]) -> bool {
        match self.limit {
            Limit::Together(bytes) => self.sizes(values).sum::<usize>() <= bytes,
            Limit::Each(bytes) => self.sizes(values).all(|size| size <= bytes),
        }
    }

    /// The columns of variable size.
    pub(super) fn columns(&self, table: &Table, write: &Write) -> String {
        let name = |position: &usize| table.columns[write.columns[*position]].name.as_str();
        let names: Vec<&str> = self.positions.iter().map(name).collect();
        let noun = if names.len() == 1 { "column" } else { "columns" };
        format!("{noun} {}", names.join(", "))
    }

    /// Why the row does not fit.
    pub(super) fn describe(&self, row: &Row) -> String {
        match self.limit {
            Limit::Together(limit) => format!(
                "{} bytes in a key or index, and the limit is {limit}",
                self.sizes(&row.values).sum::<usize>()
            ),
            Limit::Each(limit) => format!(
                "{} bytes in a key or index that updates combine from several rows, and the limit is {limit} for each \
                 column",
                self.sizes(&row.values).max().unwrap_or(0)
            ),
        }
    }
}

/// The columns of every index that a database may have on a table: keys, declared indexes, and those that serve filters by
/// role and time.
fn indexed(table: &Table) -> Vec<Vec<&ColumnName>> {
    let declared = table.indexes.iter().map(|index| &index.columns);
    let declared = std::iter::once(&table.primary_key).chain(declared);
    let time = table.time_column().map(|column| &column.name);
    let has_role = |role: &DeclaredRole| matches!(role, DeclaredRole::Entity | DeclaredRole::Facet);
    let filters = table
        .columns
        .iter()
        .filter(|column| has_role(&column.role) && column.column_type.is_sortable())
        .map(|column| std::iter::once(&column.name).chain(time).collect());
    declared
        .map(|columns| columns.iter().collect())
        .chain(filters)
        .collect()
}

/// One key of a write; `None` when the write fills no column of variable size in it.
fn measure(
    columns: &[&ColumnName],
    table: &Table,
    write: &Write,
    rules: &[&OnConflict],
) -> Option<MeasuredKey> {
    let varies = |name: &&&ColumnName| {
        table
            .column(name)
            .is_some_and(|column| column.column_type.has_variable_size())
    };
    let variable: Vec<&ColumnName> = columns.iter().filter(varies).copied().collect();
    let position = |name: &&ColumnName| {
        write
            .columns
            .iter()
            .position(|&column| table.columns[column].name == **name)
    };
    let positions: Vec<usize> = variable.iter().filter_map(position).collect();
    if positions.is_empty() {
        return None;
    }
    let fixed = columns.len() - variable.len();
    let overhead = KEY_COLUMN_BYTES * (columns.len() - 1) + KEY_FIXED_VALUE_BYTES * fixed;
    let bytes = KEY_BYTES_MAX.saturating_sub(overhead);
    let limit = match rules.iter().any(|rule| combines(rule, &variable)) {
        true => Limit::Each(bytes / variable.len()),
        false => Limit::Together(bytes),
    };
    Some(MeasuredKey { positions, limit })
}

/// Whether an update can leave a row whose values in `columns` come from several written rows.
fn combines(rule: &OnConflict, columns: &[&ColumnName]) -> bool {
    let OnConflict::Update(rule) = rule else {
        return false;
    };
    let merge_of = |column: &ColumnName| {
        let found = rule.merges.iter().find(|(name, _)| name == column);
        found.map_or(Merge::Keep, |(_, merge)| *merge)
    };
    // Stored and new row are equal in the columns of the rule's key.
    let merges = || {
        columns
            .iter()
            .filter(|column| !rule.key.contains(column))
            .map(|column| merge_of(column))
    };
    let keeps_all = merges().all(|merge| merge == Merge::Keep);
    let replaces_all = merges().all(|merge| merge == Merge::Replace);
    columns.len() > 1 && !keeps_all && !replaces_all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::check::tests::good;
    use crate::schema::{Manifest, RawGuard, RawIndex, RawManifest, RawOnConflict};

    fn text(bytes: usize) -> Value {
        Value::Text("x".repeat(bytes))
    }

    /// The tables of `good` with two more texts, `a` and `b`.
    fn manifest(change: impl FnOnce(&mut RawManifest)) -> Manifest {
        let mut raw = good();
        for name in ["a", "b"] {
            let mut column = raw.tables[0].columns[0].clone();
            column.name = name.into();
            column.nullable = true;
            raw.tables[0].columns.push(column);
            raw.writes[0].columns.push(name.into());
        }
        raw.writes[0].on_conflict = RawOnConflict::Ignore;
        change(&mut raw);
        Manifest::check(raw).expect("a good manifest")
    }

    fn index(raw: &mut RawManifest, columns: &[&str], unique: bool) {
        raw.tables[0].indexes.push(RawIndex {
            columns: columns.iter().map(|&name| name.to_owned()).collect(),
            unique,
        });
    }

    #[track_caller]
    fn check(manifest: &Manifest, sizes: [usize; 3], expected: Result<(), &str>) {
        let mut row = Row {
            write: 0,
            values: vec![
                text(sizes[0]),
                Value::Null,
                Value::Null,
                text(sizes[1]),
                text(sizes[2]),
            ],
        };
        let found = manifest.check_row(&mut row);
        assert_eq!(found, expected.map_err(str::to_owned), "{sizes:?}");
    }

    #[test]
    fn a_key_that_one_database_cannot_index_is_rejected_with_table_and_column() {
        let plain = manifest(|_| {});
        check(&plain, [2_600, 9_000, 9_000], Ok(()));
        check(
            &plain,
            [2_601, 0, 0],
            Err("table orders, column id: 2601 bytes in a key or index, and the limit is 2600"),
        );
    }

    #[test]
    fn the_columns_of_an_index_share_its_limit() {
        for unique in [true, false] {
            let two = manifest(|raw| index(raw, &["a", "at", "b"], unique));
            // Two columns after the first one, and a time.
            check(&two, [1, 1_288, 1_288], Ok(()));
            check(
                &two,
                [1, 1_288, 1_289],
                Err("table orders, columns a, b: 2577 bytes in a key or index, and the limit is 2576"),
            );
        }
    }

    #[test]
    fn columns_with_a_role_count_as_indexes() {
        for role in [DeclaredRole::Entity, DeclaredRole::Facet] {
            let by_role = manifest(|raw| raw.tables[0].columns[3].role = role);
            check(&by_role, [1, 2_600, 9_000], Ok(()));
            check(
                &by_role,
                [1, 2_601, 0],
                Err("table orders, column a: 2601 bytes in a key or index, and the limit is 2600"),
            );
        }
        let by_time = manifest(|raw| {
            raw.tables[0].columns[2].role = DeclaredRole::Time;
            raw.tables[0].columns[3].role = DeclaredRole::Facet;
        });
        check(&by_time, [1, 2_584, 0], Ok(()));
        check(
            &by_time,
            [1, 2_585, 0],
            Err("table orders, column a: 2585 bytes in a key or index, and the limit is 2584"),
        );
    }

    #[test]
    fn values_that_updates_combine_have_a_limit_each() {
        let update = |merges: &[(&str, Merge)]| {
            let merges = merges
                .iter()
                .map(|(name, merge)| ((*name).to_owned(), *merge))
                .collect();
            manifest(|raw| {
                index(raw, &["a", "b"], false);
                raw.writes[0].on_conflict = RawOnConflict::Update {
                    key: vec!["id".into()],
                    merges,
                    guard: RawGuard::Always,
                };
            })
        };
        let together = Err("table orders, columns a, b: 2593 bytes in a key or index, and the limit is 2592");
        for merges in [
            &[][..],
            &[("a", Merge::Replace), ("b", Merge::Replace)],
            &[("total", Merge::Add)],
        ] {
            check(&update(merges), [1, 2_000, 592], Ok(()));
            check(&update(merges), [1, 2_000, 593], together);
        }
        for merges in [
            &[("a", Merge::Replace)][..],
            &[("a", Merge::Fill), ("b", Merge::Fill)],
            &[("a", Merge::Max), ("b", Merge::Replace)],
        ] {
            check(&update(merges), [1, 1_296, 1_296], Ok(()));
            check(
                &update(merges),
                [1, 1_297, 1],
                Err(
                    "table orders, columns a, b: 1297 bytes in a key or index that updates combine from several rows, \
                     and the limit is 1296 for each column",
                ),
            );
        }
    }
}
