//! What an operator should know of a source although it runs: acknowledgements that the broker does not take, filters
//! that match nothing, a consumer that the broker may delete. Pure; the session asks the broker and shows the result.

use std::time::Duration;

use tokio::time::Instant;

use lantern_broker::{ConsumerFacts, Retention};
use lantern_model::schema::subjects::overlap;
use lantern_model::status::{ProjectionWarning, ProjectionWarningKind};

/// How long the broker's position may stay behind an acknowledgement before it is sent again. It follows within
/// milliseconds.
const RESEND_AFTER: Duration = Duration::from_secs(3);

/// How long it may stay behind, with the acknowledgement sent again meanwhile, before it counts as refused.
const REFUSED_AFTER: Duration = Duration::from_secs(6);

/// Compares what was acknowledged with what the broker says of it.
#[derive(Debug, Default)]
pub(super) struct AckWatch {
    /// What was acknowledged when the broker was first seen to be behind, and when that was.
    behind: Option<(u64, Instant)>,
}

/// What to do about acknowledgements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acks {
    /// The broker takes them, or none was sent.
    Follow,
    /// The broker has not taken the last one: send it again.
    Resend,
    /// It does not take them although they are sent again.
    Refused,
    /// It has answered the one that was sent again.
    TakenAgain,
}

impl AckWatch {
    /// Judges one look at the broker: the last sequence that was acknowledged, and the broker's floor.
    pub(super) fn look(&mut self, now: Instant, acknowledged: Option<u64>, floor: u64) -> Acks {
        let Some(acknowledged) = acknowledged.filter(|sequence| *sequence > floor) else {
            self.behind = None;
            return Acks::Follow;
        };
        match self.behind {
            Some((sequence, since)) if floor < sequence => match now.duration_since(since) {
                waited if waited >= REFUSED_AFTER => Acks::Refused,
                waited if waited >= RESEND_AFTER => Acks::Resend,
                _ => Acks::Follow,
            },
            // It has come so far; what was acknowledged since is judged at the next looks.
            _ => {
                self.behind = Some((acknowledged, now));
                Acks::Follow
            }
        }
    }
}

/// The warning about acknowledgements. Where the broker deletes what is acknowledged, the host is not ready with it:
/// the stream fills up.
pub(super) fn refused_acks(retention: Retention, consumer: &ConsumerFacts) -> ProjectionWarning {
    let effect = match retention {
        Retention::Limits => "the broker's figures for this consumer lag behind; nothing is lost",
        Retention::WorkQueue | Retention::Interest => "messages stay in the stream although they are stored",
    };
    ProjectionWarning {
        kind: ProjectionWarningKind::AcknowledgementsRefused,
        detail: format!(
            "the broker does not take acknowledgements: its ack floor stays at sequence {}, with {} messages not acknowledged; \
             {effect} (the user needs permission to publish to $JS.ACK.>, and its account has to import that subject where \
             it imports the JetStream API)",
            consumer.ack_floor, consumer.ack_pending
        ),
        not_ready: retention != Retention::Limits,
    }
}

/// The warning about a consumer of an interest stream that the broker deletes while the host is away. In other streams
/// the messages stay.
pub(super) fn expiring_consumer(
    retention: Retention,
    name: &str,
    consumer: &ConsumerFacts,
) -> Option<ProjectionWarning> {
    let after = consumer.inactive_threshold;
    (retention == Retention::Interest && !after.is_zero()).then(|| ProjectionWarning {
        kind: ProjectionWarningKind::ConsumerExpires,
        detail: format!(
            "the broker deletes consumer {name} when nobody reads through it for {after:?} (inactive_threshold of the \
             consumer or in the stream's consumer_limits); an interest stream does not keep what is published after that"
        ),
        not_ready: false,
    })
}

/// The warning about filters that no subject of the stream can match, for example after its subjects were edited.
pub(super) fn deaf_filters(stream: &str, filters: &[String], held: &[String]) -> Option<ProjectionWarning> {
    let deaf: Vec<&str> = filters
        .iter()
        .filter(|filter| !held.iter().any(|subject| overlap(filter, subject)))
        .map(String::as_str)
        .collect();
    (!deaf.is_empty() && !held.is_empty()).then(|| ProjectionWarning {
        kind: ProjectionWarningKind::FilterMatchesNothing,
        detail: format!(
            "no subject of stream {stream} ({}) can match {}",
            held.join(", "),
            deaf.join(", ")
        ),
        not_ready: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_that_do_not_arrive_are_sent_again_and_then_reported() {
        let (mut watch, start) = (AckWatch::default(), Instant::now());
        let mut look = |seconds, acknowledged, floor| {
            watch.look(start + Duration::from_secs(seconds), acknowledged, floor)
        };
        assert_eq!(look(0, None, 0), Acks::Follow);
        assert_eq!(look(2, Some(10), 10), Acks::Follow);
        assert_eq!(look(4, Some(20), 10), Acks::Follow, "it may be on its way");
        assert_eq!(look(6, Some(30), 10), Acks::Follow);
        assert_eq!(look(8, Some(40), 10), Acks::Resend);
        assert_eq!(look(10, Some(40), 10), Acks::Refused);
        assert_eq!(look(12, Some(40), 20), Acks::Follow, "it has come to 20");
        assert_eq!(look(14, Some(40), 40), Acks::Follow);
    }

    #[test]
    fn a_broker_that_follows_at_a_distance_is_no_trouble() {
        let (mut watch, start) = (AckWatch::default(), Instant::now());
        for second in 0..60 {
            let found = watch.look(
                start + Duration::from_secs(second),
                Some(second * 100 + 100),
                second * 100,
            );
            assert_eq!(found, Acks::Follow, "{second}");
        }
    }

    #[test]
    fn filters_and_subjects_that_share_nothing_are_seen() {
        let list = |subjects: &[&str]| subjects.iter().map(|&s| s.to_owned()).collect::<Vec<String>>();
        let warning = deaf_filters("S", &list(&["obs.>", "new.>"]), &list(&["obs.*"])).unwrap();
        assert_eq!(warning.detail, "no subject of stream S (obs.*) can match new.>");
        assert_eq!(deaf_filters("S", &[], &list(&["a"])), None, "no filter takes all");
        assert_eq!(deaf_filters("S", &list(&["a"]), &[]), None, "nothing is known");
    }
}
