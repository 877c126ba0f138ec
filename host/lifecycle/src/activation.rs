//! Activation of a version: first in the database, then in all projections of the plugin. A call of the previous version
//! that runs meanwhile is interrupted, and the new version handles its messages. The previous version stays loaded for a
//! rollback.

use std::sync::Arc;

use super::lanes::Lane;
use super::retry::log_retried;
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
        let lane = self.enter(name).await?;
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
        let counted = version.counters();
        let (retried, more) = self.swap_and_retry(lane, &version).await?;
        if let Some(old) = old
            && is_unproven(&installation, plugin.digest())
        {
            self.watch_health(&old, &version, counted);
        }
        log_retried(name, retried);
        installed.retry_continues = more.is_some();
        if let Some(after) = more {
            self.retry_in_background(version, after);
        }
        self.record_activation(&plugin, retried, by);
        installed.retried = retried;
        installed.state = self.active_state(name);
        Ok(installed)
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
            retry_continues: false,
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

/// Whether the health gate has to watch a version: it never ran, or its last failure was not disproved. The activation of
/// any other version is deliberate.
fn is_unproven(installation: &Installation, digest: Digest) -> bool {
    let record = installation.by_digest(&digest.to_string());
    record.is_none_or(|record| record.activated_at.is_none() || record.failed.is_some())
}
