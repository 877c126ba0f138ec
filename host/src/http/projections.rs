//! The projections, and how far they are.

use axum::Json;
use axum::extract;
use axum::http::Uri;

use super::State;
use super::parameters::Parameters;
use super::problem::Problem;
use crate::status::Status;

pub async fn list(
    extract::State(state): extract::State<State>,
    uri: Uri,
) -> Result<Json<Vec<Status>>, Problem> {
    Parameters::parse(&uri, &[])?;
    Ok(Json(state.projections.snapshot()))
}
