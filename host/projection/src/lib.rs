//! One source of one plugin, from delivery to acknowledgement.
//!
//! A [`Projection`] runs sessions. A session reads the position in the database, compares it with the broker, opens a
//! subscription after the checkpoint and feeds a pipeline until something ends the session; then the next session
//! begins in the same way. Start, recovery and rewind therefore share one code path, which every session exercises.

mod attach;
mod batch_size;
mod core;
mod delivery_watch;
mod gate;
mod hold;
mod identity;
mod idle;
mod observation;
mod pipeline;
pub mod plan;
mod prefetch;
mod progress;
mod rate_limit;
mod recording;
mod session;
mod survey;
mod version;
mod warnings;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use lantern_broker::Broker;
use lantern_model::batch::Timestamp;
use lantern_model::settings::DeadLetterPolicy;
use lantern_model::status::{ProjectionState, Status};
use lantern_plugin::Plugin;
use lantern_store::{AdoptError, Adopted, Adoption, Store};
use lantern_telemetry::Metrics;

use self::core::Kept;
use pipeline::Pipeline;

pub use gate::{FillState, Gate, GateKeeper};
pub use hold::{CommitHold, CommitHoldGuard};
pub use observation::{HistoryComparison, compare_history};
pub use session::consumer_names;
pub use version::{DesiredState, LoadedVersion, Placement, Purpose, Rebuild, VersionCounters};

/// Settings of all projections.
#[derive(Clone, Debug)]
pub struct ProjectionConfig {
    /// Maximum number of messages in one batch.
    pub messages_max: usize,
    /// Maximum number of message bytes in one batch; a single message may be larger.
    pub bytes_max: usize,
    /// Whether the host creates missing streams.
    pub create_streams: bool,
    /// Number of open dead letters at which a source halts.
    pub dead_letters_max: u64,
    /// Time between the two equal observations of a cluster that a new epoch requires.
    pub confirm_after: Duration,
    /// The identity of the database, which identifies the owner of a consumer.
    pub owner: String,
    /// Prefix of the names of durable consumers.
    pub consumer_prefix: String,
}

/// One source of one plugin.
pub struct Projection {
    broker: Broker,
    store: Arc<Store>,
    desired: watch::Receiver<DesiredState>,
    plugin: String,
    source: String,
    purpose: Purpose,
    /// Limits which messages the projection may take; `None` means no limit.
    gate: Option<GateKeeper>,
    /// Lets an operation hold the commits of all projections of the plugin.
    hold: CommitHold,
    config: ProjectionConfig,
    metrics: Metrics,
    status: watch::Sender<Status>,
    progress: Arc<progress::Progress>,
}

/// Why a projection reads nothing.
enum Idle {
    /// Its plugin is paused, for this reason.
    Paused(String),
    /// Another host reads its source: what to show, and the status that this host reported.
    Elsewhere(String, Option<Box<Status>>),
}

/// Why a session ends.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Halt {
    /// The host stops.
    Shutdown,
    /// The desired state changed in a way that the session cannot follow.
    DesiredStateChanged,
    /// Restart at once: compare the histories again, or open a new subscription.
    Reopen(String),
    /// Restart after a pause.
    Retry(String),
    /// The stream does not exist.
    NoStream(String),
    /// The broker refuses the consumer that the version requests; otherwise like `Failed`.
    Refused(String),
    /// A person has to fix something; the projection checks at intervals.
    Failed(String),
    /// An operator has to decide whether the stream is the one that was read.
    Undecided(String),
}

/// The pause before a session restarts. It doubles from the minimum to the maximum, and starts over after a commit.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How often a halted projection checks whether the cause was fixed, and how often it looks for a missing stream.
const PAUSE_FAILED: Duration = Duration::from_secs(10);
const PAUSE_NO_STREAM: Duration = Duration::from_millis(500);

impl Projection {
    /// Creates a projection of one source that is not running yet, with its status. It follows `desired` as it changes,
    /// and pauses while the version does not have the source.
    pub fn new(
        broker: Broker,
        store: Arc<Store>,
        desired: watch::Receiver<DesiredState>,
        source: &str,
        purpose: Purpose,
        config: ProjectionConfig,
        metrics: Metrics,
    ) -> (Self, watch::Receiver<Status>) {
        let version = Arc::clone(&desired.borrow().version);
        let manifest = version.plugin().manifest();
        let stream = version
            .source(source)
            .and_then(|(_, source)| source.origin.stream().map(str::to_owned));
        let status = Status::starting(
            manifest.name.as_str(),
            &manifest.version.to_string(),
            &version.plugin().digest().to_string(),
            source,
            stream,
        );
        let (status, watched) = watch::channel(status);
        let plugin = manifest.name.to_string();
        let source = source.to_owned();
        (
            Self {
                broker,
                store,
                desired,
                plugin,
                source,
                purpose,
                gate: None,
                hold: CommitHold::default(),
                config,
                metrics,
                status,
                progress: Arc::default(),
            },
            watched,
        )
    }

