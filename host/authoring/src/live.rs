//! Messages from a stream of a running broker, to guess from or to keep as fixtures. Nothing is acknowledged, and the
//! stream stays as it is.

use std::time::Duration;

use lantern_broker::{Broker, BrokerConfig, BrokerError, ConnectError, Link};
use lantern_model::batch::Delivery;

/// How long a broker may take to let us in.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// Bytes that are read at once.
const BYTES_MAX: usize = 64 << 20;

/// Which messages of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The last so many.
    Last(u64),
    /// From one sequence to another, both included.
    Between(u64, u64),
}

/// What was read.
#[derive(Clone, Debug)]
pub struct Read {
    /// In the order of the stream.
    pub messages: Vec<Delivery>,
    /// The subjects that the stream takes in.
    pub subjects: Vec<String>,
}

/// Why nothing was read.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// The address cannot be used.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The broker does not let us in.
    #[error("cannot reach the broker {url}: {why}")]
    Unreachable {
        /// Which one, without credentials.
        url: String,
        /// Why.
        why: String,
    },
    /// There is no such stream.
    #[error("the broker has no stream {0}")]
    NoStream(String),
    /// There is nothing to read.
    #[error("the stream {0} has no such messages")]
    Empty(String),
    /// The broker went wrong on the way.
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

impl LiveError {
    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Connect(error) => error.hint(),
            Self::Unreachable { .. } => {
                Some("name the broker with --nats URL and its login, or a running host with --data-dir DIR")
            }
            Self::NoStream(_) => Some("stream names are written as the broker has them, mostly in capitals"),
            Self::Empty(_) | Self::Broker(_) => None,
        }
    }
}

/// Connects to a broker, and waits until it lets us in.
///
/// # Errors
/// When it does not within ten seconds.
pub async fn connect(config: BrokerConfig) -> Result<Broker, LiveError> {
    let shown = config.place.to_string();
    let broker = Broker::connect(config).await?;
    let mut link = broker.link();
    let connected = tokio::time::timeout(CONNECT_TIME, link.wait_for(Link::is_connected)).await;
    if matches!(connected, Ok(Ok(_))) {
        return Ok(broker);
    }
    let why = match &*broker.link().borrow() {
        Link::Refused { why, .. } => why.clone(),
        Link::Connecting { last_error, .. } => {
            last_error.clone().unwrap_or_else(|| "nobody answers".to_owned())
        }
        Link::Connected(_) => "it was too late".to_owned(),
    };
    broker.stop().await;
    Err(LiveError::Unreachable { url: shown, why })
}

/// Reads a part of a stream.
///
/// # Errors
/// See [`LiveError`].
pub async fn read(config: BrokerConfig, stream: &str, part: Part) -> Result<Read, LiveError> {
    lantern_broker::hide_library_panics();
    let broker = connect(config).await?;
    let read = read_part(&broker, stream, part).await;
    broker.stop().await;
    read
}

async fn read_part(broker: &Broker, stream: &str, part: Part) -> Result<Read, LiveError> {
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
        // No plugin sees them, and one would make a sample of JSON look like text.
        messages.retain(|message| !message.is_delete_marker());
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        messages.drain(..messages.len().saturating_sub(wanted));
    }
    match messages.is_empty() {
        true => Err(LiveError::Empty(stream.to_owned())),
        false => Ok(Read {
            messages,
            subjects: facts.subjects,
        }),
    }
}
