//! The provenance of a row, the work of a version, and the result of a reprojection.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::row::RowView;
use crate::identity::RowIdentity;

/// A row and its provenance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Trace {
    /// The table.
    pub table: String,
    /// The identity of the row.
    pub id: RowIdentity,
    /// The row's columns; times in RFC 3339, bytes in base64, long values truncated.
    #[schema(value_type = Object)]
    pub row: RowView,
    /// The plugin.
    pub plugin: String,
    /// The version that wrote it; none where the ledger does not know.
    pub version: Option<String>,
    /// That version's digest.
    pub digest: Option<String>,
    /// Whether its message was a dead letter that a retry resolved.
    pub was_dead_letter: bool,
    /// The source.
    pub source: String,
    /// The stream; none for core NATS.
    pub stream: Option<String>,
    /// The epoch of the source.
    pub epoch: u64,
    /// The sequence of the message.
    pub sequence: u64,
    /// A limitation of this answer.
    pub note: Option<String>,
    /// The message, if it is still available.
    pub message: Option<TracedMessage>,
    /// Why the message is unavailable.
    pub message_missing: Option<String>,
}

/// The message behind a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TracedMessage {
    /// Where it was found: `stream` or `dead-letter`.
    pub found_in: String,
    /// The subject of the message.
    pub subject: String,
    /// Publication time (RFC 3339).
    pub published: String,
    /// Its headers.
    pub headers: Vec<(String, String)>,
    /// Size of the payload in bytes.
    pub payload_bytes: usize,
    /// The payload, if it is UTF-8 text.
    pub payload_text: Option<String>,
    /// The payload in base64.
    pub payload_base64: String,
}

/// The work of a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VersionWork {
    /// The plugin.
    pub plugin: String,
    /// The version number.
    pub version: String,
    /// `sha256:` and 64 hex digits.
    pub digest: String,
    /// The ranges of messages that it handled, in order.
    pub ranges: Vec<WorkRange>,
    /// Dead letters, of any range, that it resolved.
    pub resolved: u64,
}

/// A range of messages that one version handled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkRange {
    /// The source.
    pub source: String,
    /// The stream; none for core NATS.
    pub stream: Option<String>,
    /// The epoch of the source.
    pub epoch: u64,
    /// The first sequence.
    pub first_sequence: u64,
    /// The last sequence.
    pub last_sequence: u64,
    /// Messages handled: projected, skipped and dead together.
    pub messages: u64,
    /// Messages that produced rows.
    pub projected: u64,
    /// Messages that the plugin skipped.
    pub skipped: u64,
    /// Messages that became dead letters.
    pub dead: u64,
    /// Sequences that were gone from the stream before the host read them.
    pub missing: u64,
    /// Number of rows of the range that exist now.
    pub row_count: u64,
    /// The same by table.
    pub row_count_by_table: BTreeMap<String, u64>,
    /// When the first batch was committed (RFC 3339).
    pub first_at: String,
    /// When the last batch was committed.
    pub last_at: String,
}

/// The result of a reprojection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reprojected {
    /// The plugin.
    pub plugin: String,
    /// The version whose work was replaced.
    pub from: String,
    /// Its digest.
    pub from_digest: String,
    /// The version that replaced it.
    pub to: String,
    /// Its digest.
    pub to_digest: String,
    /// Messages handled again.
    pub messages: u64,
    /// Of these, former dead letters that the replaced version had resolved.
    pub former_dead_letters: u64,
    /// Rows of the replaced version that were removed.
    pub rows_removed: u64,
    /// Rows inserted.
    pub inserted: u64,
    /// Rows that updated a stored row.
    pub updated: u64,
    /// Returned rows that changed nothing, because a row with their key already existed.
    pub present: u64,
    /// Dead letters resolved.
    pub resolved: u64,
    /// Messages that became dead letters.
    pub dead: u64,
    /// Messages that left their stream. Their rows stay as the replaced version wrote them.
    pub messages_gone: u64,
    /// Why messages are gone.
    pub notes: Vec<String>,
    /// Why it ended early. The remaining ranges still name the replaced version, so it can be repeated.
    pub partial: Option<String>,
}
