//! Warnings about a source that runs: acknowledgements that the broker does not apply, filters that match nothing, a
//! consumer that the broker may delete, a broker that can lose messages, declarations that are not portable. Pure
//! functions; the session queries the broker and reports the result.

use std::time::Duration;

use tokio::time::Instant;

use lantern_broker::{ConsumerFacts, DurabilityRisk, Retention, ServerVersion, StreamSafety};
use lantern_model::schema::Manifest;
use lantern_model::schema::subjects::overlap;
use lantern_model::status::{ProjectionWarning, ProjectionWarningKind};

/// How long the broker's ack floor may stay behind an acknowledgement before the host sends it again. Normally it
/// follows within milliseconds.
const RESEND_AFTER: Duration = Duration::from_secs(3);

/// How long it may stay behind, despite a repeated acknowledgement, before the acknowledgements count as refused.
const REFUSED_AFTER: Duration = Duration::from_secs(6);

/// Compares the acknowledged sequence with the broker's ack floor.
#[derive(Debug, Default)]
pub(super) struct AckWatch {
    /// The acknowledged sequence when the broker was first seen to be behind, and that time.
    behind: Option<(u64, Instant)>,
}

/// The state of acknowledgements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acks {
    /// The broker applies them, or none was sent.
    Follow,
    /// The broker has not applied the last one: send it again.
    Resend,
    /// The broker does not apply them although the host repeats them.
    Refused,
    /// The broker confirmed the repeated one.
    TakenAgain,
}

impl AckWatch {
    /// Evaluates one survey: the last acknowledged sequence, and the broker's ack floor.
    pub(super) fn observe(&mut self, now: Instant, acknowledged: Option<u64>, floor: u64) -> Acks {
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
            // The floor reached that sequence; later surveys judge newer acknowledgements.
            _ => {
                self.behind = Some((acknowledged, now));
                Acks::Follow
            }
        }
    }
}

/// The warning about acknowledgements. On a stream that deletes acknowledged messages, the host is not ready, because
/// the stream fills up.
pub(super) fn refused_acks(retention: Retention, consumer: &ConsumerFacts) -> ProjectionWarning {
    let effect = match retention {
        Retention::Limits => "the broker's figures for this consumer lag behind; nothing is lost",
        Retention::WorkQueue | Retention::Interest => "stored messages stay in the stream",
    };
    ProjectionWarning {
        kind: ProjectionWarningKind::AcknowledgementsRefused,
        detail: format!(
            "the broker does not apply acknowledgements: its ack floor stays at sequence {}, with {} messages not \
             acknowledged; {effect} (the user needs permission to publish to $JS.ACK.>, and its account has to \
             import that subject where it imports the JetStream API)",
            consumer.ack_floor, consumer.ack_pending
        ),
        not_ready: retention != Retention::Limits,
    }
}

/// The warning about a consumer of an interest stream that the broker deletes while the host is away. Other streams
/// keep the messages.
pub(super) fn expiring_consumer(
    retention: Retention,
    name: &str,
    consumer: &ConsumerFacts,
) -> Option<ProjectionWarning> {
    let after = consumer.inactive_threshold;
    (retention == Retention::Interest && !after.is_zero()).then(|| ProjectionWarning {
        kind: ProjectionWarningKind::ConsumerExpires,
        detail: format!(
            "the broker deletes consumer {name} after {after:?} without a reader (inactive_threshold of the \
             consumer, or the stream's consumer_limits); an interest stream does not keep messages published after \
             that"
        ),
        not_ready: false,
    })
}

/// The warning about a version that an earlier release of the host installed, and that declares what not every database
/// can hold.
pub(super) fn not_portable(manifest: &Manifest) -> Option<ProjectionWarning> {
    let problems = manifest.portability_problems();
    (!problems.is_empty()).then(|| ProjectionWarning {
        kind: ProjectionWarningKind::NotPortable,
        detail: format!(
            "version {} declares what other databases cannot hold: {}; it keeps running, but the next version has to change \
             this",
            manifest.version,
            problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        ),
        not_ready: false,
    })
}

