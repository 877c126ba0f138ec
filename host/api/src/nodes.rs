//! The hosts of one database.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A host of the database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// The URL of its API.
    pub url: String,
    /// Its version of Lantern.
    pub version: String,
    /// Start of its process (RFC 3339).
    pub started_at: String,
    /// Whether it has renewed its leases in time.
    pub alive: bool,
    /// Whether it is the host that answers.
    pub answers: bool,
    /// The plugins that it runs, by name.
    pub plugins: Vec<String>,
    /// The jobs of which one host is enough and that it does.
    pub jobs: Vec<String>,
    /// The plugins whose active versions it has loaded, by name.
    pub ready: Vec<String>,
}
