//! The plugins of a running host: installation, activation, pause and removal. This crate owns the projections, assigns
//! their desired state, and stores the desired state of each plugin in the database for the next start.
//!
//! The host stores a version by its digest and checks it before anything changes. An activation is one transaction,
//! which the projections follow between two batches. A component that cannot be loaded changes nothing. Every operation
//! goes through [`Lifecycle`], whether the API, the plugin directory or the host itself starts it.
//!
//! Each state has one owner:
//!
//! | state | owner |
//! | --- | --- |
//! | installed versions, active version, pause, settings | the database |
//! | loaded versions, desired states, projections | the task in `running_plugins`; it receives commands and publishes a snapshot |
//! | the order of operations on one plugin | its lane in `lanes`; pauses have other lanes, so that a pause does not wait |
//! | progress of running rebuilds | `Rebuilds`; each entry belongs to the task of its rebuild |
//! | load failures, settings in memory, verdicts on signatures | one lock each, which no operation holds while it waits |
//! | files of the plugin directory | the task in `directory` |
//!
//! Each operation runs in a separate task. It loads components, retries dead letters and waits for the database and the
//! broker there, and sends a command when the database has committed. Reads use the snapshot and the database, and wait
//! for no operation.

mod activation;
mod background;
mod canary;
mod components;
mod consumers;
mod deep;
mod directory;
mod error;
mod forget;
mod health_gate;
mod installation;
mod lanes;
mod load_failures;
mod loading;
mod pause;
mod permit;
mod placement;
mod priority;
mod rebuild;
mod reconcile;
mod removal;
mod reproject;
mod requester;
mod resolve;
mod retry;
mod running_plugins;
mod search;
mod settings;
mod signatures;
mod sources;
mod start;
mod trace;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use lantern_broker::Broker;
use lantern_model::actor::Actor;
use lantern_model::batch::Timestamp;
use lantern_model::results::plugins::{Signature, VersionState};
use lantern_model::schema::PluginName;
use lantern_model::schema::difference::Difference;
use lantern_model::settings::PluginSettings;
use lantern_model::status::Registry;
use lantern_plugin::{Digest, Loader, Plugin};
use lantern_projection::LoadedVersion;
use lantern_store::{Activation, Adoption, Leases, Pause, PausedBy, RetryTotals, Store};
use lantern_telemetry::Metrics;
use lantern_trust::signature::Policy;

pub use canary::{CANARY_LIVE_MAX, CANARY_MESSAGES_MAX, CanaryRequest};
pub use consumers::Removal;
pub use deep::{DeepError, DeepParts, DeepReport, check_deep};
pub use error::{InstallError, LifecycleError, StartError};
pub use forget::ForgetRequest;
pub use load_failures::{LoadFailure, LoadSubject};
pub use priority::lower_priority;
pub use rebuild::RebuildRequest;
pub use requester::Requester;

use components::Components;
use installation::previous_digest;
use lanes::Lanes;
use pause::PauseChange;
use rebuild::Rebuilds;
use running_plugins::RunningPlugins;
use signatures::Signatures;

/// Settings of the lifecycle.
#[derive(Clone, Debug)]
pub struct LifecycleConfig {
    /// The folder of installed components.
    pub components_dir: PathBuf,
    /// The plugin directory.
    pub plugin_dir: PathBuf,
    /// Whether components have to be signed, and by which keys.
    pub signatures: Policy,
    /// Settings of each projection.
    pub projections: lantern_projection::ProjectionConfig,
}

/// What the lifecycle depends on.
pub struct Parts {
    /// The settings.
    pub config: LifecycleConfig,
    /// The connection to the broker.
    pub broker: Broker,
    /// The database.
    pub store: Arc<Store>,
    /// Loads plugins from components.
    pub loader: Arc<Loader>,
    /// Lists the statuses of projections.
    pub registry: Registry,
    /// The metrics.
    pub metrics: Metrics,
    /// The leases of plugins; none if the database has only one host.
    pub leases: Option<Leases>,
}

/// The plugins of this host. Cheap to clone.
#[derive(Clone)]
pub struct Lifecycle {
    inner: Arc<Inner>,
}

