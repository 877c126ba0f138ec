//! A session of a JetStream source: attaches, compares, opens, and feeds the pipeline until something ends it.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::gate::{FillState, GateKeeper, Waiting, gate_changed};
use super::hold::CommitPermit;
use super::pipeline::{AdoptedVersion, CommitTarget, Pipeline};
use super::plan::{Horizon, covers};
use super::prefetch::Prefetch;
use super::rate_limit::RateLimit;
use super::survey::{Reads, Survey, apply_survey};
use super::version::changed;
use super::{DesiredState, Halt, LoadedVersion, Placement, Projection, Purpose};
use lantern_broker::{
    BrokerError, OpenError, OpenRequest, PullError, Pulled, Retention, Start, Subscription,
};
use lantern_model::batch::Delivery;
use lantern_model::status::ProjectionState;
use lantern_store::{Mark, Replacements};

/// Most messages that a rebuild requests at once: enough for two of its batches. The broker sends the messages of a request
/// without a pause, and the messages of live sources wait for the processor meanwhile.
const REBUILD_REQUEST_MESSAGES: usize = 512;

impl Projection {
    pub(super) async fn stream_session(
        &self,
        version: &Arc<LoadedVersion>,
        desired: &mut watch::Receiver<DesiredState>,
        stream: &str,
        subjects: &[String],
        shutdown: &CancellationToken,
    ) -> Halt {
        let mut permit = tokio::select! {
            () = shutdown.cancelled() => return Halt::Shutdown,
            permit = self.hold.permit() => permit,
        };
        let result = tokio::select! {
            () = shutdown.cancelled() => return Halt::Shutdown,
            () = changed(desired) => return Halt::DesiredStateChanged,
            // The next session begins when the hold has ended.
            () = permit.wanted() => return Halt::DesiredStateChanged,
            opened = self.open(version, stream, subjects) => opened,
        };
        match result {
            Ok(opened) => {
                self.record_consumer(version, None);
                opened.run(self, permit, desired, shutdown).await
            }
            Err(halt) => halt,
        }
    }

    /// Registers a version in the database, ready for a pipeline.
    pub(super) async fn adopt_version(&self, version: &Arc<LoadedVersion>) -> Result<AdoptedVersion, Halt> {
        let Some((source, _)) = version.source(self.source_name()) else {
            return Err(Halt::DesiredStateChanged);
        };
        Ok(AdoptedVersion {
            version: Arc::clone(version),
            source,
            adopted: self.adopt(version).await?,
        })
    }

    /// Applies a new desired state between two batches if the source stays the same; any other change needs a new
    /// session.
    async fn follow(&self, pipeline: &mut Pipeline<'_>, desired: &DesiredState) -> Result<(), Halt> {
        if desired.paused.is_some()
            || !desired.placement.is_here()
            || !pipeline.reads_same_source(&desired.version)
        {
            return Err(Halt::DesiredStateChanged);
        }
        if pipeline.runs(&desired.version) {
            return self.recount_dead_letters(Some(pipeline)).await;
        }
        pipeline.switch(self.adopt_version(&desired.version).await?);
        tracing::info!(
            plugin = self.plugin_name(),
            source = self.source_name(),
            version = %desired.version.plugin().manifest().version,
            digest = %desired.version.plugin().digest(),
            after = pipeline.handed(),
            "switched to another version"
        );
        self.recount_dead_letters(Some(pipeline)).await
    }

    /// Asks the database for the number of open dead letters, because an operator or another version may have resolved
    /// some. First settles the batches in flight: the database may count their dead letters already, and settling adds
    /// them.
    pub(super) async fn recount_dead_letters(&self, pipeline: Option<&mut Pipeline<'_>>) -> Result<(), Halt> {
        if let Some(pipeline) = pipeline {
            pipeline.drain().await?;
        }
        let (plugin, source) = (self.ledger_name(), self.source_name());
        let open = self
            .store
            .reader()
            .count_open_dead_letters(&plugin, source)
            .await?;
        self.progress.set_open_dead_letters(open);
        self.status.send_modify(|status| status.dead_letters = open);
        Ok(())
    }

