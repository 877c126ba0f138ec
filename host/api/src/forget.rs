//! The erasure of a person's data.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// An erasure: either `column` and `value`, or `outstanding`.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({ "column": "email", "value": "ann@example.org", "dry_run": true })))]
pub struct Forget {
    /// Column.
    pub column: Option<String>,
    /// Value, parsed by the type of the column in each table; times are RFC 3339, bytes are base64.
    // Any type is accepted here: the error of a typed parser would contain the value.
    #[schema(value_type = Option<String>)]
    pub value: Option<Value>,
    /// Tables; without them, all tables that have the column.
    #[serde(default)]
    pub tables: Vec<String>,
    /// Plugin whose tables are included; without it, the tables of all plugins.
    pub plugin: Option<String>,
    /// Whether to keep dead letters that contain the value.
    #[serde(default)]
    pub keep_dead_letters: bool,
    /// Whether only to report what an erasure would remove.
    #[serde(default)]
    pub dry_run: bool,
    /// Whether to delete only messages that earlier erasures left in their streams.
    #[serde(default)]
    pub outstanding: bool,
    /// Whether to rewrite the database file at the end, so that its unused parts contain no traces; the host stores nothing
    /// in the meantime. The default is to rewrite files up to 1 GiB.
    pub vacuum: Option<bool>,
}

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
