//! The plugins of a running host: installation, activation, pause and removal. This crate owns the projections, assigns
//! their desired state, and stores the desired state of each plugin in the database for the next start.
//!
//! The host stores a version by its digest and checks it before anything changes. An activation is one transaction,
//! which the projections follow between two batches. A component that cannot be loaded changes nothing. Every operation
//! goes through [`Lifecycle`], whether the API, the plugin directory or the host itself starts it.

mod canary;
mod components;
mod consumers;
mod deep;
mod directory;
mod forget;
mod health_gate;
mod load_failures;
mod loading;
mod permit;
mod rebuild;
mod reproject;
mod resolve;
mod retry;
mod running_plugins;
mod settings;
mod signatures;
mod sources;
mod start;
mod trace;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use lantern_broker::Broker;
use lantern_model::actor::Actor;
use lantern_model::batch::Timestamp;
use lantern_model::schema::PluginName;
use lantern_model::settings::PluginSettings;
use lantern_model::status::Registry;
use lantern_plugin::{Digest, LoadError, Loader, Plugin};
use lantern_store::reader::ReadError;
use lantern_store::{
    Activation, AdoptError, Adoption, AuditEntry, AuditMark, AuditOutcome, CommitError, Pause, PausedBy,
    RetryTotals, Store, StoreRefusal, list_refusals,
};
use lantern_telemetry::Metrics;
use lantern_trust::signature::{Fault, Policy};

pub use canary::{
    CANARY_LIVE_MAX, CANARY_MESSAGES_MAX, CanaryReport, CanaryRequest, CanarySource, VersionReport,
};
pub use consumers::{ConsumerLeft, ConsumerTakenOver, Removal, TakeOverOutcome};
pub use deep::{DeepError, DeepParts, DeepReport, check_deep};
pub use forget::{ForgetReport, ForgetRequest, ForgottenStream, ForgottenTable};
pub use load_failures::{LoadFailure, LoadSubject};
pub use rebuild::{RebuildProgress, RebuildRequest, RebuildView};
pub use reproject::Reprojected;
pub use start::StartError;
pub use trace::{Trace, TracedMessage, VersionWork, WorkRange};
pub use view::{DescriptionView, PluginView, UseView, VersionState, VersionView};

use components::Components;
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
}

/// The plugins of this host. Cheap to clone.
#[derive(Clone)]
pub struct Lifecycle {
    inner: Arc<Inner>,
}

struct Inner {
    parts: Parts,
    /// Executes operations, independently of the caller's threads.
    runtime: tokio::runtime::Handle,
    components: Components,
    /// Serialises operations. Each is short, because slow work (compiling) happens before it takes the lock.
    plugins: tokio::sync::Mutex<RunningPlugins>,
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
    stop: CancellationToken,
}

/// The audit entry of a change that a part of the host makes without a request, for the transaction of the change.
/// `None` for the holder of a token, because the API has already written an entry for that call.
fn host_mark(
    by: &Actor,
    action: &str,
    plugin: &str,
    digest: Option<Digest>,
    detail: String,
) -> Option<AuditMark> {
    let entry = AuditEntry {
        actor: by.clone(),
        action: action.to_owned(),
        plugin: Some(plugin.to_owned()),
        digest: digest.map(|digest| digest.to_string()),
        outcome: AuditOutcome::Done,
        detail,
    };
    by.is_host().then(|| entry.into())
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

/// Why an operation failed. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum LifecycleError {
    /// No plugin of this name is installed.
    #[error("no plugin named {0} is installed")]
    NoPlugin(String),
    /// The plugin has no such version.
    #[error("plugin {plugin} has no version {version}")]
    NoVersion {
        /// The plugin.
        plugin: String,
        /// The requested version.
        version: String,
    },
    /// The requested object does not exist.
    #[error("{0}")]
    NotFound(String),
    /// The operation is not possible in the current state; the message names an alternative.
    #[error("{0}")]
    Conflict(String),
    /// The component is not a valid plugin.
    #[error("the component was rejected")]
    Load(#[source] LoadError),
    /// Signatures are required, and the component has no valid one. Its bytes were not parsed.
    #[error("{fault}")]
    Signature {
        /// The component.
        digest: Digest,
        /// What is wrong with its signature.
        fault: Fault,
    },
    /// The plugin may not run with its settings.
    #[error("plugin {plugin} may not run with its settings")]
    Settings {
        /// The plugin.
        plugin: String,
        /// The reason.
        #[source]
        source: LoadError,
    },
    /// The settings are invalid; lists all problems.
    #[error("{}", .0.join("; "))]
    BadSettings(Vec<String>),
    /// Its tables are incompatible, or belong to another plugin.
    #[error("the database rejects its tables: {}", list_refusals(.0))]
    Tables(Vec<StoreRefusal>),
    /// The database or a file cannot be written; a retry may succeed.
    #[error("temporarily unavailable: {0}")]
    Unavailable(String),
}

impl LifecycleError {
    /// The component, if its signature was rejected.
    pub fn unsigned(&self) -> Option<Digest> {
        match self {
            Self::Signature { digest, .. } => Some(*digest),
            _ => None,
        }
    }

    /// What the operator can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Load(error) => error.hint().map(str::to_owned),
            Self::Signature { fault, .. } => Some(fault.hint()),
            Self::Settings { plugin, source } => Some(match source {
                LoadError::Outline(_) => {
                    format!("if you trust it: lantern plugin set {plugin} wasi=true, then install it again")
                }
                LoadError::InternalSubject { .. } => format!(
                    "if you trust it: lantern plugin set {plugin} internal_subjects=true, then install it again"
                ),
                _ => format!("see lantern plugin show {plugin}, and lantern plugin set {plugin} …"),
            }),
            Self::Tables(reasons)
                if reasons
                    .iter()
                    .any(|reason| matches!(reason, StoreRefusal::ForeignTable { .. })) =>
            {
                Some("two plugins cannot share a table; rename it in one of them".to_owned())
            }
            Self::Tables(_) => Some(
                "only new tables, new nullable columns and new indexes are applied automatically; for other changes \
                 rebuild: lantern rebuild PLUGIN@DIGEST"
                    .to_owned(),
            ),
            Self::NoPlugin(_) => Some("lantern plugin list shows the installed plugins".to_owned()),
            Self::NoVersion { plugin, .. } => Some(format!(
                "lantern plugin show {plugin} lists its versions; give a version number, or at least eight digits of \
                 a digest"
            )),
            _ => None,
        }
    }
}

