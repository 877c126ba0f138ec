//! Admits a limited number of events per interval, and counts the others.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// An event that may happen `most` times within `span`, for the whole process.
pub struct Throttle {
    most: u32,
    span: Duration,
    state: Mutex<ThrottleWindow>,
}

struct ThrottleWindow {
    began: Instant,
    passed: u32,
    held_back: u64,
}

impl Throttle {
    /// Admits `most` events within `span`.
    pub fn new(most: u32, span: Duration) -> Self {
        let state = ThrottleWindow {
            began: Instant::now(),
            passed: 0,
            held_back: 0,
        };
        Self {
            most,
            span,
            state: Mutex::new(state),
        }
    }

    /// Records an event. `Ok`: it is admitted, with the number of events suppressed since the last admitted one. `Err`:
    /// it is suppressed, and the duration until the next one is admitted.
    pub fn note(&self) -> Result<u64, Duration> {
        self.note_at(Instant::now())
    }

    fn note_at(&self, now: Instant) -> Result<u64, Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let age = now.saturating_duration_since(state.began);
        if age >= self.span {
            (state.began, state.passed) = (now, 0);
        } else if state.passed >= self.most {
            state.held_back += 1;
            return Err(self.span - age);
        }
        state.passed += 1;
        Ok(std::mem::take(&mut state.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limited_number_is_admitted_and_the_others_are_counted() {
        let throttle = Throttle::new(2, Duration::from_secs(60));
        let start = Instant::now();
        let at = |seconds| throttle.note_at(start + Duration::from_secs(seconds));
        assert_eq!((at(0), at(1)), (Ok(0), Ok(0)));
        for second in 2..59 {
            assert!(at(second).unwrap_err() <= Duration::from_secs(60 - second + 1));
        }
        assert_eq!((at(61), at(62)), (Ok(57), Ok(0)));
        assert!(at(63).is_err());
    }
}
