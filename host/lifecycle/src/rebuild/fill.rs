//! The projections of a rebuild: they fill the new tables up to the live checkpoints, and report their progress.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{RebuildProgress, RebuildTask, Stopped};
use lantern_model::schema::{Manifest, OnConflict};
use lantern_model::status::{ProjectionState, Status};
use lantern_projection::{self, DesiredState, Gate, GateKeeper, Placement, Projection, Purpose, Rebuild};
use lantern_store::ReplayRange;

/// Messages that a rebuild pulls at once. It stores them in batches whose size adapts to the live load.
const MESSAGES_MAX: usize = 2_048;
/// How often the task reads the progress.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);
/// The pause after a temporary error.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How many sequences the new tables may lag when the live projections are suspended: some hundredths of a second.
const SWAP_LAG_MAX: u64 = 2_000;

/// The projections into the new tables.
pub(super) struct FillTasks {
    running: JoinSet<()>,
    statuses: Vec<watch::Receiver<Status>>,
    pub(super) gate: Arc<Gate>,
    /// The projections end when this sender is dropped.
    _desired: watch::Sender<DesiredState>,
}

impl FillTasks {
    pub(super) async fn end(&mut self) {
        while let Some(ended) = self.running.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a projection of a rebuild panicked");
            }
        }
    }
}

impl RebuildTask<'_> {
    /// Starts projections of all replay ranges into the new tables.
    pub(super) fn spawn(&self, stop: &CancellationToken) -> FillTasks {
        let parts = &self.inner.parts;
        let name = self.version.plugin().manifest().name.as_str();
        let desired = watch::Sender::new(DesiredState {
            version: Arc::clone(self.version),
            settings: Arc::new(self.inner.settings_of(name)),
            paused: None,
            placement: Placement::ONLY_HOST,
        });
        let threads = self.inner.background.handle();
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
            running.spawn_on(projection.run(stop.clone()), &threads);
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
    pub(super) async fn until_caught_up(&self, fill: &FillTasks) -> Result<(), Stopped> {
        let began = tokio::time::Instant::now();
        let mut at_begin = None;
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return Err(Stopped::Cancelled),
                () = tokio::time::sleep(PROGRESS_EVERY) => {}
            }
            if let Some(why) = self.raise_to_checkpoints(fill).await? {
                self.blocked_by(&why);
                self.wait_before_retry().await?;
                continue;
            }
            let statuses = fill.statuses.iter();
            let now: Vec<Status> = statuses.map(|status| status.borrow().clone()).collect();
            if let Some((number, reason)) = fill.gate.failure() {
                let source = self.scopes.get(number).map_or("", |scope| scope.source.as_str());
                return Err(Stopped::Failed(format!("source {source}: {reason}")));
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
            if self.is_nearly_caught_up(fill) {
                return Ok(());
            }
        }
    }

    /// Lets the projections read up to the stored live checkpoints. Returns why that is impossible for now.
    pub(super) async fn raise_to_checkpoints(&self, fill: &FillTasks) -> Result<Option<String>, Stopped> {
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

    /// Whether the new tables are so close to the live ones that the live projections can wait for the rest.
    fn is_nearly_caught_up(&self, fill: &FillTasks) -> bool {
        let near = if fill.gate.is_in_order() {
            SWAP_LAG_MAX / 10
        } else {
            SWAP_LAG_MAX
        };
        let near = self.options.request.rate.map_or(near, |rate| near.min(rate / 10));
        (0..self.scopes.len()).all(|number| fill.gate.is_nearly_through(number, near))
    }

    fn report_progress(&self, messages: u64, left: u64, rate: f64, blocked_by: Option<String>) {
        let plugin = self.version.plugin().manifest().name.as_str();
        self.inner.parts.metrics.rebuild_left(plugin, Some(left));
        if let Some(running) = self.inner.rebuilds.lock().get_mut(&self.id) {
            running.progress = RebuildProgress {
                messages,
                messages_left: left,
                rate,
                eta_seconds: (rate > 0.0).then(|| left as f64 / rate),
            };
            running.blocked_by = blocked_by;
        }
    }

    pub(super) fn blocked_by(&self, reason: &str) {
        if let Some(running) = self.inner.rebuilds.lock().get_mut(&self.id) {
            running.blocked_by = Some(reason.to_owned());
        }
    }

    pub(super) async fn wait_before_retry(&self) -> Result<(), Stopped> {
        tokio::select! {
            () = self.stop.cancelled() => Err(Stopped::Cancelled),
            () = tokio::time::sleep(RETRY_AFTER) => Ok(()),
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
