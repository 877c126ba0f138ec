//! API tokens.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Whose token a request has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WhoAmI {
    /// The token's name; none without one.
    pub name: Option<String>,
    /// What may be done: as viewer also without a token, on the loopback interface.
    pub role: Role,
}

/// A token, without its text: that is nowhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// What it is called.
    pub name: String,
    /// What it allows.
    pub role: Role,
    /// When it was made (RFC 3339).
    pub created_at: String,
    /// With whose token it was made.
    pub created_by: String,
    /// From when on it is refused; none means never.
    pub expires_at: Option<String>,
    /// When a request last had it, to the minute.
    pub last_used_at: Option<String>,
}

/// A token to be made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// What it is called: small letters, digits, `-` and `_`.
    pub name: String,
    /// What it allows.
    #[schema(value_type = Role)]
    pub role: String,
    /// After how many days it is refused; never when it is absent.
    #[schema(minimum = 1, maximum = 3650)]
    pub expires_in_days: Option<u32>,
}

/// A token that was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CreatedToken {
    /// What it is called.
    pub name: String,
    /// What it allows.
    pub role: Role,
    /// From when on it is refused (RFC 3339); none means never.
    pub expires_at: Option<String>,
    /// Shown this once.
    pub token: String,
}

/// What a token allows. The later one allows all that the earlier one does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Reads and changes.
    Operator,
}
