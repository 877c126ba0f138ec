//! The start and the end: what the database says should run is loaded and runs, then the plugin directory is looked
//! at, then it is watched.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::components::Components;
use super::directory::Directory;
use super::fleet::Fleet;
use super::rebuild::Rebuilds;
use super::signatures::Signatures;
use super::{Actor, Inner, Lifecycle, LifecycleError, Parts, Refusal};
use lantern_model::schema::Table;
use lantern_plugin::{Digest, DigestError, Plugin};
use lantern_projection::Version;
use lantern_store::{CommitError, Installation};

/// Why the plugins cannot be started at all.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The folder of components cannot be used.
    #[error("the folder of installed plugins {} cannot be used", dir.display())]
    Components {
        /// The folder.
        dir: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The plugin directory cannot be read.
    #[error("read the plugin directory {}", dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The database does not say what should run.
    #[error("ask the database which plugins are installed")]
    Database(#[from] CommitError),
    /// The rebuilds that were running cannot be taken up.
    #[error("take up the rebuilds that were running")]
    Rebuilds(#[from] LifecycleError),
    /// Nothing is installed, and no file of the plugin directory can be loaded.
    #[error("no plugin can be loaded: {0}")]
    Nothing(String),
}

impl Lifecycle {
    /// Starts what should run: what the database says, and what is new in the plugin directory. What cannot be loaded
    /// is noted among the refusals and does not keep the others from running.
    ///
    /// # Errors
    /// See [`StartError`]. When nothing is installed and no file of the plugin directory can be loaded, there is nothing to
    /// start for. Installed plugins that cannot be loaded do not keep the host from starting: its tables are served, and
    /// the plugins can be installed again.
    pub async fn start(parts: Parts, stop: CancellationToken) -> Result<Self, StartError> {
        let dir = parts.config.components_dir.clone();
        let components = Components::open(&dir).map_err(|source| StartError::Components { dir, source })?;
        let inner = Arc::new(Inner {
            parts,
            runtime: tokio::runtime::Handle::current(),
            components,
            fleet: tokio::sync::Mutex::new(Fleet::default()),
            compiling: tokio::sync::Semaphore::new(1),
            signatures: Signatures::default(),
            rebuilds: Rebuilds::default(),
            abandoned: tokio::sync::Notify::new(),
            tasks: TaskTracker::new(),
            settings: Mutex::default(),
            refusals: Mutex::default(),
            busy: Mutex::default(),
            stop,
        });
        let installations = inner.parts.store.installations().await?;
        inner.remember_settings(&installations);
        inner.resume(&installations).await?;
        inner.sweep(&installations);
        let mut directory = Directory::new(Arc::clone(&inner));
        directory.look_at_start().await?;
        let running = inner.fleet.lock().await.len();
        let refusals = inner.refusals();
        // What is refused for its signature can be mended while the host runs: by a signature that comes.
        let hopeless = refusals
            .iter()
            .all(|refusal| !refusal.unsigned && !refusal.holds_up);
        if running == 0 && !refusals.is_empty() && hopeless {
            let reasons: Vec<String> = refusals
                .iter()
                .map(|refusal| format!("{}: {}", refusal.what, refusal.reason))
                .collect();
            return Err(StartError::Nothing(reasons.join("; ")));
        }
        inner.resume_rebuilds().await?;
        inner.watch_abandoned();
        inner.tasks.spawn(directory.watch());
        Ok(Self { inner })
    }

    /// How many plugins run or are paused.
    pub async fn count(&self) -> usize {
        self.inner.fleet.lock().await.len()
    }

    /// The tables whose rows grow old.
    pub async fn expiring_tables(&self) -> Vec<Table> {
        self.inner.fleet.lock().await.expiring()
    }

    /// Ends all projections after the batch in hand.
    pub async fn stop(&self) {
        self.inner.stop.cancel();
        self.inner.fleet.lock().await.stop().await;
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

impl Inner {
    /// Runs what ran, or was paused, when the host stopped.
    async fn resume(self: &Arc<Self>, installations: &[Installation]) -> Result<(), StartError> {
        let wanted = installations.iter().filter_map(|installation| {
            let active = installation.active.and_then(|id| installation.version(id))?;
            Some((
                installation.plugin.clone(),
                active.digest.clone(),
                installation.paused.clone(),
                active.failed.is_some(),
            ))
        });
        let inner = Arc::clone(self);
        let loaded = side_by_side(wanted.collect(), move |(plugin, digest, hold, failed)| {
            let loaded = inner.load_kept(&digest);
            (plugin, digest, hold, failed, loaded)
        });
        for (plugin, digest, hold, failed, loaded) in loaded.await {
            match loaded {
                Ok(loaded) => {
                    if failed {
                        // What kept it from running at an earlier start does not any more.
                        self.parts.store.note_failed(&plugin, &digest, None).await?;
                    }
                    let mut fleet = self.fleet.lock().await;
                    self.run(&mut fleet, Arc::new(Version::new(loaded)), hold).await;
                }
                Err(error) => {
                    let unsigned = error.unsigned();
                    let reason = words(error);
                    tracing::error!(
                        plugin,
                        digest,
                        reason,
                        "a plugin that should run cannot be loaded"
                    );
                    let noted = self.parts.store.note_failed(&plugin, &digest, Some(&reason));
                    noted.await?;
                    if unsigned.is_some() {
                        let by = Actor::part("host");
                        self.audit_refusal(&by, Some(&plugin), unsigned, &reason).await;
                    }
                    self.refuse(Refusal {
                        what: format!("plugin {plugin}"),
                        reason,
                        holds_up: true,
                        unsigned: unsigned.is_some(),
                    });
                }
            }
        }
        Ok(())
    }

    fn load_kept(&self, digest: &str) -> Result<Arc<Plugin>, LifecycleError> {
        let unreadable =
            |error: String| LifecycleError::Unavailable(format!("its component cannot be read: {error}"));
        let digest: Digest = digest
            .parse()
            .map_err(|error: DigestError| unreadable(error.to_string()))?;
        let bytes = self.components.get(digest);
        let bytes = bytes.map_err(|error| unreadable(error.to_string()))?;
        self.load_parcel(&bytes.into())
    }

    /// Removes components that no plugin knows any more.
    fn sweep(&self, installations: &[Installation]) {
        let kept: Vec<Digest> = installations
            .iter()
            .flat_map(|installation| &installation.versions)
            .filter_map(|version| version.digest.parse().ok())
            .collect();
        if let Err(error) = self.components.sweep(&kept) {
            tracing::warn!(%error, "components that are not needed any more cannot be removed");
        }
    }

    pub(super) fn refusals(&self) -> Vec<Refusal> {
        self.refusals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Notes that something does not run; an earlier reason for the same is replaced.
    pub(super) fn refuse(&self, refusal: Refusal) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.retain(|known| known.what != refusal.what);
        // A directory full of rubbish is not worth more memory than this.
        if refusals.len() < REFUSALS_MAX {
            refusals.push(refusal);
        }
    }

    /// Takes a refusal back.
    pub(super) fn forgive(&self, what: &str) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.retain(|known| known.what != what);
    }
}

/// An error with its causes and what to do about it, in one line.
pub(super) fn words(error: LifecycleError) -> String {
    let hint = error.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
    format!("{:#}{hint}", anyhow::Error::new(error))
}

/// Blocking work on many things, as many at once as there are processors, answered in any order.
pub(super) async fn side_by_side<T: Send + 'static, U: Send + 'static>(
    things: Vec<T>,
    work: impl Fn(T) -> U + Clone + Send + 'static,
) -> Vec<U> {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut things = things.into_iter();
    let mut working = JoinSet::new();
    let mut done = Vec::new();
    loop {
        while working.len() < processors
            && let Some(thing) = things.next()
        {
            let work = work.clone();
            working.spawn_blocking(move || work(thing));
        }
        match working.join_next().await {
            Some(Ok(result)) => done.push(result),
            Some(Err(error)) => tracing::error!(%error, "the host panicked while it loaded a plugin"),
            None => return done,
        }
    }
}

/// Refusals that are remembered.
const REFUSALS_MAX: usize = 1_000;
