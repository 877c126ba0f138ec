//! A record of the rows that change while a rebuild compares its tables with those in use.
//!
//! Triggers in the temporary schema of the write connection record every inserted, updated and deleted row. Only this
//! connection writes, and the record is part of its transactions, so no committed change is missing in it. The triggers
//! are gone when the writer reopens the database; the record then counts as incomplete.

use std::collections::BTreeSet;

use crate::sql::Connection;

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

fn record(id: RebuildId) -> String {
    format!("_lantern_changed_{}", id.0)
}

fn trigger(id: RebuildId, table: usize, event: &str) -> String {
    format!("{}_{table}_{event}", record(id))
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
    let record = record(id);
    connection.execute_batch(&format!(
        "CREATE TEMP TABLE {record} (watched INTEGER NOT NULL, changed INTEGER NOT NULL)"
    ))?;
    for (number, table) in tables.iter().enumerate() {
        for (event, rows) in EVENTS {
            let inserts = rows
                .iter()
                .map(|row| format!("INSERT INTO {record} VALUES ({number}, {row}._rowid_);"));
            connection.execute_batch(&format!(
                "CREATE TEMP TRIGGER {} AFTER {event} ON main.{} BEGIN {} END",
                trigger(id, number, event),
                quote_text(table),
                inserts.collect::<String>()
            ))?;
        }
    }
    Ok(tables)
}

/// Removes a record.
pub(super) fn end(connection: &Connection, id: RebuildId) -> Result<(), crate::sql::Error> {
    let triggers: Vec<String> = connection
        .prepare("SELECT name FROM sqlite_temp_schema WHERE type = 'trigger' AND glob(?1, name)")?
        .query_map([trigger_glob(id)], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for trigger in triggers {
        connection.execute_batch(&format!("DROP TRIGGER temp.{trigger}"))?;
    }
    connection.execute_batch(&format!("DROP TABLE IF EXISTS temp.{}", record(id)))
}

fn trigger_glob(id: RebuildId) -> String {
    format!("{}_*", record(id))
}

/// Whether every change to `tables` tables since [`begin`] was recorded.
fn is_complete(connection: &Connection, id: RebuildId, tables: usize) -> Result<bool, crate::sql::Error> {
    let triggers: u32 = connection.query_row(
        "SELECT count(*) FROM sqlite_temp_schema WHERE type = 'trigger' AND glob(?1, name)",
        [trigger_glob(id)],
        |row| row.get(0),
    )?;
    Ok(triggers as usize == tables * EVENTS.len())
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
    let record = record(id);
    let mut changed = vec![BTreeSet::new(); tables];
    let mut statement = connection.prepare(&format!(
        "SELECT DISTINCT watched, changed >> {CHUNK_BITS} FROM temp.{record}"
    ))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if let Some(chunks) = changed.get_mut(row.get::<_, u32>(0)? as usize) {
            chunks.insert(row.get(1)?);
        }
    }
    connection.execute_batch(&format!("DELETE FROM temp.{record}"))?;
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
        &format!("SELECT NOT EXISTS (SELECT 1 FROM temp.{})", record(id)),
        [],
        |row| row.get(0),
    )
}
