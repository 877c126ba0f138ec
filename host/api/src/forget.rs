//! Requests to erase a person's data.

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
