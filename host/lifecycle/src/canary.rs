//! Trials of a version (the candidate) next to the active one (the baseline). Both project the same messages, each into
//! a scratch database, and the report lists the differences. A canary touches no live table, checkpoint, consumer or
//! dead letter, and acknowledges nothing. To promote the candidate, activate it.

mod feed;
mod versions;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::{Actor, Inner, Lifecycle, LifecycleError, adoption};
use lantern_model::results::canary::{CanaryReport, CanarySource, CanaryVersion, TableComparison};
use lantern_model::schema::Effect;
use lantern_plugin::Digest;
use lantern_projection::LoadedVersion;
use lantern_store::ScratchError;

use feed::{ReadEvent, ReadNote, TrialSource, read_all, trial_sources};
use versions::{BatchDone, TrialHalted, TrialVersions, VersionTrial};

/// Maximum number of stored messages that a canary reads from each source.
pub const CANARY_MESSAGES_MAX: u64 = 100_000;
/// Maximum duration of a live canary.
pub const CANARY_LIVE_MAX: Duration = Duration::from_secs(15 * 60);
/// Time limit for projecting stored messages. The report lists what the canary left out.
const WORK_MAX: Duration = Duration::from_secs(120);

/// The input of a canary. At least one of the two fields is required.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CanaryRequest {
    /// Number of most recent messages to read from each stream, 1 to [`CANARY_MESSAGES_MAX`].
    pub messages: Option<u64>,
    /// How long to read new messages, up to [`CANARY_LIVE_MAX`]; starts after the stored messages if both are set.
    pub live: Option<Duration>,
}

impl CanaryRequest {
    fn check(&self) -> Result<(), LifecycleError> {
        let mut problems = Vec::new();
        if self.messages.is_none() && self.live.is_none() {
            problems.push("give a number of messages, a duration, or both".to_owned());
        }
        if self
            .messages
            .is_some_and(|messages| !(1..=CANARY_MESSAGES_MAX).contains(&messages))
        {
            problems.push(format!("messages must be 1 to {CANARY_MESSAGES_MAX}"));
        }
        if self
            .live
            .is_some_and(|live| live.is_zero() || live > CANARY_LIVE_MAX)
        {
            let seconds = CANARY_LIVE_MAX.as_secs();
            problems.push(format!("live must be 1 to {seconds} s"));
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
    /// Runs an installed version next to the active one on the same messages, without any effect. Dropping this future
    /// ends the canary.
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
            let _permit = inner.permit("canary", &plugin)?;
            let digest = inner.resolve_digest(&plugin, Some(candidate)).await?;
            let candidate_version = inner.load_version(&plugin, digest).await?;
            let baseline = inner.running.version(&plugin);
            tracing::info!(plugin, %digest, %by, "canary started");
            let stop = inner.stop.child_token();
            // Dropping this future also stops the work on the blocking thread.
            let _ends = stop.clone().drop_guard();
            tokio::select! {
                () = inner.stop.cancelled() => Err(LifecycleError::Unavailable("the host is stopping".to_owned())),
                report = inner.run_canary(baseline, candidate_version, request, stop) => report,
            }
        });
        AbortOnDropHandle::new(act).await.map_err(panicked)?
    }
}

