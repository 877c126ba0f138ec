//! The indexes that a table has, and how the host adds one.

use super::needed::needed;
use crate::description::TableDescription;
use crate::sql::{Connection, Engine, OptionalExtension as _};
use crate::statement::{IndexKind, NewIndex, ORIGIN_COLUMNS, quote_text};

/// An index of a table.
pub(crate) struct ExistingIndex {
    pub(crate) columns: Vec<String>,
    pub(crate) unique: bool,
}

/// The columns of the indexes that a table should have and does not.
pub(crate) fn missing_columns(
    existing: &[ExistingIndex],
    table: &TableDescription,
    has_segments: bool,
) -> Vec<Vec<String>> {
    let is_served = |columns: &Vec<String>| existing.iter().any(|index| index.columns.starts_with(columns));
    let needed = needed(table, has_segments).into_iter();
    needed.filter(|columns| !is_served(columns)).collect()
}

/// Returns the indexes of a table, regardless of their names: after a rebuild they keep the names of the rebuilt tables.
pub(crate) fn indexes_of(
    connection: &Connection,
    table: &str,
) -> Result<Vec<ExistingIndex>, crate::sql::Error> {
    let mut statement = connection.prepare(connection.engine().index_columns())?;
    let mut parts = statement.query([table])?;
    let mut indexes: Vec<(i64, ExistingIndex)> = Vec::new();
    while let Some(part) = parts.next()? {
        let number = part.get(0)?;
        if indexes.last().is_none_or(|(last, _)| *last != number) {
            let index = ExistingIndex {
                columns: Vec::new(),
                unique: part.get(1)?,
            };
            indexes.push((number, index));
        }
        if let Some((_, index)) = indexes.last_mut() {
            // An expression has no name, and no query uses one.
            index
                .columns
                .push(part.get::<_, Option<String>>(2)?.unwrap_or_default());
        }
    }
    Ok(indexes.into_iter().map(|(_, index)| index).collect())
}

/// Creates an index of a new table, unless it accelerates reads and the table has an equal one.
pub(crate) fn create_declared(connection: &Connection, index: &NewIndex) -> Result<(), crate::sql::Error> {
    if index.kind == IndexKind::Index {
        let existing = indexes_of(connection, &index.table)?;
        if existing.iter().any(|existing| existing.columns == index.columns) {
            return Ok(());
        }
    }
    connection.execute_batch(&index.create(&free_name(connection, index)?))
}

/// Creates an index that accelerates reads of a filled table.
pub(crate) fn create_index(
    connection: &Connection,
    table: &str,
    columns: &[String],
) -> Result<(), crate::sql::Error> {
    let index = NewIndex {
        table: table.to_owned(),
        columns: columns.to_vec(),
        kind: IndexKind::Index,
    };
    create_of_filled_table(connection, &index)
}

fn create_of_filled_table(connection: &Connection, index: &NewIndex) -> Result<(), crate::sql::Error> {
    let statement = index.create(&free_name(connection, index)?);
    let Some(file) = connection.sqlite() else {
        return connection.execute_batch(&statement);
    };
    // The sort spills to a file; the writer's other temporary data stays in memory.
    file.pragma_update(None, "temp_store", "file")?;
    let made = file.execute_batch(&statement);
    file.pragma_update(None, "temp_store", "memory")?;
    Ok(made?)
}

/// The name of an index, numbered if a table that a rebuild replaced still has an index of that name: a renamed table keeps
/// the names of its indexes.
fn free_name(connection: &Connection, index: &NewIndex) -> Result<String, crate::sql::Error> {
    let mut candidate = index.name();
    for number in 2.. {
        if !connection.has_relation(&candidate)? {
            break;
        }
        candidate = index.numbered_name(number);
    }
    Ok(candidate)
}

/// Makes the name of an index available for a table, by creating the index again under another name. Only databases of
/// earlier versions of Lantern have indexes with such names (`TABLE__COLUMNS__index`).
pub(crate) fn release_name(connection: &Connection, name: &str) -> Result<(), crate::sql::Error> {
    if connection.engine() != Engine::Sqlite {
        return Ok(());
    }
    let found: Option<(String, bool)> = connection
        .query_row(
            "SELECT i.tbl_name, l.\"unique\" FROM sqlite_schema AS i JOIN pragma_index_list(i.tbl_name) AS l ON l.name = i.name
             WHERE i.type = 'index' AND i.name = ?1 AND i.sql IS NOT NULL",
            [name],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    let Some((table, unique)) = found else {
        return Ok(());
    };
    let columns: Vec<String> = connection
        .prepare("SELECT name FROM pragma_index_info(?1) ORDER BY seqno")?
        .query_map([name], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let kind = match unique {
        true if columns == ORIGIN_COLUMNS => IndexKind::Origin,
        true => IndexKind::Key,
        false => IndexKind::Index,
    };
    connection.execute_batch(&format!("DROP INDEX {}", quote_text(name)))?;
    create_of_filled_table(connection, &NewIndex { table, columns, kind })
}
