//! The outcome of an operation in the audit.

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
