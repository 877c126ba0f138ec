//! Lookups of the stored installations.

use std::sync::atomic::Ordering;

use super::{Inner, Lifecycle, LifecycleError};
use lantern_plugin::Digest;
use lantern_store::Installation;

impl Lifecycle {
    /// How often the lifecycle has looked up installations in the database.
    pub fn installation_lookups(&self) -> u64 {
        self.inner.lookups.load(Ordering::Relaxed)
    }
}

impl Inner {
    /// The stored installations of all plugins.
    pub(super) async fn installations(&self) -> Result<Vec<Installation>, LifecycleError> {
        self.lookups.fetch_add(1, Ordering::Relaxed);
        Ok(self.parts.store.reader().installations().await?)
    }

    /// The stored installation of a plugin.
    pub(super) async fn installation(&self, plugin: &str) -> Result<Installation, LifecycleError> {
        let all = self.installations().await?;
        all.into_iter()
            .find(|installation| installation.plugin == plugin)
            .ok_or_else(|| LifecycleError::NoPlugin(plugin.to_owned()))
    }

    /// Returns the given digest if the plugin has such a version, or the digest of the newest version.
    pub(super) async fn resolve_digest(
        &self,
        plugin: &str,
        digest: Option<Digest>,
    ) -> Result<Digest, LifecycleError> {
        let installation = self.installation(plugin).await?;
        let chosen = match digest {
            Some(digest) => installation.by_digest(&digest.to_string()),
            None => installation.versions.last(),
        };
        let missing = || LifecycleError::NoVersion {
            plugin: plugin.to_owned(),
            version: digest.map_or_else(|| "at all".to_owned(), |digest| digest.to_string()),
        };
        let chosen = chosen.ok_or_else(missing)?;
        chosen.digest.parse().map_err(|_| missing())
    }
}

/// The digest of the previous version.
pub(super) fn previous_digest(installation: &Installation) -> Result<Digest, LifecycleError> {
    let previous = installation.previous.and_then(|id| installation.version(id));
    previous
        .and_then(|version| version.digest.parse().ok())
        .ok_or_else(|| {
            LifecycleError::Conflict(format!("plugin {} has no previous version", installation.plugin))
        })
}
