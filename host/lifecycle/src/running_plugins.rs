//! The running plugins: for each one its loaded versions, its desired state and the projections that follow it. All
//! changes happen here, under one lock, after the database has committed them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::consumers::{AbandonedLeft, ConsumerLeft, Removal};
use super::retry::{RETRY_BEFORE_SWAP, dead_letters_of, log_retried};
use super::{Actor, Inner, Installed, LifecycleError, adoption, host_mark, installed};
use lantern_model::schema::{Manifest, Table};
use lantern_model::settings::PluginSettings;
use lantern_plugin::{Digest, Plugin};
use lantern_projection::{DesiredState, LoadedVersion, Projection, Purpose, VersionCounters};
use lantern_store::{Activation, AuditMark, Installation, Pause, RetryTotals};

/// All plugins that run or are paused.
#[derive(Default)]
pub(super) struct RunningPlugins {
    by_name: BTreeMap<String, PluginRuntime>,
}

struct PluginRuntime {
    desired: watch::Sender<DesiredState>,
    /// The previous version, kept loaded.
    warm: Option<Arc<LoadedVersion>>,
    sources: BTreeMap<String, ProjectionTask>,
}

/// A projection's task.
struct ProjectionTask {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl ProjectionTask {
    async fn end(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "a projection panicked");
        }
    }
}

impl PluginRuntime {
    fn version(&self) -> Arc<LoadedVersion> {
        Arc::clone(&self.desired.borrow().version)
    }
}

impl RunningPlugins {
    /// A loaded version of a plugin: the active one, or the previous one.
    pub(super) fn warm(&self, plugin: &str, digest: Digest) -> Option<Arc<LoadedVersion>> {
        let runtime = self.by_name.get(plugin)?;
        std::iter::once(runtime.version())
            .chain(runtime.warm.clone())
            .find(|version| version.plugin().digest() == digest)
    }

    /// The active version of a plugin.
    pub(super) fn version(&self, plugin: &str) -> Option<Arc<LoadedVersion>> {
        self.by_name.get(plugin).map(PluginRuntime::version)
    }

    /// Whether exactly this version is active, with the settings that it was loaded with.
    pub(super) fn runs(&self, version: &Arc<LoadedVersion>) -> bool {
        let name = version.plugin().manifest().name.as_str();
        self.version(name)
            .is_some_and(|running| Arc::ptr_eq(&running, version))
    }

    /// Assigns the same version with other settings to a plugin's projections.
    pub(super) fn apply_settings(
        &mut self,
        plugin: &str,
        version: Arc<LoadedVersion>,
        settings: Arc<PluginSettings>,
    ) {
        if let Some(runtime) = self.by_name.get_mut(plugin) {
            // A previous version that may not run with the new settings has to be loaded again, which reports the
            // error.
            let warm = runtime.warm.take();
            runtime.warm = warm.and_then(|warm| {
                Some(Arc::new(
                    warm.with_settings(warm.plugin().with_settings(&settings).ok()?),
                ))
            });
            runtime.desired.send_modify(|desired| {
                desired.version = version;
                desired.settings = settings;
            });
        }
    }

    /// The manifest of the active version.
    pub(super) fn manifest(&self, plugin: &str) -> Option<Arc<Manifest>> {
        let runtime = self.by_name.get(plugin)?;
        Some(Arc::clone(runtime.version().plugin().manifest()))
    }

    /// The counters of the active version.
    pub(super) fn counted(&self, plugin: &str) -> Option<VersionCounters> {
        Some(self.by_name.get(plugin)?.version().counters())
    }

    /// The active versions.
    pub(super) fn versions(&self) -> Vec<Arc<LoadedVersion>> {
        self.by_name.values().map(PluginRuntime::version).collect()
    }

    /// Makes a plugin's projections read the database again, for example after dead letters were resolved.
    pub(super) fn notify(&self, plugin: &str) {
        if let Some(runtime) = self.by_name.get(plugin) {
            runtime.desired.send_modify(|_| ());
        }
    }

