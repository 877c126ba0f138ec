//! The running plugins, which one task owns: for each plugin its pause, its loaded versions, its desired state and the
//! projections that follow it. Nothing else changes them.
//!
//! An operation sends a command to the task after the database has committed its change. Commands change only memory,
//! so the task never waits: it hands ended projections over to the operation, which waits for them. After each command
//! the task publishes a snapshot. All reads use the snapshot, so they wait for no operation.

mod projections;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::lanes::Lane;
use super::placement::Placements;
use super::{LifecycleError, Parts};
use lantern_model::schema::{Manifest, Table};
use lantern_model::settings::PluginSettings;
use lantern_model::status::Registry;
use lantern_plugin::Digest;
use lantern_projection::{CommitHold, DesiredState, LoadedVersion, Placement, VersionCounters};
use projections::{EndedProjection, ProjectionTask, end, spawn};

/// The handle of the task. Cheap to clone.
#[derive(Clone)]
pub(super) struct RunningPlugins {
    requests: mpsc::UnboundedSender<Request>,
    snapshot: watch::Receiver<Snapshot>,
    registry: Registry,
}

/// The published state, by plugin.
type Snapshot = Arc<BTreeMap<String, RunningPlugin>>;

struct RunningPlugin {
    is_paused: bool,
    version: Arc<LoadedVersion>,
    /// The previous version, kept loaded.
    warm: Option<Arc<LoadedVersion>>,
    hold: CommitHold,
}

/// The host stops, and the task has ended.
#[derive(Debug)]
pub(super) struct Stopping;

impl From<Stopping> for LifecycleError {
    fn from(_: Stopping) -> Self {
        Self::Unavailable("the host is stopping".to_owned())
    }
}

struct Request {
    command: Command,
    reply: oneshot::Sender<Vec<EndedProjection>>,
}

enum Command {
    /// Assigns a version, and starts or ends projections where the sources differ.
    Assign(Arc<LoadedVersion>, Arc<PluginSettings>),
    /// Assigns the same version with other settings.
    ApplySettings(Arc<LoadedVersion>, Arc<PluginSettings>),
    /// Ends all projections of a plugin until a version is assigned again.
    Suspend(String),
    /// Ends all projections of a plugin and drops its state.
    Remove(String),
    /// Pauses a plugin, for this reason, or resumes it.
    SetPaused(String, Option<String>),
    /// Makes the projections of a plugin read the database again.
    Notify(String),
    /// Tells the projections which host reads each plugin.
    Place(Arc<Placements>),
    /// Ends all projections and the task.
    Stop,
}

impl RunningPlugins {
    /// Starts the task. It ends with [`Self::stop`], or when the last handle is dropped.
    pub(super) fn start(parts: Arc<Parts>, stop: CancellationToken, tasks: &TaskTracker) -> Self {
        let (requests, received) = mpsc::unbounded_channel();
        let (published, snapshot) = watch::channel(Snapshot::default());
        let registry = parts.registry.clone();
        // Before the first placements another host may read each plugin.
        let placements = parts.leases.as_ref().map(|_| Arc::default());
        let owner = Owner {
            placements,
            parts,
            stop,
            plugins: BTreeMap::new(),
            published,
        };
        tasks.spawn(owner.run(received));
        Self {
            requests,
            snapshot,
            registry,
        }
    }

    /// Assigns a version to its plugin's projections. Returns when the projections of sources that the version does not
    /// read have ended.
    pub(super) async fn assign(
        &self,
        _: &Lane,
        version: Arc<LoadedVersion>,
        settings: PluginSettings,
    ) -> Result<(), Stopping> {
        self.execute(Command::Assign(version, Arc::new(settings))).await
    }

    /// Assigns the active version with other settings to its plugin's projections.
    pub(super) async fn apply_settings(
        &self,
        _: &Lane,
        version: Arc<LoadedVersion>,
        settings: PluginSettings,
    ) -> Result<(), Stopping> {
        self.execute(Command::ApplySettings(version, Arc::new(settings)))
            .await
    }

    /// Ends a plugin's projections after the batch in hand, until a version is assigned again. Their statuses stay
    /// listed.
    pub(super) async fn suspend(&self, lane: &Lane) -> Result<(), Stopping> {
        self.execute(Command::Suspend(lane.plugin().to_owned())).await
    }

