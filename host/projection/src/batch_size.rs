//! The size of the batches of a rebuild. A live batch waits for at most one of them, so their duration counts, not their
//! number of messages.

use std::time::Duration;

use lantern_store::Committed;

/// Most messages in one batch.
const MESSAGES_MAX: usize = 2_048;
/// Fewest messages in one batch: enough to make its fixed cost small.
const MESSAGES_MIN: usize = 64;
/// How long the writer may work on one batch while live batches arrive.
const TARGET: Duration = Duration::from_micros(1_500);

/// Adapts to the measured duration while live batches arrive. Without live batches, batches are as large as possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchSize(usize);

impl BatchSize {
    /// A small batch, until the first measurement.
    pub(super) fn new() -> Self {
        Self(MESSAGES_MIN * 4)
    }

    pub(super) fn messages(self) -> usize {
        self.0
    }

    pub(super) fn observe(&mut self, committed: &Committed) {
        let messages = committed.spent.len();
        self.adapt(messages, committed.applied_in, committed.is_shared);
    }

    fn adapt(&mut self, messages: usize, took: Duration, is_shared: bool) {
        if !is_shared {
            self.0 = MESSAGES_MAX;
            return;
        }
        // A batch can consist of a gap only.
        if messages == 0 {
            return;
        }
        let fitting = messages as f64 * TARGET.as_secs_f64() / took.as_secs_f64().max(1e-6);
        // A small remainder of a pulled batch says little, unless it was slow.
        if messages * 2 < self.0 && fitting >= self.0 as f64 {
            return;
        }
        let largest = (self.0 * 2).min(MESSAGES_MAX);
        self.0 = (fitting as usize).clamp(MESSAGES_MIN, largest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapted(size: usize, messages: usize, took_us: u64, is_shared: bool) -> usize {
        let mut size = BatchSize(size);
        size.adapt(messages, Duration::from_micros(took_us), is_shared);
        size.messages()
    }

    #[test]
    fn a_batch_takes_about_the_target_while_live_batches_arrive() {
        for (size, messages, took_us, expected) in [
            (2_048, 2_048, 12_000, 256),
            (512, 512, 1_500, 512),
            (512, 512, 3_000, 256),
            (512, 512, 500, 1_024),
            (512, 512, 0, 1_024),
            (2_048, 2_048, 500, 2_048),
            (256, 256, 1_000_000, 64),
            // Small remainders.
            (512, 10, 100, 150),
            (512, 10, 10, 512),
            (512, 10, 3_000, 64),
            (512, 0, 100, 512),
        ] {
            assert_eq!(
                adapted(size, messages, took_us, true),
                expected,
                "{size} {messages} {took_us}"
            );
        }
    }

    #[test]
    fn batches_are_large_when_nothing_else_is_committed() {
        assert_eq!(adapted(64, 64, 50_000, false), MESSAGES_MAX);
    }
}
