//! Messages read for somebody who only looks at them: what a stream still holds from a sequence on, beside the durable
//! consumer, which is neither moved nor asked. Nothing is acknowledged.
//!
//! A reading has a connection and a short-lived consumer of its own, so that a slow reader or a message whose headers
//! break the connection does no harm to the projections. Where something goes wrong it reads a few messages one by one
//! out of the stream's store and then begins a new consumer. Streams that delete what was acknowledged are only read
//! one by one: another consumer there could make messages go, or stay.

use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::Info;
use async_nats::jetstream::stream::DeleteStatus;
use async_nats::{Client, Message, StatusCode};
use futures_util::StreamExt as _;
use serde_json::json;
use tokio::time::Instant;

use super::api::EMPTY;
use super::consumer::PullLimits;
use super::sequence::Place;
use super::stored::Stored;
use super::{Broker, BrokerError, Inner, Retention, headers};
use lantern_model::batch::Delivery;

/// How long the broker keeps a consumer that nobody reads through: longer than a plugin takes over a batch.
const INACTIVE: Duration = Duration::from_secs(30);
/// How much later than it was due an answer counts as lost.
const LATE: Duration = Duration::from_secs(5);
/// Messages that are read one by one after something went wrong: enough to be past the one that did it.
const CAREFUL_MESSAGES: u32 = 64;
/// How long nothing was there before it is looked again, where the broker cannot say when something comes.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How often messages are counted in a stream that grows meanwhile before the bounds are good enough.
const COUNTS_MAX: u32 = 5;

/// What a stream still holds, from a sequence on.
pub struct EphemeralRead {
    broker: Broker,
    stream: String,
    subjects: Vec<String>,
    /// The first sequence that was not handed out yet.
    next: u64,
    one_by_one: bool,
    careful: u32,
    client: Option<Client>,
    consumer: Option<Passing>,
}

/// A consumer that passes away by itself.
struct Passing {
    name: String,
    /// What one request may ask for.
    limits: PullLimits,
    /// Deliveries so far.
    delivered: u64,
}

/// What came of one request to the consumer.
enum Pull {
    /// What was there.
    Messages(Vec<Delivery>),
    /// The next message is larger than what was asked for.
    TooLarge,
    /// The consumer or the connection cannot be relied on any more.
    Lost,
}

impl Broker {
    /// Begins to read `stream` at `first_sequence`, what matches one of `subjects` (none means any). `None` when there
    /// is no such stream. To be ended with [`EphemeralRead::close`].
    ///
    /// # Errors
    ///
    /// [`BrokerError`] when the broker cannot be asked or does not answer.
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
            client: None,
            consumer: None,
        }))
    }

    /// From which sequence on `stream` holds the last `messages` messages that match, and how many messages more than
    /// that. Of streams that delete what was acknowledged: what is left of the last `messages` sequences.
    ///
    /// # Errors
    ///
    /// [`BrokerError`] when the broker cannot be asked or does not answer, also when there is no such stream.
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
        // From `low` on there are enough, from `high` on too few: first in growing steps, then by halves.
        let (mut low, mut high) = (nearest, end);
        let mut found = self.inner.pending_from(stream, subjects, low).await?;
        let mut step = messages;
        while found < messages && low > first {
            high = low;
            step = step.saturating_mul(4);
            low = low.saturating_sub(step).max(first);
            found = self.inner.pending_from(stream, subjects, low).await?;
        }
        // Near enough: a few more are read and left out.
        while found > messages + messages / 16 && high - low > 1 {
            let middle = low + (high - low) / 2;
            match self.inner.pending_from(stream, subjects, middle).await? {
                fewer if fewer < messages => high = middle,
                enough => (low, found) = (middle, enough),
            }
        }
        Ok((low, found.saturating_sub(messages)))
    }

    /// How many messages that match one of `subjects` (none means any) `stream` holds behind sequence `after` up to
    /// `through`: at least and at most. The two are the same number unless messages come in all the time.
    ///
    /// # Errors
    ///
    /// [`BrokerError`] when the broker cannot be asked or does not answer, also when there is no such stream.
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
            let behind = self.inner.pending_from(stream, subjects, through + 1).await?;
            let least = all.saturating_sub(before.max(behind));
            bounds = (
                bounds.0.max(least),
                bounds.1.min(all.saturating_sub(before.min(behind))),
            );
            if bounds.0 >= bounds.1 {
                break;
            }
        }
        Ok((bounds.0.min(bounds.1), bounds.1))
    }
}

