//! The audit: its entries, and the outcome of an operation.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How an action ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AuditOutcome {
    /// It has not ended.
    Started,
    /// It took effect.
    Done,
    /// The request was not permitted or invalid; nothing changed.
    Refused,
    /// The host failed to do it.
    Failed,
    /// The host stopped before it ended; it may have taken effect.
    Interrupted,
}

impl AuditOutcome {
    /// The name in the database and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Done => "done",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }
}

/// An entry of the audit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = AuditEntry)]
pub struct AuditRecord {
    /// Identifier.
    pub id: i64,
    /// Time of the end, or of the start if the change has not ended (RFC 3339).
    pub at: String,
    /// Start time of a change that has ended (RFC 3339).
    pub began_at: Option<String>,
    /// Name of the token; an internal actor such as `(automatic rollback)`, `(plugin directory)`, `(rebuild)` or `(host)`; or
    /// `(nobody)`.
    pub actor: String,
    /// Action, as `noun.verb`.
    pub action: String,
    /// Affected plugin.
    pub plugin: Option<String>,
    /// Digest of the affected version.
    pub digest: Option<String>,
    /// Outcome.
    #[schema(value_type = AuditOutcome)]
    pub outcome: String,
    /// What changed, or why not, for people. The request, for a change that has not ended.
    pub detail: String,
    /// SHA-256 of this entry and all earlier entries, in hexadecimal. `lantern check --audit-head` verifies that it is still
    /// part of the audit.
    pub hash: Option<String>,
}
