//! The operators' settings of one plugin: stored in the database, cached in memory, and applied between two batches.

use std::sync::{Arc, PoisonError};

use super::{Inner, Lifecycle, LifecycleError, PluginName, Requester};
use lantern_model::settings::PluginSettings;
use lantern_store::Installation;

impl Lifecycle {
    /// The settings of a plugin; fields that are not set use the defaults of all plugins.
    pub fn settings(&self, plugin: &str) -> PluginSettings {
        self.inner.settings_of(plugin)
    }

    /// Changes settings of a plugin, each given as a path and a value (`limits.memory`, `128MiB`; an empty value resets
    /// it), and applies them. The plugin need not be installed yet.
    ///
    /// # Errors
    /// See [`LifecycleError`]; nothing has changed then.
    pub async fn set(
        &self,
        plugin: &str,
        changes: Vec<(String, String)>,
        by: impl Into<Requester>,
    ) -> Result<PluginSettings, LifecycleError> {
        let inner = Arc::clone(&self.inner);
        let (plugin, by) = (plugin.to_owned(), by.into());
        self.detached(async move { inner.set(&plugin, &changes, &by).await })
            .await
    }
}

impl Inner {
    pub(super) fn settings_of(&self, plugin: &str) -> PluginSettings {
        let settings = self.settings.lock().unwrap_or_else(PoisonError::into_inner);
        settings.get(plugin).cloned().unwrap_or_default()
    }

    pub(super) fn cache_settings(&self, plugin: &str, settings: PluginSettings) {
        self.settings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(plugin.to_owned(), settings);
    }

    /// Loads the stored settings. Settings that cannot be read (written by a newer host) are logged and ignored.
    pub(super) fn load_settings(&self, installations: &[Installation]) {
        for installation in installations {
            match PluginSettings::from_json(&installation.settings) {
                Ok(settings) => self.cache_settings(&installation.plugin, settings),
                Err(problems) => tracing::error!(
                    plugin = installation.plugin,
                    problems = problems.join("; "),
                    "cannot read the settings of a plugin; it runs with the defaults"
                ),
            }
        }
    }

    async fn set(
        self: &Arc<Self>,
        plugin: &str,
        changes: &[(String, String)],
        by: &Requester,
    ) -> Result<PluginSettings, LifecycleError> {
        PluginName::parse(plugin).map_err(|error| LifecycleError::BadSettings(vec![error.to_string()]))?;
        let lane = self.enter(plugin).await?;
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
        // Check whether the active version may run with them before storing anything.
        let version = match self.running.version(plugin) {
            Some(version) => {
                let loaded = version.plugin().with_settings(&settings);
                let loaded = loaded.map_err(|source| LifecycleError::Settings {
                    plugin: plugin.to_owned(),
                    source,
                })?;
                Some(Arc::new(version.with_settings(loaded)))
            }
            None => None,
        };
        let mark = by.mark("plugin.set", plugin, None, String::new());
        self.parts
            .store
            .plugins()
            .set_settings(plugin, json.clone(), mark)
            .await?;
        self.cache_settings(plugin, settings.clone());
        if let Some(version) = version {
            self.running
                .apply_settings(&lane, version, settings.clone())
                .await?;
        }
        tracing::info!(plugin, settings = json, %by, "changed settings of a plugin");
        Ok(settings)
    }
}
