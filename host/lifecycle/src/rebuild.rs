//! Rebuilds: a version fills new tables in the background, through its own consumers; when they have caught up, one
//! transaction swaps them in.
//!
//! A rebuild is a row in the database and a task. The task can end at any time (with the host, for example) and
//! continues from its checkpoints; only the last transaction, a failure or a cancellation ends the rebuild itself.

mod begin;
mod coverage;
mod fill;
mod restore;
mod swap;
mod task;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::{Inner, Lifecycle, LifecycleError, Requester};
use lantern_model::batch::Timestamp;
use lantern_model::results::rebuild::{Rebuild, RebuildProgress, RebuildState};
use lantern_plugin::Digest;
use lantern_projection::LoadedVersion;
use lantern_store::{RebuildId, RebuildRecord, ReplayRange};

/// The parameters of a rebuild.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RebuildRequest {
    /// The digest of the version to use; none for the active one.
    pub digest: Option<String>,
    /// The first sequence to read again, for a plugin with one stream; rows from before it are kept.
    pub from_sequence: Option<u64>,
    /// The first time to read again (RFC 3339); rows from before it are kept.
    pub from_time: Option<String>,
    /// Maximum rate for each source, in messages per second.
    pub rate: Option<u64>,
    /// Whether to keep rows whose messages left their stream.
    pub carry_over: bool,
    /// Whether to drop tables that the version does not declare; otherwise they stay.
    pub drop_undeclared: bool,
    /// Whether to accept new tables whose totals differ from the live ones without an explanation.
    pub accept_differences: bool,
    /// How many seconds the replaced tables are kept for a rollback; 0 removes them at once.
    pub keep_old_s: u64,
}

/// The task of one rebuild.
struct RebuildTask<'a> {
    inner: &'a Arc<Inner>,
    id: RebuildId,
    version: &'a Arc<LoadedVersion>,
    options: &'a StoredOptions,
    scopes: Vec<ReplayRange>,
    stop: &'a CancellationToken,
}

/// Why the task ends.
enum Stopped {
    /// The host stops, or an operator cancelled the rebuild.
    Cancelled,
    Failed(String),
}

/// The running rebuilds.
#[derive(Default)]
pub(super) struct Rebuilds {
    running: Mutex<BTreeMap<RebuildId, ActiveRebuild>>,
}

struct ActiveRebuild {
    plugin: String,
    stop: CancellationToken,
    progress: RebuildProgress,
    blocked_by: Option<String>,
}

impl Rebuilds {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<RebuildId, ActiveRebuild>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Any running rebuild, with its plugin.
    pub(super) fn any(&self) -> Option<(RebuildId, String)> {
        let running = self.lock();
        let first = running.iter().next();
        first.map(|(id, running)| (*id, running.plugin.clone()))
    }

    /// The running rebuild of a plugin.
    pub(super) fn of(&self, plugin: &str) -> Option<RebuildId> {
        let running = self.lock();
        running
            .iter()
            .find(|(_, running)| running.plugin == plugin)
            .map(|(id, _)| *id)
    }
}

impl Lifecycle {
    /// Starts a rebuild of a plugin's tables and returns its number.
    ///
    /// # Errors
    /// See [`LifecycleError`]. Rejected while another rebuild of the plugin runs, and when rows would be lost because
    /// their messages left the stream, unless the request carries them over.
    pub async fn rebuild(
        &self,
        plugin: &str,
        request: RebuildRequest,
        by: impl Into<Requester>,
    ) -> Result<RebuildId, LifecycleError> {
        let inner = Arc::clone(&self.inner);
        let (plugin, by) = (plugin.to_owned(), by.into());
        self.detached(async move { inner.begin_rebuild(&plugin, request, &by).await })
            .await
    }

    /// Removes expired replaced tables, and the tables of ended rebuilds, a few rows at a time.
    pub fn remove_old_tables(&self) {
        self.inner.sweep_tables();
    }

    /// Cancels a rebuild. The live tables do not change.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn cancel_rebuild(
        &self,
        id: RebuildId,
        by: impl Into<Requester>,
    ) -> Result<(), LifecycleError> {
        let inner = Arc::clone(&self.inner);
        let by = by.into();
        self.detached(async move { inner.cancel_rebuild(id, &by).await })
            .await
    }

    /// All rebuilds, the newest first.
    ///
    /// # Errors
    /// [`LifecycleError::Unavailable`].
    pub async fn rebuilds(&self) -> Result<Vec<Rebuild>, LifecycleError> {
        let records = self.inner.parts.store.reader().rebuilds().await?;
        let running = self.inner.rebuilds.lock();
        Ok(records
            .into_iter()
            .map(|record| view(&record, running.get(&record.id)))
            .collect())
    }
}

impl Lifecycle {
    /// The running rebuilds: plugin, progress, and what blocks them. Reads only memory.
    pub fn active_rebuilds(&self) -> Vec<(String, RebuildProgress, Option<String>)> {
        let running = self.inner.rebuilds.lock();
        running
            .values()
            .map(|running| {
                (
                    running.plugin.clone(),
                    running.progress,
                    running.blocked_by.clone(),
                )
            })
            .collect()
    }
}

fn view(record: &RebuildRecord, running: Option<&ActiveRebuild>) -> Rebuild {
    Rebuild {
        id: record.id.0,
        plugin: record.plugin.clone(),
        digest: record.digest.clone(),
        state: record.state,
        started_at: record.started_at.to_rfc3339(),
        ended_at: record.ended_at.map(Timestamp::to_rfc3339),
        reason: record
            .reason
            .clone()
            .or_else(|| running.and_then(|running| running.blocked_by.clone())),
        progress: running.map(|running| running.progress),
        outcome: record.outcome.clone(),
        previous_until: record.previous_until.map(Timestamp::to_rfc3339),
    }
}

