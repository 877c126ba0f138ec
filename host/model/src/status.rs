//! The status of a projection, and the registry of all projections. The projection writes it; API and metrics read it.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use utoipa::ToSchema;

/// The state of a projection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProjectionState {
    /// Comparing the broker and the database before the first batch.
    Starting,
    /// The broker has no stream of this name yet.
    WaitingForStream,
    /// Reading and storing messages.
    Running,
    /// An operator paused the plugin, or the consumer on the broker: `paused` contains the reason.
    Paused,
    /// Retrying after a temporary error, which `last_error` contains.
    Retrying,
    /// Halted by an error that requires an operator, which `last_error` contains.
    Failed,
    /// Stopped until an operator confirms with `lantern source accept` whether this is the same stream: `last_error`
    /// describes the doubt.
    Undecided,
    /// Stopped normally.
    Stopped,
    /// This host does not read the source: another host of the database is about to, and has not reported it yet. `paused`
    /// contains the reason.
    Standby,
}

impl ProjectionState {
    /// All states, in the order of declaration.
    pub const ALL: [Self; 9] = [
        Self::Starting,
        Self::WaitingForStream,
        Self::Running,
        Self::Paused,
        Self::Retrying,
        Self::Failed,
        Self::Undecided,
        Self::Stopped,
        Self::Standby,
    ];

    /// The name in the API and the metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::WaitingForStream => "waiting-for-stream",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Retrying => "retrying",
            Self::Failed => "failed",
            Self::Undecided => "undecided",
            Self::Stopped => "stopped",
            Self::Standby => "standby",
        }
    }
}

/// The kind of a warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProjectionWarningKind {
    /// The broker rejects the acknowledgements of this source.
    AcknowledgementsRefused,
    /// The broker deletes the consumer, and messages with it, when the host is stopped for a long time.
    ConsumerExpires,
    /// A subject filter of this source matches nothing that the stream can hold.
    FilterMatchesNothing,
    /// The plugin's version declares tables that another supported database cannot hold.
    NotPortable,
    /// A server of the broker has a version that can delete a stream's data.
    ServerLosesData,
    /// One server of a cluster stores the stream.
    SingleReplica,
    /// The broker confirms messages of the stream before it writes them to disk.
    PersistedLater,
}

/// A condition that needs attention although the source runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProjectionWarning {
    /// The kind of the warning.
    pub kind: ProjectionWarningKind,
    /// The condition and its remedy.
    pub detail: String,
    /// Whether the warning makes the host not ready.
    pub not_ready: bool,
}

/// A replica of a source's stream on a cluster, as the leader reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StreamReplica {
    /// The name of its server.
    pub server: String,
    /// Operations that it is behind the leader.
    pub lag: u64,
    /// Whether it is complete and online.
    pub current: bool,
}

/// One projection (a source of a plugin) in the API.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = Projection)]
pub struct Status {
    /// The plugin's name.
    pub plugin: String,
    /// The plugin's version.
    pub version: String,
    /// The plugin's digest, `sha256:` and 64 hex digits.
    pub digest: String,
    /// The source's name in the plugin.
    pub source: String,
    /// The stream; `null` for core NATS.
    pub stream: Option<String>,
    /// The state.
    pub state: ProjectionState,
    /// Start of this state, in milliseconds since 1970.
    pub state_since_ms: i64,
    /// The name of the host that reads it; `null` if the database has only one host, or if none reads it now.
    pub node: Option<String>,
    /// Reason of the pause or the standby; `null` otherwise.
    pub paused: Option<String>,
    /// The current epoch of the source, from 1.
    pub epoch: u64,
    /// The last sequence whose outcome is committed.
    pub checkpoint: u64,
    /// The last sequence of the stream at the last survey; for core NATS: number of messages received.
    pub last_sequence: Option<u64>,
    /// Messages that wait to be projected, at the last survey of the stream. Surveys continue while the source is
    /// paused or halted. `null` when the number is unknown: there is no stream, or no consumer that counts.
    pub lag: Option<u64>,
    /// Messages handled in this epoch: projected, skipped and dead together.
    pub messages: u64,
    /// Rows that the plugin returned in this epoch: inserted, updated and already present together.
    pub rows: u64,
    /// Rows of this epoch that were inserted. Rows that an earlier version of Lantern recorded for tables with updating
    /// writes count only in `rows`.
    pub inserted: u64,
    /// Rows of this epoch that changed a stored row.
    pub updated: u64,
    /// Rows of this epoch that changed nothing, because a row with their key already existed.
    pub present: u64,
    /// Open dead letters of this source.
    pub dead_letters: u64,
    /// Sequences of this epoch that the stream dropped before the host read them.
    pub missing: u64,
    /// The error that stops it. `null` once it has stored messages again or has nothing left to read.
    pub last_error: Option<String>,
    /// When that error occurred last, in milliseconds since 1970.
    pub last_error_at_ms: Option<i64>,
    /// Start of a stall (no progress although messages wait), in milliseconds since 1970; `null` while it makes
    /// progress.
    pub stalled_since_ms: Option<i64>,
    /// Conditions that need attention although the source runs, at the last survey of the stream.
    pub warnings: Vec<ProjectionWarning>,
    /// The replicas of the stream besides its leader, at the last survey; empty on a single server and without a leader.
    pub replicas: Vec<StreamReplica>,
}

