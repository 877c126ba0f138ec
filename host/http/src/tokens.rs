//! Creates, lists and revokes tokens.

use std::time::Duration;

use axum::Json;
use axum::extract::{self, Path, rejection::PathRejection};
use axum::http::{StatusCode, Uri};

use super::access::Role;
use super::change::{AuditNote, Input};
use super::gate::{Asks, Operator};
use super::parameters::Parameters;
use super::problem::Problem;
use super::state::State;
use lantern_api::{CreatedToken, NewToken, Token, WhoAmI};
use lantern_model::batch::Timestamp;
use lantern_model::schema::TokenName;

/// Maximum expiry: ten years.
const EXPIRY_DAYS_MAX: u32 = 3_650;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub async fn who_am_i(Asks(principal): Asks, uri: Uri) -> Result<Json<WhoAmI>, Problem> {
    Parameters::parse(&uri, &[])?;
    let role = principal
        .as_ref()
        .map_or(Role::Viewer, |principal| principal.role);
    Ok(Json(WhoAmI {
        role,
        name: principal.map(|principal| principal.name.to_string()),
    }))
}

pub async fn list(
    extract::State(state): extract::State<State>,
    uri: Uri,
) -> Result<Json<Vec<Token>>, Problem> {
    Parameters::parse(&uri, &[])?;
    let kept = state.reader.tokens().await?;
    let tokens = kept.into_iter().map(|token| Token {
        name: token.name,
        role: token.role,
        created_at: token.created_at.to_rfc3339(),
        created_by: token.created_by,
        expires_at: token.expires_at.map(Timestamp::to_rfc3339),
        last_used_at: token.last_used_at.map(Timestamp::to_rfc3339),
    });
    Ok(Json(tokens.collect()))
}

pub async fn create(
    extract::State(state): extract::State<State>,
    Operator(operator): Operator,
    note: AuditNote,
    Input(new): Input<NewToken>,
) -> Result<(StatusCode, Json<CreatedToken>), Problem> {
    let name = TokenName::parse(&new.name).map_err(Problem::bad_request)?;
    let role = Role::parse(&new.role).map_err(Problem::bad_request)?;
    let expires_at = new.expires_in_days.map(expiry).transpose()?;
    let until = expires_at.map_or_else(
        || "without expiry".to_owned(),
        |at| format!("until {}", at.to_rfc3339()),
    );
    note.detail(format!("token {name}, role {}, {until}", role.as_str()));
    let text = state
        .access
        .create(name.clone(), role, &operator, expires_at, note.done())
        .await?;
    let created = CreatedToken {
        name: name.to_string(),
        role,
        expires_at: expires_at.map(Timestamp::to_rfc3339),
        token: text.as_str().to_owned(),
    };
    Ok((StatusCode::CREATED, Json(created)))
}

fn expiry(days: u32) -> Result<Timestamp, Problem> {
    if !(1..=EXPIRY_DAYS_MAX).contains(&days) {
        return Err(Problem::bad_request(format!(
            "expires_in_days must be an integer from 1 to {EXPIRY_DAYS_MAX}"
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
