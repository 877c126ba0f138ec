//! Plugins with their versions, and versions that cannot be loaded.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{LedgerRange, PluginUse, PluginVersion, VersionState};
use lantern_model::settings::PluginSettings;

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
