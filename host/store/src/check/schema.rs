//! Whether a database has all tables and indexes: the host's own, compared with a database that the migrations create in
//! memory, and those of plugins, compared with their declarations.

use std::collections::BTreeMap;

use crate::sql::{Connection, Engine, postgres};

use super::super::description::TableDescription;
use super::super::indexes::existing::{ExistingIndex, indexes_of, missing_columns};
use super::super::indexes::{ROWS_MAX, is_too_large};
use super::super::migrations::MIGRATIONS;
use super::super::segments::has_segments;
use super::super::statement::ORIGIN_COLUMNS;
use super::{CheckError, RESTORE, Report, rebuild};

/// Fails when a later version wrote the database, or when it has not been upgraded to this version. Returns the
/// version.
pub(super) fn check_version(connection: &Connection) -> Result<i64, CheckError> {
    let (known, sql) = match connection.engine() {
        Engine::Sqlite => {
            let known = MIGRATIONS.iter().map(|migration| migration.version).max();
            (
                known.unwrap_or_default(),
                "SELECT max(version) FROM _sqlx_migrations",
            )
        }
        Engine::Postgres => (
            postgres::latest_migration(),
            "SELECT max(version) FROM _lantern_migration",
        ),
    };
    let found: Option<i64> = connection.query_row(sql, [], |row| row.get(0))?;
    let found = found.unwrap_or_default();
    match found.cmp(&known) {
        std::cmp::Ordering::Greater => Err(CheckError::Newer { found, known }),
        std::cmp::Ordering::Less => Err(CheckError::Older { found, known }),
        std::cmp::Ordering::Equal => Ok(found),
    }
}

/// Compares the host's tables and indexes with those that the migrations create.
pub(super) fn check_host(connection: &Connection, report: &mut Report) -> Result<(), crate::sql::Error> {
    match connection.engine() {
        Engine::Sqlite => check_host_of_file(connection, report),
        Engine::Postgres => check_host_of_server(connection, report),
    }
}

fn check_host_of_server(connection: &Connection, report: &mut Report) -> Result<(), crate::sql::Error> {
    for (kind, name) in postgres::created() {
        if !connection.has_relation(name)? {
            report.problem(format!("{kind} {name} is missing"), RESTORE);
        }
    }
    Ok(())
}

fn check_host_of_file(connection: &Connection, report: &mut Report) -> Result<(), crate::sql::Error> {
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

/// The host's tables and indexes by name, with their kind and the statement that creates them.
fn host_schema(connection: &Connection) -> Result<BTreeMap<String, (String, String)>, crate::sql::Error> {
    let sql = "SELECT name, type, coalesce(sql, '') FROM sqlite_schema
               WHERE tbl_name LIKE '\\_lantern\\_%' ESCAPE '\\' AND type IN ('table', 'index') AND sql IS NOT NULL";
    connection
        .prepare(sql)?
        .query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?
        .collect()
}

/// Each table of a plugin has the indexes that it declared, and those that the host creates for queries of the API.
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
        let existing = indexes_of(connection, &table)?;
        let has_segments = has_segments(connection, &table)?;
        for (columns, unique) in declared(&description, has_segments) {
            let is_declared = |index: &ExistingIndex| index.columns == columns && (index.unique || !unique);
            if !existing.iter().any(is_declared) {
                let kind = if unique { "unique index" } else { "index" };
                report.problem(
                    format!("{plugin}: table {table} has no {kind} ({})", columns.join(", ")),
                    rebuild(&plugin),
                );
            }
        }
        for columns in missing_columns(&existing, &description, has_segments) {
            // The host leaves large tables without it.
            if !is_too_large(connection, &table, ROWS_MAX)? {
                report.problem(
                    format!("{plugin}: table {table} has no index ({})", columns.join(", ")),
                    "start the host, which creates it",
                );
            }
        }
    }
    Ok(())
}

/// The columns of the indexes that every table without segments has or that its plugin declared, and whether each is unique.
fn declared(description: &TableDescription, has_segments: bool) -> impl Iterator<Item = (Vec<String>, bool)> {
    let declared = description.indexes.iter();
    let origin = (ORIGIN_COLUMNS.map(str::to_owned).to_vec(), true);
    std::iter::once(origin)
        .filter(move |_| !has_segments)
        .chain(declared.map(|index| (index.columns.clone(), index.unique)))
}