impl Status {
    /// The status of a new projection.
    pub fn starting(plugin: &str, version: &str, digest: &str, source: &str, stream: Option<String>) -> Self {
        Self {
            plugin: plugin.to_owned(),
            version: version.to_owned(),
            digest: digest.to_owned(),
            source: source.to_owned(),
            stream,
            state: ProjectionState::Starting,
            state_since_ms: now_ms(),
            node: None,
            paused: None,
            epoch: 0,
            checkpoint: 0,
            last_sequence: None,
            lag: None,
            messages: 0,
            rows: 0,
            inserted: 0,
            updated: 0,
            present: 0,
            dead_letters: 0,
            missing: 0,
            last_error: None,
            last_error_at_ms: None,
            stalled_since_ms: None,
            warnings: Vec::new(),
            replicas: Vec::new(),
        }
    }

    /// Enters a state other than a pause.
    pub fn enter(&mut self, state: ProjectionState) {
        if self.state != state {
            self.state = state;
            self.state_since_ms = now_ms();
        }
        self.paused = None;
    }

    /// Enters a pause with its reason, which is not an error, and clears earlier errors.
    pub fn pause(&mut self, reason: String) {
        self.enter(ProjectionState::Paused);
        self.paused = Some(reason);
        self.stalled_since_ms = None;
        self.clear_error();
    }

    /// Enters a state because of an error.
    pub fn fail(&mut self, state: ProjectionState, error: String) {
        self.enter(state);
        self.last_error = Some(error);
        self.last_error_at_ms = Some(now_ms());
    }

    /// Records whether the source makes no progress although messages wait.
    pub fn set_stalled(&mut self, is_stalled: bool) {
        self.stalled_since_ms = match self.stalled_since_ms {
            Some(since) if is_stalled => Some(since),
            None if is_stalled => Some(now_ms()),
            _ => None,
        };
    }

    /// Clears the error.
    pub fn clear_error(&mut self) {
        self.last_error = None;
        self.last_error_at_ms = None;
    }
}

fn now_ms() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

/// All projections of the host. Cheap to clone.
#[derive(Clone, Default)]
pub struct Registry {
    projections: Arc<Mutex<Vec<watch::Receiver<Status>>>>,
}

impl Registry {
    /// Adds a projection; it stays listed until it is removed, even after it has stopped.
    pub fn add(&self, status: watch::Receiver<Status>) {
        self.projections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(status);
    }

    /// Removes a projection.
    pub fn remove(&self, plugin: &str, source: &str) {
        self.projections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|status| {
                let status = status.borrow();
                status.plugin != plugin || status.source != source
            });
    }

    /// The current status of each projection, ordered by plugin and source.
    pub fn snapshot(&self) -> Vec<Status> {
        let projections = self.projections.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<Status> = projections.iter().map(|status| status.borrow().clone()).collect();
        all.sort_by(|a, b| (&a.plugin, &a.source).cmp(&(&b.plugin, &b.source)));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_named_as_the_api_writes_them() {
        for state in ProjectionState::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
    }

    #[test]
    fn a_pause_is_not_an_error_and_an_error_has_a_time() {
        let mut status = Status::starting("things", "1.0.0", "sha256:00", "events", None);
        status.fail(ProjectionState::Retrying, "disk full".into());
        assert_eq!(status.last_error.as_deref(), Some("disk full"));
        assert!(status.last_error_at_ms.is_some());
        status.pause("maintenance".into());
        assert_eq!(status.paused.as_deref(), Some("maintenance"));
        assert_eq!((&status.last_error, status.last_error_at_ms), (&None, None));
        status.enter(ProjectionState::Running);
        assert_eq!(status.paused, None);
    }
}
