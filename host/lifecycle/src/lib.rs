//! The plugins of a running host: how they come, change and go. It owns the projections, tells them which version to
//! run, and keeps what is wanted of each plugin in the database, so that a restart finds it again.
//!
//! A version is stored by its digest and checked before anything changes; a switch is one transaction, which the
//! projections follow between two batches. Whatever cannot be loaded changes nothing. Every act goes through
//! [`Lifecycle`], whoever asks for it: the API, the plugin directory, or the host itself.

mod canary;
mod components;
mod consumers;
mod deep;
mod directory;
mod fleet;
mod forget;
mod heal;
mod probation;
mod rebuild;
mod reference;
mod reproject;
mod settings;
mod signatures;
mod sources;
mod start;
mod trace;
mod turn;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use lantern_broker::Broker;
use lantern_model::batch::Timestamp;
use lantern_model::schema::{ManifestDescription, PluginName};
use lantern_model::settings::PluginSettings;
use lantern_model::status::Registry;
use lantern_plugin::{Digest, LoadError, Loader, Plugin};
use lantern_projection::Version;
use lantern_store::{
    AdoptError, Adoption, Arrival, AuditEntry, AuditMark, AuditOutcome, CommitError, Healed, Store, Way,
};
use lantern_telemetry::Metrics;
use lantern_trust::signature::{Fault, Policy, Verdict};

pub use canary::{
    CANARY_LIVE_MAX, CANARY_MESSAGES_MAX, CanaryReport, CanaryRequest, CanarySource, SideReport,
};
pub use consumers::{ConsumerLeft, ConsumerTakenOver, Removal, TakeOverOutcome};
pub use deep::{DeepError, DeepParts, DeepReport, check_deep};
pub use forget::{ForgetReport, ForgetRequest, ForgottenStream, ForgottenTable};
pub use rebuild::{Progress, RebuildRequest, RebuildView};
pub use reproject::Reprojected;
pub use start::StartError;
pub use trace::{Trace, TracedMessage, Written, WrittenRange};
pub use view::{DescriptionView, PluginView, Refusal, UseView, VersionState, VersionView};

use components::Components;
use fleet::Fleet;
use rebuild::Rebuilds;
use signatures::Signatures;

/// What can be chosen.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where components are kept.
    pub components_dir: PathBuf,
    /// The watched directory.
    pub plugin_dir: PathBuf,
    /// Whether components have to be signed, and by whom.
    pub signatures: Policy,
    /// For each projection.
    pub projections: lantern_projection::Config,
}

/// What the lifecycle works with.
pub struct Parts {
    /// What can be chosen.
    pub config: Config,
    /// Where messages come from.
    pub broker: Broker,
    /// Where rows go.
    pub store: Arc<Store>,
    /// Makes plugins of bytes.
    pub loader: Arc<Loader>,
    /// Where projections are listed.
    pub registry: Registry,
    /// Where things are counted.
    pub metrics: Metrics,
}

/// The plugins of this host. Cheap to clone.
#[derive(Clone)]
pub struct Lifecycle {
    inner: Arc<Inner>,
}

struct Inner {
    parts: Parts,
    /// Where acts are carried out, whoever asks for them.
    runtime: tokio::runtime::Handle,
    components: Components,
    /// One act at a time: each is short, since what takes long (compiling) is done before.
    fleet: tokio::sync::Mutex<Fleet>,
    /// One compiler at a time beside the work of the host: two cores would have none left.
    compiling: tokio::sync::Semaphore,
    signatures: Signatures,
    rebuilds: Rebuilds,
    /// Notified when consumers on the broker are to be deleted.
    abandoned: tokio::sync::Notify,
    /// What goes on beside the acts, and ends with the host.
    tasks: TaskTracker,
    /// What operators have set, by plugin.
    settings: Mutex<BTreeMap<String, PluginSettings>>,
    /// Files and versions that do not run, and why.
    refusals: Mutex<Vec<Refusal>>,
    /// Long work beside the projections that is under way.
    busy: Mutex<BTreeSet<String>>,
    stop: CancellationToken,
}