impl Inner {
    /// Makes a consumer that begins at `sequence` and passes away by itself.
    async fn passing(&self, stream: &str, subjects: &[String], sequence: u64) -> Result<Info, BrokerError> {
        let mut config = json!({
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": sequence.max(1),
            "ack_policy": "none",
            "replay_policy": "instant",
            "inactive_threshold": INACTIVE.as_nanos() as u64,
            "mem_storage": true,
            "num_replicas": 1,
            "description": "read by Lantern for a look beside its projections",
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
            detail: "the broker made none".to_owned(),
        })
    }

    async fn pass_away(&self, stream: &str, consumer: &str) -> Result<(), BrokerError> {
        let none = [ErrorCode::CONSUMER_NOT_FOUND, ErrorCode::STREAM_NOT_FOUND];
        let subject = format!("CONSUMER.DELETE.{stream}.{consumer}");
        let _: Option<DeleteStatus> = self.request(subject, &EMPTY, &none).await?;
        Ok(())
    }

    /// How many messages that match a stream holds from a sequence on.
    async fn pending_from(
        &self,
        stream: &str,
        subjects: &[String],
        sequence: u64,
    ) -> Result<u64, BrokerError> {
        let info = self.passing(stream, subjects, sequence).await?;
        self.pass_away(stream, &info.name).await?;
        Ok(info.num_pending)
    }
}

