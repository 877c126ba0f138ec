//! Compares the results of two versions for the same messages, table by table: rows that are equal, changed, or only in
//! one, matched by the table's key. It reads two scratch databases and keeps only the examples in memory.

use crate::sql::Connection;

use super::commit::OriginId;
use super::row_view::{RowView, ViewColumn, row_view};
use super::scratch::{Scratch, ScratchError};
use super::statement::{ORIGIN_COLUMNS, quote_text};
use super::values::from_sql;
pub use lantern_model::results::canary::{RowExample, TableComparison};
use lantern_model::schema::{ColumnName, Table};

/// Examples per kind and table.
const EXAMPLES: usize = 10;
/// Bytes after which an example truncates a value.
const VALUE_BYTES: usize = 200;

/// Compares all tables of two versions, or counts those of the candidate if no version is active. Blocks.
///
/// # Errors
/// See [`ScratchError`].
pub fn compare(old: Option<&Scratch>, new: &Scratch) -> Result<Vec<TableComparison>, ScratchError> {
    let connection = Connection::open_in_memory()?;
    attach(&connection, new, "new")?;
    if let Some(old) = old {
        attach(&connection, old, "old")?;
    }
    let no_tables = Vec::new();
    let old_tables = old.map_or(&no_tables, |old| &old.plugin.manifest.tables);
    let mut compared = Vec::new();
    for table in &new.plugin.manifest.tables {
        let comparison = match old_tables.iter().find(|before| before.name == table.name) {
            Some(before) => both(&connection, new, before, table)?,
            None => one(&connection, new, table, "new")?,
        };
        compared.push(comparison);
    }
    for table in old_tables {
        if !new
            .plugin
            .manifest
            .tables
            .iter()
            .any(|after| after.name == table.name)
        {
            compared.push(one(&connection, new, table, "old")?);
        }
    }
    Ok(compared)
}

fn attach(connection: &Connection, scratch: &Scratch, name: &str) -> Result<(), ScratchError> {
    let path = scratch.file.0.display().to_string();
    connection.execute(&format!("ATTACH DATABASE ?1 AS {name}"), [path])?;
    Ok(())
}

/// The columns that match rows of two versions.
fn key(old: &Table, new: &Table) -> Vec<String> {
    let names = |columns: &[ColumnName]| columns.iter().map(ToString::to_string).collect();
    if !new.primary_key.is_empty() && old.primary_key == new.primary_key {
        return names(&new.primary_key);
    }
    // Null does not equal null, so a key that contains nulls matches nothing.
    let whole = |table: &Table, columns: &[ColumnName]| {
        columns
            .iter()
            .all(|name| table.column(name).is_some_and(|column| !column.nullable))
    };
    let unique = new.indexes.iter().find(|index| {
        index.unique
            && old.indexes.contains(index)
            && whole(old, &index.columns)
            && whole(new, &index.columns)
    });
    match unique {
        Some(index) => names(&index.columns),
        None => ORIGIN_COLUMNS.map(str::to_owned).to_vec(),
    }
}

/// A table that only one version has.
fn one(
    connection: &Connection,
    scratch: &Scratch,
    table: &Table,
    side: &str,
) -> Result<TableComparison, ScratchError> {
    let columns: Vec<ViewColumn> = table.columns.iter().map(ViewColumn::from).collect();
    let quoted = quote_text(table.name.as_str());
    let rows = count(connection, &format!("SELECT count(*) FROM {side}.{quoted}"))?;
    let is_old = side == "old";
    let examples = examples_of(
        connection,
        scratch,
        &format!("{side}.{quoted} AS t"),
        "t",
        &columns,
        side,
    )?;
    Ok(TableComparison {
        table: table.name.to_string(),
        key: key(table, table),
        same: 0,
        changed: 0,
        only_old: if is_old { rows } else { 0 },
        only_new: if is_old { 0 } else { rows },
        examples,
    })
}

