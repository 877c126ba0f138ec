//! The body of every error response.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An error response (RFC 9457).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Kind of problem, for programs: `urn:lantern:problem:` and a stable identifier.
    #[serde(rename = "type")]
    pub kind: String,
    /// Kind of problem, for people.
    pub title: String,
    /// HTTP status code.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// Explanation of this occurrence.
    pub detail: String,
    /// Path of the request.
    pub instance: String,
    /// All errors, if there is more than one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// Suggested action.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub hint: Option<String>,
}
