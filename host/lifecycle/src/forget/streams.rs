//! What an erasure needs to know of streams: whether a stream is the one that was read, and which streams hold copies.

use super::super::LifecycleError;
use super::{ErasureTask, unavailable};
use lantern_projection::{HistoryComparison, compare_history};
use lantern_store::OriginId;

impl ErasureTask<'_> {
    /// Whether a stream is the one that an epoch was read from.
    pub(super) async fn is_same_history(
        &mut self,
        origin: OriginId,
        stream: &str,
    ) -> Result<bool, LifecycleError> {
        if let Some(known) = self.same.get(&origin) {
            return Ok(*known);
        }
        let parts = &self.inner.parts;
        let is_same = match parts.store.reader().epoch_identity(origin).await? {
            Some(attached) => {
                let compared = compare_history(&parts.broker, stream, &attached).await;
                let compared = compared.map_err(|error| unavailable(&error))?;
                matches!(compared, HistoryComparison::Same(_))
            }
            None => false,
        };
        self.same.insert(origin, is_same);
        Ok(is_same)
    }

    /// Notes which other streams hold the messages.
    pub(super) async fn note_copies(&mut self, stream: &str) -> Result<(), LifecycleError> {
        let copies = self
            .facts(stream)
            .await?
            .is_some_and(|facts| facts.is_mirror || facts.has_sources);
        if copies {
            self.report.notes.push(format!(
                "stream {stream} copies other streams, which still hold the messages: delete them there as well"
            ));
        }
        match self.inner.parts.broker.copies_of(stream).await {
            Ok(copies) if copies.is_empty() => {}
            Ok(copies) => self.report.notes.push(format!(
                "streams that copy stream {stream} still hold the messages: delete them there as well: {}",
                copies.join(", ")
            )),
            Err(error) => self.report.notes.push(format!(
                "the host cannot list the streams of the broker ({error}): streams that copy stream {stream}, if there \
                 are any, still hold the messages"
            )),
        }
        Ok(())
    }
}
