//! The two versions of a canary at work: the same messages through both, each into its own scratch database. It
//! blocks, so it runs on a thread that may.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::feed::Lane;
use lantern_model::batch::{Delivery, Outcome};
use lantern_plugin::Projector;
use lantern_projection::Version;
use lantern_store::comparison::{TableComparison, compare};
use lantern_store::scratch::{Rejects, Scratch, ScratchError};
use lantern_store::{Counts, Entry};

/// How long one call into a plugin may go on before it is looked whether to stop.
const CALL_BUDGET: Duration = Duration::from_millis(100);

/// What one version did with the messages.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = CanarySide)]
pub struct SideReport {
    /// The version that it says it is.
    pub version: String,
    /// `sha256:` and 64 hex digits.
    pub digest: String,
    /// Messages that it was given.
    pub messages: u64,
    /// Those that gave rows.
    pub projected: u64,
    /// Those that gave nothing on purpose.
    pub skipped: u64,
    /// Those that were rejected: by the plugin, the host or the database.
    pub rejected: u64,
    /// Rows that it answered with.
    pub rows: u64,
    /// The rejected ones by class, the most frequent first, with examples.
    pub rejects: Vec<Rejects>,
    /// Calls into the plugin that went wrong: traps, timeouts, answers that could not be read.
    pub faults: u64,
    /// Time in the plugin, in milliseconds.
    pub decode_ms: f64,
    /// The same for one message, in microseconds.
    pub decode_us_per_message: f64,
    /// The most linear memory that it had, in bytes.
    pub memory_peak_bytes: usize,
}

/// One version at work.
pub(super) struct Side {
    version: Arc<Version>,
    projector: Projector,
    scratch: Scratch,
    busy: Duration,
    faults: u64,
}

/// Both, or the candidate alone.
pub(super) struct Sides {
    pub(super) old: Option<Side>,
    pub(super) new: Side,
}

/// What became of a batch.
pub(super) struct Taken {
    /// The messages that both have taken.
    pub(super) sequences: Vec<u64>,
    pub(super) took: Duration,
    /// Whether that is all of them; otherwise it was time to stop.
    pub(super) all: bool,
}

/// Why no more messages can be taken, in words.
pub(super) struct Stuck(pub(super) String);

impl From<ScratchError> for Stuck {
    fn from(error: ScratchError) -> Self {
        Self(format!("{:#}", anyhow::Error::new(error)))
    }
}

impl Side {
    pub(super) fn new(version: Arc<Version>, scratch: Scratch) -> Self {
        Self {
            projector: version.projector(),
            version,
            scratch,
            busy: Duration::ZERO,
            faults: 0,
        }
    }

    /// What becomes of the messages; of the first ones only when it is time to stop.
    fn project(
        &mut self,
        source: usize,
        deliveries: &[Delivery],
        stop: &CancellationToken,
    ) -> Result<Vec<Outcome>, Stuck> {
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
                return Err(Stuck(format!("version {version}: {reason}")));
            }
        }
        Ok(outcomes)
    }

    fn write(
        &mut self,
        source: &str,
        deliveries: Vec<Delivery>,
        outcomes: Vec<Outcome>,
    ) -> Result<(), Stuck> {
        let entries = deliveries
            .into_iter()
            .zip(outcomes)
            .map(|(delivery, outcome)| Entry { delivery, outcome });
        self.scratch.apply(source, entries.collect())?;
        Ok(())
    }

    fn report(&self) -> Result<SideReport, ScratchError> {
        let plugin = self.version.plugin();
        let Counts {
            messages,
            projected,
            skipped,
            dead,
            rows,
            ..
        } = self.scratch.counts();
        #[allow(clippy::cast_precision_loss, reason = "for people, and far below 2^53")]
        let per_message = self.busy.as_secs_f64() * 1e6 / messages.max(1) as f64;
        Ok(SideReport {
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
            memory_peak_bytes: self.projector.memory_peak_bytes(),
        })
    }
}

impl Sides {
    /// Takes messages of a lane through both versions. When it is time to stop, both have taken the same ones.
    pub(super) fn take(
        &mut self,
        lane: &Lane,
        mut deliveries: Vec<Delivery>,
        stop: &CancellationToken,
    ) -> Result<Taken, Stuck> {
        let began = Instant::now();
        let wanted = deliveries.len();
        let before = match (&mut self.old, lane.old) {
            (Some(old), Some(source)) => Some(old.project(source, &deliveries, stop)?),
            _ => None,
        };
        let after = match lane.new {
            Some(source) => Some(self.new.project(source, &deliveries, stop)?),
            None => None,
        };
        let decided = |outcomes: &Option<Vec<Outcome>>| outcomes.as_ref().map_or(wanted, Vec::len);
        deliveries.truncate(decided(&before).min(decided(&after)));
        let sequences: Vec<u64> = deliveries.iter().map(|delivery| delivery.sequence).collect();
        if let (Some(old), Some(outcomes)) = (&mut self.old, before) {
            old.write(&lane.source, deliveries.clone(), outcomes)?;
        }
        if let Some(outcomes) = after {
            self.new.write(&lane.source, deliveries, outcomes)?;
        }
        Ok(Taken {
            all: sequences.len() == wanted,
            sequences,
            took: began.elapsed(),
        })
    }

    /// What each did, and in what their tables differ.
    pub(super) fn reports(
        &self,
    ) -> Result<(Option<SideReport>, SideReport, Vec<TableComparison>), ScratchError> {
        let old = self.old.as_ref().map(Side::report).transpose()?;
        let tables = compare(self.old.as_ref().map(|old| &old.scratch), &self.new.scratch)?;
        Ok((old, self.new.report()?, tables))
    }
}
