//! The number of a rebuild and the names of its tables.

use super::RebuildId;
use crate::sql::{Connection, Engine};
use lantern_model::schema::Manifest;

/// The same plugin, with the table names of the rebuild.
pub(super) fn shadow(id: RebuildId, manifest: &Manifest) -> Manifest {
    let mut shadow = manifest.clone();
    for table in &mut shadow.tables {
        table.name = table.name.of_rebuild(id.0);
    }
    shadow
}

/// A number that neither a rebuild nor a table of an earlier one has. The removal of a plugin removes its rebuilds at once,
/// but their tables only after a while.
pub(super) fn next_id(connection: &Connection) -> Result<RebuildId, crate::sql::Error> {
    if connection.engine() == Engine::Postgres {
        // It never repeats a number.
        let sql = "SELECT nextval(pg_get_serial_sequence('_lantern_rebuild', 'id'))";
        return connection.query_row(sql, [], |row| row.get(0)).map(RebuildId);
    }
    let recorded: i64 =
        connection.query_row("SELECT coalesce(max(id), 0) FROM _lantern_rebuild", [], |row| {
            row.get(0)
        })?;
    let tables: Vec<String> = connection
        .prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND instr(name, '#') > 0")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let numbers = tables
        .iter()
        .filter_map(|name| name.split('#').nth(1)?.parse().ok());
    Ok(RebuildId(numbers.fold(recorded, i64::max) + 1))
}