    /// Ends a plugin's projections after the batch in hand, until a version is assigned again. Returns the version.
    pub(super) async fn suspend(&mut self, plugin: &str) -> Option<Arc<LoadedVersion>> {
        let runtime = self.by_name.get_mut(plugin)?;
        for (_, running) in std::mem::take(&mut runtime.sources) {
            running.end().await;
        }
        Some(runtime.version())
    }

    /// Number of plugins that run or are paused.
    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// The tables of all plugins that have a retention period.
    pub(super) fn expiring(&self) -> Vec<Table> {
        let manifests = self.by_name.values().map(|runtime| runtime.version());
        manifests
            .flat_map(|version| version.plugin().manifest().tables.clone())
            .filter(|table| table.retention_days.is_some())
            .collect()
    }

    /// Ends all projections after the batch in hand.
    pub(super) async fn stop(&mut self) {
        let by_name = std::mem::take(&mut self.by_name);
        let running: Vec<ProjectionTask> = by_name
            .into_values()
            .flat_map(|runtime| runtime.sources.into_values())
            .collect();
        running.iter().for_each(|running| running.stop.cancel());
        for running in running {
            running.end().await;
        }
    }
}

impl Inner {
    /// Activates a version: first in the database, then in all of its projections. They finish the batch in hand with
    /// the previous version, which stays loaded for a rollback.
    pub(super) async fn activate_version(
        self: &Arc<Self>,
        version: Arc<LoadedVersion>,
        way: Activation,
        by: &Actor,
    ) -> Result<Installed, LifecycleError> {
        let plugin = version.plugin();
        let (name, digest) = (plugin.manifest().name.as_str(), plugin.digest());
        let detail = format!("version {} is active", plugin.manifest().version);
        let mark = host_mark(by, "plugin.activate", name, Some(digest), detail);
        self.activate_with_mark(version, way, by, mark).await
    }

    /// Like [`Inner::activate_version`], with the audit entry that the transaction of the activation writes.
    pub(super) async fn activate_with_mark(
        self: &Arc<Self>,
        version: Arc<LoadedVersion>,
        way: Activation,
        by: &Actor,
        mark: Option<AuditMark>,
    ) -> Result<Installed, LifecycleError> {
        let plugin = Arc::clone(version.plugin());
        let name = plugin.manifest().name.to_string();
        let mut plugins = self.plugins.lock().await;
        // A version that ran before is known, and its activation is deliberate.
        let is_new = !self.has_run(&name, plugin.digest()).await?;
        if let Some(runtime) = plugins.by_name.get(&name)
            && runtime.version().plugin().digest() == plugin.digest()
        {
            return Ok(installed(&plugin));
        }
        self.check_no_rebuild(&name)?;
        self.parts
            .store
            .plugins()
            .activate(adoption(&plugin), way, mark)
            .await?;
        self.clear_plugin_failure(&name);
        let paused = self.pause_reason(&name).await?;
        // Retry the old messages before the new ones; the previous version handles new messages meanwhile.
        let until = Some(Instant::now() + RETRY_BEFORE_SWAP);
        let (retried, more) = match self.retry(&version, dead_letters_of(&name), 0, until).await {
            Ok(done) => done,
            Err(error) => {
                tracing::warn!(plugin = name, %error, "failed to retry dead letters");
                (RetryTotals::default(), None)
            }
        };
        let old = plugins.version(&name);
        self.apply_version(&mut plugins, Arc::clone(&version), paused)
            .await;
        if let Some(old) = old
            && is_new
        {
            self.watch_health(&old, &version);
        }
        log_retried(&name, retried);
        if let Some(after) = more {
            self.retry_in_background(Arc::clone(&version), after);
        }
        self.record_activation(&plugin, retried, by);
        Ok(Installed {
            retried,
            ..installed(&plugin)
        })
    }

