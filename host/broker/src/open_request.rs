//! What a source opens, and why that may fail.

use std::time::Duration;

use super::BrokerError;
use super::link::ServerVersion;

/// Lifetime of a pull request. The broker also keeps the requests of a vanished host this long.
pub(super) const PULL_EXPIRES: Duration = Duration::from_secs(10);

/// What a source reads, and from which position.
#[derive(Clone, Debug)]
pub struct OpenRequest {
    /// The stream.
    pub stream: String,
    /// Subject filters with wildcards; empty for the whole stream.
    pub subjects: Vec<String>,
    /// The name of the durable consumer.
    pub consumer: String,
    /// The identity of this database. Two hosts must not read through one consumer; this identity distinguishes them.
    pub owner: String,
    /// Start position.
    pub start: Start,
    /// The plugin's name, for the broker's list of consumers.
    pub plugin: String,
    /// The source's name in the plugin, for the same list.
    pub source: String,
    /// A description for the same list.
    pub description: String,
    /// Delete an existing consumer and create it again, because its position cannot be trusted. The consumer of an interest
    /// stream is only moved, because the broker would drop its messages.
    pub replace: bool,
    /// The term of the caller's lease, which grows when another host of the same database takes the source over; 0 if the
    /// database has only one host. A consumer of an earlier term is replaced at once: requests of the host before it may
    /// still wait, and the broker rejects them when the consumer is gone.
    pub term: u64,
}

/// Start position of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// After a position. The caller must have verified, with [`Broker::stream_facts`] and [`Broker::message_at`], that
    /// the position belongs to this history.
    After {
        /// Last completed stream sequence; 0 for the beginning.
        sequence: u64,
        /// When its message was stored. A younger message without a higher sequence proves another history.
        published_ns: Option<i64>,
    },
    /// With the first message stored at or after this time, in nanoseconds since 1970.
    AfterTime(i64),
}

/// Why a consumer could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The broker is unreachable or refuses the request.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The stream does not exist.
    #[error("there is no stream {stream} on the broker")]
    NoStream {
        /// The stream.
        stream: String,
    },
    /// The stream ends before the position, so the position was taken from another stream.
    #[error("stream {stream} ends at sequence {last}, before the position {after}")]
    Ahead {
        /// The stream.
        stream: String,
        /// The position.
        after: u64,
        /// The stream's last sequence.
        last: u64,
    },
    /// Another host owns this consumer.
    #[error("consumer {consumer} of stream {stream} {} {}", usage(*idle), describe_owner(owner.as_deref()))]
    Taken {
        /// The stream.
        stream: String,
        /// The consumer.
        consumer: String,
        /// The owner in its metadata.
        owner: Option<String>,
        /// Whether nobody is reading through it.
        idle: bool,
    },
    /// Another connection with this database's identity reads through this consumer.
    #[error(
        "consumer {consumer} of stream {stream} is being read through another connection with the identity of this \
         database: a lost connection of this host, whose requests expire within {} s, or another host that runs with a \
         copy of this database",
        PULL_EXPIRES.as_secs()
    )]
    Busy {
        /// The stream.
        stream: String,
        /// The consumer.
        consumer: String,
    },
    /// The consumer has another configuration and cannot be replaced: on an interest stream that would lose messages,
    /// and elsewhere the user may lack permission.
    #[error("consumer {consumer} of stream {stream} was changed: {}", differences.join("; "))]
    Changed {
        /// The stream.
        stream: String,
        /// The consumer.
        consumer: String,
        /// The differences.
        differences: Vec<String>,
    },
    /// This broker cannot rewind the consumer of an interest stream.
    #[error("interest stream {stream} needs nats-server 2.14 or later, and this is {version}")]
    NeedsReset {
        /// The stream.
        stream: String,
        /// The broker's version.
        version: ServerVersion,
    },
}

fn usage(idle: bool) -> &'static str {
    if idle { "belongs to" } else { "is in use by" }
}

fn describe_owner(owner: Option<&str>) -> String {
    owner.map_or("a program that is not Lantern".to_owned(), |owner| {
        format!("another host ({owner})")
    })
}

impl OpenError {
    /// Whether a retry may succeed without an operator's action.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Broker(error) => error.is_retryable(),
            // A stream may be created, and another host may stop, at any time.
            Self::NoStream { .. } | Self::Taken { .. } | Self::Busy { .. } => true,
            Self::Ahead { .. } | Self::Changed { .. } | Self::NeedsReset { .. } => false,
        }
    }

    /// A remedy for the operator.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Broker(error) => error.hint(),
            Self::NoStream { .. } => Some("create the stream, or configure Lantern to create it"),
            Self::Taken { idle: true, .. } => Some(
                "if that host is retired: lantern plugin take-over NAME; to read in parallel, set another \
                 broker.consumer_prefix",
            ),
            Self::Taken { idle: false, .. } | Self::Busy { .. } => Some(
                "two hosts cannot read through one consumer: stop the other one, or set another broker.consumer_prefix",
            ),
            Self::Changed { .. } => Some(
                "restore the consumer's configuration, or delete it if its unread messages may be lost (Lantern replaces it \
                     on streams that keep messages, if it has the permission)",
            ),
            Self::NeedsReset { .. } => Some("upgrade the broker, or give the stream limits retention"),
            Self::Ahead { .. } => None,
        }
    }
}
