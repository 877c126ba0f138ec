//! The status of a source while no session reads it: its stored position, and how many messages wait in the stream. A
//! paused or halted source falls behind, and operators need to see by how much.

use tokio::time::Interval;

use super::plan::covers;
use super::survey::to_replica;
use super::{Projection, Purpose};
use lantern_broker::{BrokerError, ConsumerFacts, StreamFacts};
use lantern_store::Attached;

impl Projection {
    /// Keeps the status current until the future is dropped; never returns.
    pub(super) async fn survey_while_idle(&self, surveys: &mut Interval) {
        loop {
            surveys.tick().await;
            // A rebuild is driven by its own lag, which only a session may report.
            if self.purpose != Purpose::Live {
                continue;
            }
            self.show_stored().await;
            if let Err(error) = self.show_lag().await {
                tracing::debug!(plugin = self.plugin, source = self.source, %error, "failed to survey an idle source");
            }
        }
    }

    /// Shows the stored position, unless a session has already shown it.
    async fn show_stored(&self) {
        if self.status.borrow().epoch > 0 {
            return;
        }
        // A source that never began has nothing to show. If the database is unavailable, the next survey asks again.
        if let Ok(Some(attached)) = self
            .store
            .reader()
            .source_position(&self.plugin, &self.source)
            .await
        {
            self.show_attached(&attached);
        }
    }

    /// A change while the projection is paused may be dead letters that were resolved. A session counts them when it
    /// begins.
    pub(super) async fn recount_while_paused(&self) {
        if self.status.borrow().epoch > 0
            && let Err(halt) = self.recount_dead_letters(None).await
        {
            tracing::debug!(
                plugin = self.plugin,
                source = self.source,
                ?halt,
                "failed to count open dead letters"
            );
        }
    }

    /// Copies the stored position and counters to the status.
    pub(super) fn show_attached(&self, attached: &Attached) {
        self.progress.set_checkpoint(attached.checkpoint.sequence);
        self.progress.set_open_dead_letters(attached.dead_letters);
        if let Some(gate) = &self.gate {
            gate.record_checkpoint(attached.checkpoint.sequence);
        }
        self.status.send_modify(|status| {
            status.epoch = attached.epoch;
            status.checkpoint = attached.checkpoint.sequence;
            status.messages = attached.counts.messages;
            status.rows = attached.counts.rows;
            status.inserted = attached.counts.inserted;
            status.updated = attached.counts.updated;
            status.present = attached.counts.present();
            status.missing = attached.counts.missing;
            status.dead_letters = attached.dead_letters;
        });
    }

    /// Asks the broker how many messages wait for the source.
    async fn show_lag(&self) -> Result<(), BrokerError> {
        let version = std::sync::Arc::clone(&self.desired.borrow().version);
        let Some((_, source)) = version.source(&self.source) else {
            return Ok(());
        };
        let Some((stream, subjects)) = source.origin.replay() else {
            return Ok(());
        };
        let facts = self.broker.stream_facts(stream).await?;
        let consumer = match &facts {
            Some(_) => self.broker.consumer_facts(stream, &self.consumer_name()).await?,
            None => None,
        };
        // A consumer without an owner may be ours: the host records its owner only where it may change the consumer.
        let own = |consumer: &ConsumerFacts| {
            consumer
                .owner
                .as_ref()
                .is_none_or(|owner| *owner == self.config.owner)
        };
        self.status.send_modify(|status| {
            status.last_sequence = facts.as_ref().map(|facts| facts.last_sequence);
            let replicas = facts.iter().flat_map(|facts| &facts.replicas);
            status.replicas = replicas.map(to_replica).collect();
            status.lag = facts.as_ref().and_then(|facts| {
                let covers = covers(subjects, &facts.subjects);
                waiting(
                    status.checkpoint,
                    covers,
                    facts,
                    consumer.as_ref().filter(|it| own(it)),
                )
            });
            let messages_wait = status.paused.is_none() && status.lag.is_some_and(|lag| lag > 0);
            let is_stalled = self.progress.is_stalled(messages_wait);
            status.set_stalled(is_stalled || (messages_wait && status.stalled_since_ms.is_some()));
        });
        Ok(())
    }
}

