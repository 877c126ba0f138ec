//! What runs: for each plugin its versions at hand, its orders and the projections that follow them. Every change of it
//! happens here, under one lock, after the database has agreed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::consumers::{AbandonedLeft, ConsumerLeft, Removal};
use super::heal::{BEFORE_SWAP, of_plugin, say};
use super::{Actor, Inner, Installed, LifecycleError, adoption, installed};
use lantern_model::schema::{Manifest, Table};
use lantern_model::settings::PluginSettings;
use lantern_plugin::Digest;
use lantern_projection::{Counted, Orders, Projection, Purpose, Version};
use lantern_store::{AuditMark, Healed, Installation, Way};

/// All plugins that run or are paused.
#[derive(Default)]
pub(super) struct Fleet {
    members: BTreeMap<String, Member>,
}

struct Member {
    orders: watch::Sender<Orders>,
    /// The version that ran before, kept ready.
    warm: Option<Arc<Version>>,
    sources: BTreeMap<String, Running>,
}

/// A projection's task.
struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    async fn end(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "a projection ended badly");
        }
    }
}

impl Member {
    fn version(&self) -> Arc<Version> {
        Arc::clone(&self.orders.borrow().version)
    }
}

impl Fleet {
    /// A version of a plugin that is loaded: the one at work, or the one before it.
    pub(super) fn warm(&self, plugin: &str, digest: Digest) -> Option<Arc<Version>> {
        let member = self.members.get(plugin)?;
        std::iter::once(member.version())
            .chain(member.warm.clone())
            .find(|version| version.plugin().digest() == digest)
    }

    /// The version of a plugin at work.
    pub(super) fn version(&self, plugin: &str) -> Option<Arc<Version>> {
        self.members.get(plugin).map(Member::version)
    }

    /// Whether this very version is at work, under the settings that it was loaded with.
    pub(super) fn runs(&self, version: &Arc<Version>) -> bool {
        let name = version.plugin().manifest().name.as_str();
        self.version(name)
            .is_some_and(|running| Arc::ptr_eq(&running, version))
    }

    /// Gives a plugin's projections the same version under other settings.
    pub(super) fn give(&mut self, plugin: &str, version: Arc<Version>, settings: Arc<PluginSettings>) {
        if let Some(member) = self.members.get_mut(plugin) {
            // One that could not run under them has to be loaded anew, and is refused then in words.
            let warm = member.warm.take();
            member.warm = warm
                .and_then(|warm| Some(Arc::new(warm.under(warm.plugin().with_settings(&settings).ok()?))));
            member.orders.send_modify(|orders| {
                orders.version = version;
                orders.settings = settings;
            });
        }
    }

    /// What the version at work says of itself.
    pub(super) fn manifest(&self, plugin: &str) -> Option<Arc<Manifest>> {
        let member = self.members.get(plugin)?;
        Some(Arc::clone(member.version().plugin().manifest()))
    }

    /// What the version at work has done since it was loaded.
    pub(super) fn counted(&self, plugin: &str) -> Option<Counted> {
        Some(self.members.get(plugin)?.version().counted())
    }

    /// The versions at work.
    pub(super) fn versions(&self) -> Vec<Arc<Version>> {
        self.members.values().map(Member::version).collect()
    }

    /// Has a plugin's projections look at the database again: dead letters were resolved.
    pub(super) fn nudge(&self, plugin: &str) {
        if let Some(member) = self.members.get(plugin) {
            member.orders.send_modify(|_| ());
        }
    }

    /// Ends a plugin's projections after the batch in hand, until the plugin is run again. Returns its version.
    pub(super) async fn rest(&mut self, plugin: &str) -> Option<Arc<Version>> {
        let member = self.members.get_mut(plugin)?;
        for (_, running) in std::mem::take(&mut member.sources) {
            running.end().await;
        }
        Some(member.version())
    }

    /// How many plugins run or are paused.
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// The tables of all plugins whose rows grow old.
    pub(super) fn expiring(&self) -> Vec<Table> {
        let manifests = self.members.values().map(|member| member.version());
        manifests
            .flat_map(|version| version.plugin().manifest().tables.clone())
            .filter(|table| table.retention_days.is_some())
            .collect()
    }

