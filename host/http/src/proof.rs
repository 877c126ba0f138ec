//! Proof of the host's identity, which commands verify before they send a token.

use axum::Json;
use axum::extract;
use axum::http::Uri;

use super::parameters::Parameters;
use super::problem::Problem;
use super::state::State;
use lantern_api::Proof;
use lantern_trust::identity::Nonce;

pub async fn prove(extract::State(state): extract::State<State>, uri: Uri) -> Result<Json<Proof>, Problem> {
    let parameters = Parameters::parse(&uri, &["nonce"])?;
    let nonce = parameters.parsed("nonce", Nonce::parse)?;
    let nonce = nonce.ok_or_else(|| Problem::bad_request("nonce is missing"))?;
    let proof = state.identity.proof(nonce);
    let proof = proof.ok_or_else(|| Problem::busy("the proof cannot be computed"))?;
    Ok(Json(Proof { proof }))
}
