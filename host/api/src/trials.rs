//! Requests for canaries and reprojections.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A version to be tried, and on which messages: at least one of the two.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({ "version": "1.1.0", "messages": 1000 })))]
pub struct NewCanary {
    /// Digest, beginning of one, or version number.
    pub version: String,
    /// The last so many messages of each stream.
    #[schema(minimum = 1)]
    pub messages: Option<u64>,
    /// What comes for so many seconds; after the last messages, where both are asked for.
    #[schema(minimum = 1)]
    pub live_seconds: Option<u64>,
}

/// The version whose work is to be made again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reproject {
    /// Digest, beginning of one, or version number.
    pub version: String,
}
