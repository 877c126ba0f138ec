//! The host as a whole: readiness, version, proof of its identity.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One thing that has to be well for the host to be ready.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Check {
    /// `broker`, `database`, `disk`, or `projection:PLUGIN/SOURCE`.
    pub name: String,
    /// Whether it is well.
    pub ok: bool,
    /// How it is, in words.
    pub detail: String,
}

/// Whether all is well.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Readiness {
    /// Whether every check passes.
    pub ready: bool,
    /// What was looked at.
    pub checks: Vec<Check>,
}

/// The host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Info {
    /// `lantern`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it was built with, and how.
    pub build: String,
    /// Whether a read needs a token, for whoever asks the way that this was asked.
    pub needs_token: bool,
    /// Whether questions in SQL are answered.
    pub sql: bool,
    /// When it started (RFC 3339).
    pub started: String,
}

/// The proof.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Proof {
    /// HMAC-SHA-256 with the key in the data directory's `host.key`, in base64url.
    pub proof: String,
}
