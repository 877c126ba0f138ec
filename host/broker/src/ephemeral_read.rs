//! Ephemeral reads: the messages that a stream still holds from a sequence on, without moving or querying the durable
//! consumer. Nothing is acknowledged.
//!
//! An ephemeral read has its own connection and a short-lived consumer, so a slow reader or a message whose headers
//! break the connection cannot affect the projections. After a failure it reads some messages one by one from the
//! stream's store and then creates a new consumer. Streams that delete acknowledged messages are only read one by one,
//! because another consumer could delete messages or retain them.

use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::Info;
use async_nats::jetstream::stream::DeleteStatus;
use async_nats::{Message, StatusCode, Subscriber};
use futures_util::StreamExt as _;
use serde_json::json;
use tokio::time::Instant;

use super::api::EMPTY;
use super::client::Line;
use super::consumer::PullLimits;
use super::sequence::DeliveryPosition;
use super::stored::Stored;
use super::{Broker, BrokerError, Inner, Retention, headers};
use lantern_model::batch::Delivery;

/// How long the broker keeps an idle consumer: longer than a plugin needs for a batch.
const INACTIVE: Duration = Duration::from_secs(30);
/// How late an answer may be before it counts as lost.
const LATE: Duration = Duration::from_secs(5);
/// Messages that are read one by one after a failure: enough to pass the one that caused it.
const CAREFUL_MESSAGES: u32 = 64;
/// Polling interval where the broker cannot notify about new messages.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Maximum number of counts in a growing stream before the bounds are accepted.
const COUNTS_MAX: u32 = 5;

/// A read of what a stream still holds, from a sequence on.
pub struct EphemeralRead {
    broker: Broker,
    stream: String,
    subjects: Vec<String>,
    /// The first sequence that was not returned yet.
    next: u64,
    one_by_one: bool,
    careful: u32,
    line: Option<Line>,
    consumer: Option<EphemeralConsumer>,
    lost_connections: u64,
}

/// A consumer that the broker deletes after inactivity.
struct EphemeralConsumer {
    name: String,
    /// Limits of one request.
    limits: PullLimits,
    /// Deliveries so far.
    delivered: u64,
}

impl EphemeralConsumer {
    /// Collects the answer to one request. When the connection is lost, the messages that arrived before are valid.
    async fn collect(
        &mut self,
        line: &Line,
        mut subscriber: Subscriber,
        messages: usize,
        wait: Duration,
    ) -> Pull {
        let mut deliveries = Vec::new();
        let mut deadline = Instant::now() + wait + LATE;
        while deliveries.len() < messages {
            let arrived = tokio::select! {
                biased;
                arrived = subscriber.next() => arrived,
                () = line.lost() => None,
                () = tokio::time::sleep_until(deadline) => return Pull::Lost,
            };
            let Some(message) = arrived else {
                return if deliveries.is_empty() {
                    Pull::Disconnected
                } else {
                    Pull::Messages(deliveries)
                };
            };
            let position = message
                .reply
                .as_ref()
                .and_then(|reply| DeliveryPosition::parse(reply));
            let Some(position) = position else {
                if let Some(end) = ended(&message, deliveries.is_empty()) {
                    return end.unwrap_or(Pull::Messages(deliveries));
                }
                continue;
            };
            if position.consumer_sequence != self.delivered + 1 {
                return Pull::Lost;
            }
            self.delivered += 1;
            deadline = deadline.max(Instant::now() + LATE);
            deliveries.push(delivery(message, position));
        }
        Pull::Messages(deliveries)
    }
}

fn failed(what: &str, error: &dyn std::fmt::Display) -> BrokerError {
    BrokerError::Answer {
        what: what.to_owned(),
        detail: error.to_string(),
    }
}

/// The result of one pull request.
enum Pull {
    /// The available messages.
    Messages(Vec<Delivery>),
    /// The next message exceeds the requested bytes.
    TooLarge,
    /// The connection was lost before a message arrived.
    Disconnected,
    /// The consumer is no longer reliable.
    Lost,
}

