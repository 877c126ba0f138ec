//! Rebuilds: a plugin's tables are filled anew by a version, beside those in use, through consumers of their own; when
//! they have caught up, one transaction puts them in the place of the old ones.
//!
//! A rebuild is a row in the database and a task here. The task can end at any moment (with the host, too) and begins
//! again where its checkpoints say; only the last transaction and a cancellation end the rebuild itself.

mod work;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::{Actor, Inner, Lifecycle, LifecycleError, adoption};
use crate::batch::Timestamp;
use crate::plugin::Digest;
use crate::projection::Version;
use crate::schema::Origin;
use crate::store::{RebuildId, RebuildRecord, Scope};

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
                origin: crate::store::OriginId(scope.origin),
                after: scope.after,
            })
            .collect()
    }
}

impl Inner {
    async fn begin_rebuild(
        self: &Arc<Self>,
        plugin: &str,
        request: RebuildRequest,
        by: &Actor,
    ) -> Result<RebuildId, LifecycleError> {
        let installation = self.installation(plugin).await?;
        let active = installation.active.and_then(|id| installation.version(id));
        let digest = match (&request.digest, active) {
            (Some(digest), _) => digest.clone(),
            (None, Some(active)) => active.digest.clone(),
            (None, None) => {
                return Err(LifecycleError::Conflict(format!(
                    "plugin {plugin} has never run: activate it instead"
                )));
            }
        };
        let digest: Digest = digest
            .parse()
            .map_err(|error| LifecycleError::Conflict(format!("{digest}: {error}")))?;
        let digest = self.choose(plugin, Some(digest)).await?;
        let version = self.version(plugin, digest).await?;
        // From here on nobody else changes the plugin.
        let _fleet = self.fleet.lock().await;
        if let Some(id) = self.rebuilds.of(plugin) {
            return Err(LifecycleError::Conflict(format!(
                "rebuild {} of plugin {plugin} runs already",
                id.0
            )));
        }
        let scopes = self.scopes(&version, &request).await?;
        self.check_reach(plugin, &scopes, &request).await?;
        let options = Options {
            request,
            scopes: scopes
                .iter()
                .map(|scope| StoredScope {
                    source: scope.source.clone(),
                    origin: scope.origin.0,
                    after: scope.after,
                })
                .collect(),
            by: by.0.clone(),
        };
        let json = serde_json::to_string(&options)
            .map_err(|error| LifecycleError::Unavailable(error.to_string()))?;
        let id = self
            .parts
            .store
            .begin_rebuild(adoption(version.plugin()), json)
            .await?;
        tracing::info!(plugin, rebuild = id.0, %digest, by = by.0, "a rebuild begins");
        self.run_rebuild(id, version, options);
        Ok(id)
    }

    /// For each stream of the version what is read again: what the stream still holds, as far as the history in use
    /// reaches, and not from before what was asked for.
    async fn scopes(
        &self,
        version: &Version,
        request: &RebuildRequest,
    ) -> Result<Vec<Scope>, LifecycleError> {
        let manifest = version.plugin().manifest();
        let streams: Vec<_> = manifest
            .sources
            .iter()
            .filter_map(|source| match &source.origin {
                Origin::JetStream { stream, .. } => Some((source.name.as_str(), stream)),
                Origin::Core { .. } => None,
            })
            .collect();
        if streams.is_empty() {
            return Err(LifecycleError::Conflict(format!(
                "plugin {} reads no stream, and core NATS keeps nothing that could be read again",
                manifest.name
            )));
        }
        if request.from_sequence.is_some() && streams.len() > 1 {
            return Err(LifecycleError::Conflict(
                "a sequence says nothing about several streams; give a time".to_owned(),
            ));
        }
        let from_ns = from_time(request)?;
        let mut scopes = Vec::new();
        for (source, stream) in streams {
            scopes.push(
                self.scope(
                    manifest.name.as_str(),
                    source,
                    stream,
                    (request.from_sequence, from_ns),
                )
                .await?,
            );
        }
        Ok(scopes)
    }

    /// What of one stream is read again: `from` is a sequence or a time in nanoseconds.
    async fn scope(
        &self,
        plugin: &str,
        source: &str,
        stream: &str,
        from: (Option<u64>, Option<i64>),
    ) -> Result<Scope, LifecycleError> {
        let unavailable = |error: &dyn std::fmt::Display| LifecycleError::Unavailable(error.to_string());
        let Some(attached) = self.parts.store.attach(plugin, source).await? else {
            return Err(LifecycleError::Conflict(format!(
                "source {source} was never read by plugin {plugin}; activate the version instead"
            )));
        };
        let broker = &self.parts.broker;
        let facts = broker
            .stream_facts(stream)
            .await
            .map_err(|error| unavailable(&error))?;
        let Some(facts) = facts else {
            return Err(LifecycleError::Conflict(format!(
                "the broker has no stream {stream}"
            )));
        };
        if attached
            .stream_created_ns
            .is_some_and(|created| created != facts.created_ns)
        {
            return Err(LifecycleError::Conflict(format!(
                "stream {stream} was created anew; wait until the plugin has begun its new epoch"
            )));
        }
        let asked = match from {
            (Some(sequence), _) => sequence.saturating_sub(1),
            (None, Some(time)) => broker
                .sequence_until(stream, time - 1)
                .await
                .map_err(|error| unavailable(&error))?,
            (None, None) => 0,
        };
        let begins_after = self.parts.store.begins_after(attached.origin).await?;
        let gone = facts.first_sequence.saturating_sub(1);
        Ok(Scope {
            source: source.to_owned(),
            origin: attached.origin,
            after: asked
                .max(gone)
                .max(begins_after)
                .min(attached.checkpoint.sequence),
        })
    }

    /// Refuses where rows would be lost.
    async fn check_reach(
        &self,
        plugin: &str,
        scopes: &[Scope],
        request: &RebuildRequest,
    ) -> Result<(), LifecycleError> {
        let keeps = request.carry_over || request.from_sequence.is_some() || request.from_time.is_some();
        let lost = self.parts.store.unreachable_rows(plugin, scopes.to_vec()).await?;
        if let Some(table) = lost.iter().find(|table| table.merges && keeps) {
            return Err(LifecycleError::Conflict(format!(
                "{} rows of table {} come from messages that would not be read again, and its writes merge several \
                 messages into a row, so that a part of it cannot be kept by itself",
                table.rows, table.table
            )));
        }
        if !keeps && !lost.is_empty() {
            let words: Vec<String> = lost
                .iter()
                .map(|table| format!("{} rows of table {}", table.rows, table.table))
                .collect();
            return Err(LifecycleError::Conflict(format!(
                "{} come from messages that no stream holds any more, and would be lost; --carry-over keeps them as \
                 they are",
                words.join(" and ")
            )));
        }
        Ok(())
    }

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

/// The time asked for, in nanoseconds since 1970.
fn from_time(request: &RebuildRequest) -> Result<Option<i64>, LifecycleError> {
    let Some(text) = &request.from_time else {
        return Ok(None);
    };
    let parsed = chrono::DateTime::parse_from_rfc3339(text).ok();
    let time = parsed.and_then(|time| time.timestamp_nanos_opt());
    time.map(Some).ok_or_else(|| {
        LifecycleError::Conflict(format!("{text:?} is no time as 2026-05-28T10:41:00Z is one"))
    })
}
