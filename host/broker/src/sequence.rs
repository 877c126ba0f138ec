//! The position of a delivered message: parses the sequences in its acknowledgement subject, and decides whether it
//! continues the deliveries before it. Pure.

/// The position in a message's acknowledgement subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DeliveryPosition {
    /// Number of deliveries, including this one.
    pub delivered: u64,
    /// Its sequence in the stream.
    pub stream_sequence: u64,
    /// Its number among the consumer's deliveries.
    pub consumer_sequence: u64,
    /// When the broker stored it, in nanoseconds since 1970.
    pub published_ns: i64,
}

impl DeliveryPosition {
    /// Parses `$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>`, or the longer
    /// form `$JS.ACK.<domain>.<account>.<stream>.…`, which may have one more token at its end.
    pub(super) fn parse(subject: &str) -> Option<Self> {
        let mut tokens = [""; 12];
        let mut count = 0;
        for token in subject.split('.') {
            *tokens.get_mut(count)? = token;
            count += 1;
        }
        let first = match count {
            9 => 4,
            11 | 12 => 6,
            _ => return None,
        };
        if tokens[0] != "$JS" || tokens[1] != "ACK" {
            return None;
        }
        Some(Self {
            delivered: tokens[first].parse().ok()?,
            stream_sequence: tokens[first + 1].parse().ok()?,
            consumer_sequence: tokens[first + 2].parse().ok()?,
            published_ns: tokens[first + 3].parse().ok()?,
        })
    }
}

/// Tracks the deliveries of one subscription.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    next_consumer_sequence: u64,
    highest: u64,
    /// The latest time so far, not the time of `highest`: the broker's clock may have been set back.
    youngest_ns: Option<i64>,
}

/// What to do with a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the next message.
    Take,
    /// It was returned before: redelivered, or covered by the checkpoint that the subscription began at.
    Known,
    /// Deliveries are missing before it.
    Hole {
        /// The expected number.
        expected: u64,
    },
    /// A known sequence now refers to a younger message: the stream has another history.
    Changed,
}

impl Order {
    /// For a consumer with `delivered` deliveries, after the stream sequence `after`, whose message was stored at
    /// `after_published_ns` if known.
    pub(super) fn new(delivered: u64, after: u64, after_published_ns: Option<i64>) -> Self {
        Self {
            next_consumer_sequence: delivered + 1,
            highest: after,
            youngest_ns: after_published_ns,
        }
    }

    /// Judges one delivery, and counts it unless it reveals a hole.
    pub(super) fn judge(&mut self, position: &DeliveryPosition) -> Verdict {
        if position.consumer_sequence != self.next_consumer_sequence {
            return Verdict::Hole {
                expected: self.next_consumer_sequence,
            };
        }
        self.next_consumer_sequence += 1;
        if position.stream_sequence > self.highest {
            self.highest = position.stream_sequence;
            self.youngest_ns = self.youngest_ns.max(Some(position.published_ns));
            return Verdict::Take;
        }
        match self.youngest_ns {
            Some(youngest) if position.published_ns > youngest => Verdict::Changed,
            _ => Verdict::Known,
        }
    }

    /// The highest stream sequence so far.
    pub(super) fn highest(&self) -> u64 {
        self.highest
    }

    /// Counts a message that did not arrive through the consumer.
    pub(super) fn skip_to(&mut self, stream_sequence: u64, published_ns: i64) {
        self.highest = self.highest.max(stream_sequence);
        self.youngest_ns = self.youngest_ns.max(Some(published_ns));
    }

    /// The number of the last judged delivery.
    pub(super) fn last_consumer_sequence(&self) -> u64 {
        self.next_consumer_sequence - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(consumer_sequence: u64, stream_sequence: u64, published_ns: i64) -> DeliveryPosition {
        DeliveryPosition {
            delivered: 1,
            stream_sequence,
            consumer_sequence,
            published_ns,
        }
    }

    #[test]
    fn acknowledgement_subjects_are_parsed_in_all_forms() {
        let expected = DeliveryPosition {
            delivered: 2,
            stream_sequence: 17,
            consumer_sequence: 9,
            published_ns: 1_795_193_767_820_990_963,
        };
        for subject in [
            "$JS.ACK.S.c1.2.17.9.1795193767820990963.19",
            "$JS.ACK.hub.ACC.S.c1.2.17.9.1795193767820990963.19",
            "$JS.ACK._.ACC.S.c1.2.17.9.1795193767820990963.19.random",
        ] {
            assert_eq!(DeliveryPosition::parse(subject), Some(expected), "{subject}");
        }
        for subject in [
            "",
            "$JS.ACK.S.c1.2.17.9.17",
            "$JS.ACK.S.c1.2.x.9.1.1",
            "$JS.NAK.S.c1.2.17.9.1.1",
            "a.b.c.d.e.f.g.h.i.j.k.l.m",
        ] {
            assert_eq!(DeliveryPosition::parse(subject), None, "{subject}");
        }
    }

    #[test]
    fn deliveries_in_order_are_accepted_despite_skipped_stream_sequences() {
        let mut order = Order::new(0, 4, Some(40));
        for (consumer, stream) in [(1, 5), (2, 9), (3, 10)] {
            assert_eq!(order.judge(&position(consumer, stream, 50)), Verdict::Take);
        }
        assert_eq!(order.last_consumer_sequence(), 3);
    }

    #[test]
    fn a_missing_delivery_is_a_hole_even_before_the_first() {
        let mut order = Order::new(0, 0, None);
        assert_eq!(order.judge(&position(2, 2, 1)), Verdict::Hole { expected: 1 });
        assert_eq!(order.judge(&position(1, 1, 1)), Verdict::Take);
        assert_eq!(order.judge(&position(1, 1, 1)), Verdict::Hole { expected: 2 });
    }

    #[test]
    fn a_redelivery_is_known_and_a_reused_sequence_is_another_history() {
        let mut order = Order::new(7, 100, Some(1_000));
        assert_eq!(order.judge(&position(8, 99, 990)), Verdict::Known);
        assert_eq!(order.judge(&position(9, 100, 1_000)), Verdict::Known);
        assert_eq!(order.judge(&position(10, 100, 1_001)), Verdict::Changed);
    }

    #[test]
    fn a_clock_set_back_is_not_another_history_while_sequences_grow() {
        let mut order = Order::new(0, 10, Some(1_000));
        assert_eq!(order.judge(&position(1, 11, 5)), Verdict::Take);
        assert_eq!(order.judge(&position(2, 12, 6)), Verdict::Take);
        assert_eq!(
            order.judge(&position(3, 10, 1_000)),
            Verdict::Known,
            "redelivered"
        );
    }
}