impl Broker {
    /// Starts to read `stream` at `first_sequence`, restricted to `subjects` (empty means all). `None` when the stream
    /// does not exist. End the read with [`EphemeralRead::close`].
    ///
    /// # Errors
    /// [`BrokerError`] when the broker is unreachable or does not answer.
    pub async fn read(
        &self,
        stream: &str,
        subjects: &[String],
        first_sequence: u64,
    ) -> Result<Option<EphemeralRead>, BrokerError> {
        let facts = self.stream_facts(stream).await?;
        Ok(facts.map(|facts| EphemeralRead {
            broker: self.clone(),
            stream: stream.to_owned(),
            subjects: subjects.to_vec(),
            next: first_sequence.max(1),
            one_by_one: facts.retention != Retention::Limits,
            careful: 0,
            line: None,
            consumer: None,
            lost_connections: 0,
        }))
    }

    /// The sequence from which `stream` holds the last `messages` matching messages, and how many more than that it
    /// holds. For streams that delete acknowledged messages: what is left of the last `messages` sequences.
    ///
    /// # Errors
    /// [`BrokerError`] when the broker is unreachable or does not answer, or the stream does not exist.
    pub async fn sequence_of_last(
        &self,
        stream: &str,
        subjects: &[String],
        messages: u64,
    ) -> Result<(u64, u64), BrokerError> {
        let Some(facts) = self.stream_facts(stream).await? else {
            return Err(BrokerError::Answer {
                what: format!("the last messages of stream {stream}"),
                detail: "there is no such stream".to_owned(),
            });
        };
        let (first, end) = (facts.first_sequence.max(1), facts.last_sequence + 1);
        let nearest = end.saturating_sub(messages).max(first);
        if facts.retention != Retention::Limits {
            return Ok((nearest, 0));
        }
        // From `low` on there are enough messages, from `high` on too few: first in growing steps, then by bisection.
        let (mut low, mut high) = (nearest, end);
        let mut found = self.inner.pending_from(stream, subjects, low).await?;
        let mut step = messages;
        while found < messages && low > first {
            high = low;
            step = step.saturating_mul(4);
            low = low.saturating_sub(step).max(first);
            found = self.inner.pending_from(stream, subjects, low).await?;
        }
        // Close enough: the caller skips the excess.
        while found > messages + messages / 16 && high - low > 1 {
            let middle = low + (high - low) / 2;
            match self.inner.pending_from(stream, subjects, middle).await? {
                fewer if fewer < messages => high = middle,
                enough => (low, found) = (middle, enough),
            }
        }
        Ok((low, found.saturating_sub(messages)))
    }

    /// Lower and upper bound of the number of messages matching `subjects` (empty means all) that `stream` holds after
    /// sequence `after` up to `through`. They are equal unless messages arrive all the time.
    ///
    /// # Errors
    /// [`BrokerError`] when the broker is unreachable or does not answer, or the stream does not exist.
    pub async fn messages_between(
        &self,
        stream: &str,
        subjects: &[String],
        after: u64,
        through: u64,
    ) -> Result<(u64, u64), BrokerError> {
        if after >= through {
            return Ok((0, 0));
        }
        let mut bounds = (0, u64::MAX);
        for _ in 0..COUNTS_MAX {
            let before = self.inner.pending_from(stream, subjects, through + 1).await?;
            let all = self.inner.pending_from(stream, subjects, after + 1).await?;
            let later = self.inner.pending_from(stream, subjects, through + 1).await?;
            let least = all.saturating_sub(before.max(later));
            bounds = (
                bounds.0.max(least),
                bounds.1.min(all.saturating_sub(before.min(later))),
            );
            if bounds.0 >= bounds.1 {
                break;
            }
        }
        Ok((bounds.0.min(bounds.1), bounds.1))
    }
}

impl Inner {
    /// Creates a consumer that starts at `sequence` and that the broker deletes after inactivity.
    async fn create_ephemeral_consumer(
        &self,
        stream: &str,
        subjects: &[String],
        sequence: u64,
    ) -> Result<Info, BrokerError> {
        let mut config = json!({
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": sequence.max(1),
            "ack_policy": "none",
            "replay_policy": "instant",
            "inactive_threshold": INACTIVE.as_nanos() as u64,
            "mem_storage": true,
            "num_replicas": 1,
            "description": "ephemeral read by Lantern, independent of its projections",
        });
        match subjects {
            [] => {}
            [one] => config["filter_subject"] = json!(one),
            several => config["filter_subjects"] = json!(several),
        }
        let request = json!({ "stream_name": stream, "config": config });
        let subject = format!("CONSUMER.CREATE.{stream}");
        let made = self.request(subject.clone(), &request, &[]).await?;
        made.ok_or_else(|| BrokerError::Answer {
            what: subject,
            detail: "the broker created none".to_owned(),
        })
    }

