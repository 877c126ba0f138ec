//! What is seldom asked of the broker: where in a stream a moment lies (it may cost a consumer), and that a consumer be
//! gone.

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::Info;
use async_nats::jetstream::stream::DeleteStatus;
use chrono::{DateTime, SecondsFormat};
use serde_json::json;

use super::api::EMPTY;
use super::{Broker, BrokerError};

impl Broker {
    /// The last sequence of `stream` whose message was stored at or before `time_ns` (nanoseconds since 1970); that
    /// before the stream's first one when all are younger.
    ///
    /// # Errors
    ///
    /// [`BrokerError`] when the broker cannot be asked, does not answer, or has no such stream.
    pub async fn sequence_until(&self, stream: &str, time_ns: i64) -> Result<u64, BrokerError> {
        let start = DateTime::from_timestamp_nanos(time_ns.saturating_add(1));
        // The broker finds the place when it makes a consumer; this one never delivers anything and goes by itself.
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
                detail: "the broker made none".to_owned(),
            })
    }

    /// Deletes a consumer that is not needed any more. One that does not exist needs no deletion, and one that belongs to
    /// another host than `owner` is left to that host.
    ///
    /// # Errors
    ///
    /// [`BrokerError`] when the broker cannot be asked or does not answer.
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
