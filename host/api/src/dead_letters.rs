//! Dead letters and requests about them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};

use lantern_model::batch::RejectionClass;

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

/// Dead letters grouped by reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetterReasons {
    /// The groups, largest first.
    pub groups: Vec<DeadLetterGroup>,
    /// Whether all dead letters were counted; otherwise only the newest.
    pub exact: bool,
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

/// Filter for open dead letters; absent fields match everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(examples(json!({ "plugin": "orders" })))]
pub struct DeadLetterSelection {
    /// Plugin.
    pub plugin: Option<String>,
    /// Source.
    pub source: Option<String>,
    /// Class of the rejection.
    #[schema(value_type = Option<RejectionClass>)]
    pub class: Option<String>,
    /// Reason; `*` matches any text.
    pub reason: Option<String>,
    /// Earliest time of the first rejection (RFC 3339).
    pub since: Option<String>,
    /// The first rejection was before this time (RFC 3339).
    pub until: Option<String>,
    /// Identifier.
    pub id: Option<i64>,
    /// Confirms that a filter without any other field applies to all open dead letters.
    pub all: bool,
}

/// Result of retrying dead letters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RetryTotals {
    /// Dead letters retried.
    pub retried: u64,
    /// Of these, resolved: their messages became rows or were skipped.
    pub resolved: u64,
    /// Rows inserted.
    pub inserted: u64,
    /// Rows that updated a stored row.
    pub updated: u64,
    /// Returned rows that changed nothing, because a row with their key already existed.
    pub present: u64,
}

/// Result of discarding dead letters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Discarded {
    /// Number of dead letters.
    pub discarded: u64,
}

fn state_schema() -> Object {
    let states = ObjectBuilder::new().enum_values(Some(DEAD_LETTER_STATES));
    states.schema_type(Type::String).build()
}