impl Inner {
    async fn run_canary(
        &self,
        baseline: Option<Arc<LoadedVersion>>,
        candidate: Arc<LoadedVersion>,
        request: CanaryRequest,
        stop: CancellationToken,
    ) -> Result<CanaryReport, LifecycleError> {
        let began = Instant::now();
        let manifest = Arc::clone(candidate.plugin().manifest());
        let before = baseline
            .as_ref()
            .map(|version| Arc::clone(version.plugin().manifest()));
        let trial_sources = trial_sources(before.as_deref(), &manifest);
        let mut trial = Trial {
            versions: Some(self.versions(baseline, candidate, &trial_sources).await?),
            sources: trial_sources.iter().map(empty_source).collect(),
            trial_sources,
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

    async fn versions(
        &self,
        baseline: Option<Arc<LoadedVersion>>,
        candidate: Arc<LoadedVersion>,
        trial_sources: &[TrialSource],
    ) -> Result<TrialVersions, LifecycleError> {
        let mut sources: Vec<String> = trial_sources.iter().map(|source| source.source.clone()).collect();
        sources.sort();
        sources.dedup();
        let baseline = match baseline {
            Some(baseline) => Some(self.start_trial(baseline, &sources).await?),
            None => None,
        };
        let candidate = self.start_trial(candidate, &sources).await?;
        Ok(TrialVersions { baseline, candidate })
    }

    async fn start_trial(
        &self,
        version: Arc<LoadedVersion>,
        sources: &[String],
    ) -> Result<VersionTrial, LifecycleError> {
        let adoption = adoption(version.plugin());
        let scratch = self.parts.store.scratch(adoption, sources.to_vec()).await?;
        Ok(VersionTrial::new(version, scratch))
    }
}

/// A running canary.
struct Trial {
    /// `None` while they work on a blocking thread.
    versions: Option<TrialVersions>,
    trial_sources: Vec<TrialSource>,
    sources: Vec<CanarySource>,
    partial: Vec<String>,
    stop: CancellationToken,
}

impl Trial {
    /// Projects the messages with both versions until all are read or the time is over.
    async fn run(
        &mut self,
        broker: &lantern_broker::Broker,
        request: &CanaryRequest,
        work_until: Instant,
    ) -> Result<(), LifecycleError> {
        let until = work_until + request.live.unwrap_or_default();
        let (readers, mut events) = read_all(broker, &self.trial_sources, request);
        // Stops the work even during a call into a slow plugin.
        let stop = self.stop.clone();
        let timer = tokio::spawn(async move {
            tokio::time::sleep_until(until).await;
            stop.cancel();
        });
        let timer = AbortOnDropHandle::new(timer);
        while let Ok(next) = tokio::time::timeout_at(until, events.recv()).await {
            match next {
                Some(ReadEvent::Batch(source, deliveries)) => {
                    if !self.take(source, deliveries).await? {
                        break;
                    }
                }
                Some(ReadEvent::End(source, note)) => self.note(source, note),
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
                .push(format!("the work did not finish within {seconds} s"));
        }
        Ok(())
    }

    /// Projects a batch on a blocking thread. Returns whether to continue.
    async fn take(
        &mut self,
        number: usize,
        deliveries: Vec<lantern_model::batch::Delivery>,
    ) -> Result<bool, LifecycleError> {
        let Some(mut versions) = self.versions.take() else {
            return Ok(false);
        };
        let source = self.trial_sources[number].clone();
        let stop = self.stop.clone();
        let work = tokio::task::spawn_blocking(move || {
            let taken = versions.take(&source, deliveries, &stop);
            (versions, taken)
        });
        let (versions, taken) = work.await.map_err(panicked)?;
        self.versions = Some(versions);
        match taken {
            Ok(BatchDone { sequences, took, all }) => {
                let source = &mut self.sources[number];
                source.messages += sequences.len() as u64;
                source.first_sequence = source.first_sequence.or(sequences.first().copied());
                source.last_sequence = sequences.last().copied().or(source.last_sequence);
                // Leave the projections, which share the processors, as much time as the canary used.
                tokio::time::sleep(took).await;
                Ok(all)
            }
            Err(TrialHalted(reason)) => {
                self.partial.push(reason);
                Ok(false)
            }
        }
    }

    fn note(&mut self, source: usize, note: Option<ReadNote>) {
        if let Some(ReadNote { text, partial }) = note {
            let source = &mut self.sources[source];
            if partial {
                self.partial.push(format!("source {}: {text}", source.source));
            }
            source.note = Some(text);
        }
    }

    async fn reports(
        &mut self,
    ) -> Result<(Option<CanaryVersion>, CanaryVersion, Vec<TableComparison>), LifecycleError> {
        let Some(versions) = self.versions.take() else {
            return Err(LifecycleError::Unavailable("the canary was lost".to_owned()));
        };
        let work = tokio::task::spawn_blocking(move || versions.reports());
        Ok(work.await.map_err(panicked)??)
    }
}

fn panicked(error: tokio::task::JoinError) -> LifecycleError {
    LifecycleError::Unavailable(format!("the host panicked during the canary: {error}"))
}

fn empty_source(source: &TrialSource) -> CanarySource {
    CanarySource {
        source: source.source.clone(),
        stream: source.origin.stream().map(str::to_owned),
        old: source.baseline.is_some(),
        new: source.candidate.is_some(),
        messages: 0,
        first_sequence: None,
        last_sequence: None,
        note: None,
    }
}
