//! Messages out of a consumer, in batches. Sends the pull requests itself instead of through the library's stream
//! of messages, for three reasons: after a reconnect the library goes on pulling before anybody could compare
//! histories; it hides the heartbeats, which say how many deliveries there have been and so reveal a lost last one;
//! and a message that is larger than a request's limit needs another request than the rest.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_nats::jetstream::consumer::Config;
use async_nats::{Message, StatusCode, Subject, Subscriber};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use serde_json::json;
use tokio::sync::watch;
use tracing::{debug, warn};

use super::ack::{self, AckToken, Replies};
use super::sequence::{Order, Place, Verdict};
use super::{Broker, BrokerError, ConsumerHandle, Link, OpenError, OpenRequest, Retention, Start};
use super::{headers, link, suspects};
use crate::batch::Delivery;

/// Messages asked for at once. Another request follows when half of them have come; the other half lasts for 5 ms at
/// 400,000 messages a second, many times the round trip to a broker nearby, so that it never waits for us.
const PULL_MESSAGES: usize = 4096;

/// Bytes asked for at once. With the two requests that can be open at a time, 16 MiB is what one subscription may
/// hold while its owner is busy.
const PULL_BYTES: usize = 8 * 1024 * 1024;

/// The most messages that can be under way to a subscription.
const OUTSTANDING_MAX: usize = PULL_MESSAGES + PULL_MESSAGES / 2;
const _: () = assert!(
    super::SUBSCRIPTION_CAPACITY > 4 * OUTSTANDING_MAX,
    "heartbeats and statuses need room beside the messages, or the library drops some"
);

/// How long a pull request waits for messages. Also how long the requests of a host that vanished stay with the broker.
pub(super) const PULL_EXPIRES: Duration = Duration::from_secs(10);

/// How often the broker shows that it has not forgotten an open request.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Requests that the broker ends one after the other, without a message between, before it counts as refusal.
const REJECTIONS_MAX: u32 = 3;

/// Why no more messages come from a subscription. Whatever it is, the subscription is to be dropped and opened
/// again at the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PullError {
    /// The connection was lost or made anew. The broker may have another history now.
    #[error("the connection to the broker was lost")]
    Reconnected,
    /// Neither a message nor a heartbeat has come for two intervals.
    #[error("the broker is silent: no message and no heartbeat for {} s", after.as_secs())]
    Silent {
        /// How long it was waited.
        after: Duration,
    },
    /// Deliveries are missing: dropped on the way, or taken by somebody else.
    #[error("delivery {expected} did not arrive, {found} did")]
    Hole {
        /// The number that should have come.
        expected: u64,
        /// The number that came.
        found: u64,
    },
    /// A sequence that was handed out before now stands for a younger message.
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
    /// The broker ends our requests; the consumer may have been changed.
    #[error("the broker refuses to deliver: {description} ({code})")]
    Refused {
        /// The broker's status code.
        code: u16,
        /// The broker's own words.
        description: String,
    },
    /// Nobody answers pull requests, though the consumer exists: JetStream is starting or has no leader.
    #[error("the broker does not answer pull requests")]
    NoResponders,
    /// A message made the client drop the connection; some messages were read past it one by one.
    #[error("messages were read beside the consumer, past one that breaks the connection")]
    PastUnreadable,
    /// A message makes the client drop the connection, and it can only be read through the consumer.
    #[error("message {sequence} cannot be read: its headers break the connection")]
    Unreadable {
        /// Its sequence.
        sequence: u64,
    },
    /// The client was closed.
    #[error("the connection was closed")]
    Closed,
}

impl PullError {
    /// Whether to open again soon; otherwise somebody has to do something first.
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::Closed | Self::Unreadable { .. })
    }

    /// What the operator can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unreadable { .. } => Some("look at the message with `nats stream get` and delete it"),
            Self::Hole { .. } => Some("if it happens again, another program reads through the same consumer"),
            _ => None,
        }
    }
}

/// Messages in stream order, and what to acknowledge when they have taken effect.
#[derive(Debug)]
pub struct Pulled {
    /// At least one.
    pub deliveries: Vec<Delivery>,
    /// For all of them.
    pub ack: AckToken,
}

