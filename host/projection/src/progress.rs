//! The values by which a projection decides what to do next. The status shows some of them to people; no decision reads the
//! status.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// No survey found waiting messages.
const NOTHING_WAITED: u64 = u64::MAX;

pub(super) struct Progress {
    checkpoint: AtomicU64,
    /// The checkpoint at the last survey that found waiting messages.
    surveyed: AtomicU64,
    open_dead_letters: AtomicU64,
    is_stream_missing: AtomicBool,
    is_clustered: AtomicBool,
    wants_replacement: AtomicBool,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            checkpoint: AtomicU64::new(0),
            surveyed: AtomicU64::new(NOTHING_WAITED),
            open_dead_letters: AtomicU64::new(0),
            is_stream_missing: AtomicBool::new(false),
            is_clustered: AtomicBool::new(false),
            wants_replacement: AtomicBool::new(false),
        }
    }
}

impl Progress {
    /// Records whether a survey found waiting messages. Returns whether nothing was committed since an earlier survey
    /// that found some.
    pub(super) fn is_stalled(&self, messages_wait: bool) -> bool {
        let checkpoint = self.checkpoint();
        let now = if messages_wait { checkpoint } else { NOTHING_WAITED };
        let before = self.surveyed.swap(now, Ordering::Relaxed);
        messages_wait && before == checkpoint
    }

    /// The last committed sequence.
    pub(super) fn checkpoint(&self) -> u64 {
        self.checkpoint.load(Ordering::Relaxed)
    }

    pub(super) fn set_checkpoint(&self, sequence: u64) {
        self.checkpoint.store(sequence, Ordering::Relaxed);
    }

    /// The number of open dead letters of the source.
    pub(super) fn open_dead_letters(&self) -> u64 {
        self.open_dead_letters.load(Ordering::Relaxed)
    }

    pub(super) fn set_open_dead_letters(&self, open: u64) {
        self.open_dead_letters.store(open, Ordering::Relaxed);
    }

    pub(super) fn add_open_dead_letters(&self, added: u64) {
        self.open_dead_letters.fetch_add(added, Ordering::Relaxed);
    }

    /// Whether the last session ended because the stream does not exist.
    pub(super) fn is_stream_missing(&self) -> bool {
        self.is_stream_missing.load(Ordering::Relaxed)
    }

    pub(super) fn set_stream_missing(&self, is_missing: bool) {
        self.is_stream_missing.store(is_missing, Ordering::Relaxed);
    }

    /// Whether the stream was seen on a cluster.
    pub(super) fn is_clustered(&self) -> bool {
        self.is_clustered.load(Ordering::Relaxed)
    }

    /// Makes the next session replace its consumer.
    pub(super) fn request_replacement(&self) {
        self.wants_replacement.store(true, Ordering::Relaxed);
    }

    /// Whether the session has to replace its consumer.
    pub(super) fn wants_replacement(&self) -> bool {
        self.wants_replacement.load(Ordering::Relaxed)
    }

    /// The consumer was replaced.
    pub(super) fn set_replaced(&self) {
        self.wants_replacement.store(false, Ordering::Relaxed);
    }

    pub(super) fn set_clustered(&self) {
        self.is_clustered.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_surveys_with_waiting_messages_and_no_commit_between_them_are_a_stall() {
        let progress = Progress::default();
        assert!(!progress.is_stalled(true), "the first one");
        assert!(progress.is_stalled(true));
        progress.set_checkpoint(7);
        assert!(!progress.is_stalled(true), "something was committed");
        assert!(progress.is_stalled(true));
        assert!(!progress.is_stalled(false), "nothing waits");
        assert!(!progress.is_stalled(true), "they have just arrived");
    }
}
