//! Changes of plugins and their results, and differences between versions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{ConsumerLeft, ConsumerTakenOver, RetryTotals, Signature, VersionState};
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

/// A version that was installed or activated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChangedVersion {
    /// Plugin.
    pub plugin: String,
    /// Version number that the plugin declares.
    pub version: String,
    /// `sha256:` and 64 hex digits.
    pub digest: String,
    /// State of the version.
    pub state: VersionState,
    /// Signature of the component.
    pub signature: Signature,
    /// Digest of the previously active version, with which it is compared; null if none was active.
    pub from: Option<String>,
    /// Combined effect of the differences.
    pub effect: Effect,
    /// Differences from the previously active version.
    pub differences: Vec<Difference>,
    /// Result of retrying open dead letters on activation.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub retry: Option<RetryTotals>,
    /// Whether the host retries the remaining open dead letters in the background.
    pub retry_continues: bool,
    /// Rebuild whose replaced tables a rollback restored.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub restored: Option<i64>,
}

/// Result of taking over the consumers of a plugin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TakenOver {
    /// Plugin.
    pub plugin: String,
    /// Consumers of the plugin.
    pub consumers: Vec<ConsumerTakenOver>,
}

/// A removed plugin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Removed {
    /// Plugin.
    pub plugin: String,
    /// Dropped tables.
    pub dropped: Vec<String>,
    /// Consumers that still exist because the broker was unreachable or rejected the deletion. The host retries until
    /// they are deleted, also after a restart.
    pub consumers_left: Vec<ConsumerLeft>,
}
