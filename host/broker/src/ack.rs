//! Acknowledgements, and what else one may ask of the consumer while its messages are being read. An acknowledgement
//! is fire and forget: one that is lost only means that the broker's position lags behind the database's, which is
//! the one that counts.

use std::sync::Arc;
use std::time::Duration;

use async_nats::Subject;
use async_nats::jetstream::consumer::Config;
use bytes::Bytes;

use super::client::Line;
use super::sequence::Place;
use super::{BrokerError, ConsumerFacts, Inner, consumer};

/// What to acknowledge when the deliveries that it came with have taken effect. Dropping it acknowledges nothing.
#[derive(Debug)]
#[must_use = "what is never acknowledged keeps the broker's position behind"]
pub struct AckToken {
    /// The number of the line that the deliveries came over.
    pub(super) line: u64,
    pub(super) replies: Replies,
}

#[derive(Debug)]
pub(super) enum Replies {
    /// Of the last delivery; covers all before it.
    All(Subject),
    /// Of each delivery.
    Each(Vec<Subject>),
    /// The deliveries did not come through the consumer.
    Nothing,
}

/// Why an acknowledgement did not leave. Never a reason to do the work again: the checkpoint has it.
#[derive(Debug, thiserror::Error)]
pub enum AckError {
    /// The connection that the deliveries came over is gone; after the next opening the broker is told anew.
    #[error("the connection was lost before the acknowledgement")]
    Reconnected,
    /// The client did not take it in time.
    #[error("the acknowledgement could not be sent in time")]
    Timeout,
    /// The client refuses it.
    #[error("the acknowledgement could not be sent")]
    Publish(#[source] async_nats::PublishError),
}

/// How long an acknowledgement may wait for room in the client's queue. There is none only while the connection
/// stands still, and then it is not worth more than this.
const ACK_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the broker may take to answer an acknowledgement. It does within milliseconds.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);

/// A handle on an open consumer, beside its [`super::Subscription`]. Cheap to clone, and usable while `next` waits.
#[derive(Clone)]
pub struct ConsumerHandle {
    pub(super) inner: Arc<Inner>,
    pub(super) line: Arc<Line>,
    pub(super) stream: String,
    pub(super) consumer: String,
    pub(super) wanted: Arc<Config>,
}

impl ConsumerHandle {
    /// Acknowledges the deliveries of `token`. Returns when the acknowledgement is on its way.
    ///
    /// # Errors
    ///
    /// [`AckError`], which is worth a line in the log at most.
    pub async fn ack(&self, token: AckToken) -> Result<(), AckError> {
        send(&self.line, &token, "+ACK").await
    }

    /// Tells the broker that the deliveries of `token` are still being worked on, so that it does not deliver them
    /// again. Only of use where each is acknowledged by itself (work-queue and interest streams).
    ///
    /// # Errors
    ///
    /// [`AckError`], as for [`ConsumerHandle::ack`].
    pub async fn in_progress(&self, token: &AckToken) -> Result<(), AckError> {
        send(&self.line, token, "+WPI").await
    }

    /// The stream sequence of the message that was acknowledged last over this handle's connection.
    pub fn last_acknowledged(&self) -> Option<u64> {
        let reply = self.line.last_ack()?;
        Some(Place::parse(&reply)?.stream_sequence)
    }

    /// Sends the last acknowledgement again and waits for the broker's answer to it. Says whether one came: none comes
    /// when the user may not publish acknowledgements, or when its account does not import their subject.
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

    /// Sends the acknowledgements that are on their way. To be called before the handle is dropped, which closes the
    /// connection.
    pub async fn flush(&self) {
        self.line.flush(ACK_TIMEOUT / 2).await;
    }

    /// What the broker says of the consumer, and in what it differs from what was asked for when it was opened;
    /// `None` when it is gone.
    ///
    /// # Errors
    ///
    /// [`BrokerError`] when the broker cannot be asked or does not answer.
    pub async fn facts(&self) -> Result<Option<ConsumerFacts>, BrokerError> {
        let info = self.inner.consumer_info(&self.stream, &self.consumer).await?;
        Ok(info.map(|info| ConsumerFacts {
            differences: consumer::differences(&self.wanted, &info.config),
            ..consumer::facts(&info)
        }))
    }
}

pub(super) async fn send(line: &Line, token: &AckToken, word: &'static str) -> Result<(), AckError> {
    let replies = match &token.replies {
        Replies::All(last) => std::slice::from_ref(last),
        Replies::Each(replies) => replies.as_slice(),
        Replies::Nothing => return Ok(()),
    };
    // It would wait in the client's queue and arrive at a consumer that has been put elsewhere meanwhile.
    if line.number != token.line || line.is_lost() {
        return Err(AckError::Reconnected);
    }
    let publish = async {
        for reply in replies {
            line.client
                .publish(reply.clone(), Bytes::from_static(word.as_bytes()))
                .await?;
        }
        if let (Some(last), "+ACK") = (replies.last(), word) {
            line.acknowledged(last);
        }
        Ok(())
    };
    match tokio::time::timeout(ACK_TIMEOUT, publish).await {
        Ok(sent) => sent.map_err(AckError::Publish),
        Err(_) => Err(AckError::Timeout),
    }
}
