//! Requests for rebuilds.

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
