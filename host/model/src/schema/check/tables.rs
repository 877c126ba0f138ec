//! Checks the tables of a manifest: columns, roles, keys and indexes.

use super::{Problems, columns_of};
use crate::limits::{COLUMNS_MAX, INDEXES_MAX, UNIT_BYTES_MAX};
use crate::schema::{
    Column, ColumnName, ColumnType, DeclaredRole, Index, RawColumn, RawIndex, RawTable, Table, TableName,
};

pub(super) fn check_tables(raw: Vec<RawTable>, problems: &mut Problems) -> Option<Vec<Table>> {
    let declared = raw.len();
    let mut tables: Vec<Table> = Vec::with_capacity(declared);
    for table in raw {
        let Some(name) = problems.keep(TableName::parse(&table.name)) else {
            continue;
        };
        if tables.iter().any(|other| other.name == name) {
            problems.push(format!("table {name} is declared twice"));
        }
        if let Some(table) = check_table(name, table, problems) {
            tables.push(table);
        }
    }
    (tables.len() == declared).then_some(tables)
}

fn check_table(name: TableName, raw: RawTable, problems: &mut Problems) -> Option<Table> {
    let before = problems.0.len();
    let place = format!("table {name}");
    problems.bound(&format!("columns of {place}"), raw.columns.len(), COLUMNS_MAX);
    problems.bound(&format!("indexes of {place}"), raw.indexes.len(), INDEXES_MAX);
    problems.doc(&place, &raw.doc);
    problems.hints(&place, &raw.hints);
    let columns = check_columns(&place, raw.columns, problems);
    check_times(&place, &columns, raw.retention_days, problems);
    let primary_key = check_primary_key(&place, &raw.primary_key, &columns, problems);
    let indexes = check_indexes(&place, &raw.indexes, &columns, problems);
    (problems.0.len() == before).then_some(Table {
        name,
        doc: raw.doc,
        columns,
        primary_key,
        indexes,
        retention_days: raw.retention_days,
        hints: raw.hints,
    })
}

fn check_columns(place: &str, raw: Vec<RawColumn>, problems: &mut Problems) -> Vec<Column> {
    if raw.is_empty() {
        problems.push(format!("{place} has no columns"));
    }
    let mut columns: Vec<Column> = Vec::with_capacity(raw.len());
    for column in raw {
        let Some(name) = problems.keep_in(place, ColumnName::parse(&column.name)) else {
            continue;
        };
        if columns.iter().any(|other| other.name == name) {
            problems.push(format!("{place}: column {name} is declared twice"));
        }
        check_column(place, &name, &column, problems);
        columns.push(Column {
            name,
            column_type: column.column_type,
            nullable: column.nullable,
            role: column.role,
            doc: column.doc,
            hints: column.hints,
        });
    }
    columns
}

fn check_column(table: &str, name: &ColumnName, column: &RawColumn, problems: &mut Problems) {
    let place = format!("{table}, column {name}");
    problems.doc(&place, &column.doc);
    problems.hints(&place, &column.hints);
    if let DeclaredRole::Measure(unit) = &column.role {
        if unit.len() > UNIT_BYTES_MAX {
            problems.push(format!(
                "the unit of {place} is longer than {UNIT_BYTES_MAX} bytes"
            ));
        }
        problems.one_line("the unit", &place, unit);
    }
    if column.role == DeclaredRole::Time && column.column_type != ColumnType::Timestamp {
        problems.push(format!(
            "{table}: column {name} has the role time but is a {}",
            column.column_type
        ));
    }
}

fn check_times(place: &str, columns: &[Column], retention_days: Option<u32>, problems: &mut Problems) {
    let times = columns
        .iter()
        .filter(|column| column.role == DeclaredRole::Time)
        .count();
    if times > 1 {
        problems.push(format!("{place} has {times} columns with the role time"));
    }
    if retention_days.is_some() && times == 0 {
        problems.push(format!(
            "{place} has a retention in days, but no column has the role time"
        ));
    }
    if retention_days == Some(0) {
        problems.push(format!("{place} keeps rows for 0 days"));
    }
}

fn check_primary_key(
    place: &str,
    names: &[String],
    columns: &[Column],
    problems: &mut Problems,
) -> Vec<ColumnName> {
    let key = columns_of(place, "the primary key", names, columns, problems).unwrap_or_default();
    for name in &key {
        if columns
            .iter()
            .any(|column| column.name == *name && column.nullable)
        {
            problems.push(format!(
                "{place}: column {name} is in the primary key but nullable"
            ));
        }
    }
    key
}

fn check_indexes(place: &str, raw: &[RawIndex], columns: &[Column], problems: &mut Problems) -> Vec<Index> {
    let mut indexes = Vec::with_capacity(raw.len());
    for index in raw {
        if index.columns.is_empty() {
            problems.push(format!("{place} has an index without columns"));
        }
        if let Some(columns) = columns_of(place, "an index", &index.columns, columns, problems) {
            let unique = index.unique;
            indexes.push(Index { columns, unique });
        }
    }
    indexes
}
