//! Keeps a trouble that repeats from flooding the log: said at once, then counted, then said again with the count.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Different messages that are remembered at once. A place that says more than these in turn says too much
/// anyway; the one that was quiet longest is forgotten.
const REMEMBERED_MAX: usize = 8;

/// One place in the program that may have to say the same again and again.
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
    said: Mutex<Vec<Said>>,
}

#[derive(Debug)]
struct Said {
    message: String,
    at: Instant,
    held_back: u64,
}

impl Repeats {
    /// Lets the same message through once in `every`.
    pub fn new(every: Duration) -> Self {
        Self {
            every,
            said: Mutex::new(Vec::new()),
        }
    }

    /// Some when `message` is to be logged now, with how often it was held back since it was logged last.
    pub fn note(&self, message: &str) -> Option<u64> {
        self.note_at(message, Instant::now())
    }

    /// The trouble is over: the next message is a new one. Answers how many were held back in all.
    pub fn settle(&self) -> u64 {
        let said = std::mem::take(&mut *self.said.lock().unwrap_or_else(PoisonError::into_inner));
        said.iter().map(|said| said.held_back).sum()
    }

    fn note_at(&self, message: &str, now: Instant) -> Option<u64> {
        let mut all = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(said) = all.iter_mut().find(|said| said.message == message) {
            if now.duration_since(said.at) < self.every {
                said.held_back += 1;
                return None;
            }
            said.at = now;
            return Some(std::mem::take(&mut said.held_back));
        }
        if all.len() >= REMEMBERED_MAX
            && let Some(oldest) = (0..all.len()).min_by_key(|index| all[*index].at)
        {
            all.swap_remove(oldest);
        }
        all.push(Said {
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
    fn the_same_is_said_once_in_a_while_with_a_count() {
        let repeats = Repeats::new(Duration::from_secs(30));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(repeats.note_at("a", at(0)), Some(0));
        for second in 1..30 {
            assert_eq!(repeats.note_at("a", at(second)), None);
            // Another message that comes between does not make the first one new.
            assert_eq!(repeats.note_at("b", at(second)).is_some(), second == 1);
        }
        assert_eq!(repeats.note_at("a", at(30)), Some(29));
        assert_eq!(repeats.note_at("a", at(31)), None);
        assert_eq!(repeats.settle(), 1 + 28);
        assert_eq!(repeats.note_at("a", at(32)), Some(0));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let repeats = Repeats::new(Duration::from_secs(30));
        for number in 0..1_000 {
            assert_eq!(repeats.note(&number.to_string()), Some(0));
        }
        assert_eq!(repeats.said.lock().unwrap().len(), REMEMBERED_MAX);
    }
}
