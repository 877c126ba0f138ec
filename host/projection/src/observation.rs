//! Observes a stream and compares it with the history that was read, by the rules of `identity`.

use super::identity::{self, History, Resume, matches_anchor};
use lantern_broker::{Broker, BrokerError, StreamFacts};
use lantern_store::Attached;

/// The stream as one observation found it, with the conclusion.
pub(super) struct ObservedStream {
    pub(super) facts: StreamFacts,
    pub(super) history: History,
    pub(super) resume: Resume,
}

/// Observes a stream. Returns `None` when the broker reports that it does not exist.
pub(super) async fn observe(
    broker: &Broker,
    stream: &str,
    attached: Option<&Attached>,
) -> Result<Option<ObservedStream>, BrokerError> {
    let Some(facts) = broker.stream_facts(stream).await? else {
        return Ok(None);
    };
    let anchors = attached.map_or(&[][..], |attached| &attached.anchors);
    let mut found = Vec::new();
    for anchor in anchors {
        let sequences = facts.first_sequence..=facts.last_sequence;
        if !sequences.contains(&anchor.sequence) {
            continue;
        }
        let message = broker.message_at(stream, anchor.sequence).await?;
        found.push((anchor.sequence, message));
        if message.is_some_and(|message| matches_anchor(anchor, &message)) {
            break;
        }
    }
    let history = History {
        stream: stream.to_owned(),
        created_ns: facts.created_ns,
        begins_at: facts.begins_at,
        first_sequence: facts.first_sequence,
        last_sequence: facts.last_sequence,
        first_time_ns: facts.first_time_ns,
        is_mirror: facts.is_mirror,
        found,
    };
    let resume = identity::resume(attached, &history);
    Ok(Some(ObservedStream {
        facts,
        history,
        resume,
    }))
}

/// How a stream compares with the history that was read.
#[derive(Clone, Debug)]
pub enum HistoryComparison {
    /// It is that history, and its sequences identify the same messages. Its creation time may have changed.
    Same(Box<StreamFacts>),
    /// It is another history, or the evidence is inconclusive, for this reason.
    Other(String),
    /// The broker has no such stream.
    Missing,
}

/// Compares a stream with the history that was read, as a session does. Changes nothing.
///
/// # Errors
/// [`BrokerError`] when the broker is unreachable or does not answer.
pub async fn compare_history(
    broker: &Broker,
    stream: &str,
    attached: &Attached,
) -> Result<HistoryComparison, BrokerError> {
    let Some(found) = observe(broker, stream, Some(attached)).await? else {
        return Ok(HistoryComparison::Missing);
    };
    Ok(match found.resume {
        Resume::Continue { .. } => HistoryComparison::Same(Box::new(found.facts)),
        Resume::Begin { reason, .. } | Resume::BeginAfterTime { reason, .. } | Resume::Ask { reason } => {
            HistoryComparison::Other(reason)
        }
    })
}
