//! Rebuilds: a plugin's tables are filled anew by a version, beside those in use, through consumers of their own; when
//! they have caught up, one transaction puts them in the place of the old ones.
//!
//! A rebuild is a row in the database and a task here. The task can end at any moment (with the host, too) and begins
//! again where its checkpoints say; only the last transaction and a cancellation end the rebuild itself.

mod begin;
mod reach;
mod restore;
mod work;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::{Actor, Inner, Lifecycle, LifecycleError};
use lantern_model::batch::Timestamp;
use lantern_plugin::Digest;
use lantern_projection::Version;
use lantern_store::{RebuildId, RebuildOutcome, RebuildRecord, Scope};

use work::Work;

/// What is to be rebuilt, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RebuildRequest {
    /// With which version; none for the one that runs.
    pub digest: Option<String>,
    /// From this sequence on, for a plugin with one stream; rows from before are kept.
    pub from_sequence: Option<u64>,
    /// From this time on (RFC 3339); rows from before are kept.
    pub from_time: Option<String>,
    /// Messages a second for each source at the most.
    pub rate: Option<u64>,
    /// Whether rows are kept whose messages are gone from their stream.
    pub carry_over: bool,
    /// Whether tables that the version does not declare are dropped; otherwise they stay.
    pub drop_undeclared: bool,
    /// Whether the new tables are taken although their totals differ from those in use and nothing explains it.
    pub accept_differences: bool,
    /// For how many seconds the replaced tables are kept, so that a rollback can go back to them; 0 removes them at once.
    pub keep_old_s: u64,
}

/// A rebuild as faces show it.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = Rebuild)]
pub struct RebuildView {
    /// Its number.
    #[schema(value_type = i64)]
    pub id: RebuildId,
    /// The plugin.
    pub plugin: String,
    /// The digest of the version that fills the new tables.
    pub digest: String,
    /// `running`, `failed`, `cancelled` or `done`.
    #[schema(pattern = "^(running|failed|cancelled|done)$")]
    pub state: String,
    /// When it began (RFC 3339).
    pub started_at: String,
    /// When it ended.
    pub ended_at: Option<String>,
    /// Why it failed, or what holds it up.
    pub reason: Option<String>,
    /// While it runs here: how far it is.
    pub progress: Option<Progress>,
    /// When it is done: what it has come to.
    pub outcome: Option<RebuildOutcome>,
    /// Until when the tables that it has replaced are kept (RFC 3339); a rollback goes back to them.
    pub previous_until: Option<String>,
}

/// How far a rebuild is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, ToSchema)]
#[schema(as = RebuildProgress)]
pub struct Progress {
    /// Messages read again so far.
    pub messages: u64,
    /// Messages that are left, as the broker said last.
    pub left: u64,
    /// Messages a second since it began or was taken up again.
    pub rate: f64,
    /// Seconds that are left at this rate; none while it is not known.
    pub eta_seconds: Option<f64>,
}

/// The rebuilds that run here.
#[derive(Default)]
pub(super) struct Rebuilds {
    running: Mutex<BTreeMap<RebuildId, Running>>,
}

struct Running {
    plugin: String,
    stop: CancellationToken,
    progress: Progress,
    held_up: Option<String>,
}

impl Rebuilds {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<RebuildId, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A rebuild that runs, with its plugin.
    pub(super) fn any(&self) -> Option<(RebuildId, String)> {
        let running = self.lock();
        let first = running.iter().next();
        first.map(|(id, running)| (*id, running.plugin.clone()))
    }

    /// The rebuild of a plugin that runs.
    pub(super) fn of(&self, plugin: &str) -> Option<RebuildId> {
        let running = self.lock();
        running
            .iter()
            .find(|(_, running)| running.plugin == plugin)
            .map(|(id, _)| *id)
    }
}

impl Lifecycle {
    /// Begins to fill a plugin's tables anew. Returns when it has begun.
    ///
    /// # Errors
    /// See [`LifecycleError`]. Refused while another rebuild of the plugin runs, and where rows would be lost because
    /// their messages are gone from the stream, unless they are to be carried over.
    pub async fn rebuild(
        &self,
        plugin: &str,
        request: RebuildRequest,
        by: &Actor,
    ) -> Result<RebuildId, LifecycleError> {
        let inner = Arc::clone(&self.inner);
        let (plugin, by) = (plugin.to_owned(), by.clone());
        self.detached(async move { inner.begin_rebuild(&plugin, request, &by).await })
            .await
    }

    /// Removes replaced tables whose time has passed, and what ended rebuilds have left, a few rows at a time.
    pub fn remove_old_tables(&self) {
        self.inner.clean_up();
    }

    /// Ends a rebuild. The tables in use stay as they are.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn cancel_rebuild(&self, id: RebuildId, by: &Actor) -> Result<(), LifecycleError> {
        let inner = Arc::clone(&self.inner);
        let by = by.clone();
        self.detached(async move { inner.cancel_rebuild(id, &by).await })
            .await
    }

    /// All rebuilds, the newest first.
    ///
    /// # Errors
    /// [`LifecycleError::Unavailable`].
    pub async fn rebuilds(&self) -> Result<Vec<RebuildView>, LifecycleError> {
        let records = self.inner.parts.store.rebuilds().await?;
        let running = self.inner.rebuilds.lock();
        Ok(records
            .into_iter()
            .map(|record| view(&record, running.get(&record.id)))
            .collect())
    }
}

