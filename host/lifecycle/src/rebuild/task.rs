//! The task of one rebuild: copies carried rows, fills the new tables through projections, compares both sets of tables
//! when they have caught up, holds the live commits for the rest, and swaps the tables in one transaction. If an
//! unexplained difference remains, the live tables stay.

use std::sync::Arc;

use super::begin::stream_of;
use super::swap::SwapAttempt;
use super::{RebuildTask, Stopped};
use lantern_model::results::rebuild::RebuildState;
use lantern_projection::consumer_names;
use lantern_store::{AbandonedConsumer, AdoptError};

impl RebuildTask<'_> {
    pub(super) async fn run(&self) {
        match self.fill_and_finish().await {
            // The next start resumes the rebuild.
            Err(Stopped::Cancelled) if self.inner.stop.is_cancelled() => return,
            Err(Stopped::Cancelled) => self.record_cancellation().await,
            Err(Stopped::Failed(reason)) => self.inner.fail_rebuild(self.id, &reason).await,
            Ok(()) => {}
        }
        self.delete_consumers().await;
    }

    /// A projection may have begun an epoch between the cancellation and its own end.
    async fn record_cancellation(&self) {
        if let Err(error) = self
            .inner
            .parts
            .store
            .rebuilds()
            .end(self.id, RebuildState::Cancelled, None, None)
            .await
        {
            tracing::warn!(rebuild = self.id.0, %error, "failed to delete the state of a cancelled rebuild");
        }
    }

    async fn fill_and_finish(&self) -> Result<(), Stopped> {
        self.carry_over().await?;
        loop {
            let stop = self.stop.child_token();
            let mut fill = self.spawn(&stop);
            let result = match self.until_caught_up(&fill).await {
                Ok(()) => self.swap_tables(&mut fill, &stop).await,
                Err(ended) => Err(ended),
            };
            // Stop the projections on every path: an ended rebuild writes nothing.
            stop.cancel();
            fill.end().await;
            match result? {
                SwapAttempt::Done => return Ok(()),
                SwapAttempt::CarryOver => self.carry_over().await?,
                SwapAttempt::Retry(why) => {
                    self.blocked_by(&why);
                    self.wait_before_retry().await?;
                }
            }
        }
    }

    /// Copies the rows outside the replay range. After a restart the copy starts over and skips rows that exist.
    async fn carry_over(&self) -> Result<(), Stopped> {
        let manifest = self.version.plugin().manifest();
        for table in 0..manifest.tables.len() {
            let mut after = i64::MIN;
            loop {
                let scopes = self.scopes.clone();
                let copied = self.inner.parts.store.rebuilds().carry_over(
                    self.id,
                    Arc::clone(manifest),
                    table,
                    scopes,
                    after,
                );
                let copied = tokio::select! {
                    () = self.stop.cancelled() => return Err(Stopped::Cancelled),
                    copied = copied => copied,
                };
                match copied {
                    Ok(Some(last)) => after = last,
                    Ok(None) => break,
                    Err(error @ AdoptError::Refused(_)) => return Err(Stopped::Failed(error.to_string())),
                    Err(error) => {
                        self.blocked_by(&error.to_string());
                        self.wait_before_retry().await?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn delete_consumers(&self) {
        let manifest = self.version.plugin().manifest();
        for scope in &self.scopes {
            if let Some((stream, _)) = stream_of(self.version, &scope.source) {
                let prefix = &self.inner.parts.config.projections.consumer_prefix;
                let [_, consumer] = consumer_names(prefix, manifest.name.as_str(), &scope.source);
                if let Err(error) = self.inner.delete_consumer(stream, &consumer).await {
                    tracing::warn!(stream, consumer, %error, "failed to delete the consumer of an ended rebuild; will retry");
                    let abandoned = AbandonedConsumer {
                        stream: stream.to_owned(),
                        consumer,
                        plugin: manifest.name.to_string(),
                    };
                    match self.inner.parts.store.consumers().abandon(abandoned).await {
                        Ok(()) => self.inner.abandoned.notify_one(),
                        Err(error) => {
                            tracing::warn!(stream, %error, "failed to record a consumer that has to be deleted");
                        }
                    }
                }
            }
        }
    }
}