    /// Opens a subscription after the checkpoint.
    async fn open(
        &self,
        version: &Arc<LoadedVersion>,
        stream: &str,
        subjects: &[String],
    ) -> Result<OpenSession<'_>, Halt> {
        let replacements = self.store.replacements();
        let adopted_version = self.adopt_version(version).await?;
        let (facts, attached) = self.attach(stream, subjects).await?;
        let durable = facts.retention != Retention::Limits;
        self.show_attached(&attached);
        self.status.send_modify(|status| {
            status.stream = Some(stream.to_owned());
            status.last_sequence = Some(facts.last_sequence);
        });
        self.check_dead_letters(None).await?;
        let request = self.open_request(stream, subjects, &attached.checkpoint)?;
        let subscription = self.broker.open(request).await.map_err(halt_for_open)?;
        self.progress.set_replaced();
        let horizon = Horizon {
            covers_stream: covers(subjects, &facts.subjects),
            first_sequence: facts.first_sequence,
        };
        let checkpoint = attached.checkpoint.clone();
        let acks = Some(subscription.handle());
        let target = CommitTarget {
            origin: attached.origin,
            stamp: match self.purpose {
                Purpose::Live => attached.origin,
                Purpose::Rebuild(rebuild) => rebuild.stamp,
            },
            durable,
        };
        let pipeline = Pipeline::new(self, adopted_version, target, checkpoint, acks);
        Ok(OpenSession {
            pipeline,
            subscription,
            replacements,
            horizon,
            reads: Reads {
                stream: stream.to_owned(),
                subjects: subjects.to_vec(),
                consumer: self.consumer_name(),
                retention: facts.retention,
            },
        })
    }

    /// The request for the messages after the checkpoint.
    fn open_request(
        &self,
        stream: &str,
        subjects: &[String],
        checkpoint: &Mark,
    ) -> Result<OpenRequest, Halt> {
        let Placement::Here { term, .. } = self.desired.borrow().placement else {
            return Err(Halt::DesiredStateChanged);
        };
        Ok(OpenRequest {
            stream: stream.to_owned(),
            subjects: subjects.to_vec(),
            consumer: self.consumer_name(),
            owner: self.config.owner.clone(),
            plugin: self.plugin_name().to_owned(),
            source: self.source_name().to_owned(),
            description: format!("feeds the tables of Lantern's plugin {}", self.plugin_name()),
            replace: self.progress.wants_replacement(),
            term,
            start: Start::After {
                sequence: checkpoint.sequence,
                published_ns: (checkpoint.published_ns > 0).then_some(checkpoint.published_ns),
            },
        })
    }

    /// The name of the durable consumer that this projection reads through.
    pub(super) fn consumer_name(&self) -> String {
        let prefix = &self.config.consumer_prefix;
        let [live, rebuild] = consumer_names(prefix, self.plugin_name(), self.source_name());
        match self.purpose {
            Purpose::Live => live,
            Purpose::Rebuild(_) => rebuild,
        }
    }
}

struct OpenSession<'a> {
    pipeline: Pipeline<'a>,
    subscription: Subscription,
    replacements: Replacements,
    horizon: Horizon,
    reads: Reads,
}

/// The names of the durable consumers that a source may have: for the live tables, and for a rebuild.
pub fn consumer_names(prefix: &str, plugin: &str, source: &str) -> [String; 2] {
    let live = format!("{prefix}-{plugin}-{source}");
    let rebuild = format!("{live}-rebuild");
    [live, rebuild]
}

/// A session that reads.
struct Flow<'a> {
    projection: &'a Projection,
    permit: CommitPermit,
    pipeline: Pipeline<'a>,
    replacements: Replacements,
    horizon: Horizon,
    reads: Reads,
    surveys: mpsc::Receiver<Survey>,
    batches: Prefetch,
    rate_limit: RateLimit,
    gate: Option<GateKeeper>,
    /// Pulled messages that were not projected yet.
    waiting: Waiting,
    /// The last sequence sent to the writer at the last survey, if no message came since.
    quiet_at: Option<u64>,
}

/// What a session reacts to.
enum Event {
    DesiredStateChanged,
    DatabaseReplaced,
    /// An operation wants to hold the commits.
    HoldWanted,
    Settled(Result<(), Halt>),
    Survey(Option<Box<Survey>>),
    /// This many waiting messages may be projected.
    Admitted(usize),
    GateChanged,
    Pulled(Option<Result<Pulled, PullError>>),
}

