//! What the faces are told of plugins: plain data, made of what the database knows and what runs.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use utoipa::ToSchema;

use super::{Lifecycle, LifecycleError, Parcel};
use lantern_model::batch::Timestamp;
use lantern_model::schema::description::ManifestDescription;
use lantern_model::schema::difference::{Difference, differences};
use lantern_model::settings::PluginLimitSettings;
use lantern_plugin::{Digest, Metadata, imports, read_metadata};
use lantern_store::{Installation, VersionRecord};
use lantern_trust::signature::{SignatureView, Verdict};

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
    /// What is known of the signature that is kept with its component.
    pub signature: SignatureView,
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
    /// What the version that runs has used; none where none runs.
    pub used: Option<UseView>,
    /// All versions, in the order of arrival.
    pub versions: Vec<VersionView>,
}

/// What a version has used since it was loaded, for all of its sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = PluginUse)]
pub struct UseView {
    /// Messages that it was asked about.
    pub messages: u64,
    /// Time that this took, in microseconds.
    pub busy_us: u64,
    /// The most memory that one of its instances has had, in bytes.
    pub memory_peak_bytes: u64,
    /// Calls that went wrong: traps, timeouts, answers that could not be read.
    pub faults: u64,
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
    /// Whether it is for want of a good signature.
    pub unsigned: bool,
}

impl Lifecycle {
    /// All plugins, by name.
    ///
    /// # Errors
    /// [`LifecycleError::Unavailable`].
    pub async fn list(&self) -> Result<Vec<PluginView>, LifecycleError> {
        let installations = self.inner.parts.store.installations().await?;
        let versions = installations
            .iter()
            .flat_map(|installation| &installation.versions);
        let digests = versions.filter_map(|version| version.digest.parse().ok());
        let verdicts = self.inner.verdicts(digests.collect()).await;
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
                    used: fleet.counted(&installation.plugin).map(|counted| UseView {
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

/// What one version of a plugin says of itself, and what it would run under.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Description)]
pub struct DescriptionView {
    /// Which version.
    #[serde(flatten)]
    pub version: VersionView,
    /// Its sources, tables and writes; none where it was installed by a host that kept no descriptions.
    pub description: Option<ManifestDescription>,
    /// The interfaces that it asks the host for; none when its component is not kept any more.
    pub imports: Option<Vec<String>>,
    /// What its file says of where it is from; for people, and believed by nobody.
    pub about: Metadata,
    /// What its instances may use, with what is set for this plugin.
    pub limits: PluginLimitSettings,
}

impl Lifecycle {
    /// What a version of a plugin says of itself. Nothing of it is run.
    ///
    /// # Errors
    /// [`LifecycleError::NoPlugin`], [`LifecycleError::NoVersion`] and [`LifecycleError::Unavailable`].
    pub async fn description(&self, plugin: &str, digest: Digest) -> Result<DescriptionView, LifecycleError> {
        let installation = self.inner.installation(plugin).await?;
        let text = digest.to_string();
        let mut versions = installation.versions.iter();
        let Some(record) = versions.find(|version| version.digest == text) else {
            return Err(LifecycleError::NoVersion {
                plugin: plugin.to_owned(),
                version: text,
            });
        };
        let limits = self.inner.parts.loader.limits(&self.settings(plugin));
        let component = match self.component(digest).await {
            Ok(parcel) => Some(parcel.component),
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

    /// A version's component as it was installed, with the signature that is kept for it.
    ///
    /// # Errors
    /// [`LifecycleError::NotFound`] when they are not kept any more.
    pub async fn component(&self, digest: Digest) -> Result<Parcel, LifecycleError> {
        let inner = std::sync::Arc::clone(&self.inner);
        let read = tokio::task::spawn_blocking(move || {
            Ok::<_, std::io::Error>(Parcel {
                component: inner.components.get(digest)?,
                signature: inner.components.signature(digest)?,
            })
        });
        match read.await {
            Ok(Ok(parcel)) => Ok(parcel),
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
        paused: installation.paused.clone(),
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
    let digest: Option<Digest> = record.digest.parse().ok();
    let verdict = digest.and_then(|digest| verdicts.get(&digest));
    VersionView {
        signature: verdict.unwrap_or(&Verdict::NotChecked).view(),
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
