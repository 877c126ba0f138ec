//! One source of one plugin, from delivery to acknowledgement.
//!
//! A [`Projection`] runs sessions: a session looks where the database stands, compares that with the broker, opens a
//! subscription behind the checkpoint and feeds a pipeline until something ends it; then the next one begins the
//! same way. So there is one way to start, to recover and to rewind, and it is walked all the time.

mod attach;
mod core;
mod gate;
mod identity;
mod idle;
mod pipeline;
pub mod plan;
mod session;
mod version;
mod warnings;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use lantern_broker::Broker;
use lantern_model::batch::Timestamp;
use lantern_model::schema::Origin;
use lantern_model::settings::DeadLetterPolicy;
use lantern_model::status::{ProjectionState, Status};
use lantern_plugin::{Plugin, Projected};
use lantern_store::{AdoptError, Adopted, Adoption, Committed, Store};
use lantern_telemetry::{Metrics, Outcome, RowEffect};

pub use gate::{Gate, GateKeeper};
pub use session::consumer_names;
pub use version::{Counted, Orders, Purpose, Rebuild, Version};

/// What can be chosen for all projections.
#[derive(Clone, Debug)]
pub struct Config {
    /// Messages in one batch at the most.
    pub messages_max: usize,
    /// Bytes of messages in one batch at the most; a single message may be larger.
    pub bytes_max: usize,
    /// Whether missing streams are made.
    pub create_streams: bool,
    /// Open dead letters at which a source halts.
    pub dead_letters_max: u64,
    /// The time between the two observations of a cluster that have to agree before a new epoch begins.
    pub confirm_after: Duration,
    /// The identity of the database, by which a consumer's owner is known.
    pub owner: String,
    /// What the names of durable consumers begin with.
    pub consumer_prefix: String,
}

/// One source of one plugin at work.
pub struct Projection {
    broker: Broker,
    store: Arc<Store>,
    orders: watch::Receiver<Orders>,
    plugin: String,
    source: String,
    purpose: Purpose,
    /// What may be taken of the stream; all of it where there is no gate.
    gate: Option<GateKeeper>,
    config: Config,
    metrics: Metrics,
    status: watch::Sender<Status>,
    /// Whether the stream was seen on a cluster.
    clustered: AtomicBool,
}

/// Why a session ends.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Halt {
    /// The host stops.
    Shutdown,
    /// There are new orders, which the session cannot follow as it goes.
    Ordered,
    /// Begin again at once: the histories have to be compared, or the subscription to be opened anew.
    Reopen(String),
    /// Begin again after a while.
    Retry(String),
    /// The stream does not exist.
    NoStream(String),
    /// The broker refuses the consumer that the version asks for; otherwise as `Failed`.
    Refused(String),
    /// A person has to mend something; looked at again now and then.
    Failed(String),
    /// An operator has to decide whether the stream is the one that was read.
    Undecided(String),
}

/// The pause before a session begins again: doubles from the first to the last, and starts over when something was
/// stored in between.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How often a halted projection looks whether it was mended, and a missing stream is looked for.
const PAUSE_FAILED: Duration = Duration::from_secs(10);
const PAUSE_NO_STREAM: Duration = Duration::from_millis(500);

