//! Follows the database: applies the active versions, pauses and settings that other hosts have stored to the plugins of
//! this host. Without another host there is nothing to do.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::lanes::Lane;
use super::load_failures::{LoadFailure, LoadSubject, describe_error};
use super::placement::Ready;
use super::{Inner, LifecycleError};
use lantern_model::settings::PluginSettings;
use lantern_plugin::Digest;
use lantern_store::Installation;

impl Inner {
    /// Applies what the database says about each plugin. Returns the plugins whose active versions are loaded.
    pub(super) async fn reconcile(self: &Arc<Self>) -> Result<Ready, LifecycleError> {
        let installations = self.installations().await?;
        let installed: BTreeSet<&str> = installations
            .iter()
            .map(|installation| installation.plugin.as_str())
            .collect();
        for plugin in self.running.names() {
            if !installed.contains(plugin.as_str()) {
                let lane = self.operations.enter(&plugin).await;
                // An installation may have ended while the lane was busy.
                if matches!(self.installation(&plugin).await, Err(LifecycleError::NoPlugin(_))) {
                    self.running.remove(&lane).await?;
                    self.clear_plugin_failure(&plugin);
                }
            }
        }
        let mut ready = Ready::new();
        for Installation { plugin, .. } in &installations {
            let lane = self.operations.enter(plugin).await;
            match self.installation(plugin).await {
                Ok(installation) => {
                    if self.follow(&lane, &installation).await? {
                        ready.insert(plugin.clone());
                    }
                }
                Err(LifecycleError::NoPlugin(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(ready)
    }

    /// Applies the stored state of one plugin. Whether its active version is loaded afterwards.
    async fn follow(
        self: &Arc<Self>,
        lane: &Lane,
        installation: &Installation,
    ) -> Result<bool, LifecycleError> {
        let plugin = lane.plugin();
        self.follow_settings(lane, installation).await?;
        self.follow_pause(installation).await?;
        let active = installation.active.and_then(|id| installation.version(id));
        let Some(digest) = active.and_then(|active| active.digest.parse::<Digest>().ok()) else {
            self.running.remove(lane).await?;
            return Ok(false);
        };
        if self
            .running
            .version(plugin)
            .is_some_and(|running| running.plugin().digest() == digest)
        {
            return Ok(true);
        }
        match self.load_version(plugin, digest).await {
            Ok(version) => {
                self.running
                    .assign(lane, version, self.settings_of(plugin))
                    .await?;
                self.clear_plugin_failure(plugin);
                tracing::info!(plugin, %digest, "following the activation of a version by another host");
                Ok(true)
            }
            Err(error) => {
                let unsigned = error.unsigned().is_some();
                let reason = describe_error(error);
                tracing::error!(plugin, %digest, reason, "this host cannot run the active version of a plugin");
                self.running.remove(lane).await?;
                self.record_load_failure(LoadFailure {
                    subject: LoadSubject::Plugin(plugin.to_owned()),
                    reason,
                    blocks_messages: true,
                    unsigned,
                });
                Ok(false)
            }
        }
    }

    async fn follow_settings(&self, lane: &Lane, installation: &Installation) -> Result<(), LifecycleError> {
        let plugin = lane.plugin();
        let stored = match PluginSettings::from_json(&installation.settings) {
            Ok(settings) => settings,
            Err(problems) => {
                let problems = problems.join("; ");
                tracing::error!(plugin, problems, "the stored settings of a plugin cannot be read");
                return Ok(());
            }
        };
        if stored == self.settings_of(plugin) {
            return Ok(());
        }
        self.cache_settings(plugin, stored.clone());
        let Some(version) = self.running.version(plugin) else {
            return Ok(());
        };
        let loaded = version.plugin().with_settings(&stored);
        let loaded = loaded.map_err(|source| LifecycleError::Settings {
            plugin: plugin.to_owned(),
            source,
        })?;
        let version = Arc::new(version.with_settings(loaded));
        Ok(self.running.apply_settings(lane, version, stored).await?)
    }

    async fn follow_pause(&self, installation: &Installation) -> Result<(), LifecycleError> {
        let plugin = &installation.plugin;
        let _lane = self.pauses.enter(plugin).await;
        let paused = installation.paused.as_ref().map(|pause| pause.reason.clone());
        if self.running.is_paused(plugin) == paused.is_some() {
            return Ok(());
        }
        Ok(self.running.set_paused(plugin, paused).await?)
    }
}
