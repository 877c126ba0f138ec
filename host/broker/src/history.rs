//! Rare requests: the position of a time in a stream (may cost a consumer), and the deletion of a consumer.

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::Info;
use async_nats::jetstream::stream::DeleteStatus;
use chrono::{DateTime, SecondsFormat};
use serde_json::json;

use super::api::EMPTY;
use super::{Broker, BrokerError};

impl Broker {
    /// The last sequence of `stream` whose message was stored at or before `time_ns` (nanoseconds since 1970), or the
    /// one before the stream's first when all are younger.
    ///
    /// # Errors
    /// [`BrokerError`] when the broker is unreachable, does not answer, or has no such stream.
    pub async fn sequence_until(&self, stream: &str, time_ns: i64) -> Result<u64, BrokerError> {
        let start = DateTime::from_timestamp_nanos(time_ns.saturating_add(1));
        // The broker resolves the time when it creates a consumer; this one never delivers anything and expires.
        let config = json!({
            "deliver_policy": "by_start_time",
            "opt_start_time": start.to_rfc3339_opts(SecondsFormat::Nanos, true),
            "ack_policy": "none",
            "replay_policy": "instant",
            "inactive_threshold": 5_000_000_000_u64,
            "mem_storage": true,
        });
        let request = json!({ "stream_name": stream, "config": config });
        let made: Option<Info> = self
            .inner
            .request(format!("CONSUMER.CREATE.{stream}"), &request, &[])
            .await?;
        made.map(|info| info.delivered.stream_sequence)
            .ok_or_else(|| BrokerError::Answer {
                what: format!("consumer by time on stream {stream}"),
                detail: "the broker created none".to_owned(),
            })
    }

    /// Deletes an unneeded consumer. A missing consumer is not an error, and one of another owner than `owner` is left
    /// alone.
    ///
    /// # Errors
    /// [`BrokerError`] when the broker is unreachable or does not answer.
    pub async fn delete_consumer(
        &self,
        stream: &str,
        consumer: &str,
        owner: &str,
    ) -> Result<(), BrokerError> {
        let Some(facts) = self.consumer_facts(stream, consumer).await? else {
            return Ok(());
        };
        if let Some(other) = facts.owner.filter(|found| found != owner) {
            tracing::info!(
                stream,
                consumer,
                other,
                "the consumer belongs to another host and is not deleted"
            );
            return Ok(());
        }
        let _: Option<DeleteStatus> = self
            .inner
            .request(
                format!("CONSUMER.DELETE.{stream}.{consumer}"),
                &EMPTY,
                &[ErrorCode::CONSUMER_NOT_FOUND, ErrorCode::STREAM_NOT_FOUND],
            )
            .await?;
        Ok(())
    }
}
