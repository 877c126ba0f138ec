//! Pulls messages from a consumer in batches. Sends the pull requests itself instead of using the library's message
//! stream, for three reasons: after a reconnect the library continues to pull before histories can be compared; it
//! hides the heartbeats, which carry the number of deliveries and so reveal a lost last one; and a message that exceeds
//! a request's byte limit needs a different request.

mod error;
mod from_store;
mod lifetime;

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
use super::client::LINE_CHECK_INTERVAL;
use super::consumer::PullLimits;
use super::open_request::{OpenError, OpenRequest, PULL_EXPIRES, Start};
use super::sequence::{DeliveryPosition, Order, Verdict};
use super::suspects::CarefulRead;
use super::{BrokerError, ConsumerHandle, Retention};
use super::{headers, suspects};
use lantern_model::batch::Delivery;

pub use error::PullError;

/// Limits of one request, where the broker sets none lower.
///
/// Messages: the next request follows when half of them have arrived; the other half lasts for 5 ms at 400,000 messages
/// a second, many times the round trip to a nearby broker, so the broker never waits for us.
///
/// Bytes: with two open requests, one subscription holds at most 16 MiB while its owner is busy.
const PULL: PullLimits = PullLimits {
    messages: 4096,
    bytes: 8 * 1024 * 1024,
    expires: PULL_EXPIRES,
};

/// Maximum number of messages in transit to a subscription.
const OUTSTANDING_MAX: usize = PULL.messages + PULL.messages / 2;
const _: () = assert!(
    super::SUBSCRIPTION_CAPACITY > 4 * OUTSTANDING_MAX,
    "heartbeats and statuses need additional room, or the library drops some"
);

/// Interval of the broker's heartbeats for an open request.
const HEARTBEAT: Duration = Duration::from_secs(1);

const _: () = assert!(
    LINE_CHECK_INTERVAL.as_millis() > HEARTBEAT.as_millis(),
    "the timer of an idle source would run out between two heartbeats"
);

/// Consecutive requests that the broker may end without a message before the subscription counts as refused.
const REJECTIONS_MAX: u32 = 3;

/// Messages in stream order, with the token that acknowledges them.
#[derive(Debug)]
pub struct Pulled {
    /// At least one.
    pub deliveries: Vec<Delivery>,
    /// Acknowledges all of them.
    pub ack: AckToken,
}

impl Pulled {
    /// Adds messages that follow these.
    pub fn append(&mut self, mut later: Self) {
        self.deliveries.append(&mut later.deliveries);
        self.ack.extend(later.ack);
    }

    /// Messages that need no acknowledgement, for tests.
    #[doc(hidden)]
    pub fn without_ack(deliveries: Vec<Delivery>) -> Self {
        let (line, replies) = (0, Replies::Nothing);
        Self {
            deliveries,
            ack: AckToken { line, replies },
        }
    }
}

/// An open consumer. Dropping it withdraws its requests.
pub struct Subscription {
    handle: ConsumerHandle,
    request: OpenRequest,
    retention: Retention,
    subscriber: Subscriber,
    pull_subject: String,
    inbox: String,
    limits: PullLimits,
    order: Order,
    /// Requested messages that have neither arrived nor been returned by the broker.
    outstanding: usize,
    /// The next request is for one message of any size.
    oversized: bool,
    rejections: u32,
    batch: Batch,
    /// A message that would have exceeded a batch's bytes; it begins the next batch.
    held: Option<Message>,
    failed: Option<PullError>,
    /// While set, messages are read from the store one by one.
    careful_read: Option<CarefulRead>,
    store_reads: StoreReads,
    handed_out: bool,
}

/// Progress of reads from the store.
#[derive(Default)]
struct StoreReads {
    /// The first unexamined sequence, where each message is acknowledged separately.
    next: u64,
    /// Deliveries of the consumer when the subscription began.
    delivered: u64,
    /// Messages returned or acknowledged.
    messages: u64,
    /// When the last message that ends a connection was found.
    found: Option<Instant>,
    /// Whether the reads ended the subscription.
    done: bool,
}

#[derive(Default)]
struct Batch {
    deliveries: Vec<Delivery>,
    bytes: usize,
    last_reply: Option<Subject>,
    replies: Vec<Subject>,
    /// Replies of messages that the checkpoint covers and that the broker still waits for.
    covered: Vec<Subject>,
}

