//! Opening a subscription: finds the consumer, checks whose it is and what it is like, puts it where the caller's
//! checkpoint says, or makes it. Never a create over a live consumer: a rejected one destroys its state on some
//! brokers (nats-server #8491), so it is looked up first, and deleted before it is made anew.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::{Config, Info};
use async_nats::jetstream::stream::DeleteStatus;
use serde_json::json;
use tokio::time::Instant;
use tracing::{info, warn};

use super::ack::ConsumerHandle;
use super::api::EMPTY;
use super::client::Line;
use super::consumer::{OWNER, differences, wanted};
use super::link::ServerVersion;
use super::pull::PULL_EXPIRES;
use super::stream::retention;
use super::{Broker, BrokerError, Inner, Retention, Subscription, suspects};

/// What a source wants to read, and from where on.
#[derive(Clone, Debug)]
pub struct OpenRequest {
    /// The stream.
    pub stream: String,
    /// Subjects that are wanted, with wildcards; empty for all of the stream.
    pub subjects: Vec<String>,
    /// The name of the durable consumer.
    pub consumer: String,
    /// The identity of this database. Two hosts must not read through one consumer, and this tells them apart.
    pub owner: String,
    /// Where to begin.
    pub start: Start,
    /// The plugin's name, for those who list the broker's consumers.
    pub plugin: String,
    /// The source's name within the plugin, for the same.
    pub source: String,
    /// A sentence for the same.
    pub description: String,
}

/// Where a subscription begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// After a position. That the history up to there is the one that the position was taken from is for the
    /// caller to know, by [`Broker::stream_facts`] and [`Broker::message_at`].
    After {
        /// The stream sequence that is done; 0 for the beginning.
        sequence: u64,
        /// When its message was stored. A message that is younger and has no higher sequence is proof of another
        /// history.
        published_ns: Option<i64>,
    },
    /// With the first message stored at or after this time, in nanoseconds since 1970.
    AfterTime(i64),
}

/// Why a consumer could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The broker could not be asked, or refused.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// There is no such stream.
    #[error("there is no stream {stream} on the broker")]
    NoStream {
        /// The stream.
        stream: String,
    },
    /// The stream ends before the position: it is not the one that the position was taken from.
    #[error("stream {stream} ends at sequence {last}, before the position {after}")]
    Ahead {
        /// The stream.
        stream: String,
        /// The position.
        after: u64,
        /// The stream's last sequence.
        last: u64,
    },
    /// Another host reads through this consumer, or did so last.
    #[error("consumer {consumer} of stream {stream} {} {}", used(*idle), other(owner.as_deref()))]
    Taken {
        /// The stream.
        stream: String,
        /// The consumer.
        consumer: String,
        /// Whose it is, by its metadata.
        owner: Option<String>,
        /// Whether nobody reads through it now.
        idle: bool,
    },
    /// Something else with this database's identity reads through this consumer.
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
    /// The consumer is not as it has to be, and it cannot be replaced: on an interest stream that would lose messages,
    /// and elsewhere the user may not be permitted to.
    #[error("consumer {consumer} of stream {stream} was changed: {}", differences.join("; "))]
    Changed {
        /// The stream.
        stream: String,
        /// The consumer.
        consumer: String,
        /// In what it differs.
        differences: Vec<String>,
    },
    /// The consumer of an interest stream cannot be rewound by this broker.
    #[error("interest stream {stream} needs nats-server 2.14 or later, and this is {version}")]
    NeedsReset {
        /// The stream.
        stream: String,
        /// The broker's version.
        version: ServerVersion,
    },
}

fn used(idle: bool) -> &'static str {
    if idle { "belongs to" } else { "is in use by" }
}

fn other(owner: Option<&str>) -> String {
    owner.map_or("a program that is not Lantern".to_owned(), |owner| {
        format!("another host ({owner})")
    })
}

