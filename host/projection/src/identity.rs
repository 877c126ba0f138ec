//! Whether the stream that the broker shows is the one that was read (ADR 3), and when that conclusion may take effect.
//! Pure functions: they neither wait, read nor write.

use std::time::Duration;

use lantern_broker::{ClusterFacts, Fingerprint};
use lantern_store::{Accepted, Anchor, Attached};

/// A stream's history as the broker shows it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// The name of the stream.
    pub stream: String,
    /// When the stream was created.
    pub created_ns: i64,
    /// The first sequence that is still in the stream.
    pub first_sequence: u64,
    /// The last sequence that was given out.
    pub last_sequence: u64,
    /// When the oldest message was stored; 0 when the stream is empty.
    pub first_time_ns: i64,
    /// Whether the stream is a mirror of another one.
    pub is_mirror: bool,
    /// What stands at the sequences of anchors, the newest first; none where the message is gone.
    /// Anchors behind the first one that is equal are left out.
    pub found: Vec<(u64, Option<Fingerprint>)>,
}

/// Where a source continues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// In the history that it knows, behind its checkpoint.
    Continue {
        /// Whether name or creation time of the stream have changed and have to be stored.
        changed: bool,
    },
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
    /// Nowhere until an operator decides: nothing that is stored proves either answer.
    Ask {
        /// What is not known.
        reason: String,
    },
}

/// What the anchors say about a stream.
enum Evidence {
    /// The newest anchor that the stream still holds is equal.
    Same,
    /// An older anchor is equal, and at the sequence of this newer one stands another message.
    Diverged(u64),
    /// No anchor is equal, and at this sequence stands another message.
    Other(u64),
    /// The stream holds no message at the sequence of any anchor.
    Nothing,
}

impl History {
    fn evidence(&self, anchors: &[Anchor]) -> Evidence {
        let mut other = None;
        for (sequence, message) in &self.found {
            let Some(message) = message else { continue };
            let known = anchors.iter().find(|anchor| anchor.sequence == *sequence);
            let equal = known.is_some_and(|known| is_at(known, message));
            match (equal, other) {
                (true, None) => return Evidence::Same,
                (true, Some(newer)) => return Evidence::Diverged(newer),
                (false, _) => other = other.or(Some(*sequence)),
            }
        }
        other.map_or(Evidence::Nothing, Evidence::Other)
    }

    /// The anchors that the stream has in common with what was read, the newest first.
    pub fn shared<'a>(&self, anchors: &'a [Anchor]) -> &'a [Anchor] {
        let equal = |anchor: &Anchor| {
            self.found.iter().any(|(sequence, message)| {
                *sequence == anchor.sequence && message.is_some_and(|message| is_at(anchor, &message))
            })
        };
        let newest = anchors.iter().position(equal).unwrap_or(anchors.len());
        &anchors[newest..]
    }
}

/// Whether a message is the one that was read.
pub fn is_at(anchor: &Anchor, message: &Fingerprint) -> bool {
    (anchor.published_ns, anchor.payload_sha256) == (message.published_ns, message.payload_sha256)
}

/// Compares what the database remembers with what the broker shows. Neither a sequence nor a creation time is an
/// identity: two histories can use the same sequences, and a cluster can change the creation time of a stream (ADR 3).
/// An anchor that is equal outranks both.
pub fn resume(attached: Option<&Attached>, history: &History) -> Resume {
    let Some(attached) = attached else {
        return Resume::Begin {
            after: 0,
            reason: "the first".to_owned(),
        };
    };
    let is_behind = history.last_sequence < attached.checkpoint.sequence;
    let same_creation = attached
        .stream_created_ns
        .is_none_or(|created| created == history.created_ns);
    match history.evidence(&attached.anchors) {
        Evidence::Same if !is_behind => Resume::Continue {
            changed: !same_creation || !is_named(attached, history),
        },
        Evidence::Same => went_back(attached, history, None),
        Evidence::Diverged(sequence) => went_back(attached, history, Some(sequence)),
        Evidence::Other(sequence) if same_creation => went_back(attached, history, Some(sequence)),
        Evidence::Other(sequence) => created_again(&format!(
            "another message stands at sequence {sequence} than the one that was read"
        )),
        Evidence::Nothing if same_creation && is_behind => went_back(attached, history, None),
        Evidence::Nothing if same_creation => Resume::Continue { changed: false },
        Evidence::Nothing => without_evidence(attached, history, is_behind),
    }
}

