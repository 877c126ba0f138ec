//! Full-text search: which tables have an index of their words, and how the index follows the rows (see
//! docs/adr/0019-full-text-search.md).
//!
//! The index only proposes rows; a search reads each proposed row and compares its texts. An index may therefore contain words
//! that a row no longer has, but it must contain all words that a row has, except of rows that it does not claim to contain:
//! those after its position, and those in the list of changes. Triggers maintain that list. This module owns all tables whose
//! names begin with `_lantern_search`; `indexer` fills them, and the reader only reads them.

mod engines;
mod entries;
#[doc(hidden)]
pub mod fuzzing;
mod indexer;
mod matching;
mod merge;
mod pattern;
mod purge;
mod query;
#[cfg(test)]
mod tests;
mod verify;
mod words;

use crate::sql::{Connection, Engine, OptionalExtension as _, params};
use serde::{Deserialize, Serialize};

use super::description::TableDescription;
use super::statement::quote_text;
use lantern_model::schema::ColumnType;

pub(crate) use engines::expression;
use engines::{HAS_TRIGGER, drop_triggers, trigger_name};
pub(crate) use entries::indexed_word;
pub use indexer::{IndexerState, IndexingStep, Search};
pub(crate) use matching::SearchedText;
pub use matching::Stopped;
pub(crate) use pattern::TermPattern;
pub use query::{SearchError, SearchQuery, SearchableColumn, TERMS_MAX, WORDS_MAX};
pub(crate) use query::{Term, TermColumn};
pub(crate) use verify::{IndexDifference, difference};

/// Longest word in an index, in bytes. Longer words are indexed by their beginning: encoded data is one long word.
const WORD_BYTES_MAX: usize = 64;

/// The name of an index that is being removed begins with this.
const RETIRED: &str = "#retired#";

/// The position of an index that contains no row.
const BEGINNING: i64 = i64::MIN;

/// An index and its position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SearchIndex {
    pub(crate) id: i64,
    /// The table's name in the database.
    pub(crate) table: String,
    pub(crate) columns: Vec<IndexedColumn>,
    /// Rows up to this row number are indexed, except changed ones.
    pub(crate) through: i64,
    pub(crate) is_purging: bool,
}

/// A column whose words are indexed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IndexedColumn {
    pub(crate) name: String,
    /// Whether its values are JSON documents.
    pub(crate) json: bool,
}

impl SearchIndex {
    /// The name of the table with its words, quoted.
    pub(crate) fn fts(&self) -> String {
        quote_text(&fts_name(self.id))
    }
}

fn fts_name(id: i64) -> String {
    format!("_lantern_search_{id}")
}

/// The index of a table; none if it has none.
pub(crate) fn index_of(
    connection: &Connection,
    table: &str,
) -> Result<Option<SearchIndex>, crate::sql::Error> {
    connection
        .prepare_cached(
            "SELECT id, table_name, columns, through, purging FROM _lantern_search WHERE table_name = ?1",
        )?
        .query_row([table], read_index)
        .optional()
}

/// All indexes.
fn all_indexes(connection: &Connection) -> Result<Vec<SearchIndex>, crate::sql::Error> {
    connection
        .prepare_cached("SELECT id, table_name, columns, through, purging FROM _lantern_search ORDER BY id")?
        .query_map([], read_index)?
        .collect()
}

fn read_index(row: &crate::sql::Row<'_>) -> Result<SearchIndex, crate::sql::Error> {
    let columns: String = row.get(2)?;
    Ok(SearchIndex {
        id: row.get(0)?,
        table: row.get(1)?,
        columns: serde_json::from_str(&columns).map_err(|error| crate::sql::Error::decode(2, error))?,
        through: row.get(3)?,
        is_purging: row.get(4)?,
    })
}

/// The columns of a table whose words are indexed: all that hold text, also those that the active version no longer declares.
fn searched_columns(description: &TableDescription) -> Vec<IndexedColumn> {
    let columns = description.columns.iter();
    columns
        .filter(|column| column.column_type.is_searchable())
        .map(|column| IndexedColumn {
            name: column.name.clone(),
            json: column.column_type == ColumnType::Json,
        })
        .collect()
}

fn to_json(columns: &[IndexedColumn]) -> Result<String, crate::sql::Error> {
    serde_json::to_string(columns).map_err(crate::sql::Error::encode)
}

/// Begins the index of a table. It contains no row yet.
fn begin(
    connection: &Connection,
    table: &str,
    description: &TableDescription,
) -> Result<(), crate::sql::Error> {
    let columns = searched_columns(description);
    let id = connection.query_row(
        "INSERT INTO _lantern_search (table_name, columns, through) VALUES (?1, ?2, ?3) RETURNING id",
        params![table, to_json(&columns)?, BEGINNING],
        |row| row.get(0),
    )?;
    let index = SearchIndex {
        id,
        table: table.to_owned(),
        columns,
        through: BEGINNING,
        is_purging: false,
    };
    connection.execute_batch(&index.create(connection.engine()))?;
    create_triggers(connection, &index)
}

/// Begins the index of a new table, if an operator turned on search for the table that it is to replace.
pub(crate) fn begin_if_searched(
    connection: &Connection,
    table: &str,
    description: &TableDescription,
) -> Result<(), crate::sql::Error> {
    let is_searched: bool = connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM _lantern_searched WHERE table_name = ?1)",
        [declared_name(table)],
        |row| row.get(0),
    )?;
    if is_searched {
        begin(connection, table, description)
    } else {
        Ok(())
    }
}