    /// Makes the projection take only messages that the gate admits.
    #[must_use]
    pub fn with_gate(self, gate: GateKeeper) -> Self {
        Self {
            gate: Some(gate),
            ..self
        }
    }

    /// Makes the projection stop its commits while an operation holds them.
    #[must_use]
    pub fn with_hold(self, hold: CommitHold) -> Self {
        Self { hold, ..self }
    }

    /// Runs until `shutdown`, then finishes, stores and acknowledges the batch in hand.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut pause = PAUSE_MIN;
        let mut quiet = None;
        let mut desired = self.desired.clone();
        let mut surveys = survey::survey_ticks();
        let mut kept = Kept::default();
        loop {
            let checkpoint = self.progress.checkpoint();
            let halt = tokio::select! {
                () = shutdown.cancelled() => break,
                () = self.wait_until_unpaused(&mut desired, &mut surveys) => self.session(&mut desired, &mut kept, &shutdown).await,
            };
            if self.progress.checkpoint() != checkpoint {
                pause = PAUSE_MIN;
            }
            let wait = match &halt {
                Halt::Shutdown => break,
                Halt::DesiredStateChanged => continue,
                Halt::Reopen(_) | Halt::Retry(_) => pause,
                Halt::NoStream(_) => PAUSE_NO_STREAM,
                Halt::Refused(_) | Halt::Failed(_) | Halt::Undecided(_) => PAUSE_FAILED,
            };
            self.progress
                .set_stream_missing(matches!(halt, Halt::NoStream(_)));
            // Log a repeated reason once: a broker that is unreachable for a night is one line.
            if quiet.as_ref() != Some(&halt) {
                self.log_halt(&halt);
            }
            self.report_halt(&halt);
            quiet = Some(halt);
            pause = (pause * 2).min(PAUSE_MAX);
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(wait) => {}
                () = self.survey_while_idle(&mut surveys) => {}
                // The change may fix the cause.
                () = version::changed(&mut desired) => {}
            }
        }
        self.status
            .send_modify(|status| status.enter(ProjectionState::Stopped));
    }

    /// Waits until the projection may run.
    async fn wait_until_unpaused(
        &self,
        desired: &mut watch::Receiver<DesiredState>,
        surveys: &mut tokio::time::Interval,
    ) {
        loop {
            let now = desired.borrow_and_update().clone();
            if let Placement::Here { node, .. } = &now.placement {
                self.show_node(node.as_deref());
            }
            let idle = match &now {
                DesiredState {
                    placement: Placement::Elsewhere { detail, reports },
                    ..
                } => Idle::Elsewhere(detail.clone(), reports.get(&self.source).cloned().map(Box::new)),
                DesiredState {
                    paused: Some(reason), ..
                } => Idle::Paused(reason.clone()),
                DesiredState { version, .. } if version.source(&self.source).is_some() => return,
                DesiredState { .. } => {
                    Idle::Paused("the active version does not read this source".to_owned())
                }
            };
            self.progress.set_stream_missing(false);
            let reason = match idle {
                Idle::Paused(reason) => reason,
                Idle::Elsewhere(detail, report) => {
                    self.show_elsewhere(detail, report);
                    version::changed(desired).await;
                    continue;
                }
            };
            self.status.send_modify(|status| status.pause(reason));
            tokio::select! {
                () = version::changed(desired) => self.recount_while_paused().await,
                () = self.survey_while_idle(surveys) => {}
            }
        }
    }

    async fn session(
        &self,
        desired: &mut watch::Receiver<DesiredState>,
        kept: &mut Kept,
        shutdown: &CancellationToken,
    ) -> Halt {
        let version = Arc::clone(&desired.borrow_and_update().version);
        let Some((_, source)) = version.source(&self.source) else {
            return Halt::DesiredStateChanged;
        };
        let halt = match source.origin.replay() {
            Some((stream, subjects)) => {
                self.stream_session(&version, desired, stream, subjects, shutdown)
                    .await
            }
            None => {
                self.core_session(&version, desired, source.origin.subjects(), kept, shutdown)
                    .await
            }
        };
        match &halt {
            Halt::Shutdown | Halt::DesiredStateChanged => {}
            Halt::Refused(reason) => self.record_consumer(&version, Some(reason)),
            _ => self.record_consumer(&version, None),
        }
        halt
    }

    /// Records in the version whether the broker refuses its consumer of this source. The consumer of a rebuild is another
    /// one.
    fn record_consumer(&self, version: &LoadedVersion, refused: Option<&str>) {
        if self.purpose == Purpose::Live {
            version.set_refused_consumer(&self.source, refused);
        }
    }

    /// A stream whose messages all fail halts before it fills the disk, without losing a message, unless the operator
    /// prefers new dead letters over old ones.
    async fn check_dead_letters(&self, pipeline: Option<&mut Pipeline<'_>>) -> Result<(), Halt> {
        let settings = self.desired.borrow().settings.dead_letters.clone();
        let (max, limit) = match settings.max {
            Some(max) => (max, "dead_letters.max, set for this plugin"),
            None => (self.config.dead_letters_max, "limits.dead_letters_max"),
        };
        let open = self.progress.open_dead_letters();
        if open < max {
            return Ok(());
        }
        if settings.policy.unwrap_or_default() == DeadLetterPolicy::Halt {
            return Err(Halt::Failed(format!(
                "{open} dead letters are open, and the limit is {max} ({limit})"
            )));
        }
        let (plugin, source) = (&self.ledger_name(), self.source_name());
        // Discard a tenth at a time rather than one for each message.
        let keep = max - max.div_ceil(10);
        let dropped = self
            .store
            .dead_letters()
            .discard_oldest(plugin, source, keep)
            .await?;
        tracing::warn!(
            plugin,
            source,
            dropped,
            "discarded the oldest dead letters, as set for this plugin"
        );
        self.recount_dead_letters(pipeline).await
    }

    /// Shows that this host reads the source.
    fn show_node(&self, node: Option<&str>) {
        self.status.send_if_modified(|status| {
            let is_new = status.node.as_deref() != node;
            status.node = node.map(str::to_owned);
            is_new
        });
    }

    /// Shows what another host does with the source.
    fn show_elsewhere(&self, detail: String, report: Option<Box<Status>>) {
        self.status.send_modify(|status| match report {
            Some(report) => *status = *report,
            None => {
                status.enter(ProjectionState::Standby);
                status.paused = Some(detail);
                status.node = None;
                status.stalled_since_ms = None;
                status.clear_error();
            }
        });
        // The next session reads it from the database.
        self.progress.set_checkpoint(0);
    }

    fn plugin_name(&self) -> &str {
        &self.plugin
    }

    /// The name under which the database stores the position of the projection.
    fn ledger_name(&self) -> String {
        match self.purpose {
            Purpose::Live => self.plugin.clone(),
            Purpose::Rebuild(rebuild) => rebuild.id.name_of(&self.plugin),
        }
    }

    fn source_name(&self) -> &str {
        &self.source
    }

    /// Registers the version in the database and shows it as the active one.
    async fn adopt(&self, version: &LoadedVersion) -> Result<Adopted, Halt> {
        let plugin: &Plugin = version.plugin();
        let adoption = Adoption {
            manifest: Arc::clone(plugin.manifest()),
            digest: plugin.digest().to_string(),
            contract: plugin.facts().contract.to_string(),
            at: Timestamp::now(),
        };
        let adopted = match self.purpose {
            Purpose::Live => self.store.plugins().adopt(adoption).await,
            Purpose::Rebuild(rebuild) => self.store.rebuilds().adopt(rebuild.id, adoption).await,
        };
        let adopted = adopted.map_err(|error| match error {
            AdoptError::Refused(_) => Halt::Failed(error.to_string()),
            AdoptError::Unavailable(_) => Halt::Retry(error.to_string()),
            AdoptError::Closed => Halt::Shutdown,
        })?;
        self.status.send_modify(|status| {
            status.version = plugin.manifest().version.to_string();
            status.digest = plugin.digest().to_string();
        });
        Ok(adopted)
    }

    fn log_halt(&self, halt: &Halt) {
        let (plugin, source) = (self.plugin_name(), self.source_name());
        match halt {
            Halt::Shutdown | Halt::DesiredStateChanged => {}
            Halt::Reopen(reason) => {
                tracing::info!(plugin, source, reason, "reading again from the checkpoint")
            }
            Halt::Retry(reason) => tracing::warn!(plugin, source, reason, "interrupted; will retry"),
            Halt::NoStream(reason) => tracing::warn!(plugin, source, reason, "waiting for the stream"),
            Halt::Refused(reason) | Halt::Failed(reason) => {
                tracing::error!(plugin, source, reason, "halted")
            }
            Halt::Undecided(reason) => {
                tracing::error!(plugin, source, reason, "stopped until an operator decides")
            }
        }
    }

    fn report_halt(&self, halt: &Halt) {
        let (state, reason) = match halt {
            Halt::Shutdown | Halt::DesiredStateChanged => return,
            Halt::Reopen(reason) | Halt::Retry(reason) => (ProjectionState::Retrying, reason),
            Halt::NoStream(reason) => (ProjectionState::WaitingForStream, reason),
            Halt::Refused(reason) | Halt::Failed(reason) => (ProjectionState::Failed, reason),
            Halt::Undecided(reason) => (ProjectionState::Undecided, reason),
        };
        self.status.send_modify(|status| {
            status.fail(state, reason.clone());
            if status.lag.is_some_and(|lag| lag > 0) {
                status.set_stalled(true);
            }
        });
        if let Some(gate) = &self.gate {
            gate.set_state(match state {
                ProjectionState::Failed => FillState::Failed(reason.clone()),
                _ => FillState::Waiting,
            });
        }
    }
}
