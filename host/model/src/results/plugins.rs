//! Plugins, their versions, signatures and consumers.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::metadata::Metadata;
use crate::schema::description::ManifestDescription;
use crate::settings::PluginLimitSettings;

/// A plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Plugin)]
pub struct PluginSummary {
    /// Its name.
    pub name: String,
    /// The state of the active version.
    pub state: VersionState,
    /// The digest of the active version.
    pub active: Option<String>,
    /// The digest of the previous version.
    pub previous: Option<String>,
    /// Why it is paused.
    pub paused: Option<String>,
    /// The sources of the active version.
    pub sources: Vec<String>,
    /// The tables of the active version.
    pub tables: Vec<String>,
    /// What the active version has used; none if no version runs.
    pub used: Option<PluginUse>,
    /// All versions, in the order of installation.
    pub versions: Vec<PluginVersion>,
}

/// The state of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum VersionState {
    /// Checked and stored; it never ran.
    Installed,
    /// It is active.
    Active,
    /// It is active, and the plugin is paused.
    Paused,
    /// It cannot run.
    Failed,
    /// Another version replaced it.
    Replaced,
}

impl VersionState {
    /// The name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Failed => "failed",
            Self::Replaced => "replaced",
        }
    }
}

/// One version of a plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PluginVersion {
    /// The version number.
    pub version: String,
    /// `sha256:` and 64 hex digits.
    pub digest: String,
    /// The contract's version.
    pub contract: String,
    /// Its state.
    pub state: VersionState,
    /// When it was installed (RFC 3339).
    pub installed_at: String,
    /// When it was last activated.
    pub activated_at: Option<String>,
    /// Size of its component.
    pub component_bytes: Option<u64>,
    /// Where it came from.
    pub came_from: Option<String>,
    /// Why it cannot run.
    pub failed: Option<String>,
    /// The verdict on its signature.
    pub signature: Signature,
}

/// The resources that a version used since it was loaded, for all of its sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PluginUse {
    /// Messages passed to the plugin, retried ones included.
    pub messages_passed: u64,
    /// Time in the plugin, in microseconds.
    pub busy_us: u64,
    /// Peak of the memory of one instance, in bytes.
    pub memory_peak_bytes: u64,
    /// Failed calls: traps, timeouts, unreadable answers.
    pub faults: u64,
}

/// What a version declares, and its limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Description)]
pub struct VersionDescription {
    /// The version.
    #[serde(flatten)]
    pub version: PluginVersion,
    /// Its sources, tables and writes; none if a host that stored no descriptions installed it.
    pub description: Option<ManifestDescription>,
    /// The interfaces that it imports; none when its component is no longer stored.
    pub imports: Option<Vec<String>>,
    /// Unverified claims of the file about its origin, for people only.
    pub about: Metadata,
    /// The limits of its instances, with the settings of this plugin.
    pub limits: PluginLimitSettings,
}

/// A component's signature.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Signature {
    /// The state.
    pub state: SignatureState,
    /// The key that the signature names, as minisign writes it.
    pub key: Option<String>,
    /// The signer's comment; only of a good signature.
    pub comment: Option<String>,
    /// Why the signature is not good.
    pub reason: Option<String>,
}

/// The state of a component's signature.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SignatureState {
    /// A trusted key signed these bytes.
    Good,
    /// There is no signature.
    Missing,
    /// The key is not trusted.
    UnknownKey,
    /// It is malformed, of the old kind, or does not match.
    Bad,
    /// The policy disables the check.
    #[default]
    NotChecked,
}

impl SignatureState {
    /// The name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Missing => "missing",
            Self::UnknownKey => "unknown-key",
            Self::Bad => "bad",
            Self::NotChecked => "not-checked",
        }
    }
}

/// The result of a take-over of one consumer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConsumerTakenOver {
    /// The stream.
    pub stream: String,
    /// The consumer.
    pub consumer: String,
    /// The outcome.
    pub outcome: TakeOverOutcome,
    /// The identity of the previous owner; `null` if there was none.
    pub before: Option<String>,
}

/// The outcome of a take-over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TakeOverOutcome {
    /// It now belongs to this host.
    TakenOver,
    /// It already belonged to this host.
    Own,
    /// The broker has no such consumer; the host creates it when it reads.
    Absent,
}

/// A consumer that is still on the broker although nothing reads through it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConsumerLeft {
    /// The stream.
    pub stream: String,
    /// The consumer.
    pub consumer: String,
    /// Why it could not be deleted.
    pub reason: String,
}
