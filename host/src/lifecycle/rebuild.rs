//! Rebuilds: a plugin's tables are filled anew by a version, beside those in use, through consumers of their own; when
//! they have caught up, one transaction puts them in the place of the old ones.
//!
//! A rebuild is a row in the database and a task here. The task can end at any moment (with the host, too) and begins
//! again where its checkpoints say; only the last transaction and a cancellation end the rebuild itself.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Actor, Inner, Lifecycle, LifecycleError, adoption, detached};
use crate::batch::Timestamp;
use crate::plugin::Digest;
use crate::projection::{self, Orders, Projection, Purpose, Rebuild, Version, consumer_name};
use crate::schema::Origin;
use crate::status::{State, Status};
use crate::store::{RebuildId, RebuildRecord, Scope, Store};

/// Messages in one batch of a rebuild: a commit of the live tables waits for one such batch at the most, some 15 ms.
const MESSAGES_MAX: usize = 2_048;
/// How often it is looked at how far the new tables are.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The pause after something went wrong that may pass.
const RETRY_AFTER: Duration = Duration::from_secs(1);

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
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RebuildView {
    /// Its number.
    pub id: RebuildId,
    /// The plugin.
    pub plugin: String,
    /// The digest of the version that fills the new tables.
    pub digest: String,
    /// `running`, `failed`, `cancelled` or `done`.
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
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
        detached(async move { inner.begin_rebuild(&plugin, request, &by).await }).await
    }

    /// Ends a rebuild. The tables in use stay as they are.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn cancel_rebuild(&self, id: RebuildId, by: &Actor) -> Result<(), LifecycleError> {
        let inner = Arc::clone(&self.inner);
        let by = by.clone();
        detached(async move { inner.cancel_rebuild(id, &by).await }).await
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
        let unavailable = |error: &dyn std::fmt::Display| LifecycleError::Unavailable(error.to_string());
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
            let Some(attached) = self.parts.store.attach(manifest.name.as_str(), source).await? else {
                return Err(LifecycleError::Conflict(format!(
                    "source {source} was never read by plugin {}; activate the version instead",
                    manifest.name
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
            let asked = match (request.from_sequence, from_ns) {
                (Some(sequence), _) => sequence.saturating_sub(1),
                (None, Some(time)) => broker
                    .sequence_until(stream, time - 1)
                    .await
                    .map_err(|error| unavailable(&error))?,
                (None, None) => 0,
            };
            let begins_after = self.parts.store.begins_after(attached.origin).await?;
            // Where nothing was trimmed and nothing asked for, the ledger begins where it began.
            let gone = facts.first_sequence.saturating_sub(1);
            let after = if asked == 0 && gone <= begins_after {
                begins_after
            } else {
                asked.max(gone).max(begins_after)
            };
            scopes.push(Scope {
                source: source.to_owned(),
                origin: attached.origin,
                after: after.min(attached.checkpoint.sequence),
            });
        }
        Ok(scopes)
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

/// One rebuild at work.
struct Work<'a> {
    inner: &'a Arc<Inner>,
    id: RebuildId,
    version: &'a Arc<Version>,
    options: &'a Options,
    scopes: Vec<Scope>,
    stop: &'a CancellationToken,
}

/// Why the work ends.
enum Ended {
    /// The host stops, or an operator has cancelled.
    Stopped,
    Failed(String),
}

impl Work<'_> {
    async fn run(&self) {
        match self.fill_and_finish().await {
            Ok(()) | Err(Ended::Stopped) => {}
            Err(Ended::Failed(reason)) => self.inner.fail_rebuild(self.id, &reason).await,
        }
    }

    async fn fill_and_finish(&self) -> Result<(), Ended> {
        self.carry_over().await?;
        loop {
            let stop = self.stop.child_token();
            let mut filling = self.spawn(&stop);
            self.until_caught_up(&filling.statuses).await?;
            let done = self.take_over(&mut filling, &stop).await?;
            if done {
                return Ok(());
            }
            self.held_up("the database cannot be written now");
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }

    /// Copies the rows that are not made again. A copy that was begun before a restart is gone through once more; rows
    /// that are there already are left alone.
    async fn carry_over(&self) -> Result<(), Ended> {
        let manifest = self.version.plugin().manifest();
        for table in 0..manifest.tables.len() {
            let mut after = i64::MIN;
            loop {
                let scopes = self.scopes.clone();
                let copied =
                    self.inner
                        .parts
                        .store
                        .carry_over(self.id, Arc::clone(manifest), table, scopes, after);
                let copied = tokio::select! {
                    () = self.stop.cancelled() => return Err(Ended::Stopped),
                    copied = copied => copied,
                };
                match copied {
                    Ok(Some(last)) => after = last,
                    Ok(None) => break,
                    Err(error) => {
                        self.held_up(&error.to_string());
                        tokio::time::sleep(RETRY_AFTER).await;
                    }
                }
            }
        }
        Ok(())
    }

    /// Projections of all scopes into the new tables.
    fn spawn(&self, stop: &CancellationToken) -> Filling {
        let parts = &self.inner.parts;
        let name = self.version.plugin().manifest().name.as_str();
        let orders = watch::Sender::new(Orders {
            version: Arc::clone(self.version),
            settings: Arc::new(self.inner.settings_of(name)),
            hold: None,
        });
        let mut running = JoinSet::new();
        let mut statuses = Vec::new();
        for scope in &self.scopes {
            let config = projection::Config {
                messages_max: parts.config.projections.messages_max.min(MESSAGES_MAX),
                ..parts.config.projections.clone()
            };
            let purpose = self.purpose(scope);
            let (projection, status) = Projection::new(
                parts.broker.clone(),
                Arc::clone(&parts.store),
                orders.subscribe(),
                &scope.source,
                purpose,
                config,
                parts.metrics.clone(),
            );
            running.spawn(projection.run(stop.clone()));
            statuses.push(status);
        }
        Filling {
            running,
            statuses,
            _orders: orders,
        }
    }

    fn purpose(&self, scope: &Scope) -> Purpose {
        Purpose::Rebuild(Rebuild {
            id: self.id,
            stamp: scope.origin,
            after: scope.after,
            rate: self.options.request.rate,
        })
    }

    /// Returns when nothing is left to be read.
    async fn until_caught_up(&self, statuses: &[watch::Receiver<Status>]) -> Result<(), Ended> {
        let began = tokio::time::Instant::now();
        let mut at_begin = None;
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return Err(Ended::Stopped),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            let now: Vec<Status> = statuses.iter().map(|status| status.borrow().clone()).collect();
            if let Some(failed) = now.iter().find(|status| status.state == State::Failed) {
                let reason = failed.last_error.clone().unwrap_or_default();
                return Err(Ended::Failed(format!("source {}: {reason}", failed.source)));
            }
            let messages: u64 = now.iter().map(|status| status.messages).sum();
            let lags: Option<Vec<u64>> = now.iter().map(|status| status.lag).collect();
            let since = *at_begin.get_or_insert(messages);
            let left = lags.as_ref().map_or(0, |lags| lags.iter().sum());
            let rate = (messages - since.min(messages)) as f64 / began.elapsed().as_secs_f64().max(0.001);
            let held_up = now
                .iter()
                .find(|status| status.state == State::Retrying || status.state == State::WaitingForStream)
                .and_then(|status| status.last_error.clone());
            self.show(messages, left, rate, held_up);
            if self.is_near(&now) {
                return Ok(());
            }
        }
    }

    /// Whether the new tables are so near the ones in use that the live projections can wait for the rest.
    fn is_near(&self, filling: &[Status]) -> bool {
        let near = self.options.request.rate.map_or(NEAR, |rate| NEAR.min(rate / 10));
        let plugin = self.version.plugin().manifest().name.as_str();
        let live = self.inner.parts.registry.snapshot();
        filling.iter().all(|status| {
            let live = live
                .iter()
                .find(|live| live.plugin == plugin && live.source == status.source);
            let nothing_left = status.lag == Some(0);
            status.state == State::Running
                && (nothing_left || live.is_some_and(|live| status.checkpoint + near >= live.checkpoint))
        })
    }

    fn show(&self, messages: u64, left: u64, rate: f64, held_up: Option<String>) {
        if let Some(running) = self.inner.rebuilds.lock().get_mut(&self.id) {
            running.progress = Progress {
                messages,
                left,
                rate,
                eta_seconds: (rate > 0.0).then(|| left as f64 / rate),
            };
            running.held_up = held_up;
        }
    }

    fn held_up(&self, reason: &str) {
        if let Some(running) = self.inner.rebuilds.lock().get_mut(&self.id) {
            running.held_up = Some(reason.to_owned());
        }
    }

    /// Ends the live projections after the batch in hand, waits until the new tables are as far as the old, puts them in
    /// their place, and lets the projections go on behind them. `Ok(false)`: the database was away, nothing has happened.
    async fn take_over(&self, filling: &mut Filling, stop: &CancellationToken) -> Result<bool, Ended> {
        let inner = self.inner;
        let plugin = self.version.plugin();
        let name = plugin.manifest().name.to_string();
        let mut fleet = inner.fleet.lock().await;
        if self.stop.is_cancelled() {
            return Err(Ended::Stopped);
        }
        let resting = fleet.rest(&name).await;
        filling.reach(&inner.parts.store, &name, &self.scopes).await;
        stop.cancel();
        filling.end().await;
        let finished = inner
            .parts
            .store
            .finish_rebuild(self.id, adoption(plugin), self.scopes.clone())
            .await;
        if finished.is_ok() {
            inner.rebuilds.lock().remove(&self.id);
        }
        let (version, result) = match finished {
            Ok(()) => (Some(Arc::clone(self.version)), Ok(true)),
            Err(crate::store::AdoptError::Refused(reasons)) => {
                (resting.clone(), Err(Ended::Failed(reasons.join("; "))))
            }
            Err(error) => {
                tracing::warn!(rebuild = self.id.0, %error, "a rebuild cannot be finished now; it is tried again");
                (resting.clone(), Ok(false))
            }
        };
        let hold = match inner.installation(&name).await {
            Ok(installation) => installation.paused,
            Err(_) => None,
        };
        if let Some(version) = version {
            inner.run(&mut fleet, version, hold).await;
        }
        drop(fleet);
        if let Ok(true) = result {
            inner.forgive(&format!("plugin {name}"));
            tracing::info!(plugin = name, rebuild = self.id.0, digest = %plugin.digest(), by = self.options.by, "a rebuild is done");
            self.delete_consumers().await;
        }
        result
    }

    async fn delete_consumers(&self) {
        let manifest = self.version.plugin().manifest();
        for scope in &self.scopes {
            let Some((_, source)) = manifest.source(&scope.source) else {
                continue;
            };
            if let Origin::JetStream { stream, .. } = &source.origin {
                let consumer = consumer_name(manifest.name.as_str(), &scope.source, self.purpose(scope));
                if let Err(error) = self.inner.parts.broker.delete_consumer(stream, &consumer).await {
                    tracing::warn!(stream, consumer, %error, "the consumer of an ended rebuild could not be deleted");
                }
            }
        }
    }
}

/// The projections into the new tables.
struct Filling {
    running: JoinSet<()>,
    statuses: Vec<watch::Receiver<Status>>,
    /// They rest when nobody can give them orders any more.
    _orders: watch::Sender<Orders>,
}

impl Filling {
    /// Waits until the new tables are as far as those in use, which rest; for a while, since a little behind does no harm:
    /// what is missing is read by the live projections.
    async fn reach(&mut self, store: &Store, plugin: &str, scopes: &[Scope]) {
        let reached = async {
            for (scope, status) in scopes.iter().zip(&mut self.statuses) {
                let Ok(Some(live)) = store.attach(plugin, &scope.source).await else {
                    return;
                };
                let far = status.wait_for(|status| status.checkpoint >= live.checkpoint.sequence);
                if far.await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(REACH_TIME, reached).await.is_err() {
            tracing::debug!(plugin, "the new tables are a little behind those in use");
        }
    }

    async fn end(&mut self) {
        while let Some(ended) = self.running.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a projection of a rebuild ended badly");
            }
        }
    }
}

/// Sequences that the new tables may be behind when the live projections are ended: some hundredths of a second.
const NEAR: u64 = 2_000;
/// How long the live projections wait for them.
const REACH_TIME: Duration = Duration::from_secs(3);