    /// Ends a plugin's projections after the batch in hand, and drops its state.
    pub(super) async fn remove(&self, lane: &Lane) -> Result<(), Stopping> {
        self.execute(Command::Remove(lane.plugin().to_owned())).await
    }

    /// Pauses a plugin for this reason, or resumes it. A version that is assigned later is paused too.
    pub(super) async fn set_paused(&self, plugin: &str, reason: Option<String>) -> Result<(), Stopping> {
        self.execute(Command::SetPaused(plugin.to_owned(), reason)).await
    }

    /// Makes a plugin's projections read the database again, for example after dead letters were resolved.
    pub(super) fn notify(&self, plugin: &str) {
        // Nothing has to be notified once the task has ended.
        drop(self.send(Command::Notify(plugin.to_owned())));
    }

    /// Tells the projections which host reads each plugin. Does not wait for them.
    pub(super) fn place(&self, placements: Arc<Placements>) {
        // No projection runs once the task has ended.
        drop(self.send(Command::Place(placements)));
    }

    /// Ends all projections after the batch in hand, and the task.
    pub(super) async fn stop(&self) {
        // A second call finds the task ended.
        drop(self.execute(Command::Stop).await);
    }

    fn send(&self, command: Command) -> Result<oneshot::Receiver<Vec<EndedProjection>>, Stopping> {
        let (reply, answer) = oneshot::channel();
        let request = Request { command, reply };
        self.requests.send(request).map_err(|_| Stopping)?;
        Ok(answer)
    }

    async fn execute(&self, command: Command) -> Result<(), Stopping> {
        let ended = self.send(command)?.await.map_err(|_| Stopping)?;
        for projection in ended {
            if let Err(error) = projection.task.await {
                tracing::error!(%error, "a projection panicked");
            }
            if projection.unlist {
                self.registry.remove(&projection.plugin, &projection.source);
            }
        }
        Ok(())
    }
}

/// Reads of the snapshot.
impl RunningPlugins {
    fn of<T>(&self, plugin: &str, read: impl FnOnce(&RunningPlugin) -> T) -> Option<T> {
        self.snapshot.borrow().get(plugin).map(read)
    }

    /// A loaded version of a plugin: the active one, or the previous one.
    pub(super) fn warm(&self, plugin: &str, digest: Digest) -> Option<Arc<LoadedVersion>> {
        let loaded = self.of(plugin, |plugin| {
            [Some(Arc::clone(&plugin.version)), plugin.warm.clone()]
        })?;
        let mut loaded = loaded.into_iter().flatten();
        loaded.find(|version| version.plugin().digest() == digest)
    }

    /// The hold on the commits of a plugin's projections; none if the plugin has no projections.
    pub(super) fn hold_of(&self, lane: &Lane) -> Option<CommitHold> {
        self.of(lane.plugin(), |plugin| plugin.hold.clone())
    }

    /// The active version of a plugin.
    pub(super) fn version(&self, plugin: &str) -> Option<Arc<LoadedVersion>> {
        self.of(plugin, |plugin| Arc::clone(&plugin.version))
    }

    /// Whether a plugin that runs is paused.
    pub(super) fn is_paused(&self, plugin: &str) -> bool {
        self.of(plugin, |plugin| plugin.is_paused).unwrap_or_default()
    }

    /// Whether exactly this version is active, with the settings that it was loaded with.
    pub(super) fn runs(&self, version: &Arc<LoadedVersion>) -> bool {
        let name = version.plugin().manifest().name.as_str();
        self.version(name)
            .is_some_and(|running| Arc::ptr_eq(&running, version))
    }

    /// Whether this version is active, with any settings.
    pub(super) fn is_active(&self, version: &LoadedVersion) -> bool {
        let name = version.plugin().manifest().name.as_str();
        self.version(name)
            .is_some_and(|running| running.is_same_version(version))
    }

    /// Waits until another version is active, or none.
    pub(super) async fn until_replaced(&self, version: &LoadedVersion) {
        let mut snapshot = self.snapshot.clone();
        let name = version.plugin().manifest().name.as_str();
        let replaced = |plugins: &Snapshot| {
            let running = plugins.get(name);
            running.is_none_or(|running| !running.version.is_same_version(version))
        };
        // The task has ended if the sender is gone, and no version is active.
        drop(snapshot.wait_for(replaced).await);
    }