    fn record_activation(&self, plugin: &Plugin, retried: RetryTotals, by: &Actor) {
        let name = plugin.manifest().name.as_str();
        tracing::info!(
            plugin = name,
            version = %plugin.manifest().version,
            digest = %plugin.digest(),
            %by,
            "activated a version"
        );
        self.parts.metrics.plugin_switched(name);
        self.parts.metrics.dead_letters_resolved(name, retried.resolved);
    }

    /// Assigns a version to a plugin's projections, and starts or ends projections where the sources differ. Does not
    /// use the database.
    pub(super) async fn apply_version(
        &self,
        plugins: &mut RunningPlugins,
        version: Arc<LoadedVersion>,
        paused: Option<String>,
    ) {
        let name = version.plugin().manifest().name.to_string();
        let settings = Arc::new(self.settings_of(&name));
        let runtime = match plugins.by_name.entry(name.clone()) {
            std::collections::btree_map::Entry::Occupied(entry) => {
                let runtime = entry.into_mut();
                let old = runtime.version();
                runtime.desired.send_replace(DesiredState {
                    version: Arc::clone(&version),
                    settings,
                    paused,
                });
                if !Arc::ptr_eq(&old, &version) {
                    runtime.warm = Some(old);
                }
                runtime
            }
            std::collections::btree_map::Entry::Vacant(entry) => entry.insert(PluginRuntime {
                desired: watch::Sender::new(DesiredState {
                    version: Arc::clone(&version),
                    settings,
                    paused,
                }),
                warm: None,
                sources: BTreeMap::new(),
            }),
        };
        let wanted: Vec<String> = version
            .plugin()
            .manifest()
            .sources
            .iter()
            .map(|source| source.name.to_string())
            .collect();
        let gone: Vec<String> = runtime
            .sources
            .keys()
            .filter(|name| !wanted.contains(name))
            .cloned()
            .collect();
        for source in gone {
            if let Some(running) = runtime.sources.remove(&source) {
                running.end().await;
            }
            self.parts.registry.remove(&name, &source);
        }
        for source in wanted {
            if !runtime.sources.contains_key(&source) {
                // The status of a suspended source is still listed.
                self.parts.registry.remove(&name, &source);
                let running = self.spawn(&runtime.desired, &source);
                runtime.sources.insert(source, running);
            }
        }
    }

    fn spawn(&self, desired: &watch::Sender<DesiredState>, source: &str) -> ProjectionTask {
        let parts = &self.parts;
        let (projection, status) = Projection::new(
            parts.broker.clone(),
            Arc::clone(&parts.store),
            desired.subscribe(),
            source,
            Purpose::Live,
            parts.config.projections.clone(),
            parts.metrics.clone(),
        );
        parts.registry.add(status);
        let stop = self.stop.child_token();
        let task = tokio::spawn(projection.run(stop.clone()));
        ProjectionTask { stop, task }
    }

    /// Pauses a plugin, or resumes it.
    pub(super) async fn set_paused(
        &self,
        plugin: &str,
        pause: Option<Pause>,
        by: &Actor,
    ) -> Result<(), LifecycleError> {
        let plugins = self.plugins.lock().await;
        self.installation(plugin).await?;
        let paused = pause.as_ref().map(|pause| pause.reason.clone());
        let action = if paused.is_some() {
            "plugin.pause"
        } else {
            "plugin.resume"
        };
        let mark = host_mark(by, action, plugin, None, paused.clone().unwrap_or_default());
        self.parts.store.plugins().set_paused(plugin, pause, mark).await?;
        if let Some(runtime) = plugins.by_name.get(plugin) {
            runtime
                .desired
                .send_modify(|desired| desired.paused.clone_from(&paused));
        }
        match &paused {
            Some(reason) => tracing::warn!(plugin, reason, %by, "paused a plugin"),
            None => tracing::info!(plugin, %by, "resumed a plugin"),
        }
        Ok(())
    }

