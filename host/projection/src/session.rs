//! A session of a JetStream source: attaches, compares, opens, and feeds the pipeline until something ends it.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::time::{Duration, Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::gate::{Waiting, gate_changed};
use super::pipeline::{AdoptedVersion, CommitTarget, Pipeline};
use super::plan::{Horizon, covers};
use super::version::changed;
use super::warnings::{AckWatch, Acks, expiring_consumer, refused_acks, unmatched_filters};
use super::{DesiredState, Halt, LoadedVersion, Projection, Purpose};
use lantern_broker::{
    Broker, BrokerError, ConsumerFacts, ConsumerHandle, OpenError, OpenRequest, PullError, Pulled, Retention,
    Start, StreamFacts, Subscription,
};
use lantern_model::batch::Timestamp;
use lantern_model::status::{ProjectionState, ProjectionWarning};
use lantern_store::Gap;

/// How often the broker is asked for lag, trimming and the consumer's owner.
pub(super) const SURVEY_EVERY: Duration = Duration::from_secs(2);

/// The broker's facts about stream and consumer, collected in parallel with the messages.
struct Survey {
    stream: Option<StreamFacts>,
    consumer: Option<ConsumerFacts>,
    acks: Acks,
    /// The subjects that the stream can hold, if known.
    stream_subjects: Option<Vec<String>>,
}

/// Asks the broker for facts at intervals, in parallel with the messages.
struct Surveyor {
    broker: Broker,
    stream: String,
    handle: ConsumerHandle,
    watch: AckWatch,
    /// The subjects of the streams that a mirror copies; requested once.
    mirrored_subjects: Option<Option<Vec<String>>>,
}

impl Surveyor {
    /// Asks the broker once. Sends an acknowledgement again if the broker has not applied it for a while.
    async fn observe(&mut self) -> Result<Survey, BrokerError> {
        let stream = self.broker.stream_facts(&self.stream).await?;
        let consumer = self.handle.facts().await?;
        let mut acks = Acks::Follow;
        if let Some(consumer) = &consumer {
            let acknowledged = self.handle.last_acknowledged();
            acks = self
                .watch
                .observe(Instant::now(), acknowledged, consumer.ack_floor);
            if acks != Acks::Follow && self.handle.confirm_last().await {
                acks = Acks::TakenAgain;
            }
        }
        let stream_subjects = match &stream {
            Some(StreamFacts {
                holds: Some(stream_subjects),
                ..
            }) => Some(stream_subjects.clone()),
            Some(_) => self.mirrored_subjects().await?,
            None => None,
        };
        Ok(Survey {
            stream,
            consumer,
            acks,
            stream_subjects,
        })
    }

    async fn mirrored_subjects(&mut self) -> Result<Option<Vec<String>>, BrokerError> {
        if self.mirrored_subjects.is_none() {
            self.mirrored_subjects = Some(match self.broker.subjects_held(&self.stream).await {
                Ok(stream_subjects) => stream_subjects,
                // The user may lack permission for the other stream, and does not need it.
                Err(error) if !error.is_retryable() => None,
                Err(error) => return Err(error),
            });
        }
        Ok(self.mirrored_subjects.clone().flatten())
    }
}

