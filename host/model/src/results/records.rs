//! The records of the host about its sources: dead letters, gaps and the ledger.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};

use crate::batch::RejectionClass;

/// States of a dead letter.
pub const DEAD_LETTER_STATES: [&str; 4] = ["open", "resolved", "discarded", "forgotten"];

/// A message that the host could not project.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetter {
    /// Identifier.
    pub id: i64,
    /// Plugin.
    pub plugin: String,
    /// Source.
    pub source: String,
    /// Epoch of the source.
    pub epoch: i64,
    /// `_origin` of the epoch's rows.
    pub origin: i64,
    /// Stream; null for core NATS.
    pub stream: Option<String>,
    /// Sequence of the message in its epoch.
    pub sequence: i64,
    /// Subject of the message.
    pub subject: String,
    /// Publication time (RFC 3339).
    pub published: String,
    /// Headers of the message: name and value.
    pub headers: Vec<(String, String)>,
    /// Payload in base64.
    pub payload_base64: String,
    /// Payload as text; null if it is not UTF-8.
    pub payload_text: Option<String>,
    /// Class of the rejection.
    #[schema(value_type = RejectionClass)]
    pub class: String,
    /// Reason of the last rejection, for people.
    pub reason: String,
    /// Version that rejected it last.
    pub version: String,
    /// Digest of that version.
    pub digest: String,
    /// Number of attempts.
    pub attempts: i64,
    /// `open`, `resolved`, `discarded` or `forgotten` (erased; the host keeps nothing of the message).
    #[schema(schema_with = state_schema)]
    pub state: String,
    /// Time of the first rejection (RFC 3339).
    pub first_at: String,
    /// Time of the last attempt (RFC 3339).
    pub last_at: String,
}

/// A gap: sequences that the stream lost before the host read them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Gap {
    /// Identifier.
    pub id: i64,
    /// Plugin.
    pub plugin: String,
    /// Source.
    pub source: String,
    /// Epoch of the source.
    pub epoch: i64,
    /// `_origin` of the epoch's rows.
    pub origin: i64,
    /// Stream; null for core NATS.
    pub stream: Option<String>,
    /// First lost sequence.
    pub first_sequence: i64,
    /// Last lost sequence.
    pub last_sequence: i64,
    /// Lost sequences.
    pub missing: i64,
    /// Whether all of them were messages of this source; if other subjects share the stream, `missing` is an upper bound.
    pub exact: bool,
    /// Cause of the loss, for people.
    pub reason: String,
    /// Time of detection (RFC 3339).
    pub recorded_at: String,
}

/// A ledger range: consecutive messages that one version handled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LedgerRange {
    /// Identifier.
    pub id: i64,
    /// Plugin.
    pub plugin: String,
    /// Source.
    pub source: String,
    /// Epoch of the source.
    pub epoch: i64,
    /// `_origin` of the epoch's rows.
    pub origin: i64,
    /// Stream; null for core NATS.
    pub stream: Option<String>,
    /// Version that handled the range.
    pub version: String,
    /// Digest of that version.
    pub digest: String,
    /// First sequence.
    pub first_sequence: i64,
    /// Last sequence.
    pub last_sequence: i64,
    /// Messages handled: the sum of projected, skipped and dead.
    pub messages: i64,
    /// Messages that produced rows.
    pub projected: i64,
    /// Messages that the plugin skipped.
    pub skipped: i64,
    /// Messages that became dead letters.
    pub dead: i64,
    /// Sequences that the stream lost before the host read them.
    pub missing: i64,
    /// Rows that the plugin returned: the sum of inserted, updated and present.
    pub rows: i64,
    /// Rows inserted. Ranges that an earlier version of Lantern recorded for tables whose writes update rows count
    /// changes only in `rows`.
    pub inserted: i64,
    /// Rows that updated a stored row.
    pub updated: i64,
    /// Rows that changed nothing because a row with the same key was already present.
    pub present: i64,
    /// Time at which the first batch was stored (RFC 3339).
    pub first_at: String,
    /// Time at which the last batch was stored (RFC 3339).
    pub last_at: String,
}

/// Dead letters of one plugin, source and class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetterGroup {
    /// Plugin.
    pub plugin: String,
    /// Source.
    pub source: String,
    /// Class of the rejections.
    #[schema(value_type = RejectionClass)]
    pub class: String,
    /// Number of dead letters.
    pub dead_letters: u64,
    /// Reasons, most frequent first.
    pub reasons: Vec<DeadLetterReason>,
    /// Number of less frequent reasons that are omitted.
    pub reasons_omitted: u64,
}

/// A reason that several dead letters share.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetterReason {
    /// Pattern with `*` for the parts that differ, as the parameter `reason` accepts it.
    pub like: String,
    /// Number of dead letters.
    pub dead_letters: u64,
    /// Time of the last attempt on one of them (RFC 3339).
    pub last_at: String,
}

fn state_schema() -> Object {
    let states = ObjectBuilder::new().enum_values(Some(DEAD_LETTER_STATES));
    states.schema_type(Type::String).build()
}
