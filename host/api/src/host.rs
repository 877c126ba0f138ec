//! The host as a whole: readiness, version, proof of its identity.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One readiness check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Check {
    /// `broker`, `database`, `disk`, or `projection:PLUGIN/SOURCE`.
    pub name: String,
    /// Whether the check passes.
    pub ok: bool,
    /// Explanation for people.
    pub detail: String,
}

/// Result of the readiness checks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Readiness {
    /// Whether every check passes.
    pub ready: bool,
    /// The checks.
    pub checks: Vec<Check>,
}

/// Information about the host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Info {
    /// `lantern`.
    pub name: String,
    /// Version of Lantern.
    pub version: String,
    /// Build profile and version of SQLite.
    pub build: String,
    /// Whether a read needs a token when it is sent the same way as this request.
    pub needs_token: bool,
    /// Whether the host accepts SQL queries.
    pub sql: bool,
    /// Start time (RFC 3339).
    pub started: String,
}

/// Proof of the host's identity.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Proof {
    /// HMAC-SHA-256 with the key from the data directory's `host.key`, in base64url.
    pub proof: String,
}
