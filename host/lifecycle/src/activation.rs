//! Activation of a version: first in the database, then in all projections of the plugin. They finish the batch in hand
//! with the previous version, which stays loaded for a rollback.

use std::sync::Arc;
use std::time::Instant;

use super::lanes::Lane;
use super::retry::{RETRY_BEFORE_SWAP, RetryUntil, dead_letters_of, log_retried};
use super::view::version_state;
use super::{Inner, Installed, LifecycleError, Requester, adoption};
use lantern_model::results::plugins::VersionState;
use lantern_model::schema::ManifestDescription;
use lantern_model::schema::difference::differences;
use lantern_plugin::{Digest, Plugin};
use lantern_projection::LoadedVersion;
use lantern_store::{Activation, AuditMark, Installation, RetryTotals};
use lantern_trust::signature::Verdict;

impl Inner {
    /// Activates a version.
    pub(super) async fn activate_version(
        self: &Arc<Self>,
        version: Arc<LoadedVersion>,
        way: Activation,
        by: &Requester,
    ) -> Result<Installed, LifecycleError> {
        let plugin = version.plugin();
        let (name, digest) = (plugin.manifest().name.as_str(), plugin.digest());
        let detail = format!("version {} is active", plugin.manifest().version);
        let mark = by.mark("plugin.activate", name, Some(digest), detail);
        let lane = self.operations.enter(name).await;
        self.activate_in(&lane, version, way, by, mark).await
    }

    /// Like [`Inner::activate_version`], in a lane, with the audit entry that the transaction of the activation writes.
    pub(super) async fn activate_in(
        self: &Arc<Self>,
        lane: &Lane,
        version: Arc<LoadedVersion>,
        way: Activation,
        by: &Requester,
        mark: Option<AuditMark>,
    ) -> Result<Installed, LifecycleError> {
        let plugin = Arc::clone(version.plugin());
        let name = lane.plugin();
        let installation = self.installation(name).await?;
        let mut installed = self.describe_installed(&plugin, &installation).await;
        let old = self.running.version(name);
        if old
            .as_ref()
            .is_some_and(|old| old.plugin().digest() == plugin.digest())
        {
            return Ok(installed);
        }
        self.check_no_rebuild(name)?;
        let store = &self.parts.store;
        store.plugins().activate(adoption(&plugin), way, mark).await?;
        self.clear_plugin_failure(name);
        let retried = self.retry_before_swap(&version).await;
        self.running
            .assign(lane, Arc::clone(&version), self.settings_of(name))
            .await?;
        // A version that ran before is known, and its activation is deliberate.
        if let Some(old) = old
            && !has_run(&installation, plugin.digest())
        {
            self.watch_health(&old, &version);
        }
        let (retried, more) = retried;
        log_retried(name, retried);
        if let Some(after) = more {
            self.retry_in_background(version, after);
        }
        self.record_activation(&plugin, retried, by);
        installed.retried = retried;
        installed.state = self.active_state(name);
        Ok(installed)
    }

    /// Retries the old messages before the new ones; the previous version handles new messages meanwhile. Returns the
    /// result, and where to continue if there are more.
    async fn retry_before_swap(&self, version: &Arc<LoadedVersion>) -> (RetryTotals, Option<i64>) {
        let name = version.plugin().manifest().name.as_str();
        let until = RetryUntil::Deadline(Instant::now() + RETRY_BEFORE_SWAP);
        match self.retry(version, dead_letters_of(name), 0, until).await {
            Ok(retried) => retried,
            Err(error) => {
                tracing::warn!(plugin = name, %error, "failed to retry dead letters");
                (RetryTotals::default(), None)
            }
        }
    }

    fn record_activation(&self, plugin: &Plugin, retried: RetryTotals, by: &Requester) {
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

    /// A version with its state, its signature, and its differences from the active version.
    pub(super) async fn describe_installed(
        self: &Arc<Self>,
        plugin: &Plugin,
        installation: &Installation,
    ) -> Installed {
        let digest = plugin.digest();
        let verdicts = self.verdicts(vec![digest]).await;
        let active = installation.active.and_then(|id| installation.version(id));
        let description = ManifestDescription::from(&**plugin.manifest());
        // An older host stored no description of the active version.
        let before = active.and_then(|active| active.description.as_ref());
        let record = installation.by_digest(&digest.to_string());
        Installed {
            plugin: plugin.manifest().name.to_string(),
            version: plugin.manifest().version.to_string(),
            digest,
            state: record.map_or(VersionState::Installed, |record| {
                version_state(installation, record)
            }),
            signature: verdicts.get(&digest).unwrap_or(&Verdict::NotChecked).view(),
            from: active.map(|active| active.digest.clone()),
            differences: before
                .map(|before| differences(before, &description))
                .unwrap_or_default(),
            retried: RetryTotals::default(),
            restored: None,
        }
    }

    /// The state of the active version of a plugin.
    pub(super) fn active_state(&self, plugin: &str) -> VersionState {
        if self.running.is_paused(plugin) {
            VersionState::Paused
        } else {
            VersionState::Active
        }
    }

    pub(super) fn check_no_rebuild(&self, plugin: &str) -> Result<(), LifecycleError> {
        match self.rebuilds.of(plugin) {
            Some(id) => Err(LifecycleError::Conflict(format!(
                "rebuild {} of plugin {plugin} runs; wait for it or cancel it",
                id.0
            ))),
            None => Ok(()),
        }
    }
}

/// Whether a version was ever active.
fn has_run(installation: &Installation, digest: Digest) -> bool {
    let record = installation.by_digest(&digest.to_string());
    record.is_some_and(|record| record.activated_at.is_some())
}
