//! A session of a core NATS source. Core NATS has no positions and no replay: the host numbers the messages that it
//! receives, which gives rows an origin and lets the ledger count. Messages published while the host is not subscribed
//! are lost. Received messages stay in memory until the database has stored them.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::pipeline::{CommitTarget, Pipeline};
use super::plan::Horizon;
use super::session::database_replaced;
use super::version::changed;
use super::{DesiredState, Halt, LoadedVersion, Projection};
use lantern_broker::{CoreEvent, CoreSubscription};
use lantern_model::batch::{Delivery, Timestamp};
use lantern_model::status::ProjectionState;
use lantern_store::{Attached, NewEpoch, NewGap};

impl Projection {
    pub(super) async fn core_session(
        &self,
        version: &Arc<LoadedVersion>,
        desired: &mut watch::Receiver<DesiredState>,
        subjects: &[String],
        kept: &mut Kept,
        shutdown: &CancellationToken,
    ) -> Halt {
        let mut version = Arc::clone(version);
        let mut subscription = match self.broker.subscribe_core(subjects).await {
            Ok(subscription) => subscription,
            Err(error) => return Halt::Retry(error.to_string()),
        };
        kept.begin(subjects);
        loop {
            let pass = self.core_pass(&version, desired, &mut subscription, kept, shutdown);
            match pass.await.err().unwrap_or(Halt::Shutdown) {
                // The subscription stays open, and received messages stay in memory, while the database is unavailable.
                Halt::Retry(reason) if !kept.is_empty() => {
                    let halt = Halt::Retry(reason);
                    self.log_halt(&halt);
                    self.report_halt(&halt);
                    tokio::select! {
                        () = shutdown.cancelled() => return Halt::Shutdown,
                        () = tokio::time::sleep(super::PAUSE_MAX / 5) => {}
                    }
                }
                Halt::Reopen(_) => {}
                // A version that reads the same subjects takes over the subscription, so that no message is missed.
                Halt::DesiredStateChanged => {
                    let now = desired.borrow_and_update().clone();
                    let reads_the_same = now.version.source(self.source_name()).is_some_and(|(_, source)| {
                        !source.origin.is_replayable() && source.origin.subjects() == subjects
                    });
                    if now.paused.is_some() || !now.placement.is_here() || !reads_the_same {
                        return Halt::DesiredStateChanged;
                    }
                    version = now.version;
                }
                halt => return halt,
            }
        }
    }

    async fn core_pass(
        &self,
        version: &Arc<LoadedVersion>,
        desired: &mut watch::Receiver<DesiredState>,
        subscription: &mut CoreSubscription,
        kept: &mut Kept,
        shutdown: &CancellationToken,
    ) -> Result<(), Halt> {
        let mut permit = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            permit = self.hold.permit() => permit,
        };
        let mut replacements = self.store.replacements();
        let adopted_version = self.adopt_version(version).await?;
        let attached = self.attach_core().await?;
        self.show_attached(&attached);
        self.show_core_running(attached.checkpoint.sequence, kept.is_empty());
        self.check_dead_letters(None).await?;
        let target = CommitTarget {
            origin: attached.origin,
            stamp: attached.origin,
            durable: false,
        };
        let mut pipeline = Pipeline::new(self, adopted_version, target, attached.checkpoint, None);
        let horizon = Horizon {
            covers_stream: true,
            first_sequence: 1,
        };
        loop {
            let nothing_kept = kept.is_empty();
            // Between two parts of a batch, too, so that a slow plugin does not delay another version.
            let may_change = nothing_kept || self.is_replaced(version, &desired.borrow());
            let received = tokio::select! {
                biased;
                () = shutdown.cancelled(), if nothing_kept => return Ok(()),
                () = changed(desired), if may_change => return Err(Halt::DesiredStateChanged),
                () = replacements.next() => return Err(database_replaced()),
                // Messages that nobody sends again are stored first: an ending projection does not wait for the hold.
                () = permit.wanted(), if nothing_kept => {
                    tokio::select! {
                        () = shutdown.cancelled() => return Ok(()),
                        () = permit.give_way() => continue,
                    }
                }
                () = std::future::ready(()), if !nothing_kept => None,
                received = subscription.next_event(self.config.messages_max, self.config.bytes_max) => Some(received),
            };
            match received {
                None => {}
                Some(Ok(CoreEvent::Messages(batch))) => kept.receive(batch, subscription.dropped()),
                Some(Ok(CoreEvent::Interrupted)) => self.count_interruption(kept),
                Some(Err(error)) => {
                    self.count_interruption(kept);
                    kept.skip_lost(&mut pipeline).await?;
                    return Err(Halt::Retry(error.to_string()));
                }
            }
            self.store_kept(&mut pipeline, kept, &horizon).await?;
        }
    }

    /// Shows in the status that the source receives messages. `clear_error`: whether no earlier message waits.
    fn show_core_running(&self, last_sequence: u64, clear_error: bool) {
        self.status.send_modify(|status| {
            status.last_sequence = Some(last_sequence);
            status.lag = Some(0);
            status.enter(ProjectionState::Running);
            if clear_error {
                status.clear_error();
            }
        });
    }

    /// Numbers and stores the received messages, or the first of them if the plugin is slow.
    async fn store_kept(
        &self,
        pipeline: &mut Pipeline<'_>,
        kept: &mut Kept,
        horizon: &Horizon,
    ) -> Result<(), Halt> {
        kept.skip_lost(pipeline).await?;
        let mut numbered = kept.deliveries.clone();
        for (sequence, delivery) in (pipeline.handed() + 1..).zip(&mut numbered) {
            delivery.sequence = sequence;
        }
        let before = pipeline.stored();
        let fed = pipeline.feed(numbered, None, horizon).await;
        let drained = pipeline.drain().await;
        // Remove the stored messages even when the rest failed, so that they are not stored twice.
        kept.deliveries.drain(..pipeline.stored() - before);
        fed?;
        drained?;
        self.check_dead_letters(None).await?;
        self.status
            .send_modify(|status| status.last_sequence = Some(status.checkpoint));
        Ok(())
    }

    /// Counts a lost connection. How many messages were lost with it is unknown.
    fn count_interruption(&self, kept: &mut Kept) {
        let (plugin, source) = (self.plugin_name(), self.source_name());
        kept.interruptions += 1;
        self.metrics.source_interrupted(plugin, source);
        tracing::warn!(
            plugin,
            source,
            "the connection of a core NATS source was lost; messages published meanwhile are lost, and so is a message \
             whose headers cannot be parsed"
        );
    }

    async fn attach_core(&self) -> Result<Attached, Halt> {
        let (plugin, source) = (self.plugin_name(), self.source_name());
        if let Some(attached) = self.store.sources().attach(plugin, source).await? {
            return Ok(attached);
        }
        let epoch = NewEpoch {
            plugin: plugin.to_owned(),
            source: source.to_owned(),
            stream: None,
            stream_created_ns: None,
            after: 0,
            anchors: Vec::new(),
            reason: "the first".to_owned(),
            at: Timestamp::now(),
        };
        Ok(self.store.sources().begin_epoch(epoch).await?)
    }
}

