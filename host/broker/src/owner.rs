//! Takes over a consumer that another host abandoned. Requires an operator's decision: the other host may only be
//! restarting, and would lose its access.

use async_nats::jetstream::consumer::Info;
use tokio::time::Instant;
use tracing::warn;

use super::consumer::OWNER;
use super::open::ownership::{IDLE_WATCH, WATCH_EVERY};
use super::{Broker, Inner, OpenError};

/// The result of a takeover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TakeOver {
    /// The consumer does not exist; the next opening creates it.
    Absent,
    /// This host already owns it.
    Own,
    /// This host took it over from this owner (`None`: from no host).
    Taken(Option<String>),
}

impl Broker {
    /// Makes `owner` the owner of `consumer` of `stream`, unless the consumer is in use.
    ///
    /// # Errors
    /// [`OpenError::Taken`] when the consumer is in use, and [`OpenError::Broker`].
    pub async fn take_over(&self, stream: &str, consumer: &str, owner: &str) -> Result<TakeOver, OpenError> {
        let inner = &self.inner;
        let Some(found) = inner.consumer_info(stream, consumer).await? else {
            return Ok(TakeOver::Absent);
        };
        let before = found.config.metadata.get(OWNER).cloned();
        if before.as_deref() == Some(owner) {
            return Ok(TakeOver::Own);
        }
        inner.wait_until_idle(stream, consumer, &found).await?;
        let metadata = [(OWNER.to_owned(), owner.to_owned())].into();
        inner.write_metadata(stream, consumer, &metadata, &found).await?;
        warn!(stream, consumer, before, "took over a consumer of another host");
        Ok(TakeOver::Taken(before))
    }
}

impl Inner {
    /// Returns when the consumer was idle for a while.
    async fn wait_until_idle(&self, stream: &str, consumer: &str, found: &Info) -> Result<(), OpenError> {
        let deadline = Instant::now() + IDLE_WATCH;
        let mut now = Some(found.clone());
        while let Some(info) = now {
            let moved = info.delivered.consumer_sequence != found.delivered.consumer_sequence;
            if info.num_waiting > 0 || moved {
                return Err(OpenError::Taken {
                    stream: stream.to_owned(),
                    consumer: consumer.to_owned(),
                    owner: found.config.metadata.get(OWNER).cloned(),
                    idle: false,
                });
            }
            if Instant::now() >= deadline {
                return Ok(());
            }
            tokio::time::sleep(WATCH_EVERY).await;
            now = self.consumer_info(stream, consumer).await?;
        }
        Ok(())
    }
}