    /// The manifest of the active version.
    pub(super) fn manifest(&self, plugin: &str) -> Option<Arc<Manifest>> {
        self.of(plugin, |plugin| Arc::clone(plugin.version.plugin().manifest()))
    }

    /// The counters of the active version.
    pub(super) fn counted(&self, plugin: &str) -> Option<VersionCounters> {
        self.of(plugin, |plugin| plugin.version.counters())
    }

    /// The active versions.
    pub(super) fn versions(&self) -> Vec<Arc<LoadedVersion>> {
        let plugins = self.snapshot.borrow();
        plugins
            .values()
            .map(|plugin| Arc::clone(&plugin.version))
            .collect()
    }

    /// The names of the plugins that run or are paused.
    pub(super) fn names(&self) -> Vec<String> {
        self.snapshot.borrow().keys().cloned().collect()
    }

    /// Number of plugins that run or are paused.
    pub(super) fn len(&self) -> usize {
        self.snapshot.borrow().len()
    }

    /// The tables of all plugins that have a retention period.
    pub(super) fn expiring(&self) -> Vec<Table> {
        let tables = self.versions().into_iter();
        tables
            .flat_map(|version| version.plugin().manifest().tables.clone())
            .filter(|table| table.retention_days.is_some())
            .collect()
    }
}

/// The task.
struct Owner {
    parts: Arc<Parts>,
    stop: CancellationToken,
    plugins: BTreeMap<String, Entry>,
    /// Which host reads each plugin; none if the database has only this host.
    placements: Option<Arc<Placements>>,
    published: watch::Sender<Snapshot>,
}

#[derive(Default)]
struct Entry {
    /// Why the plugin is paused. It is known even while no version runs.
    paused: Option<String>,
    runtime: Option<PluginRuntime>,
}

struct PluginRuntime {
    desired: watch::Sender<DesiredState>,
    hold: CommitHold,
    warm: Option<Arc<LoadedVersion>>,
    sources: BTreeMap<String, ProjectionTask>,
}

impl Owner {
    async fn run(mut self, mut requests: mpsc::UnboundedReceiver<Request>) {
        while let Some(Request { command, reply }) = requests.recv().await {
            let stops = matches!(command, Command::Stop);
            let ended = self.execute(command);
            // Published before the reply, so that the operation finds its own change.
            self.publish();
            // The operation may have ended; its projections end all the same.
            drop(reply.send(ended));
            if stops {
                return;
            }
        }
    }

    fn execute(&mut self, command: Command) -> Vec<EndedProjection> {
        match command {
            Command::Assign(version, settings) => return self.assign(&version, settings),
            Command::ApplySettings(version, settings) => self.apply_settings(version, settings),
            Command::Suspend(plugin) => {
                let runtime = self.runtime(&plugin);
                let sources = runtime.map(|runtime| std::mem::take(&mut runtime.sources));
                return end(&plugin, sources.unwrap_or_default(), false);
            }
            Command::Remove(plugin) => {
                let runtime = self.plugins.remove(&plugin).and_then(|entry| entry.runtime);
                let ended = runtime.map(|runtime| self.remove(&plugin, runtime));
                return ended.unwrap_or_default();
            }
            Command::SetPaused(plugin, reason) => {
                let entry = self.plugins.entry(plugin).or_default();
                entry.paused.clone_from(&reason);
                if let Some(runtime) = &entry.runtime {
                    runtime.desired.send_modify(|desired| desired.paused = reason);
                }
            }
            Command::Notify(plugin) => {
                if let Some(runtime) = self.runtime(&plugin) {
                    runtime.desired.send_modify(|_| ());
                }
            }
            Command::Place(placements) => self.place(placements),
            Command::Stop => return self.stop_all(),
        }
        Vec::new()
    }

    fn place(&mut self, placements: Arc<Placements>) {
        for (plugin, entry) in &mut self.plugins {
            if let Some(runtime) = &entry.runtime {
                let placement = placements.of(plugin);
                runtime.desired.send_if_modified(|desired| {
                    let is_new = desired.placement != placement;
                    desired.placement = placement;
                    is_new
                });
            }
        }
        self.placements = Some(placements);
    }

