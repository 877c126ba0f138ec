//! A version on trial: it and the one at work project the same messages, each into a scratch database, and the report
//! says in what they differ. The real tables, checkpoints, consumers and dead letters are not touched, and nothing is
//! acknowledged. What the report shows can be promoted by activating the version.

mod feed;
mod sides;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use utoipa::ToSchema;

use super::{Actor, Inner, Lifecycle, LifecycleError, adoption};
use lantern_model::schema::{Difference, Effect, Origin};
use lantern_plugin::Digest;
use lantern_projection::Version;
use lantern_store::ScratchError;
use lantern_store::comparison::TableComparison;

pub use sides::SideReport;

use feed::{Fed, Lane, Remark, lanes, read_all};
use sides::{Side, Sides, Stuck, Taken};

/// The most messages of each source that a canary reads back.
pub const CANARY_MESSAGES_MAX: u64 = 100_000;
/// The longest that a canary listens.
pub const CANARY_LIVE_MAX: Duration = Duration::from_secs(15 * 60);
/// How long a canary may work on what it reads back; what is not done by then is left out, and the report says so.
const WORK_MAX: Duration = Duration::from_secs(120);

/// What a canary is to read. At least one of the two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CanaryRequest {
    /// The last so many messages of each stream, 1 to [`CANARY_MESSAGES_MAX`].
    pub messages: Option<u64>,
    /// What comes for so long, up to [`CANARY_LIVE_MAX`]; after the last messages, where both are asked for.
    pub live: Option<Duration>,
}

/// What a canary has seen.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct CanaryReport {
    /// The plugin.
    pub plugin: String,
    /// What the active version did; none when none is active.
    pub old: Option<SideReport>,
    /// What the candidate did.
    pub new: SideReport,
    /// Table by table.
    pub tables: Vec<TableComparison>,
    /// What was read.
    pub sources: Vec<CanarySource>,
    /// In what the descriptions of the two differ.
    pub differences: Vec<Difference>,
    /// What it costs to activate the candidate.
    pub effect: Effect,
    /// Whether it can only be activated by a rebuild.
    pub needs_rebuild: bool,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// Why not all that was asked for was read and compared; empty when it was.
    pub partial: Vec<String>,
}

/// What was read of one source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct CanarySource {
    /// Its name.
    pub source: String,
    /// The stream; none for core NATS.
    pub stream: Option<String>,
    /// Whether the active version reads it in this way.
    pub old: bool,
    /// Whether the candidate does.
    pub new: bool,
    /// Messages that were taken through both.
    pub messages: u64,
    /// The first sequence; for core NATS messages are counted from 1.
    pub first_sequence: Option<u64>,
    /// The last one.
    pub last_sequence: Option<u64>,
    /// What is worth knowing of it.
    pub note: Option<String>,
}

impl CanaryRequest {
    fn check(&self) -> Result<(), LifecycleError> {
        let mut problems = Vec::new();
        if self.messages.is_none() && self.live.is_none() {
            problems.push("say how many messages, or how long to listen".to_owned());
        }
        if self
            .messages
            .is_some_and(|messages| !(1..=CANARY_MESSAGES_MAX).contains(&messages))
        {
            problems.push(format!("messages are 1 to {CANARY_MESSAGES_MAX}"));
        }
        if self
            .live
            .is_some_and(|live| live.is_zero() || live > CANARY_LIVE_MAX)
        {
            let seconds = CANARY_LIVE_MAX.as_secs();
            problems.push(format!("a canary listens for up to {seconds} s"));
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(LifecycleError::BadSettings(problems))
        }
    }
}

impl From<ScratchError> for LifecycleError {
    fn from(error: ScratchError) -> Self {
        match error {
            ScratchError::Tables(reasons) => Self::Tables(reasons),
            other => Self::Unavailable(format!("{:#}", anyhow::Error::new(other))),
        }
    }
}

impl Lifecycle {
    /// Tries a version that is installed beside the active one, on the same messages. Nothing changes by it. When this
    /// future is dropped, the canary ends.
    ///
    /// # Errors
    /// See [`LifecycleError`]: [`LifecycleError::BadSettings`] for a request out of bounds,
    /// [`LifecycleError::Conflict`] while another canary of the plugin runs, [`LifecycleError::Unavailable`] when the
    /// host stops.
    pub async fn canary(
        &self,
        plugin: &str,
        candidate: Digest,
        request: CanaryRequest,
        by: &Actor,
    ) -> Result<CanaryReport, LifecycleError> {
        request.check()?;
        let inner = Arc::clone(&self.inner);
        let (plugin, by) = (plugin.to_owned(), by.clone());
        let act = tokio::spawn(async move {
            let _turn = inner.turn("canary", &plugin)?;
            let digest = inner.choose(&plugin, Some(candidate)).await?;
            let new = inner.version(&plugin, digest).await?;
            let old = inner.fleet.lock().await.version(&plugin);
            tracing::info!(plugin, %digest, by = by.0, "a canary begins");
            let stop = inner.stop.child_token();
            // Whoever drops this stops the work on the thread that blocks as well.
            let _ends = stop.clone().drop_guard();
            tokio::select! {
                () = inner.stop.cancelled() => Err(LifecycleError::Unavailable("the host stops".to_owned())),
                report = inner.try_out(old, new, request, stop) => report,
            }
        });
        AbortOnDropHandle::new(act).await.map_err(panicked)?
    }
}

