//! From a batch of messages to its commit: projects, plans, sends the commit to the writer and settles the writer's
//! answer. A session feeds it with messages in stream order. At most [`IN_FLIGHT_MAX`] batches are unsettled.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;

use super::batch_size::BatchSize;
use super::plan::{Horizon, plan};
use super::{Halt, LoadedVersion, Projection, Purpose};
use lantern_broker::{AckToken, ConsumerHandle};
use lantern_model::batch::Delivery;
use lantern_plugin::{Projected, Projector};
use lantern_store::reader::ReadError;
use lantern_store::{Adopted, Commit, CommitError, Committed, Entry, Mark, NewGap, OriginId};

/// One batch with the writer, one queued, and one whose answer is on the way back: the projection decodes the next
/// batch while the writer works. More batches would only use memory, because the writer is the bottleneck.
pub(super) const IN_FLIGHT_MAX: usize = 3;

/// A slow plugin commits its finished messages after this time, so that tables and status show progress.
const PROJECT_BUDGET: Duration = Duration::from_millis(250);

/// The host releases a plugin's memory after this time without a message, so that hundreds of idle plugins cost only
/// their code. The next message waits until the plugin is instantiated again.
const RELEASE_MEMORY_AFTER: Duration = Duration::from_secs(60);

/// A version that is registered in the database, with the index of the source in it.
pub(super) struct AdoptedVersion {
    pub(super) version: Arc<LoadedVersion>,
    pub(super) source: usize,
    pub(super) adopted: Adopted,
}

/// Where in the database a pipeline's batches go.
#[derive(Clone, Copy)]
pub(super) struct CommitTarget {
    /// The origin whose checkpoint and ledger the batches advance.
    pub(super) origin: OriginId,
    /// The origin that the rows carry.
    pub(super) stamp: OriginId,
    /// Whether each commit has to reach the disk before the acknowledgement.
    pub(super) durable: bool,
}

pub(super) struct Pipeline<'a> {
    projection: &'a Projection,
    version: Arc<LoadedVersion>,
    /// The source's index in the version.
    source: usize,
    projector: Option<Projector>,
    /// Time of the last call into the plugin.
    called_at: Instant,
    plugin: Adopted,
    target: CommitTarget,
    /// The position of the last batch sent to the writer.
    handed: Mark,
    in_flight: VecDeque<InFlight>,
    /// Receives acknowledgements; `None` for core NATS, which has none.
    acks: Option<ConsumerHandle>,
    /// Messages committed since this pipeline began.
    stored: usize,
    /// Messages committed since the last acknowledgement.
    stored_unacknowledged: u64,
    /// Limits the batches of a rebuild.
    batch_size: Option<BatchSize>,
}

struct InFlight {
    answer: oneshot::Receiver<Result<Committed, CommitError>>,
    version: Arc<LoadedVersion>,
    through: u64,
    /// The acknowledgement to send when the batch is settled; `None` for a part of a pulled batch.
    ack: Option<AckToken>,
}

impl<'a> Pipeline<'a> {
    pub(super) fn new(
        projection: &'a Projection,
        adopted_version: AdoptedVersion,
        target: CommitTarget,
        checkpoint: Mark,
        acks: Option<ConsumerHandle>,
    ) -> Self {
        let AdoptedVersion {
            version,
            source,
            adopted,
        } = adopted_version;
        let in_flight = VecDeque::with_capacity(IN_FLIGHT_MAX);
        Self {
            projection,
            projector: Some(version.projector()),
            called_at: Instant::now(),
            version,
            source,
            plugin: adopted,
            target,
            handed: checkpoint,
            in_flight,
            acks,
            stored: 0,
            stored_unacknowledged: 0,
            batch_size: (projection.purpose != Purpose::Live).then(BatchSize::new),
        }
    }

    /// Whether the pipeline runs this version.
    pub(super) fn runs(&self, version: &Arc<LoadedVersion>) -> bool {
        Arc::ptr_eq(&self.version, version)
    }

    /// Whether another version reads this source from the same origin with the same subjects.
    pub(super) fn reads_same_source(&self, version: &LoadedVersion) -> bool {
        let name = self.projection.source_name();
        match (self.version.source(name), version.source(name)) {
            (Some((_, now)), Some((_, then))) => now.origin == then.origin,
            _ => false,
        }
    }

