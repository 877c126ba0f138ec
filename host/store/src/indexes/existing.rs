//! The indexes that a table has, and how the host adds one.

use super::needed::needed;
use crate::description::TableDescription;
use crate::sql::Connection;
use crate::statement::quote_text;

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

/// Creates an index under a free name.
pub(crate) fn create_index(
    connection: &Connection,
    table: &str,
    columns: &[String],
) -> Result<(), crate::sql::Error> {
    let name = free_name(connection, &format!("{table}__{}__index", columns.join("__")))?;
    let columns: Vec<String> = columns.iter().map(|column| quote_text(column)).collect();
    let statement = format!(
        "CREATE INDEX {} ON {} ({})",
        quote_text(&name),
        quote_text(table),
        columns.join(", ")
    );
    let Some(file) = connection.sqlite() else {
        return connection.execute_batch(&statement);
    };
    // The sort spills to a file; the writer's other temporary data stays in memory.
    file.pragma_update(None, "temp_store", "file")?;
    let made = file.execute_batch(&statement);
    file.pragma_update(None, "temp_store", "memory")?;
    Ok(made?)
}

/// The name, or a numbered one if a table that a rebuild replaced still has an index of that name.
pub(crate) fn free_name(connection: &Connection, name: &str) -> Result<String, crate::sql::Error> {
    let mut candidate = name.to_owned();
    for number in 2.. {
        if !connection.has_relation(&candidate)? {
            break;
        }
        candidate = format!("{name}__{number}");
    }
    Ok(candidate)
}
