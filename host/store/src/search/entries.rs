//! The entries of an index: the words of a row as the index receives them.

use std::collections::HashSet;
use std::ops::ControlFlow;

use crate::sql::{Connection, Row, params};
use rusqlite::types::ValueRef;

use super::words::{for_each_text, for_each_word};
use super::{SearchIndex, WORD_BYTES_MAX};
use crate::statement::quote_text;

/// A statement that reads the searched columns of rows.
pub(super) fn select(index: &SearchIndex, condition: &str) -> String {
    let columns: String = index
        .columns
        .iter()
        .map(|column| format!(", {}", quote_text(&column.name)))
        .collect();
    format!(
        "SELECT _rowid_{columns} FROM {} WHERE {condition}",
        quote_text(&index.table)
    )
}

/// Writes entries of an index.
pub(super) struct Entries<'a> {
    index: &'a SearchIndex,
    put: crate::sql::Statement<'a>,
    delete: crate::sql::Statement<'a>,
    words: HashSet<String>,
    text: String,
}

impl<'a> Entries<'a> {
    pub(super) fn prepare(
        connection: &'a Connection,
        index: &'a SearchIndex,
    ) -> Result<Self, crate::sql::Error> {
        let delete = format!("DELETE FROM {} WHERE rowid = ?1", index.fts());
        Ok(Self {
            index,
            put: connection.prepare_cached(&index.put(connection.engine()))?,
            delete: connection.prepare_cached(&delete)?,
            words: HashSet::new(),
            text: String::new(),
        })
    }

    /// Replaces the entry of a row by its words.
    pub(super) fn put(&mut self, row: &Row<'_>) -> Result<(), crate::sql::Error> {
        self.words.clear();
        for (position, column) in self.index.columns.iter().enumerate() {
            if let ValueRef::Text(text) = row.get_ref(position + 1)?
                && let Ok(text) = std::str::from_utf8(text)
            {
                add_words(&mut self.words, text, column.json);
            }
        }
        self.text.clear();
        for word in &self.words {
            if !self.text.is_empty() {
                self.text.push(' ');
            }
            self.text.push_str(word);
        }
        self.put
            .execute(params![row.get::<_, i64>(0)?, self.text])
            .map(|_| ())
    }

    pub(super) fn delete(&mut self, row: i64) -> Result<(), crate::sql::Error> {
        self.delete.execute([row]).map(|_| ())
    }
}

/// Adds the words of a text as the index contains them.
pub(super) fn add_words(words: &mut HashSet<String>, text: &str, is_json: bool) {
    let mut add = |word: &str| {
        let word = indexed_word(word);
        if !words.contains(word) {
            words.insert(word.to_owned());
        }
        ControlFlow::<()>::Continue(())
    };
    let all = match is_json {
        true => for_each_text(text, |_, text| for_each_word(text, &mut add)),
        false => for_each_word(text, &mut add),
    };
    debug_assert!(all.is_continue());
}

/// A word as the index contains it: the beginning of a long one.
pub(crate) fn indexed_word(word: &str) -> &str {
    let mut length = word.len().min(WORD_BYTES_MAX);
    while !word.is_char_boundary(length) {
        length -= 1;
    }
    &word[..length]
}
