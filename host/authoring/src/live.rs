//! Reads messages of a stream, as a sample or as fixtures. Acknowledges nothing and does not change the stream.

use std::time::Duration;

use lantern_broker::{Broker, BrokerConfig, BrokerError, ConnectError};
use lantern_model::batch::Delivery;

/// Connect timeout.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// Bytes of one read.
const BYTES_MAX: usize = 64 << 20;

/// A selection of messages of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The last messages.
    Last(u64),
    /// A range of sequences, inclusive.
    Between(u64, u64),
}

/// Messages of a stream.
#[derive(Clone, Debug)]
pub struct StreamMessages {
    /// Messages in stream order.
    pub messages: Vec<Delivery>,
    /// Subjects of the stream.
    pub subjects: Vec<String>,
}

/// Why messages could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// The address is invalid, or the broker unreachable.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The stream does not exist.
    #[error("no stream {0} on the broker")]
    NoStream(String),
    /// The selection contains no message.
    #[error("no such messages in the stream {0}")]
    Empty(String),
    /// A request to the broker failed.
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

impl LiveError {
    /// What the user can do.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Connect(ConnectError::Unreachable { .. }) => {
                Some("use --nats URL with credentials, or --data-dir DIR of a running host")
            }
            Self::Connect(error) => error.hint(),
            Self::NoStream(_) => {
                Some("check the name: stream names are case-sensitive and usually in upper case")
            }
            Self::Empty(_) | Self::Broker(_) => None,
        }
    }
}

/// Connects to a broker, and waits until it accepts the connection.
///
/// # Errors
/// If it does not within ten seconds.
pub async fn connect(config: BrokerConfig) -> Result<Broker, LiveError> {
    Ok(Broker::connect_within(config, CONNECT_TIME).await?)
}

/// Reads a part of a stream.
///
/// # Errors
/// See [`LiveError`].
pub async fn read(config: BrokerConfig, stream: &str, part: Part) -> Result<StreamMessages, LiveError> {
    lantern_broker::hide_library_panics();
    let broker = connect(config).await?;
    let read = read_part(&broker, stream, part).await;
    broker.stop().await;
    read
}

async fn read_part(broker: &Broker, stream: &str, part: Part) -> Result<StreamMessages, LiveError> {
    let facts = broker.stream_facts(stream).await?;
    let facts = facts.ok_or_else(|| LiveError::NoStream(stream.to_owned()))?;
    let (first, last) = match part {
        Part::Last(messages) => (
            broker.sequence_of_last(stream, &[], messages).await?.0,
            facts.last_sequence,
        ),
        Part::Between(first, last) => (first, last.min(facts.last_sequence)),
    };
    let Some(mut reading) = broker.read(stream, &[], first).await? else {
        return Err(LiveError::NoStream(stream.to_owned()));
    };
    let mut messages: Vec<Delivery> = Vec::new();
    let mut reached = first.saturating_sub(1);
    while reached < last {
        let more = reading.next(1_000, BYTES_MAX, Duration::ZERO).await?;
        let Some(newest) = more.last() else { break };
        reached = newest.sequence;
        messages.extend(more.into_iter().filter(|message| message.sequence <= last));
    }
    reading.close().await;
    if let Part::Last(wanted) = part {
        // Plugins never receive delete markers, and in a sample they would make JSON look like text.
        messages.retain(|message| !message.is_delete_marker());
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        messages.drain(..messages.len().saturating_sub(wanted));
    }
    match messages.is_empty() {
        true => Err(LiveError::Empty(stream.to_owned())),
        false => Ok(StreamMessages {
            messages,
            subjects: facts.subjects,
        }),
    }
}