    /// Continues with another version from the next batch on. Batches with the writer keep the outcome of the former
    /// version; the ledger distinguishes the two.
    pub(super) fn switch(&mut self, adopted_version: AdoptedVersion) {
        let AdoptedVersion {
            version,
            source,
            adopted,
        } = adopted_version;
        self.projector = Some(version.projector());
        self.version = version;
        self.source = source;
        self.plugin = adopted;
    }

    /// Releases the plugin's memory after [`RELEASE_MEMORY_AFTER`] without a call.
    pub(super) fn release_idle_memory(&mut self) {
        if let Some(projector) = &mut self.projector
            && self.called_at.elapsed() >= RELEASE_MEMORY_AFTER
        {
            projector.release_instance();
        }
    }

    /// The last sequence sent to the writer.
    pub(super) fn handed(&self) -> u64 {
        self.handed.sequence
    }

    /// Messages committed since this pipeline began.
    pub(super) fn stored(&self) -> usize {
        self.stored
    }

    /// Committed messages whose acknowledgement follows with the rest of their batch.
    pub(super) fn stored_unacknowledged(&self) -> u64 {
        self.stored_unacknowledged
    }

    /// Whether the broker tracks the acknowledgement of each message: on streams that delete acknowledged messages.
    pub(super) fn acknowledges_each(&self) -> bool {
        self.target.durable
    }

    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// The last stored sequence; `None` while a batch is with the writer.
    pub(super) fn stored_through(&self) -> Option<u64> {
        self.is_idle().then(|| self.handed())
    }

    pub(super) fn has_room(&self) -> bool {
        self.in_flight.len() < IN_FLIGHT_MAX
    }

    /// Projects the first of these messages and sends them to the writer; all of them, unless the plugin is slow, a
    /// rebuild limits its batches, or the version was replaced during the call. Returns the others. The acknowledgement
    /// goes with the last message.
    pub(super) async fn feed(
        &mut self,
        mut deliveries: Vec<Delivery>,
        mut ack: Option<AckToken>,
        horizon: &Horizon,
    ) -> Result<(Vec<Delivery>, Option<AckToken>), Halt> {
        let handed = self.handed.sequence;
        deliveries.retain(|delivery| delivery.sequence > handed);
        if deliveries.is_empty() {
            return Ok((deliveries, None));
        }
        let limit = self.batch_size.map_or(usize::MAX, BatchSize::messages);
        let mut later = deliveries.split_off(limit.min(deliveries.len()));
        let (part, mut rest, projected) = self.project(deliveries).await?;
        rest.append(&mut later);
        let Some(planned) = plan(self.handed.sequence, part, projected.outcomes, horizon) else {
            return Ok((rest, ack));
        };
        let payload_sha256 = planned
            .entries
            .last()
            .map(|(delivery, _)| Sha256::digest(&delivery.payload).into())
            .unwrap_or_default();
        let (through, entries, gaps) = planned.into_parts(payload_sha256);
        let commit = self.next_commit(through, entries, gaps);
        while !self.has_room() {
            self.settle().await?;
        }
        let sent = if rest.is_empty() { ack.take() } else { None };
        self.hand_over(commit, sent).await?;
        Ok((rest, ack))
    }

    /// The commit that continues the last one.
    fn next_commit(&self, through: Mark, entries: Vec<Entry>, gaps: Vec<NewGap>) -> Commit {
        Commit {
            origin: self.target.origin,
            stamp: self.target.stamp,
            plugin: self.plugin.clone(),
            after: self.handed.sequence,
            through,
            entries,
            gaps,
            durable: self.target.durable,
        }
    }

    /// Records that the sequences up to the end of `gap` are gone.
    pub(super) async fn skip(&mut self, gap: NewGap) -> Result<(), Halt> {
        let through = Mark {
            sequence: gap.last,
            payload_sha256: None,
            ..self.handed.clone()
        };
        let commit = self.next_commit(through, Vec::new(), vec![gap]);
        self.hand_over(commit, None).await
    }

