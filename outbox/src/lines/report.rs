//! Options, result and errors of publishing lines.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::broker::DrainOptions;
use crate::drain::DrainError;
use crate::event::InvalidEvent;
use crate::outbox::{OutboxError, PutError};
use crate::status::{BlockedSubject, LastError};

/// How the input is split into events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InputFormat {
    /// Each line is one event and must be JSON; blank lines are skipped.
    #[default]
    JsonLines,
    /// Each line is one event, without its line ending.
    Lines,
    /// The whole input is one event.
    Whole,
}

/// Options for publishing lines.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LinesOptions {
    /// How the input is split into events.
    pub format: InputFormat,
    /// The top-level JSON field with the message id (text or a number), by which the broker detects repeated events. By default
    /// the outbox assigns an id to each event.
    pub id_field: Option<String>,
    /// Headers of every event.
    pub headers: Vec<(String, String)>,
    /// Time limit without progress, for publishing after everything is stored, and for a full disk. Remaining events are left to
    /// the next drain. The default is 30 s.
    pub patience: Duration,
    /// Options of the drain.
    pub drain: DrainOptions,
}

impl Default for LinesOptions {
    fn default() -> Self {
        Self {
            format: InputFormat::default(),
            id_field: None,
            headers: Vec::new(),
            patience: Duration::from_secs(30),
            drain: DrainOptions {
                // Shorter than the patience, so that a missing acknowledgement is reported as the reason.
                ack_timeout: Duration::from_secs(10),
                ..DrainOptions::default()
            },
        }
    }
}

/// The result of publishing lines.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct LinesReport {
    /// Lines read, including blank and bad ones.
    pub lines: u64,
    /// Lines stored as events.
    pub stored: u64,
    /// Stored lines that the broker has acknowledged.
    pub published: u64,
    /// Events that the broker already had, according to this process' drain.
    pub duplicates: u64,
    /// Stored lines that were moved to `aside/`.
    pub aside: u64,
    /// Stored lines that are still pending. The next drain publishes them.
    pub waiting: u64,
    /// Invalid lines.
    pub bad: u64,
    /// The first hundred bad lines.
    pub bad_lines: Vec<BadLine>,
    /// The first hundred stored lines that are in `aside/` or pending.
    pub unpublished: Vec<Unpublished>,
    /// Subjects that the broker rejected at the end.
    pub blocked: Vec<BlockedSubject>,
    /// The last error; if lines are pending, the reason.
    pub last_error: Option<LastError>,
}

/// An invalid line. Other lines are not affected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// The line number, counted from 1.
    pub number: u64,
    /// The problem.
    pub reason: String,
}

/// A stored line without an acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpublished {
    /// The line number, counted from 1.
    pub line: u64,
    /// The file of its event.
    pub file: PathBuf,
    /// Why it is in `aside/`; none for a pending event.
    pub aside: Option<String>,
}

/// Not all lines could be stored. Lines counted as stored are safe in the outbox.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinesError {
    /// The subject or the headers are invalid. Nothing was read.
    #[error("invalid subject or headers")]
    Invalid(#[source] InvalidEvent),
    /// Reading the input failed.
    #[error("cannot read line {line}")]
    Read {
        /// The line number, counted from 1.
        line: u64,
        /// The result for the lines before.
        report: Box<LinesReport>,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
    /// An event could not be stored.
    #[error("cannot store the events")]
    Put {
        /// The result for the lines before.
        report: Box<LinesReport>,
        /// The cause.
        #[source]
        source: PutError,
    },
    /// The outbox could not be read.
    #[error(transparent)]
    Outbox(#[from] OutboxError),
    /// Nothing could be published. The lines read are stored and pending.
    #[error("the events are stored but not published")]
    Drain {
        /// The result for the lines.
        report: Box<LinesReport>,
        /// The cause.
        #[source]
        source: DrainError,
    },
}
