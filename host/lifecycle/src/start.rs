//! Start and stop: loads and starts the plugins that the database names, scans the plugin directory, then watches it.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::background::BackgroundThreads;
use super::components::Components;
use super::directory::Directory;
use super::error::StartError;
use super::lanes::Lanes;
use super::load_failures::{LoadFailure, LoadSubject, describe_error};
use super::loading::run_parallel;
use super::placement::{follow_catalog, follow_leases};
use super::rebuild::Rebuilds;
use super::running_plugins::RunningPlugins;
use super::signatures::Signatures;
use super::{Actor, Inner, Lifecycle, LifecycleError, Parts};
use lantern_model::actor::HostPart;
use lantern_model::schema::Table;
use lantern_plugin::Plugin;
use lantern_projection::LoadedVersion;
use lantern_store::{Installation, PLUGIN_DIRECTORY_LEASE};

/// Tasks that run until the host stops: of the running plugins, of abandoned consumers, and of the plugin directory.
const PERMANENT_TASKS: usize = 3;
/// Those of a host among several: the leases, and the changes by other hosts.
const LEASE_TASKS: usize = 2;

impl Lifecycle {
    /// Starts the installed plugins, then new ones from the plugin directory. A component that cannot be loaded is
    /// recorded as a load failure and does not affect the others.
    ///
    /// # Errors
    /// See [`StartError`]. The start fails if nothing is installed and no file of the plugin directory can be loaded.
    /// Installed plugins that cannot be loaded do not prevent the start: the host serves their tables, and they can be
    /// installed again.
    pub async fn start(parts: Parts, stop: CancellationToken) -> Result<Self, StartError> {
        let dir = parts.config.components_dir.clone();
        let components = Components::open(&dir).map_err(|source| StartError::Components { dir, source })?;
        let (parts, tasks) = (Arc::new(parts), TaskTracker::new());
        let running = RunningPlugins::start(Arc::clone(&parts), stop.clone(), &tasks);
        let inner = Arc::new(Inner {
            parts,
            runtime: tokio::runtime::Handle::current(),
            components,
            running,
            operations: Lanes::default(),
            pauses: Lanes::default(),
            erasure: tokio::sync::RwLock::default(),
            background: BackgroundThreads::default(),
            compiling: tokio::sync::Semaphore::new(1),
            signatures: Signatures::default(),
            rebuilds: Rebuilds::default(),
            abandoned: tokio::sync::Notify::new(),
            tasks,
            settings: Mutex::default(),
            load_failures: Mutex::default(),
            busy: Mutex::default(),
            lookups: AtomicU64::new(0),
            scans: watch::Sender::new(0),
            stop,
        });
        let installations = inner.parts.store.reader().installations().await?;
        inner.load_settings(&installations);
        inner.resume(&installations).await?;
        inner.sweep(&installations);
        let mut directory = Directory::new(Arc::clone(&inner));
        if inner.runs_here(PLUGIN_DIRECTORY_LEASE) {
            directory.scan_at_start().await?;
        }
        let load_failures = inner.load_failures();
        // A signature that arrives later can resolve a rejected one, so it does not prevent the start.
        let hopeless = load_failures
            .iter()
            .all(|failure| !failure.unsigned && !failure.blocks_messages);
        if inner.running.len() == 0 && !load_failures.is_empty() && hopeless {
            let reasons: Vec<String> = load_failures
                .iter()
                .map(|failure| format!("{}: {}", failure.subject, failure.reason))
                .collect();
            return Err(StartError::Nothing(reasons.join("; ")));
        }
        if let Some(leases) = inner.parts.leases.clone() {
            // The first claims follow at once, so that the start ends with running sources.
            leases.set_ready(inner.reconcile().await?);
            inner
                .tasks
                .spawn(follow_leases(Arc::clone(&inner), leases.clone()));
            inner.tasks.spawn(follow_catalog(Arc::clone(&inner), leases));
        }
        inner.resume_rebuilds().await?;
        inner.watch_abandoned();
        inner.tasks.spawn(directory.watch());
        Ok(Self { inner })
    }

