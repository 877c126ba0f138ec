//! Plugins as the API, CLI and dashboard see them: plain data from the database and the running plugins.

use std::collections::BTreeMap;

use super::{Component, Lifecycle, LifecycleError};
use lantern_model::batch::Timestamp;
use lantern_model::results::plugins::{
    PluginSummary, PluginUse, PluginVersion, VersionDescription, VersionState,
};
use lantern_model::schema::difference::{Difference, differences};
use lantern_model::settings::PluginLimitSettings;
use lantern_plugin::{Digest, imports, read_metadata};
use lantern_store::{Installation, VersionRecord};
use lantern_trust::signature::Verdict;

/// The state of a stored version.
pub(super) fn version_state(installation: &Installation, record: &VersionRecord) -> VersionState {
    match record {
        _ if installation.active == Some(record.id) && record.failed.is_some() => VersionState::Failed,
        _ if installation.active == Some(record.id) && installation.paused.is_some() => VersionState::Paused,
        _ if installation.active == Some(record.id) => VersionState::Active,
        VersionRecord { failed: Some(_), .. } => VersionState::Failed,
        VersionRecord {
            activated_at: Some(_),
            ..
        } => VersionState::Replaced,
        _ => VersionState::Installed,
    }
}

impl Lifecycle {
    /// All plugins, by name.
    ///
    /// # Errors
    /// [`LifecycleError::Unavailable`].
    pub async fn list(&self) -> Result<Vec<PluginSummary>, LifecycleError> {
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
                PluginSummary {
                    sources: sorted(sources.map(|source| source.name.to_string())),
                    tables: sorted(tables.map(|table| table.name.to_string())),
                    used: plugins.counted(&installation.plugin).map(|counted| PluginUse {
                        messages_passed: counted.projected,
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
    pub async fn show(&self, plugin: &str) -> Result<PluginSummary, LifecycleError> {
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

impl Lifecycle {
    /// What a version of a plugin declares. Does not run it.
    ///
    /// # Errors
    /// [`LifecycleError::NoPlugin`], [`LifecycleError::NoVersion`] and [`LifecycleError::Unavailable`].
    pub async fn description(
        &self,
        plugin: &str,
        digest: Digest,
    ) -> Result<VersionDescription, LifecycleError> {
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
        Ok(VersionDescription {
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

fn sorted(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn view(installation: &Installation, verdicts: &BTreeMap<Digest, Verdict>) -> PluginSummary {
    let digest = |id| installation.version(id).map(|version| version.digest.clone());
    let versions: Vec<PluginVersion> = installation
        .versions
        .iter()
        .map(|version| version_view(installation, version, verdicts))
        .collect();
    let active = installation.active.and_then(digest);
    let state = versions
        .iter()
        .find(|version| Some(&version.digest) == active.as_ref())
        .map_or(VersionState::Installed, |version| version.state);
    PluginSummary {
        name: installation.plugin.clone(),
        state,
        active,
        previous: installation.previous.and_then(digest),
        paused: installation.paused.as_ref().map(|pause| pause.reason.clone()),
        sources: Vec::new(),
        tables: Vec::new(),
        used: None,
        versions,
    }
}

fn version_view(
    installation: &Installation,
    record: &VersionRecord,
    verdicts: &BTreeMap<Digest, Verdict>,
) -> PluginVersion {
    let digest: Option<Digest> = record.digest.parse().ok();
    let verdict = digest.and_then(|digest| verdicts.get(&digest));
    PluginVersion {
        signature: verdict.unwrap_or(&Verdict::NotChecked).view(),
        version: record.version.clone(),
        digest: record.digest.clone(),
        contract: record.contract.clone(),
        state: version_state(installation, record),
        installed_at: record.loaded_at.to_rfc3339(),
        activated_at: record.activated_at.map(Timestamp::to_rfc3339),
        component_bytes: record.component_bytes,
        came_from: record.came_from.clone(),
        failed: record.failed.clone(),
    }
}
