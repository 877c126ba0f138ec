//! Rebuilds.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A rebuild to start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRebuild {
    /// Digest, digest prefix or version number; defaults to the active version.
    pub version: Option<String>,
    /// First sequence to replay, for a plugin with one stream; rows of earlier messages are kept.
    pub from_sequence: Option<u64>,
    /// Time of the first message to replay (RFC 3339); rows of earlier messages are kept.
    pub from_time: Option<String>,
    /// Maximum number of messages per second for each source.
    #[schema(minimum = 1)]
    pub rate: Option<u64>,
    /// Whether to keep rows whose messages are no longer in their stream.
    #[serde(default)]
    pub carry_over: bool,
    /// Whether to drop tables that the version does not declare.
    #[serde(default)]
    pub drop_undeclared: bool,
    /// Whether to swap in the new tables despite unexplained differences from the tables in use.
    #[serde(default)]
    pub accept_differences: bool,
    /// Seconds to keep the replaced tables for a rollback; 0 drops them at once.
    #[serde(default = "default_keep_old_s")]
    #[schema(default = 86_400)]
    pub keep_old_s: u64,
}

/// One day.
fn default_keep_old_s() -> u64 {
    86_400
}

/// A rebuild.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Rebuild {
    /// Its number.
    pub id: i64,
    /// The plugin.
    pub plugin: String,
    /// The digest of the version that fills the new tables.
    pub digest: String,
    /// `running`, `failed`, `cancelled` or `done`.
    #[schema(pattern = "^(running|failed|cancelled|done)$")]
    pub state: String,
    /// When it started (RFC 3339).
    pub started_at: String,
    /// When it ended.
    pub ended_at: Option<String>,
    /// Why it failed, or what blocks it.
    pub reason: Option<String>,
    /// Its progress, while it runs.
    pub progress: Option<RebuildProgress>,
    /// The result, when it is done.
    pub outcome: Option<RebuildOutcome>,
    /// Until when the tables that it replaced are kept (RFC 3339); a rollback restores them.
    pub previous_until: Option<String>,
}

/// The progress of a rebuild.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RebuildProgress {
    /// Messages handled so far: projected, skipped and dead together.
    pub messages: u64,
    /// Remaining messages, as last reported by the broker.
    pub messages_left: u64,
    /// Messages per second since the rebuild started or resumed.
    pub rate: f64,
    /// Remaining seconds at this rate; none while unknown.
    pub eta_seconds: Option<f64>,
}

/// The result of a rebuild.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RebuildOutcome {
    /// Messages handled: projected, skipped and dead together.
    pub messages: u64,
    /// Number of rows in the rebuilt tables.
    pub row_count: u64,
    /// Rows that were carried over, because their messages were not read again.
    pub rows_carried_over: u64,
    /// Rows that the tables lost in total.
    pub rows_lost: u64,
    /// The plugin's tables.
    pub tables: Vec<TableOutcome>,
    /// Differences that the operator accepted.
    pub accepted: Vec<String>,
}

/// The result of a rebuild for one table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TableOutcome {
    /// Its name.
    pub table: String,
    /// `rebuilt`, `added`, `kept` (the new version does not declare it) or `dropped`.
    #[schema(pattern = "^(rebuilt|added|kept|dropped)$")]
    pub change: String,
    /// Number of rows before.
    pub rows_before: u64,
    /// Number of rows after.
    pub rows_after: u64,
}
