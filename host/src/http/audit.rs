//! The audit: who did what, and how it ended.

use axum::Json;
use axum::extract;
use axum::http::Uri;
use serde::Serialize;

use super::State;
use super::parameters::Parameters;
use super::problem::Problem;
use super::records::{List, after};
use crate::schema::PluginName;
use crate::store::reader::{AuditFilter, AuditRecord};

#[derive(Serialize)]
pub struct Entry {
    id: i64,
    at: String,
    actor: String,
    action: String,
    plugin: Option<String>,
    digest: Option<String>,
    outcome: String,
    detail: String,
}

pub async fn list(
    extract::State(state): extract::State<State>,
    uri: Uri,
) -> Result<Json<List<Entry>>, Problem> {
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
    Ok(List::of("audit", page, show))
}

fn show(entry: AuditRecord) -> Entry {
    Entry {
        id: entry.id,
        at: entry.at.to_rfc3339(),
        actor: entry.actor,
        action: entry.action,
        plugin: entry.plugin,
        digest: entry.digest,
        outcome: entry.outcome,
        detail: entry.detail,
    }
}