    async fn hand_over(&mut self, commit: Commit, ack: Option<AckToken>) -> Result<(), Halt> {
        let through = commit.through.clone();
        let answer = self.projection.store.begin_commit(commit).await?;
        self.in_flight.push_back(InFlight {
            answer,
            version: Arc::clone(&self.version),
            through: through.sequence,
            ack,
        });
        self.handed = through;
        Ok(())
    }

    /// Waits until the oldest batch is committed, then acknowledges it. If no batch is in flight, it waits forever, as
    /// `select!` requires. Dropping the future loses at most an acknowledgement, which is harmless because the
    /// checkpoint decides.
    pub(super) async fn settle(&mut self) -> Result<(), Halt> {
        let Some(oldest) = self.in_flight.front_mut() else {
            return std::future::pending().await;
        };
        let answer = (&mut oldest.answer).await;
        let Some(InFlight {
            version,
            through,
            ack,
            ..
        }) = self.in_flight.pop_front()
        else {
            return std::future::pending().await;
        };
        let committed = answer.map_err(|_| CommitError::Closed)??;
        self.stored += committed.spent.len();
        self.stored_unacknowledged = match ack {
            Some(_) => 0,
            None => self.stored_unacknowledged + committed.spent.len() as u64,
        };
        if let Some(size) = &mut self.batch_size {
            size.observe(&committed);
        }
        self.projection.record_commit(&version, &committed, through);
        if let (Some(handle), Some(ack)) = (&self.acks, ack)
            && let Err(error) = handle.ack(ack).await
        {
            tracing::debug!(%error, "failed to send an acknowledgement; the next one covers it");
        }
        Ok(())
    }

    /// Settles all batches with the writer. They take effect in any case; acknowledging them spares a redelivery.
    pub(super) async fn drain(&mut self) -> Result<(), Halt> {
        while !self.is_idle() {
            self.settle().await?;
        }
        Ok(())
    }

    /// Runs the plugin on a blocking thread, because a call may take as long as its limits allow. Returns the projected
    /// messages, the remaining ones, and the outcomes of the former. When the version is replaced during the call, the
    /// call is interrupted and all its outcomes are discarded, so that all messages remain for what follows.
    async fn project(
        &mut self,
        mut deliveries: Vec<Delivery>,
    ) -> Result<(Vec<Delivery>, Vec<Delivery>, Projected), Halt> {
        let mut projector = match self.projector.take() {
            Some(projector) => projector,
            None => self.version.projector(),
        };
        self.called_at = Instant::now();
        let source = self.source;
        let interrupt = projector.interrupt();
        let mut work = tokio::task::spawn_blocking(move || {
            let projected = projector.project(source, &deliveries, PROJECT_BUDGET);
            let rest = deliveries.split_off(projected.outcomes.len().min(deliveries.len()));
            (projector, deliveries, rest, projected)
        });
        let ended = tokio::select! {
            ended = &mut work => ended,
            () = self.projection.until_replaced(&self.version) => {
                interrupt.set();
                work.await
            }
        };
        match ended {
            Ok((_, mut done, mut rest, _)) if interrupt.is_set() => {
                done.append(&mut rest);
                Ok((Vec::new(), done, Projected::default()))
            }
            Ok((projector, done, rest, projected)) => {
                let memory = projector.memory_peak_bytes();
                self.projection.record_calls(&self.version, &projected, memory);
                self.projector = Some(projector);
                match projected.halted {
                    // The finished outcomes stay valid; the next session projects the rest.
                    Some(reason) if done.is_empty() => Err(Halt::Retry(reason)),
                    _ => Ok((done, rest, projected)),
                }
            }
            // A panic is a fault of the host, because a guest's trap is an outcome. Nothing was stored or acknowledged.
            Err(error) => Err(Halt::Failed(format!(
                "the host panicked while it called the plugin: {error}"
            ))),
        }
    }
}

impl From<ReadError> for Halt {
    fn from(error: ReadError) -> Self {
        Self::Retry(error.with_cause())
    }
}

impl From<CommitError> for Halt {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Stale { .. } => Self::Reopen(error.to_string()),
            CommitError::Unavailable(_) | CommitError::Failed(_) | CommitError::NotHeld => {
                Self::Retry(error.to_string())
            }
            CommitError::Closed => Self::Shutdown,
        }
    }
}
