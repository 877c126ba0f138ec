//! Checks the writes of a manifest: columns, keys, merge rules and guards.

use super::{Problems, clean, columns_of};
use crate::schema::{
    ColumnName, Guard, Merge, OnConflict, RawGuard, RawOnConflict, RawWrite, Table, UpdateRule, Write,
};

pub(super) fn check_writes(
    raw: &[RawWrite],
    tables: &[Table],
    problems: &mut Problems,
) -> Option<Vec<Write>> {
    let mut writes = Vec::with_capacity(raw.len());
    for (number, write) in raw.iter().enumerate() {
        let place = format!("write {number} (into {:?})", clean(&write.table));
        let Some(index) = tables.iter().position(|table| table.name.as_str() == write.table) else {
            problems.push(format!("{place}: the plugin declares no such table"));
            continue;
        };
        if let Some(write) = check_write(&place, write, index, &tables[index], problems) {
            writes.push(write);
        }
    }
    (writes.len() == raw.len()).then_some(writes)
}

fn check_write(
    place: &str,
    raw: &RawWrite,
    table_index: usize,
    table: &Table,
    problems: &mut Problems,
) -> Option<Write> {
    let before = problems.0.len();
    if raw.columns.is_empty() {
        problems.push(format!("{place} names no columns"));
    }
    let names = columns_of(place, "the write", &raw.columns, &table.columns, problems)?;
    let columns: Vec<usize> = names
        .iter()
        .filter_map(|name| table.columns.iter().position(|column| column.name == *name))
        .collect();
    for column in &table.columns {
        if !column.nullable && !names.contains(&column.name) {
            problems.push(format!(
                "{place} leaves out column {}, which is not nullable",
                column.name
            ));
        }
    }
    let on_conflict = match &raw.on_conflict {
        RawOnConflict::Fail => Some(OnConflict::Fail),
        RawOnConflict::Ignore => Some(OnConflict::Ignore),
        RawOnConflict::Update { key, merges, guard } => {
            check_update(place, key, merges, guard, &names, table, problems).map(OnConflict::Update)
        }
    };
    match (on_conflict, problems.0.len() == before) {
        (Some(on_conflict), true) => Some(Write {
            table: table_index,
            columns,
            on_conflict,
        }),
        _ => None,
    }
}

fn check_update(
    place: &str,
    key: &[String],
    raw_merges: &[(String, Merge)],
    guard: &RawGuard,
    written: &[ColumnName],
    table: &Table,
    problems: &mut Problems,
) -> Option<UpdateRule> {
    let key = columns_of(place, "the key of the update", key, &table.columns, problems)?;
    if !table.has_key(&key) {
        let names: Vec<&str> = key.iter().map(ColumnName::as_str).collect();
        problems.push(format!(
            "{place} updates by ({}), which is neither the primary key nor a unique index of {}",
            names.join(", "),
            table.name
        ));
    }
    let names: Vec<String> = raw_merges.iter().map(|(column, _)| column.clone()).collect();
    let named = columns_of(place, "a merge rule", &names, &table.columns, problems)?;
    let rules = raw_merges.iter().map(|(_, merge)| *merge);
    let merges: Vec<(ColumnName, Merge)> = named.into_iter().zip(rules).collect();
    for (name, merge) in merges.iter().filter(|(_, merge)| *merge != Merge::Keep) {
        check_merge(place, name, *merge, &key, written, table, problems);
    }
    let guard = check_guard(place, guard, written, table, problems)?;
    Some(UpdateRule { key, merges, guard })
}

/// Checks a merge rule that changes its column.
fn check_merge(
    place: &str,
    name: &ColumnName,
    merge: Merge,
    key: &[ColumnName],
    written: &[ColumnName],
    table: &Table,
    problems: &mut Problems,
) {
    let is_numeric = table
        .column(name)
        .is_some_and(|column| column.column_type.is_numeric());
    if merge == Merge::Add && !is_numeric {
        problems.push(format!(
            "{place}: column {name} is not a number and cannot be added to"
        ));
    }
    if key.contains(name) {
        problems.push(format!(
            "{place}: column {name} is part of the key and cannot change"
        ));
    }
    if !written.contains(name) {
        problems.push(format!(
            "{place}: column {name} has a merge rule, but the write does not contain it"
        ));
    }
}

fn check_guard(
    place: &str,
    guard: &RawGuard,
    written: &[ColumnName],
    table: &Table,
    problems: &mut Problems,
) -> Option<Guard> {
    let (RawGuard::WhileNull(name) | RawGuard::Newer(name)) = guard else {
        return Some(Guard::Always);
    };
    let names = std::slice::from_ref(name);
    let column = columns_of(place, "the guard", names, &table.columns, problems)?.pop()?;
    if matches!(guard, RawGuard::WhileNull(_)) {
        return Some(Guard::WhileNull(column));
    }
    if !written.contains(&column) {
        problems.push(format!(
            "{place}: the guard compares {column}, which the write does not contain"
        ));
    }
    Some(Guard::Newer(column))
}
