//! Compares an index with the rows of its table: the number of entries, and the words of a sample of rows. SQLite's integrity
//! check covers the structure of the index.

use std::collections::HashSet;

use crate::sql::{Connection, Engine, OptionalExtension as _, Row};
use rusqlite::types::ValueRef;

use super::entries::{add_words, select};
use super::{SearchIndex, expression, fts_name, missing_triggers};
use crate::statement::quote_text;
use crate::values::from_sql;

/// Rows whose words are compared, spread over the table.
const SAMPLE_ROWS: i64 = 200;

/// Words of a row that are compared.
const SAMPLE_WORDS: usize = 200;

/// How an index differs from the rows that it claims to contain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct IndexDifference {
    /// Rows without an entry.
    pub(crate) missing: u64,
    /// Entries without a row.
    pub(crate) stray: u64,
    /// Rows of the sample with a word that their entries lack.
    pub(crate) incomplete: u64,
    /// Missing triggers, which record changes of indexed rows.
    pub(crate) missing_triggers: u64,
}

/// Compares an index with its table.
pub(crate) fn difference(
    connection: &Connection,
    index: &SearchIndex,
) -> Result<IndexDifference, crate::sql::Error> {
    let table = quote_text(&index.table);
    let entries = match connection.engine() {
        Engine::Sqlite => quote_text(&format!("{}_docsize", fts_name(index.id))),
        Engine::Postgres => format!("(SELECT rowid AS id FROM {})", index.fts()),
    };
    let id = index.id;
    let changed = |row: &str| {
        format!("EXISTS (SELECT 1 FROM _lantern_search_change WHERE search = {id} AND row = {row})")
    };
    let count = |sql: String| connection.query_row(&sql, [], |row| row.get(0).map(from_sql));
    Ok(IndexDifference {
        missing: count(format!(
            "SELECT count(*) FROM {table} AS t WHERE t._rowid_ <= {} AND NOT EXISTS (SELECT 1 FROM {entries} AS e
                 WHERE e.id = t._rowid_) AND NOT {}",
            index.through,
            changed("t._rowid_")
        ))?,
        stray: count(format!(
            "SELECT count(*) FROM {entries} AS e WHERE NOT EXISTS (SELECT 1 FROM {table} AS t WHERE t._rowid_ = e.id)
                 AND NOT {}",
            changed("e.id")
        ))?,
        incomplete: incomplete(connection, index)?,
        missing_triggers: missing_triggers(connection, index)?,
    })
}

fn incomplete(connection: &Connection, index: &SearchIndex) -> Result<u64, crate::sql::Error> {
    let ends = format!(
        "SELECT min(_rowid_), max(_rowid_) FROM {}",
        quote_text(&index.table)
    );
    let ends: (Option<i64>, Option<i64>) =
        connection.query_row(&ends, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (Some(first), Some(last)) = ends else {
        return Ok(0);
    };
    let last = last.min(index.through);
    let step = (last.saturating_sub(first) / SAMPLE_ROWS).max(1);
    let is_changed = format!(
        "_rowid_ IN (SELECT row FROM _lantern_search_change WHERE search = {})",
        index.id
    );
    let condition = format!("_rowid_ BETWEEN ?1 AND ?2 AND NOT {is_changed} ORDER BY _rowid_ LIMIT 1");
    let mut rows = connection.prepare(&select(index, &condition))?;
    let (fts, contains) = (index.fts(), index.contains(connection.engine(), "?1"));
    let mut has_words = connection.prepare(&format!(
        "SELECT EXISTS (SELECT 1 FROM {fts} WHERE {contains} AND rowid = ?2)"
    ))?;
    let mut incomplete = 0;
    let mut next = first;
    while next <= last {
        let found = rows
            .query_row([next, last], |row| {
                Ok((row.get(0)?, words_of(connection.engine(), row, index)?))
            })
            .optional()?;
        let Some((number, expression)) = found else { break };
        let number: i64 = number;
        if let Some(expression) = expression
            && !has_words.query_row(crate::sql::params![expression, number], |row| {
                row.get::<_, bool>(0)
            })?
        {
            incomplete += 1;
        }
        next = number.saturating_add(step);
        if number == i64::MAX {
            break;
        }
    }
    Ok(incomplete)
}

/// The words of a row as an expression; none if it has no word.
fn words_of(engine: Engine, row: &Row<'_>, index: &SearchIndex) -> Result<Option<String>, crate::sql::Error> {
    let mut words = HashSet::new();
    for (position, column) in index.columns.iter().enumerate() {
        if let ValueRef::Text(text) = row.get_ref(position + 1)?
            && let Ok(text) = std::str::from_utf8(text)
        {
            add_words(&mut words, text, column.json);
        }
    }
    let sample = words.iter().take(SAMPLE_WORDS).map(String::as_str);
    Ok((!words.is_empty()).then(|| expression(engine, sample)))
}
