//! An operator's decision about the stream of a source.

use std::sync::Arc;

use super::{Inner, Lifecycle, LifecycleError, Requester};
use lantern_model::batch::Timestamp;
use lantern_store::Accepted;

impl Lifecycle {
    /// Decides whether the stream of a source is the one that was read. The source has to be waiting for that decision.
    /// Returns when the stream in question was created.
    ///
    /// # Errors
    /// See [`LifecycleError`].
    pub async fn accept(
        &self,
        plugin: &str,
        source: &str,
        accepted: Accepted,
        by: impl Into<Requester>,
    ) -> Result<Timestamp, LifecycleError> {
        let inner = Arc::clone(&self.inner);
        let (plugin, source, by) = (plugin.to_owned(), source.to_owned(), by.into());
        self.detached(async move { inner.accept(&plugin, &source, accepted, &by).await })
            .await
    }
}

impl Inner {
    async fn accept(
        &self,
        plugin: &str,
        source: &str,
        accepted: Accepted,
        by: &Requester,
    ) -> Result<Timestamp, LifecycleError> {
        self.require_here(plugin)?;
        self.installation(plugin).await?;
        let mark = by.mark("source.accept", plugin, None, format!("source {source}"));
        let Some(created_ns) = self
            .parts
            .store
            .sources()
            .answer_question(plugin, source, accepted, mark)
            .await?
        else {
            return Err(LifecycleError::Conflict(format!(
                "source {source} of plugin {plugin} is not waiting for a decision; `lantern status` shows the state \
                 of each source"
            )));
        };
        let created = Timestamp(created_ns / 1_000);
        tracing::info!(
            plugin,
            source,
            history = accepted.as_str(),
            stream_created = created.to_rfc3339(),
            %by,
            "an operator decided about the stream of a source"
        );
        // The projection reads the decision when it begins its next session.
        self.running.notify(plugin);
        Ok(created)
    }
}
