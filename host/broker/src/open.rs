//! Opens a subscription: finds the consumer, checks its owner and configuration, and moves it to the caller's
//! checkpoint, or creates it. Never creates over a live consumer, because a rejected create destroys its state on some
//! brokers (nats-server #8491): it is looked up first, and deleted before it is created again.

pub(super) mod ownership;

use std::collections::HashMap;
use std::sync::Arc;

use async_nats::jetstream::consumer::{Config, Info};
use serde_json::json;
use tracing::{info, warn};

use super::ack::ConsumerHandle;
use super::client::Line;
use super::consumer::{OWNER, desired_config, differences};
use super::link::ServerVersion;
use super::open_request::{OpenError, OpenRequest, Start};
use super::pull::Subscription;
use super::stream::retention;
use super::{Broker, BrokerError, Inner, Retention, suspects};

impl Broker {
    /// Opens the consumer of `request` at its start position, and creates it if necessary. Requests no messages before
    /// the first [`Subscription::next`].
    ///
    /// # Errors
    /// [`OpenError`]; its `is_retryable` reports whether a retry makes sense.
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
        let desired = desired_config(&request, retention, server.version);
        let line = Line::dial(&inner.main).await?;
        let careful = inner.careful_read(&request);
        let info = match inner.consumer_info(&request.stream, &request.consumer).await? {
            None => {
                inner
                    .create(&request, &desired, retention, server.version)
                    .await?
            }
            Some(_) if retention == Retention::Interest && !server.version.has_reset() => {
                return Err(OpenError::NeedsReset {
                    stream: request.stream,
                    version: server.version,
                });
            }
            Some(found) if retention != Retention::Interest && inner.is_of_earlier_term(&request, &found) => {
                inner
                    .replace_earlier_term(&request, &desired, retention, server.version, found)
                    .await?
            }
            Some(found) => {
                let found = inner.wait_until_unused(&request, found).await?;
                let ours = inner.is_ours(&request, &found);
                if careful.is_some() && retention != Retention::Limits && ours {
                    // Delivered messages can only be acknowledged before the consumer is rewound.
                    found
                } else {
                    inner
                        .rewind(&request, &desired, retention, server.version, found)
                        .await?
                }
            }
        };
        let handle = ConsumerHandle {
            inner: Arc::clone(inner),
            line: Arc::new(line),
            stream: request.stream.clone(),
            consumer: request.consumer.clone(),
            desired: Arc::new(desired),
        };
        Subscription::new(handle, request, retention, &info, careful).await
    }
}

impl Inner {
    /// The careful read that an earlier loss at this position requires.
    fn careful_read(&self, request: &OpenRequest) -> Option<suspects::CarefulRead> {
        let Start::After { sequence, .. } = request.start else {
            return None;
        };
        let mut suspects = self.suspects();
        suspects.get_mut(&suspects::key(request))?.careful_read(sequence)
    }

    /// Deletes the consumer of an earlier term and creates it again.
    async fn replace_earlier_term(
        &self,
        request: &OpenRequest,
        desired: &Config,
        retention: Retention,
        version: ServerVersion,
        found: Info,
    ) -> Result<Info, OpenError> {
        info!(
            stream = request.stream,
            consumer = request.consumer,
            term = request.term,
            "taking over the consumer of another host"
        );
        self.delete(request).await?;
        let desired = Config {
            pause_until: found.config.pause_until,
            ..desired.clone()
        };
        Ok(self.create(request, &desired, retention, version).await?)
    }