/// An open consumer. Dropping it takes back what it has asked for.
pub struct Subscription {
    handle: ConsumerHandle,
    request: OpenRequest,
    retention: Retention,
    generation: u64,
    link: watch::Receiver<Link>,
    subscriber: Subscriber,
    pull_subject: String,
    inbox: String,
    order: Order,
    /// Messages asked for that have neither come nor been taken back by the broker.
    outstanding: usize,
    /// The next request is for one message of any size.
    oversized: bool,
    rejections: u32,
    batch: Batch,
    /// A message that would have made a batch too large; it begins the next one.
    held: Option<Message>,
    failed: Option<PullError>,
    /// Messages still to be read one by one.
    careful: u32,
    handed_out: bool,
}

#[derive(Default)]
struct Batch {
    deliveries: Vec<Delivery>,
    bytes: usize,
    last_reply: Option<Subject>,
    replies: Vec<Subject>,
    /// Of messages that the checkpoint covers and that the broker still waits for.
    covered: Vec<Subject>,
}

impl Subscription {
    pub(super) async fn new(
        broker: &Broker,
        request: OpenRequest,
        wanted: Config,
        retention: Retention,
        generation: u64,
        delivered: u64,
    ) -> Result<Self, OpenError> {
        let inner = &broker.inner;
        let inbox = inner.client.new_inbox();
        let subscriber =
            inner
                .client
                .subscribe(inbox.clone())
                .await
                .map_err(|error| BrokerError::Answer {
                    what: format!("subscribe to {inbox}"),
                    detail: error.to_string(),
                })?;
        let (after, published_ns) = match request.start {
            Start::After {
                sequence,
                published_ns,
            } => (sequence, published_ns),
            Start::AfterTime(_) => (0, None),
        };
        let careful = broker
            .suspects()
            .get_mut(&suspects::key(&request))
            .map_or(0, |suspect| suspect.careful_now(after));
        Ok(Self {
            handle: ConsumerHandle {
                inner: Arc::clone(inner),
                stream: request.stream.clone(),
                consumer: request.consumer.clone(),
                wanted: Arc::new(wanted),
            },
            retention,
            generation,
            link: broker.link(),
            subscriber,
            pull_subject: format!(
                "{}.CONSUMER.MSG.NEXT.{}.{}",
                inner.api_prefix, request.stream, request.consumer
            ),
            inbox,
            order: Order::new(delivered, after, published_ns),
            outstanding: 0,
            oversized: false,
            rejections: 0,
            batch: Batch::default(),
            held: None,
            failed: None,
            careful,
            handed_out: false,
            request,
        })
    }

    /// For acknowledgements and facts, also while `next` waits.
    pub fn handle(&self) -> ConsumerHandle {
        self.handle.clone()
    }

    /// Waits for a message and takes what has come with it, up to `messages_max` messages and about `bytes_max`
    /// bytes (one message always, however large it is). Messages follow each other in stream order, without a
    /// hole among those that match.
    ///
    /// Dropping the future before it is ready loses nothing.
    ///
    /// # Errors
    ///
    /// [`PullError`], after which the subscription has ended. What was handed out before is good.
    pub async fn next(&mut self, messages_max: usize, bytes_max: usize) -> Result<Pulled, PullError> {
        loop {
            if link::generation(&self.handle.inner.client) != self.generation {
                return Err(PullError::Reconnected);
            }
            if self.careful > 0 && self.failed.is_none() {
                self.read_beside(messages_max, bytes_max).await?;
            } else {
                self.drain(messages_max, bytes_max).await;
            }
            self.acknowledge_covered().await;
            if !self.batch.deliveries.is_empty() {
                self.ask().await;
                self.handed_out = true;
                return Ok(self.batch.take(self.generation, self.retention));
            }
            if let Some(error) = self.failed.clone() {
                return Err(self.explain(error).await);
            }
            self.ask().await;
            self.wait().await?;
        }
    }

    /// Waits until there is something to take.
    async fn wait(&mut self) -> Result<(), PullError> {
        let silence = HEARTBEAT * 2 + HEARTBEAT / 2;
        tokio::select! {
            biased;
            message = self.subscriber.next() => {
                match message {
                    // Judged by the next `drain`; nothing else is between here and there.
                    Some(message) => self.held = Some(message),
                    None => self.failed = Some(PullError::Closed),
                }
                Ok(())
            }
            changed = self.link.changed() => {
                let lost = changed.is_err() || !self.link.borrow().is_connected();
                if lost { Err(PullError::Reconnected) } else { Ok(()) }
            }
            () = tokio::time::sleep(silence) => Err(PullError::Silent { after: silence }),
        }
    }

