//! Dead letters and requests about them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use lantern_model::batch::RejectionClass;
use lantern_model::results::records::DeadLetterGroup;

/// Dead letters grouped by reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetterReasons {
    /// The groups, largest first.
    pub groups: Vec<DeadLetterGroup>,
    /// Whether all dead letters were counted; otherwise only the newest.
    pub exact: bool,
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