/// The stored parameters of a rebuild, with which a restart resumes it.
#[derive(Serialize, Deserialize)]
struct StoredOptions {
    request: RebuildRequest,
    scopes: Vec<StoredReplayRange>,
    by: String,
}

#[derive(Serialize, Deserialize)]
struct StoredReplayRange {
    source: String,
    origin: i64,
    after: u64,
}

impl StoredOptions {
    fn replay_ranges(&self) -> Vec<ReplayRange> {
        self.scopes
            .iter()
            .map(|scope| ReplayRange {
                source: scope.source.clone(),
                origin: lantern_store::OriginId(scope.origin),
                after: scope.after,
            })
            .collect()
    }
}

impl Inner {
    async fn cancel_rebuild(self: &Arc<Self>, id: RebuildId, by: &Requester) -> Result<(), LifecycleError> {
        let Some(known) = self.rebuild_record(id).await? else {
            return Err(LifecycleError::Conflict(format!("there is no rebuild {}", id.0)));
        };
        // The rebuild may end while this waits for its swap.
        let _lane = self.enter(&known.plugin).await?;
        match self.rebuild_record(id).await? {
            Some(record) if record.state == RebuildState::Running => {
                if let Some(running) = self.rebuilds.lock().remove(&id) {
                    running.stop.cancel();
                }
                let detail = format!("rebuild {}", id.0);
                let mark = by.mark("rebuild.cancel", record.plugin.as_str(), None, detail);
                let rebuilds = self.parts.store.rebuilds();
                rebuilds.end(id, RebuildState::Cancelled, None, mark).await?;
                tracing::warn!(
                    plugin = record.plugin,
                    rebuild = id.0,
                    %by,
                    "a rebuild was cancelled"
                );
                self.sweep_tables();
                Ok(())
            }
            Some(record) => Err(LifecycleError::Conflict(format!(
                "rebuild {} is {} already",
                id.0, record.state
            ))),
            None => Err(LifecycleError::Conflict(format!("there is no rebuild {}", id.0))),
        }
    }

    async fn rebuild_record(&self, id: RebuildId) -> Result<Option<RebuildRecord>, LifecycleError> {
        let records = self.parts.store.reader().rebuilds().await?;
        Ok(records.into_iter().find(|record| record.id == id))
    }

    /// Resumes the rebuilds that were running when the host stopped, and removes the tables of ended ones.
    pub(super) async fn resume_rebuilds(self: &Arc<Self>) -> Result<(), LifecycleError> {
        for record in self.parts.store.reader().rebuilds().await? {
            if record.state != RebuildState::Running || !self.runs_here(&record.plugin) {
                continue;
            }
            let digest = record.digest.parse::<Digest>();
            let options = serde_json::from_str::<StoredOptions>(&record.options);
            let (Ok(digest), Ok(options)) = (digest, options) else {
                self.fail_rebuild(record.id, "the stored parameters cannot be read")
                    .await;
                continue;
            };
            match self.load_version(&record.plugin, digest).await {
                Ok(version) => self.run_rebuild(record.id, version, options),
                Err(error) => {
                    self.fail_rebuild(record.id, &format!("{:#}", anyhow::Error::new(error)))
                        .await
                }
            }
        }
        self.sweep_tables();
        Ok(())
    }

    async fn fail_rebuild(&self, id: RebuildId, reason: &str) {
        tracing::error!(rebuild = id.0, reason, "a rebuild failed");
        if let Err(error) = self
            .parts
            .store
            .rebuilds()
            .end(id, RebuildState::Failed, Some(reason.to_owned()), None)
            .await
        {
            tracing::warn!(rebuild = id.0, %error, "failed to record the rebuild failure; will retry on next start");
        }
    }

    /// Removes tables that no rebuild needs, a few rows at a time.
    fn sweep_tables(self: &Arc<Self>) {
        let (store, stop) = (Arc::clone(&self.parts.store), self.stop.child_token());
        self.tasks.spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    more = store.rebuilds().sweep() => match more {
                        Ok(true) => {}
                        Ok(false) => return,
                        Err(error) => {
                            tracing::warn!(%error, "failed to remove tables of an ended rebuild; will retry on next start");
                            return;
                        }
                    }
                }
                // Let other tasks use the writer.
                tokio::task::yield_now().await;
            }
        });
    }

    fn run_rebuild(self: &Arc<Self>, id: RebuildId, version: Arc<LoadedVersion>, options: StoredOptions) {
        let stop = self.stop.child_token();
        let running = ActiveRebuild {
            plugin: version.plugin().manifest().name.to_string(),
            stop: stop.clone(),
            progress: RebuildProgress::default(),
            blocked_by: None,
        };
        self.rebuilds.lock().insert(id, running);
        let inner = Arc::clone(self);
        self.tasks.spawn(async move {
            let work = RebuildTask {
                inner: &inner,
                id,
                version: &version,
                options: &options,
                scopes: options.replay_ranges(),
                stop: &stop,
            };
            work.run().await;
            inner.rebuilds.lock().remove(&id);
            inner
                .parts
                .metrics
                .rebuild_left(version.plugin().manifest().name.as_str(), None);
            inner.sweep_tables();
        });
    }
}
