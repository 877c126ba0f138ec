//! A session of a JetStream source: attach, compare, open, and feed the pipeline until something ends it.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::time::{Duration, Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::gate::{Waiting, opened_further};
use super::pipeline::{AtWork, Pipeline, Place};
use super::plan::{Horizon, covers};
use super::version::changed;
use super::warnings::{AckWatch, Acks, deaf_filters, expiring_consumer, refused_acks};
use super::{Halt, Orders, Projection, Purpose, Version};
use lantern_broker::{
    Broker, BrokerError, ConsumerFacts, ConsumerHandle, OpenError, OpenRequest, PullError, Pulled, Retention,
    Start, StreamFacts, Subscription,
};
use lantern_model::batch::Timestamp;
use lantern_model::status::{ProjectionState, ProjectionWarning};
use lantern_store::Gap;

/// How often the broker is asked for lag, trimming and the consumer's owner.
pub(super) const SURVEY_EVERY: Duration = Duration::from_secs(2);

/// What the broker said of stream and consumer, beside the flow of messages.
struct Survey {
    stream: Option<StreamFacts>,
    consumer: Option<ConsumerFacts>,
    acks: Acks,
    /// The subjects that the stream can hold, where that is known.
    held: Option<Vec<String>>,
}

/// Asks the broker for facts at intervals, independently of the flow of messages.
struct Surveyor {
    broker: Broker,
    stream: String,
    handle: ConsumerHandle,
    watch: AckWatch,
    /// The subjects of the streams that a mirror copies; asked for once.
    copied: Option<Option<Vec<String>>>,
}

impl Surveyor {
    /// One look at the broker. An acknowledgement that it has not taken for a while is sent again.
    async fn look(&mut self) -> Result<Survey, BrokerError> {
        let stream = self.broker.stream_facts(&self.stream).await?;
        let consumer = self.handle.facts().await?;
        let mut acks = Acks::Follow;
        if let Some(consumer) = &consumer {
            let acknowledged = self.handle.last_acknowledged();
            acks = self.watch.look(Instant::now(), acknowledged, consumer.ack_floor);
            if acks != Acks::Follow && self.handle.confirm_last().await {
                acks = Acks::TakenAgain;
            }
        }
        let held = match &stream {
            Some(StreamFacts {
                holds: Some(held), ..
            }) => Some(held.clone()),
            Some(_) => self.copied().await?,
            None => None,
        };
        Ok(Survey {
            stream,
            consumer,
            acks,
            held,
        })
    }

    async fn copied(&mut self) -> Result<Option<Vec<String>>, BrokerError> {
        if self.copied.is_none() {
            self.copied = Some(match self.broker.subjects_held(&self.stream).await {
                Ok(held) => held,
                // The user may not look at the other stream, and need not.
                Err(error) if !error.is_retryable() => None,
                Err(error) => return Err(error),
            });
        }
        Ok(self.copied.clone().flatten())
    }
}

impl Projection {
    pub(super) async fn stream_session(
        &self,
        version: &Arc<Version>,
        orders: &mut watch::Receiver<Orders>,
        stream: &str,
        subjects: &[String],
        shutdown: &CancellationToken,
    ) -> Halt {
        let result = tokio::select! {
            () = shutdown.cancelled() => return Halt::Shutdown,
            () = changed(orders) => return Halt::Ordered,
            opened = self.open(version, stream, subjects) => opened,
        };
        match result {
            Ok(opened) => opened.run(self, orders, shutdown).await,
            Err(halt) => halt,
        }
    }

    /// A version as a pipeline runs it; the database knows it then.
    pub(super) async fn at_work(&self, version: &Arc<Version>) -> Result<AtWork, Halt> {
        let Some((source, _)) = version.source(self.source_name()) else {
            return Err(Halt::Ordered);
        };
        Ok(AtWork {
            version: Arc::clone(version),
            source,
            adopted: self.adopt(version).await?,
        })
    }

    /// Follows new orders between two batches where the source stays what it was; anything else needs a session of its
    /// own.
    async fn follow(&self, pipeline: &mut Pipeline<'_>, orders: &Orders) -> Result<(), Halt> {
        if orders.hold.is_some() || !pipeline.reads_the_same(&orders.version) {
            return Err(Halt::Ordered);
        }
        if pipeline.runs(&orders.version) {
            return self.recount_dead_letters().await;
        }
        pipeline.switch(self.at_work(&orders.version).await?);
        tracing::info!(
            plugin = self.plugin_name(),
            source = self.source_name(),
            version = %orders.version.plugin().manifest().version,
            digest = %orders.version.plugin().digest(),
            after = pipeline.handed(),
            "another version goes on"
        );
        self.recount_dead_letters().await
    }

