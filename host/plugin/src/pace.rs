//! How many messages a call brings and how long it may take: learnt from how the plugin has done so far.

use std::time::{Duration, Instant};

use lantern_model::batch::Delivery;

/// Most messages in a call. Measured: beyond some hundreds a call's own cost has vanished.
const MESSAGES_MAX: usize = 1_024;
/// Most payload in a call. It is copied into the guest, which has tens of megabytes.
const PAYLOAD_BYTES_MAX: usize = 4 << 20;
/// Messages in the first call, when nothing is known. Few, since they may all be slow; a quick plugin is at full size
/// six calls later.
const MESSAGES_AT_FIRST: usize = 16;
/// How long a call should take. A slow plugin is called with few messages, so that its batches still end in time.
const CALL_TARGET: Duration = Duration::from_millis(50);
/// Least time for a call of many. It is no verdict, only a reason to try fewer; so it can be short.
const GROUP_TIME_MIN: Duration = Duration::from_millis(50);
/// How much slower than usual a call of many may be before it is given up.
const PATIENCE: u32 = 8;

/// The state of what was learnt.
pub(super) struct Pace {
    messages: usize,
    per_message: Option<Duration>,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            messages: MESSAGES_AT_FIRST,
            per_message: None,
        }
    }
}

impl Pace {
    /// How many of `messages` the next call should bring, when `left` is the time that is left. At least one, if any.
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

    /// Time for a call. A message alone has all of `message_time`, and so has a call of many while nothing is known;
    /// a `search` for a guilty message does not wait that long for each step.
    pub fn time_for(&self, messages: usize, message_time: Duration, search: bool) -> Duration {
        match self.expected(messages) {
            _ if messages <= 1 => message_time,
            Some(expected) => (expected * PATIENCE).max(GROUP_TIME_MIN).min(message_time),
            None if search => GROUP_TIME_MIN.min(message_time),
            None => message_time,
        }
    }

    /// Whether so many messages can be expected to end within `message_time`.
    pub fn has_a_chance(&self, messages: usize, message_time: Duration) -> bool {
        self.expected(messages)
            .is_none_or(|expected| expected < message_time)
    }

    /// Runs a call and learns from how long it took, if it went well.
    pub fn measure<T, E>(&mut self, messages: usize, call: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let began = Instant::now();
        let result = call();
        if result.is_ok() {
            let now = began.elapsed() / u32::try_from(messages.max(1)).unwrap_or(u32::MAX);
            self.per_message = Some(self.per_message.map_or(now, |before| (before * 3 + now) / 4));
        }
        result
    }

    /// The next call may bring more.
    pub fn went_well(&mut self) {
        self.messages = (self.messages * 2).min(MESSAGES_MAX);
    }

    /// The next call brings fewer: where guilty messages are frequent, small groups find them with less work.
    pub fn went_wrong(&mut self) {
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

    fn known(per_message: Duration) -> Pace {
        Pace {
            messages: MESSAGES_MAX,
            per_message: Some(per_message),
        }
    }

    const LONG: Duration = Duration::from_secs(60);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn calls_grow_while_all_is_well() {
        let many = messages(5_000, 1);
        let mut pace = Pace::default();
        assert_eq!(pace.next_call(&many, LONG), MESSAGES_AT_FIRST);
        for _ in 0..10 {
            pace.went_well();
        }
        assert_eq!(pace.next_call(&many, LONG), MESSAGES_MAX);
        for _ in 0..20 {
            pace.went_wrong();
        }
        assert_eq!(pace.next_call(&many, LONG), 1);
        assert_eq!(pace.next_call(&[], LONG), 0);
    }

    #[test]
    fn payload_and_time_bound_a_call() {
        let pace = known(Duration::from_micros(1));
        assert_eq!(pace.next_call(&messages(20, 1 << 20), LONG), 4);
        assert_eq!(pace.next_call(&messages(3, 8 << 20), LONG), 1);
        assert_eq!(pace.next_call(&messages(100, 1), Duration::from_micros(10)), 10);
        assert_eq!(pace.next_call(&messages(100, 1), Duration::ZERO), 1);
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
    fn a_message_alone_has_its_full_time_and_a_group_no_more_than_it_should_need() {
        let fast = known(Duration::from_micros(1));
        assert_eq!(fast.time_for(1, SECOND, true), SECOND);
        assert_eq!(fast.time_for(1_000, SECOND, false), GROUP_TIME_MIN);
        assert_eq!(
            known(Duration::from_millis(1)).time_for(50, SECOND, false),
            Duration::from_millis(400)
        );
        assert_eq!(known(SECOND).time_for(50, SECOND, false), SECOND);
        assert_eq!(Pace::default().time_for(64, SECOND, false), SECOND);
        assert_eq!(Pace::default().time_for(64, SECOND, true), GROUP_TIME_MIN);
        assert!(!known(Duration::from_millis(900)).has_a_chance(2, SECOND));
        assert!(known(Duration::from_millis(900)).has_a_chance(1, SECOND));
    }
}
