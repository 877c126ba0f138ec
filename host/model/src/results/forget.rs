//! The report of an erasure.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What an erasure has removed, or would remove.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ForgetReport {
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// Tables that have the column, and others that had rows of the same messages.
    pub tables: Vec<ForgottenTable>,
    /// Messages whose rows or dead letters hold the value.
    pub messages: u64,
    /// Dead letters that mention the value; their content is removed, the entries stay.
    pub dead_letters: u64,
    /// What became of the messages in their streams.
    pub streams: Vec<ForgottenStream>,
    /// Plugins whose replaced tables, kept for a rollback, were removed as well.
    pub kept_tables: Vec<String>,
    /// Whether the database file was rewritten, so that no trace of removed content is left in its unused parts.
    pub vacuumed: bool,
    /// Whether the write-ahead log was emptied. A reader of another process can prevent it.
    pub log_emptied: bool,
    /// What remains, and what to do about it.
    pub notes: Vec<String>,
}

/// Rows of one table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ForgottenTable {
    /// The table.
    pub table: String,
    /// Rows that held the value.
    pub rows_matching: u64,
    /// Rows that were removed: all rows of the messages.
    pub rows_removed: u64,
}

/// Messages in one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ForgottenStream {
    /// The stream.
    pub stream: String,
    /// Messages that were deleted, or in a dry run that would be.
    pub messages_deleted: u64,
    /// Messages that the stream did not hold any more.
    pub messages_gone: u64,
    /// Messages that could not be deleted.
    pub messages_left: u64,
    /// Why not.
    pub reason: Option<String>,
    /// What has to be done about it.
    pub remedy: Option<String>,
}