impl Projection {
    pub(super) async fn stream_session(
        &self,
        version: &Arc<LoadedVersion>,
        desired: &mut watch::Receiver<DesiredState>,
        stream: &str,
        subjects: &[String],
        shutdown: &CancellationToken,
    ) -> Halt {
        let result = tokio::select! {
            () = shutdown.cancelled() => return Halt::Shutdown,
            () = changed(desired) => return Halt::DesiredStateChanged,
            opened = self.open(version, stream, subjects) => opened,
        };
        match result {
            Ok(opened) => opened.run(self, desired, shutdown).await,
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
        if desired.paused.is_some() || !pipeline.reads_same_source(&desired.version) {
            return Err(Halt::DesiredStateChanged);
        }
        if pipeline.runs(&desired.version) {
            return self.recount_dead_letters().await;
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
        self.recount_dead_letters().await
    }

    /// Asks the database for the number of open dead letters, because an operator or another version may have resolved
    /// some.
    pub(super) async fn recount_dead_letters(&self) -> Result<(), Halt> {
        let (plugin, source) = (self.ledger_name(), self.source_name());
        let open = self
            .store
            .reader()
            .count_open_dead_letters(&plugin, source)
            .await?;
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
        let adopted_version = self.adopt_version(version).await?;
        let (facts, attached) = self.attach(stream, subjects).await?;
        let durable = facts.retention != Retention::Limits;
        self.show_attached(&attached);
        self.status.send_modify(|status| {
            status.stream = Some(stream.to_owned());
            status.last_sequence = Some(facts.last_sequence);
        });
        self.check_dead_letters().await?;
        let request = OpenRequest {
            stream: stream.to_owned(),
            subjects: subjects.to_vec(),
            consumer: self.consumer_name(),
            owner: self.config.owner.clone(),
            plugin: self.plugin_name().to_owned(),
            source: self.source_name().to_owned(),
            description: format!("feeds the tables of Lantern's plugin {}", self.plugin_name()),
            start: Start::After {
                sequence: attached.checkpoint.sequence,
                published_ns: (attached.checkpoint.published_ns > 0)
                    .then_some(attached.checkpoint.published_ns),
            },
        };
        let subscription = self.broker.open(request).await.map_err(halt_for_open)?;
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
            horizon,
            reads: Reads {
                stream: stream.to_owned(),
                subjects: subjects.to_vec(),
                consumer: self.consumer_name(),
                retention: facts.retention,
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

    /// Shows the warnings of a survey, and logs new ones.
    fn show_warnings(&self, reads: &Reads, survey: &Survey) {
        let Some(consumer) = &survey.consumer else {
            return;
        };
        let warnings = reads.warnings(consumer, survey.acks, survey.stream_subjects.as_deref());
        self.status.send_if_modified(|status| {
            for warning in &warnings {
                let is_new = !status.warnings.iter().any(|known| known.kind == warning.kind);
                if is_new {
                    let (plugin, source) = (self.plugin_name(), self.source_name());
                    tracing::warn!(plugin, source, "{}", warning.detail);
                }
            }
            let changed = status.warnings != warnings;
            status.warnings = warnings;
            changed
        });
    }

    fn spawn_surveyor(
        &self,
        stream: &str,
        handle: &ConsumerHandle,
    ) -> (mpsc::Receiver<Survey>, AbortOnDropHandle<()>) {
        // Capacity for one answer, because an old one is useless.
        let (answers, surveys) = mpsc::channel(1);
        let mut surveyor = Surveyor {
            broker: self.broker.clone(),
            stream: stream.to_owned(),
            handle: handle.clone(),
            watch: AckWatch::default(),
            mirrored_subjects: None,
        };
        let task = tokio::spawn(async move {
            let mut ticks = interval(SURVEY_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                // The subscription detects a broker that does not answer; there is nothing to survey then.
                let Ok(survey) = surveyor.observe().await else {
                    continue;
                };
                if answers.send(survey).await.is_err() {
                    return;
                }
            }
        });
        (surveys, AbortOnDropHandle::new(task))
    }
}

struct OpenSession<'a> {
    pipeline: Pipeline<'a>,
    subscription: Subscription,
    horizon: Horizon,
    reads: Reads,
}

/// What a session reads, for its warnings.
struct Reads {
    stream: String,
    subjects: Vec<String>,
    consumer: String,
    retention: Retention,
}

impl Reads {
    fn warnings(
        &self,
        consumer: &ConsumerFacts,
        acks: Acks,
        stream_subjects: Option<&[String]>,
    ) -> Vec<ProjectionWarning> {
        let refused = (acks == Acks::Refused).then(|| refused_acks(self.retention, consumer));
        let expires = expiring_consumer(self.retention, &self.consumer, consumer);
        let unmatched = stream_subjects
            .and_then(|stream_subjects| unmatched_filters(&self.stream, &self.subjects, stream_subjects));
        [refused, expires, unmatched].into_iter().flatten().collect()
    }
}

/// The names of the durable consumers that a source may have: for the live tables, and for a rebuild.
pub fn consumer_names(prefix: &str, plugin: &str, source: &str) -> [String; 2] {
    let live = format!("{prefix}-{plugin}-{source}");
    let rebuild = format!("{live}-rebuild");
    [live, rebuild]
}

/// Limits the rate of a rebuild.
struct RateLimit {
    rate: Option<u64>,
    began: Instant,
    taken: u64,
}

impl RateLimit {
    fn new(purpose: Purpose) -> Self {
        let rate = match purpose {
            Purpose::Live => None,
            Purpose::Rebuild(rebuild) => rebuild.rate,
        };
        Self {
            rate,
            began: Instant::now(),
            taken: 0,
        }
    }

    fn take(&mut self, messages: usize) {
        self.taken += messages as u64;
    }

    /// Waits until the rate allows more messages; returns at once without a rate.
    async fn wait_until_allowed(&self) {
        if let Some(rate) = self.rate {
            let due = Duration::from_secs_f64(self.taken as f64 / rate.max(1) as f64);
            tokio::time::sleep_until(self.began + due).await;
        }
    }
}

/// Pulls in parallel with the pipeline, so that the next batch is ready when the last one is decoded. One batch waits
/// and one is being pulled; both are bounded in bytes.
fn pull(
    mut subscription: Subscription,
    messages_max: usize,
    bytes_max: usize,
) -> (mpsc::Receiver<Result<Pulled, PullError>>, AbortOnDropHandle<()>) {
    let (pulled, batches) = mpsc::channel(1);
    let task = tokio::spawn(async move {
        loop {
            let batch = subscription.next(messages_max, bytes_max).await;
            let ended = batch.is_err();
            if pulled.send(batch).await.is_err() || ended {
                return;
            }
        }
    });
    (batches, AbortOnDropHandle::new(task))
}

impl OpenSession<'_> {
    async fn run(
        self,
        projection: &Projection,
        desired: &mut watch::Receiver<DesiredState>,
        shutdown: &CancellationToken,
    ) -> Halt {
        let Self {
            mut pipeline,
            subscription,
            mut horizon,
            reads,
        } = self;
        let handle = subscription.handle();
        let (mut surveys, _surveying) = projection.spawn_surveyor(&reads.stream, &handle);
        let config = &projection.config;
        let (mut batches, pulling) = pull(subscription, config.messages_max, config.bytes_max);
        projection
            .status
            .send_modify(|status| status.enter(ProjectionState::Running));
        let mut quiet_at = None;
        let mut rate_limit = RateLimit::new(projection.purpose);
        let mut gate = projection.gate.clone();
        // Pulled messages that the gate does not admit yet; empty without a gate.
        let mut waiting = Waiting::default();
        let halt = loop {
            let admitted = gate.as_mut().map_or(0, |gate| {
                gate.admit(&waiting.deliveries, pipeline.stored_through())
            });
            let step = tokio::select! {
                biased;
                () = shutdown.cancelled() => break Halt::Shutdown,
                () = changed(desired) => {
                    let now = desired.borrow_and_update().clone();
                    projection.follow(&mut pipeline, &now).await
                }
                settled = pipeline.settle() => settled,
                survey = surveys.recv() => match survey {
                    Some(survey) => {
                        projection.show_warnings(&reads, &survey);
                        let view = SurveyView { survey, nothing_waits: waiting.deliveries.is_empty() };
                        apply_survey(projection, &mut pipeline, &mut horizon, view, &mut quiet_at).await
                    }
                    None => Err(Halt::Retry("the survey of the stream ended".to_owned())),
                },
                () = std::future::ready(()), if admitted > 0 && pipeline.has_room() => {
                    let (part, ack) = waiting.take(admitted);
                    pipeline.feed(part, ack, &horizon).await
                }
                () = gate_changed(&mut gate) => Ok(()),
                batch = async { rate_limit.wait_until_allowed().await; batches.recv().await },
                    if pipeline.has_room() && waiting.deliveries.is_empty() => match batch
                {
                    Some(Ok(Pulled { deliveries, ack })) => {
                        quiet_at = None;
                        rate_limit.take(deliveries.len());
                        match &gate {
                            Some(_) => {
                                waiting.put(deliveries, ack, pipeline.handed());
                                Ok(())
                            }
                            None => pipeline.feed(deliveries, Some(ack), &horizon).await,
                        }
                    }
                    Some(Err(error)) => Err(halt_for_pull(&error)),
                    None => Err(Halt::Retry("pulling ended".to_owned())),
                },
            };
            let step = match step {
                Ok(()) => projection.check_dead_letters().await,
                halted => halted,
            };
            if let Err(halt) = step {
                break halt;
            }
        };
        drop(pulling);
        // The next session finds the result of an unsettled batch in the checkpoint.
        if let Err(reason) = pipeline.drain().await {
            tracing::debug!(?reason, "a batch in flight was not settled");
        }
        handle.flush().await;
        halt
    }
}

/// A survey, and whether no pulled message waits.
struct SurveyView {
    survey: Survey,
    nothing_waits: bool,
}

/// Applies a survey: lag, owner, and sequences that are gone while no message flows.
async fn apply_survey(
    projection: &Projection,
    pipeline: &mut Pipeline<'_>,
    horizon: &mut Horizon,
    SurveyView {
        survey,
        nothing_waits,
    }: SurveyView,
    quiet_at: &mut Option<u64>,
) -> Result<(), Halt> {
    let Some(stream) = survey.stream else {
        // The next session decides whether the stream is gone, with a second observation where one is not sufficient.
        return Err(Halt::Reopen("the stream is gone from the broker".to_owned()));
    };
    let Some(consumer) = survey.consumer else {
        return Err(Halt::Reopen("the consumer is gone from the broker".to_owned()));
    };
    if consumer
        .owner
        .as_ref()
        .is_some_and(|owner| *owner != projection.config.owner)
    {
        return Err(Halt::Failed(format!(
            "another Lantern host took over the consumer (database {})",
            consumer.owner.unwrap_or_default()
        )));
    }
    horizon.first_sequence = horizon.first_sequence.max(stream.first_sequence);
    if !consumer.differences.is_empty() {
        return Err(Halt::Reopen(format!(
            "the consumer was changed: {}",
            consumer.differences.join("; ")
        )));
    }
    // The broker tracks each acknowledgement here. The host repeats a lost one only when the broker delivers its
    // message again.
    if survey.acks == Acks::TakenAgain && pipeline.acknowledges_each() {
        return Err(Halt::Reopen(
            "the broker lost some acknowledgements; sending them again".to_owned(),
        ));
    }
    let paused = consumer.paused_until.filter(|until| *until > Timestamp::now());
    // A delivered and stored message does not wait, even if the broker has not applied its acknowledgement.
    let stored = pipeline.is_idle() && pipeline.handed() >= consumer.delivered;
    let waiting = consumer.pending + if stored { 0 } else { consumer.ack_pending };
    projection.status.send_modify(|status| {
        status.last_sequence = Some(stream.last_sequence);
        status.lag = Some(waiting);
        match paused {
            Some(until) => status.pause(format!("the consumer is paused until {}", until.to_rfc3339())),
            None => status.enter(ProjectionState::Running),
        }
        if waiting == 0 {
            status.clear_error();
        }
        let stuck = paused.is_none() && waiting > 0 && quiet_at.is_some_and(|at| at == status.checkpoint);
        if stuck && status.stalled_since_ms.is_none() {
            status.stalled_since_ms = Some(Timestamp::now().0 / 1_000);
        } else if !stuck {
            status.stalled_since_ms = None;
        }
    });
    pipeline.release_idle_memory();
    let handed = pipeline.handed();
    let mut gone = stream.first_sequence.saturating_sub(1);
    if let Some(gate) = &projection.gate {
        gone = gone.min(gate.until());
        if waiting == 0 && nothing_waits && pipeline.is_idle() {
            gate.nothing_left(stream.last_sequence);
        }
    }
    // Two surveys in a row without a message in between: messages delivered before the trimming have arrived.
    if nothing_waits && pipeline.is_idle() && *quiet_at == Some(handed) && gone > handed {
        let reason = "gone from the stream before it was read".to_owned();
        pipeline
            .skip(Gap {
                first: handed + 1,
                last: gone,
                exact: horizon.covers_stream,
                reason,
            })
            .await?;
    }
    *quiet_at = Some(handed);
    Ok(())
}

pub(super) fn halt_for_broker(error: BrokerError) -> Halt {
    let words = match error.hint() {
        Some(hint) => format!("{error} ({hint})"),
        None => error.to_string(),
    };
    match error {
        _ if error.is_retryable() => Halt::Retry(words),
        BrokerError::JetStream { .. } => Halt::Refused(words),
        _ => Halt::Failed(words),
    }
}

fn halt_for_open(error: OpenError) -> Halt {
    let words = match error.hint() {
        Some(hint) => format!("{error} ({hint})"),
        None => error.to_string(),
    };
    match error {
        // Another host owns the consumer: that does not resolve without an operator, who has to see it.
        OpenError::Taken { .. } => Halt::Failed(words),
        // The stream disappeared or went back between the comparison and the opening: compare again.
        OpenError::NoStream { .. } | OpenError::Ahead { .. } => Halt::Reopen(words),
        _ if error.is_retryable() => Halt::Retry(words),
        OpenError::Broker(BrokerError::JetStream { .. }) | OpenError::Changed { .. } => Halt::Refused(words),
        _ => Halt::Failed(words),
    }
}

fn halt_for_pull(error: &PullError) -> Halt {
    match error.hint() {
        Some(hint) => Halt::Reopen(format!("{error} ({hint})")),
        None => Halt::Reopen(error.to_string()),
    }
}
