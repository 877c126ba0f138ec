//! Plugins: differences between versions, decisions about sources, changes of settings.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use lantern_model::schema::difference::{Difference, Effect};

/// Differences between two versions of a plugin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Differences {
    /// Digest of the first version.
    pub from: String,
    /// Digest of the second version.
    pub to: String,
    /// Combined effect of all differences.
    pub effect: Effect,
    /// The differences.
    pub differences: Vec<Difference>,
}

/// The version to activate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Activate {
    /// Digest, digest prefix or version number; defaults to the newest version.
    pub digest: Option<String>,
}

/// A pause of a plugin.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pause {
    /// Reason for people; the host appends the name of the token.
    pub reason: Option<String>,
}

/// Whether the stream of a source is the stream that the source has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SourceHistory {
    /// The same stream: the source continues after its checkpoint. If the stream ends before the checkpoint, the source
    /// continues in a new epoch with the messages that are newer than the last one it read.
    Same,
    /// Another stream: the source reads all of it in a new epoch. Existing rows are kept.
    New,
}

/// A decision about the stream of a source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceDecision {
    /// The decision.
    pub history: SourceHistory,
}

/// A stored decision about the stream of a source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SourceDecided {
    /// The plugin.
    pub plugin: String,
    /// The source.
    pub source: String,
    /// The decision.
    pub history: SourceHistory,
    /// Creation time of the stream to which the decision applies (RFC 3339).
    pub stream_created: String,
}

/// Changes of settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({ "changes": { "limits.memory": "64 MiB" } })))]
pub struct SettingsChanges {
    /// Values by path, such as `limits.memory`; null or an empty string resets a setting.
    pub changes: BTreeMap<String, Value>,
}
