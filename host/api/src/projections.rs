//! The last hour of each projection. A projection itself is `lantern_model::status::Status`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The last hour, as long as the host has run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct History {
    /// Between two samples.
    pub interval_ms: u64,
    /// Each with its samples.
    pub projections: Vec<ProjectionHistory>,
}

/// One projection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProjectionHistory {
    /// The plugin.
    pub plugin: String,
    /// The source.
    pub source: String,
    /// The oldest first.
    pub samples: Vec<Sample>,
}

/// How it stood at one time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Sample {
    /// RFC 3339.
    pub at: String,
    /// Messages that became rows, since the beginning of its epoch.
    pub messages: u64,
    /// Rows written in this epoch.
    pub rows: u64,
    /// Dead letters that are open.
    pub dead_letters: u64,
    /// Messages that wait, as the broker said last.
    pub lag: Option<u64>,
}
