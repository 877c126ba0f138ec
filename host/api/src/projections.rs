//! The last hour of each projection. A projection itself is `lantern_model::status::Status`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Samples of the last hour, beginning at the start of the host at the earliest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct History {
    /// Time between two samples, in milliseconds.
    pub interval_ms: u64,
    /// The projections with their samples.
    pub projections: Vec<ProjectionHistory>,
}

/// Samples of one projection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProjectionHistory {
    /// The plugin.
    pub plugin: String,
    /// The source.
    pub source: String,
    /// The samples, oldest first.
    pub samples: Vec<Sample>,
}

/// State of a projection at one time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Sample {
    /// Time of the sample (RFC 3339).
    pub at: String,
    /// Messages handled in the current epoch: projected, skipped and dead together.
    pub messages: u64,
    /// Rows that the plugin returned in the current epoch: inserted, updated and already present together.
    pub rows: u64,
    /// Open dead letters.
    pub dead_letters: u64,
    /// Messages that the broker holds for the source, as last reported; null if unknown.
    pub lag: Option<u64>,
}