impl Subscription {
    pub(super) async fn new(
        handle: ConsumerHandle,
        request: OpenRequest,
        retention: Retention,
        info: &Info,
        careful_read: Option<CarefulRead>,
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
            careful_read,
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

    /// Requests at most this number of messages at once.
    pub fn limit_requests(&mut self, messages: usize) {
        self.limits.messages = self.limits.messages.min(messages.max(1));
    }

    /// A handle for acknowledgements and facts, usable while `next` waits.
    pub fn handle(&self) -> ConsumerHandle {
        self.handle.clone()
    }

    /// Waits for a message and returns it with those that arrived with it, up to `messages_max` messages and about
    /// `bytes_max` bytes (always at least one message, of any size). Messages are in stream order, without a hole among
    /// the matching ones.
    ///
    /// Dropping the future before it completes loses nothing.
    ///
    /// # Errors
    /// [`PullError`]; the subscription has then ended. Messages returned before stay valid.
    pub async fn next(&mut self, messages_max: usize, bytes_max: usize) -> Result<Pulled, PullError> {
        loop {
            let line = &self.handle.line;
            if line.was_remade() {
                return Err(PullError::Reconnected);
            }
            // Checked before the buffered messages are taken: what had arrived by then is in order and valid.
            let lost = line.is_lost();
            if self.careful_read.is_some() && self.failed.is_none() && !lost {
                self.read_from_store(messages_max, bytes_max).await?;
            } else {
                self.drain(messages_max, bytes_max).await;
            }
            self.acknowledge_covered().await;
            if !self.batch.deliveries.is_empty() {
                self.request_more().await;
                return Ok(self.batch.take(self.handle.line.number, self.retention));
            }
            if let Some(error) = self.failed.clone() {
                return Err(self.explain(error).await);
            }
            if lost {
                return Err(PullError::Reconnected);
            }
            if self.careful_read.is_none() {
                self.request_more().await;
                self.wait().await?;
            }
        }
    }

    /// Waits until a message arrives or the line is lost.
    async fn wait(&mut self) -> Result<(), PullError> {
        let silence = HEARTBEAT * 2 + HEARTBEAT / 2;
        tokio::select! {
            biased;
            message = self.subscriber.next() => {
                match message {
                    // The next `drain` judges it; nothing comes in between.
                    Some(message) => self.held = Some(message),
                    None => self.failed = Some(PullError::Reconnected),
                }
                Ok(())
            }
            () = self.handle.line.lost() => Ok(()),
            () = tokio::time::sleep(silence) => Err(PullError::Silent { after: silence }),
        }
    }

    /// Moves buffered messages into the batch without waiting. The runtime yields a task after 128 messages, which
    /// would cut every batch, so the poll is unconstrained.
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
        // A stored message can imitate a status with its headers; only a stored one carries an acknowledgement subject.
        match (
            message
                .reply
                .as_ref()
                .and_then(|reply| DeliveryPosition::parse(reply)),
            message.status,
        ) {
            (Some(position), _) => self.accept_message(message, position),
            (None, Some(status)) => self.accept_status(status, &message),
            (None, None) => debug!(subject = %message.subject, "ignored a message that is not a delivery"),
        }
    }

    fn accept_message(&mut self, message: Message, position: DeliveryPosition) {
        self.outstanding = self.outstanding.saturating_sub(1);
        self.rejections = 0;
        let explicit = self.retention != Retention::Limits;
        match self.order.judge(&position) {
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
                    found: position.consumer_sequence,
                });
                return;
            }
            Verdict::Changed => {
                self.failed = Some(PullError::HistoryChanged {
                    sequence: position.stream_sequence,
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
            subject: headers::subject_text(message.subject.into_string()),
            sequence: position.stream_sequence,
            published_ns: position.published_ns,
            headers: headers::of(message.headers.as_ref()),
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
                // The rest of a request's bytes is often too small for the next message; only a whole request that is
                // too small matters.
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

    /// Sends a pull request when there is room.
    async fn request_more(&mut self) {
        let due = if self.oversized {
            self.outstanding == 0
        } else {
            self.outstanding <= self.limits.messages / 2
        };
        if !due || self.failed.is_some() || self.careful_read.is_some() || self.handle.line.is_lost() {
            return;
        }
        let PullLimits {
            mut messages,
            bytes,
            expires,
        } = self.limits;
        let expires = lifetime::of_request_now(expires);
        let mut request = json!({
            "batch": messages,
            "max_bytes": bytes,
            "expires": expires.as_nanos() as u64,
            // The broker requires two of them within the life of a request.
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
                debug!(%error, "failed to request messages");
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
            debug!(%error, "failed to acknowledge known messages; will retry after the next opening");
        }
    }

    /// Determines the cause of an ambiguous error.
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
            suspects.entry(key).or_default().record_loss(highest);
        } else if let Some(suspect) = suspects.get_mut(&key) {
            if self.store_reads.messages > 0 {
                suspect.resume(highest);
            } else if self.handed_out {
                suspect.clear();
            }
        }
    }
}
