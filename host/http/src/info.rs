//! What the host says of itself to everybody who can connect: enough for a page to know how to begin.

use axum::Json;
use axum::extract::{self, Request};
use serde::Serialize;
use utoipa::ToSchema;

use super::State;
use super::guard;
use super::parameters::Parameters;
use super::problem::Problem;
use lantern_store::reader::sqlite_version;

/// The host.
#[derive(Serialize, ToSchema)]
pub struct Info {
    /// `lantern`.
    name: &'static str,
    /// Its version.
    version: &'static str,
    /// What it was built with, and how.
    build: String,
    /// Whether a read needs a token, for whoever asks the way that this was asked.
    needs_token: bool,
    /// Whether questions in SQL are answered.
    sql: bool,
    /// When it started (RFC 3339).
    started: String,
}

pub async fn info(
    extract::State(state): extract::State<State>,
    request: Request,
) -> Result<Json<Info>, Problem> {
    Parameters::parse(request.uri(), &[])?;
    let config = state.access.config();
    let is_near = config.is_near(guard::named(&request, &config.hosts)?);
    let profile = if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    };
    Ok(Json(Info {
        name: "lantern",
        version: env!("CARGO_PKG_VERSION"),
        build: format!("{profile}, SQLite {}", sqlite_version()),
        needs_token: !is_near,
        sql: config.sql,
        started: state.started.to_rfc3339(),
    }))
}