    /// Moves what has arrived into the batch, without waiting. A task is given 128 messages before the runtime
    /// pretends that there are no more; that would cut every batch, so it is asked not to.
    async fn drain(&mut self, messages_max: usize, bytes_max: usize) {
        if let Some(held) = self.held.take() {
            self.accept(held);
        }
        let draining = std::future::poll_fn(|_| {
            let mut context = Context::from_waker(Waker::noop());
            while self.failed.is_none() && self.batch.deliveries.len() < messages_max.max(1) {
                match Pin::new(&mut self.subscriber).poll_next(&mut context) {
                    Poll::Ready(Some(message)) => {
                        let full = self.batch.bytes.saturating_add(message.length) > bytes_max;
                        if full && !self.batch.deliveries.is_empty() {
                            self.held = Some(message);
                            break;
                        }
                        self.accept(message);
                    }
                    Poll::Ready(None) => self.failed = Some(PullError::Closed),
                    Poll::Pending => break,
                }
            }
            Poll::Ready(())
        });
        tokio::task::unconstrained(draining).await;
    }

    fn accept(&mut self, message: Message) {
        // A stored message may pretend to be a status by its headers; only a stored one wants an acknowledgement.
        match (
            message.reply.as_ref().and_then(|reply| Place::parse(reply)),
            message.status,
        ) {
            (Some(place), _) => self.accept_message(message, place),
            (None, Some(status)) => self.accept_status(status, &message),
            (None, None) => debug!(subject = %message.subject, "ignoring a message that is no delivery"),
        }
    }

    fn accept_message(&mut self, message: Message, place: Place) {
        self.outstanding = self.outstanding.saturating_sub(1);
        self.rejections = 0;
        let explicit = self.retention != Retention::Limits;
        match self.order.judge(&place) {
            Verdict::Take => {}
            Verdict::Known => {
                if explicit {
                    self.batch.covered.extend(message.reply);
                }
                return;
            }
            Verdict::Hole { expected } => {
                self.failed = Some(PullError::Hole {
                    expected,
                    found: place.consumer_sequence,
                });
                return;
            }
            Verdict::Changed => {
                self.failed = Some(PullError::HistoryChanged {
                    sequence: place.stream_sequence,
                });
                return;
            }
        }
        self.batch.bytes += message.length;
        if explicit {
            self.batch.replies.extend(message.reply);
        } else {
            self.batch.last_reply = message.reply;
        }
        self.batch.deliveries.push(Delivery {
            subject: message.subject.into_string(),
            sequence: place.stream_sequence,
            published_ns: place.published_ns,
            headers: message
                .headers
                .as_ref()
                .map(headers::from_map)
                .unwrap_or_default(),
            payload: message.payload,
        });
    }

    fn accept_status(&mut self, status: StatusCode, message: &Message) {
        let number = |name: &str| message.headers.as_ref()?.get(name)?.as_str().parse::<u64>().ok();
        let description = message.description.clone().unwrap_or_default();
        debug!(%status, description, consumer = self.request.consumer, "status");
        if status == StatusCode::IDLE_HEARTBEAT {
            self.rejections = 0;
            let last = self.order.last_consumer_sequence();
            if let Some(found) = number("Nats-Last-Consumer").filter(|found| *found != last) {
                self.failed = Some(PullError::Hole {
                    expected: last,
                    found,
                });
            }
            return;
        }
        if status == StatusCode::NO_RESPONDERS {
            self.failed = Some(PullError::NoResponders);
            return;
        }
        let unused = number("Nats-Pending-Messages").and_then(|unused| usize::try_from(unused).ok());
        self.outstanding = self.outstanding.saturating_sub(unused.unwrap_or(usize::MAX));
        match (status, description.as_str()) {
            (StatusCode::TIMEOUT | StatusCode::NOT_FOUND, _) => {}
            (_, "Consumer Deleted") => self.failed = Some(PullError::ConsumerGone),
            (_, "Message Size Exceeds MaxBytes") => {
                // The rest of a request's bytes is often too small for the next message; only a whole request that
                // is too small is special.
                self.oversized |= unused == Some(PULL_MESSAGES);
            }
            _ => {
                self.rejections += 1;
                let hopeless = description.starts_with("Exceeded") || description.ends_with("push based");
                if hopeless || self.rejections >= REJECTIONS_MAX {
                    self.failed = Some(PullError::Refused {
                        code: status.as_u16(),
                        description,
                    });
                }
            }
        }
    }

