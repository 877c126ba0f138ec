//! Messages out of a consumer, in batches. Sends the pull requests itself instead of through the library's stream
//! of messages, for three reasons: after a reconnect the library goes on pulling before anybody could compare
//! histories; it hides the heartbeats, which say how many deliveries there have been and so reveal a lost last one;
//! and a message that is larger than a request's limit needs another request than the rest.

mod from_store;

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_nats::jetstream::consumer::Info;
use async_nats::{Message, StatusCode, Subject, Subscriber};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use serde_json::json;
use tokio::time::Instant;
use tracing::debug;

use super::ack::{self, AckToken, Replies};
use super::consumer::PullLimits;
use super::sequence::{Order, Place, Verdict};
use super::suspects::Care;
use super::{BrokerError, ConsumerHandle, OpenError, OpenRequest, Retention, Start};
use super::{headers, suspects};
use lantern_model::batch::Delivery;

/// Messages requested at once, where the broker sets no lower limit.
///
/// Messages: another request follows when half of them have come; the other half lasts for 5 ms at
/// 400,000 messages a second, many times the round trip to a broker nearby, so that it never waits for us.
///
/// Bytes: with the two requests that can be open at a time, 16 MiB is what one subscription may
/// hold while its owner is busy.
const PULL: PullLimits = PullLimits {
    messages: 4096,
    bytes: 8 * 1024 * 1024,
    expires: PULL_EXPIRES,
};

/// The most messages that can be under way to a subscription.
const OUTSTANDING_MAX: usize = PULL.messages + PULL.messages / 2;
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
    #[error("messages were read from the stream's store, past one that the client library cannot receive")]
    PastUnreadable,
}

impl PullError {
    /// What the operator can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
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
    subscriber: Subscriber,
    pull_subject: String,
    inbox: String,
    limits: PullLimits,
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
    /// Messages are read out of the store, one by one, as long as this is there.
    care: Option<Care>,
    store_reads: StoreReads,
    handed_out: bool,
}

/// What was read out of the store by one subscription.
#[derive(Default)]
struct StoreReads {
    /// The first sequence that was not examined, where each message is acknowledged separately.
    next: u64,
    /// Deliveries of the consumer when the subscription began.
    delivered: u64,
    /// Messages handed out or acknowledged.
    messages: u64,
    /// When the last one was found that ends a connection.
    found: Option<Instant>,
    /// Whether the subscription ends with it.
    done: bool,
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
        handle: ConsumerHandle,
        request: OpenRequest,
        retention: Retention,
        info: &Info,
        care: Option<Care>,
    ) -> Result<Self, OpenError> {
        let client = &handle.line.client;
        let inbox = client.new_inbox();
        let subscriber = client
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
        let delivered = info.delivered.consumer_sequence;
        Ok(Self {
            retention,
            subscriber,
            pull_subject: format!(
                "{}.CONSUMER.MSG.NEXT.{}.{}",
                handle.inner.api_prefix, request.stream, request.consumer
            ),
            inbox,
            limits: PULL.within(&info.config),
            order: Order::new(delivered, after, published_ns),
            outstanding: 0,
            oversized: false,
            rejections: 0,
            batch: Batch::default(),
            held: None,
            failed: None,
            care,
            store_reads: StoreReads {
                next: info.ack_floor.stream_sequence.min(after) + 1,
                delivered,
                ..StoreReads::default()
            },
            handed_out: false,
            handle,
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
            let line = &self.handle.line;
            if line.was_remade() {
                return Err(PullError::Reconnected);
            }
            // Looked at before the last messages are taken: what had arrived by then is in order, and good.
            let lost = line.is_lost();
            if self.care.is_some() && self.failed.is_none() && !lost {
                self.read_from_store(messages_max, bytes_max).await?;
            } else {
                self.drain(messages_max, bytes_max).await;
            }
            self.acknowledge_covered().await;
            if !self.batch.deliveries.is_empty() {
                self.ask().await;
                return Ok(self.batch.take(self.handle.line.number, self.retention));
            }
            if let Some(error) = self.failed.clone() {
                return Err(self.explain(error).await);
            }
            if lost {
                return Err(PullError::Reconnected);
            }
            if self.care.is_none() {
                self.ask().await;
                self.wait().await?;
            }
        }
    }

    /// Waits until there is something to take, or the line is lost.
    async fn wait(&mut self) -> Result<(), PullError> {
        let silence = HEARTBEAT * 2 + HEARTBEAT / 2;
        tokio::select! {
            biased;
            message = self.subscriber.next() => {
                match message {
                    // Judged by the next `drain`; nothing else is between here and there.
                    Some(message) => self.held = Some(message),
                    None => self.failed = Some(PullError::Reconnected),
                }
                Ok(())
            }
            () = self.handle.line.lost() => Ok(()),
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
                    Poll::Ready(None) => self.failed = Some(PullError::Reconnected),
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
        self.handed_out = true;
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
                self.oversized |= unused == Some(self.limits.messages);
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
            self.outstanding <= self.limits.messages / 2
        };
        if !due || self.failed.is_some() || self.care.is_some() || self.handle.line.is_lost() {
            return;
        }
        let PullLimits {
            mut messages,
            bytes,
            expires,
        } = self.limits;
        let mut request = json!({
            "batch": messages,
            "max_bytes": bytes,
            "expires": expires.as_nanos() as u64,
            // The broker wants two of them within the life of a request.
            "idle_heartbeat": HEARTBEAT.min(expires / 2).as_nanos() as u64,
        });
        if self.oversized {
            messages = 1;
            request["batch"] = json!(1);
            request["max_bytes"] = json!(0);
        }
        let payload = Bytes::from(request.to_string());
        let client = &self.handle.line.client;
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
                self.failed = Some(PullError::Reconnected);
            }
        }
    }

    async fn acknowledge_covered(&mut self) {
        if self.batch.covered.is_empty() {
            return;
        }
        let replies = std::mem::take(&mut self.batch.covered);
        let token = AckToken {
            line: self.handle.line.number,
            replies: Replies::Each(replies),
        };
        if let Err(error) = ack::send(&self.handle.line, &token, "+ACK").await {
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
}

impl Batch {
    fn take(&mut self, line: u64, retention: Retention) -> Pulled {
        let batch = std::mem::take(self);
        let replies = match (retention, batch.last_reply) {
            (Retention::Limits, Some(last)) => Replies::All(last),
            (Retention::Limits, None) => Replies::Nothing,
            _ => Replies::Each(batch.replies),
        };
        Pulled {
            deliveries: batch.deliveries,
            ack: AckToken { line, replies },
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let inner = &self.handle.inner;
        let lost = self.handle.line.is_lost() || self.failed == Some(PullError::Reconnected);
        let (key, highest) = (suspects::key(&self.request), self.order.highest());
        let mut suspects = inner.suspects();
        if lost && !self.store_reads.done {
            suspects.entry(key).or_default().lost(highest);
        } else if let Some(suspect) = suspects.get_mut(&key) {
            if self.store_reads.messages > 0 {
                suspect.left(highest);
            } else if self.handed_out {
                suspect.forgive();
            }
        }
    }
}
