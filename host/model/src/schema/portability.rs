//! Declarations that one of the supported databases cannot hold. The host rejects a new version that contains one. A
//! version that an earlier release installed keeps running, because the database in use holds its tables.

use super::{Manifest, Problem, Table};
use crate::limits::{KEY_COLUMNS_MAX, SYSTEM_COLUMNS, TABLE_NAME_BYTES_MAX};

impl Manifest {
    /// The declarations that some supported database cannot hold; empty for a portable manifest.
    pub fn portability_problems(&self) -> Vec<Problem> {
        self.tables.iter().flat_map(problems_of).map(Problem).collect()
    }
}

fn problems_of(table: &Table) -> Vec<String> {
    let name = table.name.as_str();
    let mut problems = Vec::new();
    if name.len() > TABLE_NAME_BYTES_MAX {
        problems.push(format!(
            "table name {name:?} is longer than {TABLE_NAME_BYTES_MAX} characters"
        ));
    }
    let system = |name: &&str| SYSTEM_COLUMNS.contains(name);
    let names = table.columns.iter().map(|column| column.name.as_str());
    for column in names.filter(system) {
        problems.push(format!(
            "table {name}: column {column} has the name of a system column of PostgreSQL"
        ));
    }
    let declared = table.indexes.iter().map(|index| &index.columns);
    for columns in std::iter::once(&table.primary_key).chain(declared) {
        if columns.len() > KEY_COLUMNS_MAX {
            problems.push(format!(
                "table {name}: a key or index has {} columns, and the limit is {KEY_COLUMNS_MAX}",
                columns.len()
            ));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::check::tests::{column, good};
    use crate::schema::{ColumnType, RawManifest};

    #[track_caller]
    fn check(change: impl FnOnce(&mut RawManifest), expected: &[&str]) {
        let mut raw = good();
        change(&mut raw);
        let manifest = Manifest::check(raw).expect("this host can run it");
        let found: Vec<String> = manifest
            .portability_problems()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found, expected);
    }

    fn rename(raw: &mut RawManifest, name: String) {
        raw.writes[0].table.clone_from(&name);
        raw.tables[0].name = name;
    }

    #[test]
    fn names_and_keys_that_postgresql_cannot_hold_are_not_portable() {
        check(|_| {}, &[]);
        check(|raw| rename(raw, "t".repeat(48)), &[]);
        check(
            |raw| rename(raw, "t".repeat(49)),
            &[&format!(
                "table name {:?} is longer than 48 characters",
                "t".repeat(49)
            )],
        );
        check(
            |raw| raw.tables[0].columns.push(column("xmin", ColumnType::Real, true)),
            &["table orders: column xmin has the name of a system column of PostgreSQL"],
        );
        let wide = |columns: usize| {
            move |raw: &mut RawManifest| {
                let names = (0..columns).map(|number| format!("c{number}"));
                let declared = names.clone().map(|name| column(&name, ColumnType::Integer, true));
                raw.tables[0].columns.extend(declared);
                raw.tables[0].indexes[0].columns = names.collect();
            }
        };
        check(wide(28), &[]);
        check(
            wide(29),
            &["table orders: a key or index has 29 columns, and the limit is 28"],
        );
    }

    #[test]
    fn a_column_name_that_postgresql_would_truncate_is_rejected() {
        let mut raw = good();
        raw.tables[0]
            .columns
            .push(column(&"c".repeat(63), ColumnType::Real, true));
        assert!(Manifest::check(raw.clone()).is_ok());
        raw.tables[0]
            .columns
            .push(column(&"d".repeat(64), ColumnType::Real, true));
        let problems = Manifest::check(raw).unwrap_err();
        assert!(
            problems[0].to_string().contains("is longer than 63 characters"),
            "{problems:?}"
        );
    }
}