impl OpenError {
    /// Whether it may work later without anybody doing anything about it.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Broker(error) => error.is_retryable(),
            // A stream may be made, and another host may end, at any time.
            Self::NoStream { .. } | Self::Taken { .. } | Self::Busy { .. } => true,
            Self::Ahead { .. } | Self::Changed { .. } | Self::NeedsReset { .. } => false,
        }
    }

    /// What the operator can do about it.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Broker(error) => error.hint(),
            Self::NoStream { .. } => Some("create the stream, or let the configuration ask for it"),
            Self::Taken { idle: true, .. } => Some(
                "if that host must not continue: lantern plugin take-over NAME; to read in parallel, set another \
                 broker.consumer_prefix",
            ),
            Self::Taken { idle: false, .. } | Self::Busy { .. } => Some(
                "two hosts cannot read through one consumer: stop the other one, or set another broker.consumer_prefix",
            ),
            Self::Changed { .. } => Some(
                "set the consumer back as it was, or delete it if what it has not read may be lost (Lantern replaces it \
                     on streams that keep messages, when it is permitted to)",
            ),
            Self::NeedsReset { .. } => Some("upgrade the broker, or give the stream limits retention"),
            Self::Ahead { .. } => None,
        }
    }
}

/// How long a consumer of another owner is watched before it counts as left behind.
pub(super) const IDLE_WATCH: Duration = Duration::from_secs(2);
/// How long an opening waits for requests of an earlier connection of this host to disappear.
const OWN_PATIENCE: Duration = Duration::from_secs(1);
/// How often a consumer is asked for meanwhile.
pub(super) const WATCH_EVERY: Duration = Duration::from_millis(250);

impl Broker {
    /// Opens the consumer that `request` describes and puts it at the start that it says; makes it if need be.
    /// Nothing is asked for before the first [`Subscription::next`].
    ///
    /// # Errors
    ///
    /// [`OpenError`]; its `is_retryable` says whether it makes sense to come back.
    pub async fn open(&self, request: OpenRequest) -> Result<Subscription, OpenError> {
        let inner = &self.inner;
        let server = inner.server()?;
        let Some(stream) = inner.stream_info(&request.stream).await? else {
            return Err(OpenError::NoStream {
                stream: request.stream,
            });
        };
        if let Start::After { sequence: after, .. } = request.start
            && after > stream.state.last_sequence
        {
            let last = stream.state.last_sequence;
            return Err(OpenError::Ahead {
                stream: request.stream,
                after,
                last,
            });
        }
        let retention = retention(stream.config.retention);
        let wanted = wanted(&request, retention, server.version);
        let line = Line::dial(&inner.main).await?;
        let care = match request.start {
            Start::After { sequence, .. } => inner
                .suspects()
                .get_mut(&suspects::key(&request))
                .and_then(|suspect| suspect.care(sequence)),
            Start::AfterTime(_) => None,
        };
        let info = match inner.consumer_info(&request.stream, &request.consumer).await? {
            None => inner.make(&request, &wanted, retention, server.version).await?,
            Some(_) if retention == Retention::Interest && !server.version.has_reset() => {
                return Err(OpenError::NeedsReset {
                    stream: request.stream,
                    version: server.version,
                });
            }
            Some(found) => {
                let found = inner.unused(&request, found).await?;
                let ours = inner.is_ours(&request, &found);
                if care.is_some() && retention != Retention::Limits && ours {
                    // What was delivered can only be acknowledged before the consumer is put back.
                    found
                } else {
                    inner
                        .rewind(&request, &wanted, retention, server.version, found)
                        .await?
                }
            }
        };
        let handle = ConsumerHandle {
            inner: Arc::clone(inner),
            line: Arc::new(line),
            stream: request.stream.clone(),
            consumer: request.consumer.clone(),
            wanted: Arc::new(wanted),
        };
        Subscription::new(handle, request, retention, &info, care).await
    }
}

