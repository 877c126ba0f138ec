//! Surveys of a source that a session reads: facts about stream and consumer, requested at intervals in parallel with the
//! messages, and their effect on status, warnings and gaps.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use tokio::sync::mpsc;
use tokio::time::{Duration, Instant, Interval, MissedTickBehavior, interval_at};
use tokio_util::task::AbortOnDropHandle;

use super::delivery_watch::{DeliveryWatch, Inquiry};
use super::gate::{FillState, GateKeeper};
use super::pipeline::Pipeline;
use super::plan::Horizon;
use super::progress::Progress;
use super::warnings::{
    AckWatch, Acks, durability, expiring_consumer, not_portable, refused_acks, unmatched_filters,
};
use super::{Halt, Projection, Purpose};
use lantern_broker::{
    Broker, BrokerError, ConsumerFacts, ConsumerHandle, Link, ReplicaFacts, Retention, StreamFacts,
};
use lantern_model::batch::Timestamp;
use lantern_model::status::{ProjectionState, ProjectionWarning, StreamReplica};
use lantern_store::NewGap;

/// How often the broker is asked for lag, trimming and the consumer's owner.
const SURVEY_EVERY: Duration = Duration::from_secs(2);

/// The number of moments within [`SURVEY_EVERY`] at which sources are surveyed.
const SURVEY_SLOTS: u32 = 8;

