//! What an outbox and its drain say about themselves. Counters live as long as the opened outbox does; what waits
//! and what is aside is counted in the directory each time, so it is true across processes and restarts.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::entry::Lane;

/// Subjects listed in [`Stats::blocked`]. The count beside the list is not limited; a person reads no more.
const BLOCKED_LISTED_MAX: usize = 64;

/// A picture of the outbox at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stats {
    /// Events that wait in the directory, those in flight included.
    pub waiting: u64,
    /// Events published by this process and not acknowledged yet.
    pub in_flight: u64,
    /// Events that this process published and saw acknowledged, duplicates included.
    pub published: u64,
    /// Of those, how many the broker already had: its answer was lost, or the producer used an id twice.
    pub duplicates: u64,
    /// Events whose first answer was lost and whose repetition, two minutes later or more, was stored as new.
    /// Two minutes is the duplicate window that a stream has unless told otherwise, so each may be there twice.
    pub late_repeats: u64,
    /// Files in `aside/`: not published, and never deleted by the outbox.
    pub aside: u64,
    /// Files that should be aside but could not be moved. They are skipped until the drain starts again.
    pub skipped: u64,
    /// Subjects that wait by themselves because the broker refuses them, at most 64 of them.
    pub blocked: Vec<BlockedSubject>,
    /// How many subjects are blocked in all.
    pub blocked_subjects: u64,
    /// What this process' drain does.
    pub drain: DrainState,
    /// The last thing that went wrong, however long ago.
    pub last_error: Option<LastError>,
}

/// A subject that the broker refuses for now. Other subjects pass it by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockedSubject {
    /// The subject.
    pub subject: String,
    /// Since when, by this machine's clock.
    pub since: SystemTime,
    /// How often its oldest event has been refused.
    pub attempts: u32,
    /// What the broker said the last time.
    pub reason: String,
}

/// Something that went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastError {
    /// When, by this machine's clock.
    pub at: SystemTime,
    /// What, in one line.
    pub message: String,
}

/// What the drain of this process does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DrainState {
    /// No drain runs in this process.
    #[default]
    Stopped,
    /// Another drain has the directory; this one waits until it ends.
    WaitingForOther,
    /// There is no connection to the broker.
    Disconnected,
    /// Connected.
    Connected,
}

/// The shared part that the drain writes and [`Stats`] is read from.
#[derive(Default)]
pub(crate) struct Status {
    pub(crate) in_flight: AtomicU64,
    pub(crate) published: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    pub(crate) late_repeats: AtomicU64,
    pub(crate) skipped: AtomicU64,
    said: Mutex<Said>,
}

#[derive(Default)]
struct Said {
    drain: DrainState,
    blocked: BTreeMap<Lane, BlockedSubject>,
    last_error: Option<LastError>,
}

impl Status {
    pub(crate) fn error(&self, message: String) {
        self.said().last_error = Some(LastError {
            at: SystemTime::now(),
            message,
        });
    }

    pub(crate) fn drain(&self, state: DrainState) {
        self.said().drain = state;
    }

    pub(crate) fn drain_state(&self) -> DrainState {
        self.said().drain
    }

    /// Records one more refusal of a lane, and says whether it is the first in a row.
    pub(crate) fn block(&self, lane: Lane, subject: &str, reason: String) -> bool {
        let mut said = self.said();
        let attempts = said.blocked.get(&lane).map_or(0, |blocked| blocked.attempts);
        let since = said
            .blocked
            .get(&lane)
            .map_or_else(SystemTime::now, |blocked| blocked.since);
        let subject = subject.to_owned();
        said.last_error = Some(LastError {
            at: SystemTime::now(),
            message: format!("{subject} is blocked: {reason}"),
        });
        said.blocked.insert(
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
        self.said().blocked.remove(&lane)
    }

    pub(crate) fn unblock_all(&self) {
        self.said().blocked.clear();
    }

    pub(crate) fn read(&self, waiting: u64, aside: u64) -> Stats {
        let said = self.said();
        Stats {
            waiting,
            aside,
            in_flight: self.in_flight.load(Ordering::Relaxed),
            published: self.published.load(Ordering::Relaxed),
            duplicates: self.duplicates.load(Ordering::Relaxed),
            late_repeats: self.late_repeats.load(Ordering::Relaxed),
            skipped: self.skipped.load(Ordering::Relaxed),
            blocked: said.blocked.values().take(BLOCKED_LISTED_MAX).cloned().collect(),
            blocked_subjects: said.blocked.len() as u64,
            drain: said.drain,
            last_error: said.last_error.clone(),
        }
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        // What is said stays readable after a panic elsewhere.
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        // Some libraries repeat the cause in their own text.
        if !line.contains(&said) {
            line = format!("{line}: {said}");
        }
        cause = error.source();
    }
    line
}