    /// Asks for more, when there is room.
    async fn ask(&mut self) {
        let due = if self.oversized {
            self.outstanding == 0
        } else {
            self.outstanding <= PULL_MESSAGES / 2
        };
        if !due || self.failed.is_some() || self.careful > 0 {
            return;
        }
        let mut request = json!({
            "batch": PULL_MESSAGES,
            "max_bytes": PULL_BYTES,
            "expires": PULL_EXPIRES.as_nanos() as u64,
            "idle_heartbeat": HEARTBEAT.as_nanos() as u64,
        });
        let mut messages = PULL_MESSAGES;
        if self.oversized {
            messages = 1;
            request["batch"] = json!(1);
            request["max_bytes"] = json!(0);
        }
        let payload = Bytes::from(request.to_string());
        let client = &self.handle.inner.client;
        match client
            .publish_with_reply(self.pull_subject.clone(), self.inbox.clone(), payload)
            .await
        {
            Ok(()) => {
                self.outstanding += messages;
                self.oversized = false;
            }
            Err(error) => {
                debug!(%error, "cannot ask for messages");
                self.failed = Some(PullError::Closed);
            }
        }
    }

    async fn acknowledge_covered(&mut self) {
        if self.batch.covered.is_empty() {
            return;
        }
        let replies = std::mem::take(&mut self.batch.covered);
        let token = AckToken {
            generation: self.generation,
            replies: Replies::Each(replies),
        };
        if let Err(error) = ack::send(&self.handle.inner, &token, "+ACK").await {
            debug!(%error, "acknowledgements of known messages are lost; they come again after the next opening");
        }
    }

    /// Finds out what is behind an error that has several causes.
    async fn explain(&self, error: PullError) -> PullError {
        if !matches!(error, PullError::ConsumerGone | PullError::NoResponders) {
            return error;
        }
        let inner = &self.handle.inner;
        match inner.stream_info(&self.request.stream).await {
            Ok(None) => return PullError::StreamGone,
            Err(_) => return error,
            Ok(Some(_)) => {}
        }
        match inner
            .consumer_info(&self.request.stream, &self.request.consumer)
            .await
        {
            Ok(None) => PullError::ConsumerGone,
            _ => error,
        }
    }

    /// Fills the batch from the stream's store, one message at a time.
    async fn read_beside(&mut self, messages_max: usize, bytes_max: usize) -> Result<(), PullError> {
        let request = &self.request;
        while self.careful > 0
            && self.batch.deliveries.len() < messages_max.max(1)
            && self.batch.bytes < bytes_max
        {
            let from = self.order.highest() + 1;
            let found = self
                .handle
                .inner
                .stored_from(&request.stream, from, &request.subjects)
                .await;
            let found = found.map_err(|error| {
                warn!(%error, stream = request.stream, "cannot read messages one by one");
                PullError::Reconnected
            })?;
            let Some(delivery) = found else {
                // Nothing there that could have done it: it was the network.
                self.careful = 0;
                break;
            };
            if self.retention != Retention::Limits {
                return Err(PullError::Unreadable {
                    sequence: delivery.sequence,
                });
            }
            self.careful -= 1;
            self.order.skip_to(delivery.sequence, delivery.published_ns);
            self.batch.bytes += delivery.size_bytes();
            self.batch.deliveries.push(delivery);
            // The consumer knows nothing of these, and has to be put behind them.
            if self.careful == 0 {
                self.failed = Some(PullError::PastUnreadable);
            }
        }
        Ok(())
    }
}

impl Batch {
    fn take(&mut self, generation: u64, retention: Retention) -> Pulled {
        let batch = std::mem::take(self);
        let replies = match (retention, batch.last_reply) {
            (Retention::Limits, Some(last)) => Replies::All(last),
            (Retention::Limits, None) => Replies::Nothing,
            _ => Replies::Each(batch.replies),
        };
        Pulled {
            deliveries: batch.deliveries,
            ack: AckToken { generation, replies },
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let inner = &self.handle.inner;
        let lost = link::generation(&inner.client) != self.generation || !inner.link.borrow().is_connected();
        let broker = Broker {
            inner: Arc::clone(inner),
        };
        let mut suspects = broker.suspects();
        if self.handed_out {
            // Remembers how far the careful reading has grown, as long as it goes on.
            if !lost && self.failed != Some(PullError::PastUnreadable) {
                suspects.remove(&suspects::key(&self.request));
            }
        } else if lost && let Start::After { sequence, .. } = self.request.start {
            suspects
                .entry(suspects::key(&self.request))
                .or_default()
                .lost(sequence);
        }
    }
}
