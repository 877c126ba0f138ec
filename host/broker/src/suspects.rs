//! Tracks sources whose connection ended while they waited for the next message. Some messages make the client library
//! end its connection each time they arrive, and neither the library nor the broker reports it. After a loss, the
//! source reads the following messages from the stream's store until it is past such messages. If only the network
//! failed, the first message shows it, and nothing is lost. Pure except for the log.

use std::collections::HashMap;

use tracing::warn;

use super::OpenRequest;

/// Consecutive harmless messages after which the consumer resumes.
const CALM_MIN: u32 = 16;
const CALM_MAX: u32 = 1024;
/// Messages read one by one, harmless or not, after a second loss at the same position; doubled after each further
/// loss.
const FORCED_MIN: u32 = 16;
const FORCED_MAX: u32 = 4096;

/// Keyed by stream and consumer.
pub(super) type Suspects = HashMap<(String, String), Suspect>;

/// The recorded losses of one source.
#[derive(Debug, Default)]
pub(super) struct Suspect {
    after: u64,
    /// Consecutive connections lost at this position.
    losses: u32,
    /// The last loss has not caused a careful read yet.
    fresh: bool,
    calm: u32,
    /// The position at which the consumer resumed last.
    left_at: Option<u64>,
}

pub(super) fn key(request: &OpenRequest) -> (String, String) {
    (request.stream.clone(), request.consumer.clone())
}

impl Suspect {
    /// Records that the connection was lost while the source waited for the message after sequence `after`.
    pub(super) fn record_loss(&mut self, after: u64) {
        self.losses = if self.after == after { self.losses + 1 } else { 1 };
        self.after = after;
        self.fresh = true;
    }

    /// The careful read for a subscription that begins after `after`; `None` without suspicion. Each loss causes one
    /// careful read.
    pub(super) fn careful_read(&mut self, after: u64) -> Option<CarefulRead> {
        if self.after != after || !std::mem::take(&mut self.fresh) {
            return None;
        }
        // Soon after the previous one: bad messages are frequent here, and each return to the consumer costs a
        // connection.
        let soon = self
            .left_at
            .take()
            .is_some_and(|left| after.saturating_sub(left) < u64::from(self.calm) * 4);
        self.calm = if soon {
            (self.calm * 2).min(CALM_MAX)
        } else {
            CALM_MIN
        };
        let forced = match self.losses {
            1 => 0,
            more => FORCED_MIN.saturating_mul(1 << (more - 2).min(16)).min(FORCED_MAX),
        };
        if forced > 0 {
            warn!(
                after,
                messages = forced,
                "the connection was lost again before a message arrived after this sequence; reading one by one"
            );
        }
        Some(CarefulRead {
            forced,
            calm_required: self.calm,
            calm: 0,
            found: false,
        })
    }

    /// Messages arrived through the consumer, so no message caused the loss.
    pub(super) fn clear(&mut self) {
        (self.losses, self.fresh) = (0, false);
    }

    /// The consumer resumes from `sequence` on.
    pub(super) fn resume(&mut self, sequence: u64) {
        self.clear();
        self.left_at = Some(sequence);
    }
}

/// A careful read, message by message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CarefulRead {
    /// Remaining messages to take, harmless or not.
    forced: u32,
    calm_required: u32,
    /// Harmless messages since the last bad one.
    calm: u32,
    /// Whether a bad message was found.
    found: bool,
}

impl CarefulRead {
    /// Whether to take the next message; otherwise the careful read is over. `bad` states whether the message makes the
    /// library end its connection.
    pub(super) fn takes(&mut self, bad: bool) -> bool {
        self.found |= bad;
        self.calm = if bad { 0 } else { self.calm + 1 };
        if self.forced > 0 {
            self.forced -= 1;
            return true;
        }
        bad || (self.found && self.calm <= self.calm_required)
    }

    /// Whether to take a harmless next message because connections were lost before it.
    pub(super) fn takes_forced(&mut self) -> bool {
        let takes = self.forced > 0;
        self.forced = self.forced.saturating_sub(1);
        takes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_causes_a_careful_read_until_the_messages_are_harmless() {
        let mut suspect = Suspect::default();
        assert_eq!(suspect.careful_read(0), None, "no loss is recorded");
        suspect.record_loss(5);
        assert_eq!(suspect.careful_read(4), None, "another position");
        let mut read = suspect.careful_read(5).unwrap();
        assert!(
            !read.takes(false),
            "the message is harmless, so the network failed"
        );
        assert_eq!(suspect.careful_read(5), None, "one careful read per loss");
        suspect.record_loss(7);
        let mut read = suspect.careful_read(7).unwrap();
        assert!(read.takes(true));
        for _ in 0..CALM_MIN {
            assert!(read.takes(false));
        }
        assert!(!read.takes(false), "enough harmless messages");
    }

    #[test]
    fn repeated_losses_force_reading_past_harmless_messages() {
        let mut suspect = Suspect::default();
        suspect.record_loss(0);
        suspect.record_loss(0);
        let mut read = suspect.careful_read(0).unwrap();
        for _ in 0..FORCED_MIN {
            assert!(read.takes(false));
        }
        assert!(!read.takes(false) && !read.takes_forced());
        for _ in 0..40 {
            suspect.record_loss(0);
        }
        assert_eq!(suspect.careful_read(0).unwrap().forced, FORCED_MAX);
    }

    #[test]
    fn the_required_calm_grows_with_relapses_and_shrinks_again() {
        let mut suspect = Suspect::default();
        let mut after = 0;
        for required in [CALM_MIN, 2 * CALM_MIN, 4 * CALM_MIN] {
            suspect.record_loss(after);
            assert_eq!(suspect.careful_read(after).unwrap().calm_required, required);
            after += 20;
            suspect.resume(after);
            assert_eq!(suspect.careful_read(after), None, "the careful read ended");
            after += 3;
        }
        after += 10_000;
        suspect.record_loss(after);
        assert_eq!(suspect.careful_read(after).unwrap().calm_required, CALM_MIN);
    }
}
