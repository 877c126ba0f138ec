//! Decides whether the stream on the broker is the one that was read (ADR 3), and when that conclusion may take effect.
//! Pure functions: they neither wait, read nor write.

use std::time::Duration;

use lantern_broker::{ClusterFacts, Fingerprint};
use lantern_store::{Accepted, Anchor, Attached};

/// A stream's history as the broker reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// The name of the stream.
    pub stream: String,
    /// When the stream was created.
    pub created_ns: i64,
    /// The sequence at which the stream began; 1 unless its configuration names another one.
    pub begins_at: u64,
    /// The first sequence that the stream still holds.
    pub first_sequence: u64,
    /// The last assigned sequence.
    pub last_sequence: u64,
    /// When the oldest message was stored; 0 for an empty stream.
    pub first_time_ns: i64,
    /// Whether the stream is a mirror of another one.
    pub is_mirror: bool,
    /// The messages at the sequences of anchors, newest first; `None` where the message is gone. Ends at the first
    /// anchor that is equal.
    pub found: Vec<(u64, Option<Fingerprint>)>,
}

/// Where a source continues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// In the known history, after its checkpoint.
    Continue {
        /// Whether the stream's name or creation time changed and has to be stored.
        changed: bool,
    },
    /// In a new epoch, after this sequence.
    Begin {
        /// The last sequence that does not belong to the epoch.
        after: u64,
        /// The reason.
        reason: String,
    },
    /// In a new epoch of a stream that went back in time (restored from a backup, or its last messages were lost in a
    /// power failure): the messages published up to this time were handled, later ones were not.
    BeginAfterTime {
        /// The broker's time of the last handled message.
        time_ns: i64,
        /// The reason.
        reason: String,
    },
    /// Nowhere until an operator decides, because the stored evidence proves neither answer.
    Ask {
        /// What is unknown.
        reason: String,
    },
}

/// What the anchors prove about a stream.
enum Evidence {
    /// The newest anchor that the stream still holds is equal.
    Same,
    /// An older anchor is equal, and a different message is at the sequence of this newer one.
    Diverged(u64),
    /// No anchor is equal, and a different message is at this sequence.
    Other(u64),
    /// The stream holds no message at the sequence of any anchor.
    Nothing,
}

impl History {
    /// An epoch of all its messages.
    fn begin(&self, reason: String) -> Resume {
        let after = self.begins_at.saturating_sub(1);
        Resume::Begin { after, reason }
    }

    fn recreated(&self, evidence: &str) -> Resume {
        self.begin(format!(
            "the stream was recreated: its creation time changed, and {evidence}"
        ))
    }

    fn evidence(&self, anchors: &[Anchor]) -> Evidence {
        let mut other = None;
        for (sequence, message) in &self.found {
            let Some(message) = message else { continue };
            let known = anchors.iter().find(|anchor| anchor.sequence == *sequence);
            let equal = known.is_some_and(|known| matches_anchor(known, message));
            match (equal, other) {
                (true, None) => return Evidence::Same,
                (true, Some(newer)) => return Evidence::Diverged(newer),
                (false, _) => other = other.or(Some(*sequence)),
            }
        }
        other.map_or(Evidence::Nothing, Evidence::Other)
    }

    /// The anchors that the stream shares with the history that was read, newest first.
    pub fn shared<'a>(&self, anchors: &'a [Anchor]) -> &'a [Anchor] {
        let equal = |anchor: &Anchor| {
            self.found.iter().any(|(sequence, message)| {
                *sequence == anchor.sequence
                    && message.is_some_and(|message| matches_anchor(anchor, &message))
            })
        };
        let newest = anchors.iter().position(equal).unwrap_or(anchors.len());
        &anchors[newest..]
    }
}

/// Whether a message is the one that the anchor describes.
pub fn matches_anchor(anchor: &Anchor, message: &Fingerprint) -> bool {
    (anchor.published_ns, anchor.payload_sha256) == (message.published_ns, message.payload_sha256)
}

/// Compares the database with the broker. Neither a sequence nor a creation time identifies a stream: two histories can
/// use the same sequences, and a cluster can change the creation time of a stream (ADR 3). An equal anchor outranks
/// both.
pub fn resume(attached: Option<&Attached>, history: &History) -> Resume {
    let Some(attached) = attached else {
        return history.begin("the first".to_owned());
    };
    let ends_before_checkpoint = history.last_sequence < attached.checkpoint.sequence;
    let same_creation = attached
        .stream_created_ns
        .is_none_or(|created| created == history.created_ns);
    match history.evidence(&attached.anchors) {
        Evidence::Same if !ends_before_checkpoint => Resume::Continue {
            changed: !same_creation || !is_named(attached, history),
        },
        Evidence::Same => went_back(attached, history, None),
        Evidence::Diverged(sequence) => went_back(attached, history, Some(sequence)),
        Evidence::Other(sequence) if same_creation => went_back(attached, history, Some(sequence)),
        Evidence::Other(sequence) => history.recreated(&format!(
            "a different message is at sequence {sequence} than the one that was read"
        )),
        Evidence::Nothing if same_creation && ends_before_checkpoint => went_back(attached, history, None),
        Evidence::Nothing if same_creation => Resume::Continue { changed: false },
        Evidence::Nothing => without_evidence(attached, history, ends_before_checkpoint),
    }
}

