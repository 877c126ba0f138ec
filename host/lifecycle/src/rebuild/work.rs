//! One rebuild at work: rows that are kept are copied, projections fill the new tables, and when they are as far as those
//! in use, the live projections rest while both are compared and one transaction exchanges them. Where the comparison
//! finds a difference that nothing explains, the tables in use stay.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::super::{Actor, Inner, adoption};
use super::begin::stream_of;
use super::reach::same;
use super::{Options, Progress};
use lantern_model::schema::{Manifest, OnConflict};
use lantern_model::status::{ProjectionState, Status};
use lantern_plugin::Plugin;
use lantern_projection::{
    self, Gate, GateKeeper, Orders, Projection, Purpose, Rebuild, Version, consumer_names,
};
use lantern_store::{
    AbandonedConsumer, AdoptError, AuditMark, CommitError, RebuildId, Scope, Verification, VerifyRequest,
};

/// Messages in one batch of a rebuild: a commit of the live tables waits for one such batch at the most, some 15 ms.
const MESSAGES_MAX: usize = 2_048;
/// How often it is looked at how far the new tables are.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The pause after something went wrong that may pass.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// One rebuild at work.
pub(super) struct Work<'a> {
    pub(super) inner: &'a Arc<Inner>,
    pub(super) id: RebuildId,
    pub(super) version: &'a Arc<Version>,
    pub(super) options: &'a Options,
    pub(super) scopes: Vec<Scope>,
    pub(super) stop: &'a CancellationToken,
}

/// Why the work ends.
enum Ended {
    /// The host stops, or an operator has cancelled.
    Stopped,
    Failed(String),
}

/// What an attempt to exchange the tables has come to.
enum Step {
    Done,
    /// Rows have come that have to be carried over.
    CarryOver,
    /// It has to be tried again, for this reason.
    Again(String),
}