/// Who acts, for the audit and the log: a token's name, or a part of the host in brackets, which no token can have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor(pub String);

impl Actor {
    /// A part of the host that acts by itself.
    fn part(name: &str) -> Self {
        Self(format!("({name})"))
    }

    fn is_part(&self) -> bool {
        self.0.starts_with('(')
    }

    /// The audit entry of a change that a part of the host makes by itself, for the transaction of the change. None for
    /// the holder of a token: that call has an entry already.
    fn mark(&self, action: &str, plugin: &str, digest: Option<Digest>, detail: String) -> Option<AuditMark> {
        let entry = AuditEntry {
            actor: self.0.clone(),
            action: action.to_owned(),
            plugin: Some(plugin.to_owned()),
            digest: digest.map(|digest| digest.to_string()),
            outcome: AuditOutcome::Done,
            detail,
        };
        self.is_part().then(|| entry.into())
    }
}

/// A component as it comes in: its bytes, and the content of its `.minisig` file where one came along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// The component.
    pub component: Vec<u8>,
    /// Its signature; nothing is known of it yet.
    pub signature: Option<Vec<u8>>,
}

/// Without a signature.
impl From<Vec<u8>> for Parcel {
    fn from(component: Vec<u8>) -> Self {
        Self {
            component,
            signature: None,
        }
    }
}

/// Why an act was not done. Nothing has changed then.
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
        /// What was asked for.
        version: String,
    },
    /// What was asked about is not there.
    #[error("{0}")]
    NotFound(String),
    /// It makes no sense as things are; says what would.
    #[error("{0}")]
    Conflict(String),
    /// The component cannot be a plugin.
    #[error("the component is refused")]
    Load(#[source] LoadError),
    /// Signatures are required, and the component's is not good. Nothing has looked at its bytes.
    #[error("{fault}")]
    Signature {
        /// The component.
        digest: Digest,
        /// What is wrong with its signature.
        fault: Fault,
    },
    /// The component is a plugin, but not one that may run as things are set for it.
    #[error("plugin {plugin} may not run with its settings")]
    Settings {
        /// The plugin.
        plugin: String,
        /// Why.
        #[source]
        source: LoadError,
    },
    /// The settings make no sense; all problems at once.
    #[error("{}", .0.join("; "))]
    BadSettings(Vec<String>),
    /// Its tables do not fit, or belong to another plugin.
    #[error("the database refuses its tables: {}", .0.join("; "))]
    Tables(Vec<String>),
    /// The database cannot be written, or a file not be kept; it may be tried again.
    #[error("not possible now: {0}")]
    Unavailable(String),
}

