//! Merges the parts of a full-text index.

use super::fts_name;
use crate::sql::Transaction;
use crate::statement::quote_text;

/// Pages of an index that a step merges, each of 4 kB.
pub(super) const STEP_PAGES: i64 = if cfg!(test) { 1 } else { 32 };

/// Merges parts of an existing index. Returns whether it did.
pub(super) fn merge(transaction: &Transaction<'_>, id: i64, pages: i64) -> Result<bool, crate::sql::Error> {
    let fts = quote_text(&fts_name(id));
    let before = transaction.changes();
    transaction
        .prepare_cached(&format!("INSERT INTO {fts} ({fts}, rank) VALUES ('merge', ?1)"))?
        .execute([pages])?;
    // The statement itself counts as one change.
    Ok(transaction.changes() - before >= 2)
}
