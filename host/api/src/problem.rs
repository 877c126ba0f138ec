//! The body of every error response.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Why there is no other answer (RFC 9457).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// What kind of problem it is, for programs: `urn:lantern:problem:` and a word.
    #[serde(rename = "type")]
    pub kind: String,
    /// What kind of problem it is, for people.
    pub title: String,
    /// The answer's status.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// What is wrong in this case.
    pub detail: String,
    /// The path that was asked for.
    pub instance: String,
    /// Each thing that is wrong, where it is more than one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub hint: Option<String>,
}
