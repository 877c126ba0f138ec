//! Attaches a source to its stream: compares the database with the broker until it is certain whether the stream is the
//! one that was read, then executes the decision of `identity`. It writes nothing before the decision is certain.

use tokio::time::{Duration, Instant};

use super::identity::{History, NextStep, Observation, Resume, apply_decision, next_step};
use super::observation::{ObservedStream, observe};
use super::session::halt_for_broker;
use super::{Halt, Projection, Purpose};
use lantern_broker::{ClusterFacts, StreamFacts};
use lantern_model::batch::Timestamp;
use lantern_model::status::ProjectionState;
use lantern_store::{Accepted, Anchor, Attached, NewEpoch, Question};

/// The maximum interval between two observations of a cluster. More observations than the required two detect a change
/// between them.
const OBSERVATION_PAUSE: Duration = Duration::from_secs(1);

impl Projection {
    /// Compares the histories and returns where to continue. Begins a new epoch when the histories differ, and creates
    /// a missing stream if the configuration allows it.
    pub(super) async fn attach(
        &self,
        stream: &str,
        subjects: &[String],
    ) -> Result<(StreamFacts, Attached), Halt> {
        let mut attached = self
            .store
            .sources()
            .attach(&self.ledger_name(), self.source_name())
            .await?;
        let mut earlier: Option<(Instant, Observation)> = None;
        let mut made = false;
        // The previous session has already established that the stream is missing.
        let is_missing = self.progress.is_stream_missing();
        loop {
            let at = Instant::now();
            let mut found = self.observe(stream, attached.as_ref()).await?;
            if let (Some(found), Some(attached)) = (&mut found, &attached)
                && !matches!(found.resume, Resume::Continue { .. })
                && let Some(accepted) = decision(attached, &found.history)
            {
                found.resume = apply_decision(accepted, attached, &found.history);
            }
            let now = self.to_observation(found.as_ref());
            let since = earlier
                .as_ref()
                .map(|(at, observation)| (observation, at.elapsed()));
            let step = match (&attached, &found) {
                (Some(attached), Some(found)) if decision(attached, &found.history).is_some() => {
                    NextStep::Act
                }
                (Some(_), None) if is_missing => NextStep::Act,
                (Some(_), _) => next_step(since, &now, self.config.confirm_after),
                // Nothing was read yet, so nothing can be read twice.
                (None, _) => NextStep::Act,
            };
            match (step, found) {
                (NextStep::Act, Some(found)) => return self.settle(found, attached).await,
                (NextStep::Act, None) if made => return Err(no_stream(stream)),
                (NextStep::Act, None) => {
                    self.make_stream(stream, subjects).await?;
                    made = true;
                }
                (NextStep::ObserveAgain { reason, keep_earlier }, found) => {
                    self.report_waiting(&reason);
                    if let (Some(found), Some(attached)) = (&found, &mut attached) {
                        self.record_question(attached, found.history.created_ns).await?;
                    }
                    if !keep_earlier {
                        earlier = Some((at, now));
                    }
                    tokio::time::sleep(OBSERVATION_PAUSE.min(self.config.confirm_after)).await;
                }
            }
        }
    }

    /// Observes the stream. Returns `None` when the broker reports that the stream does not exist.
    async fn observe(
        &self,
        stream: &str,
        attached: Option<&Attached>,
    ) -> Result<Option<ObservedStream>, Halt> {
        let found = observe(&self.broker, stream, attached)
            .await
            .map_err(halt_for_broker)?;
        if found.as_ref().is_some_and(|found| found.facts.cluster.is_some()) {
            self.progress.set_clustered();
        }
        Ok(found)
    }

    fn to_observation(&self, found: Option<&ObservedStream>) -> Observation {
        match found {
            Some(found) => Observation {
                resume: Some(found.resume.clone()),
                cluster: found.facts.cluster.clone(),
            },
            None => {
                let clustered = self.broker.is_clustered() || self.progress.is_clustered();
                Observation {
                    resume: None,
                    cluster: clustered.then(|| ClusterFacts {
                        leader: None,
                        behind: Vec::new(),
                    }),
                }
            }
        }
    }

    /// Creates the stream if the configuration allows it.
    async fn make_stream(&self, stream: &str, subjects: &[String]) -> Result<(), Halt> {
        if !self.config.create_streams || subjects.is_empty() {
            return Err(no_stream(stream));
        }
        self.broker
            .ensure_stream(stream, subjects)
            .await
            .map(|_| ())
            .map_err(halt_for_broker)
    }

    /// Executes the conclusion of the last observation.
    async fn settle(
        &self,
        found: ObservedStream,
        attached: Option<Attached>,
    ) -> Result<(StreamFacts, Attached), Halt> {
        let ObservedStream {
            facts,
            history,
            resume,
        } = found;
        let attached = match (resume, attached) {
            (Resume::Continue { changed }, Some(attached)) => {
                self.recognise(attached, &history, changed).await?
            }
            (Resume::Continue { .. }, None) => self.begin(&history, 0, "the first".to_owned(), None).await?,
            (Resume::Ask { reason }, Some(attached)) => {
                return Err(self.undecided(attached, &history, reason).await);
            }
            (Resume::Ask { reason }, None) => return Err(Halt::Failed(reason)),
            (Resume::Begin { after, reason }, attached) => {
                self.begin(&history, after, reason, attached).await?
            }
            (Resume::BeginAfterTime { time_ns, reason }, attached) => {
                let after = self
                    .broker
                    .sequence_until(&history.stream, time_ns)
                    .await
                    .map_err(halt_for_broker)?;
                self.begin(&history, after, reason, attached).await?
            }
        };
        Ok((facts, attached))
    }

