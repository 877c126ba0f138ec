//! History of projections: the last hour, one sample every ten seconds, in bounded memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use lantern_model::batch::Timestamp;
use lantern_model::status::Registry;

/// Interval of samples.
pub const INTERVAL: Duration = Duration::from_secs(10);

/// Samples per projection: one hour. A sample has about 40 bytes.
const SAMPLES_MAX: usize = 360;

/// State of a projection at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Time of the sample.
    pub at: Timestamp,
    /// Messages of the current epoch that produced rows.
    pub messages: u64,
    /// Rows written in the current epoch.
    pub rows: u64,
    /// Open dead letters.
    pub dead_letters: u64,
    /// Messages that the broker holds for the source, as last reported.
    pub lag: Option<u64>,
}

type Samples = BTreeMap<(String, String), VecDeque<Sample>>;

/// The samples. Cheap to clone.
#[derive(Clone, Default)]
pub struct History(Arc<Mutex<Samples>>);

impl History {
    /// Takes samples until `stop`.
    pub fn start(projections: Registry, stop: CancellationToken) -> Self {
        let history = Self::default();
        let sampled = history.clone();
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(INTERVAL);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    _ = ticks.tick() => sampled.sample(&projections, Timestamp::now()),
                }
            }
        });
        history
    }

    /// All samples by plugin and source, oldest first.
    pub fn all(&self) -> Vec<((String, String), Vec<Sample>)> {
        let samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let list = |(name, samples): (&(String, String), &VecDeque<Sample>)| {
            (name.clone(), samples.iter().copied().collect())
        };
        samples.iter().map(list).collect()
    }

    fn sample(&self, projections: &Registry, at: Timestamp) {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for status in projections.snapshot() {
            let of = samples.entry((status.plugin, status.source)).or_default();
            of.push_back(Sample {
                at,
                messages: status.messages,
                rows: status.rows,
                dead_letters: status.dead_letters,
                lag: status.lag,
            });
            if of.len() > SAMPLES_MAX {
                of.pop_front();
            }
        }
        // Drop projections that have been absent for an hour.
        let hour = i64::try_from(INTERVAL.as_micros()).unwrap_or(i64::MAX) * SAMPLES_MAX as i64;
        samples.retain(|_, samples| samples.back().is_some_and(|last| at.0 - last.at.0 <= hour));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_keeps_one_hour_and_drops_absent_projections() {
        let (history, registry) = (History::default(), Registry::default());
        let status = lantern_model::status::Status::starting("p", "1.0.0", "sha256:aa", "s", None);
        let (_sender, receiver) = tokio::sync::watch::channel(status);
        registry.add(receiver);
        for number in 0..500 {
            history.sample(&registry, Timestamp(number * 10_000_000));
        }
        let all = history.all();
        assert_eq!(all[0].1.len(), SAMPLES_MAX);
        assert_eq!(all[0].1[0].at, Timestamp(140 * 10_000_000));
        history.sample(&Registry::default(), Timestamp(500 * 10_000_000 + 3_600_000_000));
        assert!(history.all().is_empty());
    }
}
