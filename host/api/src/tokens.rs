//! API tokens.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use lantern_model::actor::Role;

/// The token of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WhoAmI {
    /// Name of the token; null without a token.
    pub name: Option<String>,
    /// Role of the request; `viewer` without a token on the loopback interface.
    pub role: Role,
}

/// A token. The host does not store its text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// Name.
    pub name: String,
    /// Role.
    pub role: Role,
    /// Creation time (RFC 3339).
    pub created_at: String,
    /// Name of the token that created it.
    pub created_by: String,
    /// Expiry (RFC 3339); null if it does not expire.
    pub expires_at: Option<String>,
    /// Last use (RFC 3339), accurate to a minute; null if never used.
    pub last_used_at: Option<String>,
}

/// A token to create.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// Name: lowercase letters, digits, `-` and `_`.
    pub name: String,
    /// Role.
    #[schema(value_type = Role)]
    pub role: String,
    /// Days until the token expires; without it the token does not expire.
    #[schema(minimum = 1, maximum = 3650)]
    pub expires_in_days: Option<u32>,
}

/// A created token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CreatedToken {
    /// Name.
    pub name: String,
    /// Role.
    pub role: Role,
    /// Expiry (RFC 3339); null if it does not expire.
    pub expires_at: Option<String>,
    /// Text of the token. No other response contains it.
    pub token: String,
}
