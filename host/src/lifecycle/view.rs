//! What the faces are told of plugins: plain data, made of what the database knows and what runs.

use std::collections::BTreeSet;

use serde::Serialize;
use utoipa::ToSchema;

use super::{Lifecycle, LifecycleError};
use crate::batch::Timestamp;
use crate::plugin::Digest;
use crate::schema::difference::{Difference, differences};
use crate::store::{Installation, VersionRecord};

/// Where a version is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum VersionState {
    /// Checked and kept; it never ran.
    Installed,
    /// The one that runs.
    Active,
    /// The one that would run, if the plugin were not paused.
    Paused,
    /// It cannot run.
    Failed,
    /// Another one has taken its place.
    Replaced,
}

/// One version of a plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = PluginVersion)]
pub struct VersionView {
    /// The version that it says it is.
    pub version: String,
    /// `sha256:` and 64 hex digits.
    pub digest: String,
    /// The contract's version.
    pub contract: String,
    /// Where it is in its life.
    pub state: VersionState,
    /// When it was first seen (RFC 3339).
    pub installed_at: String,
    /// When it last began to run.
    pub activated_at: Option<String>,
    /// Size of its component.
    pub component_bytes: Option<u64>,
    /// Where it came from, in words.
    pub came_from: Option<String>,
    /// Why it cannot run.
    pub failed: Option<String>,
}

/// A plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Plugin)]
pub struct PluginView {
    /// Its name.
    pub name: String,
    /// The state of the version that counts.
    pub state: VersionState,
    /// The digest of the version that runs, or would if it were not paused.
    pub active: Option<String>,
    /// The digest of the one before it.
    pub previous: Option<String>,
    /// Why it is paused.
    pub paused: Option<String>,
    /// What the version that runs reads.
    pub sources: BTreeSet<String>,
    /// The tables of the version that runs.
    pub tables: BTreeSet<String>,
    /// All versions, in the order of arrival.
    pub versions: Vec<VersionView>,
}

/// A file, or an active version, that does not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Refusal {
    /// The file of the plugin directory, or the plugin's name and digest.
    pub what: String,
    /// Why.
    pub reason: String,
    /// Whether messages wait because of it: a plugin that should run does not.
    pub holds_up: bool,
}

impl Lifecycle {
    /// All plugins, by name.
    ///
    /// # Errors
    /// [`LifecycleError::Unavailable`].
    pub async fn list(&self) -> Result<Vec<PluginView>, LifecycleError> {
        let installations = self.inner.parts.store.installations().await?;
        let fleet = self.inner.fleet.lock().await;
        Ok(installations
            .iter()
            .map(|installation| {
                let manifest = fleet.manifest(&installation.plugin);
                let sources = manifest.iter().flat_map(|manifest| &manifest.sources);
                let tables = manifest.iter().flat_map(|manifest| &manifest.tables);
                PluginView {
                    sources: sources.map(|source| source.name.to_string()).collect(),
                    tables: tables.map(|table| table.name.to_string()).collect(),
                    ..view(installation)
                }
            })
            .collect())
    }

    /// One plugin.
    ///
    /// # Errors
    /// [`LifecycleError::NoPlugin`] and [`LifecycleError::Unavailable`].
    pub async fn show(&self, plugin: &str) -> Result<PluginView, LifecycleError> {
        let all = self.list().await?;
        all.into_iter()
            .find(|view| view.name == plugin)
            .ok_or_else(|| LifecycleError::NoPlugin(plugin.to_owned()))
    }
}

impl Lifecycle {
    /// How one version of a plugin differs from another, by their descriptions.
    ///
    /// # Errors
    /// [`LifecycleError::NoPlugin`], [`LifecycleError::NoVersion`] and [`LifecycleError::Unavailable`].
    pub async fn differences(
        &self,
        plugin: &str,
        from: Digest,
        to: Digest,
    ) -> Result<Vec<Difference>, LifecycleError> {
        let installation = self.inner.installation(plugin).await?;
        let describe = |digest: Digest| {
            let text = digest.to_string();
            let version = installation
                .versions
                .iter()
                .find(|version| version.digest == text);
            version
                .and_then(|version| version.description.as_ref())
                .ok_or(LifecycleError::NoVersion {
                    plugin: plugin.to_owned(),
                    version: text,
                })
        };
        Ok(differences(describe(from)?, describe(to)?))
    }
}

impl Lifecycle {
    /// The bytes of a version's component, as it was installed.
    ///
    /// # Errors
    /// [`LifecycleError::NotFound`] when they are not kept any more.
    pub async fn component(&self, digest: Digest) -> Result<Vec<u8>, LifecycleError> {
        let inner = std::sync::Arc::clone(&self.inner);
        let read = tokio::task::spawn_blocking(move || inner.components.get(digest)).await;
        match read {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(error)) => Err(LifecycleError::NotFound(format!(
                "the component {digest} cannot be read: {error}"
            ))),
            Err(error) => Err(LifecycleError::Unavailable(error.to_string())),
        }
    }
}

fn view(installation: &Installation) -> PluginView {
    let digest = |id| installation.version(id).map(|version| version.digest.clone());
    let versions: Vec<VersionView> = installation
        .versions
        .iter()
        .map(|version| version_view(installation, version))
        .collect();
    let active = installation.active.and_then(digest);
    let state = versions
        .iter()
        .find(|version| Some(&version.digest) == active.as_ref())
        .map_or(VersionState::Installed, |version| version.state);
    PluginView {
        name: installation.plugin.clone(),
        state,
        active,
        previous: installation.previous.and_then(digest),
        paused: installation.paused.clone(),
        sources: BTreeSet::new(),
        tables: BTreeSet::new(),
        versions,
    }
}

fn version_view(installation: &Installation, record: &VersionRecord) -> VersionView {
    let state = match record {
        _ if installation.active == Some(record.id) && record.failed.is_some() => VersionState::Failed,
        _ if installation.active == Some(record.id) && installation.paused.is_some() => VersionState::Paused,
        _ if installation.active == Some(record.id) => VersionState::Active,
        VersionRecord { failed: Some(_), .. } => VersionState::Failed,
        VersionRecord {
            activated_at: Some(_),
            ..
        } => VersionState::Replaced,
        _ => VersionState::Installed,
    };
    VersionView {
        version: record.version.clone(),
        digest: record.digest.clone(),
        contract: record.contract.clone(),
        state,
        installed_at: record.loaded_at.to_rfc3339(),
        activated_at: record.activated_at.map(Timestamp::to_rfc3339),
        component_bytes: record.component_bytes,
        came_from: record.came_from.clone(),
        failed: record.failed.clone(),
    }
}