    /// Number of plugins that run or are paused.
    pub fn count(&self) -> usize {
        self.inner.running.len()
    }

    /// Number of background tasks that will end, such as retries, health gates and rebuilds.
    pub fn background_tasks(&self) -> usize {
        let permanent = match self.inner.parts.leases {
            Some(_) => PERMANENT_TASKS + LEASE_TASKS,
            None => PERMANENT_TASKS,
        };
        self.inner.tasks.len().saturating_sub(permanent)
    }

    /// The tables that have a retention period.
    pub fn expiring_tables(&self) -> Vec<Table> {
        self.inner.running.expiring()
    }

    /// Ends all projections after the batch in hand.
    pub async fn stop(&self) {
        self.inner.stop.cancel();
        self.inner.running.stop().await;
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

impl Inner {
    /// Starts the plugins that ran or were paused when the host stopped.
    async fn resume(self: &Arc<Self>, installations: &[Installation]) -> Result<(), StartError> {
        for installation in installations {
            if let Some(pause) = &installation.paused {
                let reason = Some(pause.reason.clone());
                let paused = self.running.set_paused(&installation.plugin, reason);
                paused.await.map_err(LifecycleError::from)?;
            }
        }
        for (plugin, digest, failed, loaded) in self.load_active(installations).await? {
            match loaded {
                Ok(loaded) => {
                    if failed {
                        // The cause of an earlier failure is gone.
                        self.parts
                            .store
                            .plugins()
                            .set_failed(&plugin, &digest, None)
                            .await?;
                    }
                    let lane = self.operations.enter(&plugin).await;
                    let version = Arc::new(LoadedVersion::new(loaded));
                    self.running
                        .assign(&lane, version, self.settings_of(&plugin))
                        .await
                        .map_err(LifecycleError::from)?;
                }
                Err(error) => self.fail_to_resume(plugin, &digest, error).await?,
            }
        }
        Ok(())
    }

    /// Loads the active versions. Each comes with its plugin, its digest, and whether it failed to load before.
    async fn load_active(
        self: &Arc<Self>,
        installations: &[Installation],
    ) -> Result<Vec<(String, String, bool, LoadResult)>, LifecycleError> {
        let wanted = installations.iter().filter_map(|installation| {
            let active = installation.active.and_then(|id| installation.version(id))?;
            let failed = active.failed.is_some();
            Some((installation.plugin.clone(), active.digest.clone(), failed))
        });
        let wanted: Vec<(String, String, bool)> = wanted.collect();
        for digest in wanted.iter().filter_map(|(_, digest, _)| digest.parse().ok()) {
            self.receive_component(digest).await?;
        }
        let inner = Arc::clone(self);
        Ok(run_parallel(wanted, move |(plugin, digest, failed)| {
            let loaded = inner.load_stored(&digest);
            (plugin, digest, failed, loaded)
        })
        .await)
    }

    /// Records that an installed plugin does not run.
    async fn fail_to_resume(
        &self,
        plugin: String,
        digest: &str,
        error: LifecycleError,
    ) -> Result<(), StartError> {
        let unsigned = error.unsigned();
        let reason = describe_error(error);
        tracing::error!(plugin, digest, reason, "failed to load an installed plugin");
        let plugins = self.parts.store.plugins();
        plugins.set_failed(&plugin, digest, Some(&reason)).await?;
        if unsigned.is_some() {
            let by = Actor::Host(HostPart::Start);
            self.audit_rejection(&by, Some(&plugin), unsigned, &reason).await;
        }
        self.record_load_failure(LoadFailure {
            subject: LoadSubject::Plugin(plugin),
            reason,
            blocks_messages: true,
            unsigned: unsigned.is_some(),
        });
        Ok(())
    }
}

type LoadResult = Result<Arc<Plugin>, LifecycleError>;
