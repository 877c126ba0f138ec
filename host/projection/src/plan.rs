//! The decisions of a projection about batches, as pure functions: what a batch changes, and which sequences are gone.
//! Nothing here waits, reads or writes.

use lantern_model::batch::{Delivery, Outcome};
use lantern_model::schema::subjects;
use lantern_store::{Entry, Mark, NewGap};

/// What the host knows about the sequences that a source may receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Horizon {
    /// Whether all messages of the stream belong to this source, so that every hole is a gap.
    pub covers_stream: bool,
    /// The first sequence of the stream at the last survey.
    pub first_sequence: u64,
}

impl Horizon {
    /// Returns the gap between the last handled sequence and the next delivered one. Where other subjects share the
    /// stream, holes are ordinary, and only sequences trimmed from the front are known to be gone.
    pub fn gap(&self, after: u64, next: u64) -> Option<NewGap> {
        let exact = self.covers_stream;
        let last = match exact {
            true => next - 1,
            false => (next - 1).min(self.first_sequence.saturating_sub(1)),
        };
        // Runs for every message, so it allocates only for a gap.
        (last > after).then(|| NewGap {
            first: after + 1,
            last,
            exact,
            reason: "gone from the stream before it was read".to_owned(),
        })
    }
}

/// What one batch changes.
#[derive(Debug, PartialEq)]
pub struct Plan {
    /// The new checkpoint: sequence and publication time.
    pub through: (u64, i64),
    /// Messages with their outcomes, in order.
    pub entries: Vec<(Delivery, Outcome)>,
    /// The sequences missing before or between them.
    pub gaps: Vec<NewGap>,
}

/// Pairs messages with their outcomes and records gaps. Drops redeliveries, which the checkpoint already covers.
/// Returns `None` if no message is left.
pub fn plan(
    after: u64,
    deliveries: Vec<Delivery>,
    outcomes: Vec<Outcome>,
    horizon: &Horizon,
) -> Option<Plan> {
    let mut last = after;
    let mut published_ns = 0;
    let mut gaps = Vec::new();
    let mut entries = Vec::with_capacity(outcomes.len());
    for (delivery, outcome) in deliveries.into_iter().zip(outcomes) {
        if delivery.sequence <= last {
            continue;
        }
        gaps.extend(horizon.gap(last, delivery.sequence));
        last = delivery.sequence;
        published_ns = delivery.published_ns;
        entries.push((delivery, outcome));
    }
    (last > after).then_some(Plan {
        through: (last, published_ns),
        entries,
        gaps,
    })
}

impl Plan {
    /// The parts in the form that the store takes. The hash is that of the last message's payload.
    pub fn into_parts(self, payload_sha256: [u8; 32]) -> (Mark, Vec<Entry>, Vec<NewGap>) {
        let (sequence, published_ns) = self.through;
        let mark = Mark {
            sequence,
            published_ns,
            payload_sha256: Some(payload_sha256),
        };
        let entries = self
            .entries
            .into_iter()
            .map(|(delivery, outcome)| Entry { delivery, outcome })
            .collect();
        (mark, entries, self.gaps)
    }
}

/// Whether the subjects that a source requests include every subject of the stream. A mirror names no subjects, so the
/// answer for it is no.
pub fn covers(wanted: &[String], stream: &[String]) -> bool {
    wanted.is_empty()
        || (!stream.is_empty()
            && stream
                .iter()
                .all(|subject| wanted.iter().any(|filter| subjects::covers(filter, subject))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn delivery(sequence: u64) -> Delivery {
        Delivery {
            subject: "a".into(),
            sequence,
            published_ns: i64::try_from(sequence).unwrap() * 10,
            headers: Vec::new(),
            payload: Bytes::new(),
        }
    }

    /// Sequences of the entries; first, last and exactness of the gaps.
    type Planned = (Vec<u64>, Vec<(u64, u64, bool)>);

    fn planned(after: u64, sequences: &[u64], horizon: Horizon) -> Option<Planned> {
        let deliveries: Vec<Delivery> = sequences.iter().copied().map(delivery).collect();
        let outcomes = vec![Outcome::Skip; sequences.len()];
        plan(after, deliveries, outcomes, &horizon).map(|plan| {
            let entries = plan
                .entries
                .iter()
                .map(|(delivery, _)| delivery.sequence)
                .collect();
            let gaps = plan
                .gaps
                .iter()
                .map(|gap| (gap.first, gap.last, gap.exact))
                .collect();
            (entries, gaps)
        })
    }

    #[test]
    fn holes_are_gaps_where_the_whole_stream_is_read() {
        let whole = Horizon {
            covers_stream: true,
            first_sequence: 1,
        };
        assert_eq!(planned(0, &[1, 2, 3], whole), Some((vec![1, 2, 3], vec![])));
        assert_eq!(
            planned(0, &[3, 4, 7], whole),
            Some((vec![3, 4, 7], vec![(1, 2, true), (5, 6, true)]))
        );
    }

    #[test]
    fn holes_are_ordinary_where_other_subjects_share_the_stream() {
        let shared = Horizon {
            covers_stream: false,
            first_sequence: 1,
        };
        assert_eq!(planned(0, &[3, 7], shared), Some((vec![3, 7], vec![])));
        let trimmed = Horizon {
            covers_stream: false,
            first_sequence: 6,
        };
        assert_eq!(
            planned(2, &[8, 9], trimmed),
            Some((vec![8, 9], vec![(3, 5, false)]))
        );
        assert_eq!(
            planned(2, &[4, 9], trimmed),
            Some((vec![4, 9], vec![(3, 3, false), (5, 5, false)]))
        );
    }

    #[test]
    fn redeliveries_are_dropped_wherever_they_stand() {
        let whole = Horizon {
            covers_stream: true,
            first_sequence: 1,
        };
        assert_eq!(planned(5, &[4, 5, 6, 6, 7], whole), Some((vec![6, 7], vec![])));
        assert_eq!(planned(5, &[4, 5], whole), None);
        assert_eq!(planned(5, &[], whole), None);
    }

    #[test]
    fn a_filter_covers_a_stream_or_not() {
        let list = |subjects: &[&str]| subjects.iter().map(|&s| s.to_owned()).collect::<Vec<String>>();
        for (wanted, stream, expected) in [
            (&[][..], &["a"][..], true),
            (&["obs.>"], &["obs.>"], true),
            (&["obs.>"], &["obs.*", "obs.a.b"], true),
            (&["obs.*"], &["obs.>"], false),
            (&["obs.*"], &["obs.*"], true),
            (&["obs.a"], &["obs.*"], false),
            (&["obs.>"], &["obs.>", "x"], false),
            (&["obs.>"], &["obs"], false),
            (&["a.*", "b.*"], &["b.*", "a.x"], true),
            (&["a"], &[], false),
        ] {
            assert_eq!(
                covers(&list(wanted), &list(stream)),
                expected,
                "{wanted:?} {stream:?}"
            );
        }
    }
}
