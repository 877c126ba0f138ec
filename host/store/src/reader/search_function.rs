//! The SQL function that compares the texts of a row with a search.

use std::sync::Arc;

use rusqlite::ffi;
use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::ValueRef;
use serde::{Deserialize, Serialize};

use super::interrupt::Interrupt;
use crate::search::{SearchQuery, SearchedText, Stopped};

/// The SQL function `lantern_matches(search, text, …)`.
pub(super) const MATCHES: &str = "lantern_matches";

/// A search as the SQL function receives it: columns are positions of its arguments.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PreparedSearch {
    pub(super) query: SearchQuery,
    /// Whether each argument is a JSON document.
    pub(super) json: Vec<bool>,
}

/// Registers the function with a connection. It ends with `SQLITE_INTERRUPT` when the interrupt is due.
pub(super) fn register(connection: &rusqlite::Connection, interrupt: Arc<Interrupt>) -> rusqlite::Result<()> {
    let flags =
        FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_DIRECTONLY;
    connection.create_scalar_function(MATCHES, -1, flags, move |context| matches(context, &interrupt))
}

fn matches(context: &Context<'_>, interrupt: &Interrupt) -> rusqlite::Result<bool> {
    // The parameter is the same for all rows of a statement, and so is its parsed form.
    let prepared = context.get_or_create_aux(0, |value| {
        let parsed = value
            .as_str()
            .map_err(|error| Box::new(error) as Box<dyn std::error::Error + Send + Sync>);
        parsed.and_then(|text| serde_json::from_str::<PreparedSearch>(text).map_err(Into::into))
    })?;
    let texts = prepared.json.iter().enumerate().filter_map(|(column, &is_json)| {
        let text = match context.get_raw(column + 1) {
            ValueRef::Text(text) => std::str::from_utf8(text).ok()?,
            _ => return None,
        };
        Some(SearchedText {
            column,
            text,
            is_json,
        })
    });
    let found = prepared.query.matches(texts, || interrupt.is_due());
    found.map_err(|Stopped| rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_INTERRUPT), None))
}