fn both(
    connection: &Connection,
    scratch: &Scratch,
    old: &Table,
    new: &Table,
) -> Result<TableComparison, ScratchError> {
    let key = key(old, new);
    let (before, after): (Vec<ViewColumn>, Vec<ViewColumn>) = (
        old.columns.iter().map(ViewColumn::from).collect(),
        new.columns.iter().map(ViewColumn::from).collect(),
    );
    let table = quote_text(new.name.as_str());
    let on: Vec<String> = key
        .iter()
        .map(|name| quote_text(name))
        .map(|name| format!("x.{name} = y.{name}"))
        .collect();
    let on = on.join(" AND ");
    let same = same(&before, &after);
    let (matched, alike) = connection.query_row(
        &format!(
            "SELECT count(*), coalesce(sum({same}), 0) FROM old.{table} AS x JOIN new.{table} AS y ON {on}"
        ),
        [],
        |row| Ok((row.get(0).map(from_sql)?, row.get(1).map(from_sql)?)),
    )?;
    let total = |side: &str| count(connection, &format!("SELECT count(*) FROM {side}.{table}"));
    let mut shown = examples(
        connection,
        scratch,
        &format!(
            "SELECT y._origin, y._sequence, {}, {} FROM old.{table} AS x JOIN new.{table} AS y ON {on}
             WHERE NOT ({same}) LIMIT {EXAMPLES}",
            list("x", &before),
            list("y", &after)
        ),
        |row| {
            let old = row_view(row, 2, &before, VALUE_BYTES)?;
            let new = row_view(row, 2 + before.len(), &after, VALUE_BYTES)?;
            Ok((Some(old), Some(new)))
        },
    )?;
    for (side, other, columns) in [("old", "new", &before), ("new", "old", &after)] {
        let rows =
            format!("{side}.{table} AS x WHERE NOT EXISTS (SELECT 1 FROM {other}.{table} AS y WHERE {on})");
        shown.extend(examples_of(connection, scratch, &rows, "x", columns, side)?);
    }
    Ok(TableComparison {
        table: new.name.to_string(),
        key,
        same: alike,
        changed: matched.saturating_sub(alike),
        only_old: total("old")?.saturating_sub(matched),
        only_new: total("new")?.saturating_sub(matched),
        examples: shown,
    })
}

/// The condition that two matched rows are equal. A column that one version does not have is null there, as in a table
/// that was extended.
fn same(before: &[ViewColumn], after: &[ViewColumn]) -> String {
    let has = |columns: &[ViewColumn], name: &str| columns.iter().any(|column| column.name == name);
    let mut conditions: Vec<String> = Vec::new();
    for column in before {
        let name = quote_text(&column.name);
        conditions.push(if has(after, &column.name) {
            format!("x.{name} IS y.{name}")
        } else {
            format!("x.{name} IS NULL")
        });
    }
    for column in after.iter().filter(|column| !has(before, &column.name)) {
        conditions.push(format!("y.{} IS NULL", quote_text(&column.name)));
    }
    conditions.join(" AND ")
}

fn list(alias: &str, columns: &[ViewColumn]) -> String {
    let names: Vec<String> = columns
        .iter()
        .map(|column| format!("{alias}.{}", quote_text(&column.name)))
        .collect();
    names.join(", ")
}

fn count(connection: &Connection, sql: &str) -> Result<u64, ScratchError> {
    Ok(connection.query_row(sql, [], |row| row.get(0).map(from_sql))?)
}

/// Examples of rows that only one side has. `rows` follows `FROM`, and names the table `alias`.
fn examples_of(
    connection: &Connection,
    scratch: &Scratch,
    rows: &str,
    alias: &str,
    columns: &[ViewColumn],
    side: &str,
) -> Result<Vec<RowExample>, ScratchError> {
    let sql = format!(
        "SELECT {alias}._origin, {alias}._sequence, {} FROM {rows} LIMIT {EXAMPLES}",
        list(alias, columns)
    );
    examples(connection, scratch, &sql, |row| {
        let shown = Some(row_view(row, 2, columns, VALUE_BYTES)?);
        Ok(if side == "old" {
            (shown, None)
        } else {
            (None, shown)
        })
    })
}

type OldAndNew = (Option<RowView>, Option<RowView>);

