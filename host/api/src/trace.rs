//! The provenance of a row, and the work of a version.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use lantern_model::identity::RowIdentity;

/// A row and its provenance.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Trace {
    /// The table.
    pub table: String,
    /// The identity of the row.
    pub id: RowIdentity,
    /// The row's columns; times in RFC 3339, bytes in base64, long values truncated.
    // Raw text keeps the JSON values exactly as they are stored.
    #[schema(value_type = Object)]
    pub row: Box<RawValue>,
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
