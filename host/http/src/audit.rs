//! Lists audit entries.

use axum::Json;
use axum::extract;
use axum::http::Uri;

use super::parameters::Parameters;
use super::problem::Problem;
use super::records::{List, after};
use super::state::State;
use lantern_api::AuditRecord;
use lantern_model::schema::PluginName;
use lantern_store::reader::AuditFilter;

pub async fn list(
    extract::State(state): extract::State<State>,
    uri: Uri,
) -> Result<Json<List<AuditRecord>>, Problem> {
    let parameters = Parameters::parse(&uri, &["plugin", "actor", "action", "limit", "cursor"])?;
    let filter = AuditFilter {
        plugin: parameters
            .parsed("plugin", PluginName::parse)?
            .map(|name| name.to_string()),
        actor: parameters.get("actor").map(str::to_owned),
        action: parameters.get("action").map(str::to_owned),
    };
    let page = state
        .reader
        .audit(&filter, parameters.limit()?, after(&parameters, "audit")?)
        .await?;
    Ok(List::of("audit", page))
}