impl<'a> OpenSession<'a> {
    async fn run(
        self,
        projection: &'a Projection,
        permit: CommitPermit,
        desired: &mut watch::Receiver<DesiredState>,
        shutdown: &CancellationToken,
    ) -> Halt {
        let mut subscription = self.subscription;
        if projection.purpose != Purpose::Live {
            subscription.limit_requests(REBUILD_REQUEST_MESSAGES);
        }
        let handle = subscription.handle();
        let (surveys, _surveying) = projection.spawn_surveyor(&self.reads, &handle);
        let config = &projection.config;
        let batches = Prefetch::start(subscription, config.messages_max, config.bytes_max);
        projection
            .status
            .send_modify(|status| status.enter(ProjectionState::Running));
        if let Some(gate) = &projection.gate {
            gate.set_state(FillState::Reading);
        }
        let mut flow = Flow {
            projection,
            permit,
            pipeline: self.pipeline,
            replacements: self.replacements,
            horizon: self.horizon,
            reads: self.reads,
            surveys,
            batches,
            rate_limit: RateLimit::new(projection.purpose),
            gate: projection.gate.clone(),
            waiting: Waiting::default(),
            quiet_at: None,
        };
        let halt = flow.run(desired, shutdown).await;
        let Flow {
            mut pipeline,
            batches,
            ..
        } = flow;
        drop(batches);
        // The next session finds the result of an unsettled batch in the checkpoint.
        if let Err(reason) = pipeline.drain().await {
            tracing::debug!(?reason, "a batch in flight was not settled");
        }
        handle.flush().await;
        halt
    }
}

impl Flow<'_> {
    async fn run(
        &mut self,
        desired: &mut watch::Receiver<DesiredState>,
        shutdown: &CancellationToken,
    ) -> Halt {
        loop {
            let event = tokio::select! {
                biased;
                () = shutdown.cancelled() => return Halt::Shutdown,
                event = self.next_event(desired) => event,
            };
            let handled = match event {
                Event::HoldWanted => tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return Halt::Shutdown,
                    waited = self.give_way() => waited,
                },
                event => self.handle(event, desired).await,
            };
            let handled = match handled {
                Ok(()) => self.projection.check_dead_letters(Some(&mut self.pipeline)).await,
                halted => halted,
            };
            if let Err(halt) = handled {
                return halt;
            }
        }
    }

    /// Settles the batches in flight, and waits while an operation holds the commits.
    async fn give_way(&mut self) -> Result<(), Halt> {
        self.pipeline.drain().await?;
        self.permit.give_way().await;
        Ok(())
    }

    /// Waits for the next event. The order is the priority: commits and surveys before new messages.
    async fn next_event(&mut self, desired: &mut watch::Receiver<DesiredState>) -> Event {
        let stored = self.pipeline.stored_through();
        let admitted = match &mut self.gate {
            Some(gate) => gate.admit(&self.waiting.deliveries, stored),
            None => self.waiting.deliveries.len(),
        };
        let has_room = self.pipeline.has_room();
        let may_pull = has_room && self.waiting.deliveries.is_empty();
        let (rate_limit, batches) = (&self.rate_limit, &self.batches);
        tokio::select! {
            biased;
            () = changed(desired) => Event::DesiredStateChanged,
            () = self.replacements.next() => Event::DatabaseReplaced,
            () = self.permit.wanted() => Event::HoldWanted,
            settled = self.pipeline.settle() => Event::Settled(settled),
            survey = self.surveys.recv() => Event::Survey(survey.map(Box::new)),
            () = std::future::ready(()), if admitted > 0 && has_room => Event::Admitted(admitted),
            () = gate_changed(&mut self.gate) => Event::GateChanged,
            batch = async { rate_limit.wait_until_allowed().await; batches.next().await }, if may_pull => {
                Event::Pulled(batch)
            }
        }
    }

    async fn handle(
        &mut self,
        event: Event,
        desired: &mut watch::Receiver<DesiredState>,
    ) -> Result<(), Halt> {
        match event {
            Event::DesiredStateChanged => {
                let now = desired.borrow_and_update().clone();
                self.projection.follow(&mut self.pipeline, &now).await
            }
            Event::DatabaseReplaced => Err(database_replaced()),
            Event::Settled(settled) => settled,
            Event::Survey(None) => Err(Halt::Retry("the survey of the stream ended".to_owned())),
            Event::Survey(Some(survey)) => {
                self.projection.show_warnings(&self.reads, &survey);
                let nothing_waits = self.waiting.deliveries.is_empty();
                let session = (&mut self.pipeline, &mut self.horizon, &mut self.quiet_at);
                apply_survey(self.projection, session, *survey, nothing_waits).await
            }
            Event::Admitted(count) => {
                let (part, ack) = self.waiting.take(count);
                self.confirm_holes(&part).await?;
                let (rest, ack) = self.pipeline.feed(part, ack, &self.horizon).await?;
                self.waiting.put_back(rest, ack);
                Ok(())
            }
            Event::GateChanged | Event::HoldWanted => Ok(()),
            Event::Pulled(Some(Ok(pulled))) => {
                self.accept(pulled);
                Ok(())
            }
            Event::Pulled(Some(Err(error))) => Err(self.halt_for_pull(&error)),
            Event::Pulled(None) => Err(Halt::Retry("pulling ended".to_owned())),
        }
    }

    fn halt_for_pull(&self, error: &PullError) -> Halt {
        let mut reason = error.to_string();
        let is_leaderless = matches!(
            error,
            PullError::Silent { .. } | PullError::NoResponders | PullError::Refused { .. }
        );
        if is_leaderless && self.projection.broker.is_clustered() {
            reason.push_str("; the cluster may be electing a leader of the consumer");
        }
        if let Some(hint) = error.hint() {
            reason = format!("{reason} ({hint})");
        }
        Halt::Reopen(reason)
    }

    /// Keeps a pulled batch until its messages may be projected. They are projected in parts, so that a slow plugin
    /// does not delay the other events.
    fn accept(&mut self, Pulled { deliveries, ack }: Pulled) {
        self.quiet_at = None;
        self.rate_limit.take(deliveries.len());
        self.waiting.put(deliveries, ack, self.pipeline.handed());
    }

    /// Compares the stream's subjects again before a hole counts as lost messages: another subject may have been added to
    /// the stream, or may have been there for a while.
    async fn confirm_holes(&mut self, deliveries: &[Delivery]) -> Result<(), Halt> {
        let Some((first, last)) = last_hole(self.pipeline.handed(), deliveries) else {
            return Ok(());
        };
        if !self.horizon.covers_stream {
            return Ok(());
        }
        let (broker, stream) = (&self.projection.broker, &self.reads.stream);
        let facts = broker.stream_facts(stream).await.map_err(halt_for_broker)?;
        let is_covered = facts.is_some_and(|facts| covers(&self.reads.subjects, &facts.subjects));
        let next = broker.first_sequence_from(stream, first, &[]);
        let next = next.await.map_err(halt_for_broker)?;
        self.horizon.covers_stream = is_covered && next.is_none_or(|next| next > last);
        Ok(())
    }
}

