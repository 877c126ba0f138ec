//! Plugins and their versions.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::LedgerRange;
use lantern_model::metadata::Metadata;
use lantern_model::schema::description::ManifestDescription;
use lantern_model::settings::{PluginLimitSettings, PluginSettings};

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

/// A plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Plugin {
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

/// A plugin with its versions, settings and resource use.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PluginDetail {
    /// Plugin name.
    pub name: String,
    /// State of the active version, or of the newest one if none is active.
    pub state: VersionState,
    /// Digest of the active version.
    pub active: Option<String>,
    /// Digest of the previous version.
    pub previous: Option<String>,
    /// Reason of the pause; null if the plugin is not paused.
    pub paused: Option<String>,
    /// Sources of the active version.
    pub sources: Vec<String>,
    /// Tables of the active version.
    pub tables: Vec<String>,
    /// Settings of the plugin; absent settings use the defaults for all plugins.
    pub settings: PluginSettings,
    /// Resource use of the active version; null if none runs.
    pub used: Option<PluginUse>,
    /// All versions in order of installation.
    pub versions: Vec<PluginVersionDetail>,
}

/// A version with its ledger ranges.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PluginVersionDetail {
    /// The version.
    #[serde(flatten)]
    pub version: PluginVersion,
    /// Newest ledger ranges that it handled, newest first.
    pub ranges: Vec<LedgerRange>,
}

/// What a version declares, and its limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Description {
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

/// A file, or an active version, that does not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LoadFailure {
    /// The file of the plugin directory, the plugin, or the directory.
    pub subject: String,
    /// The reason.
    pub reason: String,
    /// Whether messages wait because of it: an installed plugin does not run.
    pub blocks_messages: bool,
    /// Whether its signature was rejected.
    pub unsigned: bool,
}