    /// Ends all projections after the batch in hand.
    pub(super) async fn stop(&mut self) {
        let members = std::mem::take(&mut self.members);
        let running: Vec<Running> = members
            .into_values()
            .flat_map(|member| member.sources.into_values())
            .collect();
        running.iter().for_each(|running| running.stop.cancel());
        for running in running {
            running.end().await;
        }
    }
}

impl Inner {
    /// Makes a version the one that runs: in the database first, then at once for all its projections. They finish the
    /// batch in hand with the old one, which stays ready for a rollback.
    pub(super) async fn switch(
        self: &Arc<Self>,
        version: Arc<Version>,
        way: Way,
        by: &Actor,
    ) -> Result<Installed, LifecycleError> {
        let plugin = version.plugin();
        let (name, digest) = (plugin.manifest().name.as_str(), plugin.digest());
        let detail = format!("version {} is active", plugin.manifest().version);
        let mark = by.mark("plugin.activate", name, Some(digest), detail);
        self.switch_with(version, way, by, mark).await
    }

    /// As [`Inner::switch`], with the entry in the audit that is written in the transaction of the switch.
    pub(super) async fn switch_with(
        self: &Arc<Self>,
        version: Arc<Version>,
        way: Way,
        by: &Actor,
        mark: Option<AuditMark>,
    ) -> Result<Installed, LifecycleError> {
        let plugin = Arc::clone(version.plugin());
        let name = plugin.manifest().name.to_string();
        let mut fleet = self.fleet.lock().await;
        // One that has run before is known, and whoever goes back to it wants it.
        let watched = !self.has_run(&name, plugin.digest()).await?;
        if let Some(member) = fleet.members.get(&name)
            && member.version().plugin().digest() == plugin.digest()
        {
            return Ok(installed(&plugin));
        }
        self.check_no_rebuild(&name)?;
        self.parts.store.activate(adoption(&plugin), way, mark).await?;
        self.forgive(&format!("plugin {name}"));
        let hold = self.installation(&name).await?.paused;
        // The old messages before the new ones; the old version goes on with what comes in meanwhile.
        let until = Some(Instant::now() + BEFORE_SWAP);
        let (healed, more) = match self.heal(&version, of_plugin(&name), 0, until).await {
            Ok(done) => done,
            Err(error) => {
                tracing::warn!(plugin = name, %error, "dead letters could not be tried again");
                (Healed::default(), None)
            }
        };
        let old = fleet.version(&name);
        let refused = self.refused_sources(&name);
        self.run(&mut fleet, Arc::clone(&version), hold).await;
        if let Some(old) = old
            && watched
        {
            self.watch(&old, &version, refused);
        }
        say(&name, healed);
        if let Some(after) = more {
            self.heal_the_rest(Arc::clone(&version), after);
        }
        tracing::info!(
            plugin = name,
            version = %plugin.manifest().version,
            digest = %plugin.digest(),
            by = by.0,
            "a version is active"
        );
        self.parts.metrics.plugin_switched(&name);
        self.parts.metrics.dead_letters_resolved(&name, healed.resolved);
        Ok(Installed {
            healed,
            ..installed(&plugin)
        })
    }