impl LifecycleError {
    /// The component that was refused for want of a good signature, where it is that.
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
                    format!("if you trust it: lantern plugin set {plugin} wasi=true, and install it again")
                }
                LoadError::InternalSubject { .. } => format!(
                    "if you trust it: lantern plugin set {plugin} internal_subjects=true, and install it again"
                ),
                _ => format!("see lantern plugin show {plugin}, and lantern plugin set {plugin} …"),
            }),
            Self::Tables(reasons) if reasons.iter().any(|reason| reason.contains("belongs to plugin")) => {
                Some("two plugins cannot have one table; rename it in one of them".to_owned())
            }
            Self::Tables(_) => Some(
                "only new tables, new nullable columns and new indexes come in by themselves; for anything else \
                 rebuild: lantern rebuild PLUGIN@DIGEST"
                    .to_owned(),
            ),
            Self::NoPlugin(_) => Some("lantern plugin list shows what is installed".to_owned()),
            Self::NoVersion { plugin, .. } => Some(format!(
                "lantern plugin show {plugin} lists its versions; name one by its number, or by eight digits or more \
                 of its digest"
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

impl From<AdoptError> for LifecycleError {
    fn from(error: AdoptError) -> Self {
        match error {
            AdoptError::Refused(reasons) => Self::Tables(reasons),
            other => Self::Unavailable(other.to_string()),
        }
    }
}

/// A version that was taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// The plugin's name.
    pub plugin: String,
    /// The version that it says it is.
    pub version: String,
    /// Its digest.
    pub digest: Digest,
    /// What came of the open dead letters, which a version that is activated tries first.
    pub healed: Healed,
    /// The rebuild whose replaced tables are in use again, where a rollback went back to them.
    pub restored: Option<i64>,
}

impl Lifecycle {
    /// Takes a component in: looks at its signature, checks, compiles and tries it, and keeps it. Nothing of it runs.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn install(&self, parcel: impl Into<Parcel>, by: &Actor) -> Result<Installed, LifecycleError> {
        let inner = Arc::clone(&self.inner);
        let (parcel, by) = (parcel.into(), by.clone());
        // A caller that goes away does not leave half an act.
        self.detached(async move {
            let plugin = inner.take_in(parcel, &format!("sent by {}", by.0), &by).await?;
            Ok(installed(&plugin))
        })
        .await
    }

    /// Makes a version run: the one with this digest, or the newest.
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
            let digest = inner.choose(&plugin, digest).await?;
            let version = inner.version(&plugin, digest).await?;
            inner.switch(version, Way::Forward, &by).await
        })
        .await
    }

    /// Goes back to the version that ran before; behind a rebuild whose replaced tables are kept, to those.
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
            let digest = inner.previous(&plugin).await?;
            let version = inner.version(&plugin, digest).await?;
            inner.switch(version, Way::Back, &by).await
        })
        .await
    }

    /// Holds a plugin's projections after the batch in hand; its messages wait in their streams.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn pause(&self, plugin: &str, reason: &str, by: &Actor) -> Result<(), LifecycleError> {
        let inner = Arc::clone(&self.inner);
        // What the plugin directory has paused it lets go again; nobody else's reason is to look like its own.
        let reason = reason.trim_start_matches(directory::REASON).to_owned();
        let (plugin, by) = (plugin.to_owned(), by.clone());
        self.detached(async move { inner.hold(&plugin, Some(reason), &by).await })
            .await
    }

    /// Lets a paused plugin go on where it was.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn resume(&self, plugin: &str, by: &Actor) -> Result<(), LifecycleError> {
        let inner = Arc::clone(&self.inner);
        let (plugin, by) = (plugin.to_owned(), by.clone());
        self.detached(async move { inner.hold(&plugin, None, &by).await })
            .await
    }

    /// Stops a plugin, forgets it and deletes its consumers on the broker. Its tables stay, and so does the memory of where
    /// it was; or they are dropped as well. Consumers that cannot be deleted now are deleted later.
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

    /// Files and versions that do not run, and why.
    pub fn refusals(&self) -> Vec<Refusal> {
        self.inner
            .refusals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Runs an act that goes on when the one who asked for it has gone away, and on the host's own threads: what it
    /// starts is not to give way to messages as those who ask do.
    async fn detached<T: Send + 'static>(
        &self,
        act: impl Future<Output = Result<T, LifecycleError>> + Send + 'static,
    ) -> Result<T, LifecycleError> {
        match self.inner.runtime.spawn(act).await {
            Ok(result) => result,
            Err(error) => Err(LifecycleError::Unavailable(format!(
                "the act ended badly: {error}"
            ))),
        }
    }
}

