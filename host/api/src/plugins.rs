//! Plugins: differences between versions, decisions about sources, changes of settings.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use lantern_model::schema::difference::{Difference, Effect};

/// In what two versions differ.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Differences {
    /// The digest of the version that is compared with.
    pub from: String,
    /// The digest of the other one.
    pub to: String,
    /// What all of them cost together.
    pub effect: Effect,
    /// One by one.
    pub differences: Vec<Difference>,
}

/// Which version is to run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Activate {
    /// Digest, beginning of one, or version number; without it, the newest version.
    pub digest: Option<String>,
}

/// Why a plugin is paused.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pause {
    /// For people; who did it is added.
    pub reason: Option<String>,
}

/// Whether the stream of a source is the one that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SourceHistory {
    /// It is: the source continues behind its checkpoint. Where the stream ends before the checkpoint, it continues
    /// with the messages that are younger than the last one that was read, in a new epoch.
    Same,
    /// It is another stream: the source reads all of it, in a new epoch. Old rows stay.
    New,
}

/// A decision about the stream of a source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceDecision {
    /// What the stream is.
    pub history: SourceHistory,
}

/// A decision that was stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SourceDecided {
    /// The plugin.
    pub plugin: String,
    /// The source.
    pub source: String,
    /// What the stream is.
    pub history: SourceHistory,
    /// When the stream was created that the decision is about (RFC 3339). It holds for no other one.
    pub stream_created: String,
}

/// Settings to be changed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({ "changes": { "limits.memory": "64 MiB" } })))]
pub struct SettingsChanges {
    /// By path, such as `limits.memory`; null or empty text takes a setting back.
    pub changes: BTreeMap<String, Value>,
}