impl From<CommitError> for LifecycleError {
    fn from(error: CommitError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<ReadError> for LifecycleError {
    fn from(error: ReadError) -> Self {
        Self::Unavailable(error.with_cause())
    }
}

impl From<AdoptError> for LifecycleError {
    fn from(error: AdoptError) -> Self {
        match error {
            AdoptError::Refused(reasons) => Self::Tables(reasons),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

/// An installed or activated version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// The plugin's name.
    pub plugin: String,
    /// The version number.
    pub version: String,
    /// Its digest.
    pub digest: Digest,
    /// The result of retrying open dead letters before the activation.
    pub retried: RetryTotals,
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
        by: &Actor,
    ) -> Result<Installed, LifecycleError> {
        let inner = Arc::clone(&self.inner);
        let (component, by) = (component.into(), by.clone());
        // The operation completes even if the caller goes away.
        self.detached(async move {
            let plugin = inner
                .check_and_store(component, &format!("sent by {by}"), &by)
                .await?;
            Ok(installed(&plugin))
        })
        .await
    }

    /// Activates a version: the one with this digest, or the newest.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn activate(
        &self,
        plugin: &str,
        digest: Option<Digest>,
        by: &Actor,
    ) -> Result<Installed, LifecycleError> {
        let inner = Arc::clone(&self.inner);
        let (plugin, by) = (plugin.to_owned(), by.clone());
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
    pub async fn rollback(&self, plugin: &str, by: &Actor) -> Result<Installed, LifecycleError> {
        let inner = Arc::clone(&self.inner);
        let (plugin, by) = (plugin.to_owned(), by.clone());
        self.detached(async move {
            if let Some(kept) = inner.kept_tables(&plugin).await? {
                return inner.restore_tables(&plugin, kept, &by).await;
            }
            let digest = inner.previous_digest(&plugin).await?;
            let version = inner.load_version(&plugin, digest).await?;
            inner.activate_version(version, Activation::RollBack, &by).await
        })
        .await
    }

    /// Pauses a plugin's projections after the batch in hand; messages wait in their streams.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn pause(&self, plugin: &str, reason: &str, by: &Actor) -> Result<(), LifecycleError> {
        let inner = Arc::clone(&self.inner);
        let pause = Pause {
            by: PausedBy::Operator,
            reason: reason.to_owned(),
        };
        let (plugin, by) = (plugin.to_owned(), by.clone());
        self.detached(async move { inner.set_paused(&plugin, Some(pause), &by).await })
            .await
    }

    /// Resumes a paused plugin at its checkpoints.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn resume(&self, plugin: &str, by: &Actor) -> Result<(), LifecycleError> {
        let inner = Arc::clone(&self.inner);
        let (plugin, by) = (plugin.to_owned(), by.clone());
        self.detached(async move { inner.set_paused(&plugin, None, &by).await })
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
        by: &Actor,
    ) -> Result<Removal, LifecycleError> {
        let inner = Arc::clone(&self.inner);
        let (plugin, by) = (plugin.to_owned(), by.clone());
        self.detached(async move { inner.remove(&plugin, drop_tables, &by).await })
            .await
    }

    /// Runs an operation to its end, even if the caller goes away, on the host's threads: the tasks that it starts must
    /// not run at the lower priority of API threads.
    async fn detached<T: Send + 'static>(
        &self,
        act: impl Future<Output = Result<T, LifecycleError>> + Send + 'static,
    ) -> Result<T, LifecycleError> {
        match self.inner.runtime.spawn(act).await {
            Ok(result) => result,
            Err(error) => Err(LifecycleError::Unavailable(format!(
                "the operation panicked: {error}"
            ))),
        }
    }
}

fn installed(plugin: &Plugin) -> Installed {
    Installed {
        plugin: plugin.manifest().name.to_string(),
        version: plugin.manifest().version.to_string(),
        digest: plugin.digest(),
        retried: RetryTotals::default(),
        restored: None,
    }
}

fn adoption(plugin: &Plugin) -> Adoption {
    Adoption {
        manifest: Arc::clone(plugin.manifest()),
        digest: plugin.digest().to_string(),
        contract: plugin.facts().contract.to_string(),
        at: Timestamp::now(),
    }
}