    /// Asks the database how many dead letters are open: an operator, or another version, may have dealt with some.
    pub(super) async fn recount_dead_letters(&self) -> Result<(), Halt> {
        let (plugin, source) = (self.ledger_name(), self.source_name());
        let open = self.store.count_open_letters(&plugin, source).await?;
        self.status.send_modify(|status| status.dead_letters = open);
        Ok(())
    }

    /// From nothing to an open subscription behind the checkpoint.
    async fn open(
        &self,
        version: &Arc<Version>,
        stream: &str,
        subjects: &[String],
    ) -> Result<Opened<'_>, Halt> {
        let at_work = self.at_work(version).await?;
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
        let subscription = self.broker.open(request).await.map_err(open_halt)?;
        let horizon = Horizon {
            covers_stream: covers(subjects, &facts.subjects),
            first_sequence: facts.first_sequence,
        };
        let checkpoint = attached.checkpoint.clone();
        let acks = Some(subscription.handle());
        let place = Place {
            origin: attached.origin,
            stamp: match self.purpose {
                Purpose::Live => attached.origin,
                Purpose::Rebuild(rebuild) => rebuild.stamp,
            },
            durable,
        };
        let pipeline = Pipeline::new(self, at_work, place, checkpoint, acks);
        Ok(Opened {
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

    /// The name of the broker's durable consumer that this projection reads through.
    pub(super) fn consumer_name(&self) -> String {
        let prefix = &self.config.consumer_prefix;
        let [live, rebuild] = consumer_names(prefix, self.plugin_name(), self.source_name());
        match self.purpose {
            Purpose::Live => live,
            Purpose::Rebuild(_) => rebuild,
        }
    }

    /// Shows the warnings of a survey, and logs those that are new.
    fn show_warnings(&self, reads: &Reads, survey: &Survey) {
        let Some(consumer) = &survey.consumer else {
            return;
        };
        let warnings = reads.warnings(consumer, survey.acks, survey.held.as_deref());
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

    fn survey(
        &self,
        stream: &str,
        handle: &ConsumerHandle,
    ) -> (mpsc::Receiver<Survey>, AbortOnDropHandle<()>) {
        // One answer at a time: an old one is of no use.
        let (answers, surveys) = mpsc::channel(1);
        let mut surveyor = Surveyor {
            broker: self.broker.clone(),
            stream: stream.to_owned(),
            handle: handle.clone(),
            watch: AckWatch::default(),
            copied: None,
        };
        let task = tokio::spawn(async move {
            let mut ticks = interval(SURVEY_EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                // A broker that does not answer is noticed by the subscription; there is nothing to survey then.
                let Ok(survey) = surveyor.look().await else {
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

struct Opened<'a> {
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
        held: Option<&[String]>,
    ) -> Vec<ProjectionWarning> {
        let refused = (acks == Acks::Refused).then(|| refused_acks(self.retention, consumer));
        let expires = expiring_consumer(self.retention, &self.consumer, consumer);
        let deaf = held.and_then(|held| deaf_filters(&self.stream, &self.subjects, held));
        [refused, expires, deaf].into_iter().flatten().collect()
    }
}

/// The names of the durable consumers that a source may have: that of the tables in use, and that of a rebuild.
pub fn consumer_names(prefix: &str, plugin: &str, source: &str) -> [String; 2] {
    let live = format!("{prefix}-{plugin}-{source}");
    let rebuild = format!("{live}-rebuild");
    [live, rebuild]
}

/// Holds a rebuild to its rate: says when the next batch may be taken.
struct Pace {
    rate: Option<u64>,
    began: Instant,
    taken: u64,
}

impl Pace {
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

    /// Returns when the rate allows more; at once where there is none.
    async fn allows(&self) {
        if let Some(rate) = self.rate {
            let due = Duration::from_secs_f64(self.taken as f64 / rate.max(1) as f64);
            tokio::time::sleep_until(self.began + due).await;
        }
    }
}

/// Pulls beside the pipeline, so that the next batch is there when the last one has been decoded. One batch waits
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

impl Opened<'_> {
    async fn run(
        self,
        projection: &Projection,
        orders: &mut watch::Receiver<Orders>,
        shutdown: &CancellationToken,
    ) -> Halt {
        let Self {
            mut pipeline,
            subscription,
            mut horizon,
            reads,
        } = self;
        let handle = subscription.handle();
        let (mut surveys, _surveying) = projection.survey(&reads.stream, &handle);
        let config = &projection.config;
        let (mut batches, pulling) = pull(subscription, config.messages_max, config.bytes_max);
        projection
            .status
            .send_modify(|status| status.enter(ProjectionState::Running));
        let mut quiet_at = None;
        let mut pace = Pace::new(projection.purpose);
        let mut gate = projection.gate.clone();
        // What was pulled and may not be taken yet; empty where there is no gate.
        let mut waiting = Waiting::default();
        let halt = loop {
            let admitted = gate.as_mut().map_or(0, |gate| {
                gate.admit(&waiting.deliveries, pipeline.stored_through())
            });
            let step = tokio::select! {
                biased;
                () = shutdown.cancelled() => break Halt::Shutdown,
                () = changed(orders) => {
                    let now = orders.borrow_and_update().clone();
                    projection.follow(&mut pipeline, &now).await
                }
                settled = pipeline.settle() => settled,
                survey = surveys.recv() => match survey {
                    Some(survey) => {
                        projection.show_warnings(&reads, &survey);
                        let view = View { survey, nothing_waits: waiting.deliveries.is_empty() };
                        look(projection, &mut pipeline, &mut horizon, view, &mut quiet_at).await
                    }
                    None => Err(Halt::Retry("the survey of the stream ended".to_owned())),
                },
                () = std::future::ready(()), if admitted > 0 && pipeline.has_room() => {
                    let (part, ack) = waiting.take(admitted);
                    pipeline.feed(part, ack, &horizon).await
                }
                () = opened_further(&mut gate) => Ok(()),
                batch = async { pace.allows().await; batches.recv().await },
                    if pipeline.has_room() && waiting.deliveries.is_empty() => match batch
                {
                    Some(Ok(Pulled { deliveries, ack })) => {
                        quiet_at = None;
                        pace.take(deliveries.len());
                        match &gate {
                            Some(_) => {
                                waiting.put(deliveries, ack, pipeline.handed());
                                Ok(())
                            }
                            None => pipeline.feed(deliveries, Some(ack), &horizon).await,
                        }
                    }
                    Some(Err(error)) => Err(pull_halt(&error)),
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
        // An answer that is not there is found at the checkpoint by the next session.
        if let Err(reason) = pipeline.drain().await {
            tracing::debug!(?reason, "a batch in hand was not settled");
        }
        handle.flush().await;
        halt
    }
}

/// A survey, and whether no message waits that was pulled before.
struct View {
    survey: Survey,
    nothing_waits: bool,
}

/// Takes in what the broker said beside the flow: lag, owner, and sequences that are gone while nothing flows.
async fn look(
    projection: &Projection,
    pipeline: &mut Pipeline<'_>,
    horizon: &mut Horizon,
    View {
        survey,
        nothing_waits,
    }: View,
    quiet_at: &mut Option<u64>,
) -> Result<(), Halt> {
    let Some(stream) = survey.stream else {
        // Whether it is gone is for the next session to say, which looks twice where one look is not enough.
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
            "the consumer was taken over by another Lantern (database {})",
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
    // The broker keeps an acknowledgement for each message here, and those that it has not taken are only sent again
    // for messages that it delivers again.
    if survey.acks == Acks::TakenAgain && pipeline.acknowledges_each() {
        return Err(Halt::Reopen(
            "the broker had not taken some acknowledgements; sending them again".to_owned(),
        ));
    }
    let paused = consumer.paused_until.filter(|until| *until > Timestamp::now());
    // What was delivered and is stored does not wait, also when the broker has not taken its acknowledgement.
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
    pipeline.rest();
    let handed = pipeline.handed();
    let mut gone = stream.first_sequence.saturating_sub(1);
    if let Some(gate) = &projection.gate {
        gone = gone.min(gate.until());
        if waiting == 0 && nothing_waits && pipeline.is_idle() {
            gate.nothing_left(stream.last_sequence);
        }
    }
    // Twice in a row without a message between: what was delivered before the trimming has come through.
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

pub(super) fn broker_halt(error: BrokerError) -> Halt {
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

fn open_halt(error: OpenError) -> Halt {
    let words = match error.hint() {
        Some(hint) => format!("{error} ({hint})"),
        None => error.to_string(),
    };
    match error {
        // Another host has it: nothing that passes by itself, and nothing to be silent about.
        OpenError::Taken { .. } => Halt::Failed(words),
        // The stream went, or went back, between the comparison and the opening: compare again.
        OpenError::NoStream { .. } | OpenError::Ahead { .. } => Halt::Reopen(words),
        _ if error.is_retryable() => Halt::Retry(words),
        OpenError::Broker(BrokerError::JetStream { .. }) | OpenError::Changed { .. } => Halt::Refused(words),
        _ => Halt::Failed(words),
    }
}

fn pull_halt(error: &PullError) -> Halt {
    match error.hint() {
        Some(hint) => Halt::Reopen(format!("{error} ({hint})")),
        None => Halt::Reopen(error.to_string()),
    }
}
