//! The values by which a projection decides what to do next. The status shows some of them to people; no decision reads the
//! status.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

#[derive(Default)]
pub(super) struct Progress {
    checkpoint: AtomicU64,
    open_dead_letters: AtomicU64,
    is_stream_missing: AtomicBool,
    is_clustered: AtomicBool,
}

impl Progress {
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

    pub(super) fn set_clustered(&self) {
        self.is_clustered.store(true, Ordering::Relaxed);
    }
}
