//! The task of one rebuild: copies carried rows, fills the new tables through projections, and when they have caught
//! up, suspends the live projections, compares both sets of tables and swaps them in one transaction. If an unexplained
//! difference remains, the live tables stay.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::super::{Actor, Inner, adoption};
use super::begin::stream_of;
use super::coverage::same_members;
use super::{RebuildProgress, StoredOptions};
use lantern_model::schema::{Manifest, OnConflict};
use lantern_model::status::{ProjectionState, Status};
use lantern_plugin::Plugin;
use lantern_projection::{
    self, DesiredState, Gate, GateKeeper, LoadedVersion, Projection, Purpose, Rebuild, consumer_names,
};
use lantern_store::{
    AbandonedConsumer, AdoptError, AuditMark, RebuildId, ReplayRange, Verification, VerifyRequest,
};

/// Messages in one batch of a rebuild: a commit of the live tables waits for at most one such batch, about 15 ms.
const MESSAGES_MAX: usize = 2_048;
/// How often the task reads the progress.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);
/// The pause after a temporary error.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The task of one rebuild.
pub(super) struct RebuildTask<'a> {
    pub(super) inner: &'a Arc<Inner>,
    pub(super) id: RebuildId,
    pub(super) version: &'a Arc<LoadedVersion>,
    pub(super) options: &'a StoredOptions,
    pub(super) scopes: Vec<ReplayRange>,
    pub(super) stop: &'a CancellationToken,
}

/// Why the task ends.
enum Stopped {
    /// The host stops, or an operator cancelled the rebuild.
    Cancelled,
    Failed(String),
}

/// The result of an attempt to swap the tables.
enum SwapAttempt {
    Done,
    /// New rows have to be carried over first.
    CarryOver,
    /// The attempt has to be repeated, for this reason.
    Retry(String),
}