impl Projection {
    /// A projection of one source that is not running yet, and the status that it will show. It follows `orders` as
    /// they change; a version that does not have the source any more lets it rest.
    pub fn new(
        broker: Broker,
        store: Arc<Store>,
        orders: watch::Receiver<Orders>,
        source: &str,
        purpose: Purpose,
        config: Config,
        metrics: Metrics,
    ) -> (Self, watch::Receiver<Status>) {
        let version = Arc::clone(&orders.borrow().version);
        let manifest = version.plugin().manifest();
        let stream = match version.source(source).map(|(_, source)| &source.origin) {
            Some(Origin::JetStream { stream, .. }) => Some(stream.clone()),
            Some(Origin::Core { .. }) | None => None,
        };
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
                orders,
                plugin,
                source,
                purpose,
                gate: None,
                config,
                metrics,
                status,
                clustered: AtomicBool::new(false),
            },
            watched,
        )
    }

    /// Has it take only what the gate lets through.
    #[must_use]
    pub fn behind(self, gate: GateKeeper) -> Self {
        Self {
            gate: Some(gate),
            ..self
        }
    }

    /// Runs until `shutdown`; then the batch in hand is finished, stored and acknowledged.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut pause = PAUSE_MIN;
        let mut quiet = None;
        let mut orders = self.orders.clone();
        let mut surveys = idle::surveys();
        loop {
            let checkpoint = self.status.borrow().checkpoint;
            let halt = tokio::select! {
                () = shutdown.cancelled() => break,
                () = self.held(&mut orders, &mut surveys) => self.session(&mut orders, &shutdown).await,
            };
            if self.status.borrow().checkpoint != checkpoint {
                pause = PAUSE_MIN;
            }
            let wait = match &halt {
                Halt::Shutdown => break,
                Halt::Ordered => continue,
                Halt::Reopen(_) | Halt::Retry(_) => pause,
                Halt::NoStream(_) => PAUSE_NO_STREAM,
                Halt::Refused(_) | Halt::Failed(_) | Halt::Undecided(_) => PAUSE_FAILED,
            };
            // The same reason again is not said again: a broker that is away for a night is one line.
            if quiet.as_ref() != Some(&halt) {
                self.say(&halt);
            }
            self.show(&halt);
            quiet = Some(halt);
            pause = (pause * 2).min(PAUSE_MAX);
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(wait) => {}
                () = self.survey_while_idle(&mut surveys) => {}
                // Perhaps the one that mends it.
                () = version::changed(&mut orders) => {}
            }
        }
        self.status
            .send_modify(|status| status.enter(ProjectionState::Stopped));
    }

    /// Returns when the projection may run.
    async fn held(&self, orders: &mut watch::Receiver<Orders>, surveys: &mut tokio::time::Interval) {
        loop {
            let reason = match &*orders.borrow_and_update() {
                Orders {
                    hold: Some(reason), ..
                } => reason.clone(),
                Orders { version, .. } if version.source(&self.source).is_some() => return,
                Orders { .. } => "the version that runs does not read this source".to_owned(),
            };
            self.status.send_modify(|status| status.pause(reason));
            tokio::select! {
                () = version::changed(orders) => {}
                () = self.survey_while_idle(surveys) => {}
            }
        }
    }

    async fn session(&self, orders: &mut watch::Receiver<Orders>, shutdown: &CancellationToken) -> Halt {
        let version = Arc::clone(&orders.borrow_and_update().version);
        let Some((_, source)) = version.source(&self.source) else {
            return Halt::Ordered;
        };
        match &source.origin {
            Origin::JetStream { stream, subjects } => {
                self.stream_session(&version, orders, stream, subjects, shutdown)
                    .await
            }
            Origin::Core { subjects } => self.core_session(&version, orders, subjects, shutdown).await,
        }
    }

    /// A stream that is all poison halts before it fills the disk; none of its messages is dropped. Unless the operator
    /// has said that the newest are worth more than the oldest.
    async fn check_dead_letters(&self) -> Result<(), Halt> {
        let settings = self.orders.borrow().settings.dead_letters.clone();
        let (max, limit) = match settings.max {
            Some(max) => (max, "dead_letters.max, set for this plugin"),
            None => (self.config.dead_letters_max, "limits.dead_letters_max"),
        };
        let open = self.status.borrow().dead_letters;
        if open < max {
            return Ok(());
        }
        if settings.policy.unwrap_or_default() == DeadLetterPolicy::Halt {
            return Err(Halt::Failed(format!(
                "{open} dead letters are open, and the limit is {max} ({limit})"
            )));
        }
        let (plugin, source) = (&self.ledger_name(), self.source_name());
        // A tenth at a time, so that it is not done for each message.
        let keep = max - max.div_ceil(10);
        let dropped = self.store.discard_oldest_letters(plugin, source, keep).await?;
        tracing::warn!(
            plugin,
            source,
            dropped,
            "the oldest dead letters were given up, as is set for this plugin"
        );
        self.recount_dead_letters().await
    }

    fn plugin_name(&self) -> &str {
        &self.plugin
    }

    /// The name under which the database keeps where the projection stands.
    fn ledger_name(&self) -> String {
        match self.purpose {
            Purpose::Live => self.plugin.clone(),
            Purpose::Rebuild(rebuild) => rebuild.id.name_of(&self.plugin),
        }
    }

    fn source_name(&self) -> &str {
        &self.source
    }

    /// Makes sure that the database knows the version, and shows that it is the one at work.
    async fn adopt(&self, version: &Version) -> Result<Adopted, Halt> {
        let plugin: &Plugin = version.plugin();
        let adoption = Adoption {
            manifest: Arc::clone(plugin.manifest()),
            digest: plugin.digest().to_string(),
            contract: plugin.facts().contract.to_string(),
            at: Timestamp::now(),
        };
        let adopted = match self.purpose {
            Purpose::Live => self.store.adopt(adoption).await,
            Purpose::Rebuild(rebuild) => self.store.adopt_rebuild(rebuild.id, adoption).await,
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

    fn say(&self, halt: &Halt) {
        let (plugin, source) = (self.plugin_name(), self.source_name());
        match halt {
            Halt::Shutdown | Halt::Ordered => {}
            Halt::Reopen(reason) => {
                tracing::info!(plugin, source, reason, "reading again from the checkpoint")
            }
            Halt::Retry(reason) => tracing::warn!(plugin, source, reason, "held up; trying again"),
            Halt::NoStream(reason) => tracing::warn!(plugin, source, reason, "waiting for the stream"),
            Halt::Refused(reason) | Halt::Failed(reason) => {
                tracing::error!(plugin, source, reason, "halted")
            }
            Halt::Undecided(reason) => {
                tracing::error!(plugin, source, reason, "stopped until an operator decides")
            }
        }
    }

    fn show(&self, halt: &Halt) {
        let (state, reason) = match halt {
            Halt::Shutdown | Halt::Ordered => return,
            Halt::Reopen(reason) | Halt::Retry(reason) => (ProjectionState::Retrying, reason),
            Halt::NoStream(reason) => (ProjectionState::WaitingForStream, reason),
            Halt::Refused(reason) | Halt::Failed(reason) => (ProjectionState::Failed, reason),
            Halt::Undecided(reason) => (ProjectionState::Undecided, reason),
        };
        self.status.send_modify(|status| {
            status.fail(state, reason.clone());
            status.consumer_refused = matches!(halt, Halt::Refused(_));
        });
    }

    fn note_projected(&self, version: &Version, projected: &Projected, memory_peak_bytes: usize) {
        let (plugin, source) = (self.plugin_name(), self.source_name());
        let live = self.purpose == Purpose::Live;
        if live {
            self.metrics.projected(plugin, projected.busy);
        }
        version.count_projected(projected, memory_peak_bytes);
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

    /// Brings status and metrics up to a batch that has taken effect.
    fn note_committed(&self, version: &Version, committed: &Committed, through: u64) {
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
            self.measure(version, committed);
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

    /// Counts a batch of the tables in use. A rebuild is not counted a second time.
    fn measure(&self, version: &Version, committed: &Committed) {
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
