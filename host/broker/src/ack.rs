//! Acknowledgements, and other requests to the consumer while its messages are read. An acknowledgement is fire and
//! forget: losing one only means that the broker's position lags behind the database's, which is authoritative.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Subject;
use async_nats::jetstream::consumer::Config;
use bytes::Bytes;

use super::client::Line;
use super::sequence::DeliveryPosition;
use super::{BrokerError, ConsumerFacts, Inner, consumer};

/// Acknowledges deliveries that have taken effect. Dropping the token acknowledges nothing.
#[derive(Debug)]
#[must_use = "the broker's position lags without the acknowledgement"]
pub struct AckToken {
    /// The number of the line that the deliveries arrived on.
    pub(super) line: u64,
    pub(super) replies: Replies,
}

#[derive(Debug)]
pub(super) enum Replies {
    /// Subject of the last delivery, which covers all before it.
    All(Subject),
    /// Subject of each delivery.
    Each(Vec<Subject>),
    /// The deliveries did not arrive through the consumer.
    Nothing,
}

impl AckToken {
    /// Adds the deliveries of a later token of the same subscription.
    pub(super) fn extend(&mut self, later: Self) {
        match (&mut self.replies, later.replies) {
            (_, Replies::Nothing) => {}
            (Replies::Each(replies), Replies::Each(more)) => replies.extend(more),
            // The last delivery covers all before it.
            (replies, more) => *replies = more,
        }
    }
}

/// Why an acknowledgement was not sent. Never a reason to repeat the work: the checkpoint covers it.
#[derive(Debug, thiserror::Error)]
pub enum AckError {
    /// The connection of the deliveries is lost; the next opening updates the broker.
    #[error("the connection was lost before the acknowledgement")]
    Reconnected,
    /// The client did not accept it in time.
    #[error("the acknowledgement could not be sent in time")]
    Timeout,
    /// The client rejects it.
    #[error("the acknowledgement could not be sent")]
    Publish(#[source] async_nats::PublishError),
}

/// How long an acknowledgement may wait for room in the client's queue. The queue is full only while the connection is
/// stalled, when waiting longer is not worthwhile.
const ACK_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the broker may take to answer an acknowledgement, which normally takes milliseconds.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);

/// A handle to an open consumer, in addition to its [`super::Subscription`]. Cheap to clone, and usable while `next`
/// waits.
#[derive(Clone)]
pub struct ConsumerHandle {
    pub(super) inner: Arc<Inner>,
    pub(super) line: Arc<Line>,
    pub(super) stream: String,
    pub(super) consumer: String,
    pub(super) desired: Arc<Config>,
}

impl ConsumerHandle {
    /// Acknowledges the deliveries of `token`. Returns when the acknowledgement is in transit.
    ///
    /// # Errors
    /// [`AckError`], which deserves at most a log line.
    pub async fn ack(&self, token: AckToken) -> Result<(), AckError> {
        send(&self.line, &token, "+ACK").await
    }

    /// Extends the acknowledgement deadline of the deliveries of `token`, so that the broker does not redeliver them.
    /// Useful only where each message is acknowledged separately (work-queue and interest streams).
    ///
    /// # Errors
    /// [`AckError`], as for [`ConsumerHandle::ack`].
    pub async fn in_progress(&self, token: &AckToken) -> Result<(), AckError> {
        send(&self.line, token, "+WPI").await
    }

    /// The stream sequence of the last message acknowledged over this handle's connection.
    pub fn last_acknowledged(&self) -> Option<u64> {
        let reply = self.line.last_ack()?;
        Some(DeliveryPosition::parse(&reply)?.stream_sequence)
    }

    /// Repeats the last acknowledgement and waits for the broker's answer. Returns whether one arrived: none does when
    /// the user may not publish acknowledgements, or when its account does not import their subject.
    pub async fn confirm_last(&self) -> bool {
        let Some(reply) = self.line.last_ack() else {
            return false;
        };
        if self.line.is_lost() {
            return false;
        }
        let answer = self.line.client.request(reply, Bytes::from_static(b"+ACK"));
        matches!(tokio::time::timeout(CONFIRM_TIMEOUT, answer).await, Ok(Ok(_)))
    }

    /// Flushes pending acknowledgements. Call it before dropping the handle, which closes the connection.
    pub async fn flush(&self) {
        self.line.flush(ACK_TIMEOUT / 2).await;
    }

    /// Returns the facts of the consumer, with its differences from the configuration that was requested when it was
    /// opened; `None` when it was deleted.
    ///
    /// # Errors
    /// [`BrokerError`] when the broker is unreachable or does not answer.
    pub async fn facts(&self) -> Result<Option<ConsumerFacts>, BrokerError> {
        let info = self.inner.consumer_info(&self.stream, &self.consumer).await?;
        Ok(info.map(|info| ConsumerFacts {
            differences: consumer::differences(&self.desired, &info.config),
            ..consumer::facts(&info)
        }))
    }
}

pub(super) async fn send(line: &Line, token: &AckToken, verb: &'static str) -> Result<(), AckError> {
    let replies = match &token.replies {
        Replies::All(last) => std::slice::from_ref(last),
        Replies::Each(replies) => replies.as_slice(),
        Replies::Nothing => return Ok(()),
    };
    // It would wait in the client's queue and arrive at a consumer that was moved in the meantime.
    if line.number != token.line || line.is_lost() {
        return Err(AckError::Reconnected);
    }
    let publish = async {
        for reply in replies {
            line.client
                .publish(reply.clone(), Bytes::from_static(verb.as_bytes()))
                .await?;
        }
        if let (Some(last), "+ACK") = (replies.last(), verb) {
            line.record_ack(last);
        }
        Ok(())
    };
    match tokio::time::timeout(ACK_TIMEOUT, publish).await {
        Ok(sent) => sent.map_err(AckError::Publish),
        Err(_) => Err(AckError::Timeout),
    }
}