fn installed(plugin: &Plugin) -> Installed {
    Installed {
        plugin: plugin.manifest().name.to_string(),
        version: plugin.manifest().version.to_string(),
        digest: plugin.digest(),
        healed: Healed::default(),
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

impl Inner {
    /// Compiles and tries a component on a thread of its own, one at a time.
    async fn load(self: &Arc<Self>, parcel: Parcel) -> Result<(Arc<Plugin>, Parcel), LifecycleError> {
        // The semaphore is never closed; if it were, compiling would merely not be bounded.
        let _permit = self.compiling.acquire().await.ok();
        let inner = Arc::clone(self);
        let work = tokio::task::spawn_blocking(move || {
            let plugin = inner.load_parcel(&parcel)?;
            Ok((plugin, parcel))
        });
        match work.await {
            Ok(loaded) => loaded,
            Err(error) => Err(LifecycleError::Unavailable(format!(
                "the host panicked while it loaded the component: {error}"
            ))),
        }
    }

    /// Looks at a component's signature, compiles and tries it, then holds it to what the operator has set for the plugin
    /// that it says it is. Blocks.
    fn load_parcel(&self, parcel: &Parcel) -> Result<Arc<Plugin>, LifecycleError> {
        let verdict = self.admit(parcel)?;
        // Its name has to be known before it can be looked up what it is allowed. WASI is empty here, and nothing subscribes.
        let trial = PluginSettings {
            wasi: true,
            internal_subjects: true,
            ..PluginSettings::default()
        };
        let loaded = self.parts.loader.load_with(&parcel.component, &trial);
        let plugin = loaded.map_err(LifecycleError::Load)?;
        let name = plugin.manifest().name.to_string();
        if let Verdict::Faulty(fault) = verdict {
            let (digest, reason) = (plugin.digest(), fault.to_string());
            tracing::warn!(plugin = name, %digest, reason, "a plugin without a good signature is let in");
        }
        plugin
            .with_settings(&self.settings_of(&name))
            .map_err(|source| LifecycleError::Settings { plugin: name, source })
    }

    /// Checks a component and keeps it.
    async fn take_in(
        self: &Arc<Self>,
        parcel: Parcel,
        came_from: &str,
        by: &Actor,
    ) -> Result<Arc<Plugin>, LifecycleError> {
        let (plugin, parcel) = self.load(parcel).await?;
        self.keep(&plugin, parcel, came_from, by).await?;
        Ok(plugin)
    }

    /// Keeps a component that was loaded, and makes it known.
    async fn keep(
        self: &Arc<Self>,
        plugin: &Plugin,
        parcel: Parcel,
        came_from: &str,
        by: &Actor,
    ) -> Result<(), LifecycleError> {
        let component_bytes = parcel.component.len() as u64;
        let digest = plugin.digest();
        let inner = Arc::clone(self);
        let kept = tokio::task::spawn_blocking(move || {
            inner.components.put(digest, &parcel.component)?;
            inner.keep_signature(digest, &parcel)
        });
        let kept = kept.await;
        let failed = match kept {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(error) = failed {
            return Err(LifecycleError::Unavailable(format!(
                "the component cannot be kept: {error}"
            )));
        }
        let arrival = Arrival {
            adoption: adoption(plugin),
            component_bytes,
            came_from: came_from.to_owned(),
            description: ManifestDescription::from(&**plugin.manifest()),
        };
        let name = plugin.manifest().name.as_str();
        let detail = format!("version {}, {came_from}", plugin.manifest().version);
        let mark = by.mark("plugin.install", name, Some(digest), detail);
        Ok(self.parts.store.install(arrival, mark).await?)
    }

    /// A version ready to run: the one at work or the warm one behind it, or loaded from what is kept.
    async fn version(self: &Arc<Self>, plugin: &str, digest: Digest) -> Result<Arc<Version>, LifecycleError> {
        if let Some(warm) = self.fleet.lock().await.warm(plugin, digest) {
            return Ok(warm);
        }
        let inner = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || inner.components.get(digest)).await;
        let bytes = match read {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(error)) => {
                return Err(LifecycleError::Unavailable(format!(
                    "the component {digest} of plugin {plugin} cannot be read: {error}"
                )));
            }
            Err(error) => return Err(LifecycleError::Unavailable(error.to_string())),
        };
        let (loaded, _) = self.load(bytes.into()).await?;
        Ok(Arc::new(Version::new(loaded)))
    }
}