/// Returns how many messages after `checkpoint` wait for a source that nobody reads now; `None` if unknown. `covers`:
/// all messages of the stream belong to the source.
fn waiting(
    checkpoint: u64,
    covers: bool,
    stream: &StreamFacts,
    consumer: Option<&ConsumerFacts>,
) -> Option<u64> {
    if stream.last_sequence < checkpoint {
        // Another history: the source still has to read everything in it.
        return covers.then_some(stream.messages);
    }
    let gone = stream.first_sequence.saturating_sub(1);
    let behind = stream.last_sequence.saturating_sub(checkpoint.max(gone));
    if covers && stream.deleted == 0 {
        return Some(behind);
    }
    match consumer {
        // A consumer ahead of the checkpoint (the database was restored) does not know which messages the source reads
        // again.
        Some(consumer) if consumer.ack_floor <= checkpoint => Some(consumer.pending + consumer.ack_pending),
        _ => covers.then_some(behind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lantern_broker::{Retention, StorageKind, StreamSafety};

    fn stream(first_sequence: u64, last_sequence: u64, deleted: u64) -> StreamFacts {
        StreamFacts {
            created_ns: 1,
            first_sequence,
            last_sequence,
            first_time_ns: 1,
            last_time_ns: 1,
            cluster: None,
            messages: last_sequence + 1 - first_sequence - deleted,
            deleted,
            subjects: vec!["ev.>".into()],
            holds: None,
            begins_at: 1,
            retention: Retention::Limits,
            storage: StorageKind::File,
            is_mirror: false,
            has_sources: false,
            replicas: Vec::new(),
            safety: StreamSafety {
                replicas: 1,
                is_clustered: false,
                is_persisted_later: false,
                leader_version: None,
            },
        }
    }

    fn consumer(ack_floor: u64, pending: u64, ack_pending: u64) -> ConsumerFacts {
        ConsumerFacts {
            pending,
            ack_pending,
            ack_floor,
            delivered: ack_floor + ack_pending,
            waiting: 0,
            paused_until: None,
            owner: None,
            inactive_threshold: std::time::Duration::ZERO,
            differences: Vec::new(),
        }
    }

    #[test]
    fn lag_is_counted_by_the_stream_if_the_source_covers_it() {
        assert_eq!(waiting(100, true, &stream(1, 150, 0), None), Some(50));
        // A lost acknowledgement does not count.
        assert_eq!(
            waiting(150, true, &stream(1, 150, 0), Some(&consumer(140, 0, 10))),
            Some(0)
        );
        // A message that left the stream does not wait.
        assert_eq!(waiting(100, true, &stream(121, 150, 0), None), Some(30));
        // The stream was recreated.
        assert_eq!(waiting(100, true, &stream(1, 7, 0), None), Some(7));
        assert_eq!(waiting(0, true, &stream(1, 0, 0), None), Some(0));
    }

    #[test]
    fn otherwise_the_consumer_counts_unless_it_is_ahead_of_the_database() {
        let facts = stream(1, 150, 0);
        assert_eq!(waiting(100, false, &facts, Some(&consumer(100, 20, 3))), Some(23));
        assert_eq!(waiting(100, false, &facts, Some(&consumer(120, 20, 0))), None);
        assert_eq!(waiting(100, false, &facts, None), None);
        assert_eq!(
            waiting(100, true, &stream(1, 150, 9), Some(&consumer(100, 41, 0))),
            Some(41)
        );
        assert_eq!(waiting(100, true, &stream(1, 150, 9), None), Some(50), "at most");
    }
}