impl EphemeralRead {
    /// The messages that come next, in stream order: up to `messages_max`, and about `bytes_max` bytes (one message
    /// always). When there is none it waits for one, for as long as `wait`; an empty answer means that there was none.
    ///
    /// Dropping the future before it is ready loses nothing.
    ///
    /// # Errors
    ///
    /// [`BrokerError`]; the same may be asked again, and goes on where it was.
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
                Pull::Lost => {
                    tracing::debug!(
                        stream = self.stream,
                        next = self.next,
                        "reading messages one by one"
                    );
                    self.careful = CAREFUL_MESSAGES;
                    self.client = None;
                    self.consumer_ends().await;
                }
            }
        }
    }

    /// Ends the reading and takes its consumer away.
    pub async fn close(mut self) {
        self.consumer_ends().await;
    }

    async fn consumer_ends(&mut self) {
        if let Some(Passing { name, .. }) = self.consumer.take()
            && let Err(error) = self.broker.inner.pass_away(&self.stream, &name).await
        {
            tracing::debug!(%error, name, "a consumer of a reading is left to pass away by itself");
        }
    }

    async fn pull(
        &mut self,
        messages: usize,
        bytes: Option<usize>,
        wait: Duration,
    ) -> Result<Pull, BrokerError> {
        let failed = |what: &str, error: String| BrokerError::Answer {
            what: what.to_owned(),
            detail: error,
        };
        let client = match &self.client {
            Some(client) => client.clone(),
            None => {
                let dialled = self.broker.inner.dialing().dial().await;
                let client = dialled.map_err(|error| failed("connect for a reading", error.to_string()))?;
                self.client.insert(client).clone()
            }
        };
        let inner = std::sync::Arc::clone(&self.broker.inner);
        let consumer = match &mut self.consumer {
            Some(consumer) => consumer,
            None => {
                let info = inner.passing(&self.stream, &self.subjects, self.next).await?;
                let limits = PullLimits {
                    messages: usize::MAX,
                    bytes: usize::MAX,
                    expires: Duration::MAX,
                };
                self.consumer.insert(Passing {
                    name: info.name,
                    limits: limits.within(&info.config),
                    delivered: 0,
                })
            }
        };
        let limits = consumer.limits;
        let messages = messages.min(limits.messages);
        let wait = wait.min(limits.expires);
        // An inbox for each request, so that the end of an earlier one is not taken for the end of this one.
        let inbox = client.new_inbox();
        let subscribed = client.subscribe(inbox.clone()).await;
        let mut subscriber = subscribed.map_err(|error| failed("subscribe", error.to_string()))?;
        let mut request = json!({ "batch": messages, "max_bytes": bytes.unwrap_or(0).min(limits.bytes) });
        if wait.is_zero() {
            request["no_wait"] = json!(true);
        } else {
            request["expires"] = json!(wait.as_nanos() as u64);
        }
        let subject = format!(
            "{}.CONSUMER.MSG.NEXT.{}.{}",
            inner.api_prefix, self.stream, consumer.name
        );
        let sent = client
            .publish_with_reply(subject, inbox, request.to_string().into())
            .await;
        sent.map_err(|error| failed("ask for messages", error.to_string()))?;
        let mut deliveries = Vec::new();
        let mut deadline = Instant::now() + wait + LATE;
        while deliveries.len() < messages {
            let Ok(Some(message)) = tokio::time::timeout_at(deadline, subscriber.next()).await else {
                return Ok(Pull::Lost);
            };
            let Some(place) = message.reply.as_ref().and_then(|reply| Place::parse(reply)) else {
                if let Some(end) = ended(&message, deliveries.is_empty()) {
                    return Ok(end.unwrap_or(Pull::Messages(deliveries)));
                }
                continue;
            };
            if place.consumer_sequence != consumer.delivered + 1 {
                return Ok(Pull::Lost);
            }
            consumer.delivered += 1;
            deadline = deadline.max(Instant::now() + LATE);
            deliveries.push(delivery(message, place));
        }
        Ok(Pull::Messages(deliveries))
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
                    tokio::time::sleep_until(until.min(Instant::now() + LOOK_EVERY)).await;
                    continue;
                }
                break;
            };
            bytes += delivery.size_bytes();
            next = delivery.sequence + 1;
            self.careful = self.careful.saturating_sub(1);
            deliveries.push(delivery);
        }
        // Only now, so that nothing is lost when this is dropped while it waits.
        self.next = next;
        Ok(deliveries)
    }
}

impl Drop for EphemeralRead {
    fn drop(&mut self) {
        if let (Some(Passing { name, .. }), Ok(runtime)) =
            (self.consumer.take(), tokio::runtime::Handle::try_current())
        {
            let (broker, stream) = (self.broker.clone(), self.stream.clone());
            // Should it fail, the consumer passes away by itself.
            runtime.spawn(async move { broker.inner.pass_away(&stream, &name).await });
        }
    }
}

/// What a status says about the request: none when it goes on; `Some(None)` when what has come is all there is.
fn ended(message: &Message, nothing_came: bool) -> Option<Option<Pull>> {
    let status = message.status?;
    let words = message.description.as_deref().unwrap_or_default();
    match status {
        StatusCode::IDLE_HEARTBEAT => None,
        StatusCode::TIMEOUT | StatusCode::NOT_FOUND => Some(None),
        _ if words == "Message Size Exceeds MaxBytes" => Some(nothing_came.then_some(Pull::TooLarge)),
        _ => Some(Some(Pull::Lost)),
    }
}

fn delivery(message: Message, place: Place) -> Delivery {
    Delivery {
        subject: message.subject.into_string(),
        sequence: place.stream_sequence,
        published_ns: place.published_ns,
        headers: message
            .headers
            .as_ref()
            .map(headers::from_map)
            .unwrap_or_default(),
        payload: message.payload,
    }
}