/// Received messages that the database has not stored yet. They survive a failed pass and a pause, because nobody sends
/// them again.
#[derive(Default)]
pub(super) struct Kept {
    deliveries: Vec<Delivery>,
    /// The subjects of the subscription that received them.
    subjects: Vec<String>,
    /// Messages that no version reads any more, which are not in the ledger yet.
    unread: u64,
    /// Messages dropped since the last batch that are not in the ledger yet.
    dropped: u64,
    dropped_before: u64,
    /// Interruptions of the subscription that are not in the ledger yet.
    interruptions: u64,
}

impl Kept {
    /// Begins a subscription to these subjects.
    fn begin(&mut self, subjects: &[String]) {
        self.dropped_before = 0;
        if self.subjects != subjects {
            self.unread += self.deliveries.len() as u64;
            self.deliveries.clear();
            self.subjects = subjects.to_vec();
        }
    }

    /// Takes a batch, and the number of messages that the subscription has dropped so far.
    fn receive(&mut self, deliveries: Vec<Delivery>, dropped: u64) {
        self.deliveries = deliveries;
        self.dropped = dropped - self.dropped_before;
        self.dropped_before = dropped;
    }

    /// Records dropped messages as a gap, and each interruption as a gap of one sequence: it stands for an unknown number
    /// of messages.
    async fn skip_lost(&mut self, pipeline: &mut Pipeline<'_>) -> Result<(), Halt> {
        if self.dropped > 0 {
            skip(
                pipeline,
                self.dropped,
                true,
                "dropped: the host could not keep up",
            )
            .await?;
            self.dropped = 0;
        }
        if self.unread > 0 {
            let reason = "dropped: the plugin was paused, and the version that runs now reads other subjects";
            skip(pipeline, self.unread, true, reason).await?;
            self.unread = 0;
        }
        if self.interruptions > 0 {
            let reason = "interrupted: the connection was lost, and an unknown number of messages with it";
            skip(pipeline, self.interruptions, false, reason).await?;
            self.interruptions = 0;
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.deliveries.is_empty() && self.dropped == 0 && self.unread == 0 && self.interruptions == 0
    }
}

/// Records the next sequences as a gap.
async fn skip(pipeline: &mut Pipeline<'_>, count: u64, exact: bool, reason: &str) -> Result<(), Halt> {
    let first = pipeline.handed() + 1;
    let gap = NewGap {
        first,
        last: first + count - 1,
        exact,
        reason: reason.to_owned(),
    };
    pipeline.skip(gap).await?;
    pipeline.drain().await
}