impl Lifecycle {
    /// The rebuilds that run here: plugin, how far, and what holds it up. Asks nobody.
    pub fn rebuilding(&self) -> Vec<(String, Progress, Option<String>)> {
        let running = self.inner.rebuilds.lock();
        running
            .values()
            .map(|running| (running.plugin.clone(), running.progress, running.held_up.clone()))
            .collect()
    }
}

fn view(record: &RebuildRecord, running: Option<&Running>) -> RebuildView {
    RebuildView {
        id: record.id,
        plugin: record.plugin.clone(),
        digest: record.digest.clone(),
        state: record.state.clone(),
        started_at: record.started_at.to_rfc3339(),
        ended_at: record.ended_at.map(Timestamp::to_rfc3339),
        reason: record
            .reason
            .clone()
            .or_else(|| running.and_then(|running| running.held_up.clone())),
        progress: running.map(|running| running.progress),
        outcome: record.outcome.clone(),
        previous_until: record.previous_until.map(Timestamp::to_rfc3339),
    }
}

/// What the database keeps of a rebuild that was begun, so that it can be taken up again.
#[derive(Serialize, Deserialize)]
struct Options {
    request: RebuildRequest,
    scopes: Vec<StoredScope>,
    by: String,
}

#[derive(Serialize, Deserialize)]
struct StoredScope {
    source: String,
    origin: i64,
    after: u64,
}

impl Options {
    fn scopes(&self) -> Vec<Scope> {
        self.scopes
            .iter()
            .map(|scope| Scope {
                source: scope.source.clone(),
                origin: lantern_store::OriginId(scope.origin),
                after: scope.after,
            })
            .collect()
    }
}

impl Inner {
    async fn cancel_rebuild(self: &Arc<Self>, id: RebuildId, by: &Actor) -> Result<(), LifecycleError> {
        let _fleet = self.fleet.lock().await;
        let record = self
            .parts
            .store
            .rebuilds()
            .await?
            .into_iter()
            .find(|record| record.id == id);
        match record {
            Some(record) if record.state == "running" => {
                if let Some(running) = self.rebuilds.lock().remove(&id) {
                    running.stop.cancel();
                }
                self.parts.store.end_rebuild(id, "cancelled", None).await?;
                tracing::warn!(
                    plugin = record.plugin,
                    rebuild = id.0,
                    by = by.0,
                    "a rebuild was cancelled"
                );
                self.clean_up();
                Ok(())
            }
            Some(record) => Err(LifecycleError::Conflict(format!(
                "rebuild {} is {} already",
                id.0, record.state
            ))),
            None => Err(LifecycleError::Conflict(format!("there is no rebuild {}", id.0))),
        }
    }

    /// Takes up the rebuilds that were running when the host stopped, and removes what ended ones have left.
    pub(super) async fn resume_rebuilds(self: &Arc<Self>) -> Result<(), LifecycleError> {
        for record in self.parts.store.rebuilds().await? {
            if record.state != "running" {
                continue;
            }
            let digest = record.digest.parse::<Digest>();
            let options = serde_json::from_str::<Options>(&record.options);
            let (Ok(digest), Ok(options)) = (digest, options) else {
                self.fail_rebuild(record.id, "what was asked for cannot be read any more")
                    .await;
                continue;
            };
            match self.version(&record.plugin, digest).await {
                Ok(version) => self.run_rebuild(record.id, version, options),
                Err(error) => {
                    self.fail_rebuild(record.id, &format!("{:#}", anyhow::Error::new(error)))
                        .await
                }
            }
        }
        self.clean_up();
        Ok(())
    }

    async fn fail_rebuild(&self, id: RebuildId, reason: &str) {
        tracing::error!(rebuild = id.0, reason, "a rebuild has failed");
        if let Err(error) = self
            .parts
            .store
            .end_rebuild(id, "failed", Some(reason.to_owned()))
            .await
        {
            tracing::warn!(rebuild = id.0, %error, "that a rebuild has failed could not be noted; it is tried again at the next start");
        }
    }

    /// Removes tables that no rebuild needs, a few rows at a time.
    fn clean_up(self: &Arc<Self>) {
        let (store, stop) = (Arc::clone(&self.parts.store), self.stop.child_token());
        self.tasks.spawn(async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    more = store.sweep_tables() => match more {
                        Ok(true) => {}
                        Ok(false) => return,
                        Err(error) => {
                            tracing::warn!(%error, "tables of an ended rebuild could not be removed; the next start does it");
                            return;
                        }
                    }
                }
                // Others have a turn at the writer.
                tokio::task::yield_now().await;
            }
        });
    }

    fn run_rebuild(self: &Arc<Self>, id: RebuildId, version: Arc<Version>, options: Options) {
        let stop = self.stop.child_token();
        let running = Running {
            plugin: version.plugin().manifest().name.to_string(),
            stop: stop.clone(),
            progress: Progress::default(),
            held_up: None,
        };
        self.rebuilds.lock().insert(id, running);
        let inner = Arc::clone(self);
        self.tasks.spawn(async move {
            let work = Work {
                inner: &inner,
                id,
                version: &version,
                options: &options,
                scopes: options.scopes(),
                stop: &stop,
            };
            work.run().await;
            inner.rebuilds.lock().remove(&id);
            inner
                .parts
                .metrics
                .rebuild_left(version.plugin().manifest().name.as_str(), None);
            inner.clean_up();
        });
    }
}
