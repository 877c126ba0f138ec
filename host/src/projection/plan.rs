//! The decisions of a projection, as pure functions: where to begin, what a batch changes, and which sequences are
//! gone. Nothing here waits, reads or writes.

use crate::batch::{Delivery, Outcome};
use crate::schema::subjects::takes_in;
use crate::store::{Attached, Entry, Gap, Mark};

/// A stream's history as the broker shows it now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    /// When the stream was created.
    pub created_ns: i64,
    /// The last sequence that was given out.
    pub last_sequence: u64,
    /// What stands at the checkpoint's sequence, if it is still there.
    pub at_checkpoint: Option<(i64, [u8; 32])>,
}

/// Where a source goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// In the history that it knows, behind its checkpoint.
    Continue,
    /// In a new epoch, behind this sequence, for this reason.
    Begin {
        /// The last sequence that does not belong to the epoch.
        after: u64,
        /// Why.
        reason: String,
    },
    /// In a new epoch of a stream that went back in time (restored from a backup, or a tail lost with the power):
    /// what it holds from before this time has been handled; all that is newer has not.
    BeginAfterTime {
        /// The broker's time of the last message that was handled.
        time_ns: i64,
        /// Why.
        reason: String,
    },
}

/// Compares what the database remembers with what the broker shows. A sequence alone proves nothing: two histories
/// can use the same numbers (ADR 3).
pub fn resume(attached: Option<&Attached>, history: &History) -> Resume {
    let Some(attached) = attached else {
        return Resume::Begin {
            after: 0,
            reason: "the first".to_owned(),
        };
    };
    let checkpoint = &attached.checkpoint;
    if attached
        .stream_created_ns
        .is_some_and(|created| created != history.created_ns)
    {
        return Resume::Begin {
            after: 0,
            reason: "the stream was created anew".to_owned(),
        };
    }
    let reason = if history.last_sequence < checkpoint.sequence {
        format!(
            "the stream went back: its last sequence is {}, but {} had been read",
            history.last_sequence, checkpoint.sequence
        )
    } else {
        match (checkpoint.payload_sha256, history.at_checkpoint) {
            (Some(known), Some((published_ns, found)))
                if known != found || published_ns != checkpoint.published_ns =>
            {
                format!(
                    "another message stands at sequence {} than the one that was read",
                    checkpoint.sequence
                )
            }
            _ => return Resume::Continue,
        }
    };
    match checkpoint.published_ns {
        // Nothing was ever read, so nothing can be handled twice.
        0 => Resume::Begin { after: 0, reason },
        time_ns => Resume::BeginAfterTime { time_ns, reason },
    }
}

/// What is known of the sequences that a source may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Horizon {
    /// Whether all messages of the stream are this source's: then every hole is a gap.
    pub covers_stream: bool,
    /// The first sequence that was in the stream when the broker was last asked.
    pub first_sequence: u64,
}

impl Horizon {
    /// The gaps between the last sequence handled and the next one delivered. Where other subjects share the stream,
    /// holes are ordinary, and only what was trimmed from the front is known to be gone.
    pub fn gap(&self, after: u64, next: u64) -> Option<Gap> {
        let reason = "gone from the stream before it was read".to_owned();
        if self.covers_stream {
            return (next > after + 1).then(|| Gap {
                first: after + 1,
                last: next - 1,
                exact: true,
                reason,
            });
        }
        let last = (next - 1).min(self.first_sequence.saturating_sub(1));
        (last > after).then(|| Gap {
            first: after + 1,
            last,
            exact: false,
            reason,
        })
    }
}

/// What one batch changes.
#[derive(Debug, PartialEq)]
pub struct Plan {
    /// The checkpoint that it leaves.
    pub through: (u64, i64),
    /// Messages with their outcomes, in order.
    pub entries: Vec<(Delivery, Outcome)>,
    /// What was missing before or between them.
    pub gaps: Vec<Gap>,
}

/// Pairs messages with their outcomes and notes the gaps. Messages that the checkpoint covers already are left out:
/// they are redeliveries. Returns nothing when none is left.
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
    /// The parts as the store takes them. The hash is that of the last message's payload.
    pub fn into_parts(self, payload_sha256: [u8; 32]) -> (Mark, Vec<Entry>, Vec<Gap>) {
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

/// Whether the subjects that a source asks for take in everything that the stream takes in. A mirror names no
/// subjects, so nothing can be said of it.
pub fn covers(wanted: &[String], stream: &[String]) -> bool {
    wanted.is_empty()
        || (!stream.is_empty()
            && stream
                .iter()
                .all(|subject| wanted.iter().any(|filter| takes_in(filter, subject))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Counts, OriginId};
    use bytes::Bytes;

    fn attached(sequence: u64, published_ns: i64, payload_sha256: Option<[u8; 32]>) -> Attached {
        Attached {
            origin: OriginId(1),
            epoch: 1,
            stream_created_ns: Some(100),
            checkpoint: Mark {
                sequence,
                published_ns,
                payload_sha256,
            },
            counts: Counts::default(),
            dead_letters: 0,
        }
    }

    #[test]
    fn histories_are_compared_by_more_than_a_number() {
        let history = |created_ns, last_sequence, at_checkpoint| History {
            created_ns,
            last_sequence,
            at_checkpoint,
        };
        let known = attached(5, 50, Some([5; 32]));
        assert!(matches!(
            resume(None, &history(1, 9, None)),
            Resume::Begin { after: 0, .. }
        ));
        let same = history(100, 9, Some((50, [5; 32])));
        assert_eq!(resume(Some(&known), &same), Resume::Continue);
        // Trimmed or deleted: nothing to compare with, and nothing speaks against it.
        assert_eq!(resume(Some(&known), &history(100, 9, None)), Resume::Continue);
        // Clocks may jump; what counts is the message that stands there.
        assert!(matches!(
            resume(Some(&known), &history(101, 9, same.at_checkpoint)),
            Resume::Begin { after: 0, .. }
        ));
        for other in [
            history(100, 4, None),
            history(100, 9, Some((51, [5; 32]))),
            history(100, 9, Some((50, [6; 32]))),
        ] {
            assert!(
                matches!(
                    resume(Some(&known), &other),
                    Resume::BeginAfterTime { time_ns: 50, .. }
                ),
                "{other:?}"
            );
        }
        let nothing_read = attached(5, 0, None);
        assert!(matches!(
            resume(Some(&nothing_read), &history(100, 4, None)),
            Resume::Begin { after: 0, .. }
        ));
    }

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
