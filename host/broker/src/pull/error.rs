//! Why a subscription ended, with a hint for the operator.

use std::time::Duration;

/// Why a subscription ended. The caller must drop it and open a new one at the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PullError {
    /// The connection was lost or replaced. The broker may have another history now.
    #[error("the connection to the broker was lost")]
    Reconnected,
    /// Neither a message nor a heartbeat arrived for two intervals.
    #[error("the broker is silent: no message and no heartbeat for {} s", after.as_secs())]
    Silent {
        /// How long the subscription waited.
        after: Duration,
    },
    /// Deliveries are missing: dropped in transit, or taken by another reader.
    #[error("delivery {expected} did not arrive, {found} did")]
    Hole {
        /// The expected delivery number.
        expected: u64,
        /// The delivery number that arrived.
        found: u64,
    },
    /// A known sequence now refers to a younger message.
    #[error("the stream has another history: sequence {sequence} is a younger message now")]
    HistoryChanged {
        /// The sequence.
        sequence: u64,
    },
    /// The consumer was deleted.
    #[error("the consumer was deleted")]
    ConsumerGone,
    /// The stream was deleted.
    #[error("the stream was deleted")]
    StreamGone,
    /// The broker rejects our requests; the consumer may have been changed.
    #[error("the broker refuses to deliver: {description} ({code})")]
    Refused {
        /// The broker's status code.
        code: u16,
        /// The broker's description.
        description: String,
    },
    /// Nobody answers pull requests although the consumer exists: JetStream is starting or has no leader.
    #[error("the broker does not answer pull requests")]
    NoResponders,
    /// A message made the client drop the connection; messages were read past it one by one.
    #[error("messages were read from the stream's store, past one that the client library cannot receive")]
    PastUnreadable,
}

impl PullError {
    /// A remedy for the operator.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Hole { .. } => Some("if it happens again, another program reads through the same consumer"),
            _ => None,
        }
    }
}