impl Work<'_> {
    pub(super) async fn run(&self) {
        match self.fill_and_finish().await {
            // It goes on when the host starts again.
            Err(Ended::Stopped) if self.inner.stop.is_cancelled() => return,
            Err(Ended::Stopped) => self.forget_again().await,
            Err(Ended::Failed(reason)) => self.inner.fail_rebuild(self.id, &reason).await,
            Ok(()) => {}
        }
        self.delete_consumers().await;
    }

    /// A projection may have begun anew between the cancellation and its own end.
    async fn forget_again(&self) {
        if let Err(error) = self
            .inner
            .parts
            .store
            .end_rebuild(self.id, "cancelled", None)
            .await
        {
            tracing::warn!(rebuild = self.id.0, %error, "what a cancelled rebuild remembers could not be forgotten");
        }
    }

    async fn fill_and_finish(&self) -> Result<(), Ended> {
        self.carry_over().await?;
        loop {
            let stop = self.stop.child_token();
            let mut filling = self.spawn(&stop);
            let result = match self.until_caught_up(&filling).await {
                Ok(()) => self.take_over(&mut filling, &stop).await,
                Err(ended) => Err(ended),
            };
            // Also on the way out: nothing of a rebuild is written when it has ended.
            stop.cancel();
            filling.end().await;
            match result? {
                Step::Done => return Ok(()),
                Step::CarryOver => self.carry_over().await?,
                Step::Again(why) => {
                    self.held_up(&why);
                    self.pause().await?;
                }
            }
        }
    }

    async fn pause(&self) -> Result<(), Ended> {
        tokio::select! {
            () = self.stop.cancelled() => Err(Ended::Stopped),
            () = tokio::time::sleep(RETRY_AFTER) => Ok(()),
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
                    Err(AdoptError::Refused(reasons)) => return Err(Ended::Failed(reasons.join("; "))),
                    Err(error) => {
                        self.held_up(&error.to_string());
                        self.pause().await?;
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
        let until: Vec<u64> = self.scopes.iter().map(|scope| scope.after).collect();
        let gate = Gate::new(&until, order_matters(self.version.plugin().manifest()));
        for (number, scope) in self.scopes.iter().enumerate() {
            let config = lantern_projection::Config {
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
            let projection = projection.behind(GateKeeper::new(&gate, number));
            running.spawn(projection.run(stop.clone()));
            statuses.push(status);
        }
        Filling {
            running,
            statuses,
            gate,
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

    /// Returns when the new tables are nearly as far as those in use.
    async fn until_caught_up(&self, filling: &Filling) -> Result<(), Ended> {
        let began = tokio::time::Instant::now();
        let mut at_begin = None;
        while let Some(why) = self.raise_to_checkpoints(filling).await? {
            self.held_up(&why);
            self.pause().await?;
        }
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return Err(Ended::Stopped),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
            self.raise_to_shown(filling);
            let statuses = filling.statuses.iter();
            let now: Vec<Status> = statuses.map(|status| status.borrow().clone()).collect();
            if let Some(failed) = now.iter().find(|status| status.state == ProjectionState::Failed) {
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
                .find(|status| {
                    status.state == ProjectionState::Retrying
                        || status.state == ProjectionState::WaitingForStream
                })
                .and_then(|status| status.last_error.clone());
            self.show(messages, left, rate, held_up);
            if self.is_near(filling, &now) {
                return Ok(());
            }
        }
    }

    /// Lets the projections read up to the checkpoints in use, as the database has them. Returns why that cannot be done
    /// now.
    async fn raise_to_checkpoints(&self, filling: &Filling) -> Result<Option<String>, Ended> {
        let plugin = self.version.plugin().manifest().name.as_str();
        for (number, scope) in self.scopes.iter().enumerate() {
            match self.inner.parts.store.attach(plugin, &scope.source).await {
                Ok(Some(live)) if live.origin == scope.origin => {
                    filling.gate.raise(number, live.checkpoint.sequence);
                }
                Ok(_) => {
                    return Err(Ended::Failed(format!(
                        "source {} has begun a new epoch meanwhile; rebuild again",
                        scope.source
                    )));
                }
                Err(CommitError::Closed) => return Err(Ended::Stopped),
                Err(error) => return Ok(Some(error.to_string())),
            }
        }
        Ok(None)
    }

    /// The same, as the live projections show them. One of another epoch is refused at the end.
    fn raise_to_shown(&self, filling: &Filling) {
        let plugin = self.version.plugin().manifest().name.as_str();
        let live = self.inner.parts.registry.snapshot();
        for (number, scope) in self.scopes.iter().enumerate() {
            let mut live = live.iter();
            if let Some(live) = live.find(|live| live.plugin == plugin && live.source == scope.source) {
                filling.gate.raise(number, live.checkpoint);
            }
        }
    }

    /// Whether the new tables are so near the ones in use that the live projections can wait for the rest.
    fn is_near(&self, filling: &Filling, now: &[Status]) -> bool {
        let near = if filling.gate.is_in_order() {
            NEAR / 10
        } else {
            NEAR
        };
        let near = self.options.request.rate.map_or(near, |rate| near.min(rate / 10));
        now.iter().enumerate().all(|(number, status)| {
            status.state == ProjectionState::Running
                && (filling.gate.is_through(number) || status.checkpoint + near >= filling.gate.until(number))
        })
    }

    fn show(&self, messages: u64, left: u64, rate: f64, held_up: Option<String>) {
        let plugin = self.version.plugin().manifest().name.as_str();
        self.inner.parts.metrics.rebuild_left(plugin, Some(left));
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

    /// Ends the live projections after the batch in hand, waits until the new tables are as far as the old, compares
    /// them, puts them in their place, and lets the projections go on behind them.
    async fn take_over(&self, filling: &mut Filling, stop: &CancellationToken) -> Result<Step, Ended> {
        let inner = self.inner;
        let plugin = self.version.plugin();
        let name = plugin.manifest().name.to_string();
        let mut fleet = inner.fleet.lock().await;
        if self.stop.is_cancelled() {
            return Err(Ended::Stopped);
        }
        let resting = fleet.rest(&name).await;
        let result = self.exchange(filling, stop).await;
        let done = matches!(result, Ok(Step::Done));
        if done {
            inner.rebuilds.lock().remove(&self.id);
        }
        let hold = match inner.installation(&name).await {
            Ok(installation) => installation.paused,
            Err(_) => None,
        };
        let version = if done {
            Some(Arc::clone(self.version))
        } else {
            resting
        };
        if let Some(version) = version {
            inner.run(&mut fleet, version, hold).await;
        }
        drop(fleet);
        if done {
            self.announce(plugin, &name);
        }
        result
    }

    /// The part of it while the live projections rest.
    async fn exchange(&self, filling: &mut Filling, stop: &CancellationToken) -> Result<Step, Ended> {
        if let Some(why) = self.raise_to_checkpoints(filling).await? {
            return Ok(Step::Again(why));
        }
        let reached = tokio::time::timeout(REACH_TIME, filling.gate.all_through()).await;
        stop.cancel();
        filling.end().await;
        if reached.is_err() {
            return Ok(Step::Again("the new tables are behind those in use".to_owned()));
        }
        let request = match self.verify_request().await {
            Ok(request) => request,
            Err(why) => return Ok(Step::Again(why)),
        };
        let store = &self.inner.parts.store;
        let manifest = Arc::clone(self.version.plugin().manifest());
        let mut verified = match store.verify_rebuild(manifest, request.clone()).await {
            Ok(verified) => verified,
            Err(error) => return Ok(Step::Again(error.to_string())),
        };
        if verified.lacks_carried {
            // A dead letter of a message that is not read again has become a row meanwhile.
            return Ok(Step::CarryOver);
        }
        self.judge(&mut verified)?;
        match store
            .finish_rebuild(adoption(self.version.plugin()), request, verified, self.mark())
            .await
        {
            Ok(true) => Ok(Step::Done),
            Ok(false) => Ok(Step::Again(
                "rows or dead letters have changed since the comparison".to_owned(),
            )),
            Err(AdoptError::Refused(reasons)) => Err(Ended::Failed(reasons.join("; "))),
            Err(error) => {
                tracing::warn!(rebuild = self.id.0, %error, "failed to finish the rebuild; will retry");
                Ok(Step::Again(error.to_string()))
            }
        }
    }

    /// Refuses the new tables where something is missing, or differs and was not accepted.
    fn judge(&self, verified: &mut Verification) -> Result<(), Ended> {
        let accepts = self.options.request.accept_differences;
        if verified.losses.is_empty() && (verified.differences.is_empty() || accepts) {
            verified.outcome.accepted = std::mem::take(&mut verified.differences);
            return Ok(());
        }
        let mut found = verified.losses.clone();
        found.extend(verified.differences.iter().cloned());
        let hint = match verified.losses.is_empty() {
            true => {
                "; the version and its messages are the same as before, and --accept-differences takes the new tables"
            }
            false => "",
        };
        Err(Ended::Failed(format!(
            "the new tables differ from those in use, which stay: {}{hint}",
            found.join("; ")
        )))
    }

    /// The inputs of the comparison. The messages of a version that reads other subjects cannot be held against the
    /// ledger; that all of those are still in the stream shows that none was missed.
    async fn verify_request(&self) -> Result<VerifyRequest, String> {
        let name = self.version.plugin().manifest().name.as_str();
        let histories = self.inner.parts.store.ledger_histories(name).await;
        let histories = histories.map_err(|error| error.to_string())?;
        let mut available = Vec::new();
        for scope in &self.scopes {
            let mut all = histories.iter();
            let history = all.find(|history| history.origin == scope.origin);
            let subjects = stream_of(self.version, &scope.source).map(|(_, subjects)| subjects);
            let others = history.filter(|history| {
                let mut again = history.ranges.iter().filter(|range| range.last > scope.after);
                again.any(|range| match (&range.subjects, subjects) {
                    (Some(then), Some(now)) => !same(then, now),
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

    fn announce(&self, plugin: &Plugin, name: &str) {
        self.inner.forgive(&format!("plugin {name}"));
        tracing::info!(plugin = name, rebuild = self.id.0, digest = %plugin.digest(), by = self.options.by, "rebuild finished");
    }

    /// The entry in the audit of the exchange of the tables.
    fn mark(&self) -> Option<AuditMark> {
        let plugin = self.version.plugin();
        let detail = format!(
            "rebuild {}, begun by {}, has taken over",
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
                    match self.inner.parts.store.abandon_consumer(abandoned).await {
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
struct Filling {
    running: JoinSet<()>,
    statuses: Vec<watch::Receiver<Status>>,
    gate: Arc<Gate>,
    /// They rest when nobody can give them orders any more.
    _orders: watch::Sender<Orders>,
}

impl Filling {
    async fn end(&mut self) {
        while let Some(ended) = self.running.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a projection of a rebuild ended badly");
            }
        }
    }
}

/// Whether the order of messages of different sources decides what the rows become: where writes find their row by a key.
fn order_matters(manifest: &Manifest) -> bool {
    let keyed = |number: usize| {
        manifest.tables.get(number).is_some_and(|table| {
            !table.primary_key.is_empty() || table.indexes.iter().any(|index| index.unique)
        })
    };
    let mut writes = manifest.writes.iter();
    writes.any(|write| keyed(write.table) || matches!(write.on_conflict, OnConflict::Update(_)))
}

/// Sequences that the new tables may be behind when the live projections are ended: some hundredths of a second.
const NEAR: u64 = 2_000;
/// How long the live projections wait for them.
const REACH_TIME: Duration = Duration::from_secs(5);
