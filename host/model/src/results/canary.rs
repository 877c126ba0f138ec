//! The report of a canary.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::row::RowView;
use crate::schema::difference::{Difference, Effect};

/// The result of a canary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CanaryReport {
    /// The plugin.
    pub plugin: String,
    /// What the active version did; none when no version is active.
    pub old: Option<CanaryVersion>,
    /// What the candidate did.
    pub new: CanaryVersion,
    /// The comparison of each table.
    pub tables: Vec<TableComparison>,
    /// What the canary read.
    pub sources: Vec<CanarySource>,
    /// The differences between the two descriptions.
    pub differences: Vec<Difference>,
    /// What activation of the candidate costs.
    pub effect: Effect,
    /// Whether activation requires a rebuild.
    pub needs_rebuild: bool,
    /// Duration in milliseconds.
    pub took_ms: u64,
    /// Why the canary did not read and compare the whole input; empty when it did.
    pub partial: Vec<String>,
}

/// What one version did with the messages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CanaryVersion {
    /// The version number.
    pub version: String,
    /// `sha256:` and 64 hex digits.
    pub digest: String,
    /// Messages handled: projected, skipped and rejected together.
    pub messages: u64,
    /// Messages that produced rows.
    pub projected: u64,
    /// Messages that the plugin skipped.
    pub skipped: u64,
    /// Messages rejected by the plugin, the host or the database.
    pub rejected: u64,
    /// Rows that the version returned.
    pub rows: u64,
    /// The rejected messages by class, the most frequent first, with examples.
    pub rejects: Vec<Rejects>,
    /// Failed calls into the plugin: traps, timeouts, unreadable answers.
    pub faults: u64,
    /// Time in the plugin, in milliseconds.
    pub decode_ms: f64,
    /// Time in the plugin for one message, in microseconds.
    pub decode_us_per_message: f64,
    /// Peak of the linear memory, in bytes.
    pub memory_peak_bytes: u64,
}

/// A class of rejections, with some of their reasons.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Rejects {
    /// The class.
    pub class: String,
    /// Rejected messages of this class.
    pub rejected: u64,
    /// The first reasons, with their messages.
    pub examples: Vec<RejectExample>,
}

/// One rejected message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RejectExample {
    /// The source.
    pub source: String,
    /// The message's sequence.
    pub sequence: u64,
    /// The reason.
    pub reason: String,
}

/// What a canary read from one source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CanarySource {
    /// Its name.
    pub source: String,
    /// The stream; none for core NATS.
    pub stream: Option<String>,
    /// Whether the active version reads this origin.
    pub old: bool,
    /// Whether the candidate does.
    pub new: bool,
    /// Messages that the versions handled.
    pub messages: u64,
    /// The first sequence; for core NATS the host counts messages from 1.
    pub first_sequence: Option<u64>,
    /// The last sequence.
    pub last_sequence: Option<u64>,
    /// A remark about the source.
    pub note: Option<String>,
}

/// One table, as filled by two versions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TableComparison {
    /// Its name.
    pub table: String,
    /// The columns that match rows; `_origin`, `_sequence` and `_row` if the table has no key.
    pub key: Vec<String>,
    /// Rows of both versions with equal values.
    pub same: u64,
    /// Rows of both versions with different values.
    pub changed: u64,
    /// Rows of only the active version.
    pub only_old: u64,
    /// Rows of only the candidate.
    pub only_new: u64,
    /// The first differing rows, some of each kind.
    pub examples: Vec<RowExample>,
}

/// A differing row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RowExample {
    /// The source of the message that wrote it last.
    pub source: String,
    /// The sequence of that message.
    pub sequence: u64,
    /// The row of the active version, if it has one.
    #[schema(value_type = Option<Object>)]
    pub old: Option<RowView>,
    /// The row of the candidate, if it has one.
    #[schema(value_type = Option<Object>)]
    pub new: Option<RowView>,
}