impl Inner {
    async fn try_out(
        &self,
        old: Option<Arc<Version>>,
        new: Arc<Version>,
        request: CanaryRequest,
        stop: CancellationToken,
    ) -> Result<CanaryReport, LifecycleError> {
        let began = Instant::now();
        let manifest = Arc::clone(new.plugin().manifest());
        let before = old
            .as_ref()
            .map(|version| Arc::clone(version.plugin().manifest()));
        let lanes = lanes(before.as_deref(), &manifest);
        let mut trial = Trial {
            sides: Some(self.sides(old, new, &lanes).await?),
            sources: lanes.iter().map(source_of).collect(),
            lanes,
            partial: Vec::new(),
            stop,
        };
        trial.run(&self.parts.broker, &request, began + WORK_MAX).await?;
        let differences = before
            .map(|before| before.differences(&manifest))
            .unwrap_or_default();
        let effect = Effect::of(&differences);
        let (old, new, tables) = trial.reports().await?;
        Ok(CanaryReport {
            plugin: manifest.name.to_string(),
            old,
            new,
            tables,
            sources: trial.sources,
            differences,
            effect,
            needs_rebuild: effect == Effect::NeedsRebuild,
            took_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            partial: trial.partial,
        })
    }

    async fn sides(
        &self,
        old: Option<Arc<Version>>,
        new: Arc<Version>,
        lanes: &[Lane],
    ) -> Result<Sides, LifecycleError> {
        let mut sources: Vec<String> = lanes.iter().map(|lane| lane.source.clone()).collect();
        sources.sort();
        sources.dedup();
        let old = match old {
            Some(old) => Some(self.side(old, &sources).await?),
            None => None,
        };
        let new = self.side(new, &sources).await?;
        Ok(Sides { old, new })
    }

    async fn side(&self, version: Arc<Version>, sources: &[String]) -> Result<Side, LifecycleError> {
        let adoption = adoption(version.plugin());
        let scratch = self.parts.store.scratch(adoption, sources.to_vec()).await?;
        Ok(Side::new(version, scratch))
    }
}

/// A canary under way.
struct Trial {
    /// Away while they work.
    sides: Option<Sides>,
    lanes: Vec<Lane>,
    sources: Vec<CanarySource>,
    partial: Vec<String>,
    stop: CancellationToken,
}

impl Trial {
    /// Takes what is read through both versions, until all is read or the time is over.
    async fn run(
        &mut self,
        broker: &lantern_broker::Broker,
        request: &CanaryRequest,
        work_until: Instant,
    ) -> Result<(), LifecycleError> {
        let until = work_until + request.live.unwrap_or_default();
        let (readers, mut fed) = read_all(broker, &self.lanes, request);
        // Also in the middle of a call into a slow plugin.
        let stop = self.stop.clone();
        let timer = tokio::spawn(async move {
            tokio::time::sleep_until(until).await;
            stop.cancel();
        });
        let timer = AbortOnDropHandle::new(timer);
        while let Ok(next) = tokio::time::timeout_at(until, fed.recv()).await {
            match next {
                Some(Fed::Batch(lane, deliveries)) => {
                    if !self.take(lane, deliveries).await? {
                        break;
                    }
                }
                Some(Fed::End(lane, remark)) => self.note(lane, remark),
                None => {
                    drop(readers);
                    return Ok(());
                }
            }
        }
        drop((timer, readers));
        if self.partial.is_empty() {
            let seconds = WORK_MAX.as_secs();
            self.partial
                .push(format!("not all was done within {seconds} s of work"));
        }
        Ok(())
    }

    /// Has a thread that may block take a batch. Returns whether it makes sense to go on.
    async fn take(
        &mut self,
        number: usize,
        deliveries: Vec<lantern_model::batch::Delivery>,
    ) -> Result<bool, LifecycleError> {
        let Some(mut sides) = self.sides.take() else {
            return Ok(false);
        };
        let lane = self.lanes[number].clone();
        let stop = self.stop.clone();
        let work = tokio::task::spawn_blocking(move || {
            let taken = sides.take(&lane, deliveries, &stop);
            (sides, taken)
        });
        let (sides, taken) = work.await.map_err(panicked)?;
        self.sides = Some(sides);
        match taken {
            Ok(Taken { sequences, took, all }) => {
                let source = &mut self.sources[number];
                source.messages += sequences.len() as u64;
                source.first_sequence = source.first_sequence.or(sequences.first().copied());
                source.last_sequence = sequences.last().copied().or(source.last_sequence);
                // As long again for the projections, which share the processors.
                tokio::time::sleep(took).await;
                Ok(all)
            }
            Err(Stuck(reason)) => {
                self.partial.push(reason);
                Ok(false)
            }
        }
    }

    fn note(&mut self, lane: usize, remark: Option<Remark>) {
        if let Some(Remark { words, partial }) = remark {
            let source = &mut self.sources[lane];
            if partial {
                self.partial.push(format!("source {}: {words}", source.source));
            }
            source.note = Some(words);
        }
    }

    async fn reports(
        &mut self,
    ) -> Result<(Option<SideReport>, SideReport, Vec<TableComparison>), LifecycleError> {
        let Some(sides) = self.sides.take() else {
            return Err(LifecycleError::Unavailable("the canary was lost".to_owned()));
        };
        let work = tokio::task::spawn_blocking(move || sides.reports());
        Ok(work.await.map_err(panicked)??)
    }
}

fn panicked(error: tokio::task::JoinError) -> LifecycleError {
    LifecycleError::Unavailable(format!("the host panicked during the canary: {error}"))
}

fn source_of(lane: &Lane) -> CanarySource {
    let stream = match &lane.origin {
        Origin::JetStream { stream, .. } => Some(stream.clone()),
        Origin::Core { .. } => None,
    };
    CanarySource {
        source: lane.source.clone(),
        stream,
        old: lane.old.is_some(),
        new: lane.new.is_some(),
        messages: 0,
        first_sequence: None,
        last_sequence: None,
        note: None,
    }
}
