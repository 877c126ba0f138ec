//! Requests for canaries and reprojections.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A canary to run. At least one of `messages` and `live_seconds` is required.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({ "version": "1.1.0", "messages": 1000 })))]
pub struct NewCanary {
    /// Digest, digest prefix or version number.
    pub version: String,
    /// Number of recent messages to read from each stream.
    #[schema(minimum = 1)]
    pub messages: Option<u64>,
    /// Seconds for which to read new messages, after the recent messages if both are given.
    #[schema(minimum = 1)]
    pub live_seconds: Option<u64>,
}

/// A reprojection to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reproject {
    /// Version whose messages to process again: digest, digest prefix or version number.
    pub version: String,
}