    async fn delete_ephemeral_consumer(&self, stream: &str, consumer: &str) -> Result<(), BrokerError> {
        let none = [ErrorCode::CONSUMER_NOT_FOUND, ErrorCode::STREAM_NOT_FOUND];
        let subject = format!("CONSUMER.DELETE.{stream}.{consumer}");
        let _: Option<DeleteStatus> = self.request(subject, &EMPTY, &none).await?;
        Ok(())
    }

    /// Number of matching messages that a stream holds from a sequence on.
    async fn pending_from(
        &self,
        stream: &str,
        subjects: &[String],
        sequence: u64,
    ) -> Result<u64, BrokerError> {
        let info = self.create_ephemeral_consumer(stream, subjects, sequence).await?;
        self.delete_ephemeral_consumer(stream, &info.name).await?;
        Ok(info.num_pending)
    }
}

impl EphemeralRead {
    /// The next messages in stream order: up to `messages_max`, and about `bytes_max` bytes (always at least one
    /// message). Waits up to `wait` for a message; an empty answer means that none arrived.
    ///
    /// Dropping the future before it completes loses nothing.
    ///
    /// # Errors
    /// [`BrokerError`]; a retry continues at the same position.
    pub async fn next(
        &mut self,
        messages_max: usize,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Vec<Delivery>, BrokerError> {
        let (mut asked, mut bytes) = (messages_max.max(1), Some(bytes_max));
        loop {
            if self.one_by_one || self.careful > 0 {
                return self.read_one_by_one(messages_max, bytes_max, wait).await;
            }
            match self.pull(asked, bytes, wait).await? {
                Pull::Messages(deliveries) => {
                    if let Some(last) = deliveries.last() {
                        self.next = last.sequence + 1;
                    }
                    return Ok(deliveries);
                }
                Pull::TooLarge => (asked, bytes) = (1, None),
                lost @ (Pull::Disconnected | Pull::Lost) => {
                    self.lost_connections += u64::from(matches!(lost, Pull::Disconnected));
                    tracing::debug!(
                        stream = self.stream,
                        next = self.next,
                        "reading messages one by one"
                    );
                    self.careful = CAREFUL_MESSAGES;
                    self.line = None;
                    self.delete_consumer().await;
                }
            }
        }
    }

    /// How often the read noticed that its connection was lost, instead of waiting for an answer that cannot arrive.
    pub fn lost_connections(&self) -> u64 {
        self.lost_connections
    }

    /// Ends the read and deletes its consumer.
    pub async fn close(mut self) {
        self.delete_consumer().await;
    }

    async fn delete_consumer(&mut self) {
        if let Some(EphemeralConsumer { name, .. }) = self.consumer.take()
            && let Err(error) = self
                .broker
                .inner
                .delete_ephemeral_consumer(&self.stream, &name)
                .await
        {
            tracing::debug!(%error, name, "failed to delete the consumer of an ephemeral read; the broker deletes it after inactivity");
        }
    }

    /// Sends one request to the consumer and collects its messages.
    async fn pull(
        &mut self,
        messages: usize,
        bytes: Option<usize>,
        wait: Duration,
    ) -> Result<Pull, BrokerError> {
        let line = match self.line.take() {
            Some(line) if line.is_lost() => return Ok(Pull::Disconnected),
            Some(line) => line,
            None => Line::dial(&self.broker.inner.main).await?,
        };
        let client = line.client.clone();
        self.line = Some(line);
        let inner = std::sync::Arc::clone(&self.broker.inner);
        let stream = self.stream.clone();
        let consumer = self.consumer().await?;
        let limits = consumer.limits;
        let messages = messages.min(limits.messages);
        let wait = wait.min(limits.expires);
        // One inbox per request, so that the end of an earlier request is not mistaken for the end of this one.
        let inbox = client.new_inbox();
        let subscribed = client.subscribe(inbox.clone()).await;
        let subscriber = subscribed.map_err(|error| failed("subscribe", &error))?;
        let mut request = json!({ "batch": messages, "max_bytes": bytes.unwrap_or(0).min(limits.bytes) });
        if wait.is_zero() {
            request["no_wait"] = json!(true);
        } else {
            request["expires"] = json!(wait.as_nanos() as u64);
        }
        let subject = format!(
            "{}.CONSUMER.MSG.NEXT.{stream}.{}",
            inner.api_prefix, consumer.name
        );
        let sent = client
            .publish_with_reply(subject, inbox, request.to_string().into())
            .await;
        sent.map_err(|error| failed("request messages", &error))?;
        let pulled = match (&self.line, &mut self.consumer) {
            (Some(line), Some(consumer)) => consumer.collect(line, subscriber, messages, wait).await,
            _ => Pull::Lost,
        };
        Ok(pulled)
    }

    /// The consumer of this read, created at the first use.
    async fn consumer(&mut self) -> Result<&mut EphemeralConsumer, BrokerError> {
        let consumer = match self.consumer.take() {
            Some(consumer) => consumer,
            None => {
                let inner = &self.broker.inner;
                let info = inner
                    .create_ephemeral_consumer(&self.stream, &self.subjects, self.next)
                    .await?;
                let limits = PullLimits {
                    messages: usize::MAX,
                    bytes: usize::MAX,
                    expires: Duration::MAX,
                };
                EphemeralConsumer {
                    name: info.name,
                    limits: limits.within(&info.config),
                    delivered: 0,
                }
            }
        };
        Ok(self.consumer.insert(consumer))
    }

    async fn read_one_by_one(
        &mut self,
        messages_max: usize,
        bytes_max: usize,
        wait: Duration,
    ) -> Result<Vec<Delivery>, BrokerError> {
        let until = Instant::now() + wait;
        let mut deliveries: Vec<Delivery> = Vec::new();
        let (mut bytes, mut next) = (0, self.next);
        while deliveries.len() < messages_max.max(1) && (deliveries.is_empty() || bytes < bytes_max) {
            let inner = &self.broker.inner;
            let found = inner.stored_from(&self.stream, next, &self.subjects).await?;
            let Some(Stored { delivery, .. }) = found else {
                self.careful = 0;
                if deliveries.is_empty() && Instant::now() < until {
                    tokio::time::sleep_until(until.min(Instant::now() + POLL_INTERVAL)).await;
                    continue;
                }
                break;
            };
            bytes += delivery.size_bytes();
            next = delivery.sequence + 1;
            self.careful = self.careful.saturating_sub(1);
            deliveries.push(delivery);
        }
        // Advance only now, so that nothing is lost when the future is dropped while it waits.
        self.next = next;
        Ok(deliveries)
    }
}

impl Drop for EphemeralRead {
    fn drop(&mut self) {
        if let (Some(EphemeralConsumer { name, .. }), Ok(runtime)) =
            (self.consumer.take(), tokio::runtime::Handle::try_current())
        {
            let (broker, stream) = (self.broker.clone(), self.stream.clone());
            // If this fails, the broker deletes the consumer after inactivity.
            runtime.spawn(async move { broker.inner.delete_ephemeral_consumer(&stream, &name).await });
        }
    }
}

/// The meaning of a status for the request: `None` when it continues; `Some(None)` when everything has arrived.
fn ended(message: &Message, nothing_came: bool) -> Option<Option<Pull>> {
    let status = message.status?;
    let description = message.description.as_deref().unwrap_or_default();
    match status {
        StatusCode::IDLE_HEARTBEAT => None,
        StatusCode::TIMEOUT | StatusCode::NOT_FOUND => Some(None),
        _ if description == "Message Size Exceeds MaxBytes" => Some(nothing_came.then_some(Pull::TooLarge)),
        _ => Some(Some(Pull::Lost)),
    }
}

fn delivery(message: Message, position: DeliveryPosition) -> Delivery {
    Delivery {
        subject: headers::subject_text(message.subject.into_string()),
        sequence: position.stream_sequence,
        published_ns: position.published_ns,
        headers: headers::of(message.headers.as_ref()),
        payload: message.payload,
    }
}
