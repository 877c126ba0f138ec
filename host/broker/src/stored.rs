//! Reads single messages from the stream's store, independently of the consumer. Slow (a request and base64 per
//! message) and safe: the answer is JSON, so even a message that the client library cannot receive does no harm.

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::stream::RawMessage;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::stream::nanoseconds;
use super::{Broker, BrokerError, Inner, headers};
use lantern_model::batch::Delivery;

/// Identifies a message beyond its sequence, which another history may reuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    /// When the broker stored it, in nanoseconds since 1970.
    pub published_ns: i64,
    /// SHA-256 of its payload.
    pub payload_sha256: [u8; 32],
}

impl Fingerprint {
    /// The fingerprint of a delivered message.
    pub fn of(delivery: &Delivery) -> Self {
        Self {
            published_ns: delivery.published_ns,
            payload_sha256: Sha256::digest(&delivery.payload).into(),
        }
    }
}

impl Broker {
    /// The fingerprint of the message at `sequence` of `stream`; `None` when the message or the stream does not exist
    /// (any more).
    ///
    /// # Errors
    /// [`BrokerError`] when the broker is unreachable or does not answer.
    pub async fn message_at(&self, stream: &str, sequence: u64) -> Result<Option<Fingerprint>, BrokerError> {
        let stored = self.inner.stored(stream, &json!({ "seq": sequence })).await?;
        Ok(stored.map(|stored| Fingerprint::of(&stored.delivery)))
    }
}

impl Broker {
    /// The complete message at `sequence` of `stream`; `None` when the message or the stream does not exist (any more).
    ///
    /// # Errors
    /// [`BrokerError`] when the broker is unreachable or does not answer.
    pub async fn stored_message(&self, stream: &str, sequence: u64) -> Result<Option<Delivery>, BrokerError> {
        let stored = self.inner.stored(stream, &json!({ "seq": sequence })).await?;
        Ok(stored.map(|stored| stored.delivery))
    }
}

impl Broker {
    /// The sequence of the first message of `stream` from `sequence` on that matches one of `subjects` (empty means all);
    /// `None` when there is none.
    ///
    /// # Errors
    /// [`BrokerError`] when the broker is unreachable or does not answer.
    pub async fn first_sequence_from(
        &self,
        stream: &str,
        sequence: u64,
        subjects: &[String],
    ) -> Result<Option<u64>, BrokerError> {
        let stored = self.inner.stored_from(stream, sequence, subjects).await?;
        Ok(stored.map(|stored| stored.delivery.sequence))
    }
}

/// A message read from the store.
pub(super) struct Stored {
    pub(super) delivery: Delivery,
    /// Whether the library ends its connection when it receives this message.
    pub(super) breaks: bool,
}

impl Inner {
    /// The first message from `sequence` on that matches one of `subjects` (empty means all).
    pub(super) async fn stored_from(
        &self,
        stream: &str,
        sequence: u64,
        subjects: &[String],
    ) -> Result<Option<Stored>, BrokerError> {
        let everything = [">".to_owned()];
        let mut first: Option<Stored> = None;
        for subject in if subjects.is_empty() {
            &everything
        } else {
            subjects
        } {
            let query = json!({ "seq": sequence.max(1), "next_by_subj": subject });
            let Some(found) = self.stored(stream, &query).await? else {
                continue;
            };
            let sequence = |stored: &Stored| stored.delivery.sequence;
            if first
                .as_ref()
                .is_none_or(|first| sequence(&found) < sequence(first))
            {
                first = Some(found);
            }
        }
        Ok(first)
    }

    async fn stored(&self, stream: &str, query: &serde_json::Value) -> Result<Option<Stored>, BrokerError> {
        #[derive(serde::Deserialize)]
        struct Answer {
            message: RawMessage,
        }
        let subject = format!("STREAM.MSG.GET.{stream}");
        let none = [ErrorCode::NO_MESSAGE_FOUND, ErrorCode::STREAM_NOT_FOUND];
        let Some(Answer { message }) = self.request(subject.clone(), query, &none).await? else {
            return Ok(None);
        };
        let decode = |text: &str| {
            STANDARD.decode(text).map_err(|error| BrokerError::Answer {
                what: subject.clone(),
                detail: error.to_string(),
            })
        };
        let header_bytes = message
            .headers
            .as_deref()
            .map(decode)
            .transpose()?
            .unwrap_or_default();
        Ok(Some(Stored {
            breaks: headers::break_the_connection(&message.subject, &header_bytes),
            delivery: Delivery {
                subject: headers::subject_text(message.subject),
                sequence: message.sequence,
                published_ns: nanoseconds(message.time.unix_timestamp_nanos()),
                headers: headers::from_bytes(&header_bytes),
                payload: Bytes::from(decode(&message.payload)?),
            },
        }))
    }
}
