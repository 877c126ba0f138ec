//! From a batch of messages to its commit: project, plan, hand to the writer, and settle what the writer answered.
//! Fed by a session with messages in stream order; it holds at most [`IN_FLIGHT_MAX`] batches that are not settled.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;

use super::plan::{Horizon, plan};
use super::{Halt, Projection, Version};
use lantern_broker::{AckToken, ConsumerHandle};
use lantern_model::batch::Delivery;
use lantern_plugin::{Projected, Projector};
use lantern_store::{Adopted, Commit, CommitError, Committed, Gap, Mark, OriginId};

/// One batch in the writer's hands, one behind it, and one whose answer is on the way back: while the writer works, the
/// next is decoded. More would only hold memory, since the writer is the bottleneck.
pub(super) const IN_FLIGHT_MAX: usize = 3;

/// A slow plugin commits what it has done after this long, so that the tables move and the host sees that it does.
const PROJECT_BUDGET: Duration = Duration::from_millis(250);

/// After so long without a message a plugin's memory is given back: hundreds of quiet plugins cost nothing but their
/// code. The next message then waits until the plugin is instantiated again.
const REST_AFTER: Duration = Duration::from_secs(60);

/// A version that the database knows, and where in it the source stands.
pub(super) struct AtWork {
    pub(super) version: Arc<Version>,
    pub(super) source: usize,
    pub(super) adopted: Adopted,
}

/// Where a pipeline's batches go in the database.
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// Whose checkpoint and ledger they move.
    pub(super) origin: OriginId,
    /// What their rows are stamped with.
    pub(super) stamp: OriginId,
    /// Whether each commit has to be on the disk before it is acknowledged.
    pub(super) durable: bool,
}

pub(super) struct Pipeline<'a> {
    projection: &'a Projection,
    version: Arc<Version>,
    /// The source's index in the version.
    source: usize,
    projector: Option<Projector>,
    /// When the plugin was called last.
    called_at: Instant,
    plugin: Adopted,
    place: Place,
    /// The position up to which batches were handed to the writer.
    handed: Mark,
    in_flight: VecDeque<InFlight>,
    /// Where acknowledgements go; none for core NATS, which knows of none.
    acks: Option<ConsumerHandle>,
    /// Messages that have taken effect since this pipeline began.
    stored: usize,
}

struct InFlight {
    answer: oneshot::Receiver<Result<Committed, CommitError>>,
    version: Arc<Version>,
    through: u64,
    /// What to acknowledge when it is settled; none for a part of a pulled batch.
    ack: Option<AckToken>,
}

impl<'a> Pipeline<'a> {
    pub(super) fn new(
        projection: &'a Projection,
        at_work: AtWork,
        place: Place,
        checkpoint: Mark,
        acks: Option<ConsumerHandle>,
    ) -> Self {
        let AtWork {
            version,
            source,
            adopted,
        } = at_work;
        let in_flight = VecDeque::with_capacity(IN_FLIGHT_MAX);
        Self {
            projection,
            projector: Some(version.projector()),
            called_at: Instant::now(),
            version,
            source,
            plugin: adopted,
            place,
            handed: checkpoint,
            in_flight,
            acks,
            stored: 0,
        }
    }

    /// Whether this is the version at work.
    pub(super) fn runs(&self, version: &Arc<Version>) -> bool {
        Arc::ptr_eq(&self.version, version)
    }

    /// Whether another version reads this source as the present one does: from the same place, the same subjects.
    pub(super) fn reads_the_same(&self, version: &Version) -> bool {
        let name = self.projection.source_name();
        match (self.version.source(name), version.source(name)) {
            (Some((_, now)), Some((_, then))) => now.origin == then.origin,
            _ => false,
        }
    }

    /// Goes on with another version from the next batch on. What is with the writer was decided by the old one and
    /// stays so; the ledger tells the two apart.
    pub(super) fn switch(&mut self, at_work: AtWork) {
        let AtWork {
            version,
            source,
            adopted,
        } = at_work;
        self.projector = Some(version.projector());
        self.version = version;
        self.source = source;
        self.plugin = adopted;
    }

    /// Gives back the plugin's memory when it has had nothing to do for a while.
    pub(super) fn rest(&mut self) {
        if let Some(projector) = &mut self.projector
            && self.called_at.elapsed() >= REST_AFTER
        {
            projector.rest();
        }
    }

    /// The last sequence that was handed to the writer.
    pub(super) fn handed(&self) -> u64 {
        self.handed.sequence
    }

    /// Messages that have taken effect since this pipeline began.
    pub(super) fn stored(&self) -> usize {
        self.stored
    }