/// The warnings about a stream, or a connected server, that can lose confirmed messages.
pub(super) fn durability(
    stream: &str,
    safety: &StreamSafety,
    connected: Option<ServerVersion>,
) -> Vec<ProjectionWarning> {
    let mut risks = safety.risks();
    let of_leader = safety.leader_version.and_then(ServerVersion::risk);
    let of_server = connected.and_then(ServerVersion::risk);
    risks.extend(of_server.filter(|_| of_leader.is_none()));
    let warning = |risk: DurabilityRisk| ProjectionWarning {
        kind: match risk {
            DurabilityRisk::Version(_) => ProjectionWarningKind::ServerLosesData,
            DurabilityRisk::SingleReplica => ProjectionWarningKind::SingleReplica,
            DurabilityRisk::PersistedLater => ProjectionWarningKind::PersistedLater,
        },
        detail: format!("stream {stream}: {risk}; {}", risk.remedy()),
        not_ready: false,
    };
    risks.into_iter().map(warning).collect()
}

/// The warning about filters that no subject of the stream can match, for example after its subjects were edited.
pub(super) fn unmatched_filters(
    stream: &str,
    filters: &[String],
    stream_subjects: &[String],
) -> Option<ProjectionWarning> {
    let unmatched: Vec<&str> = filters
        .iter()
        .filter(|filter| !stream_subjects.iter().any(|subject| overlap(filter, subject)))
        .map(String::as_str)
        .collect();
    (!unmatched.is_empty() && !stream_subjects.is_empty()).then(|| ProjectionWarning {
        kind: ProjectionWarningKind::FilterMatchesNothing,
        detail: format!(
            "no subject of stream {stream} ({}) can match {}",
            stream_subjects.join(", "),
            unmatched.join(", ")
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
        let mut observe = |seconds, acknowledged, floor| {
            watch.observe(start + Duration::from_secs(seconds), acknowledged, floor)
        };
        assert_eq!(observe(0, None, 0), Acks::Follow);
        assert_eq!(observe(2, Some(10), 10), Acks::Follow);
        assert_eq!(observe(4, Some(20), 10), Acks::Follow, "it may be on its way");
        assert_eq!(observe(6, Some(30), 10), Acks::Follow);
        assert_eq!(observe(8, Some(40), 10), Acks::Resend);
        assert_eq!(observe(10, Some(40), 10), Acks::Refused);
        assert_eq!(observe(12, Some(40), 20), Acks::Follow, "it has come to 20");
        assert_eq!(observe(14, Some(40), 40), Acks::Follow);
    }

    #[test]
    fn a_constant_lag_of_the_broker_causes_no_warning() {
        let (mut watch, start) = (AckWatch::default(), Instant::now());
        for second in 0..60 {
            let found = watch.observe(
                start + Duration::from_secs(second),
                Some(second * 100 + 100),
                second * 100,
            );
            assert_eq!(found, Acks::Follow, "{second}");
        }
    }

    #[test]
    fn a_broker_that_can_lose_confirmed_messages_causes_one_warning_of_each_kind() {
        let version = |text| Some(ServerVersion::parse(text));
        let safety = StreamSafety {
            replicas: 1,
            is_clustered: true,
            is_persisted_later: true,
            leader_version: version("2.14.4"),
        };
        let kinds = |safety: &StreamSafety, connected| -> Vec<ProjectionWarningKind> {
            let warnings = durability("S", safety, connected);
            assert!(warnings.iter().all(|warning| !warning.not_ready));
            warnings.into_iter().map(|warning| warning.kind).collect()
        };
        let all = [
            ProjectionWarningKind::ServerLosesData,
            ProjectionWarningKind::SingleReplica,
            ProjectionWarningKind::PersistedLater,
        ];
        assert_eq!(kinds(&safety, version("2.14.4")), all);
        let safe = StreamSafety {
            replicas: 3,
            is_persisted_later: false,
            leader_version: version("2.15.1"),
            ..safety
        };
        assert!(kinds(&safe, version("2.15.1")).is_empty());
        assert_eq!(kinds(&safe, version("2.12.14")), [all[0]]);
        assert_eq!(
            durability("S", &StreamSafety { replicas: 1, ..safe }, None)[0].detail,
            "stream S: one replica in a cluster; the stream is unavailable or lost if its server fails; set the number of \
             replicas of the stream to 3"
        );
    }

    #[test]
    fn a_filter_without_a_matching_subject_causes_a_warning() {
        let list = |subjects: &[&str]| subjects.iter().map(|&s| s.to_owned()).collect::<Vec<String>>();
        let warning = unmatched_filters("S", &list(&["obs.>", "new.>"]), &list(&["obs.*"])).unwrap();
        assert_eq!(warning.detail, "no subject of stream S (obs.*) can match new.>");
        assert_eq!(
            unmatched_filters("S", &[], &list(&["a"])),
            None,
            "no filter takes all"
        );
        assert_eq!(
            unmatched_filters("S", &list(&["a"]), &[]),
            None,
            "nothing is known"
        );
    }
}