/// Creates the triggers that record changes of indexed rows. A table whose row numbers ascend needs none for inserted rows.
fn create_triggers(connection: &Connection, index: &SearchIndex) -> Result<(), crate::sql::Error> {
    if connection.engine() == Engine::Postgres {
        return connection.execute_batch(&index.server_triggers());
    }
    let SearchIndex { id, table, .. } = index;
    let name = |kind: &str| quote_text(&trigger_name(*id, kind));
    let on = quote_text(table);
    let is_indexed =
        |row: &str| format!("{row}._rowid_ <= (SELECT through FROM _lantern_search WHERE id = {id})");
    let record = |row: &str| {
        format!("INSERT INTO _lantern_search_change VALUES ({id}, {row}._rowid_) ON CONFLICT DO NOTHING;")
    };
    let columns: Vec<String> = index
        .columns
        .iter()
        .map(|column| quote_text(&column.name))
        .collect();
    let mut sql = format!(
        "CREATE TRIGGER {} AFTER DELETE ON {on} WHEN {} BEGIN {} END;",
        name("deleted"),
        is_indexed("old"),
        record("old")
    );
    if !columns.is_empty() {
        let differs: Vec<String> = columns
            .iter()
            .map(|column| format!("old.{column} IS NOT new.{column}"))
            .collect();
        sql += &format!(
            "CREATE TRIGGER {} AFTER UPDATE OF {} ON {on} WHEN ({}) AND {} BEGIN {} END;",
            name("updated"),
            columns.join(", "),
            differs.join(" OR "),
            is_indexed("new"),
            record("new")
        );
    }
    if has_numeric_key(connection, table)? {
        sql += &format!(
            "CREATE TRIGGER {} AFTER INSERT ON {on} WHEN {} BEGIN {} END;",
            name("inserted"),
            is_indexed("new"),
            record("new")
        );
    }
    connection.execute_batch(&sql)
}

/// The triggers of an index that its table lacks. Without them the index misses changes of indexed rows.
fn missing_triggers(connection: &Connection, index: &SearchIndex) -> Result<u64, crate::sql::Error> {
    let mut kinds = vec!["deleted"];
    if !index.columns.is_empty() {
        kinds.push("updated");
    }
    if connection.engine() == Engine::Sqlite && has_numeric_key(connection, &index.table)? {
        kinds.push("inserted");
    }
    let mut exists = connection.prepare(match connection.engine() {
        Engine::Sqlite => {
            "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'trigger' AND name = ?1 AND tbl_name = ?2)"
        }
        Engine::Postgres => HAS_TRIGGER,
    })?;
    let mut missing = 0;
    for kind in kinds {
        let name = trigger_name(index.id, kind);
        let is_there: bool = exists.query_row([&name, &index.table], |row| row.get(0))?;
        missing += u64::from(!is_there);
    }
    Ok(missing)
}

/// Whether the primary key is the row number, so that a row can be inserted before others.
fn has_numeric_key(connection: &Connection, table: &str) -> Result<bool, crate::sql::Error> {
    connection.query_row(
        "SELECT count(*) = 1 AND max(type) = 'INTEGER' FROM pragma_table_info(?1) WHERE pk > 0",
        [table],
        |row| row.get(0),
    )
}

/// Adapts an index to a description of its table, after a version has changed its columns. An added column is null in all
/// stored rows.
pub(crate) fn adapt(
    connection: &Connection,
    table: &str,
    description: &TableDescription,
) -> Result<(), crate::sql::Error> {
    let Some(index) = index_of(connection, table)? else {
        return Ok(());
    };
    let columns = searched_columns(description);
    if columns == index.columns {
        return Ok(());
    }
    connection.execute(
        "UPDATE _lantern_search SET columns = ?2 WHERE id = ?1",
        params![index.id, to_json(&columns)?],
    )?;
    drop_triggers(connection, &index)?;
    create_triggers(connection, &SearchIndex { columns, ..index })
}

/// Gives the index of a renamed table its new name. Its triggers follow the table.
pub(crate) fn rename(connection: &Connection, from: &str, to: &str) -> Result<(), crate::sql::Error> {
    connection
        .execute(
            "UPDATE _lantern_search SET table_name = ?2 WHERE table_name = ?1",
            [from, to],
        )
        .map(|_| ())
}

/// Takes the index of a table out of use. The indexer removes it in small steps.
pub(crate) fn retire(connection: &Connection, table: &str) -> Result<(), crate::sql::Error> {
    if let Some(index) = index_of(connection, table)? {
        drop_triggers(connection, &index)?;
        // No table has such a name.
        connection.execute(
            "UPDATE _lantern_search SET table_name = CAST(?2 AS TEXT) || id WHERE id = ?1",
            params![index.id, RETIRED],
        )?;
    }
    Ok(())
}

/// Forgets that an operator turned on search in a table, and takes its indexes out of use.
pub(crate) fn disable(connection: &Connection, table: &str) -> Result<(), crate::sql::Error> {
    connection.execute("DELETE FROM _lantern_searched WHERE table_name = ?1", [table])?;
    for index in all_indexes(connection)? {
        if declared_name(&index.table) == table {
            retire(connection, &index.table)?;
        }
    }
    Ok(())
}

/// The name that a plugin declares for a table in the database: a rebuild adds to it.
fn declared_name(table: &str) -> &str {
    table.split_once('#').map_or(table, |(name, _)| name)
}

/// Requires that the words of rows which no longer exist are removed from the indexes of a plugin's tables.
pub(crate) fn require_purge(connection: &Connection, plugin: &str) -> Result<(), crate::sql::Error> {
    let mut owner = connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM _lantern_table WHERE name = ?1 AND plugin = ?2)")?;
    for index in all_indexes(connection)? {
        if owner.query_row([declared_name(&index.table), plugin], |row| row.get(0))? {
            connection.execute("UPDATE _lantern_search SET purging = 1 WHERE id = ?1", [index.id])?;
        }
    }
    Ok(())
}
