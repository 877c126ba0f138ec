//! Statistics of an outbox and its drain. Counters last as long as the open outbox; pending and rejected files are counted in
//! the directory, so these numbers include other processes and earlier runs.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::entry::Lane;

/// Maximum length of [`Stats::blocked`]. Its count is not limited.
const BLOCKED_LISTED_MAX: usize = 64;

/// A snapshot of the outbox.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// Pending events in the directory, including those in flight.
    pub waiting: u64,
    /// Events published by this process and not yet acknowledged.
    pub in_flight: u64,
    /// Events that this process published with an acknowledgement, including duplicates.
    pub published: u64,
    /// Of those, events that the broker already had, because an acknowledgement was lost or the producer reused an id.
    pub duplicates: u64,
    /// Events whose first acknowledgement was lost and whose repetition after at least two minutes was stored as new. Two
    /// minutes is the default duplicate window, so each of them may be stored twice.
    pub late_repeats: u64,
    /// Files in `aside/`, which are not published and never deleted by the outbox.
    pub aside: u64,
    /// Files that could not be moved to `aside/`. They are skipped until the drain restarts.
    pub skipped: u64,
    /// Subjects that the broker rejects, at most 64.
    pub blocked: Vec<BlockedSubject>,
    /// The number of all blocked subjects.
    pub blocked_subjects: u64,
    /// The state of this process' drain.
    pub drain: DrainState,
    /// The most recent error.
    pub last_error: Option<LastError>,
}

/// A subject that the broker rejects for now. Other subjects are not affected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockedSubject {
    /// The subject.
    pub subject: String,
    /// Time of the first rejection.
    pub since: SystemTime,
    /// The number of rejections of its oldest event.
    pub attempts: u32,
    /// The last error of the broker.
    pub reason: String,
}

/// An error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastError {
    /// The time of the error.
    pub at: SystemTime,
    /// The message, in one line.
    pub message: String,
}

/// The state of the drain of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DrainState {
    /// No drain runs in this process.
    #[default]
    Stopped,
    /// Another drain holds the lock; this one waits.
    WaitingForOther,
    /// Not connected to the broker.
    Disconnected,
    /// Connected.
    Connected,
}

/// Shared state that the drain updates and [`Stats`] is read from.
#[derive(Default)]
pub(crate) struct Status {
    pub(crate) in_flight: AtomicU64,
    pub(crate) published: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    pub(crate) late_repeats: AtomicU64,
    pub(crate) skipped: AtomicU64,
    state: Mutex<SharedState>,
}

#[derive(Default)]
struct SharedState {
    drain: DrainState,
    blocked: BTreeMap<Lane, BlockedSubject>,
    last_error: Option<LastError>,
}

impl Status {
    pub(crate) fn set_error(&self, message: String) {
        self.state().last_error = Some(LastError {
            at: SystemTime::now(),
            message,
        });
    }

    pub(crate) fn set_drain_state(&self, state: DrainState) {
        self.state().drain = state;
    }

    pub(crate) fn drain_state(&self) -> DrainState {
        self.state().drain
    }

    /// Records a rejection of a lane. Returns whether it is the first in a row.
    pub(crate) fn block(&self, lane: Lane, subject: &str, reason: String) -> bool {
        let mut state = self.state();
        let attempts = state.blocked.get(&lane).map_or(0, |blocked| blocked.attempts);
        let since = state
            .blocked
            .get(&lane)
            .map_or_else(SystemTime::now, |blocked| blocked.since);
        let subject = subject.to_owned();
        state.last_error = Some(LastError {
            at: SystemTime::now(),
            message: format!("{subject} is blocked: {reason}"),
        });
        state.blocked.insert(
            lane,
            BlockedSubject {
                subject,
                since,
                attempts: attempts.saturating_add(1),
                reason,
            },
        );
        attempts == 0
    }

    pub(crate) fn unblock(&self, lane: Lane) -> Option<BlockedSubject> {
        self.state().blocked.remove(&lane)
    }

    pub(crate) fn unblock_all(&self) {
        self.state().blocked.clear();
    }

    pub(crate) fn snapshot(&self, waiting: u64, aside: u64) -> Stats {
        let state = self.state();
        Stats {
            waiting,
            aside,
            in_flight: self.in_flight.load(Ordering::Relaxed),
            published: self.published.load(Ordering::Relaxed),
            duplicates: self.duplicates.load(Ordering::Relaxed),
            late_repeats: self.late_repeats.load(Ordering::Relaxed),
            skipped: self.skipped.load(Ordering::Relaxed),
            blocked: state.blocked.values().take(BLOCKED_LISTED_MAX).cloned().collect(),
            blocked_subjects: state.blocked.len() as u64,
            drain: state.drain,
            last_error: state.last_error.clone(),
        }
    }

    fn state(&self) -> MutexGuard<'_, SharedState> {
        // The state stays valid after a panic in another thread.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error with its causes in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Some libraries include the cause in their message.
        if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
        cause = error.source();
    }
    line
}
