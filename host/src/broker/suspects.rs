//! Sources whose connection was lost before they got anything. A message that the client library cannot read (its
//! headers are not UTF-8, or a line of them has no colon) makes it drop the connection, each time it comes; and
//! neither the library nor the broker says so. So a source that has lost two connections over the same position reads
//! some messages beside the consumer. When it was only the network, nothing is lost by that.

use std::collections::HashMap;

use tracing::warn;

use super::OpenRequest;

/// Messages read one by one the first time; doubled each further time.
const CAREFUL_MESSAGES: u32 = 16;

/// By stream and consumer.
pub(super) type Suspects = HashMap<(String, String), Suspect>;

/// What is known against one source.
#[derive(Default)]
pub(super) struct Suspect {
    after: u64,
    losses: u32,
    careful: u32,
}

pub(super) fn key(request: &OpenRequest) -> (String, String) {
    (request.stream.clone(), request.consumer.clone())
}

impl Suspect {
    /// The connection was lost before anything came after sequence `after`.
    pub(super) fn lost(&mut self, after: u64) {
        self.losses = if self.after == after { self.losses + 1 } else { 1 };
        self.after = after;
    }

    /// How many messages are to be read one by one by a subscription that begins after `after`.
    pub(super) fn careful_now(&mut self, after: u64) -> u32 {
        if self.after != after || self.losses < 2 {
            return 0;
        }
        self.losses = 0;
        self.careful = if self.careful == 0 {
            CAREFUL_MESSAGES
        } else {
            (self.careful * 2).min(4096)
        };
        warn!(
            after,
            messages = self.careful,
            "the connection was lost twice before anything came after this sequence: reading one by one"
        );
        self.careful
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_losses_over_the_same_position_make_careful() {
        let mut suspect = Suspect::default();
        suspect.lost(5);
        assert_eq!(suspect.careful_now(5), 0);
        suspect.lost(7);
        assert_eq!(suspect.careful_now(7), 0, "it has moved between");
        suspect.lost(7);
        assert_eq!(suspect.careful_now(8), 0);
        assert_eq!(suspect.careful_now(7), CAREFUL_MESSAGES);
        assert_eq!(suspect.careful_now(7), 0, "once only");
        suspect.lost(40);
        suspect.lost(40);
        assert_eq!(suspect.careful_now(40), 2 * CAREFUL_MESSAGES);
    }
}
