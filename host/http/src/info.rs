//! Information about the host that needs no token: what the dashboard has to know before sign-in.

use axum::Json;
use axum::extract::{self, Request};

use super::guard;
use super::parameters::Parameters;
use super::problem::Problem;
use super::state::State;
use lantern_api::Info;
use lantern_store::reader::sqlite_version;

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
        name: "lantern".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        build: format!("{profile}, SQLite {}", sqlite_version()),
        needs_token: !is_near,
        sql: config.sql,
        started: state.started.to_rfc3339(),
    }))
}
