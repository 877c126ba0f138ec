//! Whether a database has the tables and indexes that it should have: the host's own, by comparing with a database that
//! the migrations made in memory, and those of plugins, by comparing with what they declared.

use std::collections::BTreeMap;

use rusqlite::Connection;

use super::super::MIGRATIONS;
use super::super::description::TableDescription;
use super::super::indexes::{ROWS_MAX, indexes_of, needed, rows_at_most};
use super::super::statement::ORIGIN_COLUMNS;
use super::{CheckError, RESTORE, Report, rebuild};

/// Fails when the database was written by a later version, or has not been upgraded to this one.
/// Returns the version.
pub(super) fn check_version(connection: &Connection) -> Result<i64, CheckError> {
    let known = MIGRATIONS.iter().map(|migration| migration.version).max();
    let known = known.unwrap_or_default();
    let found: Option<i64> =
        connection.query_row("SELECT max(version) FROM _sqlx_migrations", [], |row| row.get(0))?;
    let found = found.unwrap_or_default();
    match found.cmp(&known) {
        std::cmp::Ordering::Greater => Err(CheckError::Newer { found, known }),
        std::cmp::Ordering::Less => Err(CheckError::Older { found, known }),
        std::cmp::Ordering::Equal => Ok(found),
    }
}

/// The host's tables and indexes are those that the migrations make.
pub(super) fn check_host(connection: &Connection, report: &mut Report) -> Result<(), rusqlite::Error> {
    let reference = Connection::open_in_memory()?;
    for migration in MIGRATIONS.iter() {
        reference.execute_batch(migration.sql.as_str())?;
    }
    let there = host_schema(connection)?;
    for (name, (kind, sql)) in host_schema(&reference)? {
        match there.get(&name) {
            None if kind == "index" => report.problem(
                format!("index {name} is missing"),
                format!("stop the host and run in SQLite: {sql}"),
            ),
            None => report.problem(format!("{kind} {name} is missing"), RESTORE),
            Some((_, found)) if kind == "index" && *found != sql => report.problem(
                format!("index {name} was changed"),
                format!("stop the host and run in SQLite: DROP INDEX {name}; {sql}"),
            ),
            Some(_) => {}
        }
    }
    Ok(())
}

/// The host's tables and indexes by name, with their kind and the statement that makes them.
fn host_schema(connection: &Connection) -> Result<BTreeMap<String, (String, String)>, rusqlite::Error> {
    let sql = "SELECT name, type, coalesce(sql, '') FROM sqlite_schema
               WHERE tbl_name LIKE '\\_lantern\\_%' ESCAPE '\\' AND type IN ('table', 'index') AND sql IS NOT NULL";
    connection
        .prepare(sql)?
        .query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?
        .collect()
}

/// Each table of a plugin has the indexes that it declared, and those that the host makes for the questions of the API.
pub(super) fn check_indexes(connection: &Connection, report: &mut Report) -> Result<(), CheckError> {
    let mut statement = connection.prepare(
        "SELECT t.name, t.plugin, t.description FROM _lantern_table t
         JOIN sqlite_schema s ON s.type = 'table' AND s.name = t.name ORDER BY t.plugin, t.name",
    )?;
    let tables: Vec<(String, String, String)> = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<Result<_, _>>()?;
    for (table, plugin, description) in tables {
        let description: TableDescription = match serde_json::from_str(&description) {
            Ok(description) => description,
            Err(error) => {
                report.problem(
                    format!("{plugin}: the description of table {table} cannot be read: {error}"),
                    RESTORE,
                );
                continue;
            }
        };
        let there = indexes_of(connection, &table)?;
        let unique = unique_indexes_of(connection, &table)?;
        let list = |columns: &[String]| columns.join(", ");
        let origin = ORIGIN_COLUMNS.map(str::to_owned).to_vec();
        if !unique.contains(&origin) {
            report.problem(
                format!("{plugin}: table {table} has no unique index ({})", list(&origin)),
                rebuild(&plugin),
            );
        }
        for index in &description.indexes {
            let found = if index.unique { &unique } else { &there };
            if !found.contains(&index.columns) {
                let kind = if index.unique { "unique index" } else { "index" };
                report.problem(
                    format!("{plugin}: table {table} has no {kind} ({})", list(&index.columns)),
                    rebuild(&plugin),
                );
            }
        }
        for columns in needed(&description) {
            if there.iter().any(|index| index.starts_with(&columns)) {
                continue;
            }
            // The host leaves large tables without it.
            if rows_at_most(connection, &table)? <= ROWS_MAX {
                report.problem(
                    format!("{plugin}: table {table} has no index ({})", list(&columns)),
                    "start the host, which creates it",
                );
            }
        }
    }
    Ok(())
}

/// The columns of each unique index.
fn unique_indexes_of(connection: &Connection, table: &str) -> Result<Vec<Vec<String>>, rusqlite::Error> {
    let names: Vec<String> = connection
        .prepare("SELECT name FROM pragma_index_list(?1) WHERE partial = 0 AND \"unique\" = 1")?
        .query_map([table], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut columns =
        connection.prepare("SELECT coalesce(name, '') FROM pragma_index_info(?1) ORDER BY seqno")?;
    names
        .iter()
        .map(|name| columns.query_map([name], |row| row.get(0))?.collect())
        .collect()
}