fn examples(
    connection: &Connection,
    scratch: &Scratch,
    sql: &str,
    mut rows: impl FnMut(&crate::sql::Row<'_>) -> Result<OldAndNew, crate::sql::Error>,
) -> Result<Vec<RowExample>, ScratchError> {
    let mut statement = connection.prepare(sql)?;
    let found = statement.query_map([], |row| {
        let (old, new) = rows(row)?;
        Ok(RowExample {
            source: scratch.source_of(OriginId(row.get(0)?)),
            sequence: row.get(1).map(from_sql)?,
            old,
            new,
        })
    })?;
    Ok(found.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{adoption, entry, note, order, orders};
    use crate::{Store, StoreConfig};
    use lantern_model::batch::Outcome;
    use lantern_model::schema::Manifest;

    async fn scratch(store: &Store, manifest: Manifest) -> Scratch {
        let sources = vec!["orders".to_owned()];
        store.scratch(adoption(manifest), sources).await.unwrap()
    }

    fn fill(scratch: &mut Scratch, outcomes: Vec<Outcome>) {
        let entries = (1..)
            .zip(outcomes)
            .map(|(sequence, outcome)| entry(sequence, outcome));
        scratch.apply("orders", entries.collect()).unwrap();
    }

    fn numbers(table: &TableComparison) -> [u64; 4] {
        [table.same, table.changed, table.only_old, table.only_new]
    }

    #[tokio::test]
    async fn rows_are_matched_by_their_key_or_else_by_their_message() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(StoreConfig::new(dir.path())).await.unwrap();
        let (mut old, mut new) = (scratch(&store, orders()).await, scratch(&store, orders()).await);
        // The same order from another message is the same row; the same note is not.
        fill(
            &mut old,
            vec![order("a", 1), order("b", 2), order("c", 3), note(7), note(8)],
        );
        fill(
            &mut new,
            vec![
                order("b", 2),
                order("a", 10),
                order("d", 4),
                note(7),
                Outcome::Skip,
                note(8),
            ],
        );
        let compared = compare(Some(&old), &new).unwrap();
        assert_eq!(compared[0].key, ["id"]);
        assert_eq!(numbers(&compared[0]), [1, 1, 1, 1]);
        assert_eq!(compared[1].key, ORIGIN_COLUMNS);
        assert_eq!(numbers(&compared[1]), [1, 0, 1, 1]);
        let changed = &compared[0].examples[0];
        assert_eq!((changed.source.as_str(), changed.sequence), ("orders", 2));
        let total = |row: &Option<RowView>| {
            serde_json::from_str::<serde_json::Value>(row.as_ref().unwrap().json()).unwrap()["total"].clone()
        };
        assert_eq!((total(&changed.old), total(&changed.new)), (1.into(), 10.into()));
        assert_eq!(new.counts().skipped, 1);
        let alone = compare(None, &new).unwrap();
        assert_eq!(numbers(&alone[0]), [0, 0, 0, 3]);
        let folder = dir.path().join("scratch");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 2);
        drop((old, new));
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
        store.close().await;
    }

    #[tokio::test]
    async fn rejected_rows_are_counted_and_a_batch_that_cannot_be_stored_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(StoreConfig::new(dir.path())).await.unwrap();
        let mut one = scratch(&store, orders()).await;
        fill(&mut one, vec![order("a", 1), order("a", 2)]);
        assert_eq!((one.counts().projected, one.counts().dead), (1, 1));
        let rejects = one.rejects().unwrap();
        assert_eq!(
            (rejects[0].class.as_str(), rejects[0].rejected),
            ("constraint", 1)
        );
        assert_eq!(rejects[0].examples[0].sequence, 2);
        one.connection.execute_batch("PRAGMA max_page_count = 1").unwrap();
        let many = (3..20_000).map(|sequence| entry(sequence, note(1))).collect();
        let full = one.apply("orders", many).unwrap_err();
        assert!(matches!(full, ScratchError::Full), "{full:?}");
        assert_eq!(one.counts().messages, 2);
        assert_eq!(numbers(&compare(None, &one).unwrap()[1]), [0; 4]);
        store.close().await;
    }
}
