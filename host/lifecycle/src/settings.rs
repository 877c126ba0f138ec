//! What operators set for one plugin: kept in the database, held in memory, and put into force between two batches.

use std::sync::{Arc, PoisonError};

use super::{Actor, Inner, Lifecycle, LifecycleError, PluginName};
use lantern_model::settings::PluginSettings;
use lantern_store::Installation;

impl Lifecycle {
    /// What is set for a plugin; what is not set is as for all plugins.
    pub fn settings(&self, plugin: &str) -> PluginSettings {
        self.inner.settings_of(plugin)
    }

    /// Changes settings of a plugin, each a path and a value (`limits.memory`, `128MiB`; an empty value takes one back),
    /// and puts them into force. The plugin need not be installed yet.
    ///
    /// # Errors
    /// See [`LifecycleError`]; nothing has changed then.
    pub async fn set(
        &self,
        plugin: &str,
        changes: Vec<(String, String)>,
        by: &Actor,
    ) -> Result<PluginSettings, LifecycleError> {
        let inner = Arc::clone(&self.inner);
        let (plugin, by) = (plugin.to_owned(), by.clone());
        self.detached(async move { inner.set(&plugin, &changes, &by).await })
            .await
    }
}

impl Inner {
    pub(super) fn settings_of(&self, plugin: &str) -> PluginSettings {
        let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        settings.get(plugin).cloned().unwrap_or_default()
    }

    fn keep_settings(&self, plugin: &str, settings: PluginSettings) {
        self.settings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(plugin.to_owned(), settings);
    }

    /// Takes over what the database has. What cannot be read (a newer host wrote it) is said, and is as if not set.
    pub(super) fn remember_settings(&self, installations: &[Installation]) {
        for installation in installations {
            match PluginSettings::from_json(&installation.settings) {
                Ok(settings) => self.keep_settings(&installation.plugin, settings),
                Err(problems) => tracing::error!(
                    plugin = installation.plugin,
                    problems = problems.join("; "),
                    "the settings of a plugin cannot be read; it runs with those of all plugins"
                ),
            }
        }
    }

    async fn set(
        self: &Arc<Self>,
        plugin: &str,
        changes: &[(String, String)],
        by: &Actor,
    ) -> Result<PluginSettings, LifecycleError> {
        PluginName::parse(plugin).map_err(|error| LifecycleError::BadSettings(vec![error.to_string()]))?;
        let mut fleet = self.fleet.lock().await;
        let mut settings = self.settings_of(plugin);
        let mut problems: Vec<String> = changes
            .iter()
            .filter_map(|(path, value)| settings.set(path, value).err())
            .collect();
        if let Err(more) = settings.check() {
            problems.extend(more);
        }
        if !problems.is_empty() {
            return Err(LifecycleError::BadSettings(problems));
        }
        let json = serde_json::to_string(&settings)
            .map_err(|error| LifecycleError::BadSettings(vec![error.to_string()]))?;
        // Before anything is kept: can what runs go on under them?
        let version = match fleet.version(plugin) {
            Some(version) => {
                let under = version.plugin().with_settings(&settings);
                let under = under.map_err(|source| LifecycleError::Settings {
                    plugin: plugin.to_owned(),
                    source,
                })?;
                Some(Arc::new(version.under(under)))
            }
            None => None,
        };
        self.parts.store.set_settings(plugin, json.clone()).await?;
        self.keep_settings(plugin, settings.clone());
        if let Some(version) = version {
            fleet.give(plugin, version, Arc::new(settings.clone()));
        }
        tracing::info!(
            plugin,
            settings = json,
            by = by.0,
            "settings of a plugin were changed"
        );
        Ok(settings)
    }
}
