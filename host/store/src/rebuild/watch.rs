//! A record of the rows that change while a rebuild compares its tables with those in use.
//!
//! Triggers record every inserted, updated and deleted row. The record is part of the transactions of the changes, so no
//! committed change is missing in it. In SQLite the triggers are in the temporary schema of the write connection, the only
//! one that writes; they are gone when the writer reopens the database, and the record then counts as incomplete. In
//! PostgreSQL they belong to the tables, and each statement records its changed chunks of rows once.

use std::collections::BTreeSet;

use crate::sql::{Connection, Engine};

use super::RebuildId;
use super::survey::stored_tables;
use crate::statement::quote_text;
use lantern_model::schema::Manifest;

/// Binary logarithm of the rows of a chunk: `rowid >> CHUNK_BITS` is its number. Reading a chunk again takes some hundred
/// microseconds, so the rows of random updates are compared again faster than they arrive, and the sums of ten million
/// rows take some tens of megabytes.
pub(super) const CHUNK_BITS: u32 = 8;

/// The changes of a row that are recorded, each with the row numbers that it affects.
const EVENTS: [(&str, &[&str]); 3] = [
    ("INSERT", &["NEW"]),
    ("UPDATE", &["OLD", "NEW"]),
    ("DELETE", &["OLD"]),
];

/// The name of the record, which is also the beginning of the names of its triggers.
fn name(id: RebuildId) -> String {
    format!("_lantern_changed_{}", id.0)
}

/// The record in statements.
fn record(connection: &Connection, id: RebuildId) -> String {
    match connection.engine() {
        Engine::Sqlite => format!("temp.{}", name(id)),
        Engine::Postgres => name(id),
    }
}

fn trigger(id: RebuildId, table: usize, event: &str) -> String {
    format!("{}_{table}_{event}", name(id))
}

/// Begins an empty record. Returns the watched tables: those of the plugin, and those of the rebuild.
pub(super) fn begin(
    connection: &Connection,
    id: RebuildId,
    manifest: &Manifest,
) -> Result<Vec<String>, crate::sql::Error> {
    end(connection, id)?;
    let stored = stored_tables(connection, manifest.name.as_str())?;
    let new = manifest.tables.iter().map(|table| table.name.of_rebuild(id.0));
    let mut tables: Vec<String> = stored.into_iter().map(|table| table.name).collect();
    tables.extend(new.map(|name| name.as_str().to_owned()));
    let kind = match connection.engine() {
        Engine::Sqlite => "TEMP TABLE",
        Engine::Postgres => "TABLE",
    };
    connection.execute_batch(&format!(
        "CREATE {kind} {} (watched BIGINT NOT NULL, changed BIGINT NOT NULL)",
        name(id)
    ))?;
    for (number, table) in tables.iter().enumerate() {
        for (event, rows) in EVENTS {
            connection.execute_batch(&match connection.engine() {
                Engine::Sqlite => trigger_of_connection(id, (number, table.as_str()), event, rows),
                Engine::Postgres => trigger_of_table(id, (number, table.as_str()), event),
            })?;
        }
    }
    Ok(tables)
}

/// A trigger of SQLite for each changed row.
fn trigger_of_connection(
    id: RebuildId,
    (number, table): (usize, &str),
    event: &str,
    rows: &[&str],
) -> String {
    let inserts = rows
        .iter()
        .map(|row| format!("INSERT INTO {} VALUES ({number}, {row}._rowid_);", name(id)));
    format!(
        "CREATE TEMP TRIGGER {} AFTER {event} ON main.{} BEGIN {} END",
        trigger(id, number, event),
        quote_text(table),
        inserts.collect::<String>()
    )
}

/// A trigger of PostgreSQL for each statement. An update never changes the number of a row.
fn trigger_of_table(id: RebuildId, (number, table): (usize, &str), event: &str) -> String {
    let rows = if event == "DELETE" { "OLD" } else { "NEW" };
    format!(
        "CREATE TRIGGER {} AFTER {event} ON {} REFERENCING {rows} TABLE AS changed_rows
         FOR EACH STATEMENT EXECUTE FUNCTION lantern_record_changes('{}', '{number}', '{CHUNK_BITS}')",
        quote_text(&trigger(id, number, event)),
        quote_text(table),
        name(id)
    )
}

/// Removes a record.
pub(super) fn end(connection: &Connection, id: RebuildId) -> Result<(), crate::sql::Error> {
    for (trigger, table) in triggers(connection, id)? {
        connection.execute_batch(&match connection.engine() {
            Engine::Sqlite => format!("DROP TRIGGER temp.{trigger}"),
            Engine::Postgres => format!("DROP TRIGGER {} ON {}", quote_text(&trigger), quote_text(&table)),
        })?;
    }
    connection.execute_batch(&format!("DROP TABLE IF EXISTS {}", record(connection, id)))
}

/// The triggers of a record, each with the table that it watches.
fn triggers(connection: &Connection, id: RebuildId) -> Result<Vec<(String, String)>, crate::sql::Error> {
    let sql = match connection.engine() {
        Engine::Sqlite => {
            "SELECT name, tbl_name FROM sqlite_temp_schema WHERE type = 'trigger' AND glob(?1, name)"
        }
        Engine::Postgres => "SELECT name, table_name FROM lantern_trigger WHERE glob(?1, name)",
    };
    connection
        .prepare(sql)?
        .query_map([format!("{}_*", name(id))], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

/// Whether every change to `tables` tables since [`begin`] was recorded.
fn is_complete(connection: &Connection, id: RebuildId, tables: usize) -> Result<bool, crate::sql::Error> {
    Ok(triggers(connection, id)?.len() == tables * EVENTS.len())
}

/// Takes the recorded changes: for each table the numbers of its changed chunks. `None` if the record is incomplete.
pub(super) fn take(
    connection: &Connection,
    id: RebuildId,
    tables: usize,
) -> Result<Option<Vec<BTreeSet<i64>>>, crate::sql::Error> {
    if !is_complete(connection, id, tables)? {
        return Ok(None);
    }
    let record = record(connection, id);
    let mut changed = vec![BTreeSet::new(); tables];
    let mut statement = connection.prepare(&format!(
        "SELECT DISTINCT watched, changed >> {CHUNK_BITS} FROM {record}"
    ))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if let Some(chunks) = changed.get_mut(row.get::<_, u32>(0)? as usize) {
            chunks.insert(row.get(1)?);
        }
    }
    connection.execute_batch(&format!("DELETE FROM {record}"))?;
    Ok(Some(changed))
}

/// Whether the record is complete, and no row has changed since [`take`].
pub(super) fn is_unchanged(
    connection: &Connection,
    id: RebuildId,
    tables: usize,
) -> Result<bool, crate::sql::Error> {
    if !is_complete(connection, id, tables)? {
        return Ok(false);
    }
    connection.query_row(
        &format!("SELECT NOT EXISTS (SELECT 1 FROM {})", record(connection, id)),
        [],
        |row| row.get(0),
    )
}