struct Inner {
    parts: Arc<Parts>,
    /// Executes operations, independently of the caller's threads.
    runtime: tokio::runtime::Handle,
    components: Components,
    running: RunningPlugins,
    /// The order of operations on one plugin.
    operations: Lanes,
    /// The order of pauses of one plugin.
    pauses: Lanes,
    /// Starts of rebuilds hold it shared, an erasure exclusively: no rebuild starts during an erasure.
    erasure: tokio::sync::RwLock<()>,
    /// The threads of rebuilds.
    background: background::BackgroundThreads,
    /// One compiler at a time, so that ingestion keeps a processor on a two-core machine.
    compiling: tokio::sync::Semaphore,
    signatures: Signatures,
    rebuilds: Rebuilds,
    /// Notified when consumers on the broker have to be deleted.
    abandoned: tokio::sync::Notify,
    /// Background tasks, which end with the host.
    tasks: TaskTracker,
    /// The operators' settings, by plugin.
    settings: Mutex<BTreeMap<String, PluginSettings>>,
    /// Files and versions that do not run, with the reasons.
    load_failures: Mutex<Vec<LoadFailure>>,
    /// Names of exclusive background work in progress.
    busy: Mutex<BTreeSet<String>>,
    /// Lookups of installations in the database.
    lookups: AtomicU64,
    /// Completed scans of the plugin directory.
    scans: watch::Sender<u64>,
    stop: CancellationToken,
}

/// A plugin's component with its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// The bytes of the `.wasm` file.
    pub bytes: Vec<u8>,
    /// The content of the `.minisig` file, unchecked.
    pub signature: Option<Vec<u8>>,
}

/// A component without a signature.
impl From<Vec<u8>> for Component {
    fn from(component: Vec<u8>) -> Self {
        Self {
            bytes: component,
            signature: None,
        }
    }
}

/// An installed or activated version.
#[derive(Clone, Debug, PartialEq)]
pub struct Installed {
    /// The plugin's name.
    pub plugin: String,
    /// The version number.
    pub version: String,
    /// Its digest.
    pub digest: Digest,
    /// Its state.
    pub state: VersionState,
    /// The verdict on its signature.
    pub signature: Signature,
    /// The digest of the version that was active before.
    pub from: Option<String>,
    /// The differences from that version. Empty if an older host stored no description of it.
    pub differences: Vec<Difference>,
    /// The result of retrying open dead letters before the activation.
    pub retried: RetryTotals,
    /// Whether the host retries the remaining dead letters in the background.
    pub retry_continues: bool,
    /// The rebuild whose replaced tables a rollback restored.
    pub restored: Option<i64>,
}

