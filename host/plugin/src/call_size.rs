//! Determines the size and the time limit of calls, learned from the plugin's previous calls.

use std::time::{Duration, Instant};

use lantern_model::batch::Delivery;

/// Maximum messages per call. Measured: beyond some hundreds the fixed cost of a call is negligible.
const MESSAGES_MAX: usize = 1_024;
/// Maximum payload per call. It is copied into the guest, which has tens of megabytes.
const PAYLOAD_BYTES_MAX: usize = 4 << 20;
/// Messages in the first call, when nothing is known. Few, because they may all be slow; a fast plugin reaches the full
/// size six calls later.
const MESSAGES_INITIAL: usize = 16;
/// Target duration of a call. A slow plugin is called with few messages, so that its batches still end in time.
const CALL_TARGET: Duration = Duration::from_millis(50);
/// Minimum time for a call of several messages. Exceeding it only leads to smaller calls, so it can be short.
const GROUP_TIME_MIN: Duration = Duration::from_millis(50);
/// How many times slower than usual a call of several messages may be before it is interrupted.
const PATIENCE: u32 = 8;

/// The learned size and speed of calls.
pub(super) struct CallSize {
    messages: usize,
    per_message: Option<Duration>,
}

impl Default for CallSize {
    fn default() -> Self {
        Self {
            messages: MESSAGES_INITIAL,
            per_message: None,
        }
    }
}

impl CallSize {
    /// The number of `messages` for the next call, with `left` as the remaining time; at least one, if there is any.
    pub fn next_call(&self, messages: &[Delivery], left: Duration) -> usize {
        let mut most = self.messages.min(messages.len());
        if let Some(per_message) = self.per_message {
            let fitting = CALL_TARGET.min(left).as_nanos() / per_message.as_nanos().max(1);
            most = most.min(usize::try_from(fitting).unwrap_or(usize::MAX).max(1));
        }
        let mut bytes = 0_usize;
        let fitting = messages[..most].iter().take_while(|message| {
            bytes = bytes.saturating_add(message.size_bytes());
            bytes <= PAYLOAD_BYTES_MAX
        });
        fitting.count().max(1).min(messages.len())
    }

    /// Time limit of a call. A single message gets all of `message_time`, and so does a larger call while nothing is
    /// known; a `search` for a bad message does not wait that long at each step.
    pub fn time_for(&self, messages: usize, message_time: Duration, search: bool) -> Duration {
        match self.expected(messages) {
            _ if messages <= 1 => message_time,
            Some(expected) => (expected * PATIENCE).max(GROUP_TIME_MIN).min(message_time),
            None if search => GROUP_TIME_MIN.min(message_time),
            None => message_time,
        }
    }

    /// Whether so many messages are expected to complete within `message_time`.
    pub fn fits_time(&self, messages: usize, message_time: Duration) -> bool {
        self.expected(messages)
            .is_none_or(|expected| expected < message_time)
    }

    /// Runs a call and learns from its duration if it succeeded.
    pub fn measure<T, E>(&mut self, messages: usize, call: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let began = Instant::now();
        let result = call();
        if result.is_ok() {
            let now = began.elapsed() / u32::try_from(messages.max(1)).unwrap_or(u32::MAX);
            self.per_message = Some(self.per_message.map_or(now, |before| (before * 3 + now) / 4));
        }
        result
    }

    /// Increases the size of the next call.
    pub fn grow(&mut self) {
        self.messages = (self.messages * 2).min(MESSAGES_MAX);
    }

    /// Decreases the size of the next call: where bad messages are frequent, small groups find them with less work.
    pub fn shrink(&mut self) {
        self.messages = (self.messages / 2).max(1);
    }

    fn expected(&self, messages: usize) -> Option<Duration> {
        self.per_message
            .map(|per_message| per_message * u32::try_from(messages).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(count: usize, bytes: usize) -> Vec<Delivery> {
        let payload = vec![0; bytes].into();
        let one = Delivery {
            subject: String::new(),
            sequence: 1,
            published_ns: 0,
            headers: Vec::new(),
            payload,
        };
        vec![one; count]
    }

    fn known(per_message: Duration) -> CallSize {
        CallSize {
            messages: MESSAGES_MAX,
            per_message: Some(per_message),
        }
    }

    const LONG: Duration = Duration::from_secs(60);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn calls_grow_while_they_succeed() {
        let many = messages(5_000, 1);
        let mut size = CallSize::default();
        assert_eq!(size.next_call(&many, LONG), MESSAGES_INITIAL);
        for _ in 0..10 {
            size.grow();
        }
        assert_eq!(size.next_call(&many, LONG), MESSAGES_MAX);
        for _ in 0..20 {
            size.shrink();
        }
        assert_eq!(size.next_call(&many, LONG), 1);
        assert_eq!(size.next_call(&[], LONG), 0);
    }

    #[test]
    fn payload_and_time_bound_a_call() {
        let size = known(Duration::from_micros(1));
        assert_eq!(size.next_call(&messages(20, 1 << 20), LONG), 4);
        assert_eq!(size.next_call(&messages(3, 8 << 20), LONG), 1);
        assert_eq!(size.next_call(&messages(100, 1), Duration::from_micros(10)), 10);
        assert_eq!(size.next_call(&messages(100, 1), Duration::ZERO), 1);
        assert_eq!(
            known(Duration::from_millis(10)).next_call(&messages(100, 1), LONG),
            5
        );
        assert_eq!(known(SECOND).next_call(&messages(100, 1), LONG), 1);
        assert_eq!(
            known(Duration::ZERO).next_call(&messages(2_000, 1), LONG),
            MESSAGES_MAX
        );
    }

    #[test]
    fn a_single_message_gets_its_full_time_and_a_group_the_expected_time() {
        let fast = known(Duration::from_micros(1));
        assert_eq!(fast.time_for(1, SECOND, true), SECOND);
        assert_eq!(fast.time_for(1_000, SECOND, false), GROUP_TIME_MIN);
        assert_eq!(
            known(Duration::from_millis(1)).time_for(50, SECOND, false),
            Duration::from_millis(400)
        );
        assert_eq!(known(SECOND).time_for(50, SECOND, false), SECOND);
        assert_eq!(CallSize::default().time_for(64, SECOND, false), SECOND);
        assert_eq!(CallSize::default().time_for(64, SECOND, true), GROUP_TIME_MIN);
        assert!(!known(Duration::from_millis(900)).fits_time(2, SECOND));
        assert!(known(Duration::from_millis(900)).fits_time(1, SECOND));
    }
}
