//! One rebuild at work: rows that are kept are copied, projections fill the new tables, and when they are as far as those
//! in use, the live projections rest for the one transaction that exchanges them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::super::{Actor, Inner, adoption};
use super::{Options, Progress};
use crate::projection::{self, Orders, Projection, Purpose, Rebuild, Version, consumer_name};
use crate::schema::Origin;
use crate::status::{State, Status};
use crate::store::{AdoptError, RebuildId, Scope, Store};

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
            let result = match self.until_caught_up(&filling.statuses).await {
                Ok(()) => self.take_over(&mut filling, &stop).await,
                Err(ended) => Err(ended),
            };
            // Also on the way out: nothing of a rebuild is written when it has ended.
            stop.cancel();
            filling.end().await;
            if result? {
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
            Err(AdoptError::Refused(reasons)) => (resting.clone(), Err(Ended::Failed(reasons.join("; ")))),
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
            let detail = format!(
                "rebuild {}, begun by {}, has taken over",
                self.id.0, self.options.by
            );
            let by = Actor::part("rebuild");
            inner
                .audit(&by, "rebuild.finish", &name, Some(plugin.digest()), detail)
                .await;
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
