//! Core NATS subjects as a source: no position, no replay, at most once.
//!
//! Each subscription has its own connection. A message whose headers the client library cannot parse makes it drop the
//! connection, and nobody sends the message again; the streams must not be affected. How many messages an interruption
//! loses is unknown, so the subscription counts interruptions. A separate connection also makes the count of dropped
//! messages exact: messages that the connection received and nobody read.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_nats::client::Statistics;
use async_nats::connection::State;
use async_nats::{Client, Event, Message, Subscriber};
use futures_util::StreamExt;
use futures_util::stream::{SelectAll, Stream};
use tokio::sync::{Notify, watch};
use tokio_util::task::AbortOnDropHandle;

use super::link::Signals;
use super::{Broker, headers};
use lantern_model::batch::{Delivery, Timestamp};

/// Maximum number of waiting messages: some seconds of heartbeats of many devices.
const QUEUE_MESSAGES: usize = 16 * 1024;

/// Messages that the pump takes before it yields to other tasks.
const BURST: u64 = 4096;

/// Quiet time after which everything that the client received counts as forwarded.
const QUIET: Duration = Duration::from_millis(100);

/// Maximum bytes of waiting messages, which bounds large messages.
const QUEUE_BYTES: usize = 16 * 1024 * 1024;

/// Why a core NATS subscription failed or ended.
#[derive(Debug, thiserror::Error)]
pub enum CoreError {
    /// A subject is not valid.
    #[error("cannot subscribe to {subject:?}")]
    Subscribe {
        /// The subject.
        subject: String,
        /// The cause.
        #[source]
        source: async_nats::SubscribeError,
    },
    /// The connection cannot be established.
    #[error("cannot connect for core NATS subjects")]
    Connect(#[source] async_nats::ConnectError),
    /// The client was closed.
    #[error("the connection was closed")]
    Closed,
}

/// What happens on a core NATS subscription.
#[derive(Debug)]
pub enum CoreEvent {
    /// Messages arrived.
    Messages(Vec<Delivery>),
    /// The connection was lost. Messages published until it is up again are lost, and so is a message with headers that the
    /// client cannot parse, which causes the loss.
    Interrupted,
}

/// Messages of core NATS subjects from now on. It survives reconnects; messages sent in between are lost.
pub struct CoreSubscription {
    queue: Arc<Queue>,
    client: Client,
    /// How often the connection was lost.
    interruptions: watch::Receiver<u64>,
    _pump: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Notify,
    /// Dropped here because the queue was full.
    dropped: AtomicU64,
    /// Dropped by the client because this task was too slow.
    lost: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    deliveries: VecDeque<Delivery>,
    bytes: usize,
    closed: bool,
}

impl Broker {
    /// Subscribes to core NATS `subjects` (with wildcards). A message that several of them match arrives once for each.
    /// Requires no connection at this moment.
    ///
    /// # Errors
    /// [`CoreError`] when a subject is not valid or the client was closed.
    pub async fn subscribe_core(&self, subjects: &[String]) -> Result<CoreSubscription, CoreError> {
        // This connection has nearly the same state as the main one, so it has no `Link`.
        let dialing = self.inner.dialing();
        let (interrupting, interruptions) = watch::channel(0);
        let client = dialing
            .options(&Arc::new(Signals::default()))
            .retry_on_initial_connect()
            .event_callback(move |event| {
                if matches!(event, Event::Disconnected) {
                    interrupting.send_modify(|count| *count += 1);
                }
                std::future::ready(())
            })
            .connect(dialing.addresses.as_slice())
            .await
            .map_err(CoreError::Connect)?;
        let mut subscribers = SelectAll::new();
        for subject in subjects {
            let subscriber =
                client
                    .subscribe(subject.clone())
                    .await
                    .map_err(|source| CoreError::Subscribe {
                        subject: subject.clone(),
                        source,
                    })?;
            subscribers.push(subscriber);
        }
        let queue = Arc::new(Queue::default());
        let pump = Pump {
            subscribers,
            queue: Arc::clone(&queue),
            statistics: client.statistics(),
            passed_on: 0,
        };
        let pump = AbortOnDropHandle::new(tokio::spawn(pump.run()));
        Ok(CoreSubscription {
            queue,
            client,
            interruptions,
            _pump: pump,
        })
    }
}

struct Pump {
    subscribers: SelectAll<Subscriber>,
    queue: Arc<Queue>,
    statistics: Arc<Statistics>,
    /// Messages that the client delivered.
    passed_on: u64,
}

impl Pump {
    async fn run(mut self) {
        loop {
            match tokio::time::timeout(QUIET, self.subscribers.next()).await {
                Ok(Some(message)) => {
                    self.pass_on(message);
                    self.burst().await;
                    // Without this, a flood would block the other tasks of this thread.
                    tokio::task::yield_now().await;
                }
                Ok(None) => break,
                Err(_) => self.count_lost(0),
            }
        }
        self.queue.lock().closed = true;
        self.queue.arrived.notify_one();
    }

    /// Takes the available messages, without the runtime's limit of 128 messages at a time.
    async fn burst(&mut self) {
        let burst = std::future::poll_fn(|_| {
            let mut context = Context::from_waker(Waker::noop());
            for _ in 0..BURST {
                match Pin::new(&mut self.subscribers).poll_next(&mut context) {
                    Poll::Ready(Some(message)) => self.pass_on(message),
                    Poll::Ready(None) => break,
                    Poll::Pending => {
                        // The client counts a message just before it forwards it, so one may be in transit.
                        self.count_lost(1);
                        break;
                    }
                }
            }
            Poll::Ready(())
        });
        tokio::task::unconstrained(burst).await;
    }

