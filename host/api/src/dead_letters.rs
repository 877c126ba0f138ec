//! Dead letters and requests about them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};

use lantern_model::batch::RejectionClass;

/// What may have become of a letter.
pub const DEAD_LETTER_STATES: [&str; 4] = ["open", "resolved", "discarded", "forgotten"];

/// A message that could not be projected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetter {
    /// Its number.
    pub id: i64,
    /// The plugin.
    pub plugin: String,
    /// The source.
    pub source: String,
    /// Which history of the source.
    pub epoch: i64,
    /// The stream; none for core NATS.
    pub stream: Option<String>,
    /// The sequence of the message in it.
    pub sequence: i64,
    /// The subject that it was published to.
    pub subject: String,
    /// When (RFC 3339).
    pub published: String,
    /// Its headers: name and value.
    pub headers: Vec<(String, String)>,
    /// The payload.
    pub payload_base64: String,
    /// The payload once more, when it is UTF-8.
    pub payload_text: Option<String>,
    /// The kind of reason.
    #[schema(value_type = RejectionClass)]
    pub class: String,
    /// Why, in words.
    pub reason: String,
    /// The version that rejected it last.
    pub version: String,
    /// That version's digest.
    pub digest: String,
    /// How often it was tried.
    pub attempts: i64,
    /// `open`, `resolved`, `discarded` or `forgotten` (erased; nothing of the message is left).
    #[schema(schema_with = state_words)]
    pub state: String,
    /// When it was first rejected (RFC 3339).
    pub first_at: String,
    /// When it was last tried.
    pub last_at: String,
}

/// Why messages could not be read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetterReasons {
    /// The largest first.
    pub groups: Vec<DeadLetterGroup>,
    /// Whether all letters were looked at, or only the newest.
    pub exact: bool,
}

/// Dead letters of one plugin and source that are of one class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetterGroup {
    /// The plugin.
    pub plugin: String,
    /// The source.
    pub source: String,
    /// The class of their reasons.
    #[schema(value_type = RejectionClass)]
    pub class: String,
    /// How many.
    pub letters: u64,
    /// The most frequent first.
    pub reasons: Vec<DeadLetterReason>,
    /// How many rarer ones are left out.
    pub left_out: u64,
}

/// What the reasons of some dead letters have in common.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetterReason {
    /// A star stands for what differs; the parameter `reason` takes it.
    pub like: String,
    /// How many letters.
    pub letters: u64,
    /// When one of them was last tried (RFC 3339).
    pub last_at: String,
}

/// Which open letters are meant. What is not said is not asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(examples(json!({ "plugin": "orders" })))]
pub struct WhichDeadLetters {
    /// Of this plugin.
    pub plugin: Option<String>,
    /// Of this source.
    pub source: Option<String>,
    /// Of this kind.
    #[schema(value_type = Option<RejectionClass>)]
    pub class: Option<String>,
    /// With `*` for any text.
    pub reason: Option<String>,
    /// First rejected at this time or later (RFC 3339).
    pub since: Option<String>,
    /// First rejected before this time (RFC 3339).
    pub until: Option<String>,
    /// This one.
    pub id: Option<i64>,
    /// That really all are meant, where nothing else is said.
    pub all: bool,
}

/// Letters that were given up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Discarded {
    /// How many.
    pub discarded: u64,
}

fn state_words() -> Object {
    let states = ObjectBuilder::new().enum_values(Some(DEAD_LETTER_STATES));
    states.schema_type(Type::String).build()
}
