//! Reads messages from the stream's store while the next message is suspected of ending the connection (see
//! `suspects`). On streams with limits retention, messages are returned from the store until enough of them are
//! harmless. On streams that delete acknowledged messages, only the bad messages are: the broker has delivered them to
//! the connection that they ended, and still waits for their acknowledgements.

use std::time::Duration;

use async_nats::Subject;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::super::ack::{AckToken, Replies, send};
use super::super::stored::Stored;
use super::super::suspects::CarefulRead;
use super::super::{BrokerError, Retention};
use super::{PullError, Subscription};

/// How long a source waits at the end of its stream for another bad message before it resumes the consumer. A publisher
/// that keeps sending them costs no connection within this time.
const PATIENCE: Duration = Duration::from_secs(1);

/// Polling interval in the meantime: an imperceptible delay, for 50 requests a second.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Harmless messages that are examined in search of a bad one where each message is acknowledged separately.
const SEARCH_MAX: u32 = 4096;

impl Subscription {
    /// Fills the batch from the stream's store, one message at a time, until the careful read ends.
    pub(super) async fn read_from_store(
        &mut self,
        messages_max: usize,
        bytes_max: usize,
    ) -> Result<(), PullError> {
        if self.retention == Retention::Limits {
            self.read_all_from_store(messages_max, bytes_max).await
        } else {
            self.read_bad_from_store(messages_max).await
        }
    }

    async fn read_all_from_store(&mut self, messages_max: usize, bytes_max: usize) -> Result<(), PullError> {
        while self.batch.deliveries.len() < messages_max.max(1) && self.batch.bytes < bytes_max {
            let next = self.order.highest() + 1;
            match self.stored_from(next).await? {
                Some(stored) => {
                    if !self
                        .careful_read
                        .as_mut()
                        .is_some_and(|read| read.takes(stored.breaks))
                    {
                        break;
                    }
                    self.take_from_store(stored);
                }
                None if !self.batch.deliveries.is_empty() => return Ok(()),
                None if self
                    .store_reads
                    .found
                    .is_some_and(|found| found.elapsed() < PATIENCE) =>
                {
                    tokio::time::sleep(POLL_INTERVAL).await;
                }
                None => break,
            }
        }
        let full = self.batch.deliveries.len() >= messages_max.max(1) || self.batch.bytes >= bytes_max;
        if !full {
            self.end_store_reads();
        }
        Ok(())
    }

    async fn read_bad_from_store(&mut self, messages_max: usize) -> Result<(), PullError> {
        for _ in 0..SEARCH_MAX {
            let Some(stored) = self.stored_from(self.store_reads.next).await? else {
                break;
            };
            let sequence = stored.delivery.sequence;
            let covered = sequence <= self.order.highest();
            match (stored.breaks, covered) {
                (true, _) => {}
                // The broker redelivers it after the rewind, and it is acknowledged then.
                (false, true) => {
                    self.store_reads.next = sequence + 1;
                    continue;
                }
                (false, false) if self.careful_read.as_mut().is_some_and(CarefulRead::takes_forced) => {}
                (false, false) => break,
            }
            self.store_reads.next = sequence + 1;
            let reply = self.reply_for(&stored);
            if covered {
                self.acknowledge_unreceived(reply).await;
            } else {
                self.batch.replies.push(reply);
                self.take_from_store(stored);
                if self.batch.deliveries.len() >= messages_max.max(1) {
                    return Ok(());
                }
            }
        }
        self.end_store_reads();
        // The consumer did not move, so it must be rewound in any case.
        self.store_reads.done = true;
        self.failed.get_or_insert(PullError::Reconnected);
        Ok(())
    }

    async fn stored_from(&self, sequence: u64) -> Result<Option<Stored>, PullError> {
        let found = self
            .handle
            .inner
            .stored_from(&self.request.stream, sequence, &self.request.subjects)
            .await;
        found.map_err(|error: BrokerError| {
            warn!(%error, stream = self.request.stream, "failed to read messages one by one");
            PullError::Reconnected
        })
    }

    fn take_from_store(&mut self, stored: Stored) {
        let Stored { delivery, breaks } = stored;
        if breaks {
            self.store_reads.found = Some(Instant::now());
            debug!(
                stream = self.request.stream,
                consumer = self.request.consumer,
                sequence = delivery.sequence,
                "the client library cannot receive this message; it was read from the stream's store"
            );
        }
        self.store_reads.messages += 1;
        self.order.skip_to(delivery.sequence, delivery.published_ns);
        self.batch.bytes += delivery.size_bytes();
        self.batch.deliveries.push(delivery);
    }

    fn end_store_reads(&mut self) {
        self.careful_read = None;
        // The consumer did not deliver these messages and must be moved past them.
        if self.store_reads.messages > 0 {
            self.store_reads.done = true;
            self.failed = Some(PullError::PastUnreadable);
        }
    }

    /// The acknowledgement subject of a message that the broker delivered to a connection that could not receive it.
    /// The broker finds the message by its stream sequence.
    fn reply_for(&self, stored: &Stored) -> Subject {
        let (stream, consumer) = (&self.request.stream, &self.request.consumer);
        let (sequence, time) = (stored.delivery.sequence, stored.delivery.published_ns);
        let delivered = self.store_reads.delivered.max(1);
        format!("$JS.ACK.{stream}.{consumer}.1.{sequence}.{delivered}.{time}.0").into()
    }

    /// Acknowledges a message that the checkpoint covers.
    async fn acknowledge_unreceived(&mut self, reply: Subject) {
        self.store_reads.messages += 1;
        let token = AckToken {
            line: self.handle.line.number,
            replies: Replies::Each(vec![reply]),
        };
        if let Err(error) = send(&self.handle.line, &token, "+ACK").await {
            debug!(%error, "failed to acknowledge a known message; will retry after the next opening");
        }
    }
}
