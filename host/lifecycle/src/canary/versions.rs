//! The two versions of a canary: they project the same messages, each into its own scratch database. The calls block.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::feed::TrialSource;
use lantern_model::batch::{Delivery, Outcome};
use lantern_model::results::canary::CanaryVersion;
use lantern_plugin::Projector;
use lantern_projection::LoadedVersion;
use lantern_store::comparison::{TableComparison, compare};
use lantern_store::scratch::{Scratch, ScratchError};
use lantern_store::{Counts, Entry};

/// How long one call into a plugin may take before the canary checks whether to stop.
const CALL_BUDGET: Duration = Duration::from_millis(100);

/// A version in a canary.
pub(super) struct VersionTrial {
    version: Arc<LoadedVersion>,
    projector: Projector,
    scratch: Scratch,
    busy: Duration,
    faults: u64,
}

/// Both versions, or only the candidate.
pub(super) struct TrialVersions {
    pub(super) baseline: Option<VersionTrial>,
    pub(super) candidate: VersionTrial,
}

/// The result of a batch.
pub(super) struct BatchDone {
    /// The sequences that both versions projected.
    pub(super) sequences: Vec<u64>,
    pub(super) took: Duration,
    /// Whether the whole batch was projected; otherwise the canary was stopped.
    pub(super) all: bool,
}

/// Why the canary cannot project more messages.
pub(super) struct TrialHalted(pub(super) String);

impl From<ScratchError> for TrialHalted {
    fn from(error: ScratchError) -> Self {
        Self(format!("{:#}", anyhow::Error::new(error)))
    }
}

impl VersionTrial {
    pub(super) fn new(version: Arc<LoadedVersion>, scratch: Scratch) -> Self {
        Self {
            projector: version.projector(),
            version,
            scratch,
            busy: Duration::ZERO,
            faults: 0,
        }
    }

    /// Projects the messages; only the first ones if the canary is stopped.
    fn project(
        &mut self,
        source: usize,
        deliveries: &[Delivery],
        stop: &CancellationToken,
    ) -> Result<Vec<Outcome>, TrialHalted> {
        let mut outcomes = Vec::with_capacity(deliveries.len());
        while outcomes.len() < deliveries.len() && !stop.is_cancelled() {
            let rest = &deliveries[outcomes.len()..];
            let projected = self.projector.project(source, rest, CALL_BUDGET);
            self.busy += projected.busy;
            self.faults += projected.faults.len() as u64;
            let none = projected.outcomes.is_empty();
            outcomes.extend(projected.outcomes);
            if let Some(reason) = projected.halted.filter(|_| none) {
                let version = &self.version.plugin().manifest().version;
                return Err(TrialHalted(format!("version {version}: {reason}")));
            }
        }
        Ok(outcomes)
    }

    fn write(
        &mut self,
        source: &str,
        deliveries: Vec<Delivery>,
        outcomes: Vec<Outcome>,
    ) -> Result<(), TrialHalted> {
        let entries = deliveries
            .into_iter()
            .zip(outcomes)
            .map(|(delivery, outcome)| Entry { delivery, outcome });
        self.scratch.apply(source, entries.collect())?;
        Ok(())
    }

    fn report(&self) -> Result<CanaryVersion, ScratchError> {
        let plugin = self.version.plugin();
        let Counts {
            messages,
            projected,
            skipped,
            dead,
            rows,
            ..
        } = self.scratch.counts();
        #[allow(clippy::cast_precision_loss, reason = "shown to people, and far below 2^53")]
        let per_message = self.busy.as_secs_f64() * 1e6 / messages.max(1) as f64;
        Ok(CanaryVersion {
            version: plugin.manifest().version.to_string(),
            digest: plugin.digest().to_string(),
            messages,
            projected,
            skipped,
            rejected: dead,
            rows,
            rejects: self.scratch.rejects()?,
            faults: self.faults,
            decode_ms: self.busy.as_secs_f64() * 1e3,
            decode_us_per_message: per_message,
            memory_peak_bytes: self.projector.memory_peak_bytes() as u64,
        })
    }
}

impl TrialVersions {
    /// Projects messages of a source with both versions. If the canary is stopped, both have projected the same
    /// messages.
    pub(super) fn take(
        &mut self,
        source: &TrialSource,
        mut deliveries: Vec<Delivery>,
        stop: &CancellationToken,
    ) -> Result<BatchDone, TrialHalted> {
        let began = Instant::now();
        let wanted = deliveries.len();
        let before = match (&mut self.baseline, source.baseline) {
            (Some(baseline), Some(source)) => Some(baseline.project(source, &deliveries, stop)?),
            _ => None,
        };
        let after = match source.candidate {
            Some(source) => Some(self.candidate.project(source, &deliveries, stop)?),
            None => None,
        };
        let decided = |outcomes: &Option<Vec<Outcome>>| outcomes.as_ref().map_or(wanted, Vec::len);
        deliveries.truncate(decided(&before).min(decided(&after)));
        let sequences: Vec<u64> = deliveries.iter().map(|delivery| delivery.sequence).collect();
        if let (Some(baseline), Some(outcomes)) = (&mut self.baseline, before) {
            baseline.write(&source.source, deliveries.clone(), outcomes)?;
        }
        if let Some(outcomes) = after {
            self.candidate.write(&source.source, deliveries, outcomes)?;
        }
        Ok(BatchDone {
            all: sequences.len() == wanted,
            sequences,
            took: began.elapsed(),
        })
    }

    /// The reports of both versions, and the comparison of their tables.
    pub(super) fn reports(
        &self,
    ) -> Result<(Option<CanaryVersion>, CanaryVersion, Vec<TableComparison>), ScratchError> {
        let baseline = self.baseline.as_ref().map(VersionTrial::report).transpose()?;
        let tables = compare(
            self.baseline.as_ref().map(|trial| &trial.scratch),
            &self.candidate.scratch,
        )?;
        Ok((baseline, self.candidate.report()?, tables))
    }
}
