//! Limits repeated log messages: the first is logged, the following are counted, and the next one is logged with the
//! count.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Number of different messages that are remembered. A place with more alternating messages logs too much anyway; the
/// oldest is forgotten.
const REMEMBERED_MAX: usize = 8;

/// One place in the program that may repeat a message.
///
/// ```
/// # use std::time::Duration;
/// let repeats = lantern_telemetry::Repeats::new(Duration::from_secs(30));
/// if let Some(held_back) = repeats.note("connection refused") {
///     tracing::warn!(held_back, "broker: connection refused");
/// }
/// # assert_eq!(repeats.note("connection refused"), None);
/// ```
#[derive(Debug)]
pub struct Repeats {
    every: Duration,
    entries: Mutex<Vec<Entry>>,
}

#[derive(Debug)]
struct Entry {
    message: String,
    at: Instant,
    held_back: u64,
}

impl Repeats {
    /// Admits the same message once per `every`.
    pub fn new(every: Duration) -> Self {
        Self {
            every,
            entries: Mutex::new(Vec::new()),
        }
    }

    /// `Some` when `message` should be logged now, with the number of suppressed repetitions since it was last logged.
    pub fn note(&self, message: &str) -> Option<u64> {
        self.note_at(message, Instant::now())
    }

    /// Ends the series: the next message counts as new. Returns the total number of suppressed repetitions.
    pub fn settle(&self) -> u64 {
        let entries = std::mem::take(&mut *self.entries.lock().unwrap_or_else(PoisonError::into_inner));
        entries.iter().map(|entry| entry.held_back).sum()
    }

    fn note_at(&self, message: &str, now: Instant) -> Option<u64> {
        let mut all = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = all.iter_mut().find(|entry| entry.message == message) {
            if now.duration_since(entry.at) < self.every {
                entry.held_back += 1;
                return None;
            }
            entry.at = now;
            return Some(std::mem::take(&mut entry.held_back));
        }
        if all.len() >= REMEMBERED_MAX
            && let Some(oldest) = (0..all.len()).min_by_key(|index| all[*index].at)
        {
            all.swap_remove(oldest);
        }
        all.push(Entry {
            message: message.to_owned(),
            at: now,
            held_back: 0,
        });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_message_is_logged_with_a_count() {
        let repeats = Repeats::new(Duration::from_secs(30));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(repeats.note_at("a", at(0)), Some(0));
        for second in 1..30 {
            assert_eq!(repeats.note_at("a", at(second)), None);
            // Another message in between does not make the first one new.
            assert_eq!(repeats.note_at("b", at(second)).is_some(), second == 1);
        }
        assert_eq!(repeats.note_at("a", at(30)), Some(29));
        assert_eq!(repeats.note_at("a", at(31)), None);
        assert_eq!(repeats.settle(), 1 + 28);
        assert_eq!(repeats.note_at("a", at(32)), Some(0));
    }

    #[test]
    fn the_number_of_remembered_messages_is_bounded() {
        let repeats = Repeats::new(Duration::from_secs(30));
        for number in 0..1_000 {
            assert_eq!(repeats.note(&number.to_string()), Some(0));
        }
        assert_eq!(repeats.entries.lock().unwrap().len(), REMEMBERED_MAX);
    }
}
