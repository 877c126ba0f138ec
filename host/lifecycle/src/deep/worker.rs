//! The part of the deep check that runs on blocking threads: projects batches with the loaded versions, and compares the
//! rows with the database.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::super::adoption;
use super::DeepError;
use lantern_model::batch::{Delivery, Outcome, Rejection, RejectionClass};
use lantern_model::schema::Manifest;
use lantern_plugin::{Plugin, Projector};
use lantern_store::deep::{Compared, Comparer, DeadLetterState, Expected};
use lantern_store::scratch::Scratch;
use lantern_store::{Counts, Entry, OriginId};

/// How long one call into a plugin may take before the next call begins.
const CALL_BUDGET: Duration = Duration::from_millis(500);

/// Outcomes by sequence, each with the manifest of the version that gave it.
type Outcomes = BTreeMap<u64, (Outcome, Arc<Manifest>)>;

/// A loaded version.
pub(super) struct Loaded {
    pub(super) plugin: Arc<Plugin>,
    pub(super) projector: Projector,
}

/// The state that moves to blocking threads.
pub(super) struct Worker {
    pub(super) comparer: Comparer,
    pub(super) versions: BTreeMap<String, Loaded>,
    pub(super) found: Compared,
    /// The tables whose writes update rows, filled from the messages so far.
    pub(super) full: Option<FullHistory>,
}

/// A scratch database filled with the whole history.
pub(super) struct FullHistory {
    pub(super) scratch: Scratch,
    /// The version that wrote to it last.
    pub(super) digest: String,
}

/// The result of projecting a range again.
#[derive(Default)]
pub(super) struct RangeResult {
    pub(super) counts: Counts,
    /// Messages whose version cannot be loaded.
    pub(super) unknown: u64,
    /// Erased messages.
    pub(super) erased: u64,
    /// Whether the version declares a table that no longer exists, so that the ledger counts fewer rows.
    pub(super) has_dropped_table: bool,
    pub(super) rejected: Vec<String>,
}

impl Worker {
    /// Projects a batch, each message with the version that made its rows, and compares the rows.
    pub(super) fn compare_batch(
        &mut self,
        source: &str,
        origin: OriginId,
        digest: &str,
        span: (u64, u64),
        batch: Vec<Delivery>,
        dead_letters: &BTreeMap<u64, DeadLetterState>,
    ) -> Result<RangeResult, DeepError> {
        let (outcomes, unknown) = self.project_batch(source, digest, &batch, dead_letters)?;
        let mut result = RangeResult::default();
        result.counts.messages = batch.len() as u64;
        let present: BTreeSet<u64> = batch.iter().map(|delivery| delivery.sequence).collect();
        for (sequence, _) in dead_letters
            .iter()
            .filter(|(_, state)| **state == DeadLetterState::Erased)
        {
            result.erased += 1;
            if !present.contains(sequence) {
                result.counts.messages += 1;
                result.counts.dead += 1;
            }
        }
        result.unknown = unknown.len() as u64;
        let mut expected = Vec::new();
        for delivery in &batch {
            let sequence = delivery.sequence;
            match outcomes.get(&sequence) {
                Some((Outcome::Rows(rows), manifest)) if !rows.is_empty() => {
                    result.counts.projected += 1;
                    result.counts.rows += rows.len() as u64;
                    expected.push(Expected {
                        sequence,
                        published_ns: delivery.published_ns,
                        manifest: manifest.as_ref(),
                        rows,
                    });
                }
                Some((Outcome::Rows(_) | Outcome::Skip, _)) => result.counts.skipped += 1,
                Some((Outcome::Reject(rejection), _)) => {
                    result.counts.dead += 1;
                    result.rejected.push(format!(
                        "message {sequence} is not a dead letter, but its version rejects it: {}",
                        rejection.reason
                    ));
                }
                None => result.counts.dead += 1,
            }
        }
        let read = batch
            .iter()
            .map(|delivery| delivery.sequence)
            .filter(|sequence| !unknown.contains(sequence))
            .collect();
        self.comparer
            .compare(origin, span, &read, &expected, &mut self.found)?;
        drop(expected);
        self.fill_scratch(source, digest, batch, outcomes)?;
        Ok(result)
    }

    /// Projects the messages of a batch, each with its version. Returns the outcomes by sequence, and the sequences whose
    /// version is not loaded. Dead letters and erased messages have no outcome.
    fn project_batch(
        &mut self,
        source: &str,
        digest: &str,
        batch: &[Delivery],
        dead_letters: &BTreeMap<u64, DeadLetterState>,
    ) -> Result<(Outcomes, BTreeSet<u64>), DeepError> {
        let mut by_version: BTreeMap<&str, Vec<Delivery>> = BTreeMap::new();
        let mut unknown = BTreeSet::new();
        for delivery in batch {
            let version = match dead_letters.get(&delivery.sequence) {
                Some(DeadLetterState::Dead | DeadLetterState::Erased) => continue,
                Some(DeadLetterState::ResolvedBy(version)) => version.as_str(),
                None => digest,
            };
            if self.versions.contains_key(version) {
                by_version.entry(version).or_default().push(delivery.clone());
            } else {
                unknown.insert(delivery.sequence);
            }
        }
        let mut outcomes = BTreeMap::new();
        for (version, deliveries) in by_version {
            let made = self.project(version, source, &deliveries)?;
            let Some(loaded) = self.versions.get(version) else {
                continue;
            };
            for (delivery, outcome) in deliveries.iter().zip(made) {
                let manifest = Arc::clone(loaded.plugin.manifest());
                outcomes.insert(delivery.sequence, (outcome, manifest));
            }
        }
        Ok((outcomes, unknown))
    }

    fn project(
        &mut self,
        version: &str,
        source: &str,
        deliveries: &[Delivery],
    ) -> Result<Vec<Outcome>, DeepError> {
        let Some(loaded) = self.versions.get_mut(version) else {
            return Ok(Vec::new());
        };
        let no_source = || DeepError::Local(format!("version {version} reads no source {source}"));
        let (number, _) = loaded.plugin.manifest().source(source).ok_or_else(no_source)?;
        let mut outcomes = Vec::with_capacity(deliveries.len());
        while outcomes.len() < deliveries.len() {
            let projected = loaded
                .projector
                .project(number, &deliveries[outcomes.len()..], CALL_BUDGET);
            if let Some(reason) = projected.halted.filter(|_| projected.outcomes.is_empty()) {
                return Err(DeepError::Local(format!("version {version}: {reason}")));
            }
            outcomes.extend(projected.outcomes);
        }
        Ok(outcomes)
    }

    /// Writes the messages to the scratch database, if there is one.
    fn fill_scratch(
        &mut self,
        source: &str,
        digest: &str,
        batch: Vec<Delivery>,
        mut outcomes: Outcomes,
    ) -> Result<(), DeepError> {
        let Some(full) = &mut self.full else {
            return Ok(());
        };
        if full.digest != digest
            && let Some(loaded) = self.versions.get(digest)
        {
            full.scratch.switch(&adoption(&loaded.plugin))?;
            full.digest = digest.to_owned();
        }
        let dead = || Outcome::Reject(Rejection::new(RejectionClass::Invalid, "a dead letter"));
        let entries = batch.into_iter().map(|delivery| Entry {
            outcome: outcomes
                .remove(&delivery.sequence)
                .map_or_else(dead, |(outcome, _)| outcome),
            delivery,
        });
        full.scratch.apply(source, entries.collect())?;
        Ok(())
    }
}
