//! Plugins as the API, CLI and dashboard see them: plain data from the database and the running plugins.

use std::collections::{BTreeMap, BTreeSet};

use super::{Component, Lifecycle, LifecycleError};
use lantern_model::batch::Timestamp;
use lantern_model::schema::description::ManifestDescription;
use lantern_model::schema::difference::{Difference, differences};
use lantern_model::settings::PluginLimitSettings;
use lantern_plugin::{Digest, Metadata, imports, read_metadata};
use lantern_store::{Installation, VersionRecord};
use lantern_trust::signature::{SignatureView, Verdict};

/// The state of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// The state of a stored version.
    pub(super) fn of(installation: &Installation, record: &VersionRecord) -> Self {
        match record {
            _ if installation.active == Some(record.id) && record.failed.is_some() => Self::Failed,
            _ if installation.active == Some(record.id) && installation.paused.is_some() => Self::Paused,
            _ if installation.active == Some(record.id) => Self::Active,
            VersionRecord { failed: Some(_), .. } => Self::Failed,
            VersionRecord {
                activated_at: Some(_),
                ..
            } => Self::Replaced,
            _ => Self::Installed,
        }
    }
}

/// One version of a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionView {
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
    pub signature: SignatureView,
}

/// A plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginView {
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
    pub sources: BTreeSet<String>,
    /// The tables of the active version.
    pub tables: BTreeSet<String>,
    /// What the active version has used; none if no version runs.
    pub used: Option<UseView>,
    /// All versions, in the order of installation.
    pub versions: Vec<VersionView>,
}

/// The resources that a version used since it was loaded, for all of its sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UseView {
    /// Messages passed to the plugin.
    pub messages: u64,
    /// Time in the plugin, in microseconds.
    pub busy_us: u64,
    /// Peak of the memory of one instance, in bytes.
    pub memory_peak_bytes: u64,
    /// Failed calls: traps, timeouts, unreadable answers.
    pub faults: u64,
}

impl Lifecycle {
    /// All plugins, by name.
    ///
    /// # Errors
    /// [`LifecycleError::Unavailable`].
    pub async fn list(&self) -> Result<Vec<PluginView>, LifecycleError> {
        let installations = self.inner.installations().await?;
        let versions = installations
            .iter()
            .flat_map(|installation| &installation.versions);
        let digests = versions.filter_map(|version| version.digest.parse().ok());
        let verdicts = self.inner.verdicts(digests.collect()).await;
        let plugins = &self.inner.running;
        Ok(installations
            .iter()
            .map(|installation| {
                let manifest = plugins.manifest(&installation.plugin);
                let sources = manifest.iter().flat_map(|manifest| &manifest.sources);
                let tables = manifest.iter().flat_map(|manifest| &manifest.tables);
                PluginView {
                    sources: sources.map(|source| source.name.to_string()).collect(),
                    tables: tables.map(|table| table.name.to_string()).collect(),
                    used: plugins.counted(&installation.plugin).map(|counted| UseView {
                        messages: counted.projected,
                        busy_us: counted.busy_us,
                        memory_peak_bytes: counted.memory_peak_bytes,
                        faults: counted.faults,
                    }),
                    ..view(installation, &verdicts)
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
    /// The differences between the descriptions of two versions of a plugin.
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
            installation
                .by_digest(&text)
                .and_then(|version| version.description.as_ref())
                .ok_or(LifecycleError::NoVersion {
                    plugin: plugin.to_owned(),
                    version: text,
                })
        };
        Ok(differences(describe(from)?, describe(to)?))
    }
}

/// What a version declares, and its limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescriptionView {
    /// The version.
    pub version: VersionView,
    /// Its sources, tables and writes; none if a host that stored no descriptions installed it.
    pub description: Option<ManifestDescription>,
    /// The interfaces that it imports; none when its component is no longer stored.
    pub imports: Option<Vec<String>>,
    /// Unverified claims of the file about its origin, for people only.
    pub about: Metadata,
    /// The limits of its instances, with the settings of this plugin.
    pub limits: PluginLimitSettings,
}

impl Lifecycle {
    /// What a version of a plugin declares. Does not run it.
    ///
    /// # Errors
    /// [`LifecycleError::NoPlugin`], [`LifecycleError::NoVersion`] and [`LifecycleError::Unavailable`].
    pub async fn description(&self, plugin: &str, digest: Digest) -> Result<DescriptionView, LifecycleError> {
        let installation = self.inner.installation(plugin).await?;
        let text = digest.to_string();
        let Some(record) = installation.by_digest(&text) else {
            return Err(LifecycleError::NoVersion {
                plugin: plugin.to_owned(),
                version: text,
            });
        };
        let limits = self.inner.parts.loader.limits(&self.settings(plugin));
        let component = match self.component(digest).await {
            Ok(component) => Some(component.bytes),
            Err(LifecycleError::NotFound(_)) => None,
            Err(error) => return Err(error),
        };
        let verdicts = self.inner.verdicts(vec![digest]).await;
        Ok(DescriptionView {
            version: version_view(&installation, record, &verdicts),
            description: record.description.clone(),
            imports: component.as_deref().and_then(|bytes| imports(bytes).ok()),
            about: component.as_deref().map(read_metadata).unwrap_or_default(),
            limits: PluginLimitSettings {
                memory_bytes: Some(limits.memory_bytes as u64),
                message_time: Some(limits.message_time),
                rows_per_message: Some(limits.rows_per_message as u64),
                bytes_per_message: Some(limits.bytes_per_message as u64),
            },
        })
    }

    /// A version's component as it was installed, with its stored signature.
    ///
    /// # Errors
    /// [`LifecycleError::NotFound`] when it is no longer stored.
    pub async fn component(&self, digest: Digest) -> Result<Component, LifecycleError> {
        let inner = std::sync::Arc::clone(&self.inner);
        let read = tokio::task::spawn_blocking(move || {
            Ok::<_, std::io::Error>(Component {
                bytes: inner.components.get(digest)?,
                signature: inner.components.signature(digest)?,
            })
        });
        match read.await {
            Ok(Ok(component)) => Ok(component),
            Ok(Err(error)) => Err(LifecycleError::NotFound(format!(
                "the component {digest} cannot be read: {error}"
            ))),
            Err(error) => Err(LifecycleError::Unavailable(error.to_string())),
        }
    }
}

fn view(installation: &Installation, verdicts: &BTreeMap<Digest, Verdict>) -> PluginView {
    let digest = |id| installation.version(id).map(|version| version.digest.clone());
    let versions: Vec<VersionView> = installation
        .versions
        .iter()
        .map(|version| version_view(installation, version, verdicts))
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
        paused: installation.paused.as_ref().map(|pause| pause.reason.clone()),
        sources: BTreeSet::new(),
        tables: BTreeSet::new(),
        used: None,
        versions,
    }
}

fn version_view(
    installation: &Installation,
    record: &VersionRecord,
    verdicts: &BTreeMap<Digest, Verdict>,
) -> VersionView {
    let digest: Option<Digest> = record.digest.parse().ok();
    let verdict = digest.and_then(|digest| verdicts.get(&digest));
    VersionView {
        signature: verdict.unwrap_or(&Verdict::NotChecked).view(),
        version: record.version.clone(),
        digest: record.digest.clone(),
        contract: record.contract.clone(),
        state: VersionState::of(installation, record),
        installed_at: record.loaded_at.to_rfc3339(),
        activated_at: record.activated_at.map(Timestamp::to_rfc3339),
        component_bytes: record.component_bytes,
        came_from: record.came_from.clone(),
        failed: record.failed.clone(),
    }
}
