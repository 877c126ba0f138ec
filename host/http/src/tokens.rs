//! Tokens: made, listed and revoked; and whose token a request has.

use std::time::Duration;

use axum::Json;
use axum::extract::{self, Path, rejection::PathRejection};
use axum::http::{StatusCode, Uri};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::State;
use super::access::Role;
use super::change::{AuditNote, Input};
use super::gate::{Asks, Operator};
use super::parameters::Parameters;
use super::problem::Problem;
use lantern_model::batch::Timestamp;
use lantern_model::schema::TokenName;

/// Ten years: longer is never.
const EXPIRY_DAYS_MAX: u32 = 3_650;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Whose token a request has.
#[derive(Serialize, ToSchema)]
pub struct WhoAmI {
    /// The token's name; none without one.
    name: Option<String>,
    /// What may be done: as viewer also without a token, on the loopback interface.
    #[schema(value_type = Role)]
    role: &'static str,
}

pub async fn who_am_i(Asks(principal): Asks, uri: Uri) -> Result<Json<WhoAmI>, Problem> {
    Parameters::parse(&uri, &[])?;
    let role = principal
        .as_ref()
        .map_or(Role::Viewer, |principal| principal.role);
    Ok(Json(WhoAmI {
        role: role.as_str(),
        name: principal.map(|principal| principal.name),
    }))
}

/// A token, without its text: that is nowhere.
#[derive(Serialize, ToSchema)]
pub struct Token {
    /// What it is called.
    name: String,
    /// What it allows.
    #[schema(value_type = Role)]
    role: &'static str,
    /// When it was made (RFC 3339).
    created_at: String,
    /// With whose token it was made.
    created_by: String,
    /// From when on it is refused; none means never.
    expires_at: Option<String>,
    /// When a request last had it, to the minute.
    last_used_at: Option<String>,
}

pub async fn list(
    extract::State(state): extract::State<State>,
    uri: Uri,
) -> Result<Json<Vec<Token>>, Problem> {
    Parameters::parse(&uri, &[])?;
    let kept = state.reader.tokens().await?;
    let tokens = kept.into_iter().map(|token| Token {
        name: token.name,
        role: token.role.as_str(),
        created_at: token.created_at.to_rfc3339(),
        created_by: token.created_by,
        expires_at: token.expires_at.map(Timestamp::to_rfc3339),
        last_used_at: token.last_used_at.map(Timestamp::to_rfc3339),
    });
    Ok(Json(tokens.collect()))
}

/// A token to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewToken)]
pub struct Create {
    /// What it is called: small letters, digits, `-` and `_`.
    name: String,
    /// What it allows.
    #[schema(value_type = Role)]
    role: String,
    /// After how many days it is refused; never when it is absent.
    #[schema(minimum = 1, maximum = 3650)]
    expires_in_days: Option<u32>,
}

/// A token that was made.
#[derive(Serialize, ToSchema)]
#[schema(as = CreatedToken)]
pub struct Created {
    /// What it is called.
    name: String,
    /// What it allows.
    #[schema(value_type = Role)]
    role: &'static str,
    /// From when on it is refused (RFC 3339); none means never.
    expires_at: Option<String>,
    /// Shown this once.
    token: String,
}

pub async fn create(
    extract::State(state): extract::State<State>,
    Operator(operator): Operator,
    note: AuditNote,
    Input(asked): Input<Create>,
) -> Result<(StatusCode, Json<Created>), Problem> {
    let name = TokenName::parse(&asked.name).map_err(Problem::bad_request)?;
    let role = Role::parse(&asked.role).map_err(Problem::bad_request)?;
    let expires_at = asked.expires_in_days.map(expiry).transpose()?;
    let until = expires_at.map_or_else(
        || "without an end".to_owned(),
        |at| format!("until {}", at.to_rfc3339()),
    );
    note.detail(format!("token {name}, role {}, {until}", role.as_str()));
    let text = state
        .access
        .create(name.clone(), role, &operator.name, expires_at, note.done())
        .await?;
    let created = Created {
        name: name.to_string(),
        role: role.as_str(),
        expires_at: expires_at.map(Timestamp::to_rfc3339),
        token: text.as_str().to_owned(),
    };
    Ok((StatusCode::CREATED, Json(created)))
}

fn expiry(days: u32) -> Result<Timestamp, Problem> {
    if !(1..=EXPIRY_DAYS_MAX).contains(&days) {
        return Err(Problem::bad_request(format!(
            "expires_in_days is a whole number from 1 to {EXPIRY_DAYS_MAX}"
        )));
    }
    let micros = i64::try_from((DAY * days).as_micros()).unwrap_or(i64::MAX);
    Ok(Timestamp(Timestamp::now().0.saturating_add(micros)))
}

pub async fn revoke(
    extract::State(state): extract::State<State>,
    path: Result<Path<String>, PathRejection>,
    note: AuditNote,
) -> Result<StatusCode, Problem> {
    let Path(name) = path.map_err(|error| Problem::bad_request(error.body_text()))?;
    let name = TokenName::parse(&name).map_err(Problem::bad_request)?;
    note.detail(format!("token {name}"));
    state.access.revoke(&name, note.done()).await?;
    Ok(StatusCode::NO_CONTENT)
}