impl RebuildTask<'_> {
    pub(super) async fn run(&self) {
        match self.fill_and_finish().await {
            // The next start resumes the rebuild.
            Err(Stopped::Cancelled) if self.inner.stop.is_cancelled() => return,
            Err(Stopped::Cancelled) => self.record_cancellation().await,
            Err(Stopped::Failed(reason)) => self.inner.fail_rebuild(self.id, &reason).await,
            Ok(()) => {}
        }
        self.delete_consumers().await;
    }

    /// A projection may have begun an epoch between the cancellation and its own end.
    async fn record_cancellation(&self) {
        if let Err(error) = self
            .inner
            .parts
            .store
            .rebuilds()
            .end(self.id, "cancelled", None)
            .await
        {
            tracing::warn!(rebuild = self.id.0, %error, "failed to delete the state of a cancelled rebuild");
        }
    }

    async fn fill_and_finish(&self) -> Result<(), Stopped> {
        self.carry_over().await?;
        loop {
            let stop = self.stop.child_token();
            let mut fill = self.spawn(&stop);
            let result = match self.until_caught_up(&fill).await {
                Ok(()) => self.swap_tables(&mut fill, &stop).await,
                Err(ended) => Err(ended),
            };
            // Stop the projections on every path: an ended rebuild writes nothing.
            stop.cancel();
            fill.end().await;
            match result? {
                SwapAttempt::Done => return Ok(()),
                SwapAttempt::CarryOver => self.carry_over().await?,
                SwapAttempt::Retry(why) => {
                    self.blocked_by(&why);
                    self.wait_before_retry().await?;
                }
            }
        }
    }

    async fn wait_before_retry(&self) -> Result<(), Stopped> {
        tokio::select! {
            () = self.stop.cancelled() => Err(Stopped::Cancelled),
            () = tokio::time::sleep(RETRY_AFTER) => Ok(()),
        }
    }

    /// Copies the rows outside the replay range. After a restart the copy starts over and skips rows that exist.
    async fn carry_over(&self) -> Result<(), Stopped> {
        let manifest = self.version.plugin().manifest();
        for table in 0..manifest.tables.len() {
            let mut after = i64::MIN;
            loop {
                let scopes = self.scopes.clone();
                let copied = self.inner.parts.store.rebuilds().carry_over(
                    self.id,
                    Arc::clone(manifest),
                    table,
                    scopes,
                    after,
                );
                let copied = tokio::select! {
                    () = self.stop.cancelled() => return Err(Stopped::Cancelled),
                    copied = copied => copied,
                };
                match copied {
                    Ok(Some(last)) => after = last,
                    Ok(None) => break,
                    Err(AdoptError::Refused(reasons)) => return Err(Stopped::Failed(reasons.join("; "))),
                    Err(error) => {
                        self.blocked_by(&error.to_string());
                        self.wait_before_retry().await?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Starts projections of all replay ranges into the new tables.
    fn spawn(&self, stop: &CancellationToken) -> FillTasks {
        let parts = &self.inner.parts;
        let name = self.version.plugin().manifest().name.as_str();
        let desired = watch::Sender::new(DesiredState {
            version: Arc::clone(self.version),
            settings: Arc::new(self.inner.settings_of(name)),
            paused: None,
        });
        let mut running = JoinSet::new();
        let mut statuses = Vec::new();
        let until: Vec<u64> = self.scopes.iter().map(|scope| scope.after).collect();
        let gate = Gate::new(&until, order_matters(self.version.plugin().manifest()));
        for (number, scope) in self.scopes.iter().enumerate() {
            let config = lantern_projection::ProjectionConfig {
                messages_max: parts.config.projections.messages_max.min(MESSAGES_MAX),
                ..parts.config.projections.clone()
            };
            let purpose = self.purpose(scope);
            let (projection, status) = Projection::new(
                parts.broker.clone(),
                Arc::clone(&parts.store),
                desired.subscribe(),
                &scope.source,
                purpose,
                config,
                parts.metrics.clone(),
            );
            let projection = projection.with_gate(GateKeeper::new(&gate, number));
            running.spawn(projection.run(stop.clone()));
            statuses.push(status);
        }
        FillTasks {
            running,
            statuses,
            gate,
            _desired: desired,
        }
    }

    fn purpose(&self, scope: &ReplayRange) -> Purpose {
        Purpose::Rebuild(Rebuild {
            id: self.id,
            stamp: scope.origin,
            after: scope.after,
            rate: self.options.request.rate,
        })
    }

    /// Waits until the new tables have nearly caught up with the live ones.
    async fn until_caught_up(&self, fill: &FillTasks) -> Result<(), Stopped> {
        let began = tokio::time::Instant::now();
        let mut at_begin = None;
        while let Some(why) = self.raise_to_checkpoints(fill).await? {
            self.blocked_by(&why);
            self.wait_before_retry().await?;
        }
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return Err(Stopped::Cancelled),
                () = tokio::time::sleep(PROGRESS_EVERY) => {}
            }
            self.raise_to_reported(fill);
            let statuses = fill.statuses.iter();
            let now: Vec<Status> = statuses.map(|status| status.borrow().clone()).collect();
            if let Some(failed) = now.iter().find(|status| status.state == ProjectionState::Failed) {
                let reason = failed.last_error.clone().unwrap_or_default();
                return Err(Stopped::Failed(format!("source {}: {reason}", failed.source)));
            }
            let messages: u64 = now.iter().map(|status| status.messages).sum();
            let lags: Option<Vec<u64>> = now.iter().map(|status| status.lag).collect();
            let since = *at_begin.get_or_insert(messages);
            let left = lags.as_ref().map_or(0, |lags| lags.iter().sum());
            let rate = (messages - since.min(messages)) as f64 / began.elapsed().as_secs_f64().max(0.001);
            let blocked_by = now
                .iter()
                .find(|status| {
                    status.state == ProjectionState::Retrying
                        || status.state == ProjectionState::WaitingForStream
                })
                .and_then(|status| status.last_error.clone());
            self.report_progress(messages, left, rate, blocked_by);
            if self.is_nearly_caught_up(fill, &now) {
                return Ok(());
            }
        }
    }

    /// Lets the projections read up to the stored live checkpoints. Returns why that is impossible for now.
    async fn raise_to_checkpoints(&self, fill: &FillTasks) -> Result<Option<String>, Stopped> {
        let plugin = self.version.plugin().manifest().name.as_str();
        for (number, scope) in self.scopes.iter().enumerate() {
            match self
                .inner
                .parts
                .store
                .reader()
                .source_position(plugin, &scope.source)
                .await
            {
                Ok(Some(live)) if live.origin == scope.origin => {
                    fill.gate.raise(number, live.checkpoint.sequence);
                }
                Ok(_) => {
                    return Err(Stopped::Failed(format!(
                        "source {} has begun a new epoch meanwhile; start the rebuild again",
                        scope.source
                    )));
                }
                Err(error) => return Ok(Some(error.with_cause())),
            }
        }
        Ok(None)
    }

    /// The same, from the status of the live projections. A different epoch is rejected at the end.
    fn raise_to_reported(&self, fill: &FillTasks) {
        let plugin = self.version.plugin().manifest().name.as_str();
        let live = self.inner.parts.registry.snapshot();
        for (number, scope) in self.scopes.iter().enumerate() {
            let mut live = live.iter();
            if let Some(live) = live.find(|live| live.plugin == plugin && live.source == scope.source) {
                fill.gate.raise(number, live.checkpoint);
            }
        }
    }

    /// Whether the new tables are so close to the live ones that the live projections can wait for the rest.
    fn is_nearly_caught_up(&self, fill: &FillTasks, now: &[Status]) -> bool {
        let near = if fill.gate.is_in_order() {
            SWAP_LAG_MAX / 10
        } else {
            SWAP_LAG_MAX
        };
        let near = self.options.request.rate.map_or(near, |rate| near.min(rate / 10));
        now.iter().enumerate().all(|(number, status)| {
            status.state == ProjectionState::Running
                && (fill.gate.is_through(number) || status.checkpoint + near >= fill.gate.until(number))
        })
    }

    fn report_progress(&self, messages: u64, left: u64, rate: f64, blocked_by: Option<String>) {
        let plugin = self.version.plugin().manifest().name.as_str();
        self.inner.parts.metrics.rebuild_left(plugin, Some(left));
        if let Some(running) = self.inner.rebuilds.lock().get_mut(&self.id) {
            running.progress = RebuildProgress {
                messages,
                left,
                rate,
                eta_seconds: (rate > 0.0).then(|| left as f64 / rate),
            };
            running.blocked_by = blocked_by;
        }
    }

    fn blocked_by(&self, reason: &str) {
        if let Some(running) = self.inner.rebuilds.lock().get_mut(&self.id) {
            running.blocked_by = Some(reason.to_owned());
        }
    }

    /// Suspends the live projections after the batch in hand, waits until the new tables have caught up, compares and
    /// swaps the tables, and resumes the projections.
    async fn swap_tables(
        &self,
        fill: &mut FillTasks,
        stop: &CancellationToken,
    ) -> Result<SwapAttempt, Stopped> {
        let inner = self.inner;
        let plugin = self.version.plugin();
        let name = plugin.manifest().name.to_string();
        let mut plugins = inner.plugins.lock().await;
        if self.stop.is_cancelled() {
            return Err(Stopped::Cancelled);
        }
        let suspended = plugins.suspend(&name).await;
        let result = self.verify_and_swap(fill, stop).await;
        let done = matches!(result, Ok(SwapAttempt::Done));
        if done {
            inner.rebuilds.lock().remove(&self.id);
        }
        let paused = match inner.installation(&name).await {
            Ok(installation) => installation.paused,
            Err(_) => None,
        };
        let version = if done {
            Some(Arc::clone(self.version))
        } else {
            suspended
        };
        if let Some(version) = version {
            inner.apply_version(&mut plugins, version, paused).await;
        }
        drop(plugins);
        if done {
            self.record_finished(plugin, &name);
        }
        result
    }

    /// Verifies and swaps while the live projections are suspended.
    async fn verify_and_swap(
        &self,
        fill: &mut FillTasks,
        stop: &CancellationToken,
    ) -> Result<SwapAttempt, Stopped> {
        if let Some(why) = self.raise_to_checkpoints(fill).await? {
            return Ok(SwapAttempt::Retry(why));
        }
        let reached = tokio::time::timeout(SWAP_WAIT_MAX, fill.gate.all_through()).await;
        stop.cancel();
        fill.end().await;
        if reached.is_err() {
            return Ok(SwapAttempt::Retry(
                "the new tables have not caught up with the live ones".to_owned(),
            ));
        }
        let request = match self.verify_request().await {
            Ok(request) => request,
            Err(why) => return Ok(SwapAttempt::Retry(why)),
        };
        let store = &self.inner.parts.store;
        let manifest = Arc::clone(self.version.plugin().manifest());
        let mut verified = match store.reader().verify_rebuild(manifest, request.clone()).await {
            Ok(verified) => verified,
            Err(error) => return Ok(SwapAttempt::Retry(error.with_cause())),
        };
        if verified.lacks_carried {
            // A dead letter outside the replay range was resolved meanwhile.
            return Ok(SwapAttempt::CarryOver);
        }
        self.check_verification(&mut verified)?;
        match store
            .rebuilds()
            .finish(adoption(self.version.plugin()), request, verified, self.mark())
            .await
        {
            Ok(true) => Ok(SwapAttempt::Done),
            Ok(false) => Ok(SwapAttempt::Retry(
                "rows or dead letters changed after the comparison".to_owned(),
            )),
            Err(AdoptError::Refused(reasons)) => Err(Stopped::Failed(reasons.join("; "))),
            Err(error) => {
                tracing::warn!(rebuild = self.id.0, %error, "failed to finish the rebuild; will retry");
                Ok(SwapAttempt::Retry(error.to_string()))
            }
        }
    }

    /// Rejects the new tables if something is missing, or differs and was not accepted.
    fn check_verification(&self, verified: &mut Verification) -> Result<(), Stopped> {
        let accepts = self.options.request.accept_differences;
        if verified.losses.is_empty() && (verified.differences.is_empty() || accepts) {
            verified.outcome.accepted = std::mem::take(&mut verified.differences);
            return Ok(());
        }
        let mut found = verified.losses.clone();
        found.extend(verified.differences.iter().cloned());
        let hint = match verified.losses.is_empty() {
            true => {
                "; the version and its messages are the same as before; --accept-differences accepts the new tables"
            }
            false => "",
        };
        Err(Stopped::Failed(format!(
            "the new tables differ from the live ones, which stay: {}{hint}",
            found.join("; ")
        )))
    }

    /// The inputs of the comparison. If the version reads other subjects, its messages cannot be compared with the
    /// ledger; that the stream still holds all of them proves that none was missed.
    async fn verify_request(&self) -> Result<VerifyRequest, String> {
        let name = self.version.plugin().manifest().name.as_str();
        let histories = self.inner.parts.store.reader().ledger_histories(name).await;
        let histories = histories.map_err(|error| error.with_cause())?;
        let mut available = Vec::new();
        for scope in &self.scopes {
            let mut all = histories.iter();
            let history = all.find(|history| history.origin == scope.origin);
            let subjects = stream_of(self.version, &scope.source).map(|(_, subjects)| subjects);
            let others = history.filter(|history| {
                let mut again = history.ranges.iter().filter(|range| range.last > scope.after);
                again.any(|range| match (&range.subjects, subjects) {
                    (Some(then), Some(now)) => !same_members(then, now),
                    _ => false,
                })
            });
            available.push(match others {
                Some(history) => Some(
                    self.inner
                        .available(self.version, scope, history)
                        .await
                        .map_err(|error| error.to_string())?
                        .1,
                ),
                None => None,
            });
        }
        Ok(VerifyRequest {
            id: self.id,
            digest: self.version.plugin().digest().to_string(),
            scopes: self.scopes.clone(),
            available,
            drop_undeclared: self.options.request.drop_undeclared,
            keep_old_s: self.options.request.keep_old_s,
        })
    }

    fn record_finished(&self, plugin: &Plugin, name: &str) {
        self.inner.clear_load_failure(&format!("plugin {name}"));
        tracing::info!(plugin = name, rebuild = self.id.0, digest = %plugin.digest(), by = self.options.by, "rebuild finished");
    }

    /// The audit entry of the swap.
    fn mark(&self) -> Option<AuditMark> {
        let plugin = self.version.plugin();
        let detail = format!(
            "rebuild {}, started by {}, has finished",
            self.id.0, self.options.by
        );
        let by = Actor::part("rebuild");
        let name = plugin.manifest().name.as_str();
        by.mark("rebuild.finish", name, Some(plugin.digest()), detail)
    }

    async fn delete_consumers(&self) {
        let manifest = self.version.plugin().manifest();
        for scope in &self.scopes {
            if let Some((stream, _)) = stream_of(self.version, &scope.source) {
                let prefix = &self.inner.parts.config.projections.consumer_prefix;
                let [_, consumer] = consumer_names(prefix, manifest.name.as_str(), &scope.source);
                if let Err(error) = self.inner.delete_consumer(stream, &consumer).await {
                    tracing::warn!(stream, consumer, %error, "failed to delete the consumer of an ended rebuild; will retry");
                    let abandoned = AbandonedConsumer {
                        stream: stream.to_owned(),
                        consumer,
                        plugin: manifest.name.to_string(),
                    };
                    match self.inner.parts.store.consumers().abandon(abandoned).await {
                        Ok(()) => self.inner.abandoned.notify_one(),
                        Err(error) => {
                            tracing::warn!(stream, %error, "failed to record a consumer that has to be deleted");
                        }
                    }
                }
            }
        }
    }
}

/// The projections into the new tables.
struct FillTasks {
    running: JoinSet<()>,
    statuses: Vec<watch::Receiver<Status>>,
    gate: Arc<Gate>,
    /// The projections end when this sender is dropped.
    _desired: watch::Sender<DesiredState>,
}

impl FillTasks {
    async fn end(&mut self) {
        while let Some(ended) = self.running.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a projection of a rebuild panicked");
            }
        }
    }
}

/// Whether the order of messages of different sources affects rows: when writes find their row by a key.
fn order_matters(manifest: &Manifest) -> bool {
    let keyed = |number: usize| {
        manifest.tables.get(number).is_some_and(|table| {
            !table.primary_key.is_empty() || table.indexes.iter().any(|index| index.unique)
        })
    };
    let mut writes = manifest.writes.iter();
    writes.any(|write| keyed(write.table) || matches!(write.on_conflict, OnConflict::Update(_)))
}

/// How many sequences the new tables may lag when the live projections are suspended: some hundredths of a second.
const SWAP_LAG_MAX: u64 = 2_000;
/// How long the live projections wait for the new tables.
const SWAP_WAIT_MAX: Duration = Duration::from_secs(5);
