//! Detects a consumer that does not deliver a message although the stream holds it. After a power failure or the move of a
//! replica, a consumer can be at a position beyond messages that it never delivered; it then reports that nothing waits, and
//! its heartbeats match the last delivery. Pure; the surveyor asks the broker.

use tokio::time::{Duration, Instant};

/// How long nothing must be delivered before the broker is asked, so that a busy source costs no requests.
const QUIET_FOR: Duration = Duration::from_secs(10);

/// How long after that a stored message may stay undelivered: half a minute without a delivery in all.
const OVERDUE_AFTER: Duration = Duration::from_secs(20);

/// What to ask the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inquiry {
    /// Nothing.
    None,
    /// For the first message of the source after its checkpoint.
    FirstMessage,
}

/// Follows one session. Its checkpoint advances with each delivery, so a checkpoint that stays means that nothing is
/// delivered, or that a batch is in flight; the session distinguishes the two.
#[derive(Debug, Default)]
pub(super) struct DeliveryWatch {
    /// The checkpoint, and since when it stays.
    quiet: Option<(u64, Instant)>,
    /// The first undelivered message after the checkpoint, and when it was seen first.
    undelivered: Option<(u64, Instant)>,
    /// The last sequence of the stream when no message of the source was after the checkpoint.
    empty_until: u64,
}

impl DeliveryWatch {
    /// Evaluates one survey.
    pub(super) fn observe(&mut self, now: Instant, checkpoint: u64, last_sequence: u64) -> Inquiry {
        let since = match self.quiet {
            Some((known, since)) if known == checkpoint => since,
            _ => {
                *self = Self {
                    quiet: Some((checkpoint, now)),
                    ..Self::default()
                };
                now
            }
        };
        let is_quiet = now.duration_since(since) >= QUIET_FOR;
        let is_new = last_sequence > checkpoint.max(self.empty_until);
        let may_be_overdue = match self.undelivered {
            Some((_, since)) => now.duration_since(since) >= OVERDUE_AFTER,
            None => is_new,
        };
        match is_quiet && may_be_overdue {
            true => Inquiry::FirstMessage,
            false => Inquiry::None,
        }
    }

    /// Records the broker's answer to [`Inquiry::FirstMessage`]: the sequence of the first message after the checkpoint.
    /// Returns that sequence if the message is overdue.
    pub(super) fn record(&mut self, now: Instant, last_sequence: u64, first: Option<u64>) -> Option<u64> {
        let Some(first) = first else {
            self.empty_until = last_sequence;
            self.undelivered = None;
            return None;
        };
        match self.undelivered {
            Some((sequence, since)) if sequence == first => {
                (now.duration_since(since) >= OVERDUE_AFTER).then_some(first)
            }
            _ => {
                self.undelivered = Some((first, now));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A watch, and the seconds since its beginning.
    struct Scene {
        watch: DeliveryWatch,
        start: Instant,
    }

    impl Scene {
        fn new() -> Self {
            Self {
                watch: DeliveryWatch::default(),
                start: Instant::now(),
            }
        }

        fn at(&self, second: u64) -> Instant {
            self.start + Duration::from_secs(second)
        }

        fn inquiry(&mut self, second: u64, checkpoint: u64, last: u64) -> Inquiry {
            self.watch.observe(self.at(second), checkpoint, last)
        }

        fn answer(&mut self, second: u64, last: u64, first: Option<u64>) -> Option<u64> {
            self.watch.record(self.at(second), last, first)
        }
    }

    #[test]
    fn a_message_that_stays_undelivered_is_overdue_half_a_minute_after_the_last_delivery() {
        let mut scene = Scene::new();
        assert_eq!(scene.inquiry(0, 10, 12), Inquiry::None, "it may be on its way");
        assert_eq!(scene.inquiry(9, 10, 12), Inquiry::None);
        assert_eq!(scene.inquiry(10, 10, 12), Inquiry::FirstMessage);
        assert_eq!(scene.answer(10, 12, Some(11)), None);
        assert_eq!(scene.inquiry(29, 10, 99), Inquiry::None);
        assert_eq!(scene.inquiry(30, 10, 99), Inquiry::FirstMessage);
        assert_eq!(scene.answer(30, 99, Some(11)), Some(11));
    }

    #[test]
    fn a_message_published_after_a_long_silence_has_time_to_arrive() {
        let mut scene = Scene::new();
        assert_eq!(scene.inquiry(0, 10, 10), Inquiry::None);
        assert_eq!(scene.inquiry(600, 10, 11), Inquiry::FirstMessage);
        assert_eq!(scene.answer(600, 11, Some(11)), None);
        assert_eq!(scene.inquiry(602, 11, 11), Inquiry::None, "delivered");
    }

    #[test]
    fn a_busy_source_causes_no_request() {
        let mut scene = Scene::new();
        for second in 0..120 {
            assert_eq!(
                scene.inquiry(second, second / 5, 1_000),
                Inquiry::None,
                "{second}"
            );
        }
    }

    #[test]
    fn a_message_that_leaves_the_stream_is_not_overdue() {
        let mut scene = Scene::new();
        assert_eq!(scene.inquiry(0, 10, 12), Inquiry::None);
        assert_eq!(scene.inquiry(10, 10, 12), Inquiry::FirstMessage);
        assert_eq!(scene.answer(10, 12, Some(11)), None);
        assert_eq!(scene.inquiry(31, 10, 12), Inquiry::FirstMessage);
        assert_eq!(
            scene.answer(31, 12, Some(12)),
            None,
            "another message is the first one"
        );
        assert_eq!(scene.inquiry(61, 10, 12), Inquiry::FirstMessage);
        assert_eq!(scene.answer(61, 12, None), None);
        assert_eq!(scene.inquiry(120, 10, 12), Inquiry::None);
    }

    #[test]
    fn messages_of_other_subjects_cause_one_request_for_each_new_one() {
        let mut scene = Scene::new();
        assert_eq!(scene.inquiry(0, 10, 12), Inquiry::None);
        assert_eq!(scene.inquiry(60, 10, 12), Inquiry::FirstMessage);
        assert_eq!(scene.answer(60, 12, None), None);
        assert_eq!(scene.inquiry(62, 10, 12), Inquiry::None);
        assert_eq!(scene.inquiry(64, 10, 13), Inquiry::FirstMessage);
    }
}
