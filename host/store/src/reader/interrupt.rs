//! The condition on which a read ends before its result is complete.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Ends the read in progress on a connection. SQLite checks it between steps, and the functions of `text` check it while
/// they work.
#[derive(Debug, Default)]
pub(super) struct Interrupt {
    limit: Mutex<Option<Limit>>,
    /// Becomes true while the pool closes its connections.
    releasing: Arc<AtomicBool>,
}

#[derive(Debug)]
pub(super) struct Limit {
    /// None for snapshots without a limit, which end when the pool is released.
    pub(super) deadline: Option<Instant>,
    /// Becomes true when the caller of the read is gone.
    pub(super) is_gone: Arc<AtomicBool>,
}

impl Interrupt {
    pub(super) fn new(releasing: Arc<AtomicBool>) -> Self {
        Self {
            limit: Mutex::default(),
            releasing,
        }
    }

    pub(super) fn set(&self, limit: Option<Limit>) {
        *self.limit.lock().unwrap_or_else(PoisonError::into_inner) = limit;
    }

    /// Whether the read has to end now.
    pub(super) fn is_due(&self) -> bool {
        let limit = self.limit.lock().unwrap_or_else(PoisonError::into_inner);
        limit.as_ref().is_some_and(|limit| {
            let is_over = match limit.deadline {
                Some(deadline) => Instant::now() >= deadline,
                None => self.releasing.load(Ordering::Relaxed),
            };
            is_over || limit.is_gone.load(Ordering::Relaxed)
        })
    }
}