/// The stream was created at another time than the one that was read, and holds none of the anchors.
fn without_evidence(attached: &Attached, history: &History, is_behind: bool) -> Resume {
    let checkpoint = &attached.checkpoint;
    // Nothing was read, so the histories cannot differ; or all that was read was trimmed since. A stream that is
    // created again begins at 1.
    if checkpoint.sequence == 0 || (!is_behind && history.first_sequence > checkpoint.sequence) {
        return Resume::Continue { changed: true };
    }
    let nothing_read = checkpoint.published_ns == 0 && attached.epoch == 1;
    if nothing_read || history.first_time_ns == 0 {
        return created_again("nothing in it was read");
    }
    if !is_named(attached, history) && !history.is_mirror {
        return created_again("the source now reads another stream");
    }
    // Sequences and times grow together. No message up to the checkpoint can be younger than the one at it.
    if history.first_time_ns > checkpoint.published_ns && checkpoint.published_ns > 0 {
        return created_again("its oldest message is younger than the last one that was read");
    }
    Resume::Ask {
        reason: format!(
            "stream {} was created at another time than the one that was read, and holds none of the messages by \
             which it could be recognised (its sequences are {} to {}, the checkpoint is {})",
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

fn created_again(evidence: &str) -> Resume {
    Resume::Begin {
        after: 0,
        reason: format!("the stream was created again: its creation time is another one, and {evidence}"),
    }
}

/// `other` is the newest sequence at which another message stands; none where the stream ends before the checkpoint.
fn went_back(attached: &Attached, history: &History, other: Option<u64>) -> Resume {
    let checkpoint = &attached.checkpoint;
    let reason = match other {
        Some(sequence) if history.last_sequence >= checkpoint.sequence => {
            format!("another message stands at sequence {sequence} than the one that was read")
        }
        _ => format!(
            "the stream went back: its last sequence is {}, but {} had been read",
            history.last_sequence, checkpoint.sequence
        ),
    };
    match checkpoint.published_ns {
        // Nothing was ever read, so nothing can be handled twice.
        0 => Resume::Begin { after: 0, reason },
        time_ns => Resume::BeginAfterTime { time_ns, reason },
    }
}

/// What an operator's decision makes of a conclusion that has not taken effect. The operator may know what nobody can
/// prove; only behind the end of a stream can no source continue.
pub fn decided(accepted: Accepted, attached: &Attached, history: &History) -> Resume {
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

/// One look at a source's stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// What follows from it; none when the broker says that it has no such stream.
    pub resume: Option<Resume>,
    /// Which servers of a cluster gave the answer; none on a single server.
    pub cluster: Option<ClusterFacts>,
}

/// What may be done after a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// What the look says.
    Act,
    /// Look again, for this reason. Says whether the earlier look still counts.
    LookAgain {
        /// Why the look is not enough.
        reason: String,
        /// Whether the earlier look is the one to compare the next one with; else it is this one.
        keep_earlier: bool,
    },
}

/// Whether a look is enough to act on. On a cluster the leader of an earlier term, or a replica that is catching up, may
/// answer for a while. So what cannot be undone there (a new epoch, a stream that counts as missing) needs two looks
/// that agree, `apart` or more from each other, at the same leader and with all replicas current.
pub fn step(earlier: Option<(&Look, Duration)>, now: &Look, apart: Duration) -> Step {
    let Some(cluster) = &now.cluster else {
        return Step::Act;
    };
    let conclusion = match &now.resume {
        None => "the broker has no such stream",
        Some(Resume::Begin { reason, .. } | Resume::BeginAfterTime { reason, .. }) => reason.as_str(),
        Some(Resume::Continue { .. } | Resume::Ask { .. }) => return Step::Act,
    };
    let again = |why: &str, keep_earlier| Step::LookAgain {
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
    let agrees = |look: &Look| {
        let leader = |look: &Look| look.cluster.as_ref().and_then(|cluster| cluster.leader.clone());
        look.resume.as_ref().map(std::mem::discriminant) == now.resume.as_ref().map(std::mem::discriminant)
            && look
                .cluster
                .as_ref()
                .is_some_and(|cluster| cluster.behind.is_empty())
            && leader(look) == leader(now)
    };
    match earlier {
        Some((look, since)) if agrees(look) && since >= apart => Step::Act,
        Some((look, _)) if agrees(look) => again("the first one is not old enough", true),
        Some(_) => again("the first one differs", false),
        None => again("this is the first one", false),
    }
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
