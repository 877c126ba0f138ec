//! Whose a consumer is: whether the caller may use one that exists, has to wait, or takes it over.

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::Info;
use async_nats::jetstream::stream::DeleteStatus;
use std::time::Duration;
use tokio::time::Instant;

use crate::api::EMPTY;
use crate::consumer::{OWNER, TERM};
use crate::open_request::{OpenError, OpenRequest};
use crate::{BrokerError, Inner, suspects};

/// How long a consumer of another owner must be idle before it counts as abandoned.
pub(crate) const IDLE_WATCH: Duration = Duration::from_secs(2);
/// How long an opening waits for requests of this host's earlier connection to disappear.
const OWN_PATIENCE: Duration = Duration::from_secs(1);
/// Polling interval in the meantime.
pub(crate) const WATCH_EVERY: Duration = Duration::from_millis(250);

impl Inner {
    /// Checks that nobody pulls through the consumer and that no other host owns it: only an operator may decide
    /// whether that host continues. Requests of our own earlier subscription disappear within moments; those of a
    /// silently lost connection expire, and the caller retries until then.
    pub(super) async fn wait_until_unused(
        &self,
        request: &OpenRequest,
        found: Info,
    ) -> Result<Info, OpenError> {
        let owner = found.config.metadata.get(OWNER).cloned();
        let ours = self.is_ours(request, &found);
        if ours && found.num_waiting == 0 {
            return Ok(found);
        }
        let taken = || OpenError::Taken {
            stream: request.stream.clone(),
            consumer: request.consumer.clone(),
            owner: owner.clone(),
            idle: found.num_waiting == 0,
        };
        if !ours && (owner.is_some() || found.num_waiting > 0) {
            return Err(taken());
        }
        let patience = if ours { OWN_PATIENCE } else { IDLE_WATCH };
        let deadline = Instant::now() + patience;
        let mut pause = Duration::from_millis(5);
        loop {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(250));
            let Some(now) = self.consumer_info(&request.stream, &request.consumer).await? else {
                return Ok(found);
            };
            let moved = now.delivered.consumer_sequence != found.delivered.consumer_sequence;
            match (ours, now.num_waiting > 0, Instant::now() >= deadline) {
                (true, false, _) => return Ok(now),
                (true, true, true) => {
                    return Err(OpenError::Busy {
                        stream: request.stream.clone(),
                        consumer: request.consumer.clone(),
                    });
                }
                (false, waiting, _) if waiting || moved => return Err(taken()),
                (false, _, true) => return Ok(now),
                _ => {}
            }
        }
    }

    /// Whether the consumer has our name, or none because we lack the permission to write it.
    pub(super) fn is_ours(&self, request: &OpenRequest, found: &Info) -> bool {
        match found.config.metadata.get(OWNER) {
            Some(owner) => *owner == request.owner,
            None => self.unnamed().contains(&suspects::key(request)),
        }
    }

    /// Whether another host of this database created the consumer before the present term.
    pub(super) fn is_of_earlier_term(&self, request: &OpenRequest, found: &Info) -> bool {
        let term = found.config.metadata.get(TERM).and_then(|term| term.parse().ok());
        self.is_ours(request, found) && term.unwrap_or(0) < request.term
    }

    pub(super) async fn delete(&self, request: &OpenRequest) -> Result<Option<DeleteStatus>, BrokerError> {
        self.request(
            format!("CONSUMER.DELETE.{}.{}", request.stream, request.consumer),
            &EMPTY,
            &[ErrorCode::CONSUMER_NOT_FOUND],
        )
        .await
    }
}