    /// The stream is the one that was read. Stores its name and creation time if they changed.
    async fn recognise(
        &self,
        mut attached: Attached,
        history: &History,
        changed: bool,
    ) -> Result<Attached, Halt> {
        if changed {
            self.store
                .sources()
                .set_stream(attached.origin, &history.stream, history.created_ns)
                .await?;
            tracing::info!(
                plugin = self.plugin_name(),
                source = self.source_name(),
                stream = history.stream,
                before = attached.stream_created_ns.map(as_time),
                now = as_time(history.created_ns),
                "the stream's name or creation time changed; its messages are those that were read"
            );
            attached.stream = Some(history.stream.clone());
            attached.stream_created_ns = Some(history.created_ns);
        } else if attached.question.is_some() {
            self.store.sources().set_question(attached.origin, None).await?;
        }
        attached.question = None;
        Ok(attached)
    }

    /// Begins an epoch after sequence `after`.
    async fn begin(
        &self,
        history: &History,
        after: u64,
        reason: String,
        attached: Option<Attached>,
    ) -> Result<Attached, Halt> {
        let after = match (self.purpose, &attached) {
            (Purpose::Rebuild(_), Some(_)) => {
                return Err(Halt::Failed(format!("{reason}; restart the rebuild")));
            }
            (Purpose::Rebuild(rebuild), None) => rebuild.after,
            (Purpose::Live, _) => after,
        };
        let shared = attached.map_or_else(Vec::new, |attached| history.shared(&attached.anchors).to_vec());
        let (plugin, source) = (self.ledger_name(), self.source_name().to_owned());
        let epoch = NewEpoch {
            plugin: plugin.clone(),
            source: source.clone(),
            stream: Some(history.stream.clone()),
            stream_created_ns: Some(history.created_ns),
            after,
            anchors: self.anchors_before(&history.stream, after, shared).await?,
            reason: reason.clone(),
            at: Timestamp::now(),
        };
        let begun = self.store.sources().begin_epoch(epoch).await?;
        if begun.epoch > 1 {
            tracing::warn!(
                plugin,
                source,
                epoch = begun.epoch,
                after,
                reason,
                "a new epoch begins; old rows stay"
            );
        }
        Ok(begun)
    }

    /// The anchors of an epoch that begins after `after`: the anchors that the stream shares with the previous epoch,
    /// and the message at `after`.
    async fn anchors_before(
        &self,
        stream: &str,
        after: u64,
        mut shared: Vec<Anchor>,
    ) -> Result<Vec<Anchor>, Halt> {
        shared.retain(|anchor| anchor.sequence <= after);
        let known = shared.first().is_some_and(|anchor| anchor.sequence == after);
        if after > 0 && !known {
            let last = self
                .broker
                .message_at(stream, after)
                .await
                .map_err(halt_for_broker)?;
            if let Some(last) = last {
                shared.insert(
                    0,
                    Anchor {
                        sequence: after,
                        published_ns: last.published_ns,
                        payload_sha256: last.payload_sha256,
                    },
                );
            }
        }
        Ok(shared)
    }

    /// Records the question for the operator. The reason names the commands that answer it.
    async fn undecided(&self, mut attached: Attached, history: &History, reason: String) -> Halt {
        if self.purpose != Purpose::Live {
            return Halt::Failed(reason);
        }
        if let Err(halt) = self.record_question(&mut attached, history.created_ns).await {
            return halt;
        }
        let (plugin, source) = (self.plugin_name(), self.source_name());
        Halt::Undecided(format!(
            "{reason}. The source stays stopped until an operator decides: `lantern source accept {plugin}/{source} \
             --same` continues after the checkpoint, `--new` reads the whole stream in a new epoch"
        ))
    }

    /// Stores the question. The operator's decision is stored with it.
    async fn record_question(&self, attached: &mut Attached, created_ns: i64) -> Result<(), Halt> {
        let asked = attached.question.map(|question| question.stream_created_ns);
        if self.purpose == Purpose::Live && asked != Some(created_ns) {
            self.store
                .sources()
                .set_question(attached.origin, Some(created_ns))
                .await?;
            attached.question = Some(Question {
                stream_created_ns: created_ns,
                accepted: None,
            });
        }
        Ok(())
    }

    fn report_waiting(&self, reason: &str) {
        let is_new = self.status.send_if_modified(|status| {
            let is_new =
                status.last_error.as_deref() != Some(reason) || status.state != ProjectionState::Retrying;
            if is_new {
                status.fail(ProjectionState::Retrying, reason.to_owned());
            }
            is_new
        });
        if is_new {
            let (plugin, source) = (self.plugin_name(), self.source_name());
            tracing::warn!(plugin, source, reason, "waiting");
        }
    }
}

/// The operator's decision, if it refers to this stream.
fn decision(attached: &Attached, history: &History) -> Option<Accepted> {
    let question = attached.question?;
    question
        .accepted
        .filter(|_| question.stream_created_ns == history.created_ns)
}

fn no_stream(stream: &str) -> Halt {
    Halt::NoStream(format!("the broker has no stream {stream}"))
}

/// Nanoseconds since 1970 as RFC 3339, for the log.
fn as_time(nanoseconds: i64) -> String {
    Timestamp(nanoseconds / 1_000).to_rfc3339()
}