    fn runtime(&mut self, plugin: &str) -> Option<&mut PluginRuntime> {
        self.plugins.get_mut(plugin)?.runtime.as_mut()
    }

    fn assign(
        &mut self,
        version: &Arc<LoadedVersion>,
        settings: Arc<PluginSettings>,
    ) -> Vec<EndedProjection> {
        let manifest = Arc::clone(version.plugin().manifest());
        let name = manifest.name.as_str();
        let placement = self
            .placements
            .as_ref()
            .map_or(Placement::ONLY_HOST, |placements| placements.of(name));
        let Entry { paused, runtime } = self.plugins.entry(name.to_owned()).or_default();
        let runtime = runtime.get_or_insert_with(|| PluginRuntime {
            desired: watch::Sender::new(DesiredState {
                version: Arc::clone(version),
                settings: Arc::clone(&settings),
                paused: paused.clone(),
                placement,
            }),
            hold: CommitHold::default(),
            warm: None,
            sources: BTreeMap::new(),
        });
        runtime.assign(version, settings);
        let sources = std::mem::take(&mut runtime.sources);
        let (kept, gone) = sources
            .into_iter()
            .partition(|(source, _)| manifest.source(source).is_some());
        runtime.sources = kept;
        for source in manifest.sources.iter().map(|source| source.name.as_str()) {
            if !runtime.sources.contains_key(source) {
                // The status of a suspended source is still listed.
                self.parts.registry.remove(name, source);
                let task = spawn(&self.parts, &self.stop, (&runtime.desired, &runtime.hold), source);
                runtime.sources.insert(source.to_owned(), task);
            }
        }
        end(name, gone, true)
    }

    fn remove(&self, plugin: &str, runtime: PluginRuntime) -> Vec<EndedProjection> {
        // The statuses of suspended sources are still listed.
        for source in &runtime.version().plugin().manifest().sources {
            if !runtime.sources.contains_key(source.name.as_str()) {
                self.parts.registry.remove(plugin, source.name.as_str());
            }
        }
        end(plugin, runtime.sources, true)
    }

    fn apply_settings(&mut self, version: Arc<LoadedVersion>, settings: Arc<PluginSettings>) {
        let manifest = Arc::clone(version.plugin().manifest());
        if let Some(runtime) = self.runtime(manifest.name.as_str()) {
            // A previous version that may not run with the new settings has to be loaded again, which reports the
            // error.
            let warm = runtime.warm.take();
            runtime.warm = warm.and_then(|warm| {
                let plugin = warm.plugin().with_settings(&settings).ok()?;
                Some(Arc::new(warm.with_settings(plugin)))
            });
            runtime.desired.send_modify(|desired| {
                desired.version = version;
                desired.settings = settings;
            });
        }
    }

    fn stop_all(&mut self) -> Vec<EndedProjection> {
        let plugins = std::mem::take(&mut self.plugins).into_iter();
        plugins
            .filter_map(|(plugin, entry)| Some((plugin, entry.runtime?)))
            .flat_map(|(plugin, runtime)| end(&plugin, runtime.sources, false))
            .collect()
    }

    fn publish(&self) {
        let running = self.plugins.iter().filter_map(|(name, entry)| {
            let runtime = entry.runtime.as_ref()?;
            let plugin = RunningPlugin {
                is_paused: entry.paused.is_some(),
                version: runtime.version(),
                warm: runtime.warm.clone(),
                hold: runtime.hold.clone(),
            };
            Some((name.clone(), plugin))
        });
        self.published.send_replace(Arc::new(running.collect()));
    }
}

impl PluginRuntime {
    fn version(&self) -> Arc<LoadedVersion> {
        Arc::clone(&self.desired.borrow().version)
    }

    /// Assigns a version, and keeps the replaced one loaded.
    fn assign(&mut self, version: &Arc<LoadedVersion>, settings: Arc<PluginSettings>) {
        let old = self.version();
        self.desired.send_modify(|desired| {
            desired.version = Arc::clone(version);
            desired.settings = settings;
        });
        if !Arc::ptr_eq(&old, version) {
            self.warm = Some(old);
        }
    }
}