/// The last sequences that are missing before one of these messages and after sequence `after`.
fn last_hole(after: u64, deliveries: &[Delivery]) -> Option<(u64, u64)> {
    let mut hole = None;
    let mut last = after;
    for delivery in deliveries.iter().filter(|delivery| delivery.sequence > after) {
        if delivery.sequence > last + 1 {
            hole = Some((last + 1, delivery.sequence - 1));
        }
        last = last.max(delivery.sequence);
    }
    hole
}

/// The position of the session belongs to the former database, or to one that a server may have lost.
pub(super) fn database_replaced() -> Halt {
    Halt::Reopen("the database file was replaced, or the session with its server ended".to_owned())
}

pub(super) fn halt_for_broker(error: BrokerError) -> Halt {
    let reason = match error.hint() {
        Some(hint) => format!("{error} ({hint})"),
        None => error.to_string(),
    };
    match error {
        _ if error.is_retryable() => Halt::Retry(reason),
        BrokerError::JetStream { .. } => Halt::Refused(reason),
        _ => Halt::Failed(reason),
    }
}

fn halt_for_open(error: OpenError) -> Halt {
    let reason = match error.hint() {
        Some(hint) => format!("{error} ({hint})"),
        None => error.to_string(),
    };
    match error {
        // Another host owns the consumer: that does not resolve without an operator, who has to see it.
        OpenError::Taken { .. } => Halt::Failed(reason),
        // The stream disappeared or went back between the comparison and the opening: compare again.
        OpenError::NoStream { .. } | OpenError::Ahead { .. } => Halt::Reopen(reason),
        _ if error.is_retryable() => Halt::Retry(reason),
        OpenError::Broker(BrokerError::JetStream { .. }) | OpenError::Changed { .. } => Halt::Refused(reason),
        _ => Halt::Failed(reason),
    }
}