    /// Moves the consumer `found` to the start of `request`.
    async fn rewind(
        &self,
        request: &OpenRequest,
        desired: &Config,
        retention: Retention,
        version: ServerVersion,
        found: Info,
    ) -> Result<Info, OpenError> {
        let differences = differences(desired, &found.config);
        let adopted = !self.is_ours(request, &found);
        let resettable = retention == Retention::Interest
            || (version.has_reset() && matches!(request.start, Start::After { .. }));
        let changed = |differences| OpenError::Changed {
            stream: request.stream.clone(),
            consumer: request.consumer.clone(),
            differences,
        };
        let replace = request.replace && retention != Retention::Interest;
        if differences.is_empty() && resettable && !replace {
            if adopted {
                log_adoption(request, &found);
                self.adopt(request, desired, &found).await?;
            }
            return Ok(self
                .reset(request, next_sequence(request.start, retention, &found))
                .await?);
        }
        if retention == Retention::Interest {
            return Err(changed(differences));
        }
        let (stream, consumer) = (&request.stream, &request.consumer);
        if adopted {
            log_adoption(request, &found);
        } else if replace {
            warn!(stream, consumer, "replacing a consumer that did not deliver");
        } else if version.has_reset() {
            warn!(
                stream,
                consumer,
                ?differences,
                "replacing a consumer whose configuration was changed"
            );
        }
        match self.delete(request).await {
            Err(BrokerError::Forbidden { .. }) if !differences.is_empty() => {
                return Err(changed(differences));
            }
            deleted => deleted?,
        };
        // Keep an operator's pause.
        let desired = Config {
            pause_until: found.config.pause_until,
            ..desired.clone()
        };
        Ok(self.create(request, &desired, retention, version).await?)
    }

    /// Creates the consumer, which must not exist, and moves it to the start of `request`.
    async fn create(
        &self,
        request: &OpenRequest,
        desired: &Config,
        retention: Retention,
        version: ServerVersion,
    ) -> Result<Info, BrokerError> {
        let info = self
            .write(&request.stream, &request.consumer, desired, "create")
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

    /// Writes our name on a consumer whose configuration is correct. A consumer without a name that was created for us
    /// is used even without permission to write on it.
    async fn adopt(&self, request: &OpenRequest, desired: &Config, found: &Info) -> Result<(), BrokerError> {
        let written = self
            .write_metadata(&request.stream, &request.consumer, &desired.metadata, found)
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

    /// Updates the metadata of a consumer and nothing else.
    pub(super) async fn write_metadata(
        &self,
        stream: &str,
        consumer: &str,
        metadata: &HashMap<String, String>,
        found: &Info,
    ) -> Result<(), BrokerError> {
        // The server owns the keys that it added.
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
            // The broker requires a single filter in the subject as well, so that permissions can name it.
            subject = format!("{subject}.{}", config.filter_subject);
        }
        let payload = json!({ "stream_name": stream, "config": config, "action": action });
        self.request_consumer(subject, &payload).await
    }

    async fn reset(&self, request: &OpenRequest, sequence: u64) -> Result<Info, BrokerError> {
        let subject = format!("CONSUMER.RESET.{}.{}", request.stream, request.consumer);
        self.request_consumer(subject, &json!({ "seq": sequence })).await
    }

    async fn request_consumer(
        &self,
        subject: String,
        payload: &serde_json::Value,
    ) -> Result<Info, BrokerError> {
        let what = subject.clone();
        let answer = self.request(subject, payload, &[]).await?;
        answer.ok_or(BrokerError::Answer {
            what,
            detail: "the broker created nothing".to_owned(),
        })
    }
}

fn log_adoption(request: &OpenRequest, found: &Info) {
    info!(
        stream = request.stream,
        consumer = request.consumer,
        before = found.config.metadata.get(OWNER),
        "taking over a consumer that belongs to no host"
    );
}

/// The stream sequence that the consumer delivers next.
fn next_sequence(start: Start, retention: Retention, found: &Info) -> u64 {
    let after = match start {
        Start::After { sequence, .. } => sequence,
        Start::AfterTime(_) => 0,
    };
    match retention {
        Retention::Limits => after + 1,
        // A committed message whose acknowledgement was lost is still in the stream and must be acknowledged.
        Retention::WorkQueue | Retention::Interest => after.min(found.ack_floor.stream_sequence) + 1,
    }
}