/// Ticks at once, and then every [`SURVEY_EVERY`]. All sources share a few moments for their ticks, so that the requests of many
/// idle sources share packets and wake the host rarely. The sources are spread over several moments, so that the requests of
/// a thousand sources do not delay messages.
pub(super) fn survey_ticks() -> Interval {
    static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
    static TICKERS: AtomicU64 = AtomicU64::new(0);
    let slot = TICKERS.fetch_add(1, Ordering::Relaxed) % u64::from(SURVEY_SLOTS);
    let now = Instant::now();
    let since_tick = time_since_tick(slot, now.saturating_duration_since(*ORIGIN));
    // An interval that begins in the past ticks at once, and keeps its phase.
    let mut ticks = interval_at(now.checked_sub(since_tick).unwrap_or(now), SURVEY_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks
}

/// The time since the last tick of a slot. `elapsed` is the time since a tick of the slot 0.
fn time_since_tick(slot: u64, elapsed: Duration) -> Duration {
    let period = SURVEY_EVERY.as_micros() as u64;
    let offset = slot * period / u64::from(SURVEY_SLOTS);
    Duration::from_micros((elapsed.as_micros() as u64 + period - offset) % period)
}

/// The broker's facts about stream and consumer, collected in parallel with the messages.
pub(super) struct Survey {
    pub(super) stream: Option<StreamFacts>,
    pub(super) consumer: Option<ConsumerFacts>,
    pub(super) acks: Acks,
    /// The subjects that the stream can hold, if known.
    pub(super) stream_subjects: Option<Vec<String>>,
    /// A message that the stream holds and the consumer does not deliver, unless a batch is in flight.
    pub(super) overdue: Option<Overdue>,
}

/// A message that is not delivered.
pub(super) struct Overdue {
    /// The checkpoint that does not advance.
    after: u64,
    /// The message's sequence.
    sequence: u64,
}

/// Asks the broker for facts at intervals, in parallel with the messages.
struct Surveyor {
    broker: Broker,
    stream: String,
    handle: ConsumerHandle,
    watch: AckWatch,
    deliveries: DeliveryWatch,
    progress: Arc<Progress>,
    subjects: Vec<String>,
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
        let overdue = match &stream {
            Some(stream) => self.find_overdue(stream.last_sequence).await,
            None => None,
        };
        Ok(Survey {
            stream,
            consumer,
            acks,
            stream_subjects,
            overdue,
        })
    }

    /// Looks for a message that the stream holds and the consumer does not deliver.
    async fn find_overdue(&mut self, last_sequence: u64) -> Option<Overdue> {
        let (after, now) = (self.progress.checkpoint(), Instant::now());
        if self.deliveries.observe(now, after, last_sequence) == Inquiry::None {
            return None;
        }
        let first = self
            .broker
            .first_sequence_from(&self.stream, after + 1, &self.subjects);
        match first.await {
            Ok(first) => {
                let overdue = self.deliveries.record(now, last_sequence, first);
                overdue.map(|sequence| Overdue { after, sequence })
            }
            Err(error) => {
                tracing::debug!(stream = self.stream, %error, "failed to look for an undelivered message");
                None
            }
        }
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
    /// Shows the warnings of a survey, and logs new ones.
    pub(super) fn show_warnings(&self, reads: &Reads, survey: &Survey) {
        let Some(consumer) = &survey.consumer else {
            return;
        };
        let mut warnings = reads.warnings(consumer, survey.acks, survey.stream_subjects.as_deref());
        if let Some(stream) = &survey.stream {
            let connected = match &*self.broker.link().borrow() {
                Link::Connected(server) => Some(server.version),
                _ => None,
            };
            warnings.extend(durability(&reads.stream, &stream.safety, connected));
        }
        warnings.extend(not_portable(self.desired.borrow().version.plugin().manifest()));
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

    /// Starts to survey; each survey arrives through the channel.
    pub(super) fn spawn_surveyor(
        &self,
        reads: &Reads,
        handle: &ConsumerHandle,
    ) -> (mpsc::Receiver<Survey>, AbortOnDropHandle<()>) {
        // Capacity for one answer, because an old one is useless.
        let (answers, surveys) = mpsc::channel(1);
        let mut surveyor = Surveyor {
            broker: self.broker.clone(),
            stream: reads.stream.clone(),
            handle: handle.clone(),
            watch: AckWatch::default(),
            deliveries: DeliveryWatch::default(),
            progress: Arc::clone(&self.progress),
            subjects: reads.subjects.clone(),
            mirrored_subjects: None,
        };
        let task = tokio::spawn(async move {
            let mut ticks = survey_ticks();
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

/// What a session reads, for its warnings.
pub(super) struct Reads {
    pub(super) stream: String,
    pub(super) subjects: Vec<String>,
    pub(super) consumer: String,
    pub(super) retention: Retention,
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

/// Applies a survey: lag, owner, and sequences that are gone while no message flows. `nothing_waits` means that no pulled
/// message waits.
pub(super) async fn apply_survey(
    projection: &Projection,
    (pipeline, horizon, quiet_at): (&mut Pipeline<'_>, &mut Horizon, &mut Option<u64>),
    survey: Survey,
    nothing_waits: bool,
) -> Result<(), Halt> {
    let Some(stream) = survey.stream else {
        // The next session decides whether the stream is gone, with a second observation where one is not sufficient.
        return Err(Halt::Reopen("the stream is gone from the broker".to_owned()));
    };
    let Some(consumer) = survey.consumer else {
        return Err(Halt::Reopen("the consumer is gone from the broker".to_owned()));
    };
    check_consumer(&consumer, &projection.config.owner)?;
    horizon.first_sequence = horizon.first_sequence.max(stream.first_sequence);
    // The broker tracks each acknowledgement here. The host repeats a lost one only when the broker delivers its message
    // again.
    if survey.acks == Acks::TakenAgain && pipeline.acknowledges_each() {
        return Err(Halt::Reopen(
            "the broker lost some acknowledgements; sending them again".to_owned(),
        ));
    }
    let paused = consumer.paused_until.filter(|until| *until > Timestamp::now());
    let waiting = messages_waiting(pipeline, &consumer);
    show_survey(projection, &stream, waiting, paused);
    if let Some(Overdue { after, sequence }) = survey.overdue
        && projection.purpose == Purpose::Live
        && paused.is_none()
        && nothing_waits
        && pipeline.is_idle()
        && pipeline.handed() == after
    {
        projection.progress.request_replacement();
        return Err(Halt::Reopen(format!(
            "the consumer does not deliver sequence {sequence}, which the stream holds; replacing the consumer"
        )));
    }
    pipeline.release_idle_memory();
    let handed = pipeline.handed();
    let mut gone = stream.first_sequence.saturating_sub(1);
    if let Some(gate) = &projection.gate {
        let nothing_left = waiting == 0 && nothing_waits && pipeline.is_idle();
        report_to_gate(
            gate,
            paused.is_some(),
            nothing_left.then_some(stream.last_sequence),
        );
        gone = gone.min(gate.until());
    }
    // Two surveys in a row without a message in between: messages delivered before the trimming have arrived.
    if nothing_waits && pipeline.is_idle() && *quiet_at == Some(handed) && gone > handed {
        let gap = NewGap {
            first: handed + 1,
            last: gone,
            exact: horizon.covers_stream,
            reason: "gone from the stream before it was read".to_owned(),
        };
        pipeline.skip(gap).await?;
    }
    *quiet_at = Some(handed);
    Ok(())
}

/// Reports to the gate of a rebuild whether the source is read, and the end of the stream if no message is left.
fn report_to_gate(gate: &GateKeeper, is_paused: bool, end: Option<u64>) {
    gate.set_state(if is_paused {
        FillState::Waiting
    } else {
        FillState::Reading
    });
    if let Some(end) = end {
        gate.nothing_left(end);
    }
}

/// How many messages of the source are not stored. A delivered and stored message does not wait, even if the host has not
/// acknowledged it, or the broker has not applied its acknowledgement.
fn messages_waiting(pipeline: &Pipeline<'_>, consumer: &ConsumerFacts) -> u64 {
    let all_stored = pipeline.is_idle() && pipeline.handed() >= consumer.delivered;
    let in_hand = match all_stored {
        true => 0,
        false => consumer
            .ack_pending
            .saturating_sub(pipeline.stored_unacknowledged()),
    };
    consumer.pending + in_hand
}

/// Whether the consumer still belongs to this host, and is as the host opened it.
fn check_consumer(consumer: &ConsumerFacts, owner: &str) -> Result<(), Halt> {
    if let Some(other) = consumer.owner.as_deref().filter(|other| *other != owner) {
        return Err(Halt::Failed(format!(
            "another Lantern host took over the consumer (database {other})"
        )));
    }
    if !consumer.differences.is_empty() {
        return Err(Halt::Reopen(format!(
            "the consumer was changed: {}",
            consumer.differences.join("; ")
        )));
    }
    Ok(())
}

pub(super) fn to_replica(facts: &ReplicaFacts) -> StreamReplica {
    StreamReplica {
        server: facts.server.clone(),
        lag: facts.lag,
        current: facts.is_current,
    }
}

fn show_survey(projection: &Projection, stream: &StreamFacts, waiting: u64, paused: Option<Timestamp>) {
    let is_stalled = projection.progress.is_stalled(paused.is_none() && waiting > 0);
    projection.status.send_modify(|status| {
        status.last_sequence = Some(stream.last_sequence);
        status.replicas = stream.replicas.iter().map(to_replica).collect();
        status.lag = Some(waiting);
        match paused {
            Some(until) => status.pause(format!("the consumer is paused until {}", until.to_rfc3339())),
            None => status.enter(ProjectionState::Running),
        }
        if waiting == 0 {
            status.clear_error();
        }
        status.set_stalled(is_stalled);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slot_ticks_at_its_own_moment_of_the_period() {
        let since = |slot, ms| time_since_tick(slot, Duration::from_millis(ms)).as_millis();
        assert_eq!([since(0, 0), since(0, 300), since(0, 2_300)], [0, 300, 300]);
        assert_eq!([since(3, 0), since(3, 750), since(3, 1_000)], [1_250, 0, 250]);
        assert_eq!(since(7, 1_749), 1_999);
    }
}