    /// Ends a plugin's projections, removes the plugin and deletes its consumers.
    pub(super) async fn remove(
        &self,
        plugin: &str,
        drop_tables: bool,
        by: &Actor,
    ) -> Result<Removal, LifecycleError> {
        let mut plugins = self.plugins.lock().await;
        self.installation(plugin).await?;
        self.check_no_rebuild(plugin)?;
        let consumers = self.consumers_of(plugin).await?;
        if let Some(runtime) = plugins.by_name.remove(plugin) {
            for (source, running) in runtime.sources {
                running.end().await;
                self.parts.registry.remove(plugin, &source);
            }
        }
        let dropped = self
            .parts
            .store
            .plugins()
            .remove(plugin, drop_tables, consumers)
            .await?;
        self.clear_plugin_failure(plugin);
        tracing::warn!(plugin, tables = ?dropped, %by, "removed a plugin");
        let left = self.delete_abandoned(&plugins).await?;
        if !left.is_empty() {
            self.abandoned.notify_one();
        }
        let consumers_left = left
            .into_iter()
            .filter(|left| left.consumer.plugin == plugin)
            .map(|AbandonedLeft { consumer, reason }| ConsumerLeft {
                stream: consumer.stream,
                consumer: consumer.consumer,
                reason,
            })
            .collect();
        Ok(Removal {
            dropped,
            consumers_left,
        })
    }

    fn check_no_rebuild(&self, plugin: &str) -> Result<(), LifecycleError> {
        match self.rebuilds.of(plugin) {
            Some(id) => Err(LifecycleError::Conflict(format!(
                "rebuild {} of plugin {plugin} runs; wait for it or cancel it",
                id.0
            ))),
            None => Ok(()),
        }
    }

    /// Whether a version was ever active.
    async fn has_run(&self, plugin: &str, digest: Digest) -> Result<bool, LifecycleError> {
        let digest = digest.to_string();
        let versions = self.installation(plugin).await?.versions;
        Ok(versions
            .iter()
            .any(|version| version.digest == digest && version.activated_at.is_some()))
    }

    /// The stored installation of a plugin.
    pub(super) async fn installation(&self, plugin: &str) -> Result<Installation, LifecycleError> {
        let all = self.parts.store.reader().installations().await?;
        all.into_iter()
            .find(|installation| installation.plugin == plugin)
            .ok_or_else(|| LifecycleError::NoPlugin(plugin.to_owned()))
    }

    /// Why a plugin is paused; `None` while it is not.
    pub(super) async fn pause_reason(&self, plugin: &str) -> Result<Option<String>, LifecycleError> {
        let paused = self.installation(plugin).await?.paused;
        Ok(paused.map(|pause| pause.reason))
    }

    /// Returns the given digest if the plugin has such a version, or the digest of the newest version.
    pub(super) async fn resolve_digest(
        &self,
        plugin: &str,
        digest: Option<Digest>,
    ) -> Result<Digest, LifecycleError> {
        let installation = self.installation(plugin).await?;
        let chosen = match digest {
            Some(digest) => {
                let text = digest.to_string();
                installation
                    .versions
                    .iter()
                    .find(|version| version.digest == text)
            }
            None => installation.versions.last(),
        };
        let missing = || LifecycleError::NoVersion {
            plugin: plugin.to_owned(),
            version: digest.map_or_else(|| "at all".to_owned(), |digest| digest.to_string()),
        };
        let chosen = chosen.ok_or_else(missing)?;
        chosen.digest.parse().map_err(|_| missing())
    }

    /// The digest of the previous version.
    pub(super) async fn previous_digest(&self, plugin: &str) -> Result<Digest, LifecycleError> {
        let installation = self.installation(plugin).await?;
        let previous = installation.previous.and_then(|id| installation.version(id));
        previous
            .and_then(|version| version.digest.parse().ok())
            .ok_or_else(|| LifecycleError::Conflict(format!("plugin {plugin} has no previous version")))
    }
}
