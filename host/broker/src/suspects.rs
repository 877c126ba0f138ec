//! Sources whose connection ended while they waited for the next message. Some messages make the client library end
//! its connection each time they come, and neither the library nor the broker says so. After a loss, the source reads
//! what follows out of the stream's store until it is past the messages that do this. When only the network was at
//! fault, the first message read shows that, and nothing is lost by it. Pure but for the log.

use std::collections::HashMap;

use tracing::warn;

use super::OpenRequest;

/// Messages without fault, one after the other, after which the consumer is used again.
const CALM_MIN: u32 = 16;
const CALM_MAX: u32 = 1024;
/// Messages read one by one, whatever they look like, after a second loss at the same position; doubled at each
/// further one.
const FORCED_MIN: u32 = 16;
const FORCED_MAX: u32 = 4096;

/// By stream and consumer.
pub(super) type Suspects = HashMap<(String, String), Suspect>;

/// What is known against one source.
#[derive(Debug, Default)]
pub(super) struct Suspect {
    after: u64,
    /// Connections lost one after the other at this position.
    losses: u32,
    /// The last loss has not made a subscription careful yet.
    fresh: bool,
    calm: u32,
    /// The position at which the consumer was last used again.
    left_at: Option<u64>,
}

pub(super) fn key(request: &OpenRequest) -> (String, String) {
    (request.stream.clone(), request.consumer.clone())
}

impl Suspect {
    /// The connection was lost while the source waited for what follows sequence `after`.
    pub(super) fn lost(&mut self, after: u64) {
        self.losses = if self.after == after { self.losses + 1 } else { 1 };
        self.after = after;
        self.fresh = true;
    }

    /// How a subscription that begins after `after` has to read; none when there is no suspicion.
    /// Each loss makes one subscription careful.
    pub(super) fn care(&mut self, after: u64) -> Option<Care> {
        if self.after != after || !std::mem::take(&mut self.fresh) {
            return None;
        }
        // Soon after the last one: bad messages are frequent here, and each return to the consumer costs a connection.
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
                "the connection was lost again before anything came after this sequence: reading one by one"
            );
        }
        Some(Care {
            forced,
            calm_wanted: self.calm,
            calm: 0,
            found: false,
        })
    }

    /// Messages have come through the consumer: whatever happened was not their fault.
    pub(super) fn forgive(&mut self) {
        (self.losses, self.fresh) = (0, false);
    }

    /// The consumer is used again from `sequence` on.
    pub(super) fn left(&mut self, sequence: u64) {
        self.forgive();
        self.left_at = Some(sequence);
    }
}

/// Careful reading, message by message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Care {
    /// Messages still to be taken, whatever they look like.
    forced: u32,
    calm_wanted: u32,
    /// Messages without fault since the last bad one.
    calm: u32,
    /// Whether a bad message was found.
    found: bool,
}

impl Care {
    /// Whether to take the next message; otherwise the careful reading is over. `bad` says whether the message makes
    /// the library end its connection.
    pub(super) fn takes(&mut self, bad: bool) -> bool {
        self.found |= bad;
        self.calm = if bad { 0 } else { self.calm + 1 };
        if self.forced > 0 {
            self.forced -= 1;
            return true;
        }
        bad || (self.found && self.calm <= self.calm_wanted)
    }

    /// Whether to take the next message although it is not bad, only because connections were lost before it.
    pub(super) fn takes_by_force(&mut self) -> bool {
        let takes = self.forced > 0;
        self.forced = self.forced.saturating_sub(1);
        takes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_loss_makes_careful_until_the_messages_are_good() {
        let mut suspect = Suspect::default();
        assert_eq!(suspect.care(0), None, "nothing is known against it");
        suspect.lost(5);
        assert_eq!(suspect.care(4), None, "another position");
        let mut care = suspect.care(5).unwrap();
        assert!(!care.takes(false), "the message is good: it was the network");
        assert_eq!(suspect.care(5), None, "once for each loss");
        suspect.lost(7);
        let mut care = suspect.care(7).unwrap();
        assert!(care.takes(true));
        for _ in 0..CALM_MIN {
            assert!(care.takes(false));
        }
        assert!(!care.takes(false), "calm for long enough");
    }

    #[test]
    fn a_loss_that_no_message_explains_is_read_past_by_force() {
        let mut suspect = Suspect::default();
        suspect.lost(0);
        suspect.lost(0);
        let mut care = suspect.care(0).unwrap();
        for _ in 0..FORCED_MIN {
            assert!(care.takes(false));
        }
        assert!(!care.takes(false) && !care.takes_by_force());
        for _ in 0..40 {
            suspect.lost(0);
        }
        assert_eq!(suspect.care(0).unwrap().forced, FORCED_MAX);
    }

    #[test]
    fn the_calm_asked_for_grows_with_relapses_and_shrinks_again() {
        let mut suspect = Suspect::default();
        let mut after = 0;
        for wanted in [CALM_MIN, 2 * CALM_MIN, 4 * CALM_MIN] {
            suspect.lost(after);
            assert_eq!(suspect.care(after).unwrap().calm_wanted, wanted);
            after += 20;
            suspect.left(after);
            assert_eq!(suspect.care(after), None, "once it is left, it is over");
            after += 3;
        }
        after += 10_000;
        suspect.lost(after);
        assert_eq!(suspect.care(after).unwrap().calm_wanted, CALM_MIN);
    }
}