/// The stream has another creation time than the one that was read, and holds none of the anchors.
fn without_evidence(attached: &Attached, history: &History, ends_before_checkpoint: bool) -> Resume {
    let checkpoint = &attached.checkpoint;
    if checkpoint.sequence > 0 && history.begins_at > checkpoint.sequence {
        return history.recreated("it began after the last sequence that was read");
    }
    // Sequences and times grow together: no message after the checkpoint can be older than the message at the checkpoint.
    let begins_after_checkpoint = history.first_sequence > checkpoint.sequence;
    if begins_after_checkpoint && (1..checkpoint.published_ns).contains(&history.first_time_ns) {
        return history.recreated(
            "its oldest message is older than the last message that was read, and has a later sequence",
        );
    }
    // Nothing was read, so the histories cannot differ; or everything that was read was trimmed since.
    if checkpoint.sequence == 0 || (!ends_before_checkpoint && begins_after_checkpoint) {
        return Resume::Continue { changed: true };
    }
    let nothing_read = checkpoint.published_ns == 0 && attached.epoch == 1;
    if nothing_read || history.first_time_ns == 0 {
        return history.recreated("nothing in it was read");
    }
    if !is_named(attached, history) && !history.is_mirror {
        return history.recreated("the source now reads another stream");
    }
    // For the same reason no message up to the checkpoint can be newer.
    if history.first_time_ns > checkpoint.published_ns && checkpoint.published_ns > 0 {
        return history.recreated("its oldest message is newer than the last message that was read");
    }
    Resume::Ask {
        reason: format!(
            "stream {} has another creation time than the one that was read, and holds none of the messages that \
             identify it (its sequences are {} to {}, the checkpoint is {})",
            history.stream, history.first_sequence, history.last_sequence, checkpoint.sequence
        ),
    }
}

fn is_named(attached: &Attached, history: &History) -> bool {
    attached
        .stream
        .as_deref()
        .is_none_or(|name| name == history.stream)
}

/// `other` is the newest sequence with a different message; `None` when the stream ends before the checkpoint.
fn went_back(attached: &Attached, history: &History, other: Option<u64>) -> Resume {
    let checkpoint = &attached.checkpoint;
    let reason = match other {
        Some(sequence) if history.last_sequence >= checkpoint.sequence => {
            format!("a different message is at sequence {sequence} than the one that was read")
        }
        _ => format!(
            "the stream went back: its last sequence is {}, but {} had been read",
            history.last_sequence, checkpoint.sequence
        ),
    };
    match checkpoint.published_ns {
        // Nothing was read, so nothing can be handled twice.
        0 => Resume::Begin { after: 0, reason },
        time_ns => Resume::BeginAfterTime { time_ns, reason },
    }
}

/// Applies an operator's decision to a conclusion that has not taken effect. The operator may know what the host cannot
/// prove; only a checkpoint after the end of the stream excludes continuing.
pub fn apply_decision(accepted: Accepted, attached: &Attached, history: &History) -> Resume {
    match accepted {
        Accepted::New => Resume::Begin {
            after: 0,
            reason: "an operator decided that this is another stream".to_owned(),
        },
        Accepted::Same if history.last_sequence < attached.checkpoint.sequence => {
            went_back(attached, history, None)
        }
        Accepted::Same => Resume::Continue { changed: true },
    }
}

/// One observation of a source's stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The conclusion; `None` when the broker reports that the stream does not exist.
    pub resume: Option<Resume>,
    /// The servers of a cluster that gave the answer; `None` on a single server.
    pub cluster: Option<ClusterFacts>,
}

/// What to do after an observation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextStep {
    /// Execute the conclusion.
    Act,
    /// Observe again.
    ObserveAgain {
        /// Why the observation is not sufficient.
        reason: String,
        /// Whether to compare the next observation with the earlier one; otherwise with this one.
        keep_earlier: bool,
    },
}

/// Decides whether an observation is sufficient. On a cluster, the leader of an earlier term or a replica that is
/// catching up may answer for a while. An irreversible conclusion (a new epoch, a missing stream) therefore requires
/// two equal observations, at least `apart` from each other, from the same leader and with all replicas current.
pub fn next_step(earlier: Option<(&Observation, Duration)>, now: &Observation, apart: Duration) -> NextStep {
    let Some(cluster) = &now.cluster else {
        return NextStep::Act;
    };
    let conclusion = match &now.resume {
        None => "the broker has no such stream",
        Some(Resume::Begin { reason, .. } | Resume::BeginAfterTime { reason, .. }) => reason.as_str(),
        Some(Resume::Continue { .. } | Resume::Ask { .. }) => return NextStep::Act,
    };
    let again = |why: &str, keep_earlier| NextStep::ObserveAgain {
        reason: format!("waiting for a second observation: {conclusion}; {why}"),
        keep_earlier,
    };
    if !cluster.behind.is_empty() {
        let names = cluster.behind.join(", ");
        return again(
            &format!(
                "replicas that are not current: {names} (an operator may decide: lantern source accept)"
            ),
            false,
        );
    }
    let agrees = |observation: &Observation| {
        let leader = |observation: &Observation| {
            observation
                .cluster
                .as_ref()
                .and_then(|cluster| cluster.leader.clone())
        };
        observation.resume.as_ref().map(std::mem::discriminant)
            == now.resume.as_ref().map(std::mem::discriminant)
            && observation
                .cluster
                .as_ref()
                .is_some_and(|cluster| cluster.behind.is_empty())
            && leader(observation) == leader(now)
    };
    match earlier {
        Some((observation, since)) if agrees(observation) && since >= apart => NextStep::Act,
        Some((observation, _)) if agrees(observation) => again("the first one is not old enough", true),
        Some(_) => again("the first one differs", false),
        None => again("this is the first one", false),
    }
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