impl Lifecycle {
    /// Installs a component: checks its signature, compiles and tests it, and stores it. The active version does not
    /// change.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn install(
        &self,
        component: impl Into<Component>,
        by: impl Into<Requester>,
    ) -> Result<Installed, LifecycleError> {
        let inner = Arc::clone(&self.inner);
        let (component, by) = (component.into(), by.into());
        // The operation completes even if the caller goes away.
        self.detached(async move {
            let plugin = inner.check_and_store(component, &by).await?;
            let installation = inner.installation(plugin.manifest().name.as_str()).await?;
            Ok(inner.describe_installed(&plugin, &installation).await)
        })
        .await
    }

    /// Installs a component as [`Self::install`] does, and activates it. Loads it once.
    ///
    /// # Errors
    /// See [`InstallError`].
    pub async fn install_and_activate(
        &self,
        component: impl Into<Component>,
        by: impl Into<Requester>,
    ) -> Result<Installed, InstallError> {
        let inner = Arc::clone(&self.inner);
        let (component, by) = (component.into(), by.into());
        let act = async move {
            // The activation ends the audit entry.
            let (plugin, component) = inner.load(component).await?;
            inner.require_here(plugin.manifest().name.as_str())?;
            let without_entry = by.without_entry();
            inner
                .store_component(&plugin, component, &format!("sent by {by}"), &without_entry)
                .await?;
            let version = Arc::new(LoadedVersion::new(Arc::clone(&plugin)));
            let activated = inner.activate_version(version, Activation::Activate, &by).await;
            activated.map_err(|source| InstallError::NotActivated {
                plugin: plugin.manifest().name.to_string(),
                version: plugin.manifest().version.to_string(),
                digest: plugin.digest(),
                source,
            })
        };
        self.inner.runtime.spawn(act).await.map_err(panicked)?
    }

    /// Activates a version: the one with this digest, or the newest.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn activate(
        &self,
        plugin: &str,
        digest: Option<Digest>,
        by: impl Into<Requester>,
    ) -> Result<Installed, LifecycleError> {
        let inner = Arc::clone(&self.inner);
        let (plugin, by) = (plugin.to_owned(), by.into());
        self.detached(async move {
            let digest = inner.resolve_digest(&plugin, digest).await?;
            let version = inner.load_version(&plugin, digest).await?;
            inner.activate_version(version, Activation::Activate, &by).await
        })
        .await
    }

    /// Activates the previous version. After a rebuild whose replaced tables are kept, restores those tables.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn rollback(
        &self,
        plugin: &str,
        by: impl Into<Requester>,
    ) -> Result<Installed, LifecycleError> {
        let inner = Arc::clone(&self.inner);
        let (plugin, by) = (plugin.to_owned(), by.into());
        self.detached(async move {
            let installation = inner.installation(&plugin).await?;
            if let Some(kept) = inner.kept_tables(&installation).await? {
                return inner.restore_tables(&installation, kept, &by).await;
            }
            let version = inner
                .load_version(&plugin, previous_digest(&installation)?)
                .await?;
            inner.activate_version(version, Activation::RollBack, &by).await
        })
        .await
    }

    /// Pauses a plugin's projections. A call into the plugin is interrupted; messages wait in their streams.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn pause(
        &self,
        plugin: &str,
        reason: &str,
        by: impl Into<Requester>,
    ) -> Result<(), LifecycleError> {
        let inner = Arc::clone(&self.inner);
        let pause = Pause {
            by: PausedBy::Operator,
            reason: reason.to_owned(),
        };
        let (plugin, by) = (plugin.to_owned(), by.into());
        self.detached(async move {
            let change = |_: Option<&Pause>| PauseChange::Pause(pause);
            inner.change_pause(&plugin, &by, change).await
        })
        .await
    }

    /// Resumes a paused plugin at its checkpoints.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn resume(&self, plugin: &str, by: impl Into<Requester>) -> Result<(), LifecycleError> {
        let inner = Arc::clone(&self.inner);
        let (plugin, by) = (plugin.to_owned(), by.into());
        self.detached(async move { inner.change_pause(&plugin, &by, |_| PauseChange::Resume).await })
            .await
    }

    /// Removes a plugin and deletes its consumers on the broker. Its tables and checkpoints stay, unless `drop_tables`
    /// is set. The host retries failed deletions of consumers later.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn remove(
        &self,
        plugin: &str,
        drop_tables: bool,
        by: impl Into<Requester>,
    ) -> Result<Removal, LifecycleError> {
        let inner = Arc::clone(&self.inner);
        let (plugin, by) = (plugin.to_owned(), by.into());
        self.detached(async move { inner.remove(&plugin, drop_tables, &by).await })
            .await
    }

    /// Runs an operation to its end, even if the caller goes away, on the host's threads: the tasks that it starts must
    /// not run at the lower priority of API threads.
    async fn detached<T: Send + 'static>(
        &self,
        act: impl Future<Output = Result<T, LifecycleError>> + Send + 'static,
    ) -> Result<T, LifecycleError> {
        self.inner.runtime.spawn(act).await.map_err(panicked)?
    }
}

fn panicked(error: tokio::task::JoinError) -> LifecycleError {
    LifecycleError::Unavailable(format!("the operation panicked: {error}"))
}

fn adoption(plugin: &Plugin) -> Adoption {
    Adoption {
        manifest: Arc::clone(plugin.manifest()),
        digest: plugin.digest().to_string(),
        contract: plugin.facts().contract.to_string(),
        at: Timestamp::now(),
    }
}