impl Inner {
    /// Checks that nobody pulls through the consumer and that it is not another host's: whether that host is to continue
    /// is for an operator to decide. Requests of our own earlier subscription are gone within moments; those of a
    /// connection that died silently expire, and the caller tries again until then.
    async fn unused(&self, request: &OpenRequest, found: Info) -> Result<Info, OpenError> {
        let owner = found.config.metadata.get(OWNER).cloned();
        let ours = self.is_ours(request, &found);
        if ours && found.num_waiting == 0 {
            return Ok(found);
        }
        let taken = || OpenError::Taken {
            stream: request.stream.clone(),
            consumer: request.consumer.clone(),
            owner: owner.clone(),
            idle: found.num_waiting == 0,
        };
        if !ours && (owner.is_some() || found.num_waiting > 0) {
            return Err(taken());
        }
        let patience = if ours { OWN_PATIENCE } else { IDLE_WATCH };
        let deadline = Instant::now() + patience;
        let mut pause = Duration::from_millis(5);
        loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(250));
            let Some(now) = self.consumer_info(&request.stream, &request.consumer).await? else {
                return Ok(found);
            };
            let moved = now.delivered.consumer_sequence != found.delivered.consumer_sequence;
            match (ours, now.num_waiting > 0, Instant::now() >= deadline) {
                (true, false, _) => return Ok(now),
                (true, true, true) => {
                    return Err(OpenError::Busy {
                        stream: request.stream.clone(),
                        consumer: request.consumer.clone(),
                    });
                }
                (false, waiting, _) if waiting || moved => return Err(taken()),
                (false, _, true) => return Ok(now),
                _ => {}
            }
        }
    }

    /// Whether the consumer has our name, or none, because we were not permitted to write ours.
    fn is_ours(&self, request: &OpenRequest, found: &Info) -> bool {
        match found.config.metadata.get(OWNER) {
            Some(owner) => *owner == request.owner,
            None => self.unnamed().contains(&suspects::key(request)),
        }
    }

    /// Puts the consumer `found` where `request` says.
    async fn rewind(
        &self,
        request: &OpenRequest,
        wanted: &Config,
        retention: Retention,
        version: ServerVersion,
        found: Info,
    ) -> Result<Info, OpenError> {
        let differences = differences(wanted, &found.config);
        let owner = found.config.metadata.get(OWNER);
        let adopted = !self.is_ours(request, &found);
        let resettable = retention == Retention::Interest
            || (version.has_reset() && matches!(request.start, Start::After { .. }));
        let changed = |differences| OpenError::Changed {
            stream: request.stream.clone(),
            consumer: request.consumer.clone(),
            differences,
        };
        if differences.is_empty() && resettable {
            if adopted {
                info!(
                    stream = request.stream,
                    consumer = request.consumer,
                    before = owner,
                    "the consumer belongs to no host: taking it over"
                );
                self.adopt(request, wanted, &found).await?;
            }
            return Ok(self
                .reset(request, rewound(request.start, retention, &found))
                .await?);
        }
        if retention == Retention::Interest {
            return Err(changed(differences));
        }
        if adopted {
            info!(
                stream = request.stream,
                consumer = request.consumer,
                before = owner,
                "the consumer belongs to no host: taking it over"
            );
        } else if version.has_reset() {
            warn!(
                stream = request.stream,
                consumer = request.consumer,
                ?differences,
                "the consumer is not as it was made: replacing it"
            );
        }
        let deleted: Result<Option<DeleteStatus>, BrokerError> = self
            .request(
                format!("CONSUMER.DELETE.{}.{}", request.stream, request.consumer),
                &EMPTY,
                &[ErrorCode::CONSUMER_NOT_FOUND],
            )
            .await;
        match deleted {
            Err(BrokerError::Forbidden { .. }) if !differences.is_empty() => {
                return Err(changed(differences));
            }
            deleted => deleted?,
        };
        // An operator's pause outlives the rewinding.
        let wanted = Config {
            pause_until: found.config.pause_until,
            ..wanted.clone()
        };
        Ok(self.make(request, &wanted, retention, version).await?)
    }

    /// Makes the consumer, which must not exist, and moves it to where `request` says.
    async fn make(
        &self,
        request: &OpenRequest,
        wanted: &Config,
        retention: Retention,
        version: ServerVersion,
    ) -> Result<Info, BrokerError> {
        let info = self
            .write(&request.stream, &request.consumer, wanted, "create")
            .await?;
        match request.start {
            Start::After { sequence, .. }
                if sequence > 0 && retention == Retention::Limits && version.has_reset() =>
            {
                self.reset(request, sequence + 1).await
            }
            _ => Ok(info),
        }
    }

    /// Writes our name on a consumer that is otherwise as it should be. One that somebody made for us, without a name,
    /// is also used when we may not write on it.
    async fn adopt(&self, request: &OpenRequest, wanted: &Config, found: &Info) -> Result<(), BrokerError> {
        let written = self
            .write_metadata(&request.stream, &request.consumer, &wanted.metadata, found)
            .await;
        match written {
            Err(BrokerError::Forbidden { .. }) if !found.config.metadata.contains_key(OWNER) => {
                info!(
                    stream = request.stream,
                    consumer = request.consumer,
                    "using a consumer that Lantern is not permitted to write its name on"
                );
                self.unnamed().insert(suspects::key(request));
                Ok(())
            }
            written => written,
        }
    }

    /// Writes metadata, such as our name, on a consumer and changes nothing else of it.
    pub(super) async fn write_metadata(
        &self,
        stream: &str,
        consumer: &str,
        metadata: &HashMap<String, String>,
        found: &Info,
    ) -> Result<(), BrokerError> {
        // What the server has added to the metadata is the server's.
        let ours = metadata.iter().map(|(name, value)| (name.clone(), value.clone()));
        let kept = found
            .config
            .metadata
            .iter()
            .filter(|(name, _)| !name.starts_with("_nats."));
        let metadata: HashMap<String, String> = kept
            .map(|(name, value)| (name.clone(), value.clone()))
            .chain(ours)
            .collect();
        let config = Config {
            metadata,
            ..found.config.clone()
        };
        self.write(stream, consumer, &config, "update").await?;
        Ok(())
    }

    async fn write(
        &self,
        stream: &str,
        consumer: &str,
        config: &Config,
        action: &str,
    ) -> Result<Info, BrokerError> {
        let mut subject = format!("CONSUMER.CREATE.{stream}.{consumer}");
        if !config.filter_subject.is_empty() {
            // The broker wants a single filter in the subject as well, so that permissions can name it.
            subject = format!("{subject}.{}", config.filter_subject);
        }
        let payload = json!({ "stream_name": stream, "config": config, "action": action });
        self.must(subject, &payload).await
    }

    async fn reset(&self, request: &OpenRequest, sequence: u64) -> Result<Info, BrokerError> {
        let subject = format!("CONSUMER.RESET.{}.{}", request.stream, request.consumer);
        self.must(subject, &json!({ "seq": sequence })).await
    }

    async fn must(&self, subject: String, payload: &serde_json::Value) -> Result<Info, BrokerError> {
        let what = subject.clone();
        let answer = self.request(subject, payload, &[]).await?;
        answer.ok_or(BrokerError::Answer {
            what,
            detail: "nothing was made".to_owned(),
        })
    }
}

/// The stream sequence that the consumer has to deliver next.
fn rewound(start: Start, retention: Retention, found: &Info) -> u64 {
    let after = match start {
        Start::After { sequence, .. } => sequence,
        Start::AfterTime(_) => 0,
    };
    match retention {
        Retention::Limits => after + 1,
        // What is committed and whose acknowledgement was lost is still there, and has to be acknowledged.
        Retention::WorkQueue | Retention::Interest => after.min(found.ack_floor.stream_sequence) + 1,
    }
}
