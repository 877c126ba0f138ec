//! Entries of the audit.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::AuditOutcome;

/// An entry of the audit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
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
