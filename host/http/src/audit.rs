//! The audit: who did what, and how it ended.

use axum::Json;
use axum::extract;
use axum::http::Uri;
use serde::Serialize;
use utoipa::ToSchema;

use super::State;
use super::parameters::Parameters;
use super::problem::Problem;
use super::records::{List, after};
use lantern_model::batch::Timestamp;
use lantern_model::schema::PluginName;
use lantern_store::AuditOutcome;
use lantern_store::reader::{AuditFilter, AuditRecord};

/// Who did what, and how it ended.
#[derive(Serialize, ToSchema)]
#[schema(as = AuditEntry)]
pub struct Entry {
    /// Its number.
    id: i64,
    /// When it ended, or began where it has not ended (RFC 3339).
    at: String,
    /// When it began (RFC 3339), for a change that has ended.
    began_at: Option<String>,
    /// A token's name; the part of the host that acted, such as `(automatic rollback)`, `(plugin directory)`, `(rebuild)` or
    /// `(host)`; or `(nobody)`.
    actor: String,
    /// What was done, as `noun.verb`.
    action: String,
    /// The plugin that it is about.
    plugin: Option<String>,
    /// The version that it is about.
    digest: Option<String>,
    /// How it ended.
    #[schema(value_type = AuditOutcome)]
    outcome: String,
    /// What changed, or why not, in words. Of a change that has not ended, the request.
    detail: String,
    /// SHA-256 of this entry and all entries before it, in hexadecimal. `lantern check --audit-head` proves that it is still
    /// part of the audit.
    hash: Option<String>,
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
        began_at: entry.began_at.map(Timestamp::to_rfc3339),
        hash: entry.hash.map(|hash| hash.to_string()),
    }
}
