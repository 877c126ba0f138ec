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
mod progress;
mod rate_limit;
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
use lantern_plugin::{Plugin, Projected};
use lantern_store::{AdoptError, Adopted, Adoption, Committed, Store};
use lantern_telemetry::{Metrics, Outcome, RowEffect};

use self::core::Kept;
use pipeline::Pipeline;

pub use gate::{FillState, Gate, GateKeeper};
pub use hold::{CommitHold, CommitHoldGuard};
pub use observation::{HistoryComparison, compare_history};
pub use session::consumer_names;
pub use version::{DesiredState, LoadedVersion, Purpose, Rebuild, VersionCounters};

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
            let reason = match &*desired.borrow_and_update() {
                DesiredState {
                    paused: Some(reason), ..
                } => reason.clone(),
                DesiredState { version, .. } if version.source(&self.source).is_some() => return,
                DesiredState { .. } => "the active version does not read this source".to_owned(),
            };
            self.progress.set_stream_missing(false);
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

    fn record_calls(&self, version: &LoadedVersion, projected: &Projected, memory_peak_bytes: usize) {
        let (plugin, source) = (self.plugin_name(), self.source_name());
        let live = self.purpose == Purpose::Live;
        if live {
            self.metrics.projected(plugin, projected.busy);
        }
        version.count_calls(projected, memory_peak_bytes);
        for fault in &projected.faults {
            let (class, reason, sequence) = (fault.class.as_str(), &fault.reason, fault.first_sequence);
            let (messages, rejected) = (fault.messages, fault.rejected);
            tracing::warn!(
                plugin,
                source,
                class,
                reason,
                sequence,
                messages,
                rejected,
                "a call into the plugin failed"
            );
            if live {
                self.metrics.plugin_fault(plugin, class);
            }
        }
    }

    /// Updates status and metrics after a commit.
    fn record_commit(&self, version: &LoadedVersion, committed: &Committed, through: u64) {
        let (plugin, source) = (self.plugin_name(), self.source_name());
        let counts = committed.counts;
        let dead = counts.dead.saturating_sub(committed.forgotten);
        version.count(counts.messages, dead);
        for (sequence, reason) in &committed.refused {
            tracing::warn!(
                plugin,
                source,
                sequence,
                reason,
                "the database refused a message's rows"
            );
        }
        if self.purpose == Purpose::Live {
            self.record_metrics(version, committed);
        }
        self.progress.set_checkpoint(through);
        self.progress.add_open_dead_letters(dead);
        if let Some(gate) = &self.gate {
            gate.record_checkpoint(through);
        }
        self.status.send_modify(|status| {
            status.checkpoint = through;
            status.messages += counts.messages;
            status.rows += counts.rows;
            status.inserted += counts.inserted;
            status.updated += counts.updated;
            status.present += counts.present();
            status.dead_letters += dead;
            status.missing += counts.missing;
            status.stalled_since_ms = None;
            status.clear_error();
            status.lag = status.lag.map(|lag| lag.saturating_sub(counts.messages));
        });
    }

    /// Records a commit of the live tables. A rebuild does not count its messages a second time.
    fn record_metrics(&self, version: &LoadedVersion, committed: &Committed) {
        let (plugin, source) = (self.plugin_name(), self.source_name());
        let counts = committed.counts;
        self.metrics.committed(committed.took, counts.rows);
        self.metrics
            .messages(plugin, source, Outcome::Projected, counts.projected);
        self.metrics
            .messages(plugin, source, Outcome::Skipped, counts.skipped);
        self.metrics.messages(plugin, source, Outcome::Dead, counts.dead);
        let manifest = version.plugin().manifest();
        for entry in &committed.spent {
            if let lantern_model::batch::Outcome::Reject(rejection) = &entry.outcome {
                self.metrics.dead_letters(plugin, source, rejection.class, 1);
            }
        }
        for (write, effects) in manifest.writes.iter().zip(&committed.effects) {
            let table = manifest.table_of(write).name.as_str();
            for (effect, rows) in [
                (RowEffect::Inserted, effects.inserted),
                (RowEffect::Updated, effects.updated),
                (RowEffect::Present, effects.present),
            ] {
                if rows > 0 {
                    self.metrics.rows(plugin, table, effect, rows);
                }
            }
        }
    }
}
