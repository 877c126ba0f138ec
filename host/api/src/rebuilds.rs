//! Requests for rebuilds.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What is to be rebuilt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRebuild {
    /// Digest, beginning of one, or version number; without it, the version that runs.
    pub version: Option<String>,
    /// From this sequence on, for a plugin with one stream; rows from before are kept.
    pub from_sequence: Option<u64>,
    /// From this time on (RFC 3339); rows from before are kept.
    pub from_time: Option<String>,
    /// Messages a second for each source at the most.
    #[schema(minimum = 1)]
    pub rate: Option<u64>,
    /// Whether rows are kept whose messages are gone from their stream.
    #[serde(default)]
    pub carry_over: bool,
    /// Whether tables that the version does not declare are dropped; otherwise they stay.
    #[serde(default)]
    pub drop_undeclared: bool,
    /// Whether the new tables are taken although their totals differ from those in use and nothing explains it.
    #[serde(default)]
    pub accept_differences: bool,
    /// For how many seconds the replaced tables are kept, so that a rollback can go back to them; 0 removes them at once.
    #[serde(default = "keep_old_by_default")]
    #[schema(default = 86_400)]
    pub keep_old_s: u64,
}

/// A day.
fn keep_old_by_default() -> u64 {
    86_400
}