    fn pass_on(&mut self, message: Message) {
        self.passed_on += 1;
        self.queue.push(delivery(message));
    }

    fn count_lost(&self, in_transit: u64) {
        let received = self.statistics.in_messages.load(Ordering::SeqCst);
        let lost = received.saturating_sub(self.passed_on + in_transit);
        self.queue.lost.fetch_max(lost, Ordering::Relaxed);
    }
}

fn delivery(message: Message) -> Delivery {
    Delivery {
        subject: headers::subject_text(message.subject.into_string()),
        sequence: 0,
        published_ns: Timestamp::now().0.saturating_mul(1_000),
        headers: headers::of(message.headers.as_ref()),
        payload: message.payload,
    }
}

impl Queue {
    fn push(&self, delivery: Delivery) {
        let size = delivery.size_bytes();
        let mut waiting = self.lock();
        let fits =
            waiting.deliveries.len() < QUEUE_MESSAGES && waiting.bytes.saturating_add(size) <= QUEUE_BYTES;
        if fits || waiting.deliveries.is_empty() {
            waiting.bytes += size;
            waiting.deliveries.push_back(delivery);
            drop(waiting);
            self.arrived.notify_one();
        } else {
            drop(waiting);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn take(&self, messages_max: usize, bytes_max: usize) -> (Vec<Delivery>, bool) {
        let mut waiting = self.lock();
        let mut taken: Vec<Delivery> = Vec::new();
        let mut bytes = 0;
        while let Some(front) = waiting.deliveries.front() {
            let size = front.size_bytes();
            if taken.len() >= messages_max.max(1) || (!taken.is_empty() && bytes + size > bytes_max) {
                break;
            }
            bytes += size;
            waiting.bytes -= size;
            taken.extend(waiting.deliveries.pop_front());
        }
        (taken, waiting.closed)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CoreSubscription {
    /// Waits for a message and returns it with those that arrived with it, up to `messages_max` messages and about
    /// `bytes_max` bytes (always at least one message), or for a loss of the connection. The messages' sequence is 0,
    /// their time is the arrival. Dropping the future before it completes loses nothing.
    ///
    /// # Errors
    /// [`CoreError::Closed`] when the connection is lost for good.
    pub async fn next_event(
        &mut self,
        messages_max: usize,
        bytes_max: usize,
    ) -> Result<CoreEvent, CoreError> {
        loop {
            let (taken, closed) = self.queue.take(messages_max, bytes_max);
            if !taken.is_empty() {
                return Ok(CoreEvent::Messages(taken));
            }
            if closed {
                return Err(CoreError::Closed);
            }
            let queue = Arc::clone(&self.queue);
            tokio::select! {
                () = queue.arrived.notified() => {}
                () = self.interrupted() => return Ok(CoreEvent::Interrupted),
            }
        }
    }

    /// As [`CoreSubscription::next_event`], without the losses of the connection.
    ///
    /// # Errors
    /// [`CoreError::Closed`] when the connection is lost for good.
    pub async fn next(&mut self, messages_max: usize, bytes_max: usize) -> Result<Vec<Delivery>, CoreError> {
        loop {
            if let CoreEvent::Messages(messages) = self.next_event(messages_max, bytes_max).await? {
                return Ok(messages);
            }
        }
    }

    /// Number of messages since the start that arrived and were dropped because they were not read fast enough.
    /// Messages sent while there was no connection are unknown.
    pub fn dropped(&self) -> u64 {
        self.queue.dropped.load(Ordering::Relaxed) + self.queue.lost.load(Ordering::Relaxed)
    }

    /// Waits until the connection is lost. Never returns when it is lost for good, which the queue reports.
    async fn interrupted(&mut self) {
        if self.interruptions.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// Whether the connection is up.
    pub fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: usize) -> Delivery {
        Delivery {
            subject: String::new(),
            sequence: 0,
            published_ns: 0,
            headers: Vec::new(),
            payload: vec![0; bytes].into(),
        }
    }

    #[test]
    fn the_queue_is_bounded_in_messages_and_bytes_and_counts_drops() {
        let queue = Queue::default();
        for _ in 0..QUEUE_MESSAGES + 5 {
            queue.push(message(1));
        }
        assert_eq!(queue.dropped.load(Ordering::Relaxed), 5);
        assert_eq!(queue.take(usize::MAX, usize::MAX).0.len(), QUEUE_MESSAGES);
        queue.push(message(QUEUE_BYTES + 1));
        queue.push(message(1));
        assert_eq!(
            queue.dropped.load(Ordering::Relaxed),
            6,
            "an empty queue accepts one message of any size"
        );
        assert_eq!(queue.take(10, 1).0.len(), 1);
        assert_eq!(queue.lock().bytes, 0);
    }

    #[test]
    fn a_batch_respects_its_bounds() {
        let queue = Queue::default();
        (0..10).for_each(|_| queue.push(message(100)));
        assert_eq!(queue.take(3, usize::MAX).0.len(), 3);
        assert_eq!(queue.take(10, 250).0.len(), 2);
        assert_eq!(queue.take(10, 0).0.len(), 1);
        assert_eq!(queue.take(10, usize::MAX).0.len(), 4);
    }
}