    /// Gives a plugin's projections a version, and makes or ends projections where its sources are others. Nothing is
    /// asked of the database.
    pub(super) async fn run(&self, fleet: &mut Fleet, version: Arc<Version>, hold: Option<String>) {
        let name = version.plugin().manifest().name.to_string();
        let settings = Arc::new(self.settings_of(&name));
        let member = match fleet.members.entry(name.clone()) {
            std::collections::btree_map::Entry::Occupied(entry) => {
                let member = entry.into_mut();
                let old = member.version();
                member.orders.send_replace(Orders {
                    version: Arc::clone(&version),
                    settings,
                    hold,
                });
                if !Arc::ptr_eq(&old, &version) {
                    member.warm = Some(old);
                }
                member
            }
            std::collections::btree_map::Entry::Vacant(entry) => entry.insert(Member {
                orders: watch::Sender::new(Orders {
                    version: Arc::clone(&version),
                    settings,
                    hold,
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
        let gone: Vec<String> = member
            .sources
            .keys()
            .filter(|name| !wanted.contains(name))
            .cloned()
            .collect();
        for source in gone {
            if let Some(running) = member.sources.remove(&source) {
                running.end().await;
            }
            self.parts.registry.remove(&name, &source);
        }
        for source in wanted {
            if !member.sources.contains_key(&source) {
                // One that rested is still listed.
                self.parts.registry.remove(&name, &source);
                let running = self.spawn(&member.orders, &source);
                member.sources.insert(source, running);
            }
        }
    }

    fn spawn(&self, orders: &watch::Sender<Orders>, source: &str) -> Running {
        let parts = &self.parts;
        let (projection, status) = Projection::new(
            parts.broker.clone(),
            Arc::clone(&parts.store),
            orders.subscribe(),
            source,
            Purpose::Live,
            parts.config.projections.clone(),
            parts.metrics.clone(),
        );
        parts.registry.add(status);
        let stop = self.stop.child_token();
        let task = tokio::spawn(projection.run(stop.clone()));
        Running { stop, task }
    }

    /// Pauses a plugin for a reason, or lets it go on.
    pub(super) async fn hold(
        &self,
        plugin: &str,
        hold: Option<String>,
        by: &Actor,
    ) -> Result<(), LifecycleError> {
        let fleet = self.fleet.lock().await;
        self.installation(plugin).await?;
        let action = if hold.is_some() {
            "plugin.pause"
        } else {
            "plugin.resume"
        };
        let mark = by.mark(action, plugin, None, hold.clone().unwrap_or_default());
        self.parts.store.set_paused(plugin, hold.clone(), mark).await?;
        if let Some(member) = fleet.members.get(plugin) {
            member.orders.send_modify(|orders| orders.hold.clone_from(&hold));
        }
        match &hold {
            Some(reason) => tracing::warn!(plugin, reason, by = by.0, "a plugin is paused"),
            None => tracing::info!(plugin, by = by.0, "a plugin goes on"),
        }
        Ok(())
    }

    /// Ends a plugin's projections, forgets the plugin and deletes its consumers.
    pub(super) async fn remove(
        &self,
        plugin: &str,
        drop_tables: bool,
        by: &Actor,
    ) -> Result<Removal, LifecycleError> {
        let mut fleet = self.fleet.lock().await;
        self.installation(plugin).await?;
        self.check_no_rebuild(plugin)?;
        let consumers = self.consumers_of(plugin).await?;
        if let Some(member) = fleet.members.remove(plugin) {
            for (source, running) in member.sources {
                running.end().await;
                self.parts.registry.remove(plugin, &source);
            }
        }
        let dropped = self.parts.store.remove(plugin, drop_tables, consumers).await?;
        self.forgive(&format!("plugin {plugin}"));
        tracing::warn!(plugin, tables = ?dropped, by = by.0, "a plugin is removed");
        let left = self.delete_abandoned(&fleet).await?;
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

    /// Whether a version was running at some time.
    async fn has_run(&self, plugin: &str, digest: Digest) -> Result<bool, LifecycleError> {
        let digest = digest.to_string();
        let versions = self.installation(plugin).await?.versions;
        Ok(versions
            .iter()
            .any(|version| version.digest == digest && version.activated_at.is_some()))
    }

    /// What the database knows of a plugin.
    pub(super) async fn installation(&self, plugin: &str) -> Result<Installation, LifecycleError> {
        let all = self.parts.store.installations().await?;
        all.into_iter()
            .find(|installation| installation.plugin == plugin)
            .ok_or_else(|| LifecycleError::NoPlugin(plugin.to_owned()))
    }

    /// The digest that is meant: the one given, if the plugin has it, or that of the newest version.
    pub(super) async fn choose(
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

    /// The digest of the version before the present one.
    pub(super) async fn previous(&self, plugin: &str) -> Result<Digest, LifecycleError> {
        let installation = self.installation(plugin).await?;
        let previous = installation.previous.and_then(|id| installation.version(id));
        previous
            .and_then(|version| version.digest.parse().ok())
            .ok_or_else(|| LifecycleError::Conflict(format!("plugin {plugin} has no version to go back to")))
    }
}
