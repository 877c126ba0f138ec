//! A rollback after a rebuild: restores the tables that the rebuild replaced, with their ledger and checkpoints; the
//! version that wrote them reads the messages handled since again. Rejected if the result would not be exact.

use std::sync::Arc;

use super::super::trace::other_history;
use super::super::{Inner, Installed, LifecycleError, Requester};
use super::begin::stream_of;
use super::coverage::same_members;
use lantern_plugin::Digest;
use lantern_projection::{HistoryComparison, LoadedVersion, compare_history};
use lantern_store::{AuditMark, Installation, KeptHistory, KeptTables, OriginId, ReplayRange, SourceHistory};

impl Inner {
    /// The tables that a rollback of a plugin restores: those that the last rebuild replaced, while they are kept and
    /// the version of the rebuild is active.
    pub(crate) async fn kept_tables(
        &self,
        installation: &Installation,
    ) -> Result<Option<KeptTables>, LifecycleError> {
        let active = installation.active.and_then(|id| installation.version(id));
        let reader = self.parts.store.reader();
        let kept = reader.kept_tables(&installation.plugin).await?;
        Ok(kept.filter(|kept| active.is_some_and(|active| active.digest == kept.replaced_by)))
    }

    /// Restores the tables that a rebuild replaced.
    pub(crate) async fn restore_tables(
        self: &Arc<Self>,
        installation: &Installation,
        kept: KeptTables,
        by: &Requester,
    ) -> Result<Installed, LifecycleError> {
        let plugin = installation.plugin.as_str();
        let digest: Digest = kept
            .digest
            .parse()
            .map_err(|error| LifecycleError::Conflict(format!("{}: {error}", kept.digest)))?;
        let version = self.load_version(plugin, digest).await?;
        let lane = self.enter(plugin).await?;
        self.check_no_rebuild(plugin)?;
        let suspended = self.running.version(plugin);
        self.running.suspend(&lane).await?;
        let detail = format!(
            "version {} and the tables from before rebuild {}",
            version.plugin().manifest().version,
            kept.rebuild.0
        );
        let mark = by.mark("plugin.rollback", plugin, Some(digest), detail);
        let result = self.restore_suspended(plugin, &version, &kept, mark).await;
        let next = match result {
            Ok(()) => Some(Arc::clone(&version)),
            Err(_) => suspended,
        };
        if let Some(next) = next {
            self.running.assign(&lane, next, self.settings_of(plugin)).await?;
        }
        result?;
        let id = kept.rebuild.0;
        self.clear_plugin_failure(plugin);
        self.sweep_tables();
        tracing::warn!(plugin, rebuild = id, %digest, %by, "restored the tables from before a rebuild");
        Ok(Installed {
            restored: Some(id),
            state: self.active_state(plugin),
            ..self.describe_installed(version.plugin(), installation).await
        })
    }

    /// Restores the tables while the live projections are suspended.
    async fn restore_suspended(
        &self,
        plugin: &str,
        version: &LoadedVersion,
        kept: &KeptTables,
        mark: Option<AuditMark>,
    ) -> Result<(), LifecycleError> {
        let refused = |why: String| {
            LifecycleError::Conflict(format!(
                "the tables from before rebuild {} cannot be restored exactly, so nothing has changed: {why}. \
                 Rebuild with the version that you want instead",
                kept.rebuild.0
            ))
        };
        if !kept.changed_since.is_empty() {
            let tables = kept.changed_since.join(", ");
            return Err(refused(format!("table {tables} was added or dropped since")));
        }
        let histories = self.parts.store.reader().ledger_histories(plugin).await?;
        for history in &histories {
            let before = kept.histories.iter().find(|kept| kept.origin == history.origin);
            let Some(before) = before else {
                return Err(refused(format!(
                    "source {} has begun another history since",
                    history.source
                )));
            };
            if let Some(why) = self.why_unreadable(plugin, version, history, before).await? {
                return Err(refused(why));
            }
        }
        let handled: Vec<(OriginId, u64)> = histories
            .iter()
            .map(|history| (history.origin, history.handled()))
            .collect();
        self.parts
            .store
            .rebuilds()
            .restore(plugin, kept.rebuild, handled, mark)
            .await?;
        Ok(())
    }

    /// Why the messages that a source handled since the swap cannot be read again; `None` if they can.
    async fn why_unreadable(
        &self,
        plugin: &str,
        version: &LoadedVersion,
        history: &SourceHistory,
        before: &KeptHistory,
    ) -> Result<Option<String>, LifecycleError> {
        let since = history.handled().saturating_sub(before.messages);
        if since == 0 && history.checkpoint == before.checkpoint {
            return Ok(None);
        }
        let source = &history.source;
        let Some((stream, subjects)) = stream_of(version, source) else {
            return Ok(Some(format!(
                "source {source} has handled {since} messages since, which the previous version cannot read again"
            )));
        };
        let behind = |sequence: u64| history.ranges.iter().filter(move |range| range.last > sequence);
        let mut again = behind(before.checkpoint);
        if again.any(|range| {
            range
                .subjects
                .as_deref()
                .is_none_or(|then| !same_members(then, subjects))
        }) {
            return Ok(Some(format!("source {source} reads other subjects since")));
        }
        let attached = self.parts.store.sources().attach(plugin, source).await?;
        let Some(known) = attached.filter(|attached| attached.origin == history.origin) else {
            return Ok(Some(format!("stream {stream} was recreated since")));
        };
        let compared = compare_history(&self.parts.broker, stream, &known).await?;
        match compared {
            HistoryComparison::Same(_) => {}
            HistoryComparison::Other(reason) => return Ok(Some(other_history(stream, &reason))),
            HistoryComparison::Missing => return Ok(Some(format!("stream {stream} no longer exists"))),
        }
        let scope = ReplayRange {
            source: source.clone(),
            origin: history.origin,
            after: before.checkpoint,
        };
        let (available, _) = self.available(version, &scope, history).await?;
        Ok((available < since).then(|| {
            format!(
                "source {source} has handled {since} messages since, and stream {stream} still holds {available} of them"
            )
        }))
    }
}