    /// Whether each message is acknowledged separately: on streams that delete acknowledged messages.
    pub(super) fn acknowledges_each(&self) -> bool {
        self.place.durable
    }

    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// The last sequence that was stored; none while a batch is with the writer.
    pub(super) fn stored_through(&self) -> Option<u64> {
        self.is_idle().then(|| self.handed())
    }

    pub(super) fn has_room(&self) -> bool {
        self.in_flight.len() < IN_FLIGHT_MAX
    }

    /// Projects messages and hands them to the writer, in as many parts as the plugin's speed asks for.
    pub(super) async fn feed(
        &mut self,
        mut deliveries: Vec<Delivery>,
        ack: Option<AckToken>,
        horizon: &Horizon,
    ) -> Result<(), Halt> {
        let handed = self.handed.sequence;
        deliveries.retain(|delivery| delivery.sequence > handed);
        let mut ack = ack;
        while !deliveries.is_empty() {
            let (part, rest, projected) = self.project(deliveries).await?;
            deliveries = rest;
            let Some(planned) = plan(self.handed.sequence, part, projected.outcomes, horizon) else {
                continue;
            };
            let payload_sha256 = planned
                .entries
                .last()
                .map(|(delivery, _)| Sha256::digest(&delivery.payload).into())
                .unwrap_or_default();
            let (through, entries, gaps) = planned.into_parts(payload_sha256);
            let commit = Commit {
                origin: self.place.origin,
                stamp: self.place.stamp,
                plugin: self.plugin.clone(),
                after: self.handed.sequence,
                through,
                entries,
                gaps,
                durable: self.place.durable,
            };
            while !self.has_room() {
                self.settle().await?;
            }
            let ack = if deliveries.is_empty() { ack.take() } else { None };
            self.hand_over(commit, ack).await?;
        }
        Ok(())
    }

    /// Records that the sequences up to the end of `gap` are gone.
    pub(super) async fn skip(&mut self, gap: Gap) -> Result<(), Halt> {
        let through = Mark {
            sequence: gap.last,
            payload_sha256: None,
            ..self.handed.clone()
        };
        let commit = Commit {
            origin: self.place.origin,
            stamp: self.place.stamp,
            plugin: self.plugin.clone(),
            after: self.handed.sequence,
            through,
            entries: Vec::new(),
            gaps: vec![gap],
            durable: self.place.durable,
        };
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

    /// Waits until the oldest batch has taken effect, and acknowledges it: the last step, and only then. When idle it
    /// waits for ever, which is what a `select!` wants. Dropping the future loses no more than an acknowledgement,
    /// which does no harm: the checkpoint decides.
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
        self.projection.note_committed(&version, &committed, through);
        if let (Some(handle), Some(ack)) = (&self.acks, ack)
            && let Err(error) = handle.ack(ack).await
        {
            tracing::debug!(%error, "an acknowledgement did not leave; the next one covers it");
        }
        Ok(())
    }

    /// What is with the writer already takes effect; it is acknowledged too, so that the broker need not send it
    /// again.
    pub(super) async fn drain(&mut self) -> Result<(), Halt> {
        while !self.is_idle() {
            self.settle().await?;
        }
        Ok(())
    }

    /// Runs the plugin on a thread of its own, since it may take as long as its limits allow. Returns the messages
    /// that were projected, those that are left, and what became of the former.
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
        let work = tokio::task::spawn_blocking(move || {
            let projected = projector.project(source, &deliveries, PROJECT_BUDGET);
            let rest = deliveries.split_off(projected.outcomes.len().min(deliveries.len()));
            (projector, deliveries, rest, projected)
        });
        match work.await {
            Ok((projector, done, rest, projected)) => {
                let memory = projector.memory_peak_bytes();
                self.projection.note_projected(&self.version, &projected, memory);
                self.projector = Some(projector);
                match projected.halted {
                    // What was decided before it stays decided; the rest is asked again in the next session.
                    Some(reason) if done.is_empty() => Err(Halt::Retry(reason)),
                    _ => Ok((done, rest, projected)),
                }
            }
            // Ours, not the guest's: a guest's trap is an outcome. Nothing was stored or acknowledged.
            Err(error) => Err(Halt::Failed(format!(
                "the host panicked while it called the plugin: {error}"
            ))),
        }
    }
}

impl From<CommitError> for Halt {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Stale { .. } => Self::Reopen(error.to_string()),
            CommitError::Unavailable(_) => Self::Retry(error.to_string()),
            CommitError::Closed => Self::Shutdown,
        }
    }
}
