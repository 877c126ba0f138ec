//! What a projection shows of itself, and the list of all of them that the faces read. Written by the projection,
//! read by http and metrics; nothing here acts.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use tokio::sync::watch;
use utoipa::ToSchema;

/// What a projection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProjectionState {
    /// Looking at the broker and the database before the first batch.
    Starting,
    /// The broker has no stream of this name yet.
    WaitingForStream,
    /// Reading and storing.
    Running,
    /// An operator paused the plugin, or the consumer on the broker: `paused` has the reason.
    Paused,
    /// Held up by something that may pass by itself: `last_error` says what.
    Retrying,
    /// Halted by something that a person has to mend: `last_error` says what.
    Failed,
    /// Stopped until an operator decides whether the stream is the one that was read: `last_error` says what is not
    /// known, `lantern source accept` decides.
    Undecided,
    /// Ended in order.
    Stopped,
}

impl ProjectionState {
    /// Every state, in the order of its declaration.
    pub const ALL: [Self; 8] = [
        Self::Starting,
        Self::WaitingForStream,
        Self::Running,
        Self::Paused,
        Self::Retrying,
        Self::Failed,
        Self::Undecided,
        Self::Stopped,
    ];

    /// The state as the API and the metrics write it.
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
        }
    }
}

/// What a warning is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProjectionWarningKind {
    /// The broker does not take the acknowledgements of this source.
    AcknowledgementsRefused,
    /// The broker deletes the consumer when the host is stopped for long, and messages with it.
    ConsumerExpires,
    /// A subject filter of this source can match nothing that the stream holds.
    FilterMatchesNothing,
}

/// A condition that needs attention although the source runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ProjectionWarning {
    /// What it is about.
    pub kind: ProjectionWarningKind,
    /// The condition and what can be done about it.
    pub detail: String,
    /// Whether the host is not ready because of it.
    pub not_ready: bool,
}

/// One projection (a plugin's source) as the API shows it.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = Projection)]
pub struct Status {
    /// The plugin's name.
    pub plugin: String,
    /// The plugin's version.
    pub version: String,
    /// The plugin's digest, `sha256:` and 64 hex digits.
    pub digest: String,
    /// The source's name within the plugin.
    pub source: String,
    /// The stream that it reads; none for core NATS.
    pub stream: Option<String>,
    /// What it is doing.
    pub state: ProjectionState,
    /// Since when it has been in this state, in milliseconds since 1970.
    pub state_since_ms: i64,
    /// Why it is paused; `null` when it is not.
    pub paused: Option<String>,
    /// Which history of the stream it is in; starts at 1.
    pub epoch: u64,
    /// The last sequence whose effect is in the database.
    pub checkpoint: u64,
    /// The last sequence of the stream, as the broker said last; for core NATS: messages received.
    pub last_sequence: Option<u64>,
    /// Messages that wait to be projected, as of the last survey of the stream. Surveys continue while the source is
    /// paused or halted. `null` when the number is not known: there is no stream, or no consumer that counts.
    pub lag: Option<u64>,
    /// Messages that became rows, since the beginning of this epoch.
    pub messages: u64,
    /// Rows that the plugin answered with in this epoch: inserted, updated and already present together.
    pub rows: u64,
    /// Rows of this epoch that were inserted. What an earlier version of Lantern recorded for tables whose writes update
    /// rows counts only in `rows`.
    pub inserted: u64,
    /// Rows of this epoch that changed a stored row.
    pub updated: u64,
    /// Rows of this epoch that changed nothing, because a row with their key was there already.
    pub present: u64,
    /// Dead letters of this source that are open.
    pub dead_letters: u64,
    /// Sequences of this epoch that were gone before they were read.
    pub missing: u64,
    /// The error that holds it up. `null` once it has stored messages again or has nothing left to read.
    pub last_error: Option<String>,
    /// When that error occurred last, in milliseconds since 1970.
    pub last_error_at_ms: Option<i64>,
    /// Whether the broker refuses the consumer that the version asks for. Decides about a rollback; not shown.
    #[serde(skip)]
    pub consumer_refused: bool,
    /// Since when (milliseconds since 1970) it has not moved although messages wait; none while it moves.
    pub stalled_since_ms: Option<i64>,
    /// Conditions that need attention although the source runs, as of the last survey of the stream.
    pub warnings: Vec<ProjectionWarning>,
}

impl Status {
    /// The status of a projection that has done nothing yet.
    pub fn starting(plugin: &str, version: &str, digest: &str, source: &str, stream: Option<String>) -> Self {
        Self {
            plugin: plugin.to_owned(),
            version: version.to_owned(),
            digest: digest.to_owned(),
            source: source.to_owned(),
            stream,
            state: ProjectionState::Starting,
            state_since_ms: now_ms(),
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
            consumer_refused: false,
            stalled_since_ms: None,
            warnings: Vec::new(),
        }
    }

    /// Enters a state in which it is not paused.
    pub fn enter(&mut self, state: ProjectionState) {
        if self.state != state {
            self.state = state;
            self.state_since_ms = now_ms();
        }
        self.paused = None;
        self.consumer_refused = false;
    }

    /// Is paused for a reason, which is not an error. What held it up before does not matter while it is paused.
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

    /// The error of before holds it up no longer.
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
    /// Adds a projection; it stays listed until it is removed, also when it has ended.
    pub fn add(&self, status: watch::Receiver<Status>) {
        self.projections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(status);
    }

    /// Takes a projection off the list.
    pub fn remove(&self, plugin: &str, source: &str) {
        self.projections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|status| {
                let status = status.borrow();
                status.plugin != plugin || status.source != source
            });
    }

    /// The present status of each projection, ordered by plugin and source.
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
